/* The stack walk, as a template: stack.c includes this once for each frame layout, with these defined:
 *   WALK_NAME        name of the capture function
 *   TSTATE_FRAME, CFRAME_FRAME (or undefined), PREVIOUS, CODE, INSTR
 *   INSTR_I32        instruction is an i32 f_lasti, INSTR_SCALE bytes each; else a pointer
 *   OWNER            owner field (3.11 and later), SHIM_OWNER: owner >= that is a shim (3.12 and later)
 *   CODE_START, TRACEABLE, EXTRA   of the code object
 *   CODE_MASK        tag bits to clear (3.14), default none
 *
 * TSTATE_INTERP is the same for all.
 *
 * The caller holds the GIL; frames do not change under us. Remembered addresses are dereferenced only after a live frame's
 * `previous` was found equal to them, so a frame that is gone is never read. Predicted branches let the processor load
 * all frames at once instead of following pointer after pointer. */

#ifndef CODE_MASK
#define CODE_MASK(p) (p)
#endif

#define WALK_PASTE2(a, b) a##b
#define WALK_PASTE(a, b) WALK_PASTE2(a, b)
#define FN(x) WALK_PASTE(WALK_NAME, x)

static inline const char *FN(_ptr)(const char *base, size_t offset) {
  const char *p;
  memcpy(&p, base + offset, sizeof(p));
  return p;
}

static inline const char *FN(_top)(const char *tstate) {
#ifdef CFRAME_FRAME
  const char *cframe = FN(_ptr)(tstate, TSTATE_FRAME);
  return cframe ? FN(_ptr)(cframe, CFRAME_FRAME) : NULL;
#else
  return FN(_ptr)(tstate, TSTATE_FRAME);
#endif
}

static inline const char *FN(_code)(const char *frame) { return CODE_MASK(FN(_ptr)(frame, CODE)); }

static inline uint64_t FN(_instr)(const char *frame) {
#ifdef INSTR_I32
  int32_t lasti;
  memcpy(&lasti, frame + INSTR, sizeof(lasti));
  return (uint64_t)(uint32_t)lasti;
#else
  return (uint64_t)(uintptr_t)FN(_ptr)(frame, INSTR);
#endif
}

static inline bool FN(_shim)(const char *frame) {
#ifdef SHIM_OWNER
  return (uint8_t)frame[OWNER] >= SHIM_OWNER;
#else
  (void)frame;
  return false;
#endif
}

/* Not yet begun: its arguments are being set up. It is no frame of the program yet. */
static inline bool FN(_incomplete)(const char *frame, const char *code, uint64_t instr) {
#ifdef OWNER
  int32_t traceable;
  memcpy(&traceable, code + TRACEABLE, sizeof(traceable));
  return frame[OWNER] != 1 && instr < (uint64_t)(uintptr_t)(code + CODE_START) + 2u * (uint32_t)traceable;
#else
  (void)frame, (void)code, (void)instr;
  return false;
#endif
}

static inline uint32_t FN(_offset)(const char *code, uint64_t instr) {
#ifdef INSTR_I32
  (void)code;
  int32_t lasti = (int32_t)(uint32_t)instr;
  return lasti < 0 ? 0 : (uint32_t)lasti * INSTR_SCALE;
#else
  return (uint32_t)(instr - (uint64_t)(uintptr_t)(code + CODE_START));
#endif
}

/* The code object's id: our entry of co_extra ({ssize_t size; void *extras[]}, CPython Objects/codeobject.c). */
static inline uint32_t FN(_id)(struct mlz_thread *th, const char *frame, const char *code) {
  const char *e = FN(_ptr)(code, EXTRA);
  long index = mlz_python.extra_index;
  if (MLZ_LIKELY(e != NULL && th->interp_known)) {
    long size;
    memcpy(&size, e, sizeof(size));
    if (MLZ_LIKELY(size > index)) {
      uint64_t id;
      memcpy(&id, e + 8 + 8 * index, sizeof(id));
      if (MLZ_LIKELY(id != 0)) return (uint32_t)id;
    }
  }
  return mlz_code_register(th, frame, code);
}

