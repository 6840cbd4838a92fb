/* The stack walk, as a template: stack.c includes this once for each frame layout, with these defined:
 *   WALK_NAME        name of the capture function
 *   TSTATE_FRAME, CFRAME_FRAME (or undefined), PREVIOUS, CODE, INSTR
 *   INSTR_I32        instruction is an i32 f_lasti, INSTR_SCALE bytes each; else a pointer
 *   OWNER            owner field (3.11 and later), SHIM_OWNER: owner >= that is a shim (3.12 and later)
 *   CODE_START, TRACEABLE, EXTRA   of the code object
 *   CODE_MASK        tag bits to clear (3.14), default none
 *   CODE_WATCHED     ids may be in a table of ours (code_ids.h)
 *   ENTRY            3.11: field that says that the frame has a loop of the interpreter of its own
 * With OWNER it includes itself once more, with NATIVE_FRAMES: the same walk for native stacks (docs/native.md), where frames say whether they run
 * in their caller's loop. The quick hooks are not in that one.
 *
 * The caller holds the GIL; frames do not change under us. Remembered addresses are dereferenced only after a live frame's
 * `previous` was found equal to them, so a frame that is gone is never read. Predicted branches let the processor load
 * all frames at once instead of following pointer after pointer. */

#ifndef CODE_MASK
#define CODE_MASK(p) (p)
#endif

#define WALK_PASTE2(a, b) a##b
#define WALK_PASTE(a, b) WALK_PASTE2(a, b)
#ifdef NATIVE_FRAMES
#define WALK_SELF WALK_PASTE(WALK_NAME, _native)
#else
#define WALK_SELF WALK_NAME
#endif
#define FN(x) WALK_PASTE(WALK_SELF, x)

static inline const char *FN(_ptr)(const char *base, size_t offset) {
  const char *p;
  memcpy(&p, base + offset, sizeof(p));
  return p;
}

static inline const char *FN(_top)(const char *tstate) {
#ifdef CFRAME_FRAME
  return FN(_ptr)(FN(_ptr)(tstate, TSTATE_FRAME), CFRAME_FRAME); /* a thread state's first cframe lies within it */
#else
  return FN(_ptr)(tstate, TSTATE_FRAME);
#endif
}

static inline const char *FN(_code)(const char *frame) { return CODE_MASK(FN(_ptr)(frame, CODE)); }

static inline bool FN(_shim)(const char *frame) {
#ifdef SHIM_OWNER
  return (uint8_t)frame[OWNER] >= SHIM_OWNER;
#else
  (void)frame;
  return false;
#endif
}

#ifdef NATIVE_FRAMES
/* Does it run in its caller's loop? 3.12 and later: else a shim lies between them. */
static inline bool FN(_inlined)(const char *frame) {
#ifdef ENTRY
  return !frame[ENTRY];
#else
  const char *previous = FN(_ptr)(frame, PREVIOUS);
  return previous && !FN(_shim)(previous);
#endif
}
#endif

/* Does a loop of the interpreter begin with it? Of what is hidden: 3.12 and later, a shim, which is all that is left where the frame has gone (3.11: that
 * goes later than its loop); 3.11, a frame that has not begun. */
static inline uint32_t FN(_opens)(const char *frame) {
#if defined(NATIVE_FRAMES) && defined(ENTRY)
  return !FN(_inlined)(frame);
#elif defined(NATIVE_FRAMES)
  return FN(_shim)(frame);
#else
  (void)frame;
  return 0;
#endif
}

static inline uint64_t FN(_instr)(const char *frame) {
#if defined(NATIVE_FRAMES)
  return (uint64_t)(uintptr_t)FN(_ptr)(frame, INSTR) | FN(_inlined)(frame); /* instructions lie at even addresses */
#elif defined(INSTR_I32)
  int32_t lasti;
  memcpy(&lasti, frame + INSTR, sizeof(lasti));
  return (uint64_t)(uint32_t)lasti;
#else
  return (uint64_t)(uintptr_t)FN(_ptr)(frame, INSTR);
#endif
}

