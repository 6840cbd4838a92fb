/* What the stacks of an image amount to, kept while it runs: for --snapshots-only, where the file has these instead of events. Recorder process,
 * drain thread only. Budget: 10 ns for an allocation and its free.
 *
 * Memory: a row for each (stack, domain, weight) that ever allocated, however many events there are. Blocks remember their row. */
#ifndef MLZ_RECORDER_TOTALS_H
#define MLZ_RECORDER_TOTALS_H

#include "formats/writer.h"

struct mlz_totals_sum {
  struct mlz_totals_key key;
  uint64_t now[MLZ_TOTAL_SIZE_MAX + 1], then[MLZ_TOTALS]; /* then: at the point before */
  double squares[2];                                      /* of allocations, of frees; where the weight is above 1 */
};
struct mlz_totals_slot {
  uint64_t key; /* mlz_totals_hash_key + 1; 0: empty */
  uint32_t row;
};
struct mlz_totals {
  struct mlz_totals_sum *rows; /* [0] takes what no row could be made for, and is not in the file */
  uint32_t n, room;
  struct mlz_totals_slot *slots;
  uint32_t mask, defined; /* rows that the file has */
  uint32_t part, points;  /* written */
  uint64_t events;        /* of the image, in EVENTS chunks */
  uint64_t foreign;
  uint64_t peak_bytes, peak_ns; /* since the point before */
};

struct mlz_totals *mlz_totals_new(void); /* NULL: out of memory */
struct mlz_totals *mlz_totals_free(struct mlz_totals *t);

uint32_t mlz_totals_row_slow(struct mlz_totals *t, uint32_t stack, unsigned domain, uint32_t weight, double w);
void mlz_totals_square(struct mlz_totals_sum *s, unsigned of, uint64_t size);

static inline uint64_t mlz_totals_hash_key(uint32_t stack, unsigned domain, uint32_t weight) {
  return (uint64_t)weight << 35 | (uint64_t)stack << 3 | domain; /* fewer than 2^28 weights */
}
static inline uint32_t mlz_totals_hash(uint64_t key) { return (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32); }

/* The row of such blocks; `weight` is the index of `w`. */
static inline uint32_t mlz_totals_row(struct mlz_totals *t, uint32_t stack, unsigned domain, uint32_t weight, double w) {
  uint64_t key = mlz_totals_hash_key(stack, domain, weight);
  const struct mlz_totals_slot *s = &t->slots[mlz_totals_hash(key) & t->mask];
  return __builtin_expect(s->key == key + 1, 1) ? s->row : mlz_totals_row_slow(t, stack, domain, weight, w);
}

static inline void mlz_totals_alloc(struct mlz_totals *t, uint32_t row, uint64_t size) {
  struct mlz_totals_sum *s = &t->rows[row];
  s->now[MLZ_TOTAL_ALLOCS]++;
  s->now[MLZ_TOTAL_ALLOC_BYTES] += size;
  if (size > s->now[MLZ_TOTAL_SIZE_MAX]) s->now[MLZ_TOTAL_SIZE_MAX] = size;
  if (__builtin_expect(s->key.weight > 1, 0)) mlz_totals_square(s, 0, size);
}

static inline void mlz_totals_freed(struct mlz_totals *t, uint32_t row, uint64_t size, bool temporary) {
  struct mlz_totals_sum *s = &t->rows[row];
  s->now[MLZ_TOTAL_FREES]++;
  s->now[MLZ_TOTAL_FREE_BYTES] += size;
  s->now[MLZ_TOTAL_TEMPS] += temporary;
  s->now[MLZ_TOTAL_TEMP_BYTES] += temporary ? size : 0;
  if (__builtin_expect(s->key.weight > 1, 0)) mlz_totals_square(s, 1, size);
}

/* Writes a point; fills in of `head` what is known here (peak, foreign, events). */
void mlz_totals_write(struct mlz_totals *t, struct mlz_writer *writer, struct mlz_totals_head *head);

#endif
