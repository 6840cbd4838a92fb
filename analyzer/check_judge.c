#include "analyzer/check.h"
#include "analyzer/diff.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void mlz_checks_add(struct mlz_checks *c, struct mlz_check check) {
  c->checks = mlz_text_realloc(c->checks, c->n + 1, sizeof *c->checks);
  c->checks[c->n++] = check;
}

bool mlz_checks_ok(const struct mlz_checks *c) {
  for (size_t i = 0; i < c->n; i++)
    if (!c->checks[i].ok) return false;
  return true;
}

void mlz_checks_clear(struct mlz_checks *c) {
  for (size_t i = 0; i < c->n; i++) {
    free(c->checks[i].name);
    free(c->checks[i].message);
    free(c->checks[i].bound);
    free(c->checks[i].own_path);
  }
  free(c->checks);
  *c = (struct mlz_checks){0};
}

/* ---- words ---- */

/* The site that grew most, of those whose innermost line is `of` (a stack of the trace after; MLZ_INTERN_NONE: any), as its stack there. */
static bool most_grown(const struct mlz_diff *diff, const struct mlz_match *match, uint32_t of, uint32_t *stack, double *growth) {
  struct mlz_input *in = match->in[MLZ_AFTER];
  struct mlz_place line = {.line = 0};
  if (of != MLZ_INTERN_NONE) line = mlz_place_of_stack(in, of);
  *growth = 0;
  for (size_t i = 0; i < diff->n; i++) {
    const struct mlz_diff_site *site = &diff->sites[i];
    uint32_t its = site->stack[MLZ_AFTER];
    if (its == MLZ_INTERN_NONE || mlz_diff_delta(site) <= *growth || !mlz_report_has_stack(in, its)) continue;
    struct mlz_place p = mlz_place_of_stack(in, its);
    if (of != MLZ_INTERN_NONE && (p.line != line.line || strcmp(p.file, line.file) || strcmp(p.function, line.function))) continue;
    *growth = mlz_diff_delta(site);
    *stack = its;
  }
  return *growth > 0;
}

/* The line that grew most since `before`, as its stack that did. */
static bool grew_most(const struct mlz_figures *before, const struct mlz_figures *now, enum mlz_figure figure, uint32_t *stack,
                      double *growth) {
  static const int metrics[MLZ_FIGURES] = {[MLZ_FIGURE_PEAK] = MLZ_BY_PEAK_BYTES,
                                           [MLZ_FIGURE_LIVE] = MLZ_BY_LIVE_BYTES,
                                           [MLZ_FIGURE_LEAKED] = -1,
                                           [MLZ_FIGURE_GROWING] = -1,
                                           [MLZ_FIGURE_ALLOCS] = MLZ_BY_ALLOC_COUNT,
                                           [MLZ_FIGURE_ALLOCATED] = MLZ_BY_ALLOC_BYTES,
                                           [MLZ_FIGURE_TEMPORARY] = MLZ_BY_TEMPORARY,
                                           [MLZ_FIGURE_GC_P99] = -1};
  const struct mlz_figures *sides[MLZ_SIDES] = {before, now};
  struct mlz_measure measures[MLZ_SIDES];
  if (metrics[figure] < 0) return false;
  for (int side = 0; side < MLZ_SIDES; side++) {
    const struct mlz_tally_run *run = figure == MLZ_FIGURE_PEAK ? &sides[side]->at_peak : &sides[side]->now;
    if (!run->rows) return false;
    measures[side] = (struct mlz_measure){.metric = (enum mlz_metric)metrics[figure], .run = *run};
  }
  struct mlz_match match;
  struct mlz_diff diff;
  mlz_match_build(before->in, now->in, &match);
  mlz_diff_build(&match, measures, NULL, MLZ_GROUP_LINE, &diff);
  bool grew = most_grown(&diff, &match, MLZ_INTERN_NONE, stack, growth);
  mlz_diff_clear(&diff);
  if (grew) { /* which of its stacks */
    double part;
    mlz_diff_build(&match, measures, NULL, MLZ_GROUP_STACK, &diff);
    most_grown(&diff, &match, *stack, stack, &part);
    mlz_diff_clear(&diff);
  }
  mlz_match_clear(&match);
  return grew;
}