/* mlz_seen.floor of a frame, and what it means as an instruction pointer. */
static inline uint32_t FN(_code_floor)(const char *code) {
#ifdef OWNER
  int32_t traceable;
  memcpy(&traceable, code + TRACEABLE, sizeof(traceable));
  return 2u * (uint32_t)traceable;
#else
  (void)code;
  return 0;
#endif
}
static inline bool FN(_generator)(const char *frame) {
#ifdef OWNER
  return frame[OWNER] == 1;
#else
  (void)frame;
  return false;
#endif
}
static inline uint32_t FN(_floor)(const char *frame, const char *code) { return FN(_generator)(frame) ? 0 : FN(_code_floor)(code); }
static inline uint64_t FN(_begun_from)(const char *code, uint32_t floor) { return (uint64_t)(uintptr_t)(code + CODE_START) + floor; }
static inline bool FN(_below)(uint64_t instr, uint64_t floor) {
#ifdef OWNER
  return instr < floor;
#else
  (void)instr, (void)floor;
  return false;
#endif
}
/* Not yet begun: its arguments are being set up. It is no frame of the program yet. */
static inline bool FN(_incomplete)(const char *frame, const char *code, uint64_t instr) {
  return FN(_below)(instr, FN(_begun_from)(code, FN(_floor)(frame, code)));
}

static inline uint32_t FN(_offset)(const char *code, uint64_t instr) {
#ifdef INSTR_I32
  (void)code;
  int32_t lasti = (int32_t)(uint32_t)instr;
  return lasti < 0 ? UINT32_MAX : (uint32_t)lasti * INSTR_SCALE; /* nothing has run yet: the line of the definition */
#elif defined(NATIVE_FRAMES)
  return (uint32_t)((instr & ~UINT64_C(1)) - (uint64_t)(uintptr_t)(code + CODE_START)) | (instr & 1 ? MLZ_FRAME_INLINED : 0);
#else
  return (uint32_t)(instr - (uint64_t)(uintptr_t)(code + CODE_START));
#endif
}

/* The code object's id: our entry of co_extra ({ssize_t size; void *extras[]}, CPython Objects/codeobject.c), or of our own table; 0: it has none. */
static __attribute__((noinline)) uint32_t FN(_id_read)(const struct mlz_thread *th, const char *code) {
  uint64_t id;
#ifdef CODE_WATCHED
  if (MLZ_LIKELY(mlz_python.watched)) {
    id = mlz_code_ids_get(code, th->interp_number);
    return th->interp_known && (uint32_t)(id >> 32) == mlz_python.id_session ? (uint32_t)id : 0;
  }
#endif
  const char *e = FN(_ptr)(code, EXTRA);
  long index = mlz_python.extra_index, size;
  if (MLZ_UNLIKELY(e == NULL || !th->interp_known)) return 0;
  memcpy(&size, e, sizeof(size));
  if (MLZ_UNLIKELY(size <= index)) return 0;
  memcpy(&id, e + 8 + 8 * index, sizeof(id));
  return (uint32_t)(id >> 32) == mlz_python.id_session ? (uint32_t)id : 0; /* else of a session that was stopped */
}
/* What is known of a code object; NULL: it has no id yet. */
static inline const struct mlz_known_id *FN(_known)(struct mlz_thread *th, const char *code) {
  struct mlz_known_id *known = &th->ids[((uintptr_t)code >> 5 ^ (uintptr_t)code >> 13) % MLZ_IDS];
  if (MLZ_LIKELY(known->code == code)) return known;
  uint32_t id = FN(_id_read)(th, code);
  if (!id) return NULL;
  *known = (struct mlz_known_id){code, id, FN(_code_floor)(code)};
  return known;
}
static inline uint32_t FN(_id_known)(struct mlz_thread *th, const char *code) {
  const struct mlz_known_id *known = FN(_known)(th, code);
  return MLZ_LIKELY(known != NULL) ? known->id : 0;
}
static inline uint32_t FN(_id)(struct mlz_thread *th, const char *frame, const char *code) {
  uint32_t id = FN(_id_known)(th, code);
  return MLZ_LIKELY(id != 0) ? id : mlz_code_register(th, frame, code);
}

/* Is the frame another than remembered, or further on? An instruction pointer lies in one code object alone. */
static inline bool FN(_differs)(const struct mlz_seen *e, const char *frame) {
#ifdef INSTR_I32
  return (FN(_code)(frame) != e->code) | (FN(_instr)(frame) != e->instr);
#else
  return FN(_instr)(frame) != e->instr;
#endif
}

/* The remembered address, not the `previous` that was just found equal to it: the processor need not wait for that load. */
static inline const char *FN(_remembered)(const struct mlz_seen *e) {
  const char *frame = e->frame;
  __asm__("" : "+r"(frame));
  return frame;
}

/* Hands the remembered stack, `n` entries that end with `last`, to the quick way. */
static inline void FN(_aim_at)(struct mlz_thread *th, uint32_t n, struct mlz_seen *last, uint32_t window) {
  th->seen_n = n;
  if (n > th->stale_n) th->stale_n = n;
  th->last = last;
  th->top = last->frame;
  th->floor = FN(_begun_from)(last->code, last->floor);
  th->lowest = last + 1 - window;
  th->window = window;
}

