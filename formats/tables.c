#include "formats/tables.h"

#include "formats/layout.h"

#include <errno.h>
#include <stdlib.h>

#define PIECE_BYTES (4u << 20) /* a table chunk is closed when its raw payload is longer */
#define PIECE_FRAMES (MLZ_STACK_CHUNK_MAX / 2)

uint8_t *mlz_buffer_room(struct mlz_buffer *b, size_t more) {
  if (b->data == NULL || b->room - b->size < more) {
    size_t room = b->room == 0 ? 4096 : b->room;
    while (room - b->size < more) room *= 2;
    uint8_t *data = realloc(b->data, room);
    if (data == NULL) return NULL;
    b->data = data;
    b->room = room;
  }
  return b->data + b->size;
}

static bool buffer_add(struct mlz_buffer *b, const void *bytes, size_t n) {
  uint8_t *p = mlz_buffer_room(b, n);
  if (p == NULL) return false;
  if (n != 0) memcpy(p, bytes, n);
  b->size += n;
  return true;
}

void mlz_tables_init(struct mlz_tables *t) {
  *t = (struct mlz_tables){0};
  t->strings.first = t->frames.first = t->stacks.first = t->modules.first = 1;
}

void mlz_tables_deinit(struct mlz_tables *t) {
  struct mlz_buffer *all[] = {&t->strings.heads, &t->strings.body, &t->frames.heads, &t->frames.body,  &t->stacks.heads,  &t->stacks.body,
                              &t->processes,     &t->threads,      &t->totals,       &t->modules.body, &t->symbols.heads, &t->symbols.body};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]->data);
  *t = (struct mlz_tables){0};
}

static uint32_t row_add(struct mlz_tables *t, struct mlz_row_table *table, const uint32_t *head, const void *body, size_t n) {
  if (table->first + table->rows == UINT32_MAX || !buffer_add(&table->body, body, n)) {
    t->error = -ENOMEM;
    return 0;
  }
  if (head != NULL && !buffer_add(&table->heads, head, sizeof *head)) {
    table->body.size -= n;
    t->error = -ENOMEM;
    return 0;
  }
  return table->first + table->rows++;
}

uint32_t mlz_tables_string(struct mlz_tables *t, const char *utf8, size_t bytes) {
  if (bytes > MLZ_STRING_MAX) {
    bytes = MLZ_STRING_MAX;
    while (bytes > 0 && ((uint8_t)utf8[bytes] & 0xc0) == 0x80) /* not in the middle of a character */
      bytes--;
  }
  uint32_t head = (uint32_t)bytes;
  return row_add(t, &t->strings, &head, utf8, bytes);
}

uint32_t mlz_tables_frame(struct mlz_tables *t, const struct mlz_frame *f) { return row_add(t, &t->frames, NULL, f, sizeof *f); }

uint32_t mlz_tables_stack(struct mlz_tables *t, const uint32_t *frames, uint32_t n, bool truncated) {
  if (n > MLZ_STACK_MAX) {
    n = MLZ_STACK_MAX;
    truncated = true;
  }
  uint32_t head = n << 1 | truncated;
  return row_add(t, &t->stacks, &head, frames, (size_t)n * sizeof frames[0]);
}

uint32_t mlz_tables_module(struct mlz_tables *t, uint32_t path, uint32_t build_id) {
  return row_add(t, &t->modules, NULL, (uint32_t[]){path, build_id}, 2 * sizeof path);
}

void mlz_tables_symbol(struct mlz_tables *t, uint32_t frame, const uint32_t *frames, uint32_t n) {
  uint32_t row[1 + MLZ_SYMBOL_MAX];
  if (n > MLZ_SYMBOL_MAX) n = MLZ_SYMBOL_MAX;
  row[0] = frame;
  if (n != 0) memcpy(row + 1, frames, n * sizeof row[0]);
  row_add(t, &t->symbols, &n, row, (1 + n) * sizeof row[0]);
}

