#include "formats/trace.h"

#include <errno.h>
#include <stdlib.h>

#define LOST_FRAME UINT32_MAX
#define LOST_STACK UINT32_MAX
#define LOST_STRING UINT64_MAX

bool mlz_grow(void *array, size_t *room, size_t need, size_t element) {
  if (need <= *room) return true;
  size_t n = *room == 0 ? 64 : *room;
  while (n < need) n += n / 2;
  void *p;
  memcpy(&p, array, sizeof p);
  p = realloc(p, n * element);
  if (p == NULL) return false;
  memcpy(array, &p, sizeof p);
  *room = n;
  return true;
}

/* Lost table chunks leave holes; how large one may be is bounded by the bytes that are missing, so that no file makes us allocate at will. */
bool mlz_tables_first_ok(const struct mlz_trace *t, size_t have, uint64_t first, uint64_t count) {
  uint64_t hole = t->damage.bytes_bad == 0 ? 0 : (1 + t->damage.bytes_bad / sizeof(struct mlz_chunk_header)) * MLZ_TABLE_ROWS_MAX;
  return count <= MLZ_TABLE_ROWS_MAX && first >= have && first - have <= hole && first + count < UINT32_MAX;
}

/* Other programs choke on bytes that are not UTF-8, so none leave this room. */
static void make_utf8(char *s, size_t n) {
  uint8_t *p = (uint8_t *)s, *end = p + n;
  while (p < end) {
    unsigned more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : 4;
    bool ok = more < 4 && (size_t)(end - p) > more;
    for (unsigned i = 1; ok && i <= more; i++) ok = (p[i] & 0xc0) == 0x80;
    if (ok && more >= 2) /* overlong, surrogate, beyond U+10FFFF */
      ok = !(p[0] == 0xe0 && p[1] < 0xa0) && !(p[0] == 0xed && p[1] > 0x9f) && !(p[0] == 0xf0 && p[1] < 0x90) &&
           !(p[0] == 0xf4 && p[1] > 0x8f);
    if (!ok)
      *p++ = '?';
    else
      p += more + 1;
  }
}

static int load_strings(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c) {
  uint64_t first = mlz_get_varint(c), total = 0;
  if (c->bad || !mlz_tables_first_ok(t, t->strings_n, first, count)) return -EBADMSG;
  struct mlz_cursor lengths = *c;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t n = mlz_get_varint(c);
    if (n > MLZ_STRING_MAX) return -EBADMSG;
    total += n;
  }
  const uint8_t *bytes = mlz_get_bytes(c, total);
  if (bytes == NULL) return -EBADMSG;
  if (!mlz_grow(&t->string_at, &t->strings_room, (size_t)(first + count), sizeof t->string_at[0]) ||
      !mlz_grow(&t->text, &t->text_room, t->text_n + (size_t)(total + count), 1))
    return -ENOMEM;
  while (t->strings_n < first) t->string_at[t->strings_n++] = LOST_STRING;
  for (uint64_t i = 0; i < count; i++) {
    size_t n = (size_t)mlz_get_varint(&lengths);
    t->string_at[t->strings_n++] = t->text_n;
    memcpy(t->text + t->text_n, bytes, n);
    t->text[t->text_n + n] = 0;
    make_utf8(t->text + t->text_n, n);
    t->text_n += n + 1;
    bytes += n;
  }
  return 0;
}

static int load_frames(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c) {
  uint64_t first = mlz_get_varint(c);
  if (c->bad || !mlz_tables_first_ok(t, t->frames_n, first, count)) return -EBADMSG;
  if (!mlz_grow(&t->frames, &t->frames_room, (size_t)(first + count), sizeof t->frames[0])) return -ENOMEM;
  struct mlz_frame *rows = t->frames + first;
  for (unsigned column = 0; column < 5; column++) {
    uint32_t v = 0;
    for (uint64_t i = 0; i < count; i++) {
      v += (uint32_t)mlz_unzigzag(mlz_get_varint(c));
      *(column == 0   ? &rows[i].function
        : column == 1 ? &rows[i].file
        : column == 2 ? &rows[i].module
        : column == 3 ? &rows[i].line
                      : &rows[i].language) = v;
    }
  }
  for (uint64_t i = 0; i < count; i++)
    if (rows[i].language > MLZ_LANG_INFERRED) c->bad = true;
  if (c->bad) return -EBADMSG;
  for (; t->frames_n < first; t->frames_n++) t->frames[t->frames_n] = (struct mlz_frame){.language = LOST_FRAME};
  t->frames_n = (size_t)(first + count);
  return 0;
}

