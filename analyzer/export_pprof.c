/* pprof's profile.proto (github.com/google/pprof, proto/profile.proto), written by hand: a protocol buffer in a gzip file. The first four values of a sample
 * are those of Go's heap profiles, so that what is written for those holds here too. */
#include "analyzer/export.h"

#include "analyzer/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct message {
  uint8_t *bytes;
  size_t n, room;
};

static void put(struct message *m, const void *bytes, size_t n) {
  if (m->n + n > m->room) {
    m->room = (m->n + n) * 2;
    m->bytes = mlz_text_realloc(m->bytes, m->room, 1);
  }
  if (n) memcpy(m->bytes + m->n, bytes, n);
  m->n += n;
}

static void put_varint(struct message *m, uint64_t v) {
  uint8_t bytes[10];
  size_t n = 0;
  for (; v >= 0x80; v >>= 7) bytes[n++] = (uint8_t)(v | 0x80);
  bytes[n++] = (uint8_t)v;
  put(m, bytes, n);
}

static void put_number(struct message *m, unsigned field, uint64_t v) {
  if (!v) return; /* what is missing is 0 */
  put_varint(m, field << 3);
  put_varint(m, v);
}

static void put_bytes(struct message *m, unsigned field, const void *bytes, size_t n) {
  put_varint(m, field << 3 | 2);
  put_varint(m, n);
  put(m, bytes, n);
}

/* Adds `part` as a field, and empties it. */
static void put_message(struct message *m, unsigned field, struct message *part) {
  put_bytes(m, field, part->bytes, part->n);
  part->n = 0;
}

/* ---- gzip (RFC 1952), its blocks not compressed: such a file is small, and zlib would be a library more ---- */