/* Is everything under the entry of `frame`, which is live, as it was, `window` entries (1 to MLZ_WINDOW_QUICK) down to `low`? From the top
 * down, so that a remembered address is read only after the frame above was found to point there; one straight run of comparisons, entered
 * where the window begins. */
#define WALK_STEP(k)                                                                                                                       \
  case (k) + 1:                                                                                                                            \
    if (FN(_ptr)(frame, PREVIOUS) != low[(k)-1].frame) return false;                                                                       \
    frame = FN(_remembered)(&low[(k)-1]);                                                                                                  \
    if (FN(_differs)(&low[(k)-1], frame)) return false;                                                                                    \
    __attribute__((fallthrough));
static inline __attribute__((always_inline)) bool FN(_window_holds)(const struct mlz_seen *low, uint64_t window, const char *frame) {
  switch (window) {
    WALK_STEP(25)
    WALK_STEP(24)
    WALK_STEP(23)
    WALK_STEP(22)
    WALK_STEP(21)
    WALK_STEP(20)
    WALK_STEP(19)
    WALK_STEP(18)
    WALK_STEP(17)
    WALK_STEP(16)
    WALK_STEP(15)
    WALK_STEP(14)
    WALK_STEP(13)
    WALK_STEP(12)
    WALK_STEP(11)
    WALK_STEP(10)
    WALK_STEP(9)
    WALK_STEP(8)
    WALK_STEP(7)
    WALK_STEP(6)
    WALK_STEP(5)
    WALK_STEP(4)
    WALK_STEP(3)
    WALK_STEP(2)
    WALK_STEP(1)
  case 1:
    return FN(_ptr)(frame, PREVIOUS) == low[-1].frame;
  default:
    __builtin_unreachable();
  }
}

/* Ends a capture: `n` entries are remembered, `hidden` of them hidden; `pop` and `push` go to the recorder. */
static inline void FN(_done)(struct mlz_thread *th, uint32_t n, uint32_t hidden, uint32_t pop, uint32_t push) {
  uint32_t reach = th->depth + hidden, window = n < reach ? n : reach;
  FN(_aim_at)(th, n, &th->seen[n] - 1, window);
  /* Not to be believed at first sight where the window reaches below what is remembered. */
  if (n == 0 || th->last->id == MLZ_SEEN_HIDDEN || window > MLZ_WINDOW_QUICK || (n < reach && th->below)) th->top = MLZ_NO_FRAME;
  th->hidden = hidden;
  th->reset = false;
  th->pop = pop;
  th->push = push;
}

/* The mark for loops that run nothing between that of the entry and the next frame that is shown; `root`: of what lies under the outermost entry. */
static inline uint32_t FN(_idle)(const struct mlz_thread *th, const struct mlz_seen *e, uint32_t offset, uint32_t root) {
#ifdef NATIVE_FRAMES
  uint32_t loops = 0;
  for (; e > th->seen && e[-1].id == MLZ_SEEN_HIDDEN; e--) loops += e[-1].floor;
  if (e == th->seen) loops += root;
#ifndef ENTRY
  loops -= loops != 0; /* its own */
#endif
  if (loops > MLZ_FRAME_IDLE_MAX) loops = MLZ_FRAME_IDLE_MAX;
  if (MLZ_UNLIKELY(loops) && offset < UINT32_C(1) << MLZ_FRAME_IDLE_SHIFT) return offset | MLZ_FRAME_IDLE | loops << MLZ_FRAME_IDLE_SHIFT;
#else
  (void)th, (void)e, (void)root;
#endif
  return offset;
}

/* Fills the entry from the frame, and returns the frame word; the id is that of `same`, when that is of the same code and still true. */
static inline uint64_t FN(_enter)(struct mlz_thread *th, struct mlz_seen *e, const char *frame, const char *code, uint64_t instr,
                                  bool id_true, uint32_t root) {
  uint32_t id = id_true && e->code == code ? e->id : 0;
  if (MLZ_UNLIKELY(id == 0 || id == MLZ_SEEN_HIDDEN)) id = FN(_id)(th, frame, code);
  *e = (struct mlz_seen){frame, code, instr, id, FN(_floor)(frame, code)};
  return MLZ_FRAME(id, FN(_idle)(th, e, FN(_offset)(code, instr), root));
}