/* Ends a capture: `n` entries are remembered, `pop` and `push` go to the recorder. */
static inline void FN(_done)(struct mlz_thread *th, uint32_t n, uint32_t pop, uint32_t push) {
  th->seen_n = n;
  th->reset = false;
  if (n > th->stale_n) th->stale_n = n;
  th->pop = pop;
  th->push = push;
}

/* Fills the entry from the frame; the id is that of `same`, when that is of the same code and still true. */
static inline void FN(_enter)(struct mlz_thread *th, struct mlz_seen *e, const char *frame, const char *code, uint64_t instr,
                              bool id_true) {
  uint32_t id = id_true && e->code == code ? MLZ_FRAME_CODE(e->word) : 0;
  if (MLZ_UNLIKELY(id == 0 || id == MLZ_FRAME_CODE(MLZ_SEEN_HIDDEN))) id = FN(_id)(th, frame, code);
  *e = (struct mlz_seen){frame, code, instr, MLZ_FRAME(id, FN(_offset)(code, instr))};
}

/* Takes up the stack from the top anew and finds what the recorder can keep. The slow path: 20-60 ns. */
static __attribute__((noinline)) void FN(_rewalk)(struct mlz_thread *th, const char *top) {
  struct mlz_seen *fresh = th->fresh;
  uint32_t n = 0, real = 0;
  const char *f = top;
  for (; f && real < th->depth && n < MLZ_SEEN_MAX; f = FN(_ptr)(f, PREVIOUS)) {
    const char *code = FN(_code)(f);
    uint64_t instr = FN(_instr)(f);
    bool hidden = FN(_shim)(f) || FN(_incomplete)(f, code, instr);
    if (hidden && n == 0) continue; /* at the top there is nothing to keep together */
    fresh[n++] = (struct mlz_seen){f, code, instr, hidden ? MLZ_SEEN_HIDDEN : 0};
    real += !hidden;
  }
  const char *under = f;
  while (f && FN(_shim)(f)) f = FN(_ptr)(f, PREVIOUS);
  bool to_root = f == NULL;
  while (to_root && n && fresh[n - 1].word == MLZ_SEEN_HIDDEN) under = fresh[--n].frame; /* the shim at the root */
  /* The outermost fresh frame among the remembered ones: from there inwards, how much is the same? What is remembered under it
   * lies outside the window; whether it still is true is looked at when the window comes down to it. */
  uint32_t keep = 0; /* remembered entries that stay */
  uint32_t same = 0; /* fresh entries, from the outermost, that they stand for */
  if (!th->stack_reset && n) {
    for (uint32_t j = th->seen_n; j-- > 0;) {
      if (th->seen[j].frame != fresh[n - 1].frame) continue;
      if (to_root ? j || th->below : !j && !th->below) break; /* whether more lies below is no longer what was said */
      if ((j ? th->seen[j - 1].frame : th->root.frame) != under) break;
      while (same < n && j + same < th->seen_n) {
        const struct mlz_seen *a = &th->seen[j + same], *b = &fresh[n - 1 - same];
        if (a->frame != b->frame || a->code != b->code || a->instr != b->instr) break;
        same++;
      }
      if (same) keep = j + same;
      break;
    }
  }
  uint32_t pop = 0, push = 0;
  for (uint32_t j = keep; j < th->seen_n; j++) pop += th->seen[j].word != MLZ_SEEN_HIDDEN;
  bool reset = th->stack_reset || same == 0 || pop > MLZ_POP_MAX || keep + (n - same) > MLZ_SEEN_MAX;
  if (reset) {
    keep = same = pop = 0;
    th->below = !to_root;
    th->root.frame = under;
  }
  for (uint32_t k = n - same; k-- > 0; keep++) {
    const struct mlz_seen *from = &fresh[k];
    if (from->word == MLZ_SEEN_HIDDEN) {
      th->seen[keep] = *from;
      continue;
    }
    FN(_enter)(th, &th->seen[keep], from->frame, from->code, from->instr, false);
    th->words[push++] = th->seen[keep].word;
  }
  FN(_done)(th, keep, pop, push);
  uint32_t hidden = 0;
  for (uint32_t j = 0; j < keep; j++) hidden += th->seen[j].word == MLZ_SEEN_HIDDEN;
  th->hidden = hidden;
  th->reset = reset;
  th->stack_reset = false;
}