void mlz_tables_json(struct mlz_tables *t, struct mlz_buffer *text, uint32_t *rows, const json_t *object) {
  size_t size = json_dumpb(object, NULL, 0, JSON_COMPACT | JSON_SORT_KEYS);
  uint8_t *p = size == 0 ? NULL : mlz_buffer_room(text, size + 1);
  if (p == NULL) {
    t->error = -ENOMEM;
    return;
  }
  json_dumpb(object, (char *)p, size, JSON_COMPACT | JSON_SORT_KEYS);
  p[size] = '\n';
  text->size += size + 1;
  ++*rows;
}

/* Begins a chunk at the end of `out`: returns the offset of its header, or -ENOMEM. */
static int64_t chunk_open(struct mlz_buffer *out, unsigned kind) {
  struct mlz_chunk_header h = {.magic = MLZ_CHUNK_MAGIC, .kind = (uint16_t)kind};
  size_t at = out->size;
  return buffer_add(out, &h, sizeof h) ? (int64_t)at : -ENOMEM;
}

static void chunk_close(struct mlz_buffer *out, int64_t at, uint32_t count) {
  struct mlz_chunk_header h;
  memcpy(&h, out->data + at, sizeof h);
  h.stored = h.raw = (uint32_t)(out->size - (size_t)at - sizeof h);
  h.count = count;
  memcpy(out->data + at, &h, sizeof h);
}

static bool put(struct mlz_buffer *out, uint64_t v) {
  uint8_t *p = mlz_buffer_room(out, MLZ_VARINT_MAX);
  if (p == NULL) return false;
  out->size = (size_t)(mlz_put_varint(p, v) - out->data);
  return true;
}

static uint32_t head_at(const struct mlz_row_table *t, uint32_t row) {
  uint32_t head;
  memcpy(&head, t->heads.data + row * sizeof head, sizeof head);
  return head;
}

/* How many rows from `row` on make one chunk. */
static uint32_t piece(const struct mlz_row_table *t, uint32_t row, size_t row_unit, unsigned shift, size_t limit) {
  size_t sum = 0;
  uint32_t n = 0;
  while (row + n < t->rows && n < MLZ_TABLE_ROWS_MAX && (n == 0 || sum < limit)) {
    sum += row_unit == 0 ? (head_at(t, row + n) >> shift) + 5 : row_unit;
    n++;
  }
  return n;
}

static int take_strings(struct mlz_row_table *t, struct mlz_buffer *out) {
  size_t body = 0;
  for (uint32_t row = 0, n; row < t->rows; row += n) {
    n = piece(t, row, 0, 0, PIECE_BYTES);
    int64_t at = chunk_open(out, MLZ_C_STRINGS);
    if (at < 0 || !put(out, t->first + row)) return -ENOMEM;
    size_t bytes = 0;
    for (uint32_t i = row; i < row + n; i++) {
      if (!put(out, head_at(t, i))) return -ENOMEM;
      bytes += head_at(t, i);
    }
    if (!buffer_add(out, t->body.data + body, bytes)) return -ENOMEM;
    body += bytes;
    chunk_close(out, at, n);
  }
  return 0;
}

static int take_frames(struct mlz_row_table *t, struct mlz_buffer *out) {
  const struct mlz_frame *f = (const void *)t->body.data;
  for (uint32_t row = 0, n; row < t->rows; row += n) {
    n = piece(t, row, sizeof *f, 0, PIECE_BYTES);
    int64_t at = chunk_open(out, MLZ_C_FRAMES);
    if (at < 0 || !put(out, t->first + row)) return -ENOMEM;
    for (unsigned column = 0; column < 5; column++) {
      uint32_t previous = 0;
      for (uint32_t i = row; i < row + n; i++) {
        uint32_t v = column == 0   ? f[i].function
                     : column == 1 ? f[i].file
                     : column == 2 ? f[i].module
                     : column == 3 ? f[i].line
                                   : f[i].language;
        if (!put(out, mlz_zigzag((int64_t)v - previous))) return -ENOMEM;
        previous = v;
      }
    }
    chunk_close(out, at, n);
  }
  return 0;
}

