#include "analyzer/annotate.h"

#include "analyzer/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SOURCE_MAX (64 << 20)

/* ---- figures ---- */

void mlz_figures_add(struct mlz_figures *to, const struct mlz_figures *x) {
  to->tally.alloc_count += x->tally.alloc_count;
  to->tally.alloc_bytes += x->tally.alloc_bytes;
  to->tally.free_count += x->tally.free_count;
  to->tally.free_bytes += x->tally.free_bytes;
  to->tally.temp_count += x->tally.temp_count;
  to->tally.temp_bytes += x->tally.temp_bytes;
  to->peak_bytes += x->peak_bytes;
  to->peak_count += x->peak_count;
  to->value += x->value;
}

/* The last part of a qualified name, without a signature: grow of app::Box<int>::grow(int), feed of Parser.feed. */
static bool last_part_is(const char *function, const char *name) {
  size_t n = strlen(name), end = 0, depth = 0;
  for (; function[end] && !(function[end] == '(' && depth == 0 && end); end++) {
    depth += function[end] == '<';
    depth -= function[end] == '>' && depth;
  }
  if (end > 0 && function[end - 1] == '>') { /* arguments of a template */
    for (depth = 0; end > 0; end--) {
      depth += function[end - 1] == '>';
      if (function[end - 1] == '<' && --depth == 0) {
        end--;
        break;
      }
    }
  }
  return end > n && !strncmp(function + end - n, name, n) && strchr(".: ", function[end - n - 1]) != NULL;
}

static bool is_function(const char *function, const char *name) {
  size_t n = strlen(name);
  if (!strcmp(function, name)) return true;
  if (!strncmp(function, name, n) && function[n] == '(') return true; /* without its signature */
  return n > 0 && last_part_is(function, name);
}

static bool is_file(const char *path, const char *name) {
  size_t n = strlen(path), k = strlen(name);
  while (k > 2 && !strncmp(name, "./", 2)) name += 2, k -= 2;
  return !strcmp(path, name) || (k && k < n && !strcmp(path + n - k, name) && path[n - k - 1] == '/');
}

static struct mlz_source_file *file_of(struct mlz_annotation *a, const struct mlz_place *p) {
  for (size_t i = a->n; i-- > 0;)
    if (a->files[i].path == p->file || !strcmp(a->files[i].path, p->file)) return &a->files[i];
  if (a->n == a->room) {
    a->room = a->room ? a->room * 2 : 64;
    a->files = mlz_text_realloc(a->files, a->room, sizeof *a->files);
  }
  a->files[a->n] = (struct mlz_source_file){.path = p->file, .module = p->module};
  return &a->files[a->n++];
}

static struct mlz_line *line_of(struct mlz_source_file *f, const struct mlz_place *p) {
  for (size_t i = f->n; i-- > 0;)
    if (f->lines[i].line == p->line && !strcmp(f->lines[i].function, p->function)) return &f->lines[i];
  if (f->n == f->room) {
    f->room = f->room ? f->room * 2 : 16;
    f->lines = mlz_text_realloc(f->lines, f->room, sizeof *f->lines);
  }
  f->lines[f->n] = (struct mlz_line){.function = p->function, .line = p->line, .language = p->language};
  return &f->lines[f->n++];
}

static void add_call(struct mlz_line *l, uint32_t frame, const struct mlz_figures *x) {
  size_t i = 0;
  while (i < l->n_calls && l->calls[i].frame != frame) i++;
  if (i == l->n_calls) {
    if (l->n_calls == l->calls_room) {
      l->calls_room = l->calls_room ? l->calls_room * 2 : 4;
      l->calls = mlz_text_realloc(l->calls, l->calls_room, sizeof *l->calls);
    }
    l->calls[l->n_calls++] = (struct mlz_call){.frame = frame};
  }
  mlz_figures_add(&l->calls[i].figures, x);
}

/* The stored frame whose name is the stack's innermost shown one. false: that is no native address. */
static bool call_of(const struct mlz_input *in, uint32_t stack, uint32_t *frame) {
  uint32_t n;
  const uint32_t *frames = mlz_trace_stack_stored(in->trace, stack, &n);
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_native_frame f;
    if (!mlz_trace_native(in->trace, frames[i], &f)) return false;
    if (f.resolved && f.n == 0) continue;
    *frame = frames[i];
    return true;
  }
  return false;
}

static bool wanted(const struct mlz_annotate_wish *wish, const struct mlz_place *p) {
  return (!wish->function || is_function(p->function, wish->function)) && (!wish->file || is_file(p->file, wish->file));
}

/* The innermost Python frame of a stack with native ones below it: the line that called. */
static bool python_of(const struct mlz_input *in, uint32_t stack, struct mlz_place *out) {
  uint32_t n;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, NULL);
  for (uint32_t i = 0; i < n; i++) {
    if (mlz_trace_frame(in->trace, frames[i]).language != MLZ_LANG_PYTHON) continue;
    *out = mlz_place_of_frame(in, frames[i]);
    return true;
  }
  return false;
}

static struct mlz_line *take(struct mlz_annotation *a, const struct mlz_place *p, const struct mlz_figures *x) {
  struct mlz_source_file *f = file_of(a, p);
  struct mlz_line *l = line_of(f, p);
  mlz_figures_add(&l->figures, x);
  mlz_figures_add(&f->figures, x);
  return l;
}

