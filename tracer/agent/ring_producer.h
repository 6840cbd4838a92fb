/* The producing side of a ring (shm/ring.h), inline for the one common case: there is room.
 *
 * Runs in the traced program, on the ring's own thread only. Two ways to write a message:
 *   quick    up to MLZ_QUICK words at `cursor`, one after the other, where cursor < stop; then mlz_producer_advance.
 *   any      composed with mlz_producer_word(p, i) for i = 0, 1, ..., after mlz_producer_room(p, n) said yes; then mlz_producer_publish.
 * `stop` is so chosen that the quick way needs no other look: neither the ring's end nor what the recorder has not read yet is
 * less than MLZ_QUICK words away. Where the structure is zero (a fork's child, mlz_thread in agent.h) there is no quick way.
 * Budget: the quick way 1 ns. */
#ifndef MLZ_AGENT_RING_PRODUCER_H
#define MLZ_AGENT_RING_PRODUCER_H

#include "shm/control.h"

#define MLZ_LIKELY(x) __builtin_expect(!!(x), 1)
#define MLZ_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define MLZ_COLD __attribute__((cold, noinline))

/* What the producing process knows of the recorder; shared by its threads. */
struct mlz_peer {
  struct mlz_control *control;
  _Atomic uint32_t stalled; /* a thread waited its second in vain: the others do not wait; cleared by progress */
};

#define MLZ_QUICK 16u                     /* words */
#define MLZ_NEAR_NONE (UINT64_C(1) << 63) /* nothing is near to it */

struct mlz_producer {
  uint64_t *cursor; /* == words + (head & mask) */
  uint64_t *stop;
  struct mlz_ring *ring;
  uint64_t head;         /* the producer's own copies: nobody else stores them */
  uint64_t near_base[2]; /* the ring's, or MLZ_NEAR_NONE */
  /* colder */
  uint64_t limit; /* words up to this index may be written without a look at the recorder */
  uint64_t *words;
  uint8_t *side;
  struct mlz_peer *peer;
  uint64_t side_head;
  uint64_t side_kept; /* side bytes below it belong to published messages */
  uint32_t mask;
  uint32_t side_mask;
  uint64_t full_tail; /* where tail stood when the ring was last found full in vain */
};

enum mlz_room {
  MLZ_ROOM_BLOCK = 0, /* may wait, may use the whole ring */
  MLZ_ROOM_DROP = 1,  /* does not wait, leaves the last quarter to frees */
};

void mlz_producer_init(struct mlz_producer *p, struct mlz_peer *peer, struct mlz_ring *ring);
/* The odd cases: a quarter of the ring was written, the recorder asked to be woken, or the ring is full. */
MLZ_COLD bool mlz_producer_room_slow(struct mlz_producer *p, uint32_t n, enum mlz_room mode);
/* Copies up to `n` bytes into the side buffer, waiting as BLOCK does; returns how many fitted (0: none, give up).
 * Publish a message that names them next, then keep them; if there was no room for it, undo: bytes without a message would shift all later ones. */
uint32_t mlz_producer_side(struct mlz_producer *p, const void *bytes, uint32_t n);
static inline void mlz_producer_side_keep(struct mlz_producer *p) { p->side_kept = p->side_head; }
void mlz_producer_side_undo(struct mlz_producer *p);
/* Reads the clock, raises the published time to it, wakes a recorder that sleeps for long, and returns the time (ns since the start of the
 * trace). */
uint64_t mlz_peer_clock(struct mlz_peer *peer);
void mlz_peer_wake(struct mlz_peer *peer);

/* True: `n` words may be written. */
static inline __attribute__((always_inline)) bool mlz_producer_room(struct mlz_producer *p, uint32_t n, enum mlz_room mode) {
  if (MLZ_LIKELY(p->head + n <= p->limit)) return true;
  return mlz_producer_room_slow(p, n, mode);
}
static inline __attribute__((always_inline)) uint64_t *mlz_producer_word(struct mlz_producer *p, uint32_t i) {
  return &p->words[(p->head + i) & p->mask];
}
/* Sets the base that blocks of the domain are measured from, if this one is like most that will come: in the middle, so that those below are near, too. */
MLZ_COLD void mlz_producer_near(struct mlz_producer *p, unsigned domain, const void *block, uint64_t size);
void mlz_producer_publish(struct mlz_producer *p, uint32_t n);

static inline __attribute__((always_inline)) bool mlz_producer_quick(const struct mlz_producer *p) { return p->cursor < p->stop; }
static inline __attribute__((always_inline)) void mlz_producer_advance(struct mlz_producer *p, uint32_t n) {
  p->cursor += n;
  p->head += n;
  atomic_store_explicit(&p->ring->head, p->head, memory_order_release);
}

#endif
