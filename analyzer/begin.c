#include "analyzer/begin.h"

#include "analyzer/text.h"

#include <stdlib.h>

/* ---- which points fit ---- */

/* Points lie where a chunk of their process ends; that of a process's end lies anywhere. Where chunks were lost and nobody knows how many events they held, those
 * behind them do not fit: what is read there would not begin where they stand. */
static bool fits(const struct mlz_totals_head *head, const struct mlz_ahead *chunk) {
  uint64_t end = chunk->ordinal + chunk->events;
  return head->point == MLZ_POINT_END ? head->events <= end : head->events == end;
}

struct course { /* of a process */
  size_t *points, n, room, next;
};

/* It stands for the beginning that was left out. */
static bool is_begin(const struct mlz_input *in, const struct mlz_totals_mark *mark) {
  return in->left_out && mark->at <= mlz_trace_first_at(in->trace);
}

static void keep_fitting(struct mlz_input *in, struct mlz_begin_points *p) {
  struct course *courses = mlz_text_calloc(in->n_processes + 1, sizeof *courses);
  bool *good = mlz_text_calloc(p->n + 1, sizeof *good);
  size_t n_courses = in->n_processes, kept = 0;
  for (size_t i = 0; i < p->n; i++) {
    struct course *c = &courses[p->points[i].process->index];
    if (c->n == c->room) {
      c->room = c->room ? c->room * 2 : 8;
      c->points = mlz_text_realloc(c->points, c->room, sizeof *c->points);
    }
    c->points[c->n++] = i;
    good[i] = is_begin(in, p->points[i].mark);
  }
  struct mlz_ahead chunk;
  mlz_trace_rewind(in->trace);
  for (; mlz_trace_ahead(in->trace, &chunk); mlz_trace_skip(in->trace)) {
    uint32_t index = mlz_input_process(in, chunk.process)->index;
    struct course *c = index < n_courses ? &courses[index] : NULL;
    for (; c && c->next < c->n && p->points[c->points[c->next]].mark->head.events <= chunk.ordinal + chunk.events; c->next++)
      good[c->points[c->next]] |= fits(&p->points[c->points[c->next]].mark->head, &chunk);
  }
  for (size_t i = 0; i < p->n; i++)
    if (good[i]) p->points[kept++] = p->points[i];
  p->n = kept;
  for (size_t i = 0; i < n_courses; i++) free(courses[i].points);
  free(courses);
  free(good);
}

void mlz_begin_read(struct mlz_input *in, struct mlz_begin_points *out) {
  const struct mlz_totals_mark *marks;
  size_t n;
  *out = (struct mlz_begin_points){0};
  if (in->totals_only || !mlz_trace_totals_count(in->trace)) return;
  if (mlz_trace_totals_marks(in->trace, &marks, &n) < 0) mlz_input_fail(in, "out of memory while reading");
  out->points = mlz_text_calloc(n + 1, sizeof *out->points);
  for (size_t i = 0; i < n; i++) {
    struct mlz_process *p = mlz_input_process(in, marks[i].head.process);
    if (p->chosen && marks[i].head.point != MLZ_POINT_SNAPSHOT) out->points[out->n++] = (struct mlz_begin_point){&marks[i], p};
  }
  keep_fitting(in, out);
}

void mlz_begin_clear(struct mlz_begin_points *points) {
  free(points->points);
  *points = (struct mlz_begin_points){0};
}

/* ---- the last one before a cut ---- */

/* A process ends at FINALIZE, whatever the limit, unless it asks for later events too. */
bool mlz_begin_before(const struct mlz_totals_head *head, struct mlz_cut_limit limit) {
  if (limit.mode == MLZ_CUT_EXIT) return true;
  if (head->point == MLZ_POINT_EXIT) return false;
  if (limit.mode == MLZ_CUT_TIME) return head->ns <= limit.value;
  if (limit.mode == MLZ_CUT_ORDINAL) return head->events <= limit.value;
  return limit.mode == MLZ_CUT_END;
}

/* Nothing of the process that counts lies behind the point. */
static bool is_last(const struct mlz_totals_head *head, struct mlz_cut_limit limit) {
  if (limit.mode == MLZ_CUT_EXIT) return false;
  return head->point == MLZ_POINT_END || (limit.mode == MLZ_CUT_ORDINAL && head->events == limit.value);
}

void mlz_begin_first(struct mlz_input *in, bool exit, mlz_totals_each *each, void *context) {
  const struct mlz_totals_mark *marks;
  struct mlz_totals_point point;
  size_t n;
  if (!in->left_out) return;
  if (mlz_trace_totals_marks(in->trace, &marks, &n) < 0) mlz_input_fail(in, "out of memory while reading");
  for (size_t i = 0; i < n && is_begin(in, &marks[i]); i++) {
    struct mlz_process *p = mlz_input_process(in, marks[i].head.process);
    bool again = i + 1 < n && is_begin(in, &marks[i + 1]) && marks[i + 1].head.process == marks[i].head.process;
    if (!p->chosen || (exit ? again : p->ended_before && marks[i].head.point != MLZ_POINT_END)) continue;
    int rc = mlz_trace_totals_load(in->trace, &marks[i], &point);
    if (rc < 0) mlz_input_fail(in, "out of memory while reading");
    if (rc > 0) each(context, p, &point);
    in->points_read += rc > 0;
  }
}

void mlz_begin_at(struct mlz_input *in, const struct mlz_cut *cut, mlz_totals_each *each, void *context, struct mlz_scan_start *start) {
  static const struct mlz_cut to_the_end = {{MLZ_CUT_END, 0}, NULL, 0};
  struct mlz_begin_points all;
  struct mlz_totals_point point;
  mlz_begin_read(in, &all);
  if (!cut) cut = &to_the_end;
  start->n = all.n ? in->n_processes : 0;
  start->ordinals = all.n ? mlz_text_calloc(start->n, sizeof *start->ordinals) : NULL;
  bool *done = mlz_text_calloc(in->n_processes + 1, sizeof *done);
  for (size_t i = all.n; i-- > 0;) {
    const struct mlz_begin_point *p = &all.points[i];
    struct mlz_cut_limit limit = mlz_cut_limit_of(cut, p->process->index);
    if (done[p->process->index] || !mlz_begin_before(&p->mark->head, limit)) continue;
    int rc = mlz_trace_totals_load(in->trace, p->mark, &point);
    if (rc < 0) mlz_input_fail(in, "out of memory while reading");
    if (rc == 0) continue; /* damaged: the one before */
    done[p->process->index] = true;
    start->ordinals[p->process->index] = is_last(&point.head, limit) ? UINT64_MAX : point.head.events;
    each(context, p->process, &point);
    in->points_read++;
  }
  free(done);
  mlz_begin_clear(&all);
}
