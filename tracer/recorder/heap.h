/* The live blocks of one image: from an address to what its allocation was.
 * Recorder process, drain thread only. Budget: 5 ns for an allocation and its free while the heap fits the caches.
 *
 * No address is hashed, because neighbours are used together: a region (16 MiB of address space) is a table of pages, a page's leaf has a block number for each
 * granule, and the blocks lie in a pool. Only the few regions are found by a hash table, and nearly always by a small cache before it.
 * Memory is proportional to live blocks: an empty leaf is given back, and a region without leaves. */
#ifndef MLZ_RECORDER_HEAP_H
#define MLZ_RECORDER_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MLZ_LEAF_SHIFT 8 /* 256 granules of 16 bytes: a page */
#define MLZ_REGION_SHIFT 20
#define MLZ_REGION_PAGES (1u << (MLZ_REGION_SHIFT - MLZ_LEAF_SHIFT))
#define MLZ_REGION_CACHE 16u
#define MLZ_LEAF_SPARES 256u
#define MLZ_REGION_SPARES 4u

struct mlz_live { /* a live block */
  uint64_t alloc_no;
  uint64_t size_domain; /* domain << 48 | size */
  uint32_t stack;
  uint32_t weight; /* index into the drain's table of weights */
};
struct mlz_leaf {
  uint32_t at[1u << MLZ_LEAF_SHIFT]; /* block numbers; 0: none */
};
struct mlz_page {     /* the count lies here, so that a block's coming and going touches one line of the leaf */
  uint64_t leaf : 48; /* address; 0: none */
  uint64_t count : 16;
};
struct mlz_region {
  uint32_t leaves;
  struct mlz_page pages[MLZ_REGION_PAGES];
};
struct mlz_region_slot {
  uint64_t number; /* number + 1; 0: empty */
  struct mlz_region *region;
};
struct mlz_heap {
  struct mlz_live *blocks; /* by block number; [0] unused. A free block's stack names the next free one */
  uint32_t blocks_used, blocks_size, blocks_free;
  uint64_t live; /* blocks */
  struct mlz_region_slot cache[MLZ_REGION_CACHE];
  struct mlz_region_slot *slots;
  size_t capacity, regions, leaves;
  struct mlz_leaf *spare[MLZ_LEAF_SPARES]; /* empty ones kept: what comes and goes costs no malloc */
  struct mlz_region *spare_region[MLZ_REGION_SPARES];
  unsigned spares, spare_regions;
};
struct mlz_place { /* of a granule; valid until the next change of the heap */
  struct mlz_page *page;
  uint32_t *at;
};

static inline uint64_t mlz_live_size(const struct mlz_live *b) { return b->size_domain & ((UINT64_C(1) << 48) - 1); }
static inline unsigned mlz_live_domain(const struct mlz_live *b) { return (unsigned)(b->size_domain >> 48); }

void mlz_heap_init(struct mlz_heap *h);
void mlz_heap_deinit(struct mlz_heap *h);

/* Slow cases of the inline functions. */
struct mlz_region *mlz_heap_region_find(struct mlz_heap *h, uint64_t number); /* NULL: none */
struct mlz_place mlz_heap_place_make(struct mlz_heap *h, uint64_t granule);   /* .at NULL: out of memory */
void mlz_heap_leaf_drop(struct mlz_heap *h, uint64_t granule);
bool mlz_heap_blocks_grow(struct mlz_heap *h);

static inline struct mlz_leaf *mlz_page_leaf(const struct mlz_page *p) { return (struct mlz_leaf *)(uintptr_t)p->leaf; }

static inline struct mlz_region *mlz_heap_region(struct mlz_heap *h, uint64_t granule) {
  uint64_t number = granule >> MLZ_REGION_SHIFT;
  const struct mlz_region_slot *c = &h->cache[number % MLZ_REGION_CACHE];
  return __builtin_expect(c->number == number + 1, 1) ? c->region : mlz_heap_region_find(h, number);
}

