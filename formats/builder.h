/* The inside of a builder: what the drain thread fills and the writer thread encodes. Private to formats/; append.h gives the drain its hot functions inline.
 *
 * One anonymous mapping, sized for the worst case and touched only as far as it is used, so that no event needs an allocation that could fail. */
#ifndef MLZ_FORMATS_BUILDER_H
#define MLZ_FORMATS_BUILDER_H

#include "formats/events.h"
#include "formats/layout.h"
#include "formats/writer.h"

#define MLZ_BUILDER_HASH_MAX (2 * MLZ_CHUNK_EVENTS_MAX)
#define MLZ_BUILDER_HASH_MIN 2048u
#define MLZ_BUILDER_THREAD_SLOTS 256u
#define MLZ_BUILDER_EMPTY UINT64_MAX /* key of an empty slot */

struct mlz_builder_step { /* from event `event` on it is `ns` */
  uint64_t ns;
  uint32_t event;
  uint32_t alloc; /* allocations before it */
};
struct mlz_builder_run { /* from event `event` on it is thread `index` of the chunk's thread list */
  uint32_t event;
  uint32_t index;
};

struct mlz_builder_class { /* of the hash table: one line holds all that a look-up needs */
  uint64_t key;            /* weight's index << 52 | domain << 48 | size */
  uint32_t stack;
  uint32_t class;
};

struct mlz_builder {
  uint32_t n, allocs, refs, olds, frees, rares_n;
  uint32_t classes_n, weights_n, threads_n, runs_n, steps_n;
  bool pending; /* thread or time differ from those of the last event */
  uint32_t process;
  uint32_t thread;       /* of the following events */
  uint32_t thread_index; /* of the current run */
  uint64_t first_alloc;
  uint64_t first_ns;
  uint64_t now_ns;  /* of the following events */
  uint64_t last_ns; /* of the last event */
  uint32_t hash_mask;
  uint32_t weight_index; /* of `weight` in `weights` */
  double weight;         /* of the last class looked for; NaN: none yet */

  double weights[MLZ_WEIGHTS_MAX];
  uint32_t thread_slot[MLZ_BUILDER_THREAD_SLOTS]; /* by the id's low bits: index + 1 */
  uint8_t ops[MLZ_CHUNK_EVENTS_MAX];
  uint32_t alloc_class[MLZ_CHUNK_EVENTS_MAX];
  uint32_t ref[MLZ_CHUNK_EVENTS_MAX];
  uint32_t ref_allocs[MLZ_CHUNK_EVENTS_MAX]; /* allocations before that free */
  uint32_t old_class[MLZ_CHUNK_EVENTS_MAX];
  uint64_t old_ref[MLZ_CHUNK_EVENTS_MAX];
  struct mlz_class classes[MLZ_CHUNK_EVENTS_MAX];
  struct mlz_builder_class hash[MLZ_BUILDER_HASH_MAX];
  uint32_t thread_id[MLZ_CHUNK_EVENTS_MAX];
  uint32_t thread_latest[MLZ_CHUNK_EVENTS_MAX]; /* the thread's latest allocation in the chunk + 1, 0: none */
  struct mlz_builder_run runs[MLZ_CHUNK_EVENTS_MAX];
  struct mlz_builder_step steps[MLZ_CHUNK_EVENTS_MAX];
  struct mlz_rare rares[MLZ_RARES_MAX];
};

#endif
