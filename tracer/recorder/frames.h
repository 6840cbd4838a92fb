/* The frame array of a feed: what its thread's stack is now. Included by the decoding files only; see drain.h.
 * The hot half is inline: a changed stack costs some 10 ns, one that has not changed nothing. */
#ifndef MLZ_RECORDER_FRAMES_H
#define MLZ_RECORDER_FRAMES_H

#include "tracer/recorder/native.h"

#define MLZ_FRAMES_MAX 4000u /* the agent remembers fewer and begins again: more is no message of its */

/* Slow cases. */
bool mlz_frames_reserve(struct mlz_feed *f, uint32_t need);      /* false: out of memory */
uint32_t mlz_frames_content(struct mlz_drain *d, uint32_t code); /* of a code that was not announced in a ring read so far; 0: not known */
uint32_t mlz_frames_window(struct mlz_drain *d, struct mlz_feed *f, uint32_t n); /* of the first n frames, n > 0; 0: out of memory */
void mlz_frames_enter(struct mlz_drain *d, struct mlz_feed *f);                  /* all windows anew: the depth has changed */
uint32_t mlz_frames_resolve(struct mlz_drain *d, struct mlz_feed *f);            /* id of a stack that was not asked for yet */
uint32_t mlz_frames_any_stack(struct mlz_drain *d, struct mlz_feed *f);          /* the same whatever the filter says */

/* Frame n is `word`. */
static inline void mlz_frames_put(struct mlz_drain *d, struct mlz_feed *f, uint32_t n, uint64_t word) {
  uint32_t from = n ? f->windows[n - 1] : mlz_paths_root(f->depth, f->below), to = mlz_paths_find(&d->symbols.paths, from, word);
  f->words[n] = word;
  f->windows[n] = __builtin_expect(to != 0, 1) ? to : mlz_frames_window(d, f, n + 1);
}

static inline void mlz_frames_push(struct mlz_drain *d, struct mlz_feed *f, uint32_t n, uint64_t frame) {
  uint32_t code = MLZ_FRAME_CODE(frame), content = mlz_symbols_content(&d->symbols, code);
  if (__builtin_expect(!content, 0)) content = mlz_frames_content(d, code);
  mlz_frames_put(d, f, n, (uint64_t)content << 32 | MLZ_FRAME_OFFSET(frame));
}

/* Pops, then pushes the payload that ends before word `end`. false: no thread has so many frames. */
static inline bool mlz_frames_change(struct mlz_drain *d, struct mlz_feed *f, unsigned flags, uint32_t pop, uint32_t push, uint64_t end) {
  uint32_t n = f->count - pop;
  if (__builtin_expect(flags & MLZ_F_RESET || pop > f->count, 0)) {
    n = 0;
    if (flags & MLZ_F_RESET) f->below = flags & MLZ_F_BELOW;
  }
  if (__builtin_expect(n + push > f->size, 0)) {
    if (n + push > MLZ_FRAMES_MAX) return false;
    if (!mlz_frames_reserve(f, n + push)) push = 0; /* a shorter stack */
  }
  if (__builtin_expect(f->stale, 0)) mlz_frames_enter(d, f);
  for (uint64_t pos = end - push; pos < end; pos++) mlz_frames_push(d, f, n++, mlz_feed_word(f, pos));
  f->count = n;
  f->stack = n ? d->symbols.stack_of[f->windows[n - 1]] : 0;
  return true;
}

/* The innermost frame, which must be there, is at that instruction of the same code; more often than not it was before. */
static inline void mlz_frames_step(struct mlz_drain *d, struct mlz_feed *f, uint32_t offset) {
  uint32_t top = f->count - 1;
  if (!f->stale && (uint32_t)f->words[top] == offset) return;
  if (__builtin_expect(f->stale, 0)) mlz_frames_enter(d, f);
  mlz_frames_put(d, f, top, (f->words[top] & ~UINT64_C(0xffffffff)) | offset);
  f->stack = d->symbols.stack_of[f->windows[top]];
}

/* Id of the event's stack, or MLZ_STACK_FILTERED. `native`: d->native is there. */
static inline uint32_t mlz_frames_stack(struct mlz_drain *d, struct mlz_feed *f, unsigned flags, bool native) {
  if (__builtin_expect(f->left_out, 0)) return MLZ_STACK_FILTERED;
  if (__builtin_expect(flags & MLZ_F_NOSTACK, 0)) return native ? mlz_native_alone(d, f) : d->symbols.no_stack;
  if (__builtin_expect(f->stack == 0, 0)) return mlz_frames_resolve(d, f);
  return f->stack;
}

#endif
