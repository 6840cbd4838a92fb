#include "ring_producer.h"

#include "sys.h"

#include <string.h>

#define WAIT_STEP_NS 20000000L             /* a missed wake-up costs this much at most */
#define WAIT_LIMIT_NS UINT64_C(1000000000) /* docs/concurrency.md, rule 5 */

void mlz_producer_init(struct mlz_producer *p, struct mlz_peer *peer, struct mlz_ring *ring) {
  struct mlz_control *c = peer->control;
  p->ring = ring;
  p->peer = peer;
  p->words = mlz_ring_words(ring);
  p->side = mlz_ring_side(ring, c->ring_words);
  p->head = p->side_head = p->side_kept = 0;
  p->near_base[0] = p->near_base[1] = MLZ_NEAR_NONE;
  p->mask = c->ring_words - 1;
  p->side_mask = c->side_bytes - 1;
  p->full_tail = UINT64_MAX;
  p->limit = 0;
  p->cursor = p->stop = p->words;
}

uint64_t mlz_peer_clock(struct mlz_peer *peer) {
  struct mlz_control *c = peer->control;
  bool asleep;
  uint64_t now = mlz_clock_raise(c, mlz_sys_monotonic() - c->base_ns, &asleep);
  if (asleep) mlz_peer_wake(peer);
  return now;
}

void mlz_peer_wake(struct mlz_peer *peer) {
  struct mlz_control *c = peer->control;
  atomic_thread_fence(memory_order_seq_cst);
  if (!atomic_load_explicit(&c->sleeping, memory_order_relaxed)) return;
  atomic_fetch_add_explicit(&c->wake, 1, memory_order_relaxed);
  mlz_sys_futex_wake(&c->wake);
}

static uint64_t tail_of(const struct mlz_producer *p) { return atomic_load_explicit(&p->ring->tail, memory_order_acquire); }

