#include "analyzer/match.h"

#include "analyzer/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- paths ---- */

/* In place: "a//b/./c/../d" becomes "a/b/d". What leads out of a relative path stays. */
static void clean_path(char *path) {
  bool absolute = *path == '/';
  char *out = path + absolute, *begin = out;
  for (const char *p = begin; *p;) {
    while (*p == '/') p++;
    size_t n = strcspn(p, "/");
    if (n == 2 && p[0] == '.' && p[1] == '.' && out > begin) {
      char *last = out;
      while (last > begin && last[-1] != '/') last--;
      if (strncmp(last, "..", 2) || out - last != 2) {
        out = last > begin ? last - 1 : begin;
        p += n;
        continue;
      }
    }
    if (n && !(n == 1 && *p == '.') && !(absolute && out == begin && n == 2 && p[0] == '.' && p[1] == '.')) {
      if (out > begin) *out++ = '/';
      memmove(out, p, n);
      out += n;
    }
    p += n;
  }
  *out = 0;
}

/* Behind the last "/NAME/" (NAME may end in a version), or NULL. */
static const char *behind(const char *path, const char *name, bool version) {
  const char *found = NULL;
  size_t n = strlen(name);
  for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
    if (strncmp(p + 1, name, n)) continue;
    const char *end = p + 1 + n;
    if (version) end += strspn(end, "0123456789.t"); /* 3.13t: the free-threaded build */
    if (*end == '/' && end[1]) found = end + 1;
  }
  return found;
}

char *mlz_match_path(const char *path, const char *directory) {
  char *clean = mlz_text_format("%s", path), *home = mlz_text_format("%s", directory), *out;
  if (*path == '<') { /* <string>, <frozen importlib._bootstrap> */
    free(home);
    return clean;
  }
  clean_path(clean);
  clean_path(home);
  size_t n = strlen(home);
  const char *tail;
  if ((tail = behind(clean, "site-packages", false)) || (tail = behind(clean, "dist-packages", false)))
    out = mlz_text_format("site-packages/%s", tail);
  else if ((tail = behind(clean, "lib/python3", true)) || (tail = behind(clean, "lib64/python3", true)))
    out = mlz_text_format("python3/%s", tail);
  else
    out = mlz_text_format("%s", n > 1 && !strncmp(clean, home, n) && clean[n] == '/' ? clean + n + 1 : clean);
  free(clean);
  free(home);
  return out;
}

/* ---- files ---- */

struct file {
  const char *path;   /* of the trace */
  const char *module; /* of one of its frames */
  uint32_t number;    /* MLZ_INTERN_NONE: none yet */
};
/* The files of one trace, each path once. */
struct files {
  struct mlz_intern paths;
  struct file *files;
  uint32_t *of_frame;
};

static void collect_files(struct mlz_input *in, struct files *f) {
  uint32_t n = mlz_trace_frames(in->trace), known = 0, room = 0;
  *f = (struct files){.of_frame = mlz_text_calloc(n, sizeof(uint32_t))};
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(in, i);
    uint32_t number = mlz_intern_text(&f->paths, p.file);
    f->of_frame[i] = number;
    if (number < known) continue;
    if (known == room) {
      room = room ? room * 2 : 64;
      f->files = mlz_text_realloc(f->files, room, sizeof *f->files);
    }
    f->files[known++] = (struct file){p.file, p.module, MLZ_INTERN_NONE};
  }
}