/* The check is of the line where `stack` ends. malloc'd: ", called from app.py:12 work", or "" if it is of the project itself or nothing of it is
 * on the stack. */
static char *blame(struct mlz_check *check, const struct mlz_figures *run, uint32_t stack) {
  check->place = mlz_place_of_stack(run->in, stack);
  if (!mlz_figures_own(run, stack, &check->own, &check->own_path) || !mlz_check_called(check)) return mlz_text_format("%s", "");
  char *path = mlz_text_clean(check->own_path, true), *name = mlz_place_name(&check->own);
  char *out = mlz_text_format(", called from %s:%" PRIu32 " %s", path, check->own.line, name);
  free(path);
  free(name);
  return out;
}

bool mlz_check_called(const struct mlz_check *c) {
  return c->own_path && (c->own.line != c->place.line || strcmp(c->own.file, c->place.file) || strcmp(c->own.function, c->place.function));
}

/* The message, and behind it which line makes most of the figure, or of its growth since `before` (NULL: not asked). */
static void __attribute__((format(printf, 5, 6))) explain(struct mlz_check *check, const struct mlz_figures *before,
                                                          const struct mlz_figures *run, const char *pattern, const char *format, ...) {
  va_list args;
  char *text = NULL;
  va_start(args, format);
  if (vasprintf(&text, format, args) < 0) text = NULL;
  va_end(args);
  double most;
  uint32_t stack;
  bool grew = !check->ok && before && grew_most(before, run, check->figure, &stack, &most);
  if (check->ok || (!grew && !mlz_figures_worst(run, check->figure, pattern, &stack, &most))) {
    check->message = mlz_text_format("%s", text ? text : "");
  } else {
    char *caller = blame(check, run, stack), *where = mlz_place_text(&check->place), *name = mlz_text_clean(check->place.function, true),
         *part = mlz_figure_text(check->figure, most);
    check->message = mlz_text_format("%s; %s: %s%s by %s (%s)%s", text ? text : "", grew ? "grew most" : "most of it", grew ? "+" : "",
                                     part, name, where, caller);
    free(caller);
    free(where);
    free(name);
    free(part);
  }
  free(text);
}

static char *error_text(enum mlz_figure figure, double error) {
  if (!(error > 0)) return mlz_text_format("%s", "");
  char *value = mlz_figure_text(figure, error), *out = mlz_text_format(" +- %s", value);
  free(value);
  return out;
}

/* Which of the runs shows what is wrong: the one whose value is the median, or next to it. */
static const struct mlz_figures *typical(const struct mlz_figures *runs, size_t n, enum mlz_figure figure, double value) {
  const struct mlz_figures *best = &runs[0];
  for (size_t i = 1; i < n; i++)
    if (fabs(runs[i].values[figure].value - value) < fabs(best->values[figure].value - value)) best = &runs[i];
  return best;
}

/* ---- limits ---- */

