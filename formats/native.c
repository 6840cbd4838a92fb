/* Native frames of a trace: by address in the file, by name in the stacks that a caller sees. */
#include "formats/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define LOST UINT32_MAX
#define SHOWN_FREE (UINT64_C(1) << 20) /* stored frames may always become so many, */
#define SHOWN_TIMES UINT64_C(32)       /* or so many times their number: a forged file gets no more memory than that */

int mlz_native_load_modules(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c) {
  struct mlz_native *x = &t->native;
  uint64_t first = mlz_get_varint(c);
  size_t have = x->modules_n != 0 ? x->modules_n : 1; /* row 0 is built in */
  if (c->bad || !mlz_tables_first_ok(t, have, first, count)) return -EBADMSG;
  if (!mlz_grow(&x->modules, &x->modules_room, (size_t)(first + count), sizeof x->modules[0])) return -ENOMEM;
  struct mlz_module_row *rows = x->modules + first;
  for (unsigned column = 0; column < 2; column++) {
    for (uint64_t i = 0; i < count; i++) {
      uint64_t v = mlz_get_varint(c);
      uint32_t id = v < LOST ? (uint32_t)v : LOST - 1;
      if (column == 0)
        rows[i] = (struct mlz_module_row){.path = id, .name = LOST};
      else
        rows[i].build_id = id;
    }
  }
  if (c->bad) return -EBADMSG;
  if (x->modules_n == 0) x->modules[x->modules_n++] = (struct mlz_module_row){.name = LOST};
  for (; x->modules_n < first; x->modules_n++) x->modules[x->modules_n] = (struct mlz_module_row){.path = LOST, .name = LOST};
  x->modules_n = (size_t)(first + count);
  return 0;
}

int mlz_native_load_symbols(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c) {
  struct mlz_native *x = &t->native;
  if (count > MLZ_TABLE_ROWS_MAX) return -EBADMSG;
  if (!mlz_grow(&x->symbols, &x->symbols_room, x->symbols_n + (size_t)count, sizeof x->symbols[0])) return -ENOMEM;
  size_t at = x->targets_n;
  uint32_t frame = 0;
  for (uint64_t i = 0; i < count; i++) {
    frame += (uint32_t)mlz_unzigzag(mlz_get_varint(c));
    uint64_t n = mlz_get_varint(c);
    if (c->bad || n > MLZ_SYMBOL_MAX) return -EBADMSG;
    if (!mlz_grow(&x->targets, &x->targets_room, at + (size_t)n, sizeof x->targets[0])) return -ENOMEM;
    x->symbols[x->symbols_n + i] = (struct mlz_symbol_row){.frame = frame, .n = (uint32_t)n, .at = at};
    for (; n > 0; n--) x->targets[at++] = frame + (uint32_t)mlz_unzigzag(mlz_get_varint(c));
  }
  if (c->bad) return -EBADMSG;
  x->symbols_n += (size_t)count;
  x->targets_n = at;
  return 0;
}

void mlz_native_close(struct mlz_trace *t) {
  struct mlz_native *x = &t->native;
  free(x->modules);
  free(x->symbols);
  free(x->targets);
  free(x->rows);
  free(x->shown);
  free(x->shown_frames);
  *x = (struct mlz_native){0};
}

/* Puts the addresses aside. */
int mlz_native_begin(struct mlz_trace *t) {
  struct mlz_native *x = &t->native;
  for (size_t i = 0; i < t->frames_n; i++) {
    const struct mlz_frame *f = &t->frames[i];
    if (f->language != MLZ_LANG_ADDRESS) continue;
    if (x->rows == NULL && (x->rows = calloc(t->frames_n, sizeof x->rows[0])) == NULL) return -ENOMEM;
    x->rows_n = (uint32_t)t->frames_n;
    x->rows[i] = (struct mlz_address_row){.address = (uint64_t)f->file << 32 | f->line, .module = f->function, .is_address = true};
  }
  return 0;
}

static const char *base_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash != NULL && slash[1] != 0 ? slash + 1 : path;
}

static const struct mlz_module_row *module_of(const struct mlz_trace *t, uint32_t module) {
  static const struct mlz_module_row none = {.path = 0, .name = 0}, lost = {.path = LOST, .name = LOST};
  if (module == 0) return &none;
  return module < t->native.modules_n ? &t->native.modules[module] : &lost;
}

