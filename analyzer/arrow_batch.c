#include "analyzer/arrow_batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_ROWS = 1 << 16, BATCH_BYTES = 64 << 20 };

static const struct {
  const char *format;
  unsigned bytes; /* of a value; 0: not of a fixed size */
} kinds[] = {[MLZ_ARROW_I64] = {"l", 8},  [MLZ_ARROW_U32] = {"I", 4},   [MLZ_ARROW_F64] = {"g", 8},  [MLZ_ARROW_BOOL] = {"b", 0},
             [MLZ_ARROW_TEXT] = {"u", 0}, [MLZ_ARROW_NAMED] = {"c", 1}, [MLZ_ARROW_U32S] = {"+l", 0}};

/* ---- columns ---- */

void mlz_arrow_begin(struct mlz_arrow_batch *b, const struct mlz_arrow_field *fields) {
  *b = (struct mlz_arrow_batch){.fields = fields};
  while (fields[b->n_fields].name && b->n_fields < MLZ_ARROW_COLUMNS_MAX) b->n_fields++;
}

void mlz_arrow_clear(struct mlz_arrow_batch *b) {
  for (size_t i = 0; i < b->n_fields; i++) {
    free(b->columns[i].values);
    free(b->columns[i].ends);
    free(b->columns[i].valid);
  }
  mlz_arrow_begin(b, b->fields);
}

bool mlz_arrow_full(const struct mlz_arrow_batch *b) {
  if (b->failed || b->rows >= BATCH_ROWS) return true;
  for (size_t i = 0; i < b->n_fields; i++)
    if (b->columns[i].used >= BATCH_BYTES) return true;
  return false;
}

/* Room for `need` bytes in all; new bytes are 0. Never no buffer at all: some readers take a missing one for an error. */
static bool grow(struct mlz_arrow_batch *b, void *buffer, size_t *room, size_t need) {
  if (need <= *room && *room) return true;
  size_t n = *room ? *room : 256;
  while (n < need) n *= 2;
  void *p;
  memcpy(&p, buffer, sizeof p);
  p = realloc(p, n);
  if (!p) {
    b->failed = true;
    return false;
  }
  memset((uint8_t *)p + *room, 0, n - *room);
  memcpy(buffer, &p, sizeof p);
  *room = n;
  return true;
}

static uint8_t *more(struct mlz_arrow_batch *b, size_t at, size_t bytes) {
  struct mlz_arrow_column *c = &b->columns[at];
  if (!grow(b, &c->values, &c->room, c->used + bytes)) return NULL;
  c->used += bytes;
  return c->values + c->used - bytes;
}

static void put_valid(struct mlz_arrow_batch *b, size_t at, bool is) {
  struct mlz_arrow_column *c = &b->columns[at];
  if (!c->valid && is) return;
  bool first = !c->valid;
  if (!grow(b, &c->valid, &c->valid_room, (size_t)b->rows / 8 + 1)) return;
  for (int64_t i = 0; first && i < b->rows; i++) c->valid[i / 8] |= (uint8_t)(1u << (i % 8));
  if (is) c->valid[b->rows / 8] |= (uint8_t)(1u << (b->rows % 8));
  c->nulls += !is;
}

static void put(struct mlz_arrow_batch *b, size_t at, const void *value, size_t bytes, bool valid) {
  uint8_t *p = more(b, at, bytes);
  if (p) memcpy(p, value, bytes);
  put_valid(b, at, valid);
}

static void put_end(struct mlz_arrow_batch *b, size_t at, size_t end, bool valid) {
  struct mlz_arrow_column *c = &b->columns[at];
  if (grow(b, &c->ends, &c->ends_room, ((size_t)b->rows + 2) * sizeof c->ends[0])) c->ends[b->rows + 1] = (int32_t)end;
  put_valid(b, at, valid);
}

static void put_bit(struct mlz_arrow_batch *b, size_t at, bool value, bool valid) {
  struct mlz_arrow_column *c = &b->columns[at];
  c->used = (size_t)b->rows / 8 + 1;
  if (grow(b, &c->values, &c->room, c->used) && value) c->values[b->rows / 8] |= (uint8_t)(1u << (b->rows % 8));
  put_valid(b, at, valid);
}

void mlz_arrow_i64(struct mlz_arrow_batch *b, size_t at, int64_t value) { put(b, at, &value, sizeof value, true); }
void mlz_arrow_u32(struct mlz_arrow_batch *b, size_t at, uint32_t value) { put(b, at, &value, sizeof value, true); }
void mlz_arrow_f64(struct mlz_arrow_batch *b, size_t at, double value) { put(b, at, &value, sizeof value, true); }
void mlz_arrow_named(struct mlz_arrow_batch *b, size_t at, uint8_t place) { put(b, at, &place, 1, true); }
void mlz_arrow_bool(struct mlz_arrow_batch *b, size_t at, bool value) { put_bit(b, at, value, true); }

