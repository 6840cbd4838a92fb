#include "analyzer/check.h"
#include "analyzer/collections.h"
#include "analyzer/match.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name;
  enum mlz_figure_unit unit;
  const char *others[3]; /* what it is called elsewhere, with '-' for '_' */
} figures[MLZ_FIGURES] = {
    [MLZ_FIGURE_PEAK] = {"peak", MLZ_UNIT_BYTES, {"peak-bytes"}},
    [MLZ_FIGURE_LIVE] = {"live_at_end", MLZ_UNIT_BYTES, {"live-bytes", "live"}},
    [MLZ_FIGURE_LEAKED] = {"leaked", MLZ_UNIT_BYTES, {"leaked-bytes", "leaks"}},
    [MLZ_FIGURE_GROWING] = {"growing", MLZ_UNIT_BYTES, {"growing-bytes"}},
    [MLZ_FIGURE_ALLOCS] = {"allocs", MLZ_UNIT_BLOCKS, {"alloc-count", "allocations"}},
    [MLZ_FIGURE_ALLOCATED] = {"allocated", MLZ_UNIT_BYTES, {"alloc-bytes", "allocated-bytes"}},
    [MLZ_FIGURE_TEMPORARY] = {"temporary", MLZ_UNIT_BLOCKS, {"temporary-count"}},
    [MLZ_FIGURE_GC_P99] = {"gc_pause_p99", MLZ_UNIT_NS, {"gc-p99"}},
};

const char *mlz_figure_name(enum mlz_figure figure) { return figures[figure].name; }
enum mlz_figure_unit mlz_figure_unit(enum mlz_figure figure) { return figures[figure].unit; }

static bool same_name(const char *name, const char *text, size_t length) {
  if (!name || strlen(name) != length) return false;
  for (size_t i = 0; i < length; i++)
    if (name[i] != text[i] && !(strchr("-_", name[i]) && strchr("-_", text[i]))) return false;
  return true;
}

int mlz_figure_find(const char *name, size_t length) {
  for (int i = 0; i < MLZ_FIGURES; i++) {
    if (same_name(figures[i].name, name, length)) return i;
    for (size_t k = 0; k < 3; k++)
      if (same_name(figures[i].others[k], name, length)) return i;
  }
  return -1;
}

char *mlz_figure_text(enum mlz_figure figure, double value) {
  char text[MLZ_UNITS_MAX];
  switch (figures[figure].unit) {
  case MLZ_UNIT_BYTES:
    mlz_units_size(text, value);
    break;
  case MLZ_UNIT_BLOCKS:
    mlz_units_count(text, value);
    break;
  case MLZ_UNIT_NS:
    mlz_units_time(text, value);
    break;
  }
  return mlz_text_format("%s", text);
}

/* ---- measuring ---- */

static struct mlz_value known(double value, double error) { return (struct mlz_value){true, value, error}; }

/* Leaves out what is suppressed. */
static void find_leaks(struct mlz_figures *f, bool include_mmap, const struct mlz_suppressions *suppressions) {
  mlz_leaks_find(f->in, &(struct mlz_leak_options){include_mmap, NULL, f->window.to}, &f->leaks);
  size_t kept = 0;
  for (size_t i = 0; i < f->leaks.n; i++)
    if (!suppressions || !mlz_suppress_stack(suppressions, f->in, f->leaks.entries[i].stack))
      f->leaks.entries[kept++] = f->leaks.entries[i];
  f->leaks.n = kept;
}

static bool counts_as(enum mlz_figure figure, const struct mlz_leak_entry *e) {
  return e->grade == MLZ_GRADE_GROWING || (figure == MLZ_FIGURE_LEAKED && e->program);
}

