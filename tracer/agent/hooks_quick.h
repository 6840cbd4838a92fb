/* The allocation hooks of mem and obj, for one layout of frames, with the stack walk in them: a template, included by stack_walk.h.
 *
 * Most allocations find nothing new: the sampling takes them, no other ring wrote, time stands, the stack is the
 * last event's or its innermost frame has moved on. That is done here, in one word or two. All else is handed over: to FN(_called) where only the
 * stack is another, from there to FN(_turned) where it is not just a call or return, and to FN(_any), which asks every question anew.
 *
 * The end of the interpreter is not asked for here: its first event has no frame, or is a free, and both ask.
 * Budget: 10 ns with ten frames, without the allocator's own time. */

/* In the place of `old`, of an ALLOC: the countdown stops at this one, and the gate has not been asked to go on. */
#define WALK_DUE ((void *)&mlz_no_thread)

/* `head` is the message's first word without the block: kind ALLOC or REALLOC_END, and the domain. `old` is REALLOC_END's old block, whose
 * REALLOC_BEGIN was sent. */
static inline void *FN(_any)(void *block, size_t size, uint64_t head, void *old) {
  if (mlz_word_kind(head) == MLZ_K_ALLOC) return mlz_python_alloc_any(&mlz_tls, block, size, mlz_word_domain(head));
  return mlz_python_realloc_any(&mlz_tls, old, block, size, mlz_word_domain(head));
}

/* A message of `n` words is ready. */
MLZ_INLINE void *FN(_told)(struct mlz_tls *t, void *block, uint32_t n, bool due) {
  struct mlz_thread *th = t->thread;
  if (due) mlz_gate_publish_due(th);
  mlz_producer_advance(&th->out, n);
  t->last_block = block;
  if (due) return mlz_gate_told(t, block);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}

/* An event like any other, but for a stack that has changed in some way. */
static __attribute__((noinline)) void *FN(_turned)(void *block, size_t size, uint64_t head, void *old) {
  struct mlz_tls *t = &mlz_tls;
  struct mlz_thread *th = t->thread;
  const char *tstate = *(const char *const *)th->tstate_slot;
  if (MLZ_UNLIKELY(atomic_load_explicit(&mlz_python.state, memory_order_relaxed) != MLZ_PY_READY) || MLZ_UNLIKELY(!*mlz_python.initialized))
    return FN(_any)(block, size, head, old);
  unsigned flags = mlz_python_stack(t, tstate); /* before the mark: it notices another interpreter */
  if (MLZ_UNLIKELY(!mlz_marks_set(block, MLZ_MARKS_PLAIN))) {
    mlz_thread_forget(th);
    return FN(_any)(block, size, head, old);
  }
  if (MLZ_UNLIKELY(old == WALK_DUE)) mlz_gate_next(t);
  if (MLZ_LIKELY(mlz_event_alloc(t, mlz_word_kind(head), flags, mlz_word_domain(head), block, size, true))) {
    t->last_block = block;
  } else {
    t->last_block = NULL;
    mlz_marks_take(block, MLZ_MARKS_PLAIN);
    if (mlz_word_kind(head) == MLZ_K_REALLOC_END) mlz_record_realloc_close(t, mlz_word_domain(head), old, MLZ_F_ZERO);
  }
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}

/* The stack is another: some frames returned, some were called, some of those that stayed have moved on or, where a call's frame took the place
 * of an earlier one, are of another code. One pass over the window finds the outermost that differs; from there inwards all are sent anew. More of
 * it than fits in a quick message, and hidden frames: FN(_turned). */
