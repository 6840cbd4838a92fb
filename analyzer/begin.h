/* Where a pass may begin: the points beside the events (docs/format.md, "Places to begin reading") say what all events before them amount to. So the heap at
 * some instant is the rows of the last point before it and the few events between the two. One thread. Memory: a few words for each point and process. */
#ifndef MLZ_ANALYZER_BEGIN_H
#define MLZ_ANALYZER_BEGIN_H

#include "analyzer/totals.h"

/* The points of the chosen processes that fit the events of the file. Points of one process are in order. */
struct mlz_begin_point {
  const struct mlz_totals_mark *mark;
  struct mlz_process *process;
};
struct mlz_begin_points {
  struct mlz_begin_point *points;
  size_t n;
};
void mlz_begin_read(struct mlz_input *in, struct mlz_begin_points *points);
/* Does all that the point sums up lie before the limit? */
bool mlz_begin_before(const struct mlz_totals_head *head, struct mlz_cut_limit limit);
void mlz_begin_clear(struct mlz_begin_points *points);

/* Where the beginning was left out: hands out each chosen process as it stood then, at its end where that lay in it (`exit`: what came after that, too). */
void mlz_begin_first(struct mlz_input *in, bool exit, mlz_totals_each *each, void *context);

/* Hands out each chosen process at the last of its points before the cut (NULL: its end), and says in `start` what is left to read of it. Of a process without such
 * a point that is all. Does nothing where the trace has no points. */
void mlz_begin_at(struct mlz_input *in, const struct mlz_cut *cut, mlz_totals_each *each, void *context, struct mlz_scan_start *start);

#endif
