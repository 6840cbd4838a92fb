#include "analyzer/totals.h"

#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void mlz_totals_refuse(const struct mlz_input *in, const char *what, const char *instead) {
  mlz_input_fail(in, "%s: this trace has totals at its snapshots only (record --snapshots-only), no events; %s", what, instead);
}

/* ---- points and cuts ---- */

struct walk {          /* of a process */
  uint64_t seen, last; /* points so far; number of the last one before the cut, 0: none */
  bool ended;
};
struct walks {
  struct walk *at; /* by process index */
  size_t n;
};

static struct walk *walk_of(struct walks *w, const struct mlz_process *p) {
  if (p->index >= w->n) {
    w->at = mlz_text_realloc(w->at, p->index + 1, sizeof *w->at);
    memset(w->at + w->n, 0, (p->index + 1 - w->n) * sizeof *w->at);
    w->n = p->index + 1;
  }
  return &w->at[p->index];
}

static bool next_point(struct mlz_input *in, struct mlz_totals_point *point) {
  int rc = mlz_trace_totals_next(in->trace, point);
  if (rc < 0) mlz_input_fail(in, "out of memory while reading");
  return rc > 0;
}

/* Does the point lie before the cut? In the order of the process's points. */
static bool before(const struct mlz_totals_point *point, struct mlz_cut_limit limit, bool ended) {
  if (limit.mode == MLZ_CUT_EXIT) return true;
  if (ended) return false;
  if (limit.mode == MLZ_CUT_TIME) return point->head.ns <= limit.value;
  return limit.mode == MLZ_CUT_END || point->head.events <= limit.value;
}

static const struct mlz_cut to_the_end = {{MLZ_CUT_END, 0}, NULL, 0};

void mlz_totals_until(struct mlz_input *in, const struct mlz_cut *cut, mlz_totals_each *each, void *context) {
  struct walks walks = {0};
  struct mlz_totals_point point;
  if (!cut) cut = &to_the_end;
  mlz_trace_totals_rewind(in->trace);
  in->points_read = 0;
  while (next_point(in, &point)) {
    in->points_read++;
    struct mlz_process *p = mlz_input_process(in, point.head.process);
    struct walk *w = walk_of(&walks, p);
    if (p->chosen && point.known && before(&point, mlz_cut_limit_of(cut, p->index), w->ended)) each(context, p, &point);
    w->ended |= point.head.point == MLZ_POINT_END;
  }
  free(walks.at);
}

/* The rows of a point are only there until the next one is read: so the last one before the cut is looked for first. */
struct last_search {
  struct walks walks;
};
static void note_last(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct walk *w = walk_of(&((struct last_search *)context)->walks, process);
  w->last = ++w->seen;
  (void)point;
}

struct last_visit {
  struct walks walks;
  mlz_totals_each *each;
  void *context;
};
static void visit_last(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct last_visit *v = context;
  struct walk *w = walk_of(&v->walks, process);
  if (w->last-- == 1) v->each(v->context, process, point);
}

void mlz_totals_at(struct mlz_input *in, const struct mlz_cut *cut, mlz_totals_each *each, void *context) {
  struct last_search search = {{0}};
  mlz_totals_until(in, cut, note_last, &search);
  struct last_visit visit = {search.walks, each, context};
  mlz_totals_until(in, cut, visit_last, &visit);
  free(visit.walks.at);
}

struct nearest {
  bool found;
  enum mlz_point_kind kind;
  uint32_t name;
  uint64_t ns;
};
static void find_nearest(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct nearest *n = context;
  (void)process;
  if (n->found && point->head.ns < n->ns) return;
  *n = (struct nearest){true, point->head.point, point->head.name, point->head.ns};
}

static bool is_snapshot(struct mlz_input *in, const char *name) {
  struct mlz_marks marks;
  size_t same;
  mlz_marks_read(in, &marks);
  const struct mlz_mark *mark = mlz_marks_find(in, &marks, name, &same);
  bool snapshot = mark && mark->snapshot;
  mlz_marks_clear(&marks);
  return snapshot;
}

