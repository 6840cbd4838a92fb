/* What is in a trace, in one pass: raw counts of the whole file, and of the chosen processes bytes, peak, sizes, domains, lifetimes, collections.
 * What can be said of a chunk alone is found on several threads (scan.h). Memory: fixed, and a few words for each thread and process. */
#ifndef MLZ_ANALYZER_STATS_H
#define MLZ_ANALYZER_STATS_H

#include "analyzer/peak.h"
#include "analyzer/tally.h"

enum { MLZ_SIZE_CLASSES = 49, MLZ_LIFETIMES = 9, MLZ_GENERATIONS = 3 };

struct mlz_stats_point {
  const char *name;
  uint64_t ns;
  struct mlz_tally total; /* of the chosen processes, those that had ended too */
};

struct mlz_stats {
  /* raw, of the whole file */
  uint64_t allocs, frees, gc, marks, snapshots;
  uint64_t *thread_events; /* by thread id */
  size_t n_threads;
  uint64_t *process_events; /* by process index */
  size_t n_processes;
  /* of the chosen processes up to their end */
  struct mlz_tally total;
  struct mlz_spread spread, domain_spreads[MLZ_BLOCK_DOMAINS], size_spreads[MLZ_SIZE_CLASSES], peak_spread; /* zero if not sampled */
  struct mlz_tally domains[MLZ_BLOCK_DOMAINS];
  struct mlz_tally sizes[MLZ_SIZE_CLASSES]; /* [0]: 0 and 1 bytes; [i]: up to 2^i bytes and more than half of it */
  double lifetimes[MLZ_LIFETIMES];          /* freed blocks; [i] lived for less than mlz_lifetime_bound(i), the last: longer */
  double foreign;                           /* frees of blocks that the process inherited, or whose allocation is not in the trace */
  uint64_t gc_count[MLZ_GENERATIONS], gc_ns[MLZ_GENERATIONS];
  struct mlz_peak peak;
  struct mlz_stats_point *points; /* the snapshots of a trace that has totals only */
  size_t n_points;
};

uint64_t mlz_lifetime_bound(unsigned i); /* ns; UINT64_MAX for the last */
void mlz_stats_find(struct mlz_input *in, bool include_mmap, const struct mlz_cut *to, struct mlz_stats *out);
void mlz_stats_clear(struct mlz_stats *stats);

#endif