static void check_limit(const struct mlz_figures *runs, size_t n, const struct mlz_limit *limit, struct mlz_checks *out) {
  struct mlz_series series = {.n = 0};
  for (size_t i = 0; i < n; i++) mlz_series_add(&series, mlz_figures_of(&runs[i], limit->figure, limit->pattern));
  struct mlz_check check = {.figure = limit->figure, .limit = limit->value, .place = {"", "", "", 0, MLZ_LANG_PYTHON}};
  check.name = mlz_text_format("%s%s%s", limit->pattern ? limit->pattern : "", limit->pattern ? ":" : "", mlz_figure_name(limit->figure));
  if (!series.n) {
    check.message = mlz_text_format("not known: the trace has totals at its snapshots only");
    mlz_checks_add(out, check);
    return;
  }
  check.value = mlz_series_summary(&series).median;
  check.error = series.error;
  bool over = limit->less ? check.value >= limit->value : check.value > limit->value;
  check.ok = !over || (check.error > 0 && check.value - check.error <= limit->value);
  check.bound = mlz_text_format("%s", limit->bound);
  char *value = mlz_figure_text(limit->figure, check.value), *error = error_text(limit->figure, check.error);
  const struct mlz_figures *run = typical(runs, n, limit->figure, check.value);
  check.unmatched = true;
  for (size_t i = 0; i < n; i++) check.unmatched &= !mlz_figures_matched(&runs[i], limit->pattern);
  if (check.unmatched && check.ok)
    explain(&check, NULL, run, limit->pattern, "nothing in the trace is of %s, so this limit limits nothing; was it renamed?",
            limit->pattern);
  else if (over && check.ok)
    explain(&check, NULL, run, limit->pattern, "%s%s is over the limit of %s by less than the noise of the sample: not judged", value,
            error, check.bound);
  else
    explain(&check, NULL, run, limit->pattern, "%s%s, %s %s%s", value, error,
            over          ? "over the limit of"
            : limit->less ? "below"
                          : "at most",
            check.bound, n > 1 ? " (median of the runs)" : "");
  free(value);
  free(error);
  mlz_checks_add(out, check);
}

/* ---- baselines ---- */

enum { TIMED_RUNS = 3 }; /* a pause of one run or two says nothing about the next one's */

/* 1.4826 MAD is the standard deviation where the runs are spread normally; three of them, of both sides together, are noise. */
static double noise_of(const struct mlz_summary *before, const struct mlz_summary *now) {
  return 3 * 1.4826 * hypot(before->mad, now->mad);
}

static void check_baseline(const struct mlz_figures *runs, size_t n, const struct mlz_check_rules *rules, enum mlz_figure figure,
                           struct mlz_checks *out) {
  const struct mlz_series *before = &rules->baseline->series[figure];
  struct mlz_series now;
  mlz_series_of(runs, n, figure, &now);
  if (!now.n || !before->n) return; /* one side does not know it */
  if (mlz_figure_unit(figure) == MLZ_UNIT_NS && (now.n < TIMED_RUNS || before->n < TIMED_RUNS)) return;
  struct mlz_summary was = mlz_series_summary(before), is = mlz_series_summary(&now);
  struct mlz_check check = {.figure = figure,
                            .value = is.median,
                            .limit = was.median * (1 + rules->tolerance),
                            .error = hypot(now.error, before->error),
                            .place = {"", "", "", 0, MLZ_LANG_PYTHON}};
  double delta = is.median - was.median, noise = noise_of(&was, &is), least = rules->least[mlz_figure_unit(figure)];
  if (noise < check.error) noise = check.error;
  if (check.limit < was.median + least) check.limit = was.median + least;
  if (check.limit < was.median + noise) check.limit = was.median + noise;
  check.ok = is.median <= check.limit;
  check.name = mlz_text_format("baseline:%s", mlz_figure_name(figure));
  char *value = mlz_figure_text(figure, is.median), *base = mlz_figure_text(figure, was.median), *change = mlz_figure_text(figure, delta),
       *most = mlz_figure_text(figure, check.limit), percent[48] = "";
  if (was.median > 0) snprintf(percent, sizeof percent, ", %+.1f%%", 100 * delta / was.median);
  explain(&check, rules->before, typical(runs, n, figure, is.median), NULL, "%s, baseline %s (%s%s%s), allowed up to %s", value, base,
          delta > 0 ? "+" : "", change, percent, most);
  free(value);
  free(base);
  free(change);
  free(most);
  mlz_checks_add(out, check);
}

