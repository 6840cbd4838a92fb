/* Writes events into the thread's ring. Runs in the hooks, with t->busy set and after mlz_agent_enter said yes.
 *
 * Every event goes open -> put words -> close. open makes room and writes what must come first: the
 * published time, the order number when another ring wrote last under the GIL, and losses not yet told.
 * Budget: 3 ns for an event with an unchanged stack. */
#ifndef MLZ_AGENT_EVENT_H
#define MLZ_AGENT_EVENT_H

#include "agent.h"

#pragma GCC visibility push(hidden)

#define MLZ_INLINE static inline __attribute__((always_inline))

#define MLZ_EVENT_EXTRA 8u /* words that open may add: TIME, ORDER, LOST and its payload */

MLZ_COLD int32_t mlz_event_prefix(struct mlz_thread *th, uint64_t clock, bool turn, bool gil);
MLZ_COLD void mlz_event_lost(struct mlz_thread *th, bool is_free);

/* The first word to fill of a message of `n` words, or -1: no room; the loss is counted. */
MLZ_INLINE int32_t mlz_event_open(struct mlz_thread *th, uint32_t n, bool gil, enum mlz_room mode, bool is_free) {
  if (MLZ_UNLIKELY(!mlz_producer_room(&th->out, n + MLZ_EVENT_EXTRA, mode))) {
    mlz_event_lost(th, is_free);
    return -1;
  }
  uint64_t clock = atomic_load_explicit(&mlz_agent_control()->clock, memory_order_relaxed);
  /* Under the GIL: another ring wrote last. Without it: somebody took a number since, so what we know of the order is old. */
  bool turn = gil ? atomic_load_explicit(&mlz_agent.last_gil, memory_order_relaxed) != th
                  : atomic_load_explicit(&mlz_agent_control()->order_next, memory_order_relaxed) != th->order_seen;
  if (MLZ_UNLIKELY((clock != th->clock_seen) | turn)) return mlz_event_prefix(th, clock, turn, gil);
  return 0;
}
/* Fills one word or two from word `i` on, and returns the next one. */
MLZ_INLINE int32_t mlz_event_word(struct mlz_thread *th, int32_t i, uint64_t a) {
  *mlz_producer_word(&th->out, (uint32_t)i) = a;
  return i + 1;
}
MLZ_INLINE int32_t mlz_event_pair(struct mlz_thread *th, int32_t i, uint64_t a, uint64_t b) {
  return mlz_event_word(th, mlz_event_word(th, i, a), b);
}
MLZ_INLINE void mlz_event_close(struct mlz_thread *th, int32_t end) { mlz_producer_publish(&th->out, (uint32_t)end); }

MLZ_INLINE enum mlz_room mlz_event_mode(const struct mlz_tls *t) { return t->settings & MLZ_SET_DROP ? MLZ_ROOM_DROP : MLZ_ROOM_BLOCK; }

/* Writes the frames of the captured stack difference from word i on. */
MLZ_INLINE int32_t mlz_event_stack(struct mlz_thread *th, int32_t i) {
  for (uint32_t k = 0; k < th->push; k++) i = mlz_event_word(th, i, th->words[k]);
  return i;
}

MLZ_INLINE unsigned mlz_event_reset(const struct mlz_thread *th) {
  return !th->reset ? 0 : th->below ? MLZ_F_RESET | MLZ_F_BELOW : MLZ_F_RESET;
}

/* The head word of a message about a block. */
MLZ_INLINE uint64_t mlz_event_block_word(unsigned kind, unsigned flags, unsigned domain, const void *block) {
  /* The block is 16-byte aligned and below 2^47: the same as mlz_head_word(..., granule). */
  return (uint64_t)(uintptr_t)block << (20 - MLZ_GRANULE_SHIFT) | mlz_head_word(kind, flags, domain, 0);
}

/* The block's place above the ring's base: it is near where MLZ_NEAR_BITS hold that. */
MLZ_INLINE uint64_t mlz_event_near(const struct mlz_thread *th, unsigned domain, const void *block) {
  return ((uint64_t)(uintptr_t)block >> MLZ_GRANULE_SHIFT) - th->out.near_base[mlz_near_base(domain)];
}

/* The head of an allocation's message as ALLOC_NEAR; 0: it does not fit into one word. */
MLZ_INLINE uint64_t mlz_event_near_head(const struct mlz_thread *th, unsigned kind, unsigned flags, unsigned domain, const void *block,
                                        uint64_t size, uint32_t pop, uint32_t push) {
  uint64_t near = mlz_event_near(th, domain, block), most = MLZ_NEAR_FRAMES + 1;
  bool fits = (near >> MLZ_NEAR_BITS | size / MLZ_SMALL_SIZE | flags / (MLZ_F_NOGIL + 1) | pop / most | push / most) == 0;
  return MLZ_LIKELY(fits) && MLZ_LIKELY(kind == MLZ_K_ALLOC) ? mlz_near_word(near, push, pop, size, flags, domain) : 0;
}

/* Puts an ALLOC or REALLOC_END without flags, whose first word without the block is `head`, at `words` in the quick way, without its frames, which are
 * `push` and follow; returns where. */
