/* Paths: stacks from the root, as a tree in one hash table, so that a frame pushed costs one look-up and the stack id of an event is read from its
 * innermost frame's entry. Recorder process, drain thread only. Budget: 5 ns a frame.
 *
 * The tree is only a memory of what symbols.h resolves: when it is full, it is emptied (`generation` changes) and every feed enters its frames
 * again. An entry's place in the table is its name. */
#ifndef MLZ_RECORDER_PATHS_H
#define MLZ_RECORDER_PATHS_H

#include <stdbool.h>
#include <stdint.h>

#define MLZ_PATH_NONE UINT32_MAX
#define MLZ_PATH_ROOT (UINT32_C(1) << 31) /* and above: no entries, but the roots of the tree */

struct mlz_path {
  uint64_t word;   /* the innermost frame */
  uint32_t parent; /* MLZ_PATH_NONE: an empty entry */
  uint32_t stack;  /* id; 0: not asked for yet */
};
struct mlz_paths {
  struct mlz_path *at;
  uint32_t mask, count, generation;
};

bool mlz_paths_init(struct mlz_paths *p); /* false: out of memory */
void mlz_paths_deinit(struct mlz_paths *p);
/* Slow case of mlz_paths_child. MLZ_PATH_NONE: the tree was emptied instead. */
uint32_t mlz_paths_add(struct mlz_paths *p, uint32_t parent, uint64_t word);

static inline uint32_t mlz_paths_hash(uint32_t parent, uint64_t word) {
  return (uint32_t)((word + parent * UINT64_C(0xbf58476d1ce4e5b9)) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* Stacks of another window are other stacks: each kind has its own root. */
static inline uint32_t mlz_paths_root(uint32_t depth, bool below) { return MLZ_PATH_ROOT | depth << 1 | below; }

/* The path that goes on from `parent` by the frame. MLZ_PATH_NONE: enter all again, the tree was emptied. */
static inline uint32_t mlz_paths_child(struct mlz_paths *p, uint32_t parent, uint64_t word) {
  for (uint32_t i = mlz_paths_hash(parent, word);; i++) {
    const struct mlz_path *x = &p->at[i & p->mask];
    if (__builtin_expect(x->word == word && x->parent == parent, 1)) return i & p->mask;
    if (x->parent == MLZ_PATH_NONE) return mlz_paths_add(p, parent, word);
  }
}

#endif
