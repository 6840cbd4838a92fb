/* Traces of totals (record --snapshots-only): no event says what was allocated, the rows of each process at its points do. A cut means the last point
 * of a process that lies before it; everything else is answered from the rows there. One thread. Memory: that of the reader. */
#ifndef MLZ_ANALYZER_TOTALS_H
#define MLZ_ANALYZER_TOTALS_H

#include "analyzer/instants.h"
#include "analyzer/tally.h"

/* What every tool that meets such a trace says of what is not in it. Exits 2. */
void mlz_totals_refuse(const struct mlz_input *in, const char *what, const char *instead) __attribute__((noreturn));
/* Is this an instant that the trace knows? A mark is not (exits 2), a time stands for the last point before it (says so; exits 2 if there is none). */
void mlz_totals_check(struct mlz_input *in, const struct mlz_when *when, const struct mlz_cut *cut);

/* Each chosen process at the last of its points before the cut (NULL: its end), in the order of the file. */
typedef void mlz_totals_each(void *context, struct mlz_process *process, const struct mlz_totals_point *point);
void mlz_totals_at(struct mlz_input *in, const struct mlz_cut *cut, mlz_totals_each *each, void *context);
/* All points of the chosen processes up to the cut, in the order of the file. */
void mlz_totals_until(struct mlz_input *in, const struct mlz_cut *cut, mlz_totals_each *each, void *context);

/* A row of the point as the passes over events sum up; `spread` gets nothing where the weight is 1. */
void mlz_totals_row_tally(const struct mlz_totals_point *point, const struct mlz_totals_row *row, struct mlz_tally *tally,
                          struct mlz_spread *spread);
static inline bool mlz_totals_counts(const struct mlz_totals_row *row, bool include_mmap) {
  return include_mmap || row->key.domain != MLZ_BLOCK_MMAP;
}

/* Into a run that was begun. With `from` it holds what was allocated and freed between the two: what is live is the growth, as a note says. */
void mlz_totals_tally(struct mlz_tally_run *run, const struct mlz_cut *from, const struct mlz_cut *to);

/* Adds the rows of a point to a run that was begun, for mlz_begin_at; context: the run. */
void mlz_totals_add_point(void *run, struct mlz_process *process, const struct mlz_totals_point *point);

/* The highest total up to the cut: of one process exactly, of several only where they are all of the trace. false: not known. */
bool mlz_totals_peak(struct mlz_input *in, const struct mlz_cut *cut, double *bytes, uint64_t *time_ns);

#endif