static __attribute__((noinline)) void *FN(_called)(void *block, size_t size, uint64_t head, void *old) {
  enum { NEW = 8, BACK = 32, PUSH = MLZ_QUICK - 2, CHUNK = 1 << 16 };
  struct mlz_tls *t = &mlz_tls;
  struct mlz_thread *th = t->thread;
  struct mlz_seen *at = th->last;
  const char *f = FN(_top)(*(const char *const *)th->tstate_slot), *fresh[NEW];
  if (MLZ_UNLIKELY(th->top == MLZ_NO_FRAME) || MLZ_UNLIKELY(!f) || MLZ_UNLIKELY(th->hidden != 0))
    return FN(_turned)(block, size, head, old);
  if (MLZ_UNLIKELY(!FN(_shim)(f) && FN(_incomplete)(f, FN(_code)(f), FN(_instr)(f))))
    f = FN(_ptr)(f, PREVIOUS); /* its arguments are being made */
  uint32_t called = 0;
  for (;; called++) {
    if (MLZ_UNLIKELY(!f)) return FN(_turned)(block, size, head, old);
    /* A frame that lies a little above a remembered one, in the interpreter's stack of frames, is a newer one. */
    const struct mlz_seen *end = at - th->seen > BACK ? at - BACK : th->seen - 1;
    struct mlz_seen *e = at;
    while (e->frame != f && e != end && (uintptr_t)f - (uintptr_t)e->frame >= CHUNK) e--;
    if (e->frame == f) {
      at = e;
      break;
    }
    if (MLZ_UNLIKELY(called == NEW) || MLZ_UNLIKELY(FN(_shim)(f)) || MLZ_UNLIKELY(FN(_incomplete)(f, FN(_code)(f), FN(_instr)(f))))
      return FN(_turned)(block, size, head, old);
    fresh[called] = f;
    f = FN(_ptr)(f, PREVIOUS);
  }
  uint32_t n = (uint32_t)(at - th->seen) + 1 + called, window = n < th->depth ? n : th->depth;
  struct mlz_seen *low = &th->seen[n - window];
  if (MLZ_UNLIKELY(at < low) || MLZ_UNLIKELY(n < th->depth && th->below) || MLZ_UNLIKELY(window > MLZ_WINDOW_QUICK) ||
      MLZ_UNLIKELY(n > MLZ_SEEN_MAX))
    return FN(_turned)(block, size, head, old);
  struct mlz_seen *outer = at + 1;
  for (struct mlz_seen *e = at;; e--, f = FN(_remembered)(e)) {
    outer = FN(_differs)(e, f) ? e : outer;
    if (MLZ_UNLIKELY(FN(_ptr)(f, PREVIOUS) != e[-1].frame)) return FN(_turned)(block, size, head, old);
    if (e == low) break;
  }
  uint32_t replaced = (uint32_t)(at + 1 - outer), push = replaced + called, pop = th->seen_n - (uint32_t)(outer - th->seen);
  if (MLZ_UNLIKELY(push > PUSH) || MLZ_UNLIKELY(pop > MLZ_POP_MAX)) return FN(_turned)(block, size, head, old);
  struct mlz_marks_piece *piece = mlz_marks_find((uintptr_t)block);
  if (MLZ_UNLIKELY(!piece)) return FN(_turned)(block, size, head, old);
  uint64_t *words = mlz_event_quick_head(th, th->out.cursor, head, block, size, pop, push);
  /* Field by field into their places: a copy through the stack would wait for its own stores. */
  struct mlz_seen *newest = outer + push;
  for (struct mlz_seen *e = outer; e != newest; e++) {
    const char *frame = e <= at ? e->frame : fresh[newest - 1 - e], *code = FN(_code)(frame);
    uint64_t instr = FN(_instr)(frame);
    uint32_t floor = FN(_floor)(frame, code);
    /* The entry left there by the last call at this depth often is of the same code: its id is still true. */
    uint32_t id = MLZ_LIKELY(e->code == code && (uint32_t)(e - th->seen) < th->stale_n) ? e->id : FN(_id_known)(th, code);
    if (MLZ_UNLIKELY(id == 0) || MLZ_UNLIKELY(id == MLZ_SEEN_HIDDEN) || MLZ_UNLIKELY(FN(_below)(instr, FN(_begun_from)(code, floor)))) {
      if (e != outer) mlz_thread_forget(th); /* not known yet, or it never begins: what was changed here is no stack */
      return FN(_turned)(block, size, head, old);
    }
    e->frame = frame;
    e->code = code;
    e->instr = instr;
    e->id = id;
    e->floor = floor;
    *words++ = MLZ_FRAME(id, FN(_offset)(code, instr));
  }
  FN(_aim_at)(th, n, &th->seen[n - 1], window);
  mlz_marks_set_plain(piece, block, MLZ_MARKS_PLAIN);
  return FN(_told)(t, block, (uint32_t)(words - th->out.cursor), old == WALK_DUE);
}