static struct mlz_value leaked(const struct mlz_figures *f, enum mlz_figure figure, const char *pattern) {
  double bytes = 0;
  struct mlz_spread spread = {0};
  for (size_t i = 0; i < f->leaks.n; i++) {
    const struct mlz_leak_entry *e = &f->leaks.entries[i];
    struct mlz_place p = mlz_place_of_stack(f->in, e->stack);
    if (!counts_as(figure, e) || !mlz_pattern_matches(pattern, &p)) continue;
    bytes += e->bytes;
    mlz_spread_join(&spread, &e->spread);
  }
  return known(bytes, f->in->estimated ? mlz_spread_live_bytes_error(&spread) : 0);
}

static struct mlz_value of_tally(enum mlz_figure figure, const struct mlz_tally *t, const struct mlz_spread *s) {
  switch (figure) {
  case MLZ_FIGURE_PEAK:
  case MLZ_FIGURE_LIVE:
    return known(mlz_tally_live_bytes(t), mlz_spread_live_bytes_error(s));
  case MLZ_FIGURE_ALLOCS:
    return known(t->alloc_count, mlz_spread_alloc_count_error(s));
  case MLZ_FIGURE_ALLOCATED:
    return known(t->alloc_bytes, mlz_spread_alloc_bytes_error(s));
  case MLZ_FIGURE_TEMPORARY:
    return known(t->temp_count, mlz_spread_temp_count_error(s));
  default:
    return (struct mlz_value){0};
  }
}

static void measure_collections(struct mlz_figures *f) {
  if (f->in->totals_only) return;
  struct mlz_collections c;
  mlz_collections_find(f->in, NULL, f->window.to, 0, &c);
  f->values[MLZ_FIGURE_GC_P99] = known(c.all.pauses.count ? (double)mlz_quantiles_at(&c.all.pauses, 0.99) : 0, 0);
  mlz_collections_clear(&c);
}

void mlz_figures_measure(struct mlz_input *in, bool include_mmap, const struct mlz_suppressions *suppressions, struct mlz_figures *out) {
  *out = (struct mlz_figures){.in = in};
  mlz_window_resolve(in, NULL, NULL, NULL, include_mmap, &out->window);
  const struct mlz_cut *to = out->window.to;
  mlz_peak_find(in, include_mmap, to, &out->peak);
  mlz_tally_scan(&out->now, in, MLZ_TALLY_STACK, include_mmap, NULL, to);
  if (!in->totals_only) mlz_tally_scan(&out->at_peak, in, MLZ_TALLY_STACK, include_mmap, NULL, &out->peak.cut);
  find_leaks(out, include_mmap, suppressions);
  for (int i = 0; i < MLZ_FIGURES; i++) out->values[i] = of_tally((enum mlz_figure)i, &out->now.total, &out->now.total_spread);
  out->values[MLZ_FIGURE_PEAK] =
      (struct mlz_value){!out->peak.unknown, mlz_peak_bytes(&out->peak), mlz_spread_live_bytes_error(&out->at_peak.total_spread)};
  out->values[MLZ_FIGURE_LEAKED] = leaked(out, MLZ_FIGURE_LEAKED, NULL);
  out->values[MLZ_FIGURE_GROWING] = leaked(out, MLZ_FIGURE_GROWING, NULL);
  measure_collections(out);
}

void mlz_figures_clear(struct mlz_figures *f) {
  mlz_tally_clear(&f->now);
  mlz_tally_clear(&f->at_peak);
  mlz_leaks_clear(&f->leaks);
  mlz_cut_clear(&f->peak.cut);
  mlz_window_clear(&f->window);
}

/* ---- parts of the program ---- */

static bool matches_file(const char *pattern, const char *file) {
  if (!fnmatch(pattern, file, 0)) return true;
  if (*pattern == '/') return false;
  char *tail = mlz_text_format("*/%s", pattern);
  bool found = !fnmatch(tail, file, 0);
  free(tail);
  return found;
}

bool mlz_pattern_matches(const char *pattern, const struct mlz_place *p) {
  if (!pattern) return true;
  size_t n = strlen(pattern);
  if (strchr(pattern, '/') || (n > 3 && !strcmp(pattern + n - 3, ".py"))) return matches_file(pattern, p->file);
  char *full = mlz_text_format("%s.%s", p->module, p->function);
  bool found = !fnmatch(pattern, p->module, 0) || !fnmatch(pattern, full, 0);
  free(full);
  if (found || n < 3 || strcmp(pattern + n - 2, ".*")) return found;
  char *package = mlz_text_format("%.*s", (int)(n - 2), pattern);
  found = !fnmatch(package, p->module, 0);
  free(package);
  return found;
}