/* Is the frame another than remembered, or further on? An instruction pointer lies in one code object alone. */
static inline bool FN(_differs)(const struct mlz_seen *e, const char *frame) {
#ifdef INSTR_I32
  return (FN(_code)(frame) != e->code) | (FN(_instr)(frame) != e->instr);
#else
  return FN(_instr)(frame) != e->instr;
#endif
}

/* Everything under entry `e` is as it was, as far as the window of a stack of `n` entries reaches. `e` itself: only what it points to. */
static inline __attribute__((always_inline)) bool FN(_holds)(const struct mlz_thread *th, const struct mlz_seen *e, uint32_t n) {
  uint32_t reach = th->depth + th->hidden; /* hidden entries do not count: look at as many more */
  const struct mlz_seen *low = n > reach ? &th->seen[n - reach] : th->seen;
  if (MLZ_UNLIKELY(n < reach && th->below)) return false; /* the window reaches below what is remembered */
  while (FN(_ptr)(e->frame, PREVIOUS) == e[-1].frame) {
    if (--e < low) return true;
    const char *frame = e->frame;
    __asm__("" : "+r"(frame)); /* load through the remembered address, not through `previous` */
    if (MLZ_UNLIKELY(FN(_differs)(e, frame))) return false;
  }
  return false;
}

/* The top is another frame than before, or of another code: a call, a return, or both. */
static __attribute__((noinline)) void FN(_turn)(struct mlz_thread *th, const char *top) {
  enum { NEW = 4, BACK = 4 }; /* up to NEW frames above one that is remembered among the innermost BACK */
  struct mlz_seen added[NEW];
  uint32_t n_added = 0, n = th->seen_n, back = n < BACK ? n : BACK, hidden = th->hidden;
  const struct mlz_seen *end = &th->seen[n];
  struct mlz_seen *at = NULL;
  const char *f = top;
  for (; f; f = FN(_ptr)(f, PREVIOUS)) {
    for (uint32_t k = 1; k <= back; k++) {
      if (end[-(int)k].frame == f) {
        at = &th->seen[n - k];
        break;
      }
    }
    if (at || n_added == NEW) break;
    const char *code = FN(_code)(f);
    uint64_t instr = FN(_instr)(f);
    if (FN(_shim)(f)) {
      added[n_added++] = (struct mlz_seen){f, code, instr, MLZ_SEEN_HIDDEN};
      hidden++;
    } else if (MLZ_LIKELY(!FN(_incomplete)(f, code, instr))) {
      added[n_added++] = (struct mlz_seen){f, code, instr, 0};
    } else if (n_added) {
      break; /* incomplete, but not at the top: the slow path deals with it */
    }
  }
  uint32_t pop = 0, push = 0, keep = at ? (uint32_t)(at - th->seen) + 1 : 0;
  if (!at || keep + n_added > MLZ_SEEN_MAX) {
    FN(_rewalk)(th, top);
    return;
  }
  for (uint32_t j = keep; j < n; j++) {
    bool h = th->seen[j].word == MLZ_SEEN_HIDDEN;
    hidden -= h;
    pop += !h;
  }
  th->hidden = hidden;
  const char *code = FN(_code)(f);
  uint64_t instr = FN(_instr)(f);
  bool moved = code != at->code || instr != at->instr;
  if (MLZ_UNLIKELY(moved && (at->word == MLZ_SEEN_HIDDEN || FN(_incomplete)(f, code, instr) || FN(_shim)(f))) ||
      MLZ_UNLIKELY(!FN(_holds)(th, at, keep + n_added))) {
    FN(_rewalk)(th, top);
    return;
  }
  if (moved) {
    FN(_enter)(th, at, f, code, instr, true);
    th->words[push++] = at->word;
    pop++;
  }
  for (uint32_t k = n_added; k-- > 0; keep++) {
    struct mlz_seen *e = &th->seen[keep], *a = &added[k];
    if (a->word == MLZ_SEEN_HIDDEN) {
      *e = *a;
      continue;
    }
    /* The entry left here by the last call at this depth often is of the same code: its id is still true. */
    FN(_enter)(th, e, a->frame, a->code, a->instr, keep < th->stale_n);
    th->words[push++] = e->word;
  }
  FN(_done)(th, keep, pop, push);
}

