/* The live blocks of one image: from an address to what its allocation was.
 * Recorder process, drain thread only. Budget: 10-25 ns for an allocation and its free.
 *
 * Two levels, because neighbouring addresses are used together: a hash table of 4 KiB pages, each with a leaf of 256 block
 * numbers (one for each granule), and a pool of blocks. Memory is proportional to live blocks: an empty leaf is given back. */
#ifndef MLZ_RECORDER_HEAP_H
#define MLZ_RECORDER_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MLZ_LEAF_SHIFT 8 /* 256 granules of 16 bytes: a page */
#define MLZ_LEAF_CACHE 64u

struct mlz_live { /* a live block */
  uint64_t alloc_no;
  uint64_t size_domain; /* domain << 48 | size */
  uint32_t stack;
  uint32_t weight; /* index into the drain's table of weights */
};
struct mlz_leaf {
  uint32_t count;
  uint32_t at[1u << MLZ_LEAF_SHIFT]; /* block numbers; 0: none */
};
struct mlz_leaf_slot {
  uint64_t page; /* page + 1; 0: empty */
  struct mlz_leaf *leaf;
};
struct mlz_heap {
  struct mlz_leaf_slot *slots;
  size_t capacity, leaves;
  struct mlz_live *blocks; /* by block number; [0] unused. A free block's stack names the next free one */
  uint32_t blocks_used, blocks_size, blocks_free;
  uint64_t live;          /* blocks */
  struct mlz_leaf *spare; /* one empty leaf kept: a page that comes and goes costs no malloc */
  struct mlz_leaf_slot cache[MLZ_LEAF_CACHE];
};

static inline uint64_t mlz_live_size(const struct mlz_live *b) { return b->size_domain & ((UINT64_C(1) << 48) - 1); }
static inline unsigned mlz_live_domain(const struct mlz_live *b) { return (unsigned)(b->size_domain >> 48); }

void mlz_heap_init(struct mlz_heap *h);
void mlz_heap_deinit(struct mlz_heap *h);

struct mlz_leaf *mlz_heap_leaf_find(struct mlz_heap *h, uint64_t page); /* slow cases of the inline functions */
struct mlz_leaf *mlz_heap_leaf_make(struct mlz_heap *h, uint64_t page);
void mlz_heap_leaf_drop(struct mlz_heap *h, uint64_t page);
bool mlz_heap_blocks_grow(struct mlz_heap *h);

static inline struct mlz_leaf *mlz_heap_leaf(struct mlz_heap *h, uint64_t page) {
  const struct mlz_leaf_slot *c = &h->cache[page % MLZ_LEAF_CACHE];
  return c->page == page + 1 ? c->leaf : mlz_heap_leaf_find(h, page);
}

/* The block at the granule; NULL: none. Valid until the next change of the heap. */
static inline struct mlz_live *mlz_heap_find(struct mlz_heap *h, uint64_t granule) {
  struct mlz_leaf *leaf = mlz_heap_leaf(h, granule >> MLZ_LEAF_SHIFT);
  uint32_t n = leaf ? leaf->at[granule & 255] : 0;
  return n ? &h->blocks[n] : NULL;
}

/* Adds a block at a granule that holds none. false: out of memory. */
static inline bool mlz_heap_add(struct mlz_heap *h, uint64_t granule, struct mlz_live block) {
  struct mlz_leaf *leaf = mlz_heap_leaf(h, granule >> MLZ_LEAF_SHIFT);
  if (__builtin_expect(!leaf, 0)) leaf = mlz_heap_leaf_make(h, granule >> MLZ_LEAF_SHIFT);
  if (!leaf) return false;
  uint32_t n = h->blocks_free;
  if (n) {
    h->blocks_free = h->blocks[n].stack;
  } else {
    if (__builtin_expect(h->blocks_used == h->blocks_size, 0) && !mlz_heap_blocks_grow(h)) {
      if (!leaf->count) mlz_heap_leaf_drop(h, granule >> MLZ_LEAF_SHIFT);
      return false;
    }
    n = h->blocks_used++;
  }
  h->blocks[n] = block;
  leaf->at[granule & 255] = n;
  leaf->count++;
  h->live++;
  return true;
}

/* Takes the block at the granule out. false: there is none. */
static inline bool mlz_heap_take(struct mlz_heap *h, uint64_t granule, struct mlz_live *out) {
  struct mlz_leaf *leaf = mlz_heap_leaf(h, granule >> MLZ_LEAF_SHIFT);
  if (!leaf) return false;
  uint32_t n = leaf->at[granule & 255];
  if (!n) return false;
  *out = h->blocks[n];
  h->blocks[n].stack = h->blocks_free;
  h->blocks_free = n;
  leaf->at[granule & 255] = 0;
  h->live--;
  if (__builtin_expect(--leaf->count == 0, 0)) mlz_heap_leaf_drop(h, granule >> MLZ_LEAF_SHIFT);
  return true;
}

#endif