static int take_stacks(struct mlz_row_table *t, struct mlz_buffer *out) {
  const uint32_t *frames = (const void *)t->body.data;
  for (uint32_t row = 0, n; row < t->rows; row += n) {
    n = piece(t, row, 0, 1, PIECE_FRAMES);
    int64_t at = chunk_open(out, MLZ_C_STACKS);
    if (at < 0 || !put(out, t->first + row)) return -ENOMEM;
    const uint32_t *previous = NULL;
    uint32_t previous_n = 0;
    for (uint32_t i = row; i < row + n; i++) {
      uint32_t head = head_at(t, i), depth = head >> 1, shared = 0;
      while (shared < depth && shared < previous_n && frames[depth - 1 - shared] == previous[previous_n - 1 - shared]) shared++;
      bool ok = put(out, head) && put(out, shared);
      uint32_t outer = shared == 0 ? 0 : frames[depth - shared];
      for (uint32_t k = depth - shared; ok && k-- > 0;) {
        ok = put(out, mlz_zigzag((int64_t)frames[k] - outer));
        outer = frames[k];
      }
      if (!ok) return -ENOMEM;
      previous = frames;
      previous_n = depth;
      frames += depth;
    }
    chunk_close(out, at, n);
  }
  return 0;
}

static int take_modules(struct mlz_row_table *t, struct mlz_buffer *out) {
  const uint32_t *cell = (const void *)t->body.data;
  for (uint32_t row = 0, n; row < t->rows; row += n) {
    n = piece(t, row, 2 * sizeof *cell, 0, PIECE_BYTES);
    int64_t at = chunk_open(out, MLZ_C_MODULES);
    if (at < 0 || !put(out, t->first + row)) return -ENOMEM;
    for (unsigned column = 0; column < 2; column++) {
      for (uint32_t i = row; i < row + n; i++) {
        if (!put(out, cell[2 * i + column])) return -ENOMEM;
      }
    }
    chunk_close(out, at, n);
  }
  return 0;
}

static int take_symbols(struct mlz_row_table *t, struct mlz_buffer *out) {
  const uint32_t *cell = (const void *)t->body.data;
  for (uint32_t row = 0, n; row < t->rows; row += n) {
    n = piece(t, row, 0, 0, PIECE_FRAMES);
    int64_t at = chunk_open(out, MLZ_C_SYMBOLS);
    if (at < 0) return -ENOMEM;
    uint32_t previous = 0;
    for (uint32_t i = row; i < row + n; i++) {
      uint32_t frame = *cell++, frames = head_at(t, i);
      bool ok = put(out, mlz_zigzag((int64_t)frame - previous)) && put(out, frames);
      for (; ok && frames > 0; frames--) ok = put(out, mlz_zigzag((int64_t)*cell++ - frame));
      if (!ok) return -ENOMEM;
      previous = frame;
    }
    chunk_close(out, at, n);
  }
  return 0;
}

static int take_json(struct mlz_buffer *text, uint32_t *rows, unsigned kind, struct mlz_buffer *out) {
  if (*rows == 0) return 0;
  int64_t at = chunk_open(out, kind);
  if (at < 0 || !buffer_add(out, text->data, text->size)) return -ENOMEM;
  chunk_close(out, at, *rows);
  text->size = 0;
  *rows = 0;
  return 0;
}

static void forget(struct mlz_row_table *t) {
  t->first += t->rows;
  t->rows = 0;
  t->heads.size = t->body.size = 0;
}

int mlz_tables_take(struct mlz_tables *t, struct mlz_buffer *out) {
  if (t->error != 0) return t->error;
  int rc;
  if ((rc = take_strings(&t->strings, out)) != 0 || (rc = take_modules(&t->modules, out)) != 0 ||
      (rc = take_frames(&t->frames, out)) != 0 || (rc = take_stacks(&t->stacks, out)) != 0 || (rc = take_symbols(&t->symbols, out)) != 0)
    return rc;
  forget(&t->strings);
  forget(&t->frames);
  forget(&t->stacks);
  forget(&t->modules);
  forget(&t->symbols);
  if ((rc = take_json(&t->processes, &t->processes_n, MLZ_C_PROCESS, out)) != 0) return rc;
  if ((rc = take_json(&t->threads, &t->threads_n, MLZ_C_THREAD, out)) != 0) return rc;
  if (!buffer_add(out, t->totals.data, t->totals.size)) return -ENOMEM;
  t->totals.size = 0;
  return 0;
}