static uint32_t crc_of(const uint8_t *p, size_t n) {
  static uint32_t table[256];
  for (uint32_t i = 0; !table[255] && i < 256; i++) {
    uint32_t c = i;
    for (unsigned k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ UINT32_C(0xedb88320) : c >> 1;
    table[i] = c;
  }
  uint32_t crc = UINT32_MAX;
  while (n--) crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
  return ~crc;
}

static void put_little(FILE *out, uint32_t v, unsigned bytes) {
  for (; bytes--; v >>= 8) putc((int)(v & 255), out);
}

static void write_gzip(FILE *out, const uint8_t *p, size_t n) {
  static const uint8_t header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
  uint32_t crc = crc_of(p, n), size = (uint32_t)n;
  fwrite(header, 1, sizeof header, out);
  do {
    uint32_t length = n > 0xffff ? 0xffff : (uint32_t)n;
    putc(length == n, out); /* the last block? Kind 0: stored */
    put_little(out, length, 2);
    put_little(out, ~length, 2);
    fwrite(p, 1, length, out);
    p += length;
    n -= length;
  } while (n);
  put_little(out, crc, 4);
  put_little(out, size, 4);
}

/* ---- the profile ---- */

struct profile {
  struct message all, part, inner;
  struct mlz_intern strings, functions;
};

static uint32_t string_of(struct profile *p, const char *text) {
  char *clean = mlz_text_clean(text, true);
  uint32_t number = mlz_intern_text(&p->strings, clean);
  free(clean);
  return number;
}

static void add_value_type(struct profile *p, unsigned field, const char *type, const char *unit) {
  put_number(&p->part, 1, string_of(p, type));
  put_number(&p->part, 2, string_of(p, unit));
  put_message(&p->all, field, &p->part);
}

static const struct {
  const char *type, *unit;
} types[] = {{"alloc_objects", "count"}, {"alloc_space", "bytes"}, {"inuse_objects", "count"},
             {"inuse_space", "bytes"},   {"peak_space", "bytes"},  {"temporary_objects", "count"}};
enum { TYPES = sizeof types / sizeof *types, PEAK_TYPE = 4 };

static void add_types(struct profile *p, enum mlz_metric by, bool has_peak) {
  static const unsigned type_of[] = {1, 0, 3, PEAK_TYPE, 5}; /* by enum mlz_metric */
  for (unsigned i = 0; i < TYPES; i++)
    if (i != PEAK_TYPE || has_peak) add_value_type(p, 1, types[i].type, types[i].unit);
  put_number(&p->all, 14, string_of(p, types[type_of[by]].type));
}

static void add_sample(struct profile *p, const struct mlz_export_rows *r, const struct mlz_export_row *row) {
  double live_count = mlz_export_live_count(row);
  const double values[TYPES] = {
      row->tally.alloc_count, row->tally.alloc_bytes, live_count > 0 ? live_count : 0, mlz_tally_live_bytes(&row->tally),
      row->peak_bytes,        row->tally.temp_count};
  uint32_t n;
  const uint32_t *frames = mlz_export_stack_frames(&r->stacks, row->stack, &n);
  for (uint32_t i = 0; i < n; i++) put_varint(&p->inner, (uint64_t)frames[i] + 1);
  put_message(&p->part, 1, &p->inner);
  for (unsigned i = 0; i < TYPES; i++)
    if (i != PEAK_TYPE || r->has_peak) put_varint(&p->inner, (uint64_t)llround(values[i]));
  put_message(&p->part, 2, &p->inner);
  put_message(&p->all, 2, &p->part);
}

/* Functions and their files, once each, ids from 1. No system name: where it is that of the function, pprof takes the name for one of C++ and cuts
 * "<listcomp>" out of it. */
static uint64_t function_of(struct profile *p, const struct mlz_place *place) {
  uint32_t pair[2] = {string_of(p, place->function), string_of(p, place->file)}, known = p->functions.n;
  uint32_t number = mlz_intern_key(&p->functions, pair, sizeof pair);
  if (number < known) return (uint64_t)number + 1;
  put_number(&p->part, 1, (uint64_t)number + 1);
  put_number(&p->part, 2, pair[0]);
  put_number(&p->part, 4, pair[1]);
  put_message(&p->all, 5, &p->part);
  return (uint64_t)number + 1;
}

static void add_location(struct profile *p, const struct mlz_place *place, uint32_t number) {
  uint64_t function = function_of(p, place);
  put_number(&p->inner, 1, function);
  put_number(&p->inner, 2, place->line);
  put_number(&p->part, 1, (uint64_t)number + 1);
  put_number(&p->part, 2, 1);
  put_message(&p->part, 4, &p->inner);
  put_message(&p->all, 4, &p->part);
}

/* One mapping that says that names, files and lines are known: pprof then does not look for a binary to find them in. */
static void add_mapping(struct profile *p, const char *command) {
  put_number(&p->part, 1, 1);
  put_number(&p->part, 5, string_of(p, command));
  for (unsigned field = 7; field <= 9; field++) put_number(&p->part, field, 1);
  put_message(&p->all, 3, &p->part);
}

static void add_strings(struct profile *p) {
  for (uint32_t i = 0; i < p->strings.n; i++) {
    size_t n;
    const void *bytes = mlz_intern_bytes(&p->strings, i, &n);
    put_bytes(&p->all, 6, bytes, n);
  }
}

void mlz_export_pprof(struct mlz_export *e) {
  struct mlz_export_rows r;
  struct profile p = {0};
  const json_t *meta = mlz_trace_meta(e->in->trace);
  mlz_export_rows_take(e, &r);
  FILE *out = mlz_export_open(e, true);
  char *command = mlz_input_command(meta), *note = mlz_export_note(e);
  string_of(&p, ""); /* string 0 */
  add_types(&p, e->by, r.has_peak);
  add_mapping(&p, command);
  for (size_t i = 0; i < r.n; i++) add_sample(&p, &r, &r.rows[i]);
  for (uint32_t i = 0; i < r.stacks.place_keys.n; i++) add_location(&p, &r.stacks.places[i], i);
  put_number(&p.all, 9, mlz_input_uint(meta, "start", 0));
  put_number(&p.all, 10, mlz_input_duration(e->in));
  add_value_type(&p, 11, "space", "bytes");
  put_number(&p.all, 12, 1);
  put_number(&p.all, 13, string_of(&p, note));
  put_number(&p.all, 13, string_of(&p, command));
  add_strings(&p);
  write_gzip(out, p.all.bytes, p.all.n);
  free(command);
  free(note);
  free(p.all.bytes);
  free(p.part.bytes);
  free(p.inner.bytes);
  mlz_intern_clear(&p.strings);
  mlz_intern_clear(&p.functions);
  mlz_export_rows_clear(&r);
}