/* After the allocator's own work: the event. */
MLZ_INLINE void *FN(_after)(void *block, size_t size, uint64_t head, void *old) {
  struct mlz_tls *t = &mlz_tls;
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  struct mlz_thread *th = t->thread;
  if (MLZ_UNLIKELY(!mlz_event_quick(th)) || MLZ_UNLIKELY(!block) || MLZ_UNLIKELY((uintptr_t)block & 15) ||
      MLZ_UNLIKELY(*mlz_python.collecting))
    return FN(_any)(block, size, head, old);
  struct mlz_marks_piece *piece = mlz_marks_find((uintptr_t)block);
  const char *tstate = __atomic_load_n((const char *const *)th->tstate_slot, __ATOMIC_RELAXED);
  if (MLZ_UNLIKELY(!tstate) || MLZ_UNLIKELY(!piece)) return FN(_any)(block, size, head, old);
  const char *top = FN(_top)(tstate);
  if (MLZ_UNLIKELY(top != th->top) || MLZ_UNLIKELY(!FN(_window_holds)(th->lowest, th->window, top)))
    return FN(_called)(block, size, head, old);
  struct mlz_seen *e = th->last;
  uint64_t instr = FN(_instr)(top), *words = th->out.cursor;
  uint32_t n = 2;
  if (mlz_word_kind(head) == MLZ_K_ALLOC) {
    /* A step even where the frame has not moved: which of both it is cannot be foretold, and the recorder has the time. */
    if (MLZ_UNLIKELY(FN(_code)(top) != e->code) || MLZ_UNLIKELY(FN(_below)(instr, th->floor)) || MLZ_UNLIKELY(size >> 32))
      return FN(_called)(block, size, head, old);
    e->instr = instr;
    uint32_t offset = FN(_offset)(e->code, instr);
    uint64_t near = mlz_event_near(th, MLZ_D_OBJ, block);
    if (MLZ_LIKELY((near >> MLZ_NEAR_BITS | size / MLZ_SMALL_SIZE | offset / MLZ_SMALL_OFFSET) == 0)) {
      words[0] = mlz_small_word(near, offset, size, mlz_word_domain(head) == MLZ_D_OBJ);
      n = 1;
    } else {
      words[0] = (mlz_event_block_word(0, 0, 0, block) | head) + (MLZ_K_ALLOC_STEP - MLZ_K_ALLOC);
      words[1] = mlz_step_word((uint32_t)size, offset);
    }
  } else {
    if (FN(_differs)(e, top)) return FN(_called)(block, size, head, old);
    words[0] = mlz_event_block_word(0, 0, 0, block) | head;
    words[1] = size;
  }
  mlz_marks_set_plain(piece, block, MLZ_MARKS_PLAIN);
  return FN(_told)(t, block, n, old == WALK_DUE);
}

/* ---- chosen allocations, where others are passed over ----
 * Between two of them the stack has become another one and time has gone on, mostly. So nothing is compared but the innermost frame: the window is sent
 * whole. Budget: 60 ns. */

#define MLZ_WINDOW_RATE (MLZ_RATE_ALL / 5) /* callgrind, Django: at 0.1 as many instructions as comparing, at 0.5 a sixth more */