static void clear_files(struct files *f) {
  mlz_intern_clear(&f->paths);
  free(f->files);
  free(f->of_frame);
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static size_t common_tail(const char *a, const char *b) {
  size_t n = strlen(a), m = strlen(b), same = 0;
  while (same < n && same < m && a[n - 1 - same] == b[m - 1 - same]) same++;
  return same;
}

/* Files without a number that are the same program text in another place: each takes the best of those left. */
static void join_moved(struct files *before, struct files *after) {
  for (uint32_t i = 0; i < after->paths.n; i++) {
    struct file *a = &after->files[i], *best = NULL;
    size_t best_tail = 0;
    for (uint32_t k = 0; a->number == MLZ_INTERN_NONE && k < before->paths.n; k++) {
      struct file *b = &before->files[k];
      if (b->number != MLZ_INTERN_NONE || strcmp(base_name(a->path), base_name(b->path)) || strcmp(a->module, b->module)) continue;
      size_t tail = common_tail(a->path, b->path);
      if (!best || tail > best_tail) best = b, best_tail = tail;
    }
    if (best) a->number = best->number = i;
  }
}

static struct file *only_main(struct files *f) {
  struct file *found = NULL;
  for (uint32_t i = 0; i < f->paths.n; i++) {
    if (f->files[i].number != MLZ_INTERN_NONE || strcmp(f->files[i].module, "__main__")) continue;
    if (found) return NULL;
    found = &f->files[i];
  }
  return found;
}

/* Numbers: the file's place among those of the trace after, then those that only the one before has. */
static uint32_t number_files(struct mlz_input *const *in, struct files *files) {
  struct mlz_intern same = {0};
  uint32_t *of_same = NULL, n_after = files[MLZ_AFTER].paths.n, n = n_after;
  for (int side = MLZ_AFTER; side >= MLZ_BEFORE; side--) {
    const char *directory = mlz_input_text(mlz_trace_meta(in[side]->trace), "directory");
    for (uint32_t i = 0; i < files[side].paths.n; i++) {
      char *path = mlz_match_path(files[side].files[i].path, directory);
      uint32_t known = mlz_intern_find(&same, path, strlen(path));
      if (side == MLZ_AFTER && known == MLZ_INTERN_NONE) {
        known = mlz_intern_text(&same, path);
        of_same = mlz_text_realloc(of_same, known + 1, sizeof *of_same);
        of_same[known] = i;
      } else if (known != MLZ_INTERN_NONE) { /* two paths of one trace may be one file, too */
        files[side].files[i].number = files[MLZ_AFTER].files[of_same[known]].number = of_same[known];
      }
      free(path);
    }
  }
  mlz_intern_clear(&same);
  free(of_same);
  join_moved(&files[MLZ_BEFORE], &files[MLZ_AFTER]);
  struct file *was = only_main(&files[MLZ_BEFORE]), *is = only_main(&files[MLZ_AFTER]);
  if (was && is) was->number = is->number = (uint32_t)(is - files[MLZ_AFTER].files);
  for (uint32_t i = 0; i < n_after; i++)
    if (files[MLZ_AFTER].files[i].number == MLZ_INTERN_NONE) files[MLZ_AFTER].files[i].number = i;
  for (uint32_t i = 0; i < files[MLZ_BEFORE].paths.n; i++)
    if (files[MLZ_BEFORE].files[i].number == MLZ_INTERN_NONE) files[MLZ_BEFORE].files[i].number = n++;
  return n;
}

/* ---- lines ---- */

static int compare_shifts(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static uint64_t size_of(int64_t shift) { return shift < 0 ? -(uint64_t)shift : (uint64_t)shift; }

enum { PAIRS_MAX = 1 << 16 };

/* The shift that brings most lines together, the smallest of the best. */
static int64_t best_shift(const uint32_t *before, size_t n, const uint32_t *after, size_t m) {
  int64_t *shifts = mlz_text_calloc(n * m, sizeof *shifts), best = 0;
  size_t most = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < m; k++) shifts[i * m + k] = (int64_t)after[k] - before[i];
  qsort(shifts, n * m, sizeof *shifts, compare_shifts);
  for (size_t i = 0, end; i < n * m; i = end) {
    for (end = i; end < n * m && shifts[end] == shifts[i];) end++;
    if (end - i > most || (end - i == most && size_of(shifts[i]) < size_of(best))) most = end - i, best = shifts[i];
  }
  free(shifts);
  return best;
}

/* before[from..n) and after[base..m). What is not brought together by one shift is tried again between what is. */
static void match_range(const uint32_t *before, size_t from, size_t n, const uint32_t *after, size_t base, size_t m, uint32_t *match) {
  while (from < n && base < m) {
    bool many = (n - from) > PAIRS_MAX / (m - base); /* then unmoved lines only, and the others in their order */
    int64_t shift = many ? 0 : best_shift(before + from, n - from, after + base, m - base);
    size_t i = from, k = base;
    while (i < n && k < m) {
      int64_t is = before[i] + shift;
      if (is != after[k]) {
        is < after[k] ? i++ : k++;
        continue;
      }
      for (; many && from < i && base < k; from++, base++) match[from] = (uint32_t)base;
      if (!many) match_range(before, from, i, after, base, k, match);
      match[i++] = (uint32_t)k++;
      from = i, base = k;
    }
    for (; many && from < n && base < m; from++, base++) match[from] = (uint32_t)base;
  }
}

void mlz_match_lines(const uint32_t *before, size_t n_before, const uint32_t *after, size_t n_after, uint32_t *match) {
  for (size_t i = 0; i < n_before; i++) match[i] = UINT32_MAX;
  /* Line 0 says that the line is not known. */
  size_t from = n_before && !before[0], base = n_after && !after[0];
  if (from && base) match[0] = 0;
  match_range(before, from, n_before, after, base, n_after, match);
}

/* ---- frames ---- */

/* A frame of one trace, to be sorted. */
struct line {
  uint32_t function, line, frame;
};

static int compare_lines(const void *a, const void *b) {
  const struct line *x = a, *y = b;
  if (x->function != y->function) return x->function < y->function ? -1 : 1;
  if (x->line != y->line) return x->line < y->line ? -1 : 1;
  return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static uint32_t function_of(struct mlz_match *match, const struct mlz_place *p, uint32_t file) {
  char *key = mlz_text_format("%08x%u%s", file, (unsigned)p->language, p->function);
  uint32_t number = mlz_intern_text(&match->functions, key);
  free(key);
  return number;
}

static struct line *sorted_lines(struct mlz_match *match, enum mlz_side side, const struct files *files) {
  uint32_t n = mlz_trace_frames(match->in[side]->trace);
  struct line *lines = mlz_text_calloc(n, sizeof *lines);
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(match->in[side], i);
    lines[i] = (struct line){function_of(match, &p, files->files[files->of_frame[i]].number), p.line, i};
  }
  qsort(lines, n, sizeof *lines, compare_lines);
  return lines;
}

/* The distinct lines of the function that begins at *at; moves *at behind it. malloc'd. */
static uint32_t *lines_of(const struct line *lines, size_t n, size_t *at, uint32_t function, size_t *count) {
  size_t end = *at;
  while (end < n && lines[end].function == function) end++;
  uint32_t *out = mlz_text_calloc(end - *at, sizeof *out);
  *count = 0;
  for (; *at < end; ++*at)
    if (!*count || out[*count - 1] != lines[*at].line) out[(*count)++] = lines[*at].line;
  return out;
}

static uint32_t add_frame(struct mlz_match *match, uint32_t function) {
  if (match->n == match->room) {
    match->room = match->room ? match->room * 2 : 256;
    match->frames = mlz_text_realloc(match->frames, match->room, sizeof *match->frames);
  }
  match->frames[match->n] = (struct mlz_match_frame){{MLZ_INTERN_NONE, MLZ_INTERN_NONE}, function, 0};
  return match->n++;
}

/* `of_line`: the index in match->frames of each distinct line. */
static void place_lines(struct mlz_match *match, enum mlz_side side, const struct files *files, const struct line *lines, size_t from,
                        size_t to, const uint32_t *of_line) {
  size_t distinct = 0;
  for (size_t i = from; i < to; i++) {
    if (i > from && lines[i].line != lines[i - 1].line) distinct++;
    struct mlz_match_frame *frame = &match->frames[of_line[distinct]];
    match->of[side][lines[i].frame] = of_line[distinct];
    frame->file = files->files[files->of_frame[lines[i].frame]].number;
    if (frame->frame[side] == MLZ_INTERN_NONE) frame->frame[side] = lines[i].frame;
  }
}

static void match_function(struct mlz_match *match, const struct files *files, struct line *const *lines, const size_t *n, size_t *at,
                           uint32_t function) {
  size_t from[MLZ_SIDES] = {at[0], at[1]}, count[MLZ_SIDES];
  uint32_t *distinct[MLZ_SIDES], *of_line[MLZ_SIDES];
  for (int side = 0; side < MLZ_SIDES; side++) {
    distinct[side] = lines_of(lines[side], n[side], &at[side], function, &count[side]);
    of_line[side] = mlz_text_calloc(count[side], sizeof(uint32_t));
  }
  uint32_t *pairs = mlz_text_calloc(count[MLZ_BEFORE], sizeof *pairs);
  mlz_match_lines(distinct[MLZ_BEFORE], count[MLZ_BEFORE], distinct[MLZ_AFTER], count[MLZ_AFTER], pairs);
  for (size_t i = 0; i < count[MLZ_AFTER]; i++) of_line[MLZ_AFTER][i] = add_frame(match, function);
  for (size_t i = 0; i < count[MLZ_BEFORE]; i++)
    of_line[MLZ_BEFORE][i] = pairs[i] == UINT32_MAX ? add_frame(match, function) : of_line[MLZ_AFTER][pairs[i]];
  for (int side = 0; side < MLZ_SIDES; side++) {
    place_lines(match, (enum mlz_side)side, &files[side], lines[side], from[side], at[side], of_line[side]);
    free(distinct[side]);
    free(of_line[side]);
  }
  free(pairs);
}

void mlz_match_build(struct mlz_input *before, struct mlz_input *after, struct mlz_match *out) {
  *out = (struct mlz_match){.in = {before, after}};
  struct files files[MLZ_SIDES];
  struct line *lines[MLZ_SIDES];
  size_t n[MLZ_SIDES], at[MLZ_SIDES] = {0};
  for (int side = 0; side < MLZ_SIDES; side++) {
    collect_files(out->in[side], &files[side]);
    n[side] = mlz_trace_frames(out->in[side]->trace);
    out->of[side] = mlz_text_calloc(n[side], sizeof *out->of[side]);
  }
  out->n_files = number_files(out->in, files);
  for (int side = 0; side < MLZ_SIDES; side++) lines[side] = sorted_lines(out, (enum mlz_side)side, &files[side]);
  out->function_frame = mlz_text_calloc(out->functions.n, sizeof *out->function_frame);
  for (uint32_t function = 0; function < out->functions.n; function++) {
    out->function_frame[function] = out->n; /* those of the trace after come first */
    match_function(out, files, lines, n, at, function);
  }
  for (int side = 0; side < MLZ_SIDES; side++) {
    free(lines[side]);
    clear_files(&files[side]);
  }
}

void mlz_match_clear(struct mlz_match *match) {
  for (int side = 0; side < MLZ_SIDES; side++) free(match->of[side]);
  free(match->frames);
  free(match->function_frame);
  mlz_intern_clear(&match->functions);
  *match = (struct mlz_match){0};
}

struct mlz_place mlz_match_place(const struct mlz_match *match, uint32_t index) {
  const struct mlz_match_frame *frame = &match->frames[index];
  enum mlz_side side = frame->frame[MLZ_AFTER] == MLZ_INTERN_NONE ? MLZ_BEFORE : MLZ_AFTER;
  return mlz_place_of_frame(match->in[side], frame->frame[side]);
}

struct mlz_place mlz_match_function_place(const struct mlz_match *match, uint32_t index) {
  struct mlz_place p = mlz_match_place(match, match->function_frame[match->frames[index].function]);
  p.line = 0;
  return p;
}