/* The sum may hide one more kept block for each request, so each function that grew is held against itself, too. */
static void check_functions(const struct mlz_figures *run, const struct mlz_check_rules *rules, struct mlz_checks *out) {
  struct mlz_growth now;
  mlz_growth_of(run, &now);
  struct mlz_check check = {.name = mlz_text_format("baseline:growing_functions"),
                            .ok = true,
                            .figure = MLZ_FIGURE_GROWING,
                            .place = {"", "", "", 0, MLZ_LANG_PYTHON}};
  size_t more = 0;
  double worst = 0;
  uint32_t largest = 0, stack;
  size_t size = 0;
  const char *key = "";
  char *message = mlz_text_format("no function holds more than before of what grows");
  double noise = run->values[MLZ_FIGURE_GROWING].error;
  for (uint32_t i = 0; i < now.keys.n; i++) {
    key = mlz_intern_bytes(&now.keys, i, &size);
    uint32_t known = mlz_intern_find(&rules->baseline->growth.keys, key, size);
    double was = known == MLZ_INTERN_NONE ? 0 : rules->baseline->growth.bytes[known];
    double allowed = was + fmax(fmax(was * rules->tolerance, rules->least[MLZ_UNIT_BYTES]), noise);
    if (now.bytes[i] <= allowed) continue;
    more++;
    check.ok = false;
    if (now.bytes[i] - was <= worst) continue;
    worst = now.bytes[i] - was;
    check.value = now.bytes[i];
    check.limit = allowed;
    char *is = mlz_figure_text(check.figure, now.bytes[i]), *base = mlz_figure_text(check.figure, was);
    largest = i;
    free(message);
    message = mlz_text_format("%s of what grows are held by %.*s, baseline %s", is, (int)size, key, base);
    free(is);
    free(base);
  }
  if (!check.ok) key = mlz_intern_bytes(&now.keys, largest, &size);
  char *caller = !check.ok && mlz_growth_stack(run, key, size, &stack) ? blame(&check, run, stack) : mlz_text_format("%s", "");
  check.message = mlz_text_format("%s%s", message, caller);
  free(message);
  free(caller);
  if (more > 1) {
    message = check.message;
    check.message = mlz_text_format("%s; %zu more %s more than before", message, more - 1, more > 2 ? "functions hold" : "function holds");
    free(message);
  }
  mlz_growth_clear(&now);
  mlz_checks_add(out, check);
}

/* ---- what makes every figure too low ---- */

static void check_losses(const struct mlz_figures *run, bool allowed, struct mlz_checks *out) {
  const struct mlz_damage *d = mlz_trace_damage(run->in->trace);
  uint64_t dropped = mlz_input_dropped(run->in);
  if (!dropped && !d->cut && !d->chunks_bad && !d->bytes_bad) return;
  struct mlz_check check = {.name = mlz_text_format("complete"), .ok = allowed, .value = (double)dropped, .place = {"", "", "", 0, 0}};
  check.figure = MLZ_FIGURE_ALLOCS;
  check.message = mlz_text_format(
      "%s: %" PRIu64 " records were lost and %" PRIu64 " bytes of the file cannot be read%s, so figures are too low%s", run->in->path,
      dropped, d->bytes_bad, d->cut ? " (the recorder did not finish)" : "", allowed ? "" : "; record it again, or give --allow-losses");
  mlz_checks_add(out, check);
}

void mlz_check_judge(const struct mlz_figures *runs, size_t n, const struct mlz_check_rules *rules, struct mlz_checks *out) {
  *out = (struct mlz_checks){0};
  for (size_t i = 0; i < n; i++) check_losses(&runs[i], rules->losses_allowed, out);
  for (size_t i = 0; i < rules->n_limits; i++) check_limit(runs, n, &rules->limits[i], out);
  if (!rules->baseline) return;
  for (int i = 0; i < MLZ_FIGURES; i++) check_baseline(runs, n, rules, (enum mlz_figure)i, out);
  struct mlz_series growing;
  mlz_series_of(runs, n, MLZ_FIGURE_GROWING, &growing);
  check_functions(typical(runs, n, MLZ_FIGURE_GROWING, mlz_series_summary(&growing).median), rules, out);
}
