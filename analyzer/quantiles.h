/* Quantiles of a stream of durations: exact up to MLZ_QUANTILES_EXACT values, afterwards within 0.8 % by a histogram of fixed size whose
 * buckets grow with the value. Least, greatest, count and total are always exact. One thread. */
#ifndef MLZ_ANALYZER_QUANTILES_H
#define MLZ_ANALYZER_QUANTILES_H

#include <stdbool.h>
#include <stdint.h>

#define MLZ_QUANTILES_EXACT 100000u

struct mlz_quantiles {
  uint64_t count, total, min, max;
  uint64_t *values;  /* while exact */
  uint64_t *buckets; /* afterwards */
  uint32_t room;
  bool sorted;
};

void mlz_quantiles_add(struct mlz_quantiles *q, uint64_t value);
/* The smallest value that at least `part` (0..1) of the values do not exceed; 0 if there is none. */
uint64_t mlz_quantiles_at(struct mlz_quantiles *q, double part);
void mlz_quantiles_clear(struct mlz_quantiles *q);

#endif
