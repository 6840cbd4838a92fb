/* From a hook to an event: what all hook families share. Always inline, the domain is a constant at every call.
 *
 * `map` is the marks map of the hook's layer; `gil` whether the caller is known to hold the GIL (mem and obj).
 * All run with t->busy set and after mlz_agent_enter said yes. */
#ifndef MLZ_AGENT_RECORD_H
#define MLZ_AGENT_RECORD_H

#include "event.h"
#include "gate.h"
#include "native.h"
#include "python.h"

MLZ_INLINE bool mlz_domain_gil(unsigned domain) { return domain == MLZ_D_MEM || domain == MLZ_D_OBJ; }
MLZ_INLINE enum mlz_marks_map mlz_domain_map(unsigned domain) { return mlz_domain_gil(domain) ? MLZ_MARKS_PLAIN : MLZ_MARKS_SHARED; }

/* The interpreter's thread state to walk from; NULL: none, or not this thread's. */
MLZ_INLINE const char *mlz_record_tstate(struct mlz_thread *th, unsigned domain) {
  if (mlz_domain_gil(domain)) return mlz_python_tstate(th);
  if (atomic_load_explicit(&mlz_python.state, memory_order_relaxed) == MLZ_PY_NONE) return NULL;
  return mlz_python_tstate_checked(th);
}

MLZ_COLD void mlz_record_refuse(struct mlz_tls *t, _Atomic uint64_t *counter) __attribute__((visibility("hidden")));

/* The new block of an allocation, `kind` ALLOC or REALLOC_END; `frame`: MLZ_NATIVE_FRAME of the outermost hook where native stacks are captured, else
 * NULL. False: it was not recorded. */
MLZ_INLINE bool mlz_record_alloc(struct mlz_tls *t, unsigned kind, unsigned domain, void *block, size_t size, const uintptr_t *frame) {
  struct mlz_thread *th = t->thread;
  const char *ts = mlz_record_tstate(th, domain);
  if (ts || mlz_domain_gil(domain)) {
    mlz_python_look_begin(t, ts);
    mlz_python_look_finalize(t);
    if (MLZ_UNLIKELY(*mlz_python.collecting) && mlz_gc_hides(domain == MLZ_D_OBJ, size)) return false;
  }
  enum mlz_gate_answer answer = mlz_gate(t, size);
  if (answer == MLZ_GATE_PASS) return false;
  if (MLZ_UNLIKELY((uintptr_t)block & 15)) {
    mlz_record_refuse(t, &mlz_agent_control()->unaligned);
    return false;
  }
  if (frame && MLZ_UNLIKELY(!mlz_native_capture(t, frame, ts))) {
    mlz_event_lost(th, false);
    t->last_block = NULL;
    return false;
  }
  bool detached = !ts && !mlz_domain_gil(domain); /* numpy's zeros, hashlib and others allocate with the GIL released */
  unsigned flags = MLZ_UNLIKELY(detached) ? mlz_python_stack_detached(th) : mlz_python_stack(t, ts);
  if (answer == MLZ_GATE_CERTAIN) flags |= MLZ_F_CERTAIN;
  if (MLZ_UNLIKELY(!mlz_marks_set(block, mlz_domain_map(domain)))) {
    mlz_record_refuse(t, &mlz_agent_control()->unmarked);
    return false;
  }
  if (MLZ_UNLIKELY(!mlz_event_alloc(t, kind, flags, domain, block, size, ts != NULL))) {
    t->last_block = NULL;
    mlz_marks_take(block, mlz_domain_map(domain));
    return false;
  }
  t->last_block = block;
  return true;
}

/* Takes the mark off; true: the block was a recorded one. Mostly its own layer's map has it. */
MLZ_INLINE bool mlz_record_unmark(void *block, unsigned domain) {
  enum mlz_marks_map own = mlz_domain_map(domain), other = own == MLZ_MARKS_PLAIN ? MLZ_MARKS_SHARED : MLZ_MARKS_PLAIN;
  return MLZ_LIKELY(mlz_marks_take(block, own)) || mlz_marks_take(block, other);
}
MLZ_INLINE bool mlz_record_marked(const void *block, unsigned domain) {
  enum mlz_marks_map own = mlz_domain_map(domain), other = own == MLZ_MARKS_PLAIN ? MLZ_MARKS_SHARED : MLZ_MARKS_PLAIN;
  return mlz_marks_test(block, own) || mlz_marks_test(block, other);
}

