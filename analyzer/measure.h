/* One metric of a trace at one instant or in one window, by stack: what flame draws and diff compares. One thread. Memory: a row for each stack. */
#ifndef MLZ_ANALYZER_MEASURE_H
#define MLZ_ANALYZER_MEASURE_H

#include "analyzer/report.h"
#include "analyzer/sites.h"

struct mlz_measure {
  enum mlz_metric metric;
  struct mlz_window window;
  struct mlz_peak peak; /* by peak-bytes only */
  struct mlz_tally_run run;
};

struct mlz_amount {
  double value, count; /* of the metric, and the blocks that it is about */
};

/* Limits as mlz_window_resolve has them. */
void mlz_measure_take(struct mlz_input *in, enum mlz_metric metric, bool include_mmap, const char *at, const char *from, const char *to,
                      struct mlz_measure *out);
void mlz_measure_clear(struct mlz_measure *m);
struct mlz_amount mlz_measure_row(const struct mlz_measure *m, size_t stack);
struct mlz_amount mlz_measure_total(const struct mlz_measure *m);
/* Half the width of the interval around the value. */
double mlz_measure_error(enum mlz_metric metric, const struct mlz_spread *spread);

static inline bool mlz_metric_counts(enum mlz_metric metric) { return metric == MLZ_BY_ALLOC_COUNT || metric == MLZ_BY_TEMPORARY; }
static inline bool mlz_metric_lives(enum mlz_metric metric) { return metric == MLZ_BY_LIVE_BYTES || metric == MLZ_BY_PEAK_BYTES; }

#endif
