/* How far an estimate may be off: what the passes sum up beside a total when the trace is sampled, and the interval that tools state.
 * docs/sampling.md derives it. Pure functions. */
#ifndef MLZ_ANALYZER_SPREAD_H
#define MLZ_ANALYZER_SPREAD_H

#include "formats/events.h"

/* Sums over recorded blocks of weight w: w(w-1) for a count, w(w-1)size^2 for bytes. In expectation never below the variance of the
 * estimated total. Differences are right too: what is live has alloc - free. */
struct mlz_spread {
  double alloc_count, alloc_bytes;
  double free_count, free_bytes;
  double temp_count;
  double step_count, step_bytes; /* the largest w-1, and (w-1)size: how coarse the estimate is, whatever the sums */
};

/* `allocs`, `frees` (temporary ones too), `temps` blocks of the class. Only for classes of weight above 1. */
void mlz_spread_add(struct mlz_spread *s, const struct mlz_class *class, double allocs, double frees, double temps);
/* Also where no sampled block of a line was seen, or only such of another rate, there may have been some: as few as the whole trace's
 * weights allow. Once, when all is summed up; not for what is always recorded. */
void mlz_spread_floor(struct mlz_spread *s, const struct mlz_spread *whole);
void mlz_spread_join(struct mlz_spread *into, const struct mlz_spread *more);

/* Half the width of the interval that holds the true value in at least 95 of 100 cases; 0 where nothing was sampled. */
double mlz_spread_error(double variance, double step);

static inline double mlz_spread_alloc_count_error(const struct mlz_spread *s) { return mlz_spread_error(s->alloc_count, s->step_count); }
static inline double mlz_spread_alloc_bytes_error(const struct mlz_spread *s) { return mlz_spread_error(s->alloc_bytes, s->step_bytes); }
static inline double mlz_spread_free_count_error(const struct mlz_spread *s) { return mlz_spread_error(s->free_count, s->step_count); }
static inline double mlz_spread_free_bytes_error(const struct mlz_spread *s) { return mlz_spread_error(s->free_bytes, s->step_bytes); }
static inline double mlz_spread_temp_count_error(const struct mlz_spread *s) { return mlz_spread_error(s->temp_count, s->step_count); }
static inline double mlz_spread_live_count_error(const struct mlz_spread *s) {
  return mlz_spread_error(s->alloc_count - s->free_count, s->step_count);
}
double mlz_spread_live_bytes_error(const struct mlz_spread *s);

#endif
