#include "record.h"

void mlz_record_refuse(struct mlz_tls *t, _Atomic uint64_t *counter) {
  atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
  mlz_gate_refuse(t);
  t->last_block = NULL;
  mlz_thread_forget(t->thread); /* a difference that was captured is not sent */
}

void mlz_record_free_inside(struct mlz_tls *t, unsigned domain, void *block) {
  uint32_t busy = t->busy;
  if (busy < MLZ_BUSY_INNER || !mlz_record_marked(block, domain)) return;
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  mlz_record_free(t, domain, block);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = busy;
}

/* The old block is gone and there is no new recorded one (ZERO), or it lives on (FAILED). */
void mlz_record_realloc_close(struct mlz_tls *t, unsigned domain, void *old, unsigned flag) {
  struct mlz_thread *th = t->thread;
  if (flag == MLZ_F_FAILED && !mlz_marks_set(old, mlz_domain_map(domain))) flag = MLZ_F_ZERO;
  int32_t i = mlz_event_open(th, 2, mlz_record_gil(th, domain), MLZ_ROOM_BLOCK, true); /* as a free: never dropped for want of waiting */
  if (i < 0) return;
  mlz_event_close(th, mlz_event_pair(th, i, mlz_event_block_word(MLZ_K_REALLOC_END, flag | MLZ_F_NOSTACK, domain, old), 0));
}