MLZ_INLINE uint64_t *mlz_event_quick_head(const struct mlz_thread *th, uint64_t *words, uint64_t head, const void *block, uint64_t size,
                                          uint32_t pop, uint32_t push) {
  uint64_t near = mlz_event_near_head(th, mlz_word_kind(head), 0, mlz_word_domain(head), block, size, pop, push);
  if (MLZ_LIKELY(near != 0)) {
    *words++ = near;
  } else {
    *words++ = mlz_event_block_word(0, 0, 0, block) | head;
    *words++ = mlz_size_word(size, pop, push);
  }
  return words;
}

/* Fills an allocation-like message from word `i` on, without its frames, which are `push` and follow; returns where. */
MLZ_INLINE int32_t mlz_event_alloc_head(struct mlz_thread *th, int32_t i, unsigned kind, unsigned flags, unsigned domain, const void *block,
                                        uint64_t size, uint32_t pop, uint32_t push) {
  if (MLZ_UNLIKELY(th->out.near_base[mlz_near_base(domain)] == MLZ_NEAR_NONE)) mlz_producer_near(&th->out, domain, block, size);
  uint64_t near = mlz_event_near_head(th, kind, flags, domain, block, size, pop, push);
  if (near) return mlz_event_word(th, i, near);
  i = mlz_event_pair(th, i, mlz_event_block_word(kind, flags, domain, block),
                     mlz_size_word(size, pop, push < MLZ_PUSH_LONG ? push : MLZ_PUSH_LONG));
  return MLZ_UNLIKELY(push >= MLZ_PUSH_LONG) ? mlz_event_word(th, i, push) : i;
}
#define MLZ_EVENT_HEAD 3u /* words that it fills at most */

/* As mlz_event_alloc, where the stack has changed. */
bool mlz_event_alloc_changed(struct mlz_tls *t, unsigned kind, unsigned flags, unsigned domain, const void *block, uint64_t size, bool gil);

/* An allocation-like event with the stack that was captured last; flags: mlz_record_flag and what the capture returned. False: lost. */
MLZ_INLINE bool mlz_event_alloc(struct mlz_tls *t, unsigned kind, unsigned flags, unsigned domain, const void *block, uint64_t size,
                                bool gil) {
  flags |= gil ? 0 : MLZ_F_NOGIL;
  if (flags & MLZ_STACK_CHANGED) return mlz_event_alloc_changed(t, kind, flags & 0xff, domain, block, size, gil);
  struct mlz_thread *th = t->thread;
  int32_t i = mlz_event_open(th, MLZ_EVENT_HEAD, gil, mlz_event_mode(t), false);
  if (MLZ_UNLIKELY(i < 0)) return false;
  mlz_event_close(th, mlz_event_alloc_head(th, i, kind, flags, domain, block, size & MLZ_SIZE_MASK, 0, 0));
  return true;
}

/* FREE or REALLOC_BEGIN. False: lost. */
MLZ_INLINE bool mlz_event_free(struct mlz_tls *t, unsigned kind, unsigned domain, const void *block, bool gil) {
  struct mlz_thread *th = t->thread;
  int32_t i = mlz_event_open(th, 1, gil, MLZ_ROOM_BLOCK, true);
  if (MLZ_UNLIKELY(i < 0)) return false;
  bool temporary = t->last_block == block;
  unsigned flags = (gil ? 0 : MLZ_F_NOGIL) | (temporary ? MLZ_F_TEMPORARY : 0);
  mlz_event_close(th, mlz_event_word(th, i, mlz_event_block_word(kind, flags, domain, block)));
  if (temporary) t->last_block = NULL;
  return true;
}

/* Is room there, did no fork come, did nobody else write? For a thread that holds the GIL. */
MLZ_INLINE bool mlz_event_ordered(const struct mlz_thread *th) {
  return MLZ_LIKELY(mlz_producer_quick(&th->out)) &&
         MLZ_LIKELY(atomic_load_explicit(&mlz_agent.last_gil, memory_order_relaxed) == th); /* before the arena is looked at: leave.c */
}
/* May a message of MLZ_QUICK words at most be written at th->out.cursor? Where nothing odd is due: that, and the clock word is the one last seen. Else
 * mlz_agent_enter and mlz_event_open find out. */
MLZ_INLINE bool mlz_event_quick(const struct mlz_thread *th) {
  return mlz_event_ordered(th) && MLZ_LIKELY(atomic_load_explicit(&mlz_agent_control()->clock, memory_order_relaxed) == th->clock_seen);
}
/* Does this clock word tell of nothing but a later time? Then a TIME before the message is all that is due. */
MLZ_INLINE bool mlz_event_only_later(const struct mlz_thread *th, uint64_t clock) {
  return ((clock ^ th->clock_seen) & (MLZ_CLOCK_ASLEEP | MLZ_CLOCK_SETTINGS)) == 0 && (th->lost_alloc | th->lost_free) == 0;
}

/* Rare events: a head, optional payload, optional text for the side buffer (borrowed). They read the clock. */
void mlz_event_rare(struct mlz_thread *th, unsigned kind, unsigned flags, uint64_t value, uint64_t b, const struct mlz_two *payload,
                    uint32_t payloads, bool gil);
/* Puts text into the side buffer, in one piece of at most 4096 bytes; returns the bytes put. */
uint32_t mlz_event_text(struct mlz_thread *th, const void *text, size_t bytes);

#pragma GCC visibility pop
#endif