/* A hook that found another one running: counted when it is a signal handler that came into the middle of a message. */
MLZ_INLINE void mlz_record_nested(struct mlz_tls *t) {
  if (MLZ_LIKELY(t->busy != MLZ_BUSY_EVENT) || !t->image) return;
  _Atomic uint64_t *n = &t->thread->out.ring->nested;
  atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

MLZ_INLINE bool mlz_record_gil(struct mlz_thread *th, unsigned domain) { return mlz_domain_gil(domain) || mlz_record_tstate(th, domain); }

/* Before the real free. Takes care of t->busy itself. */
MLZ_INLINE void mlz_record_free(struct mlz_tls *t, unsigned domain, void *block) {
  if (!mlz_record_unmark(block, domain)) return;
  if (MLZ_UNLIKELY(!mlz_agent_enter(t))) return;
  if (mlz_domain_gil(domain)) mlz_python_look_finalize(t);
  if (MLZ_UNLIKELY(t->countdown != 0)) mlz_gate_settle(t);
  mlz_event_free(t, MLZ_K_FREE, domain, block, mlz_record_gil(t->thread, domain));
}

/* FREE or REALLOC_BEGIN (`head`) of a block of mem or obj where nothing odd is due: takes its mark off and tells. Nothing says that the
 * thread is busy, neither before nor after. */
enum mlz_free { MLZ_FREE_UNMARKED = 0, MLZ_FREE_TOLD = 1, MLZ_FREE_ODD = 2 /* nothing was done */ };
MLZ_INLINE enum mlz_free mlz_record_free_quick(void *block, uint64_t head) {
  struct mlz_tls *t = &mlz_tls;
  struct mlz_marks_piece *piece = mlz_marks_find((uintptr_t)block);
  if (MLZ_UNLIKELY(!piece)) return MLZ_FREE_UNMARKED;
  _Atomic uint64_t *word = &piece->map[MLZ_MARKS_PLAIN][mlz_marks_word((uintptr_t)block)];
  uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
  if (!mlz_marks_in(old, (uintptr_t)block)) return MLZ_FREE_UNMARKED;
  if (MLZ_UNLIKELY(t->busy != MLZ_BUSY_NOT)) return MLZ_FREE_ODD;
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  struct mlz_thread *th = t->thread;
  /* The end of the interpreter is told before anything of it: a fifth of a short program's frees come then. */
  bool quick =
      mlz_event_quick(th) && (MLZ_LIKELY(*mlz_python.initialized) || atomic_load_explicit(&mlz_agent.finalized, memory_order_relaxed));
  if (quick) {
    atomic_store_explicit(word, old & ~mlz_marks_bit((uintptr_t)block), memory_order_relaxed);
    bool temporary = t->last_block == block;
    *th->out.cursor = (mlz_event_block_word(0, 0, 0, block) | head) + mlz_head_word(0, temporary ? MLZ_F_TEMPORARY : 0, 0, 0);
    mlz_producer_advance(&th->out, 1);
    t->last_block = temporary ? NULL : t->last_block; /* another thread's block at its address is not temporary */
  }
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return quick ? MLZ_FREE_TOLD : MLZ_FREE_ODD;
}

/* A hook that found another one running frees a block: where that one is inside the allocator, or calls the interpreter for us, a
 * recorded block ends there all the same. (PYTHONMALLOC=debug moves addresses: what was recorded before it came is freed below it.) */
MLZ_COLD void mlz_record_free_inside(struct mlz_tls *t, unsigned domain, void *block) __attribute__((visibility("hidden")));

/* realloc in three steps: begin before the real call, then end or undo after it. */
MLZ_INLINE bool mlz_record_realloc_begin(struct mlz_tls *t, unsigned domain, void *old) {
  if (!mlz_record_unmark(old, domain)) return false;
  if (mlz_domain_gil(domain)) mlz_python_look_finalize(t);
  if (MLZ_UNLIKELY(t->countdown != 0)) mlz_gate_settle(t);
  return mlz_event_free(t, MLZ_K_REALLOC_BEGIN, domain, old, mlz_record_gil(t->thread, domain));
}
void mlz_record_realloc_close(struct mlz_tls *t, unsigned domain, void *old, unsigned flag) __attribute__((visibility("hidden")));
MLZ_INLINE void mlz_record_realloc_end(struct mlz_tls *t, unsigned domain, bool begun, void *old, void *block, size_t size,
                                       const uintptr_t *frame) {
  if (MLZ_LIKELY(block != NULL)) {
    if (!mlz_record_alloc(t, begun ? MLZ_K_REALLOC_END : MLZ_K_ALLOC, domain, block, size, frame) && begun)
      mlz_record_realloc_close(t, domain, old, MLZ_F_ZERO);
  } else if (begun) {
    mlz_record_realloc_close(t, domain, old, size ? MLZ_F_FAILED : MLZ_F_ZERO);
  }
}

#endif