void mlz_arrow_text(struct mlz_arrow_batch *b, size_t at, const char *text, size_t n) {
  uint8_t *p = more(b, at, n);
  if (p && n) memcpy(p, text, n);
  put_end(b, at, b->columns[at].used, true);
}

void mlz_arrow_u32s(struct mlz_arrow_batch *b, size_t at, const uint32_t *items, size_t n) {
  uint8_t *p = more(b, at, n * sizeof items[0]);
  if (p && n) memcpy(p, items, n * sizeof items[0]);
  put_end(b, at, b->columns[at].used / sizeof items[0], true);
}

void mlz_arrow_null(struct mlz_arrow_batch *b, size_t at) {
  static const uint64_t zero;
  enum mlz_arrow_kind kind = b->fields[at].kind;
  if (kind == MLZ_ARROW_BOOL)
    put_bit(b, at, false, false);
  else if (kinds[kind].bytes)
    put(b, at, &zero, kinds[kind].bytes, false);
  else
    put_end(b, at, kind == MLZ_ARROW_U32S ? b->columns[at].used / sizeof(uint32_t) : b->columns[at].used, false);
}

void *mlz_arrow_fill(struct mlz_arrow_batch *b, size_t at, size_t rows) { return more(b, at, rows * kinds[b->fields[at].kind].bytes); }
uint8_t *mlz_arrow_fill_bits(struct mlz_arrow_batch *b, size_t at, size_t rows) { return more(b, at, (rows + 7) / 8); }
uint8_t *mlz_arrow_fill_valid(struct mlz_arrow_batch *b, size_t at, size_t rows) {
  struct mlz_arrow_column *c = &b->columns[at];
  if (!grow(b, &c->valid, &c->valid_room, (rows + 7) / 8)) return NULL;
  memset(c->valid, 0xff, (rows + 7) / 8);
  return c->valid;
}

/* ---- arrays: each owns what is its own, since a consumer may keep a child and let go of the rest ---- */

struct array_parts {
  void *owned[3];
  const void *buffers[3];
  struct ArrowArray **children;
};

static void release_array(struct ArrowArray *a) {
  struct array_parts *parts = a->private_data;
  for (int64_t i = 0; i < a->n_children; i++) {
    if (a->children[i]->release) a->children[i]->release(a->children[i]);
    free(a->children[i]);
  }
  if (a->dictionary) {
    if (a->dictionary->release) a->dictionary->release(a->dictionary);
    free(a->dictionary);
  }
  for (size_t i = 0; i < 3; i++) free(parts->owned[i]);
  free(parts->children);
  free(parts);
  a->release = NULL;
}

/* An array without contents that can be released at any time; `children` are allocated one by one as `n_children` rises. */
static struct array_parts *begin_array(struct ArrowArray *a, int64_t length, size_t children) {
  struct array_parts *parts = calloc(1, sizeof *parts);
  if (parts && children && !(parts->children = calloc(children, sizeof parts->children[0]))) {
    free(parts);
    parts = NULL;
  }
  if (!parts) return NULL;
  *a = (struct ArrowArray){
      .length = length, .buffers = parts->buffers, .children = parts->children, .release = release_array, .private_data = parts};
  return parts;
}

static void give(struct ArrowArray *a, struct array_parts *parts, void *buffer) {
  parts->owned[a->n_buffers] = buffer;
  parts->buffers[a->n_buffers++] = buffer;
}

static struct ArrowArray *add_child(struct ArrowArray *a) {
  struct ArrowArray *child = calloc(1, sizeof *child);
  if (child) a->children[a->n_children++] = child;
  return child;
}

static bool make_names(struct ArrowArray *a, const char *const *names) {
  int64_t n = 0;
  size_t bytes = 0;
  for (; names[n]; n++) bytes += strlen(names[n]);
  int32_t *ends = calloc((size_t)n + 1, sizeof ends[0]);
  char *text = malloc(bytes + 1);
  struct array_parts *parts = ends && text ? begin_array(a, n, 0) : NULL;
  if (!parts) {
    free(ends);
    free(text);
    return false;
  }
  for (int64_t i = 0; i < n; i++) {
    size_t length = strlen(names[i]);
    memcpy(text + ends[i], names[i], length);
    ends[i + 1] = ends[i] + (int32_t)length;
  }
  give(a, parts, NULL);
  give(a, parts, ends);
  give(a, parts, text);
  return true;
}