static uint32_t path_of(const struct mlz_trace *t, const struct mlz_module_row *m) {
  return m->path < t->strings_n ? m->path : (uint32_t)t->strings_n;
}

/* The string id of the module's name, made when it is first needed. */
static int name_of(struct mlz_trace *t, uint32_t module, uint32_t *id) {
  const struct mlz_module_row *m = module_of(t, module);
  *id = m->name;
  if (m->name != LOST) return 0;
  uint32_t path = path_of(t, m);
  *id = path;
  if (path == t->strings_n || module >= t->native.modules_n) return 0;
  const char *base = base_of(mlz_trace_string(t, path));
  char *copy = strdup(base); /* the text may move */
  int rc = copy == NULL ? -ENOMEM : mlz_tables_add_string(t, copy, strlen(copy), id);
  free(copy);
  if (rc == 0) t->native.modules[module].name = *id;
  return rc;
}

/* A frame that nothing is known of but its address. */
static int unnamed(struct mlz_trace *t, const struct mlz_address_row *row, struct mlz_frame *out) {
  uint32_t name, function;
  int rc = name_of(t, row->module, &name);
  if (rc != 0) return rc;
  char text[512];
  int n = row->module == 0 ? snprintf(text, sizeof text, "0x%" PRIx64, row->address)
                           : snprintf(text, sizeof text, "%.400s+0x%" PRIx64, mlz_trace_string(t, name), row->address);
  if ((rc = mlz_tables_add_string(t, text, (size_t)n, &function)) != 0) return rc;
  *out =
      (struct mlz_frame){.function = function, .file = path_of(t, module_of(t, row->module)), .module = name, .language = MLZ_LANG_NATIVE};
  return 0;
}

/* What the file says that its frames stand for. A later row counts. */
static void take_symbols(struct mlz_trace *t) {
  struct mlz_native *x = &t->native;
  for (size_t i = 0; i < x->symbols_n; i++) {
    const struct mlz_symbol_row *s = &x->symbols[i];
    if (s->frame < x->rows_n && x->rows[s->frame].is_address) x->rows[s->frame].symbol = (uint32_t)i + 1;
    for (uint32_t k = 0; k < s->n; k++) { /* one that is itself an address, or was lost, stands for no known one */
      uint32_t *target = &x->targets[s->at + k];
      bool ok =
          *target < t->frames_n && (t->frames[*target].language == MLZ_LANG_NATIVE || t->frames[*target].language == MLZ_LANG_INFERRED);
      if (!ok) *target = (uint32_t)t->frames_n;
    }
  }
}

static bool visible(const struct mlz_native *x, uint32_t frame, const uint32_t **frames, uint32_t *n) {
  if (frame >= x->rows_n || x->rows[frame].symbol == 0) return false;
  const struct mlz_symbol_row *s = &x->symbols[x->rows[frame].symbol - 1];
  *frames = s->n != 0 ? x->targets + s->at : NULL; /* hidden: no target may be there at all */
  *n = s->n;
  return true;
}

static bool is_python(const struct mlz_trace *t, uint32_t frame) {
  return frame < t->frames_n && t->frames[frame].language == MLZ_LANG_PYTHON;
}

static bool has_python(const struct mlz_trace *t, const struct mlz_stack_row *row) {
  for (uint32_t i = 0; i < row->n; i++)
    if (is_python(t, t->stack_frames[row->at + i])) return true;
  return false;
}

/* Frames of a stack as it is shown; `to` NULL: they are only counted. */
static uint32_t show(const struct mlz_trace *t, const struct mlz_stack_row *row, bool expand, uint32_t *to, bool *cut) {
  uint32_t count = 0;
  bool python = t->native.python && has_python(t, row);
  for (uint32_t i = 0; i < row->n; i++) {
    uint32_t frame = t->stack_frames[row->at + i], n = 1;
    if (python && !is_python(t, frame)) continue;
    const uint32_t *frames = &frame;
    if (visible(&t->native, frame, &frames, &n) && !expand && n > 1) { /* only the function that was not inlined */
      frames += n - 1;
      n = 1;
    }
    for (uint32_t k = 0; k < n; k++) {
      if (count == MLZ_STACK_MAX) {
        *cut = true;
        return count;
      }
      if (to != NULL) to[count] = frames[k];
      count++;
    }
  }
  return count;
}