/* Takes up the window and puts its frames at `words`; returns how many. 0: not so simple, and nothing is remembered. */
static inline uint32_t FN(_window)(struct mlz_thread *th, const char *top, uint64_t *words) {
  const uint32_t depth = th->depth;
  uint32_t left = depth, hidden = 0, room = th->hidden < MLZ_WINDOW_QUICK - depth ? th->hidden : MLZ_WINDOW_QUICK - depth;
  /* Where as many are hidden as in the last window, all is in its place at once. */
  struct mlz_seen *end = &th->seen[depth + room], *e = end;
  const char *f = top;
  for (; f && left; f = FN(_ptr)(f, PREVIOUS)) {
    const char *code = FN(_code)(f);
    uint64_t instr = FN(_instr)(f);
    if (MLZ_LIKELY(!FN(_shim)(f))) {
      const struct mlz_known_id *known = FN(_known)(th, code);
      if (MLZ_UNLIKELY(!known)) goto no;
      uint32_t floor = FN(_generator)(f) ? 0 : known->floor;
      if (MLZ_LIKELY(!FN(_below)(instr, FN(_begun_from)(code, floor)))) {
        *--e = (struct mlz_seen){f, code, instr, known->id, floor};
        words[--left] = MLZ_FRAME(known->id, FN(_offset)(code, instr));
        continue;
      }
    }
    if (e == end) continue; /* at the top there is nothing to keep together */
    if (hidden++ == room) {
      uint32_t n = (uint32_t)(end - e);
      if (depth + hidden > MLZ_WINDOW_QUICK) goto no;
      room = MLZ_WINDOW_QUICK - depth;
      end = &th->seen[MLZ_WINDOW_QUICK];
      e = memmove(end - n, e, n * sizeof(*e));
    }
    *--e = (struct mlz_seen){f, code, instr, MLZ_SEEN_HIDDEN, 0};
  }
  const char *under = f;
  while (f && FN(_shim)(f)) f = FN(_ptr)(f, PREVIOUS);
  if (MLZ_UNLIKELY(left == depth)) goto no;
  th->below = f != NULL;
  if (!f)
    for (; e->id == MLZ_SEEN_HIDDEN; hidden--) under = e++->frame; /* shims at the root */
  uint32_t n = (uint32_t)(end - e);
  if (e != th->seen) memmove(th->seen, e, n * sizeof(*e));
  if (left) memmove(words, words + left, (depth - left) * sizeof(*words));
  th->root.frame = under;
  th->stack_reset = false;
  th->seen_epoch = th->ids_epoch;
  FN(_done)(th, n, hidden, 0, depth - left);
  return depth - left;
no:
  mlz_thread_forget(th);
  return 0;
}

