/* Which allocations are recorded: exactly one in each window of 1/R of a thread's allocations, at a hashed place,
 * and every one of at least sample_over bytes (docs/architecture.md). Runs in the hook of the allocating thread.
 * Budget: 1 ns for an allocation that is passed over; at rate 1 nothing is computed. */
#ifndef MLZ_AGENT_GATE_H
#define MLZ_AGENT_GATE_H

#include "python.h"

#pragma GCC visibility push(hidden)

#define MLZ_RATE_ALL 0xffffffffu
#define MLZ_GATE_INLINE static inline __attribute__((always_inline))

/* The allocation that the countdown stops at is being taken: goes on to the next window. */
void mlz_gate_next(struct mlz_tls *t);
/* The same after its message, which mlz_gate_publish_due came before: the last thing that its hook does, which is no longer busy then. Returns `block`. */
void *mlz_gate_told(struct mlz_tls *t, void *block);
/* Begins anew under t->settings and t->over. */
void mlz_gate_reset(struct mlz_tls *t);

enum mlz_gate_answer { MLZ_GATE_PASS = 0, MLZ_GATE_TAKE = 1, MLZ_GATE_CERTAIN = 2 };

#define MLZ_GATE_STRETCH 64u /* allocations that may be passed over before the settings are looked at */

/* Allocations to pass over before the chosen one. */
static inline uint64_t mlz_gate_still(const struct mlz_tls *t) { return t->countdown ? t->countdown + t->later - 1 : 0; }
static inline void mlz_gate_set(struct mlz_tls *t, uint64_t countdown) {
  uint32_t stretch =
      MLZ_UNLIKELY(mlz_python_unchecked()) ? 1 : MLZ_GATE_STRETCH; /* all are asked whether they are the first with a frame */
  t->countdown = countdown < stretch ? (uint32_t)countdown : stretch;
  t->later = countdown - t->countdown;
}

/* Puts the exact count into the ring's header, before a record. */
MLZ_GATE_INLINE void mlz_gate_publish(struct mlz_tls *t) {
  uint64_t still = mlz_gate_still(t);
  atomic_store_explicit(&t->thread->out.ring->allocs_passed, t->thread->passed_then - still, memory_order_relaxed);
}
MLZ_GATE_INLINE void mlz_gate_publish_due(struct mlz_thread *th) { /* of the allocation that is due: none is left to pass over */
  atomic_store_explicit(&th->out.ring->allocs_passed, th->passed_then, memory_order_relaxed);
}
/* Is the next allocation due, and not only a look at the settings? For those who tell of it first and ask the gate then. */
MLZ_GATE_INLINE bool mlz_gate_due(const struct mlz_tls *t, uint64_t size) {
  return t->countdown == 1 && MLZ_LIKELY(t->later == 0) && MLZ_LIKELY(size < t->over);
}
/* Where allocations are passed over without a look at anything else, last_block stays as it is: it was freed as a temporary one only if nothing was
 * passed over since. Before a free is told. */
static inline void mlz_gate_settle(struct mlz_tls *t) {
  if (t->last_block && t->thread->last_still != mlz_gate_still(t)) t->last_block = NULL;
}
/* Nothing more is passed over without a look at anything else. */
static inline void mlz_gate_hurry(struct mlz_tls *t) {
  t->quick = 0;
  if (t->countdown <= 1) return;
  t->later += t->countdown - 1;
  t->countdown = 1;
}
/* An allocation that was chosen cannot be recorded. */
static inline void mlz_gate_refuse(struct mlz_tls *t) {
  t->thread->passed_then++;
  mlz_gate_publish(t);
}

MLZ_GATE_INLINE enum mlz_gate_answer mlz_gate(struct mlz_tls *t, uint64_t size) {
  if (MLZ_UNLIKELY(t->chosen)) {
    enum mlz_gate_answer answer = (enum mlz_gate_answer)t->chosen;
    t->chosen = MLZ_GATE_PASS;
    return answer;
  }
  bool certain = size >= t->over;
  if (MLZ_UNLIKELY(t->countdown != 0)) {
    if (--t->countdown == 0 && t->later) mlz_gate_set(t, t->later);
    if (t->countdown != 0) {
      if (MLZ_LIKELY(!certain)) {
        t->last_block = NULL;
        return MLZ_GATE_PASS;
      }
      t->thread->passed_then--; /* it takes a place in the window, and is not passed over */
      t->thread->last_still = mlz_gate_still(t);
      mlz_gate_publish(t);
      return MLZ_GATE_CERTAIN;
    }
    mlz_gate_next(t);
  }
  return certain ? MLZ_GATE_CERTAIN : MLZ_GATE_TAKE;
}

#pragma GCC visibility pop
#endif
