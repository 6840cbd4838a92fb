#include "event.h"

int32_t mlz_event_prefix(struct mlz_thread *th, uint64_t clock, bool turn, bool gil) {
  int32_t i = 0;
  uint64_t now = clock & MLZ_CLOCK_ASLEEP ? mlz_peer_clock(&mlz_agent.peer) : mlz_clock_ns(clock);
  uint64_t obeyed = th->clock_seen & MLZ_CLOCK_SETTINGS;
  if ((clock & MLZ_CLOCK_SETTINGS) != obeyed) { /* mlz_agent_enter obeys settings; believe the bits only once it has */
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&mlz_agent_control()->settings, memory_order_relaxed) == mlz_tls.settings) obeyed = clock & MLZ_CLOCK_SETTINGS;
  }
  th->clock_seen = now << MLZ_CLOCK_SHIFT | obeyed;
  if (now != th->last_ns) {
    th->last_ns = now;
    i = mlz_event_pair(th, i, mlz_head_word(MLZ_K_TIME, 0, 0, 0), now);
  }
  if (turn) {
    uint64_t seq = atomic_fetch_add_explicit(&mlz_agent_control()->order_next, 1, memory_order_relaxed);
    th->order_seen = seq + 1;
    /* With more than one GIL nobody may take the quick way, which changes marks plainly. */
    if (gil) atomic_store_explicit(&mlz_agent.last_gil, mlz_marks_locked(MLZ_MARKS_PLAIN) ? NULL : th, memory_order_relaxed);
    i = mlz_event_pair(th, i, mlz_head_word(MLZ_K_ORDER, 0, 0, 0), seq);
  }
  if (th->lost_alloc | th->lost_free) {
    i = mlz_event_pair(th, i, mlz_head_word(MLZ_K_LOST, 0, 0, 0), now);
    i = mlz_event_pair(th, i, th->lost_alloc, th->lost_free);
    th->lost_alloc = th->lost_free = 0;
  }
  return i;
}

bool mlz_event_alloc_changed(struct mlz_tls *t, unsigned kind, unsigned flags, unsigned domain, const void *block, uint64_t size,
                             bool gil) {
  struct mlz_thread *th = t->thread;
  int32_t i = mlz_event_open(th, MLZ_EVENT_HEAD + th->push, gil, mlz_event_mode(t), false);
  if (MLZ_UNLIKELY(i < 0)) return false;
  i = mlz_event_alloc_head(th, i, kind, flags | mlz_event_reset(th), domain, block, size & MLZ_SIZE_MASK, th->pop, th->push);
  mlz_event_close(th, mlz_event_stack(th, i));
  return true;
}

static void add(_Atomic uint64_t *counter) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

void mlz_event_lost(struct mlz_thread *th, bool is_free) {
  add(is_free ? &th->out.ring->dropped_free : &th->out.ring->dropped_alloc);
  if (is_free)
    th->lost_free++;
  else
    th->lost_alloc++;
  th->last_ns = UINT64_MAX; /* the next message begins with TIME and LOST */
  th->clock_seen &= MLZ_CLOCK_SETTINGS;
  mlz_thread_forget(th); /* the difference that was captured never arrives */
  if (mlz_recorder_died(mlz_agent_control())) {
    atomic_store_explicit(&mlz_agent.attach, MLZ_AGENT_OFF, memory_order_relaxed);
    atomic_store_explicit(&mlz_wiped_get()->image, 0, memory_order_relaxed);
  }
}

void mlz_event_rare(struct mlz_thread *th, unsigned kind, unsigned flags, uint64_t value, uint64_t b, const struct mlz_two *payload,
                    uint32_t payloads, bool gil) {
  int32_t i = mlz_event_open(th, 2 + 2 * payloads, gil, MLZ_ROOM_BLOCK, true);
  if (i < 0) {
    mlz_producer_side_undo(&th->out);
    return;
  }
  i = mlz_event_pair(th, i, mlz_head_word(kind, flags, 0, value), b);
  for (uint32_t k = 0; k < payloads; k++) i = mlz_event_pair(th, i, payload[k].a, payload[k].b);
  mlz_event_close(th, i);
  mlz_producer_side_keep(&th->out);
}

uint32_t mlz_event_text(struct mlz_thread *th, const void *text, size_t bytes) {
  return mlz_producer_side(&th->out, text, bytes > 4096 ? 4096 : (uint32_t)bytes);
}
