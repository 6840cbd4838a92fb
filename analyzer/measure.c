#include "analyzer/measure.h"

void mlz_measure_take(struct mlz_input *in, enum mlz_metric metric, bool include_mmap, const char *at, const char *from, const char *to,
                      struct mlz_measure *out) {
  *out = (struct mlz_measure){.metric = metric};
  mlz_window_resolve(in, at, from, to, include_mmap, &out->window);
  const struct mlz_cut *until = out->window.to;
  if (metric == MLZ_BY_PEAK_BYTES) {
    mlz_peak_find(in, include_mmap, until, &out->peak);
    until = &out->peak.cut;
  }
  mlz_tally_scan(&out->run, in, MLZ_TALLY_STACK, include_mmap, out->window.from, until);
}

void mlz_measure_clear(struct mlz_measure *m) {
  mlz_tally_clear(&m->run);
  mlz_cut_clear(&m->peak.cut);
  mlz_window_clear(&m->window);
}

static struct mlz_amount amount_of(enum mlz_metric metric, const struct mlz_tally *t) {
  struct mlz_amount a = {mlz_metric_of(t, mlz_tally_live_bytes(t), metric), t->alloc_count};
  if (mlz_metric_lives(metric)) a.count = t->alloc_count - t->free_count;
  if (metric == MLZ_BY_TEMPORARY) a.count = t->temp_count;
  return a;
}

struct mlz_amount mlz_measure_row(const struct mlz_measure *m, size_t stack) {
  return amount_of(m->metric, &m->run.rows[stack]);
}

struct mlz_amount mlz_measure_total(const struct mlz_measure *m) {
  return amount_of(m->metric, &m->run.total);
}

double mlz_measure_error(enum mlz_metric metric, const struct mlz_spread *spread) { return mlz_metric_error(spread, spread, metric); }