static const struct mlz_tally_run *rows_of(const struct mlz_figures *f, enum mlz_figure figure) {
  return figure == MLZ_FIGURE_PEAK ? &f->at_peak : &f->now;
}

struct mlz_value mlz_figures_of(const struct mlz_figures *f, enum mlz_figure figure, const char *pattern) {
  if (!pattern) return f->values[figure];
  if (figure == MLZ_FIGURE_LEAKED || figure == MLZ_FIGURE_GROWING) return leaked(f, figure, pattern);
  const struct mlz_tally_run *run = rows_of(f, figure);
  if (figure == MLZ_FIGURE_GC_P99 || !run->rows) return (struct mlz_value){0};
  struct mlz_value sum = known(0, 0);
  struct mlz_spread spread = {0};
  for (uint32_t row = 0; row < run->n; row++) {
    const struct mlz_tally *t = &run->rows[row];
    struct mlz_place p;
    if (!(t->alloc_count > 0) || (p = mlz_place_of_stack(f->in, row), !mlz_pattern_matches(pattern, &p))) continue;
    struct mlz_spread s = mlz_tally_spread(run, row);
    sum.value += of_tally(figure, t, &s).value;
    mlz_spread_join(&spread, &s);
  }
  mlz_spread_floor(&spread, &run->total_spread);
  sum.error = of_tally(figure, &(struct mlz_tally){0}, &spread).error;
  return sum;
}

bool mlz_figures_matched(const struct mlz_figures *f, const char *pattern) {
  if (!pattern || !f->now.rows) return true;
  for (uint32_t row = 0; row < f->now.n; row++) {
    if (!(f->now.rows[row].alloc_count > 0)) continue;
    struct mlz_place p = mlz_place_of_stack(f->in, row);
    if (mlz_pattern_matches(pattern, &p)) return true;
  }
  return false;
}

/* What each stack adds; malloc'd. */
static double *weigh(const struct mlz_figures *f, enum mlz_figure figure, const char *pattern) {
  const struct mlz_tally_run *run = rows_of(f, figure);
  double *weights = mlz_text_calloc(run->n, sizeof *weights);
  if (figure == MLZ_FIGURE_LEAKED || figure == MLZ_FIGURE_GROWING) {
    for (size_t i = 0; i < f->leaks.n; i++)
      if (counts_as(figure, &f->leaks.entries[i])) weights[f->leaks.entries[i].stack] += f->leaks.entries[i].bytes;
  } else {
    for (uint32_t row = 0; row < run->n; row++) weights[row] = of_tally(figure, &run->rows[row], &(struct mlz_spread){0}).value;
  }
  for (uint32_t row = 0; row < run->n && pattern; row++) {
    struct mlz_place p = mlz_place_of_stack(f->in, row);
    if (weights[row] > 0 && !mlz_pattern_matches(pattern, &p)) weights[row] = 0;
  }
  return weights;
}

bool mlz_figures_worst(const struct mlz_figures *f, enum mlz_figure figure, const char *pattern, uint32_t *stack, double *value) {
  if (figure == MLZ_FIGURE_GC_P99 || !rows_of(f, figure)->rows) return false;
  double *weights = weigh(f, figure, pattern), *sums = mlz_text_calloc(rows_of(f, figure)->n, sizeof *sums);
  uint32_t n = rows_of(f, figure)->n, *largest = mlz_text_calloc(n, sizeof *largest); /* by line: its stack that adds most */
  struct mlz_intern lines = {0};
  uint32_t worst = 0;
  *value = 0;
  for (uint32_t row = 0; row < n; row++) {
    if (!(weights[row] > 0) || !mlz_report_has_stack(f->in, row)) continue;
    struct mlz_place p = mlz_place_of_stack(f->in, row);
    char *key = mlz_text_format("%s:%u %s", p.file, p.line, p.function);
    uint32_t line = mlz_intern_text(&lines, key);
    free(key);
    if (!(sums[line] > 0) || weights[row] > weights[largest[line]]) largest[line] = row;
    sums[line] += weights[row];
    if (sums[line] > *value) *value = sums[line], worst = line;
  }
  if (*value > 0) *stack = largest[worst];
  mlz_intern_clear(&lines);
  free(weights);
  free(sums);
  free(largest);
  return *value > 0;
}