static int load_stacks(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c) {
  uint64_t first = mlz_get_varint(c), total = 0;
  if (c->bad || !mlz_tables_first_ok(t, t->stacks_n, first, count)) return -EBADMSG;
  if (!mlz_grow(&t->stacks, &t->stacks_room, (size_t)(first + count), sizeof t->stacks[0])) return -ENOMEM;
  size_t at = t->stack_frames_n, previous = at;
  uint64_t previous_n = 0;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t head = mlz_get_varint(c), shared = mlz_get_varint(c), n = head >> 1;
    total += n;
    if (c->bad || n > MLZ_STACK_MAX || shared > n || shared > previous_n || total > MLZ_STACK_CHUNK_MAX) return -EBADMSG;
    if (!mlz_grow(&t->stack_frames, &t->stack_frames_room, at + (size_t)n, sizeof t->stack_frames[0])) return -ENOMEM;
    uint32_t *frames = t->stack_frames + at;
    const uint32_t *before = t->stack_frames + previous;
    for (uint64_t k = 0; k < shared; k++) frames[n - 1 - k] = before[previous_n - 1 - k];
    uint32_t outer = shared == 0 ? 0 : frames[n - shared];
    for (uint64_t k = n - shared; k-- > 0;) frames[k] = outer += (uint32_t)mlz_unzigzag(mlz_get_varint(c));
    t->stacks[first + i] = (struct mlz_stack_row){.at = at, .n = (uint32_t)n, .truncated = head & 1};
    previous = at;
    previous_n = n;
    at += (size_t)n;
  }
  if (c->bad) return -EBADMSG;
  t->stack_frames_n = at;
  for (; t->stacks_n < first; t->stacks_n++) t->stacks[t->stacks_n] = (struct mlz_stack_row){.n = LOST_STACK};
  t->stacks_n = (size_t)(first + count);
  return 0;
}

