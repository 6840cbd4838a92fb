/* Liveness: what was allocated, freed and is live, for each stack (or thread, process, domain). One pass, any limits.
 *
 * Work is done for each class of a chunk, not for each event: events are counted by class and multiplied once. Memory: one row
 * for each key. With a lower limit only blocks allocated after it count, their frees too. */
#ifndef MLZ_ANALYZER_TALLY_H
#define MLZ_ANALYZER_TALLY_H

#include "analyzer/owners.h"
#include "analyzer/scan.h"
#include "analyzer/spread.h"

struct mlz_tally {
  double alloc_count, alloc_bytes;
  double free_count, free_bytes; /* live = alloc - free */
  double temp_count, temp_bytes; /* freed before the thread's next allocation; part of free_* */
};

enum mlz_tally_key { MLZ_TALLY_STACK, MLZ_TALLY_THREAD, MLZ_TALLY_PROCESS, MLZ_TALLY_DOMAIN };

/* Counts of one chunk by class. */
enum mlz_count_kind { MLZ_COUNT_ALLOC, MLZ_COUNT_FREE, MLZ_COUNT_TEMP, MLZ_COUNT_NONE };
struct mlz_counter {
  uint32_t *counts; /* four for each class (enum mlz_count_kind), and four for events without one */
  uint32_t room;    /* classes */
};
/* All events of a chunk, on any thread; for scan's part. */
void mlz_counter_block(struct mlz_counter *counter, const struct mlz_block *block);
/* Counts the slice's events; frees of blocks older than slice->from_alloc are left out (needs MLZ_WANT_ALLOC_NO if that is not 0). */
void mlz_counter_run(struct mlz_counter *counter, const struct mlz_slice *slice);
static inline const uint32_t *mlz_counter_of(const struct mlz_counter *counter, uint32_t class) {
  return counter->counts + (size_t) class * 4;
}
void mlz_counter_clear(struct mlz_counter *counter);

/* Adds a class's counts to a row: multiplied once, whatever they are. */
void mlz_tally_add(struct mlz_tally *row, const struct mlz_class *class, const uint32_t *counts);
/* The same for the uncertainty; nothing for classes that are not sampled. */
static inline void mlz_tally_add_spread(struct mlz_spread *s, const struct mlz_class *class, const uint32_t *counts) {
  if (class->weight > 1)
    mlz_spread_add(s, class, counts[MLZ_COUNT_ALLOC], (double)counts[MLZ_COUNT_FREE] + counts[MLZ_COUNT_TEMP], counts[MLZ_COUNT_TEMP]);
}

struct mlz_tally_run {
  struct mlz_input *in;
  enum mlz_tally_key key;
  bool include_mmap;      /* domain mmap counts too */
  struct mlz_tally *rows; /* by stack id, thread id, process index or domain */
  size_t n;
  struct mlz_tally total;
  struct mlz_spread *spreads; /* as rows, for those that sampled blocks belong to; NULL: the trace is not sampled */
  size_t n_spreads;           /* rows at or above have none */
  struct mlz_spread total_spread;
  struct mlz_counter counter;
  /* by thread only */
  struct mlz_owners owners;
  uint32_t *chunk_owners; /* of the chunk's allocations */
  uint32_t owners_room;
};
void mlz_tally_begin(struct mlz_tally_run *run, struct mlz_input *in, enum mlz_tally_key key, bool include_mmap);
void mlz_tally_slice(void *run, const struct mlz_slice *slice);
/* For scan's part: a struct mlz_counter. */
void mlz_tally_prepare(void *run, const struct mlz_block *block, void *part);
void mlz_tally_clear_part(void *part);
/* All zero where nothing was sampled. */
struct mlz_spread mlz_tally_spread(const struct mlz_tally_run *run, size_t row);
unsigned mlz_tally_want(const struct mlz_tally_run *run, bool lower_limit); /* enum mlz_want */
void mlz_tally_clear(struct mlz_tally_run *run);

/* All of it: begins, scans from `from` to `to` (NULL: all). */
void mlz_tally_scan(struct mlz_tally_run *run, struct mlz_input *in, enum mlz_tally_key key, bool include_mmap, const struct mlz_cut *from,
                    const struct mlz_cut *to);

#endif
