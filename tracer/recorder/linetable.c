#include "tracer/recorder/linetable.h"

/* CPython 3.9 Objects/codeobject.c, PyCode_Addr2Line. */
static int64_t line_lnotab(const uint8_t *p, uint32_t bytes, int64_t line, int64_t offset) {
  int64_t address = 0;
  for (uint32_t i = 0; i + 1 < bytes; i += 2) {
    address += p[i];
    if (address > offset) break;
    line += (int8_t)p[i + 1];
  }
  return line;
}

/* CPython 3.10 Objects/codeobject.c, advance: (step of the end, step of the line); -128: this range has no line. */
static int64_t line_310(const uint8_t *p, uint32_t bytes, int64_t line, int64_t offset) {
  int64_t end = 0;
  for (uint32_t i = 0; i + 1 < bytes; i += 2) {
    end += p[i];
    int8_t step = (int8_t)p[i + 1];
    if (step != -128) line += step;
    if (offset < end) return step == -128 ? 0 : line;
  }
  return bytes >= 2 ? 0 : line;
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
static int64_t line_311(const uint8_t *p, uint32_t bytes, int64_t line, int64_t offset) {
  const uint8_t *end = p + bytes;
  int64_t address = 0;
  while (p < end) {
    unsigned code = *p >> 3 & 15;
    address += ((*p & 7) + 1) * 2;
    p++;
    if (code == 13 || code == 14) {
      line += signed_varint(p, end);
    } else if (code >= 10 && code <= 12) {
      line += code - 10;
    }
    if (offset < address) return code == 15 ? 0 : line;
    while (p < end && !(*p & 128)) p++;
  }
  return bytes ? 0 : line;
}

uint32_t mlz_linetable_line(unsigned format, const uint8_t *table, uint32_t bytes, int32_t first_line, int32_t offset) {
  int64_t line = first_line;
  if (offset >= 0) {
    switch (format) {
    case MLZ_LINES_LNOTAB:
      line = line_lnotab(table, bytes, first_line, offset);
      break;
    case MLZ_LINES_310:
      line = line_310(table, bytes, first_line, offset);
      break;
    case MLZ_LINES_311:
      line = line_311(table, bytes, first_line, offset);
      break;
    default:
      break;
    }
  }
  return line > 0 && line <= INT32_MAX ? (uint32_t)line : 0;
}
