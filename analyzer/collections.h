/* Garbage collections: pauses by generation, the stacks whose allocations trigger them, and their course over time. One pass over the rare column alone.
 * One thread. Memory: one row for each stack that triggered one, the longest pauses, quantiles of fixed size. */
#ifndef MLZ_ANALYZER_COLLECTIONS_H
#define MLZ_ANALYZER_COLLECTIONS_H

#include "analyzer/quantiles.h"
#include "analyzer/scan.h"

enum { MLZ_GC_GENERATIONS = 4, MLZ_GC_SLICES = 60 }; /* generations beyond the last count as the last */

struct mlz_pause {
  uint64_t start_ns, duration_ns, collected, uncollectable;
  uint32_t generation, stack, process; /* process: index */
};
struct mlz_gc_generation {
  struct mlz_quantiles pauses;
  uint64_t collected, uncollectable;
};
struct mlz_gc_trigger {
  uint32_t stack;
  uint64_t count, pause_ns, collected;
};

struct mlz_collections {
  struct mlz_gc_generation generations[MLZ_GC_GENERATIONS];
  struct mlz_gc_generation all;
  struct mlz_pause *pauses; /* the first `pauses_kept` in order of time */
  size_t n_pauses;
  uint64_t pauses_kept;
  struct mlz_pause longest[10]; /* longest first */
  unsigned n_longest;
  struct mlz_gc_trigger *triggers; /* most pause time first */
  size_t n_triggers;
  uint64_t slices[MLZ_GC_SLICES]; /* pause time in each sixtieth of the trace */
  uint64_t duration_ns;
};

/* Keeps the first `keep` pauses. */
void mlz_collections_find(struct mlz_input *in, const struct mlz_cut *from, const struct mlz_cut *to, uint64_t keep,
                          struct mlz_collections *out);
void mlz_collections_clear(struct mlz_collections *c);

#endif
