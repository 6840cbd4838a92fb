/* The frame array of a feed: what its thread's stack is now. Included by the decoding files only; see drain.h.
 * The hot half is inline: a changed stack costs some 10 ns, one that has not changed nothing. */
#ifndef MLZ_RECORDER_FRAMES_H
#define MLZ_RECORDER_FRAMES_H

#include "tracer/recorder/drain.h"

#define MLZ_FRAMES_MAX 4000u /* the agent remembers fewer and begins again: more is no message of its */

/* Slow cases. */
bool mlz_frames_reserve(struct mlz_feed *f, uint32_t need);      /* false: out of memory */
uint32_t mlz_frames_content(struct mlz_drain *d, uint32_t code); /* of a code that was not announced in a ring read so far; 0: not known */
void mlz_frames_enter(struct mlz_drain *d, struct mlz_feed *f);  /* enters all frames into the tree of paths */
uint32_t mlz_frames_resolve(struct mlz_drain *d, struct mlz_feed *f); /* id of the stack, of which the tree knows none yet */

/* One frame more, on top of the path `at`; returns the path then. MLZ_PATH_NONE: not entered. */
static inline uint32_t mlz_frames_push(struct mlz_drain *d, struct mlz_feed *f, uint32_t n, uint64_t frame, uint32_t at) {
  uint32_t code = MLZ_FRAME_CODE(frame), content = mlz_symbols_content(&d->symbols, code);
  if (__builtin_expect(!content, 0)) content = mlz_frames_content(d, code);
  uint64_t word = (uint64_t)content << 32 | MLZ_FRAME_OFFSET(frame);
  if (__builtin_expect(at != MLZ_PATH_NONE, 1)) at = mlz_paths_child(&d->symbols.paths, at, word);
  f->words[n] = word;
  f->paths[n] = at;
  return at;
}

/* Pops, then pushes the payload that ends before slot `end`. false: no thread has so many frames. */
static inline bool mlz_frames_change(struct mlz_drain *d, struct mlz_feed *f, unsigned flags, uint64_t b, uint32_t push, uint64_t end) {
  struct mlz_paths *paths = &d->symbols.paths;
  uint32_t pop = (uint32_t)(b >> 48 & 0xff), n = f->count - pop;
  if (__builtin_expect(flags & MLZ_F_RESET || pop > f->count, 0)) {
    n = 0;
    if (flags & MLZ_F_RESET) f->below = flags & MLZ_F_BELOW;
  }
  if (__builtin_expect(n + push > f->size, 0)) {
    if (n + push > MLZ_FRAMES_MAX) return false;
    if (!mlz_frames_reserve(f, n + push)) push = 0; /* a shorter stack */
  }
  uint32_t at = n ? f->paths[n - 1] : mlz_paths_root(f->depth, f->below);
  if (__builtin_expect(f->generation != paths->generation, 0)) at = MLZ_PATH_NONE;
  uint64_t pos = end - (push + 1) / 2;
  for (; push > 1; push -= 2, pos++) {
    const struct mlz_slot *s = &f->slots[pos & f->mask];
    at = mlz_frames_push(d, f, n++, s->a, at);
    at = mlz_frames_push(d, f, n++, s->b, at);
  }
  if (push) at = mlz_frames_push(d, f, n++, f->slots[pos & f->mask].a, at);
  f->count = n;
  if (__builtin_expect(at == MLZ_PATH_NONE, 0)) {
    mlz_frames_enter(d, f);
  } else {
    f->stack = n ? paths->at[at].stack : 0;
  }
  return true;
}

/* The innermost frame, which must be there, has moved on to another instruction of the same code. */
static inline void mlz_frames_step(struct mlz_drain *d, struct mlz_feed *f, uint32_t offset) {
  struct mlz_paths *paths = &d->symbols.paths;
  uint32_t top = f->count - 1, at = MLZ_PATH_NONE;
  uint64_t word = (f->words[top] & ~UINT64_C(0xffffffff)) | offset;
  f->words[top] = word;
  if (__builtin_expect(f->generation == paths->generation, 1))
    at = mlz_paths_child(paths, top ? f->paths[top - 1] : mlz_paths_root(f->depth, f->below), word);
  f->paths[top] = at;
  if (__builtin_expect(at == MLZ_PATH_NONE, 0)) {
    mlz_frames_enter(d, f);
  } else {
    f->stack = paths->at[at].stack;
  }
}

/* Id of the event's stack. */
static inline uint32_t mlz_frames_stack(struct mlz_drain *d, struct mlz_feed *f, unsigned flags) {
  if (__builtin_expect(flags & MLZ_F_NOSTACK, 0)) return 0;
  if (__builtin_expect(f->stack == 0, 0)) return mlz_frames_resolve(d, f);
  return f->stack;
}

#endif
