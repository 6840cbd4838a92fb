/* Writes events into the thread's ring. Runs in the hooks, with t->busy set and after mlz_agent_enter said yes.
 *
 * Every event goes open -> fill slots -> close. open makes room and writes what must come first: the
 * published time, the order number when another ring wrote last under the GIL, and losses not yet told.
 * Budget: 3 ns for an event with an unchanged stack. */
#ifndef MLZ_AGENT_EVENT_H
#define MLZ_AGENT_EVENT_H

#include "agent.h"

#pragma GCC visibility push(hidden)

#define MLZ_INLINE static inline __attribute__((always_inline))

#define MLZ_EVENT_EXTRA 4u /* slots that open may add: TIME, ORDER, LOST and its payload */

MLZ_COLD uint32_t mlz_event_prefix(struct mlz_thread *th, uint64_t clock, bool turn, bool gil);
MLZ_COLD void mlz_event_lost(struct mlz_thread *th, bool is_free);

/* The first slot to fill of a message of `n` slots, or -1: no room; the loss is counted. */
MLZ_INLINE int32_t mlz_event_open(struct mlz_thread *th, uint32_t n, bool gil, enum mlz_room mode, bool is_free) {
  if (MLZ_UNLIKELY(!mlz_producer_room(&th->out, n + MLZ_EVENT_EXTRA, mode))) {
    mlz_event_lost(th, is_free);
    return -1;
  }
  uint64_t clock = atomic_load_explicit(&mlz_agent_control()->clock, memory_order_relaxed);
  /* Under the GIL: another ring wrote last. Without it: somebody took a number since, so what we know of the order is old. */
  bool turn = gil ? atomic_load_explicit(&mlz_agent.last_gil, memory_order_relaxed) != th
                  : atomic_load_explicit(&mlz_agent_control()->order_next, memory_order_relaxed) != th->order_seen;
  if (MLZ_UNLIKELY((clock != th->clock_seen) | turn)) return (int32_t)mlz_event_prefix(th, clock, turn, gil);
  return 0;
}
MLZ_INLINE struct mlz_slot *mlz_event_slot(struct mlz_thread *th, int32_t i) { return mlz_producer_slot(&th->out, (uint32_t)i); }
MLZ_INLINE void mlz_event_close(struct mlz_thread *th, int32_t end) { mlz_producer_publish(&th->out, (uint32_t)end); }

MLZ_INLINE enum mlz_room mlz_event_mode(const struct mlz_tls *t) { return t->settings & MLZ_SET_DROP ? MLZ_ROOM_DROP : MLZ_ROOM_BLOCK; }

/* Slots that the captured stack difference takes, and its writing from slot i on. */
MLZ_INLINE uint32_t mlz_event_stack_slots(const struct mlz_thread *th) { return (th->push + 1) / 2 + (th->push >= MLZ_PUSH_LONG); }
MLZ_INLINE int32_t mlz_event_stack(struct mlz_thread *th, int32_t i) {
  if (MLZ_UNLIKELY(th->push >= MLZ_PUSH_LONG)) *mlz_event_slot(th, i++) = (struct mlz_slot){th->push, 0};
  for (uint32_t k = 0; k < th->push; k += 2) *mlz_event_slot(th, i++) = (struct mlz_slot){th->words[k], th->words[k + 1]};
  return i;
}
MLZ_INLINE unsigned mlz_event_push(const struct mlz_thread *th) { return th->push < MLZ_PUSH_LONG ? th->push : MLZ_PUSH_LONG; }

MLZ_INLINE unsigned mlz_event_reset(const struct mlz_thread *th) {
  return !th->reset ? 0 : th->below ? MLZ_F_RESET | MLZ_F_BELOW : MLZ_F_RESET;
}

/* The head word of a message about a block. */
MLZ_INLINE uint64_t mlz_event_block_word(unsigned kind, unsigned flags, unsigned domain, const void *block) {
  /* The block is 16-byte aligned and below 2^47: the same as mlz_head_word(..., granule). */
  return (uint64_t)(uintptr_t)block << (20 - MLZ_GRANULE_SHIFT) | mlz_head_word(kind, flags, domain, 0);
}

/* As mlz_event_alloc, where the stack has changed. */
bool mlz_event_alloc_changed(struct mlz_tls *t, unsigned kind, unsigned flags, unsigned domain, const void *block, uint64_t size, bool gil);

/* An allocation-like event with the stack that was captured last; flags: mlz_record_flag and what the capture returned. False: lost. */
MLZ_INLINE bool mlz_event_alloc(struct mlz_tls *t, unsigned kind, unsigned flags, unsigned domain, const void *block, uint64_t size,
                                bool gil) {
  flags |= gil ? 0 : MLZ_F_NOGIL;
  if (flags & MLZ_STACK_CHANGED) return mlz_event_alloc_changed(t, kind, flags & 0xff, domain, block, size, gil);
  struct mlz_thread *th = t->thread;
  int32_t i = mlz_event_open(th, 1, gil, mlz_event_mode(t), false);
  if (MLZ_UNLIKELY(i < 0)) return false;
  *mlz_event_slot(th, i++) = (struct mlz_slot){mlz_event_block_word(kind, flags, domain, block), size & MLZ_SIZE_MASK};
  mlz_event_close(th, i);
  return true;
}

/* FREE or REALLOC_BEGIN. False: lost. */
MLZ_INLINE bool mlz_event_free(struct mlz_tls *t, unsigned kind, unsigned domain, const void *block, bool gil) {
  struct mlz_thread *th = t->thread;
  int32_t i = mlz_event_open(th, 1, gil, MLZ_ROOM_BLOCK, true);
  if (MLZ_UNLIKELY(i < 0)) return false;
  *mlz_event_slot(th, i++) = (struct mlz_slot){mlz_event_block_word(kind, gil ? 0 : MLZ_F_NOGIL, domain, block), (uintptr_t)t->last_block};
  mlz_event_close(th, i);
  if (t->last_block == block) t->last_block = NULL;
  return true;
}

/* May a message of a thread that holds the GIL, MLZ_QUICK slots at most, be written at th->out.cursor? Where nothing odd is due: room is
 * there, no fork came, nobody else wrote, the clock word is the one last seen. Else mlz_agent_enter and mlz_event_open find out. */
MLZ_INLINE bool mlz_event_quick(const struct mlz_thread *th) {
  return MLZ_LIKELY(mlz_producer_quick(&th->out)) &&
         MLZ_LIKELY(atomic_load_explicit(&mlz_agent.last_gil, memory_order_relaxed) == th) && /* before the arena is looked at: leave.c */
         MLZ_LIKELY(atomic_load_explicit(&mlz_agent_control()->clock, memory_order_relaxed) == th->clock_seen);
}

/* Rare events: a head, an optional payload slot, optional text for the side buffer (borrowed). They read the clock. */
void mlz_event_rare(struct mlz_thread *th, unsigned kind, unsigned flags, uint64_t value, uint64_t b, const struct mlz_slot *payload,
                    uint32_t payloads, bool gil);
/* Puts text into the side buffer, in one piece of at most 4096 bytes; returns the bytes put. */
uint32_t mlz_event_text(struct mlz_thread *th, const void *text, size_t bytes);

#pragma GCC visibility pop
#endif