/* As FN(_after), of an allocation that was chosen; `due`: the gate has not been asked to go on. */
static __attribute__((noinline)) void *FN(_sampled)(void *block, size_t size, uint64_t head, bool due) {
  struct mlz_tls *t = &mlz_tls;
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  struct mlz_thread *th = t->thread;
  void *old = due ? WALK_DUE : NULL;
  if (MLZ_UNLIKELY(!mlz_event_ordered(th)) || MLZ_UNLIKELY(!block) || MLZ_UNLIKELY((uintptr_t)block & 15) ||
      MLZ_UNLIKELY(*mlz_python.collecting) || MLZ_UNLIKELY(!*mlz_python.initialized) ||
      MLZ_UNLIKELY(atomic_load_explicit(&mlz_python.state, memory_order_relaxed) != MLZ_PY_READY))
    return FN(_any)(block, size, head, old);
  uint64_t clock = atomic_load_explicit(&mlz_agent_control()->clock, memory_order_relaxed), ns = mlz_clock_ns(clock);
  struct mlz_marks_piece *piece = mlz_marks_find((uintptr_t)block);
  const char *tstate = __atomic_load_n((const char *const *)th->tstate_slot, __ATOMIC_RELAXED), *top;
  if (MLZ_UNLIKELY(!tstate) || MLZ_UNLIKELY(!piece) || MLZ_UNLIKELY(!mlz_event_only_later(th, clock)) ||
      MLZ_UNLIKELY(FN(_ptr)(tstate, MLZ_TSTATE_INTERP) != th->interp) || MLZ_UNLIKELY(mlz_agent_code_epoch() != th->ids_epoch) ||
      MLZ_UNLIKELY(th->depth > MLZ_QUICK - 4) || MLZ_UNLIKELY(!(top = FN(_top)(tstate))))
    return FN(_any)(block, size, head, old);
  uint64_t *words = th->out.cursor;
  words[0] = mlz_head_word(MLZ_K_TIME, 0, 0, 0);
  words[1] = ns;
  words += ns == th->last_ns ? 0 : 2;
  struct mlz_seen *e = th->last;
  uint64_t instr = FN(_instr)(top);
  if (top == th->top && FN(_window_holds)(th->lowest, th->window, top) && FN(_code)(top) == e->code && !FN(_below)(instr, th->floor)) {
    uint32_t push = e->instr != instr;
    words = mlz_event_quick_head(th, words, head, block, size, push, push);
    *words = MLZ_FRAME(e->id, FN(_offset)(e->code, instr));
    words += push;
    e->instr = instr;
  } else {
    uint32_t push = FN(_window)(th, top, words + 2);
    if (MLZ_UNLIKELY(push == 0)) return FN(_any)(block, size, head, old);
    words[0] = (mlz_event_block_word(0, 0, 0, block) | head) + mlz_head_word(0, th->below ? MLZ_F_RESET | MLZ_F_BELOW : MLZ_F_RESET, 0, 0);
    words[1] = mlz_size_word(size, 0, push);
    words += 2 + push;
  }
  th->clock_seen = clock;
  th->last_ns = ns;
  mlz_marks_set_plain(piece, block, MLZ_MARKS_PLAIN);
  return FN(_told)(t, block, (uint32_t)(words - th->out.cursor), due);
}

/* Functions of their own, so that they need no register that the allocator's call would destroy. */
static __attribute__((noinline)) void *FN(_mem_after)(void *block, size_t size) {
  return FN(_after)(block, size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_MEM, 0), NULL);
}
static __attribute__((noinline)) void *FN(_obj_after)(void *block, size_t size) {
  return FN(_after)(block, size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_OBJ, 0), NULL);
}
/* Where so many are chosen, the stack has often only moved on. */
MLZ_INLINE bool FN(_many)(void) { return mlz_settings_rate(mlz_tls.settings) > MLZ_WINDOW_RATE; }
static __attribute__((noinline)) void *FN(_due)(void *block, size_t size, uint64_t head) {
  return FN(_many)() ? FN(_after)(block, size, head, WALK_DUE) : FN(_sampled)(block, size, head, true);
}
/* The gate has gone on already. */
static void *FN(_mem_sampled)(void *block, size_t size) {
  return FN(_many)() ? FN(_mem_after)(block, size) : FN(_sampled)(block, size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_MEM, 0), false);
}
static void *FN(_obj_sampled)(void *block, size_t size) {
  return FN(_many)() ? FN(_obj_after)(block, size) : FN(_sampled)(block, size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_OBJ, 0), false);
}
static __attribute__((noinline)) void *FN(_moved)(void *block, size_t size, void *old, unsigned domain) {
  return FN(_after)(block, size, mlz_head_word(MLZ_K_REALLOC_END, 0, domain, 0), old);
}

#define QUICK_CALL(t, call)                                                                                                                \
  (t)->busy = MLZ_BUSY_INNER;                                                                                                              \
  atomic_signal_fence(memory_order_seq_cst);                                                                                               \
  void *block = call;                                                                                                                      \
  atomic_signal_fence(memory_order_seq_cst)

