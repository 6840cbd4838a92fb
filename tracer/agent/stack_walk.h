/* The stack walk, as a template: stack.c includes this once for each frame layout, with these defined:
 *   WALK_NAME        name of the capture function
 *   TSTATE_FRAME, CFRAME_FRAME (or undefined), PREVIOUS, CODE, INSTR
 *   INSTR_I32        instruction is an i32 f_lasti, INSTR_SCALE bytes each; else a pointer
 *   OWNER            owner field (3.11 and later), SHIM_OWNER: owner >= that is a shim (3.12 and later)
 *   CODE_START, TRACEABLE, EXTRA   of the code object
 *   CODE_MASK        tag bits to clear (3.14), default none
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

/* Is there a frame to show below this one? */
static inline bool FN(_more)(const char *frame) {
  do frame = FN(_ptr)(frame, PREVIOUS);
  while (frame && FN(_shim)(frame));
  return frame != NULL;
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

static inline void FN(_done)(struct mlz_thread *th, uint32_t n, uint32_t pop, uint32_t push) {
  th->seen_n = n;
  if (n > th->stale_n) th->stale_n = n;
  th->pop = pop;
  th->push = push;
}

/* Takes up the stack from the top anew; finds what the recorder can keep. The slow path, 20-60 ns. */
static __attribute__((noinline)) void FN(_rewalk)(struct mlz_thread *th, const char *top) {
  struct mlz_seen *fresh = th->fresh;
  uint32_t n = 0, real = 0;
  const char *f = top;
  for (; f && real < th->depth && n < MLZ_SEEN_MAX; f = FN(_ptr)(f, PREVIOUS)) {
    if (FN(_shim)(f)) {
      fresh[n++] = (struct mlz_seen){.frame = f};
      continue;
    }
    const char *code = FN(_code)(f);
    uint64_t instr = FN(_instr)(f);
    if (FN(_incomplete)(f, code, instr)) {
      if (n) fresh[n++] = (struct mlz_seen){.frame = f}; /* keeps the chain whole; at the top it is just skipped */
      continue;
    }
    fresh[n++] = (struct mlz_seen){f, code, instr, 0};
    real++;
  }
  while (f && FN(_shim)(f)) f = FN(_ptr)(f, PREVIOUS);
  bool to_root = f == NULL;
  while (to_root && n && !fresh[n - 1].code) n--; /* the shim at the root */
  /* The outermost fresh frame among the remembered ones: from there inwards, how much is the same? What is remembered under it
   * lies outside the window; whether it still is true is looked at when the window comes down to it. */
  uint32_t keep = 0; /* remembered entries that stay */
  uint32_t same = 0; /* fresh entries, from the outermost, that they stand for */
  if (!th->stack_reset && n) {
    for (uint32_t j = th->seen_n; j-- > 0;) {
      if (th->seen[j].frame != fresh[n - 1].frame) continue;
      if (to_root ? j || th->below : !j && !th->below) break; /* whether more lies below is no longer what was said */
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
  for (uint32_t j = keep; j < th->seen_n; j++) pop += th->seen[j].code != NULL;
  bool reset = th->stack_reset || same == 0 || pop > MLZ_POP_MAX || keep + (n - same) > MLZ_SEEN_MAX;
  if (reset) {
    keep = same = pop = 0;
    th->below = !to_root;
  }
  for (uint32_t k = n - same; k-- > 0;) {
    struct mlz_seen *s = &th->seen[keep++];
    *s = fresh[k];
    if (!s->code) continue;
    s->word = MLZ_FRAME(FN(_id)(th, s->frame, s->code), FN(_offset)(s->code, s->instr));
    th->words[push++] = s->word;
  }
  FN(_done)(th, keep, pop, push);
  th->reset = reset;
  th->stack_reset = false;
}

static void WALK_NAME(struct mlz_thread *th, const char *tstate) {
  th->pop = th->push = 0;
  th->reset = false;
  const void *interp = FN(_ptr)(tstate, 16);
  if (MLZ_UNLIKELY(interp != th->interp)) mlz_python_interp(th, interp);
  uint32_t epoch = atomic_load_explicit(&mlz_agent.code_epoch, memory_order_relaxed);
  if (MLZ_UNLIKELY(epoch != th->seen_epoch)) {
    th->seen_epoch = epoch;
    th->stale_n = 0;
    th->stack_reset = true;
  }
  const char *top = FN(_top)(tstate);
  if (MLZ_UNLIKELY(!top)) {
    if (th->seen_n) th->stack_reset = true;
    th->seen_n = 0;
    return;
  }
  if (MLZ_UNLIKELY(th->stack_reset)) {
    FN(_rewalk)(th, top);
    return;
  }
  /* Up to WALK_NEW new frames above one that is remembered among the innermost four. */
  enum { WALK_NEW = 4, WALK_BACK = 4 };
  struct mlz_seen added[WALK_NEW];
  uint32_t n_added = 0, real_added = 0, n = th->seen_n;
  int64_t join = -1;
  const char *f = top;
  while (f) {
    uint32_t back = n < WALK_BACK ? n : WALK_BACK;
    for (uint32_t k = 1; k <= back; k++) {
      if (th->seen[n - k].frame == f) {
        join = (int64_t)(n - k);
        break;
      }
    }
    if (join >= 0 || n_added == WALK_NEW) break;
    struct mlz_seen *a = &added[n_added];
    if (FN(_shim)(f)) {
      *a = (struct mlz_seen){.frame = f};
      n_added++;
    } else {
      *a = (struct mlz_seen){f, FN(_code)(f), FN(_instr)(f), 0};
      if (MLZ_LIKELY(!FN(_incomplete)(f, a->code, a->instr))) {
        n_added++;
        real_added++;
      } else if (n_added) {
        join = -1; /* incomplete, but not at the top: the slow path deals with it */
        break;
      }
    }
    f = FN(_ptr)(f, PREVIOUS);
  }
  if (join < 0 || real_added > th->depth || (uint32_t)join + 1 + n_added > MLZ_SEEN_MAX) {
    FN(_rewalk)(th, top);
    return;
  }
  /* The frame at the join may have moved on; everything under it must be as it was, as far as the window reaches. */
  struct mlz_seen *at = &th->seen[join];
  bool moved = false;
  uint64_t instr = 0;
  const char *code = NULL;
  int64_t left = (int64_t)th->depth - real_added;
  if (at->code) {
    code = FN(_code)(f);
    instr = FN(_instr)(f);
    moved = code != at->code || instr != at->instr;
    left--;
  } else if (!FN(_shim)(f)) {
    FN(_rewalk)(th, top);
    return;
  }
  const struct mlz_seen *s = at;
  while (left > 0) {
    const char *previous = FN(_ptr)(s->frame, PREVIOUS);
    s--;
    if (MLZ_UNLIKELY(s < th->seen)) {
      if (th->below || (previous != NULL && FN(_more)(s[1].frame))) { /* the window reaches below what is remembered */
        FN(_rewalk)(th, top);
        return;
      }
      break;
    }
    const char *frame = s->frame;
    __asm__("" : "+r"(frame)); /* load through the remembered address, not through `previous` */
    if (MLZ_UNLIKELY(previous != frame)) {
      FN(_rewalk)(th, top);
      return;
    }
    if (s->code) {
      if (MLZ_UNLIKELY(FN(_code)(frame) != s->code || FN(_instr)(frame) != s->instr)) {
        FN(_rewalk)(th, top);
        return;
      }
      left--;
    } else if (!FN(_shim)(frame)) {
      FN(_rewalk)(th, top);
      return;
    }
  }
  if (left <= 0 && MLZ_UNLIKELY(FN(_more)(s->frame) != (s > th->seen || th->below))) {
    FN(_rewalk)(th, top); /* the same frames, but now they are the whole stack, or no longer are */
    return;
  }
  if (MLZ_LIKELY(!moved && n_added == 0 && (uint64_t)join + 1 == n)) return; /* nothing changed */
  if (moved && FN(_incomplete)(f, code, instr)) {
    FN(_rewalk)(th, top);
    return;
  }
  uint32_t pop = 0, push = 0, keep = (uint32_t)join + 1;
  for (uint32_t j = keep; j < n; j++) pop += th->seen[j].code != NULL;
  if (moved) {
    uint32_t id = code == at->code && MLZ_FRAME_CODE(at->word) ? MLZ_FRAME_CODE(at->word) : FN(_id)(th, f, code);
    at->code = code;
    at->instr = instr;
    at->word = MLZ_FRAME(id, FN(_offset)(code, instr));
    pop++;
    th->words[push++] = at->word;
  }
  for (uint32_t k = n_added; k-- > 0; keep++) {
    struct mlz_seen *e = &th->seen[keep], *a = &added[k];
    if (!a->code) {
      *e = *a;
      continue;
    }
    /* The entry left here by the last call at this depth often is of the same code: its id is still true. */
    uint32_t id = keep < th->stale_n && e->code == a->code ? MLZ_FRAME_CODE(e->word) : 0;
    if (MLZ_UNLIKELY(id == 0)) id = FN(_id)(th, a->frame, a->code);
    a->word = MLZ_FRAME(id, FN(_offset)(a->code, a->instr));
    *e = *a;
    th->words[push++] = a->word;
  }
  FN(_done)(th, keep, pop, push);
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