void mlz_totals_check(struct mlz_input *in, const struct mlz_when *when, const struct mlz_cut *cut) {
  char a[MLZ_UNITS_MAX];
  if (when->kind == MLZ_WHEN_NAME && !is_snapshot(in, when->name)) {
    char *what = mlz_text_format("'%s' is a mark, not a snapshot", when->name);
    char *clean = mlz_text_clean(what, true);
    free(what);
    mlz_totals_refuse(in, clean, "name a snapshot (memlyze stats lists them) or a time");
  }
  if (when->kind != MLZ_WHEN_TIME && when->kind != MLZ_WHEN_PERCENT) return;
  struct nearest nearest = {0};
  mlz_totals_until(in, cut, find_nearest, &nearest);
  if (!nearest.found) mlz_totals_refuse(in, "nothing is known so early", "name a snapshot (memlyze stats lists them) or a later time");
  if (nearest.ns == cut->all.value) return;
  char *name =
      mlz_text_clean(nearest.kind == MLZ_POINT_SNAPSHOT ? mlz_trace_string(in->trace, nearest.name) : "the end of a process", true);
  mlz_input_warn(in, "this trace has totals at its snapshots only: shown are those of the last one before, %s at %s", name,
                 mlz_units_time(a, (double)nearest.ns));
  free(name);
}

/* ---- sums ---- */

void mlz_totals_row_tally(const struct mlz_totals_point *point, const struct mlz_totals_row *row, struct mlz_tally *tally,
                          struct mlz_spread *spread) {
  const uint64_t *is = row->is;
  double w = row->key.weight;
  tally->alloc_count += w * (double)is[MLZ_TOTAL_ALLOCS];
  tally->alloc_bytes += w * (double)is[MLZ_TOTAL_ALLOC_BYTES];
  tally->free_count += w * (double)is[MLZ_TOTAL_FREES];
  tally->free_bytes += w * (double)is[MLZ_TOTAL_FREE_BYTES];
  tally->temp_count += w * (double)is[MLZ_TOTAL_TEMPS];
  tally->temp_bytes += w * (double)is[MLZ_TOTAL_TEMP_BYTES];
  if (!(w > 1) || !spread) return;
  double square = w * (w - 1), step_bytes = (w - 1) * (double)is[MLZ_TOTAL_SIZE_MAX];
  spread->alloc_count += square * (double)is[MLZ_TOTAL_ALLOCS];
  spread->free_count += square * (double)is[MLZ_TOTAL_FREES];
  spread->temp_count += square * (double)is[MLZ_TOTAL_TEMPS];
  spread->alloc_bytes += square * (double)is[MLZ_TOTAL_ALLOC_SQUARES] * point->square;
  spread->free_bytes += square * (double)is[MLZ_TOTAL_FREE_SQUARES] * point->square;
  if (w - 1 > spread->step_count) spread->step_count = w - 1;
  if (step_bytes > spread->step_bytes) spread->step_bytes = step_bytes;
}

static void subtract(struct mlz_tally *t, const struct mlz_tally *less) {
  t->alloc_count -= less->alloc_count;
  t->alloc_bytes -= less->alloc_bytes;
  t->free_count -= less->free_count;
  t->free_bytes -= less->free_bytes;
  t->temp_count -= less->temp_count;
  t->temp_bytes -= less->temp_bytes;
}

static void subtract_spread(struct mlz_spread *s, const struct mlz_spread *less) {
  s->alloc_count -= less->alloc_count;
  s->alloc_bytes -= less->alloc_bytes;
  s->free_count -= less->free_count;
  s->free_bytes -= less->free_bytes;
  s->temp_count -= less->temp_count;
}

struct adding {
  struct mlz_tally_run *run;
  bool minus;
};

static void make_rows(struct mlz_tally_run *run, size_t row) {
  if (row >= run->n) {
    run->rows = mlz_text_realloc(run->rows, row + 1, sizeof *run->rows);
    memset(run->rows + run->n, 0, (row + 1 - run->n) * sizeof *run->rows);
    run->n = row + 1;
  }
}

static void make_spreads(struct mlz_tally_run *run) {
  if (run->n_spreads >= run->n) return;
  run->spreads = mlz_text_realloc(run->spreads, run->n, sizeof *run->spreads);
  memset(run->spreads + run->n_spreads, 0, (run->n - run->n_spreads) * sizeof *run->spreads);
  run->n_spreads = run->n;
}