/* Waits until `done(p, need)` holds: at most one second without progress of the recorder. */
static bool wait_for(struct mlz_producer *p, bool (*done)(const struct mlz_producer *, uint64_t), uint64_t need) {
  struct mlz_ring *r = p->ring;
  uint64_t begin = mlz_sys_monotonic(), since = begin, tail = tail_of(p), now = begin;
  const struct timespec step = {.tv_nsec = WAIT_STEP_NS};
  bool ok;
  for (;;) {
    uint32_t ticket = atomic_load_explicit(&r->room_futex, memory_order_relaxed);
    atomic_store_explicit(&r->waiting, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* rule 6 */
    if ((ok = done(p, need)) || mlz_recorder_died(p->peer->control)) break;
    uint64_t t = tail_of(p);
    if (t != tail) tail = t, since = now;
    if (now - since >= WAIT_LIMIT_NS || atomic_load_explicit(&p->peer->stalled, memory_order_relaxed)) break;
    mlz_peer_wake(p->peer);
    mlz_sys_futex_wait(&r->room_futex, ticket, &step);
    now = mlz_sys_monotonic();
  }
  atomic_store_explicit(&r->waiting, 0, memory_order_relaxed);
  if (!ok) atomic_store_explicit(&p->peer->stalled, 1, memory_order_relaxed);
  uint64_t spent = mlz_sys_monotonic() - begin;
  atomic_store_explicit(&r->blocked_ns, atomic_load_explicit(&r->blocked_ns, memory_order_relaxed) + spent, memory_order_relaxed);
  atomic_store_explicit(&r->blocked_count, atomic_load_explicit(&r->blocked_count, memory_order_relaxed) + 1, memory_order_relaxed);
  return ok;
}

static bool words_free(const struct mlz_producer *p, uint64_t n) { return p->head + n <= tail_of(p) + p->mask + 1; }
static bool side_free(const struct mlz_producer *p, uint64_t n) {
  uint64_t tail = atomic_load_explicit(&p->ring->side_tail, memory_order_acquire);
  return p->side_head + n <= tail + p->side_mask + 1;
}

/* May this thread wait for room? Not while the recorder is known to stand still. */
static bool worth_waiting(struct mlz_producer *p) {
  if (mlz_recorder_died(p->peer->control)) return false;
  if (!atomic_load_explicit(&p->peer->stalled, memory_order_relaxed)) return true;
  if (p->full_tail == UINT64_MAX) p->full_tail = tail_of(p);
  if (tail_of(p) == p->full_tail) return false;
  atomic_store_explicit(&p->peer->stalled, 0, memory_order_relaxed);
  p->full_tail = UINT64_MAX;
  return true;
}

/* Where the quick way begins and ends. */
static void aim(struct mlz_producer *p) {
  uint64_t at = p->head & p->mask, straight = (uint64_t)p->mask + 1 - at, free_words = p->limit > p->head ? p->limit - p->head : 0;
  if (straight > free_words) straight = free_words;
  p->cursor = p->words + at;
  p->stop = straight >= MLZ_QUICK ? p->cursor + (straight - MLZ_QUICK + 1) : p->cursor;
}

bool mlz_producer_room_slow(struct mlz_producer *p, uint32_t n, enum mlz_room mode) {
  uint64_t words = (uint64_t)p->mask + 1, quarter = words / 4;
  if (n > words) return false;
  uint64_t allowed = tail_of(p) + words - (mode == MLZ_ROOM_DROP ? quarter : 0);
  if (p->head + n > allowed) {
    if (mode == MLZ_ROOM_DROP || !worth_waiting(p) || !wait_for(p, words_free, n)) {
      if (mode == MLZ_ROOM_BLOCK) p->full_tail = tail_of(p);
      mlz_peer_wake(p->peer);
      return false;
    }
    allowed = tail_of(p) + words;
  }
  /* Come back here after a quarter of the ring, and for every message once less than a quarter is left. */
  uint64_t low = allowed - quarter, next = p->head + quarter < low ? p->head + quarter : low;
  if (next < p->head + n) next = p->head + n;
  p->limit = next;
  aim(p);
  mlz_peer_wake(p->peer);
  return true;
}

void mlz_producer_publish(struct mlz_producer *p, uint32_t n) {
  p->head += n;
  atomic_store_explicit(&p->ring->head, p->head, memory_order_release);
  aim(p);
}

void mlz_producer_near(struct mlz_producer *p, unsigned domain, const void *block, uint64_t size) {
  if (!block || size > 512) return; /* not in pymalloc's arenas, perhaps in the C library's heap, far away */
  const uint64_t granule = (uint64_t)(uintptr_t)block >> MLZ_GRANULE_SHIFT, middle = UINT64_C(1) << (MLZ_NEAR_BITS - 1);
  const unsigned which = mlz_near_base(domain);
  p->near_base[which] = granule > middle ? granule - middle : 1;
  atomic_store_explicit(&p->ring->near_base[which], p->near_base[which], memory_order_relaxed); /* published with the next head */
}

uint32_t mlz_producer_side(struct mlz_producer *p, const void *bytes, uint32_t n) {
  uint32_t half = (p->side_mask + 1) / 2;
  if (n > half) n = half;
  if (!side_free(p, n)) {
    if (!worth_waiting(p) || !wait_for(p, side_free, n)) return 0;
  }
  uint32_t at = (uint32_t)(p->side_head & p->side_mask), first = p->side_mask + 1 - at;
  if (first > n) first = n;
  memcpy(p->side + at, bytes, first);
  memcpy(p->side, (const uint8_t *)bytes + first, n - first);
  p->side_head += n;
  atomic_store_explicit(&p->ring->side_head, p->side_head, memory_order_release);
  return n;
}

void mlz_producer_side_undo(struct mlz_producer *p) {
  p->side_head = p->side_kept;
  atomic_store_explicit(&p->ring->side_head, p->side_head, memory_order_release);
}
