#include "tracer/recorder/frames.h"

#include <stdlib.h>

bool mlz_frames_reserve(struct mlz_feed *f, uint32_t need) {
  uint32_t size = f->size ? f->size : 256;
  while (size < need) size *= 2;
  uint64_t *words = reallocarray(f->words, size, sizeof *words);
  if (words) f->words = words;
  uint32_t *windows = reallocarray(f->windows, size, sizeof *windows);
  if (windows) f->windows = windows;
  if (!words || !windows) return false;
  f->size = size;
  return true;
}

__attribute__((cold)) uint32_t mlz_frames_content(struct mlz_drain *d, uint32_t code) {
  if (code == 0) return 0;
  if (d->code_round != d->round) {
    d->code_round = d->round;
    mlz_decode_find_codes(d);
  }
  return mlz_symbols_content(&d->symbols, code);
}

/* The words of the window that ends with the first n frames. */
static const uint64_t *window_of(const struct mlz_feed *f, uint32_t n, struct mlz_window *w) {
  *w = (struct mlz_window){.count = n < f->depth ? n : f->depth, .depth = f->depth};
  w->truncated = n > w->count || f->below;
  return f->words + n - w->count;
}

__attribute__((cold)) uint32_t mlz_frames_window(struct mlz_drain *d, struct mlz_feed *f, uint32_t n) {
  struct mlz_window w;
  const uint64_t *words = window_of(f, n, &w);
  uint32_t number = mlz_symbols_window(&d->symbols, words, w);
  uint32_t from = n > 1 ? f->windows[n - 2] : mlz_paths_root(f->depth, f->below);
  if (number && from) mlz_paths_add(&d->symbols.paths, from, f->words[n - 1], number);
  return number;
}

__attribute__((cold)) void mlz_frames_enter(struct mlz_drain *d, struct mlz_feed *f) {
  f->stale = false;
  for (uint32_t n = 0; n < f->count; n++) mlz_frames_put(d, f, n, f->words[n]);
}

__attribute__((cold)) uint32_t mlz_frames_resolve(struct mlz_drain *d, struct mlz_feed *f) {
  if (d->native) return mlz_native_stack(d, f);
  if (f->count == 0) return d->symbols.no_stack;
  if (f->stale) mlz_frames_enter(d, f);
  struct mlz_window w;
  const uint64_t *words = window_of(f, f->count, &w);
  return f->stack = mlz_symbols_window_stack(&d->symbols, f->windows[f->count - 1], words, w);
}

uint32_t mlz_frames_any_stack(struct mlz_drain *d, struct mlz_feed *f) {
  if (d->native) return mlz_native_python_stack(d, f);
  if (f->count == 0) return 0;
  struct mlz_window w;
  const uint64_t *words = window_of(f, f->count, &w);
  return mlz_symbols_any_stack(&d->symbols, words, w);
}