/* What seldom is: a new interpreter, dead code objects, something lost. */
static MLZ_COLD unsigned FN(_odd)(struct mlz_thread *th, const char *tstate, const char *top) {
  const void *interp = FN(_ptr)(tstate, TSTATE_INTERP);
  if (interp != th->interp) mlz_python_interp(th, interp);
  th->seen_epoch = atomic_load_explicit(&mlz_agent.code_epoch, memory_order_relaxed) & 0x7fffffff;
  th->stale_n = 0;
  th->stack_reset = true;
  if (top) FN(_rewalk)(th, top);
  if (top && th->seen_n) return MLZ_STACK_CHANGED;
  th->seen_n = 0;
  mlz_thread_forget(th);
  return MLZ_F_NOSTACK;
}

/* The slow paths' end: is there a stack at all? */
static inline unsigned FN(_found)(struct mlz_thread *th) {
  if (MLZ_LIKELY(th->seen_n != 0)) return MLZ_STACK_CHANGED;
  mlz_thread_forget(th);
  return MLZ_F_NOSTACK;
}

static unsigned WALK_NAME(struct mlz_thread *th, const char *tstate) {
  const char *top = FN(_top)(tstate);
  if (MLZ_UNLIKELY((FN(_ptr)(tstate, TSTATE_INTERP) != th->interp) |
                   ((atomic_load_explicit(&mlz_agent.code_epoch, memory_order_relaxed) & 0x7fffffff) != th->seen_epoch)))
    return FN(_odd)(th, tstate, top);
  uint32_t n = th->seen_n;
  struct mlz_seen *e = &th->seen[n - 1];
  if (top != e->frame || FN(_code)(top) != e->code || e->word == MLZ_SEEN_HIDDEN) {
    FN(_turn)(th, top);
    return FN(_found)(th);
  }
  uint64_t instr = FN(_instr)(top);
  if (MLZ_UNLIKELY(!FN(_holds)(th, e, n))) {
    FN(_rewalk)(th, top);
    return FN(_found)(th);
  }
  if (MLZ_LIKELY(instr == e->instr)) return 0; /* nothing changed */
  if (MLZ_UNLIKELY(FN(_incomplete)(top, e->code, instr))) {
    FN(_rewalk)(th, top);
    return FN(_found)(th);
  }
  e->instr = instr;
  e->word = MLZ_FRAME(MLZ_FRAME_CODE(e->word), FN(_offset)(e->code, instr));
  th->words[0] = e->word;
  th->pop = th->push = 1;
  th->reset = false;
  return MLZ_STACK_CHANGED;
}

#undef FN
#undef WALK_PASTE
#undef WALK_PASTE2
#undef WALK_NAME
#undef TSTATE_FRAME
#undef CFRAME_FRAME
#undef PREVIOUS
#undef CODE
#undef INSTR
#undef INSTR_I32
#undef INSTR_SCALE
#undef OWNER
#undef SHIM_OWNER
#undef CODE_START
#undef TRACEABLE
#undef EXTRA
#undef CODE_MASK