static bool make_column(struct ArrowArray *a, const struct mlz_arrow_field *field, struct mlz_arrow_column *c, int64_t rows) {
  bool list = field->kind == MLZ_ARROW_U32S;
  int64_t items = list ? (int64_t)(c->used / sizeof(uint32_t)) : 0;
  struct array_parts *parts = begin_array(a, rows, list);
  if (!parts) return false;
  a->null_count = c->nulls;
  give(a, parts, c->nulls ? c->valid : NULL);
  if (!c->nulls) free(c->valid);
  c->valid = NULL;
  if (c->ends) give(a, parts, c->ends);
  c->ends = NULL;
  if (!list) {
    give(a, parts, c->values);
    c->values = NULL;
  }
  if (field->kind == MLZ_ARROW_NAMED)
    return (a->dictionary = calloc(1, sizeof *a->dictionary)) != NULL && make_names(a->dictionary, field->names);
  if (!list) return true;
  struct ArrowArray *child = add_child(a);
  struct array_parts *of_child = child ? begin_array(child, items, 0) : NULL;
  if (!of_child) return false;
  give(child, of_child, NULL);
  give(child, of_child, c->values);
  c->values = NULL;
  return true;
}

/* Columns without a row have no buffers yet. */
static bool have_buffers(struct mlz_arrow_batch *b) {
  for (size_t i = 0; i < b->n_fields; i++) {
    struct mlz_arrow_column *c = &b->columns[i];
    bool ends = b->fields[i].kind == MLZ_ARROW_TEXT || b->fields[i].kind == MLZ_ARROW_U32S;
    if (!grow(b, &c->values, &c->room, 1) || (ends && !grow(b, &c->ends, &c->ends_room, sizeof c->ends[0]))) return false;
  }
  return !b->failed;
}

int mlz_arrow_take(struct mlz_arrow_batch *b, struct ArrowArray *out) {
  struct ArrowArray whole;
  struct array_parts *parts = have_buffers(b) ? begin_array(&whole, b->rows, b->n_fields) : NULL;
  bool ok = parts != NULL;
  if (ok) give(&whole, parts, NULL);
  for (size_t i = 0; ok && i < b->n_fields; i++) {
    struct ArrowArray *child = add_child(&whole);
    ok = child && make_column(child, &b->fields[i], &b->columns[i], b->rows);
  }
  mlz_arrow_clear(b);
  if (!ok) {
    if (parts) release_array(&whole);
    return ENOMEM;
  }
  *out = whole;
  return 0;
}

/* ---- schemas: names and formats are constants ---- */

static void release_schema(struct ArrowSchema *s) {
  for (int64_t i = 0; i < s->n_children; i++) {
    if (s->children[i]->release) s->children[i]->release(s->children[i]);
    free(s->children[i]);
  }
  if (s->dictionary) {
    if (s->dictionary->release) s->dictionary->release(s->dictionary);
    free(s->dictionary);
  }
  free(s->children);
  s->release = NULL;
}

static bool begin_schema(struct ArrowSchema *s, const char *format, const char *name, bool nullable, size_t children) {
  *s = (struct ArrowSchema){.format = format, .name = name, .flags = nullable ? ARROW_FLAG_NULLABLE : 0, .release = release_schema};
  return !children || (s->children = calloc(children, sizeof s->children[0])) != NULL;
}

static struct ArrowSchema *add_field(struct ArrowSchema *s) {
  struct ArrowSchema *child = calloc(1, sizeof *child);
  if (child) s->children[s->n_children++] = child;
  return child;
}

static bool schema_of(struct ArrowSchema *s, const struct mlz_arrow_field *field) {
  bool list = field->kind == MLZ_ARROW_U32S;
  if (!begin_schema(s, kinds[field->kind].format, field->name, field->nullable, list)) return false;
  if (field->kind == MLZ_ARROW_NAMED)
    return (s->dictionary = calloc(1, sizeof *s->dictionary)) != NULL && begin_schema(s->dictionary, "u", "", false, 0);
  struct ArrowSchema *child = list ? add_field(s) : NULL;
  return !list || (child && begin_schema(child, "I", "item", false, 0));
}

int mlz_arrow_schema(const struct mlz_arrow_field *fields, struct ArrowSchema *out) {
  struct ArrowSchema whole;
  bool ok = begin_schema(&whole, "+s", "", false, MLZ_ARROW_COLUMNS_MAX);
  for (size_t i = 0; ok && fields[i].name; i++) {
    struct ArrowSchema *child = add_field(&whole);
    ok = child && schema_of(child, &fields[i]);
  }
  if (!ok) {
    release_schema(&whole);
    return ENOMEM;
  }
  *out = whole;
  return 0;
}