static __attribute__((noinline)) void *FN(_mem_taken)(struct mlz_py_allocator *in, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  QUICK_CALL(t, in->malloc(in->ctx, size));
  return FN(_mem_after)(block, size);
}
static __attribute__((noinline)) void *FN(_obj_taken)(struct mlz_py_allocator *in, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  QUICK_CALL(t, in->malloc(in->ctx, size));
  return FN(_obj_after)(block, size);
}
static __attribute__((noinline)) void *FN(_mem_chosen)(struct mlz_py_allocator *in, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(!mlz_gate_due(t, size))) return mlz_python_malloc_sampled(in, size, MLZ_D_MEM);
  QUICK_CALL(t, in->malloc(in->ctx, size));
  return FN(_due)(block, size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_MEM, 0));
}
static __attribute__((noinline)) void *FN(_obj_chosen)(struct mlz_py_allocator *in, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(!mlz_gate_due(t, size))) return mlz_python_malloc_sampled(in, size, MLZ_D_OBJ);
  QUICK_CALL(t, in->malloc(in->ctx, size));
  return FN(_due)(block, size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_OBJ, 0));
}
MLZ_INLINE void *FN(_malloc)(struct mlz_py_allocator *in, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy != MLZ_BUSY_NOT)) return mlz_python_malloc_any(in, size, domain);
  if (t->countdown == 0) return domain == MLZ_D_MEM ? FN(_mem_taken)(in, size) : FN(_obj_taken)(in, size);
  if (MLZ_UNLIKELY(t->countdown == 1) || MLZ_UNLIKELY(size >= t->over) || MLZ_UNLIKELY(*mlz_python.collecting))
    return domain == MLZ_D_MEM ? FN(_mem_chosen)(in, size) : FN(_obj_chosen)(in, size);
  t->countdown--; /* passed over: a budget of 2 ns */
  t->last_block = NULL;
  QUICK_CALL(t, in->malloc(in->ctx, size));
  t->busy = MLZ_BUSY_NOT;
  return block;
}
static void *FN(_mem_malloc)(void *ctx, size_t size) { return FN(_malloc)(ctx, size, MLZ_D_MEM); }
static void *FN(_obj_malloc)(void *ctx, size_t size) { return FN(_malloc)(ctx, size, MLZ_D_OBJ); }

/* Lists get and grow their items by calloc and realloc of mem, strings that are being written theirs by realloc of obj. */
static void *FN(_mem_calloc)(void *ctx, size_t n, size_t size) {
  struct mlz_py_allocator *in = ctx;
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy != MLZ_BUSY_NOT)) return mlz_python_calloc_any(in, n, size, MLZ_D_MEM);
  bool due = mlz_gate_due(t, n * size);
  if (MLZ_UNLIKELY(t->countdown != 0) && !due) return mlz_python_calloc_sampled(in, n, size);
  QUICK_CALL(t, in->calloc(in->ctx, n, size));
  return due ? FN(_due)(block, n * size, mlz_head_word(MLZ_K_ALLOC, 0, MLZ_D_MEM, 0)) : FN(_mem_after)(block, n * size);
}
MLZ_INLINE void *FN(_realloc)(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (!old) return FN(_malloc)(in, size, domain);
  if (MLZ_UNLIKELY(t->busy != MLZ_BUSY_NOT) || MLZ_UNLIKELY(size == 0)) return mlz_python_realloc_whole(in, old, size, domain);
  if (MLZ_UNLIKELY(t->countdown != 0)) return mlz_python_realloc_sampled(in, old, size, domain);
  if (MLZ_UNLIKELY(mlz_record_free_quick(old, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, domain, 0)) != MLZ_FREE_TOLD))
    return mlz_python_realloc_whole(in, old, size, domain);
  QUICK_CALL(t, in->realloc(in->ctx, old, size));
  return FN(_moved)(block, size, old, domain);
}
static void *FN(_mem_realloc)(void *ctx, void *old, size_t size) { return FN(_realloc)(ctx, old, size, MLZ_D_MEM); }
static void *FN(_obj_realloc)(void *ctx, void *old, size_t size) { return FN(_realloc)(ctx, old, size, MLZ_D_OBJ); }
#undef WALK_DUE
#undef MLZ_WINDOW_RATE
#undef QUICK_CALL
