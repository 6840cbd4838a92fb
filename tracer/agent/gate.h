/* Which allocations are recorded: exactly one in each window of 1/R of a thread's allocations, at a hashed place,
 * and every one of at least sample_over bytes (docs/architecture.md). Runs in the hook of the allocating thread.
 * Budget: 1 ns for an allocation that is passed over; at rate 1 nothing is computed. */
#ifndef MLZ_AGENT_GATE_H
#define MLZ_AGENT_GATE_H

#include "agent.h"

#pragma GCC visibility push(hidden)

#define MLZ_RATE_ALL 0xffffffffu

/* Goes on to the next window. */
void mlz_gate_next(struct mlz_tls *t);
/* Begins anew under t->settings and t->over. */
void mlz_gate_reset(struct mlz_tls *t);

enum mlz_gate_answer { MLZ_GATE_PASS = 0, MLZ_GATE_TAKE = 1, MLZ_GATE_CERTAIN = 2 };

static inline __attribute__((always_inline)) enum mlz_gate_answer mlz_gate(struct mlz_tls *t, uint64_t size) {
  if (MLZ_LIKELY(t->countdown == 0)) {
    struct mlz_thread *th = t->thread;
    atomic_store_explicit(&th->out.ring->allocs_seen, th->place_seen, memory_order_relaxed);
    if (MLZ_LIKELY(mlz_settings_rate(t->settings) == MLZ_RATE_ALL))
      th->place_seen++;
    else
      mlz_gate_next(t);
    return size >= t->over ? MLZ_GATE_CERTAIN : MLZ_GATE_TAKE;
  }
  t->countdown--;
  if (MLZ_LIKELY(size < t->over)) return MLZ_GATE_PASS;
  atomic_store_explicit(&t->thread->out.ring->allocs_seen, t->thread->place_seen - 1 - t->countdown, memory_order_relaxed);
  return MLZ_GATE_CERTAIN;
}

/* Puts the exact count into the ring's header, for the last time or before a record that is no allocation. */
static inline __attribute__((always_inline)) void mlz_gate_publish_seen(struct mlz_tls *t) {
  atomic_store_explicit(&t->thread->out.ring->allocs_seen, t->thread->place_seen - 1 - t->countdown, memory_order_relaxed);
}

#pragma GCC visibility pop
#endif
