#include "gate.h"

/* Finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). */
static uint64_t hash(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

/* floor(k / R), R = (rate + 1) / 2^32 */
static uint64_t window_start(uint64_t k, uint32_t rate) { return (uint64_t)(((unsigned __int128)k << 32) / ((uint64_t)rate + 1)); }

/* The place of window k's chosen allocation among all of this run of windows, from 0. */
static uint64_t place(const struct mlz_thread *th, uint64_t k, uint32_t rate) {
  uint64_t start = window_start(k, rate), length = window_start(k + 1, rate) - start;
  uint64_t h = hash((uint64_t)th->number << 40 ^ k);
  return start + (uint64_t)((unsigned __int128)h * length >> 64);
}

void mlz_gate_next(struct mlz_tls *t) {
  struct mlz_thread *th = t->thread;
  uint32_t rate = mlz_settings_rate(t->settings);
  uint64_t here = place(th, th->window, rate), next = place(th, th->window + 1, rate);
  th->window++;
  t->countdown = next - here - 1;
  th->place_seen += next - here;
}

void mlz_gate_reset(struct mlz_tls *t) {
  struct mlz_thread *th = t->thread;
  uint64_t seen = th->place_seen ? th->place_seen - 1 - t->countdown : 0;
  th->window = 0;
  if (t->settings & MLZ_SET_PAUSED) {
    t->countdown = UINT64_MAX / 2;
    t->over = UINT64_MAX;
  } else {
    t->countdown = mlz_settings_rate(t->settings) == MLZ_RATE_ALL ? 0 : place(th, 0, mlz_settings_rate(t->settings));
  }
  th->place_seen = seen + t->countdown + 1;
}
