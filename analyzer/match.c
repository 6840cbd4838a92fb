#include "analyzer/match.h"

#include "analyzer/text.h"

#include <math.h>
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

/* What an alignment of two functions costs: a line that is in one of them only, lines that move otherwise than those before them, lines that call
 * other functions. So two lines that each moved by a number of their own are still the same, but three unmoved lines are not given up for one. */
#define COST_ALONE 1.25
#define COST_MOVE 1.0
#define COST_CALLS 1.0
#define COST_DISTANCE 1e-4 /* for each line that they move otherwise; the nearest of equals */
enum { DISTANCE_MAX = 1000, PAIRS_MAX = 1 << 16 };

/* before[i] and after[k] taken as the same, with the best choice before them. */
struct pair {
  double cost;
  uint32_t previous; /* PAIR_NONE: it is the first */
  int64_t shift;
  /* The best of all pairs up to i and up to k, with what is left alone behind it. */
  double best_cost;
  uint32_t best;
};
#define PAIR_NONE UINT32_MAX

static double move_cost(int64_t from, int64_t to) {
  uint64_t distance = from < to ? (uint64_t)(to - from) : (uint64_t)(from - to);
  return distance ? COST_MOVE + COST_DISTANCE * (double)(distance < DISTANCE_MAX ? distance : DISTANCE_MAX) : 0;
}

/* The pairs of one shift, as far as they are known: which of them the next one would best follow. */
struct chain {
  int64_t shift;
  double cost; /* less COST_ALONE for each line of both up to it */
  uint32_t pair;
};

static int compare_chains(const void *a, const void *b) {
  int64_t x = ((const struct chain *)a)->shift, y = ((const struct chain *)b)->shift;
  return x < y ? -1 : x > y;
}

static struct chain *find_chain(struct chain *chains, size_t n, int64_t shift) {
  struct chain key = {.shift = shift};
  return bsearch(&key, chains, n, sizeof *chains, compare_chains);
}

static struct chain *make_chains(const struct mlz_match_line *before, size_t n, const struct mlz_match_line *after, size_t m,
                                 size_t *count) {
  struct chain *chains = mlz_text_calloc(n * m + 1, sizeof *chains);
  size_t all = 0, distinct = 0;
  chains[all++].shift = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < m; k++) chains[all++].shift = (int64_t)after[k].line - before[i].line;
  qsort(chains, all, sizeof *chains, compare_chains);
  for (size_t i = 0; i < all; i++)
    if (!i || chains[i].shift != chains[distinct - 1].shift) chains[distinct++] = chains[i];
  /* Before all lines stands a pair that has not moved: -1 and -1. */
  for (size_t i = 0; i < distinct; i++) chains[i].pair = PAIR_NONE, chains[i].cost = chains[i].shift ? HUGE_VAL : 2 * COST_ALONE;
  *count = distinct;
  return chains;
}

static void set_pair(struct pair *pairs, size_t m, size_t i, size_t k, struct chain *chain, bool same_calls) {
  struct pair *p = &pairs[i * m + k];
  double left = COST_ALONE * (double)(i + k); /* nothing before it is the same */
  *p = (struct pair){.cost = left + move_cost(0, chain->shift), .previous = PAIR_NONE, .shift = chain->shift};
  if (chain->cost + left - 2 * COST_ALONE <= p->cost) p->cost = chain->cost + left - 2 * COST_ALONE, p->previous = chain->pair;
  if (i && k) {
    const struct pair *corner = &pairs[(i - 1) * m + k - 1];
    double cost = corner->best_cost + move_cost(pairs[corner->best].shift, chain->shift);
    if (cost < p->cost) p->cost = cost, p->previous = corner->best;
  }
  if (!same_calls) p->cost += COST_CALLS;
  p->best = (uint32_t)(i * m + k);
  p->best_cost = p->cost;
  const struct pair *neighbours[] = {i ? &pairs[(i - 1) * m + k] : NULL, k ? &pairs[i * m + k - 1] : NULL};
  for (size_t n = 0; n < 2; n++)
    if (neighbours[n] && neighbours[n]->best_cost + COST_ALONE < p->best_cost)
      p->best_cost = neighbours[n]->best_cost + COST_ALONE, p->best = neighbours[n]->best;
  if (p->cost - left < chain->cost) chain->cost = p->cost - left, chain->pair = (uint32_t)(i * m + k);
}

