#include "tracer/recorder/frames.h"

#include <stdlib.h>

bool mlz_frames_reserve(struct mlz_feed *f, uint32_t need) {
  uint32_t size = f->size ? f->size : 256;
  while (size < need) size *= 2;
  uint64_t *words = reallocarray(f->words, size, sizeof *words);
  if (words) f->words = words;
  uint32_t *paths = reallocarray(f->paths, size, sizeof *paths);
  if (paths) f->paths = paths;
  if (!words || !paths) return false;
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

/* Ends: the tree is emptied at most once for each size that it can have, and its smallest size holds a feed's frames. */
__attribute__((cold)) void mlz_frames_enter(struct mlz_drain *d, struct mlz_feed *f) {
  struct mlz_paths *paths = &d->symbols.paths;
  uint32_t at, n;
  do {
    at = mlz_paths_root(f->depth, f->below);
    f->generation = paths->generation;
    for (n = 0; n < f->count && at != MLZ_PATH_NONE; n++) f->paths[n] = at = mlz_paths_child(paths, at, f->words[n]);
  } while (at == MLZ_PATH_NONE);
  f->stack = f->count ? paths->at[at].stack : 0;
}

__attribute__((cold)) uint32_t mlz_frames_resolve(struct mlz_drain *d, struct mlz_feed *f) {
  struct mlz_paths *paths = &d->symbols.paths;
  uint32_t k = f->count < f->depth ? f->count : f->depth;
  if (k == 0) return 0;
  const uint64_t *words = f->words + f->count - k;
  bool truncated = f->count > k || f->below;
  uint64_t hash = k * 2 + truncated;
  for (uint32_t i = 0; i < k; i++) hash = (hash ^ words[i]) * UINT64_C(0x9ddfea08eb382d69) ^ hash >> 29;
  f->stack = mlz_symbols_stack(&d->symbols, words, k, truncated, hash ^ hash >> 32);
  if (f->generation == paths->generation) paths->at[f->paths[f->count - 1]].stack = f->stack;
  return f->stack;
}
