#include "analyzer/spread.h"

#include <math.h>

void mlz_spread_add(struct mlz_spread *s, const struct mlz_class *class, double allocs, double frees, double temps) {
  double size = (double)class->size, step = class->weight - 1, count = class->weight * step, bytes = count * size * size;
  s->alloc_count += count * allocs;
  s->alloc_bytes += bytes * allocs;
  s->free_count += count * frees;
  s->free_bytes += bytes * frees;
  s->temp_count += count * temps;
  if (step > s->step_count) s->step_count = step;
  if (step * size > s->step_bytes) s->step_bytes = step * size;
}

void mlz_spread_join(struct mlz_spread *into, const struct mlz_spread *more) {
  into->alloc_count += more->alloc_count;
  into->alloc_bytes += more->alloc_bytes;
  into->free_count += more->free_count;
  into->free_bytes += more->free_bytes;
  into->temp_count += more->temp_count;
  if (more->step_count > into->step_count) into->step_count = more->step_count;
  if (more->step_bytes > into->step_bytes) into->step_bytes = more->step_bytes;
}

static double usual_size(const struct mlz_spread *s) { return s->alloc_count > 0 ? sqrt(s->alloc_bytes / s->alloc_count) : 0; }

void mlz_spread_floor(struct mlz_spread *s, const struct mlz_spread *whole) {
  if (s->step_count >= whole->step_count) return;
  s->step_count = whole->step_count;
  s->step_bytes = fmax(s->step_bytes, whole->step_count * usual_size(s->alloc_count > 0 ? s : whole));
}

/* The upper end of the score interval: the largest true value t for which an estimate as low as this one is 1.96 standard deviations away,
 * when the variance at t is that of the estimate plus `step` for each unit between them. With few blocks it is much wider than 1.96
 * standard deviations of the estimate, which would be too narrow there. */
double mlz_spread_error(double variance, double step) {
  const double z = 1.959963984540054;
  if (!(variance > 0)) variance = 0;
  return z * z * step / 2 + z * sqrt(z * z * step * step / 4 + variance);
}

/* The largest block of all may be freed: no live one is larger than its own share of the variance allows. Where none is live, one of the
 * usual size might be. */
double mlz_spread_live_bytes_error(const struct mlz_spread *s) {
  double variance = s->alloc_bytes - s->free_bytes;
  if (variance > 1e-9 * s->alloc_bytes) return mlz_spread_error(variance, fmin(s->step_bytes, sqrt(variance)));
  return mlz_spread_error(0, s->alloc_count > 0 ? s->step_count * usual_size(s) : s->step_bytes);
}