static size_t json_place(const struct mlz_json_table *table, uint32_t id) {
  size_t low = 0, high = table->n;
  if (high > 0 && table->ids[high - 1] < id) return high;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (table->ids[middle] < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int json_put(struct mlz_json_table *table, uint32_t id, json_t *object) {
  size_t at = json_place(table, id), room = table->room;
  if (at < table->n && table->ids[at] == id) {
    json_decref(table->rows[at]);
    table->rows[at] = object;
    return 0;
  }
  if (!mlz_grow(&table->rows, &room, table->n + 1, sizeof table->rows[0]) ||
      !mlz_grow(&table->ids, &table->room, table->n + 1, sizeof table->ids[0])) {
    json_decref(object);
    return -ENOMEM;
  }
  memmove(table->rows + at + 1, table->rows + at, (table->n - at) * sizeof table->rows[0]);
  memmove(table->ids + at + 1, table->ids + at, (table->n - at) * sizeof table->ids[0]);
  table->rows[at] = object;
  table->ids[at] = id;
  table->n++;
  return 0;
}

static int load_json(struct mlz_json_table *table, const uint8_t *p, size_t n) {
  int rc = 0;
  while (n > 0) {
    const uint8_t *line_end = memchr(p, '\n', n);
    size_t line = line_end == NULL ? n : (size_t)(line_end - p);
    json_t *object = json_loadb((const char *)p, line, 0, NULL);
    json_int_t id = json_integer_value(json_object_get(object, "id"));
    if (object == NULL || id < 1 || id >= UINT32_MAX) {
      json_decref(object);
      rc = -EBADMSG;
    } else if (json_put(table, (uint32_t)id, object) != 0) {
      return -ENOMEM;
    }
    n -= line_end == NULL ? line : line + 1;
    p += line + 1;
  }
  return rc;
}

int mlz_tables_load(struct mlz_trace *t, unsigned kind, uint64_t count, const uint8_t *p, size_t n) {
  struct mlz_cursor c = {.p = p, .end = p + n};
  switch (kind) {
  case MLZ_C_STRINGS:
    return load_strings(t, count, &c);
  case MLZ_C_FRAMES:
    return load_frames(t, count, &c);
  case MLZ_C_STACKS:
    return load_stacks(t, count, &c);
  case MLZ_C_MODULES:
    return mlz_native_load_modules(t, count, &c);
  case MLZ_C_SYMBOLS:
    return mlz_native_load_symbols(t, count, &c);
  case MLZ_C_PROCESS:
    return load_json(&t->processes, p, n);
  default:
    return load_json(&t->threads, p, n);
  }
}

static int add_rows(struct mlz_trace *t, const char *text, struct mlz_frame frame, const uint32_t *stack_frame) {
  size_t n = strlen(text) + 1;
  if (!mlz_grow(&t->string_at, &t->strings_room, t->strings_n + 1, sizeof t->string_at[0]) ||
      !mlz_grow(&t->text, &t->text_room, t->text_n + n, 1) ||
      !mlz_grow(&t->frames, &t->frames_room, t->frames_n + 1, sizeof t->frames[0]) ||
      !mlz_grow(&t->stacks, &t->stacks_room, t->stacks_n + 1, sizeof t->stacks[0]) ||
      !mlz_grow(&t->stack_frames, &t->stack_frames_room, t->stack_frames_n + 1, sizeof t->stack_frames[0]))
    return -ENOMEM;
  memcpy(t->text + t->text_n, text, n);
  t->string_at[t->strings_n] = t->text_n;
  t->text_n += n;
  t->frames[t->frames_n] = frame;
  t->stacks[t->stacks_n] = (struct mlz_stack_row){.at = t->stack_frames_n, .n = stack_frame != NULL};
  if (stack_frame != NULL) t->stack_frames[t->stack_frames_n++] = *stack_frame;
  return 0;
}

int mlz_tables_begin(struct mlz_trace *t) {
  int rc = add_rows(t, "", (struct mlz_frame){0}, NULL);
  t->strings_n = t->frames_n = t->stacks_n = 1;
  return rc;
}

int mlz_tables_end(struct mlz_trace *t) { /* the counts stay: the new rows lie at id n */
  uint32_t frame = (uint32_t)t->frames_n, string = (uint32_t)t->strings_n;
  for (size_t i = 0; i < t->stack_frames_n; i++) t->stack_frames[i] = t->stack_frames[i] < frame ? t->stack_frames[i] : frame;
  int rc = mlz_native_begin(t);
  if (rc != 0) return rc;
  for (size_t i = 0; i < t->frames_n; i++) {
    struct mlz_frame *f = &t->frames[i];
    if (f->language == MLZ_LANG_ADDRESS) continue;
    f->function = f->function < string ? f->function : string;
    f->file = f->file < string ? f->file : string;
    f->module = f->module < string ? f->module : string;
  }
  if ((rc = add_rows(t, "<lost>", (struct mlz_frame){.function = (uint32_t)t->strings_n}, &frame)) != 0) return rc;
  t->strings_all = t->strings_n + 1;
  t->frames_all = t->frames_n + 1;
  return mlz_native_end(t);
}

int mlz_tables_add_string(struct mlz_trace *t, const char *text, size_t n, uint32_t *id) {
  if (t->strings_all >= UINT32_MAX || !mlz_grow(&t->string_at, &t->strings_room, t->strings_all + 1, sizeof t->string_at[0]) ||
      !mlz_grow(&t->text, &t->text_room, t->text_n + n + 1, 1))
    return -ENOMEM;
  char *to = t->text + t->text_n;
  memcpy(to, text, n);
  to[n] = 0;
  make_utf8(to, n);
  t->string_at[t->strings_all] = t->text_n;
  t->text_n += n + 1;
  *id = (uint32_t)t->strings_all++;
  return 0;
}

int mlz_tables_add_frame(struct mlz_trace *t, struct mlz_frame frame, uint32_t *id) {
  if (t->frames_all >= UINT32_MAX || !mlz_grow(&t->frames, &t->frames_room, t->frames_all + 1, sizeof t->frames[0])) return -ENOMEM;
  t->frames[t->frames_all] = frame;
  *id = (uint32_t)t->frames_all++;
  return 0;
}

static void json_close(struct mlz_json_table *table) {
  for (size_t i = 0; i < table->n; i++) json_decref(table->rows[i]);
  free(table->rows);
  free(table->ids);
}

void mlz_tables_close(struct mlz_trace *t) {
  free(t->string_at);
  free(t->text);
  free(t->frames);
  free(t->stacks);
  free(t->stack_frames);
  json_close(&t->processes);
  json_close(&t->threads);
  mlz_native_close(t);
}

uint32_t mlz_tables_known_thread(const struct mlz_trace *t, uint64_t id) {
  if (id >= UINT32_MAX) return 0;
  size_t at = json_place(&t->threads, (uint32_t)id);
  return at < t->threads.n && t->threads.ids[at] == id ? (uint32_t)id : 0;
}

int mlz_tables_know_process(struct mlz_trace *t, uint32_t id) {
  size_t at = json_place(&t->processes, id);
  if (at < t->processes.n && t->processes.ids[at] == id) return 0;
  json_t *object = json_pack("{s:I,s:b}", "id", (json_int_t)id, "lost", 1);
  return object == NULL ? -ENOMEM : json_put(&t->processes, id, object);
}

uint32_t mlz_trace_strings(const struct mlz_trace *t) { return (uint32_t)t->strings_all; }
uint32_t mlz_trace_frames(const struct mlz_trace *t) { return (uint32_t)t->frames_all; }
uint32_t mlz_trace_lost_string(const struct mlz_trace *t) { return (uint32_t)t->strings_n; }
uint32_t mlz_trace_lost_frame(const struct mlz_trace *t) { return (uint32_t)t->frames_n; }
uint32_t mlz_trace_stacks(const struct mlz_trace *t) { return (uint32_t)t->stacks_n + 1; }

const char *mlz_trace_string(const struct mlz_trace *t, uint32_t id) {
  if (id >= t->strings_all || t->string_at[id] == LOST_STRING) id = (uint32_t)t->strings_n;
  return t->text + t->string_at[id];
}

struct mlz_frame mlz_trace_frame(const struct mlz_trace *t, uint32_t id) {
  if (id >= t->frames_all || t->frames[id].language == LOST_FRAME) id = (uint32_t)t->frames_n;
  return t->frames[id];
}

const uint32_t *mlz_trace_stack(const struct mlz_trace *t, uint32_t id, uint32_t *n, bool *truncated) {
  if (id > t->stacks_n || t->stacks[id].n == LOST_STACK) id = (uint32_t)t->stacks_n;
  const struct mlz_stack_row *row = t->native.shown != NULL ? &t->native.shown[id] : &t->stacks[id];
  *n = row->n;
  if (truncated != NULL) *truncated = row->truncated;
  return (t->native.shown != NULL ? t->native.shown_frames : t->stack_frames) + row->at;
}

const uint32_t *mlz_trace_stack_stored(const struct mlz_trace *t, uint32_t id, uint32_t *n) {
  if (id > t->stacks_n || t->stacks[id].n == LOST_STACK) id = (uint32_t)t->stacks_n;
  *n = t->stacks[id].n;
  return t->stack_frames + t->stacks[id].at;
}

size_t mlz_trace_processes(const struct mlz_trace *t) { return t->processes.n; }
const json_t *mlz_trace_process(const struct mlz_trace *t, size_t i) { return i < t->processes.n ? t->processes.rows[i] : NULL; }
size_t mlz_trace_threads(const struct mlz_trace *t) { return t->threads.n; }
const json_t *mlz_trace_thread(const struct mlz_trace *t, size_t i) { return i < t->threads.n ? t->threads.rows[i] : NULL; }
