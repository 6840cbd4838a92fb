#include "tracer/recorder/linetable.h"

/* Each takes up where `c` stands, and leaves it at the entry that holds the offset, as it was before that entry. */

/* CPython 3.9 Objects/codeobject.c, PyCode_Addr2Line. */
static int64_t line_lnotab(const uint8_t *p, uint32_t bytes, int64_t offset, struct mlz_line_cursor *c) {
  for (; (uint64_t)c->at + 1 < bytes; c->at += 2) {
    int64_t address = c->address + p[c->at];
    if (address > offset) break;
    c->address = address;
    c->line += (int8_t)p[c->at + 1];
  }
  return c->line;
}

/* CPython 3.10 Objects/codeobject.c, advance: (step of the end, step of the line); -128: this range has no line. */
static int64_t line_310(const uint8_t *p, uint32_t bytes, int64_t offset, struct mlz_line_cursor *c) {
  for (; (uint64_t)c->at + 1 < bytes; c->at += 2) {
    int64_t end = c->address + p[c->at];
    int8_t step = (int8_t)p[c->at + 1];
    int64_t line = step == -128 ? c->line : c->line + step;
    if (offset < end) return step == -128 ? 0 : line;
    c->address = end;
    c->line = line;
  }
  return bytes >= 2 ? 0 : c->line;
}

/* 6 bits a byte, lowest first, bit 6: more follow; the lowest bit of the number is the sign. */
static int64_t signed_varint(const uint8_t *p, const uint8_t *end) {
  uint64_t value = 0;
  for (unsigned shift = 0; p < end && shift < 36; shift += 6) {
    uint8_t byte = *p++;
    value |= (uint64_t)(byte & 63) << shift;
    if (!(byte & 64)) break;
  }
  return value & 1 ? -(int64_t)(value >> 1) : (int64_t)(value >> 1);
}

/* CPython 3.11 Objects/locations.md: 1ccccLLL, then bytes below 128 that belong to the entry. */
static int64_t line_311(const uint8_t *table, uint32_t bytes, int64_t offset, struct mlz_line_cursor *c) {
  const uint8_t *p = table + c->at, *end = table + bytes;
  while (p < end) {
    const uint8_t *entry = p;
    unsigned code = *p >> 3 & 15;
    int64_t address = c->address + ((*p & 7) + 1) * 2, line = c->line;
    p++;
    if (code == 13 || code == 14) {
      line += signed_varint(p, end);
    } else if (code >= 10 && code <= 12) {
      line += code - 10;
    }
    if (offset < address) {
      c->at = (uint32_t)(entry - table);
      return code == 15 ? 0 : line;
    }
    while (p < end && !(*p & 128)) p++;
    c->address = address;
    c->line = line;
  }
  c->at = bytes;
  return bytes ? 0 : c->line;
}

uint32_t mlz_linetable_line(unsigned format, const uint8_t *table, uint32_t bytes, int32_t first_line, int32_t offset,
                            struct mlz_line_cursor *c) {
  if (offset < c->address || c->at == 0) *c = (struct mlz_line_cursor){.line = first_line};
  int64_t line = first_line;
  if (offset >= 0) {
    switch (format) {
    case MLZ_LINES_LNOTAB:
      line = line_lnotab(table, bytes, offset, c);
      break;
    case MLZ_LINES_310:
      line = line_310(table, bytes, offset, c);
      break;
    case MLZ_LINES_311:
      line = line_311(table, bytes, offset, c);
      break;
    default:
      break;
    }
  }
  return line > 0 && line <= INT32_MAX ? (uint32_t)line : 0;
}