/* Takes up the stack from the top anew and finds what the recorder can keep. The slow path: 40-100 ns. */
static __attribute__((noinline)) void FN(_rewalk)(struct mlz_thread *th, const char *top) {
  struct mlz_seen *fresh = th->fresh;
  uint32_t n = 0, real = 0;
  const char *f = top;
  for (; f && real < th->depth && n < MLZ_SEEN_MAX; f = FN(_ptr)(f, PREVIOUS)) {
    const char *code = FN(_code)(f);
    uint64_t instr = FN(_instr)(f);
    bool hidden = FN(_shim)(f) || FN(_incomplete)(f, code, instr);
    if (hidden && n == 0) continue; /* at the top there is nothing to keep together */
    fresh[n++] = (struct mlz_seen){f, code, instr, hidden ? MLZ_SEEN_HIDDEN : 0, hidden ? FN(_opens)(f) : 0};
    real += !hidden;
  }
  const char *under = f;
  while (f && FN(_shim)(f)) f = FN(_ptr)(f, PREVIOUS);
  bool to_root = f == NULL;
  uint32_t at_root = 0; /* loops */
  for (; to_root && n && fresh[n - 1].id == MLZ_SEEN_HIDDEN; under = fresh[--n].frame)
    at_root += fresh[n - 1].floor; /* shims at the root */
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
  uint32_t pop = 0, push = 0, hidden = th->hidden;
  for (uint32_t j = keep; j < th->seen_n; j++) pop += th->seen[j].id != MLZ_SEEN_HIDDEN;
  hidden -= th->seen_n - keep - pop;
  bool reset = th->stack_reset || same == 0 || pop > MLZ_POP_MAX || keep + (n - same) > MLZ_SEEN_MAX;
  if (reset) {
    keep = same = pop = hidden = 0;
    th->below = !to_root;
    th->root.frame = under;
  }
  for (uint32_t k = n - same; k-- > 0; keep++) {
    const struct mlz_seen *from = &fresh[k];
    if (from->id == MLZ_SEEN_HIDDEN) {
      hidden++;
      th->seen[keep] = *from;
      continue;
    }
    th->words[push++] = FN(_enter)(th, &th->seen[keep], from->frame, from->code, from->instr, false, at_root);
  }
  FN(_done)(th, keep, hidden, pop, push);
  th->reset = reset;
  th->stack_reset = false;
}

/* Calls and returns: the remembered stack is another, but not by much. Three parts, from the top: up to NEW frames that were not there, whose
 * outermost points to a remembered one among the innermost BACK; then up to MOVED remembered frames that are further on, or of another code;
 * then all is as it was. False: not so, look at everything (FN(_rewalk)). */
static bool FN(_turn)(struct mlz_thread *th, const char *top) {
  enum { NEW = 6, BACK = 10, MOVED = 6 };
  const char *fresh[NEW];
  uint32_t n_fresh = 0, fresh_hidden = 0;
  struct mlz_seen *seen = th->seen, *last = &seen[th->seen_n - 1], *at = last, *lowest = th->seen_n > BACK ? last - BACK + 1 : seen;
  const char *f = top;
#ifdef OWNER
  if (MLZ_UNLIKELY(!FN(_shim)(f) && FN(_incomplete)(f, FN(_code)(f), FN(_instr)(f)))) f = FN(_ptr)(f, PREVIOUS);
#endif
  for (; f; f = FN(_ptr)(f, PREVIOUS)) {
    for (at = last; at >= lowest && at->frame != f; at--) {}
    if (at >= lowest) break;
    if (n_fresh == NEW) return false;
    bool shim = FN(_shim)(f);
    /* Not begun, yet others lie on top: it never will be (3.13's frame that ends a call of __init__). FN(_rewalk) hides it. */
    if (!shim && FN(_incomplete)(f, FN(_code)(f), FN(_instr)(f))) return false;
    fresh_hidden += shim;
    fresh[n_fresh++] = f;
  }
  if (MLZ_UNLIKELY(!f)) return false;
  uint32_t pop = 0, hidden = th->hidden + fresh_hidden;
  for (struct mlz_seen *e = last; e > at; e--) {
    bool is = e->id == MLZ_SEEN_HIDDEN;
    hidden -= is;
    pop += !is;
  }
  struct mlz_seen *same = at;
  for (unsigned moved = 0; FN(_differs)(same, f); moved++) {
    if (same->id == MLZ_SEEN_HIDDEN || moved == MOVED || FN(_shim)(f) || FN(_incomplete)(f, FN(_code)(f), FN(_instr)(f))) return false;
    f = FN(_ptr)(f, PREVIOUS);
    if (f != (--same)->frame || same < seen) return false;
  }
  uint32_t n = (uint32_t)(at - seen) + 1 + n_fresh, reach = th->depth + hidden, window = n < reach ? n : reach;
  if (MLZ_UNLIKELY(n < reach && th->below) || MLZ_UNLIKELY(n > MLZ_SEEN_MAX) || MLZ_UNLIKELY(window > MLZ_WINDOW_QUICK)) return false;
  const struct mlz_seen *low = &seen[n - window];
  if (same >= low && !FN(_window_holds)(low, (uint64_t)(same - low) + 1, f)) return false;
  /* It is so. */
  uint32_t push = 0;
  for (struct mlz_seen *e = same + 1; e <= at; e++) {
    th->words[push++] = FN(_enter)(th, e, e->frame, FN(_code)(e->frame), FN(_instr)(e->frame), true, 0);
    pop++;
  }
  for (struct mlz_seen *e = at + 1; n_fresh-- > 0; e++) {
    f = fresh[n_fresh];
    if (FN(_shim)(f)) {
      *e = (struct mlz_seen){f, FN(_code)(f), FN(_instr)(f), MLZ_SEEN_HIDDEN, FN(_opens)(f)};
      continue;
    }
    /* The entry left here by the last call at this depth often is of the same code: its id is still true. */
    th->words[push++] = FN(_enter)(th, e, f, FN(_code)(f), FN(_instr)(f), (uint32_t)(e - seen) < th->stale_n, 0);
  }
  FN(_done)(th, n, hidden, pop, push);
  return true;
}

