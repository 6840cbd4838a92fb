/* Which window follows from which: (window, frame pushed) -> window, so that a pushed frame costs one look-up and no window is hashed or compared.
 * Recorder process, drain thread only. Budget: 5 ns a frame.
 *
 *   window  the innermost max_stack_depth frames of a stack, whether more lie below them, and max_stack_depth itself: what follows from a window and a
 *           frame depends on nothing else. Windows have numbers (symbols.h), from 1.
 *
 * Only a memory of what symbols.h knows: when it is full it is emptied. */
#ifndef MLZ_RECORDER_PATHS_H
#define MLZ_RECORDER_PATHS_H

#include <stdbool.h>
#include <stdint.h>

#define MLZ_PATH_ROOT (UINT32_C(1) << 31) /* and above: no windows, but the empty stacks that all begin with */

struct mlz_path {
  uint64_t word; /* the frame pushed */
  uint32_t from;
  uint32_t to; /* 0: an empty entry */
};
#define MLZ_PATHS_RECENT 8192u

struct mlz_paths {
  struct mlz_path *recent; /* what was asked for lately, by the hash alone: 128 KiB that stay in the cache, where the table does not */
  struct mlz_path *at;
  uint32_t mask, count;
};

bool mlz_paths_init(struct mlz_paths *p); /* false: out of memory */
void mlz_paths_deinit(struct mlz_paths *p);
/* Adds what is not there. */
void mlz_paths_add(struct mlz_paths *p, uint32_t from, uint64_t word, uint32_t to);

static inline uint32_t mlz_paths_hash(uint32_t from, uint64_t word) {
  return (uint32_t)((word + from * UINT64_C(0xbf58476d1ce4e5b9)) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* Stacks of another depth begin elsewhere. */
static inline uint32_t mlz_paths_root(uint32_t depth, bool below) { return MLZ_PATH_ROOT | depth << 1 | below; }

uint32_t mlz_paths_look(const struct mlz_paths *p, uint32_t from, uint64_t word, uint32_t hash); /* slow case of mlz_paths_find */

/* 0: not known. */
static inline uint32_t mlz_paths_find(const struct mlz_paths *p, uint32_t from, uint64_t word) {
  uint32_t hash = mlz_paths_hash(from, word);
  const struct mlz_path *x = &p->recent[hash % MLZ_PATHS_RECENT];
  return __builtin_expect(x->word == word && x->from == from, 1) ? x->to : mlz_paths_look(p, from, word, hash);
}

#endif