/* .at NULL: no block of the page is live. */
static inline struct mlz_place mlz_heap_place(struct mlz_heap *h, uint64_t granule) {
  struct mlz_region *r = mlz_heap_region(h, granule);
  struct mlz_page *page = r ? &r->pages[granule >> MLZ_LEAF_SHIFT & (MLZ_REGION_PAGES - 1)] : NULL;
  struct mlz_leaf *leaf = page ? mlz_page_leaf(page) : NULL;
  return (struct mlz_place){.page = page, .at = leaf ? &leaf->at[granule & 255] : NULL};
}

/* The block at the granule; NULL: none. Valid until the next change of the heap. */
static inline struct mlz_live *mlz_heap_find(struct mlz_heap *h, uint64_t granule) {
  struct mlz_place p = mlz_heap_place(h, granule);
  return p.at && *p.at ? &h->blocks[*p.at] : NULL;
}

/* Adds a block at a place that holds none. false: out of memory. */
static inline bool mlz_heap_put(struct mlz_heap *h, struct mlz_place p, struct mlz_live block) {
  uint32_t n = h->blocks_free;
  if (__builtin_expect(n != 0, 1)) {
    h->blocks_free = h->blocks[n].stack;
  } else {
    if (__builtin_expect(h->blocks_used == h->blocks_size, 0) && !mlz_heap_blocks_grow(h)) return false;
    n = h->blocks_used++;
  }
  h->blocks[n] = block;
  *p.at = n;
  p.page->count++;
  h->live++;
  return true;
}

/* Adds a block at a granule that holds none. false: out of memory. */
static inline bool mlz_heap_add(struct mlz_heap *h, uint64_t granule, struct mlz_live block) {
  struct mlz_place p = mlz_heap_place(h, granule);
  if (__builtin_expect(!p.at, 0)) p = mlz_heap_place_make(h, granule);
  return p.at && mlz_heap_put(h, p, block);
}

/* Takes the block at the granule out. false: there is none. */
static inline bool mlz_heap_take(struct mlz_heap *h, uint64_t granule, struct mlz_live *out) {
  struct mlz_place p = mlz_heap_place(h, granule);
  uint32_t n = p.at ? *p.at : 0;
  if (__builtin_expect(!n, 0)) return false;
  struct mlz_live *block = &h->blocks[n];
  *out = *block;
  block->stack = h->blocks_free;
  h->blocks_free = n;
  *p.at = 0;
  h->live--;
  if (__builtin_expect(--p.page->count == 0, 0)) mlz_heap_leaf_drop(h, granule);
  return true;
}

/* The granule's leaf, where its region is in the cache; NULL: not, or there is none. */
static inline __attribute__((always_inline)) const struct mlz_leaf *mlz_heap_leaf_cached(const struct mlz_heap *h, uint64_t granule) {
  uint64_t number = granule >> MLZ_REGION_SHIFT;
  const struct mlz_region_slot *c = &h->cache[number % MLZ_REGION_CACHE];
  return c->number == number + 1 ? mlz_page_leaf(&c->region->pages[granule >> MLZ_LEAF_SHIFT & (MLZ_REGION_PAGES - 1)]) : NULL;
}

/* Two steps of looking ahead, so that the misses of several blocks overlap: fetches the line of a granule's block number, then, some events
 * later, that of its block. Any granule is good, whether it was ever seen or not. (gcc 12 takes a function that only prefetches for one without effect, and
 * drops the calls that it has not inlined by then.) */
static inline __attribute__((always_inline)) void mlz_heap_fetch_place(const struct mlz_heap *h, uint64_t granule) {
  const struct mlz_leaf *leaf = mlz_heap_leaf_cached(h, granule);
  if (leaf) __builtin_prefetch(&leaf->at[granule & 255], 1);
}
static inline __attribute__((always_inline)) void mlz_heap_fetch_block(const struct mlz_heap *h, uint64_t granule) {
  const struct mlz_leaf *leaf = mlz_heap_leaf_cached(h, granule);
  if (leaf) __builtin_prefetch(&h->blocks[leaf->at[granule & 255]], 1);
}

#endif