static int by_value(double x, double y) { return x > y ? -1 : x < y; }
static int compare_calls(const void *a, const void *b) {
  const struct mlz_call *x = a, *y = b;
  int c = by_value(x->figures.value, y->figures.value);
  return c ? c : x->frame < y->frame ? -1 : x->frame > y->frame;
}
static int compare_lines(const void *a, const void *b) {
  const struct mlz_line *x = a, *y = b;
  if (x->line != y->line) return x->line < y->line ? -1 : 1;
  int c = by_value(x->figures.value, y->figures.value);
  return c ? c : strcmp(x->function, y->function);
}
static int compare_files(const void *a, const void *b) {
  const struct mlz_source_file *x = a, *y = b;
  int c = by_value(x->figures.value, y->figures.value);
  return c ? c : strcmp(x->path, y->path);
}

void mlz_annotate(struct mlz_input *in, const struct mlz_annotate_wish *wish, const struct mlz_tally_run *now,
                  const struct mlz_tally_run *peak, struct mlz_annotation *out) {
  *out = (struct mlz_annotation){0};
  for (size_t i = 0; i < now->n; i++) {
    struct mlz_figures x = {.tally = now->rows[i]};
    if (peak && i < peak->n) {
      x.peak_bytes = mlz_tally_live_bytes(&peak->rows[i]);
      x.peak_count = peak->rows[i].alloc_count - peak->rows[i].free_count;
    }
    if (x.tally.alloc_count <= 0 && x.peak_count <= 0) continue;
    x.value = mlz_metric_of(&x.tally, x.peak_bytes, wish->by);
    struct mlz_place p = mlz_place_of_stack(in, (uint32_t)i);
    uint32_t frame;
    bool native = p.language != MLZ_LANG_PYTHON, taken = false;
    if (wanted(wish, &p)) {
      struct mlz_line *l = take(out, &p, &x);
      if (native && call_of(in, (uint32_t)i, &frame)) add_call(l, frame, &x);
      taken = true;
    }
    if (native && python_of(in, (uint32_t)i, &p) && wanted(wish, &p)) {
      take(out, &p, &x);
      taken = true;
    }
    if (taken) mlz_figures_add(&out->total, &x);
  }
  for (size_t i = 0; i < out->n; i++) {
    struct mlz_source_file *f = &out->files[i];
    for (size_t k = 0; k < f->n; k++)
      if (f->lines[k].n_calls) qsort(f->lines[k].calls, f->lines[k].n_calls, sizeof *f->lines[k].calls, compare_calls);
    qsort(f->lines, f->n, sizeof *f->lines, compare_lines);
  }
  if (out->n) qsort(out->files, out->n, sizeof *out->files, compare_files);
}

void mlz_annotation_clear(struct mlz_annotation *a) {
  for (size_t i = 0; i < a->n; i++) {
    for (size_t k = 0; k < a->files[i].n; k++) free(a->files[i].lines[k].calls);
    free(a->files[i].lines);
  }
  free(a->files);
  *a = (struct mlz_annotation){0};
}

/* ---- source ---- */

static bool read_source(const char *path, struct mlz_source_text *out, struct stat *st) {
  if (stat(path, st) < 0 || !S_ISREG(st->st_mode) || st->st_size > SOURCE_MAX) return false;
  FILE *f = fopen(path, "re");
  if (!f) return false;
  out->bytes = mlz_text_calloc((size_t)st->st_size + 1, 1);
  size_t n = fread(out->bytes, 1, (size_t)st->st_size, f), room = 0;
  fclose(f);
  for (size_t i = 0; i < n; i++)
    if (!out->bytes[i]) out->bytes[i] = '?';
  for (char *at = out->bytes; at < out->bytes + n;) {
    char *end = memchr(at, '\n', (size_t)(out->bytes + n - at));
    if (out->n == room) {
      room = room ? room * 2 : 256;
      out->lines = mlz_text_realloc(out->lines, room, sizeof *out->lines);
    }
    out->lines[out->n++] = at;
    if (!end) break;
    *end = 0;
    if (end > at && end[-1] == '\r') end[-1] = 0;
    at = end + 1;
  }
  out->path = mlz_text_format("%s", path);
  return true;
}

static bool read_below(const char *directory, const char *path, struct mlz_source_text *out, struct stat *st) {
  char *full = mlz_text_format("%s/%s", directory, path);
  bool found = read_source(full, out, st);
  free(full);
  return found;
}

void mlz_source_find(const struct mlz_input *in, const char *path, const char *directory, struct mlz_source_text *out) {
  const json_t *meta = mlz_trace_meta(in->trace);
  struct stat st;
  *out = (struct mlz_source_text){0};
  if (!*path || *path == '<') return;
  bool found = false;
  for (const char *tail = path; directory && tail && !found; tail = strchr(tail, '/')) { /* the whole path below it, then less and less */
    while (*tail == '/') tail++;
    found = *tail && read_below(directory, tail, out, &st);
  }
  if (!found && *path == '/') found = read_source(path, out, &st);
  if (!found && *path != '/' && *mlz_input_text(meta, "directory")) found = read_below(mlz_input_text(meta, "directory"), path, out, &st);
  uint64_t start = mlz_input_uint(meta, "start", UINT64_MAX);
  if (found) out->later = (uint64_t)st.st_mtim.tv_sec > start / 1000000000;
}

void mlz_source_clear(struct mlz_source_text *text) {
  free(text->path);
  free(text->lines);
  free(text->bytes);
  *text = (struct mlz_source_text){0};
}
