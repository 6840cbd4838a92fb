#include "gate.h"

/* Finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). */
static inline uint64_t hash(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

/* floor(h n / 2^64): even in [0, n) */
static inline uint64_t share(uint64_t h, uint64_t n) { return (uint64_t)((unsigned __int128)h * n >> 64); }

/* floor(x / length) for x < 2^34, with inverse = floor((2^64 - 1) / length): the product is too small by one at most. */
static inline uint64_t quotient(uint64_t x, uint64_t length, uint64_t inverse) {
  uint64_t q = share(x, inverse);
  return q + (x - q * length >= length);
}

/* Allocations end to end, each of length rate + 1, are cut into windows of length 2^32; in each window a place is drawn. An allocation may lie
 * across a boundary: it is drawn in the second window with the probability that is left of its own, and never in both, so that each is chosen
 * with probability R exactly (docs/sampling.md). Returns how many allocations after the last choice the next one lies; from 0 on for the first. */
MLZ_GATE_INLINE uint64_t draw(struct mlz_thread *th, uint32_t rate) {
  const uint64_t window = UINT64_C(1) << 32, length = (uint64_t)rate + 1, inverse = th->sample_inverse;
  uint64_t begun = th->sample_begun, rest = window - begun;
  uint64_t h = hash(th->sample_key ^ th->sample_window++);
  bool across = false;
  if (begun && !th->sample_taken) {
    unsigned __int128 drawn = (unsigned __int128)h * (window - (length - begun));
    across = (uint64_t)(drawn >> 64) < begun;
    h = (uint64_t)drawn; /* the fraction is as even as h was */
  }
  uint64_t n = th->sample_least + (rest > th->sample_least * length); /* begin in this window: what is left of it holds no fewer */
  uint64_t place = quotient(share(h, rest), length, inverse);
  uint64_t distance = across ? th->sample_ahead - 1 : th->sample_ahead + place;
  th->sample_begun = n * length - rest;
  th->sample_taken = !across && place + 1 == n; /* matters only where the last one goes on */
  th->sample_ahead = across ? n + 1 : n - place;
  return distance;
}

MLZ_GATE_INLINE void next(struct mlz_tls *t) {
  struct mlz_thread *th = t->thread;
  uint64_t distance = draw(th, mlz_settings_rate(t->settings));
  mlz_gate_set(t, distance);
  th->last_still = distance - 1;
  th->passed_then += distance - 1;
}

void mlz_gate_next(struct mlz_tls *t) {
  mlz_gate_publish_due(t->thread);
  next(t);
}

void *mlz_gate_told(struct mlz_tls *t, void *block) {
  next(t);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}

void mlz_gate_reset(struct mlz_tls *t) {
  struct mlz_thread *th = t->thread;
  uint32_t rate = mlz_settings_rate(t->settings);
  mlz_gate_settle(t);
  th->passed_then -= mlz_gate_still(t);
  th->sample_begun = th->sample_ahead = 0;
  th->sample_inverse = UINT64_MAX / ((uint64_t)rate + 1);
  th->sample_least = (UINT64_C(1) << 32) / ((uint64_t)rate + 1);
  th->sample_taken = false;
  if (t->settings & MLZ_SET_PAUSED) {
    mlz_gate_set(t, UINT64_MAX / 2);
    t->over = UINT64_MAX;
  } else {
    mlz_gate_set(t, rate == MLZ_RATE_ALL ? 0 : draw(th, rate) + 1);
    if (rate == MLZ_RATE_ALL) t->quick = 0;
  }
  th->last_still = mlz_gate_still(t);
  th->passed_then += th->last_still;
}