int mlz_trace_symbols_done(struct mlz_trace *t) {
  struct mlz_native *x = &t->native;
  if (x->rows == NULL) return 0;
  size_t stacks = t->stacks_n + 1;
  uint64_t room = 0, bound = SHOWN_FREE + SHOWN_TIMES * t->stack_frames_n;
  struct mlz_stack_row *shown = calloc(stacks, sizeof *shown);
  if (shown == NULL) return -ENOMEM;
  for (size_t i = 0; i < stacks; i++) {
    shown[i] = t->stacks[i];
    if (t->stacks[i].n == UINT32_MAX) continue;
    bool expand = room < bound;
    shown[i].at = room;
    shown[i].n = show(t, &t->stacks[i], expand, NULL, &shown[i].truncated);
    room += shown[i].n;
  }
  uint32_t *frames = malloc((size_t)(room + 1) * sizeof *frames);
  if (frames == NULL) {
    free(shown);
    return -ENOMEM;
  }
  for (size_t i = 0; i < stacks; i++) {
    if (t->stacks[i].n != UINT32_MAX) show(t, &t->stacks[i], shown[i].at < bound, frames + shown[i].at, &shown[i].truncated);
  }
  free(x->shown);
  free(x->shown_frames);
  x->shown = shown;
  x->shown_frames = frames;
  return 0;
}

int mlz_trace_python_frames(struct mlz_trace *t) {
  t->native.python = true;
  return mlz_trace_symbols_done(t);
}

int mlz_native_end(struct mlz_trace *t) {
  struct mlz_native *x = &t->native;
  if (x->rows == NULL) return 0;
  take_symbols(t);
  for (uint32_t i = 0; i < x->rows_n; i++) {
    if (!x->rows[i].is_address) continue;
    const uint32_t *frames;
    uint32_t n;
    struct mlz_frame f;
    if (visible(x, i, &frames, &n) && n != 0) {
      f = t->frames[frames[0]];
    } else {
      int rc = unnamed(t, &x->rows[i], &f);
      if (rc != 0) return rc;
    }
    t->frames[i] = f;
  }
  return mlz_trace_symbols_done(t);
}

bool mlz_trace_native(const struct mlz_trace *t, uint32_t frame, struct mlz_native_frame *out) {
  const struct mlz_native *x = &t->native;
  if (frame >= x->rows_n || !x->rows[frame].is_address) return false;
  const struct mlz_address_row *row = &x->rows[frame];
  const struct mlz_module_row *m = module_of(t, row->module);
  *out = (struct mlz_native_frame){.path = mlz_trace_string(t, path_of(t, m)),
                                   .build_id = m->build_id < t->strings_n ? mlz_trace_string(t, m->build_id) : "",
                                   .address = row->address,
                                   .module = row->module};
  out->resolved = visible(x, frame, &out->frames, &out->n);
  return true;
}

int mlz_trace_symbol(struct mlz_trace *t, uint32_t frame, const struct mlz_symbol_name *names, uint32_t n) {
  struct mlz_native *x = &t->native;
  if (frame >= x->rows_n || !x->rows[frame].is_address) return 0;
  uint32_t module = x->rows[frame].module, name;
  int rc = name_of(t, module, &name);
  if (rc != 0) return rc;
  if (n > MLZ_SYMBOL_MAX) n = MLZ_SYMBOL_MAX;
  if (!mlz_grow(&x->symbols, &x->symbols_room, x->symbols_n + 1, sizeof x->symbols[0]) ||
      !mlz_grow(&x->targets, &x->targets_room, x->targets_n + n, sizeof x->targets[0]))
    return -ENOMEM;
  size_t at = x->targets_n;
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_frame f = {.file = path_of(t, module_of(t, module)),
                          .module = name,
                          .line = names[i].line,
                          .language = names[i].inferred ? MLZ_LANG_INFERRED : MLZ_LANG_NATIVE};
    if ((rc = mlz_tables_add_string(t, names[i].function, strlen(names[i].function), &f.function)) != 0) return rc;
    if (names[i].file != NULL && (rc = mlz_tables_add_string(t, names[i].file, strlen(names[i].file), &f.file)) != 0) return rc;
    if ((rc = mlz_tables_add_frame(t, f, &x->targets[at + i])) != 0) return rc;
  }
  x->targets_n = at + n;
  x->symbols[x->symbols_n++] = (struct mlz_symbol_row){.frame = frame, .n = n, .at = at};
  x->rows[frame].symbol = (uint32_t)x->symbols_n;
  if (n != 0) t->frames[frame] = t->frames[x->targets[at]];
  return 0;
}