/* ---- the project's own lines ---- */

/* Relative to `directory`, malloc'd. NULL: it does not lie below it, or belongs to an environment there (.venv). */
static char *path_below(const struct mlz_place *p, const char *directory) {
  if (!*p->file || *p->file == '<' || !*directory || (*p->file != '/' && p->language != MLZ_LANG_PYTHON)) return NULL;
  char *path = mlz_match_path(p->file, directory);
  bool standard = strstr(p->file, "/lib/python3") || strstr(p->file, "/lib64/python3");
  bool library = !strncmp(path, "site-packages/", 14) || (standard && !strncmp(path, "python3/", 8));
  if (*path != '/' && strncmp(path, "../", 3) && !library) return path;
  free(path);
  return NULL;
}

bool mlz_figures_own(const struct mlz_figures *f, uint32_t stack, struct mlz_place *place, char **path) {
  char here[4096];
  const char *directories[] = {mlz_input_text(mlz_trace_meta(f->in->trace), "directory"),
                               getcwd(here, sizeof here) ? here : strcpy(here, "")};
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(f->in->trace, stack, &n, &truncated);
  for (size_t i = 0; i < 2; i++)
    for (uint32_t k = 0; k < n; k++) {
      struct mlz_place p = mlz_place_of_frame(f->in, frames[k]);
      char *below = p.line ? path_below(&p, directories[i]) : NULL, *nearer = below && *p.file == '/' ? path_below(&p, here) : NULL;
      if (!below) continue;
      *place = p;
      *path = nearer ? nearer : below;
      if (nearer) free(below);
      return true;
    }
  return false;
}

/* ---- growth by function ---- */

static char *function_key(const struct mlz_figures *f, const struct mlz_place *p) {
  char *file = mlz_match_path(p->file, mlz_input_text(mlz_trace_meta(f->in->trace), "directory"));
  char *key = mlz_text_format("%s %s", file, p->function);
  free(file);
  return key;
}

void mlz_growth_of(const struct mlz_figures *f, struct mlz_growth *out) {
  *out = (struct mlz_growth){.bytes = mlz_text_calloc(f->leaks.n, sizeof *out->bytes)};
  for (size_t i = 0; i < f->leaks.n; i++) {
    const struct mlz_leak_entry *e = &f->leaks.entries[i];
    struct mlz_place p = mlz_place_of_stack(f->in, e->stack);
    if (!counts_as(MLZ_FIGURE_GROWING, e)) continue;
    char *key = function_key(f, &p);
    out->bytes[mlz_intern_text(&out->keys, key)] += e->bytes;
    free(key);
  }
}

bool mlz_growth_stack(const struct mlz_figures *f, const char *key, size_t size, uint32_t *stack) {
  double most = 0;
  for (size_t i = 0; i < f->leaks.n; i++) {
    const struct mlz_leak_entry *e = &f->leaks.entries[i];
    if (!counts_as(MLZ_FIGURE_GROWING, e) || e->bytes <= most) continue;
    struct mlz_place p = mlz_place_of_stack(f->in, e->stack);
    char *its = function_key(f, &p);
    if (strlen(its) == size && !memcmp(its, key, size)) *stack = e->stack, most = e->bytes;
    free(its);
  }
  return most > 0;
}

void mlz_growth_clear(struct mlz_growth *g) {
  mlz_intern_clear(&g->keys);
  free(g->bytes);
  g->bytes = NULL;
}
