#include "tracer/recorder/heap.h"

#include <stdlib.h>
#include <string.h>

static size_t slot_of(const struct mlz_heap *h, uint64_t number) {
  return (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (h->capacity - 1);
}

void mlz_heap_init(struct mlz_heap *h) { memset(h, 0, sizeof *h); }

static void region_free(struct mlz_region *r) {
  for (unsigned i = 0; r && r->leaves && i < MLZ_REGION_PAGES; i++) free(mlz_page_leaf(&r->pages[i]));
  free(r);
}

void mlz_heap_deinit(struct mlz_heap *h) {
  for (size_t i = 0; i < h->capacity; i++) region_free(h->slots[i].region);
  while (h->spares) free(h->spare[--h->spares]);
  while (h->spare_regions) free(h->spare_region[--h->spare_regions]);
  free(h->slots);
  free(h->blocks);
  mlz_heap_init(h);
}

static void cache_set(struct mlz_heap *h, uint64_t number, struct mlz_region *region) {
  h->cache[number % MLZ_REGION_CACHE] = (struct mlz_region_slot){.number = region ? number + 1 : 0, .region = region};
}

struct mlz_region *mlz_heap_region_find(struct mlz_heap *h, uint64_t number) {
  if (!h->capacity) return NULL;
  for (size_t at = slot_of(h, number); h->slots[at].number; at = (at + 1) & (h->capacity - 1)) {
    if (h->slots[at].number != number + 1) continue;
    cache_set(h, number, h->slots[at].region);
    return h->slots[at].region;
  }
  return NULL;
}

static bool slots_grow(struct mlz_heap *h) {
  size_t old = h->capacity, capacity = old ? old * 2 : 16;
  struct mlz_region_slot *from = h->slots, *slots = calloc(capacity, sizeof *slots);
  if (!slots) return false;
  h->slots = slots;
  h->capacity = capacity;
  for (size_t i = 0; i < old; i++) {
    if (!from[i].number) continue;
    size_t at = slot_of(h, from[i].number - 1);
    while (slots[at].number) at = (at + 1) & (capacity - 1);
    slots[at] = from[i];
  }
  free(from);
  return true;
}

static struct mlz_region *region_make(struct mlz_heap *h, uint64_t number) {
  if ((h->regions + 1) * 3 > h->capacity * 2 && !slots_grow(h)) return NULL;
  struct mlz_region *r = h->spare_regions ? h->spare_region[--h->spare_regions] : calloc(1, sizeof *r);
  if (!r) return NULL;
  size_t at = slot_of(h, number);
  while (h->slots[at].number) at = (at + 1) & (h->capacity - 1);
  h->slots[at] = (struct mlz_region_slot){.number = number + 1, .region = r};
  h->regions++;
  cache_set(h, number, r);
  return r;
}

/* Linear probing without tombstones: what follows the hole moves back. */
static void region_drop(struct mlz_heap *h, uint64_t number) {
  size_t mask = h->capacity - 1, hole = slot_of(h, number);
  while (h->slots[hole].number != number + 1) hole = (hole + 1) & mask;
  struct mlz_region *r = h->slots[hole].region; /* all zero again */
  if (h->spare_regions < MLZ_REGION_SPARES) {
    h->spare_region[h->spare_regions++] = r;
  } else {
    free(r);
  }
  for (size_t at = (hole + 1) & mask; h->slots[at].number; at = (at + 1) & mask) {
    size_t home = slot_of(h, h->slots[at].number - 1);
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    h->slots[hole] = h->slots[at];
    hole = at;
  }
  h->slots[hole] = (struct mlz_region_slot){0};
  h->regions--;
  if (h->cache[number % MLZ_REGION_CACHE].number == number + 1) cache_set(h, number, NULL);
}

struct mlz_place mlz_heap_place_make(struct mlz_heap *h, uint64_t granule) {
  struct mlz_region *r = mlz_heap_region(h, granule);
  if (!r) r = region_make(h, granule >> MLZ_REGION_SHIFT);
  if (!r) return (struct mlz_place){.at = NULL};
  struct mlz_page *page = &r->pages[granule >> MLZ_LEAF_SHIFT & (MLZ_REGION_PAGES - 1)];
  struct mlz_leaf *leaf = mlz_page_leaf(page);
  if (!leaf) {
    leaf = h->spares ? h->spare[--h->spares] : calloc(1, sizeof *leaf);
    if (!leaf) return (struct mlz_place){.at = NULL}; /* a region without leaves stays until its next leaf goes */
    page->leaf = (uintptr_t)leaf;
    r->leaves++;
    h->leaves++;
  }
  return (struct mlz_place){.page = page, .at = &leaf->at[granule & 255]};
}

void mlz_heap_leaf_drop(struct mlz_heap *h, uint64_t granule) {
  struct mlz_region *r = mlz_heap_region(h, granule);
  struct mlz_page *page = &r->pages[granule >> MLZ_LEAF_SHIFT & (MLZ_REGION_PAGES - 1)];
  struct mlz_leaf *leaf = mlz_page_leaf(page); /* all zero again */
  if (h->spares < MLZ_LEAF_SPARES) {
    h->spare[h->spares++] = leaf;
  } else {
    free(leaf);
  }
  page->leaf = 0;
  h->leaves--;
  if (--r->leaves == 0) region_drop(h, granule >> MLZ_REGION_SHIFT);
}

bool mlz_heap_blocks_grow(struct mlz_heap *h) {
  uint64_t size = h->blocks_size ? (uint64_t)h->blocks_size * 2 : 256;
  if (size > UINT32_MAX) return false;
  struct mlz_live *grown = reallocarray(h->blocks, size, sizeof *grown);
  if (!grown) return false;
  h->blocks = grown;
  h->blocks_size = (uint32_t)size;
  if (!h->blocks_used) h->blocks_used = 1; /* number 0 means none */
  return true;
}