static void add_row(struct adding *a, size_t at, const struct mlz_tally *tally, const struct mlz_spread *spread, bool sampled,
                    bool counted) {
  struct mlz_tally_run *run = a->run;
  make_rows(run, at);
  if (sampled) make_spreads(run);
  struct mlz_tally *into[] = {&run->rows[at], counted ? &run->total : NULL};
  struct mlz_spread *spreads[] = {sampled ? &run->spreads[at] : NULL, sampled && counted ? &run->total_spread : NULL};
  for (unsigned i = 0; i < 2; i++) {
    if (into[i] && a->minus) subtract(into[i], tally);
    if (spreads[i] && a->minus) subtract_spread(spreads[i], spread);
    if (a->minus || !into[i]) continue;
    into[i]->alloc_count += tally->alloc_count;
    into[i]->alloc_bytes += tally->alloc_bytes;
    into[i]->free_count += tally->free_count;
    into[i]->free_bytes += tally->free_bytes;
    into[i]->temp_count += tally->temp_count;
    into[i]->temp_bytes += tally->temp_bytes;
    if (spreads[i]) mlz_spread_join(spreads[i], spread);
  }
}

static void add_point(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct adding *a = context;
  for (uint32_t i = 0; i < point->n; i++) {
    const struct mlz_totals_row *row = &point->rows[i];
    struct mlz_tally tally = {0};
    struct mlz_spread spread = {0};
    bool counted = mlz_totals_counts(row, a->run->include_mmap), sampled = row->key.weight > 1;
    if (!counted && a->run->key != MLZ_TALLY_DOMAIN) continue;
    mlz_totals_row_tally(point, row, &tally, &spread);
    a->run->in->estimated |= sampled;
    add_row(a,
            a->run->key == MLZ_TALLY_STACK    ? row->key.stack
            : a->run->key == MLZ_TALLY_DOMAIN ? row->key.domain
                                              : process->index,
            &tally, &spread, sampled, counted);
  }
}

void mlz_totals_add_point(void *run, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct adding a = {.run = run};
  add_point(&a, process, point);
}

void mlz_totals_tally(struct mlz_tally_run *run, const struct mlz_cut *from, const struct mlz_cut *to) {
  if (run->key == MLZ_TALLY_THREAD)
    mlz_totals_refuse(run->in, "nothing is known of single threads", "group by stack, line, function, file, module, process or domain");
  if (to && to->all.mode == MLZ_CUT_PEAK)
    mlz_totals_refuse(run->in, "what was live at the peak is not known",
                      "ask for live-bytes at one of its snapshots (memlyze stats lists them)");
  struct adding a = {.run = run};
  mlz_totals_at(run->in, to, add_point, &a);
  if (!from) return;
  a.minus = true;
  mlz_totals_at(run->in, from, add_point, &a);
  mlz_input_warn(run->in, "this trace has totals at its snapshots only: what is live is shown as the growth between the two instants");
}

/* ---- the peak ---- */

struct peak_search {
  size_t processes;
  uint32_t process;
  uint64_t bytes, ns, all_bytes, all_ns;
};
static void find_peak(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct peak_search *s = context;
  s->processes += s->process != process->index + 1;
  s->process = process->index + 1;
  if (point->head.peak_bytes > s->bytes) s->bytes = point->head.peak_bytes, s->ns = point->head.peak_ns;
  if (point->head.all_peak_bytes > s->all_bytes) s->all_bytes = point->head.all_peak_bytes, s->all_ns = point->head.all_peak_ns;
}

bool mlz_totals_peak(struct mlz_input *in, const struct mlz_cut *cut, double *bytes, uint64_t *time_ns) {
  struct peak_search s = {0};
  mlz_totals_until(in, cut, find_peak, &s);
  if (s.processes > 1 && in->n_chosen < in->n_processes) return false;
  *bytes = (double)(s.processes > 1 ? s.all_bytes : s.bytes);
  *time_ns = s.processes > 1 ? s.all_ns : s.ns;
  return true;
}
