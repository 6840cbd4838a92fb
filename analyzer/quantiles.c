#include "analyzer/quantiles.h"

#include "analyzer/text.h"

#include <math.h>
#include <stdlib.h>

/* Values below 128 have a bucket each; above, 64 buckets for each power of two. */
enum { SUB_BITS = 6, BUCKETS = (65 - SUB_BITS) << SUB_BITS };

static uint32_t bucket_of(uint64_t value) {
  if (value < (2u << SUB_BITS)) return (uint32_t)value;
  unsigned shift = 63 - (unsigned)__builtin_clzll(value) - SUB_BITS;
  return (shift << SUB_BITS) + (uint32_t)(value >> shift);
}

static uint64_t bucket_middle(uint32_t bucket) {
  if (bucket < (2u << SUB_BITS)) return bucket;
  unsigned shift = (bucket >> SUB_BITS) - 1;
  uint64_t low = (uint64_t)((bucket & ((1u << SUB_BITS) - 1)) | (1u << SUB_BITS)) << shift;
  return low + (UINT64_C(1) << shift) / 2;
}

static void to_histogram(struct mlz_quantiles *q) {
  q->buckets = mlz_text_calloc(BUCKETS, sizeof *q->buckets);
  for (uint64_t i = 0; i < q->count; i++) q->buckets[bucket_of(q->values[i])]++;
  free(q->values);
  q->values = NULL;
}

void mlz_quantiles_add(struct mlz_quantiles *q, uint64_t value) {
  if (!q->count || value < q->min) q->min = value;
  if (value > q->max) q->max = value;
  q->total += value;
  if (!q->buckets && q->count == MLZ_QUANTILES_EXACT) to_histogram(q);
  if (q->buckets) {
    q->buckets[bucket_of(value)]++;
  } else {
    if (q->count == q->room) {
      q->room = q->room ? q->room * 2 : 64;
      q->values = mlz_text_realloc(q->values, q->room, sizeof *q->values);
    }
    q->values[q->count] = value;
    q->sorted = false;
  }
  q->count++;
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

uint64_t mlz_quantiles_at(struct mlz_quantiles *q, double part) {
  if (!q->count) return 0;
  uint64_t rank = (uint64_t)ceil(part * (double)q->count); /* 1..count */
  rank = rank < 1 ? 1 : rank > q->count ? q->count : rank;
  if (q->values) {
    if (!q->sorted) qsort(q->values, q->count, sizeof *q->values, compare);
    q->sorted = true;
    return q->values[rank - 1];
  }
  if (rank == q->count) return q->max;
  uint64_t seen = 0;
  for (uint32_t b = 0; b < BUCKETS; b++) {
    seen += q->buckets[b];
    if (seen < rank) continue;
    uint64_t value = bucket_middle(b);
    return value < q->min ? q->min : value > q->max ? q->max : value;
  }
  return q->max;
}

void mlz_quantiles_clear(struct mlz_quantiles *q) {
  free(q->values);
  free(q->buckets);
  *q = (struct mlz_quantiles){0};
}