/* What seldom is: a new interpreter, dead code objects, something lost. */
static MLZ_COLD unsigned FN(_odd)(struct mlz_thread *th, const char *tstate, const char *top) {
  const void *interp = FN(_ptr)(tstate, MLZ_TSTATE_INTERP);
  uint32_t epoch = mlz_agent_code_epoch();
  if (interp != th->interp || epoch != th->ids_epoch) memset(th->ids, 0, sizeof(th->ids)); /* not for every stack that is forgotten */
  if (interp != th->interp) mlz_python_interp(th, interp);
  th->seen_epoch = th->ids_epoch = epoch;
  th->stale_n = 0;
  th->stack_reset = true;
  if (top) FN(_rewalk)(th, top);
  if (top && th->seen_n) return MLZ_STACK_CHANGED;
  th->seen_n = 0;
  mlz_thread_forget(th);
  return MLZ_F_NOSTACK;
}

static unsigned WALK_SELF(struct mlz_thread *th, const char *tstate) {
  const char *top = FN(_top)(tstate);
  if (MLZ_UNLIKELY((FN(_ptr)(tstate, MLZ_TSTATE_INTERP) != th->interp) | (mlz_agent_code_epoch() != th->seen_epoch)))
    return FN(_odd)(th, tstate, top);
  if (MLZ_UNLIKELY(!top)) {
    th->seen_n = 0;
  } else {
    const struct mlz_seen *e = &th->seen[th->seen_n - 1];
    if (top == th->top && !FN(_differs)(e, top) && FN(_window_holds)(th->lowest, th->window, top)) return 0; /* nothing changed */
    if (MLZ_UNLIKELY(!FN(_turn)(th, top))) FN(_rewalk)(th, top);
  }
  if (MLZ_LIKELY(th->seen_n != 0)) return MLZ_STACK_CHANGED;
  mlz_thread_forget(th);
  return MLZ_F_NOSTACK;
}

#ifdef NATIVE_FRAMES
/* Innermost loops that begin, and their frames have not, or end, and their frames are gone. */
static unsigned FN(_bare)(const char *tstate) {
  unsigned loops = 0;
  for (const char *f = FN(_top)(tstate); f; f = FN(_ptr)(f, PREVIOUS)) {
    bool shim = FN(_shim)(f);
    if (!shim && !FN(_incomplete)(f, FN(_code)(f), FN(_instr)(f))) break;
    loops += FN(_opens)(f);
  }
  return loops;
}
#else
#include "hooks_quick.h"
#endif

#undef FN
#undef WALK_SELF
#undef WALK_STEP
#undef WALK_PASTE
#undef WALK_PASTE2

#ifndef NATIVE_FRAMES

#ifdef OWNER
#define NATIVE_FRAMES
#include "stack_walk.h"
#undef NATIVE_FRAMES
#endif

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
#undef ENTRY
#undef CODE_MASK
#undef CODE_WATCHED

#endif