static void align(const struct mlz_match_line *before, size_t n, const struct mlz_match_line *after, size_t m, uint32_t *match) {
  struct pair *pairs = mlz_text_calloc(n * m, sizeof *pairs);
  size_t n_chains;
  struct chain *chains = make_chains(before, n, after, m, &n_chains);
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < m; k++)
      set_pair(pairs, m, i, k, find_chain(chains, n_chains, (int64_t)after[k].line - before[i].line), before[i].calls == after[k].calls);
  const struct pair *end = &pairs[n * m - 1];
  uint32_t at = end->best_cost < COST_ALONE * (double)(n + m) ? end->best : PAIR_NONE;
  for (; at != PAIR_NONE; at = pairs[at].previous) match[at / m] = (uint32_t)(at % m);
  free(chains);
  free(pairs);
}

/* Very many lines: those that have not moved, and between them the others in their order. */
static void align_simply(const struct mlz_match_line *before, size_t n, const struct mlz_match_line *after, size_t m, uint32_t *match) {
  size_t from = 0, base = 0;
  for (size_t i = 0, k = 0; i <= n && k <= m;) {
    bool end = i == n || k == m;
    if (!end && before[i].line != after[k].line) {
      before[i].line < after[k].line ? i++ : k++;
      continue;
    }
    if (end) i = n, k = m;
    while (from < i && base < k) match[from++] = (uint32_t)base++;
    if (end) break;
    match[i] = (uint32_t)k;
    from = ++i, base = ++k;
  }
}

void mlz_match_lines(const struct mlz_match_line *before, size_t n, const struct mlz_match_line *after, size_t m, uint32_t *match) {
  for (size_t i = 0; i < n; i++) match[i] = UINT32_MAX;
  /* Line 0 says that the line is not known. */
  size_t from = n && !before[0].line, base = m && !after[0].line;
  if (from && base) match[0] = 0;
  if (from == n || base == m) return;
  if (n - from > PAIRS_MAX / (m - base))
    align_simply(before + from, n - from, after + base, m - base, match + from);
  else
    align(before + from, n - from, after + base, m - base, match + from);
  for (size_t i = from; i < n && base; i++) match[i] += match[i] != UINT32_MAX;
}

/* ---- frames ---- */

/* A frame of one trace, to be sorted. */
struct line {
  uint32_t function, line, frame;
  uint64_t calls; /* a sum over the functions that it calls, and one for allocating itself */
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

/* `lines` by frame id. */
static void add_calls(struct mlz_input *in, struct line *lines) {
  enum { ITSELF = UINT32_MAX };
  struct mlz_intern known = {0};
  uint32_t n_stacks = mlz_trace_stacks(in->trace);
  for (uint32_t stack = 0; stack < n_stacks; stack++) {
    uint32_t n;
    bool truncated;
    const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
    for (uint32_t i = 0; i < n; i++) {
      uint32_t call[2] = {frames[i], i ? lines[frames[i - 1]].function : ITSELF}, before = known.n;
      if (mlz_intern_key(&known, call, sizeof call) == before)
        lines[frames[i]].calls += (call[1] + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
    }
  }
  mlz_intern_clear(&known);
}

static struct line *sorted_lines(struct mlz_match *match, enum mlz_side side, const struct files *files) {
  uint32_t n = mlz_trace_frames(match->in[side]->trace);
  struct line *lines = mlz_text_calloc(n, sizeof *lines);
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(match->in[side], i);
    lines[i] = (struct line){function_of(match, &p, files->files[files->of_frame[i]].number), p.line, i, 0};
  }
  add_calls(match->in[side], lines);
  qsort(lines, n, sizeof *lines, compare_lines);
  return lines;
}

/* The distinct lines of the function that begins at *at; moves *at behind it. malloc'd. */
static struct mlz_match_line *lines_of(const struct line *lines, size_t n, size_t *at, uint32_t function, size_t *count) {
  size_t end = *at;
  while (end < n && lines[end].function == function) end++;
  struct mlz_match_line *out = mlz_text_calloc(end - *at, sizeof *out);
  *count = 0;
  for (; *at < end; ++*at) {
    if (!*count || out[*count - 1].line != lines[*at].line) out[(*count)++].line = lines[*at].line;
    out[*count - 1].calls += lines[*at].calls;
  }
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
  struct mlz_match_line *distinct[MLZ_SIDES];
  uint32_t *of_line[MLZ_SIDES];
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
