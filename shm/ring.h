/* One thread's ring: single producer (the traced thread), single consumer (the recorder), lock-free.
 *
 * Invariants (indices count words since the ring was claimed and never wrap in practice):
 *   tail <= head <= tail + words
 *   every message lies wholly below head or is not visible at all
 *   side_tail <= side_head <= side_tail + side_bytes; side bytes are published before the message naming them
 * head, side_head: written by the producer only. tail, side_tail: by the recorder only. */
#ifndef MLZ_SHM_RING_H
#define MLZ_SHM_RING_H

#include "record.h"

#include <stdatomic.h>
#include <stdbool.h>

enum mlz_ring_state {
  MLZ_RING_FREE = 0,    /* recorder -> producer: may be claimed; head == tail == 0 */
  MLZ_RING_CLAIMED = 1, /* a producer is preparing it; the recorder keeps off, and frees it if the process dies */
  MLZ_RING_LIVE = 2,    /* in use; only the recorder leaves this state, once the thread is gone and all is drained */
};

enum mlz_ring_ending {
  MLZ_RING_GOES_ON = 0,
  MLZ_RING_ENDING = 1,   /* the thread runs its last destructors: the recorder should look whether it is gone */
  MLZ_RING_DETACHED = 2, /* the process takes no more part: nothing is written any more, though thread and process may live */
};

struct mlz_ring {
  /* Line 0: who. Written by the producer between CLAIMED and LIVE, constant afterwards. */
  _Alignas(64) _Atomic uint32_t state; /* enum mlz_ring_state */
  _Atomic uint32_t pid;                /* in the recorder's pid namespace as far as the agent can tell */
  uint32_t tid;
  uint32_t image;
  uint32_t thread_no;      /* order of creation among the image's threads, from 1; the sampling hash uses it */
  _Atomic uint32_t ending; /* enum mlz_ring_ending */
  uint64_t start_ns;
  /* Of messages SMALL and NEAR (record.h), in granules; 0: there are none. Set once, before the first of them is published. */
  _Atomic uint64_t near_base[2];
  uint64_t reserved0[2];

  /* Line 1: the producer's. */
  _Alignas(64) _Atomic uint64_t head;
  _Atomic uint64_t side_head;
  _Atomic uint64_t allocs_passed; /* passed over by sampling, or not recordable; exact whenever a record is published */
  _Atomic uint64_t dropped_alloc; /* messages not written because the ring was full */
  _Atomic uint64_t dropped_free;
  _Atomic uint64_t blocked_ns; /* time the thread waited for room */
  _Atomic uint64_t blocked_count;
  _Atomic uint64_t nested; /* events inside a hook (a signal handler), passed through unrecorded */

  /* Line 2: the recorder's. */
  _Alignas(64) _Atomic uint64_t tail;
  _Atomic uint64_t side_tail;
  uint64_t reserved2[6];

  /* Line 3: waiting for room. */
  _Alignas(64) _Atomic uint32_t room_futex; /* the recorder adds one and wakes it when a waiting producer has room again */
  _Atomic uint32_t waiting;                 /* 1 while the producer waits on room_futex */
  uint64_t reserved3[7];
};
_Static_assert(sizeof(struct mlz_ring) == 256, "a ring header is four cache lines");
_Static_assert(offsetof(struct mlz_ring, head) == 64, "layout");
_Static_assert(offsetof(struct mlz_ring, tail) == 128, "layout");
_Static_assert(offsetof(struct mlz_ring, room_futex) == 192, "layout");

/* A ring region in the arena: header, words, side buffer, each aligned; see control.h for the offsets. */
static inline uint64_t *mlz_ring_words(struct mlz_ring *r) { return (uint64_t *)(r + 1); }
static inline uint8_t *mlz_ring_side(struct mlz_ring *r, uint32_t words) { return (uint8_t *)(mlz_ring_words(r) + words); }

#endif
