#include "tracer/recorder/heap.h"

#include <stdlib.h>
#include <string.h>

static size_t slot_of(const struct mlz_heap *h, uint64_t page) {
  return (size_t)(page * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (h->capacity - 1);
}

void mlz_heap_init(struct mlz_heap *h) { memset(h, 0, sizeof *h); }

void mlz_heap_deinit(struct mlz_heap *h) {
  for (size_t i = 0; i < h->capacity; i++) free(h->slots[i].leaf);
  free(h->spare);
  free(h->slots);
  free(h->blocks);
  mlz_heap_init(h);
}

static void cache_set(struct mlz_heap *h, uint64_t page, struct mlz_leaf *leaf) {
  h->cache[page % MLZ_LEAF_CACHE] = (struct mlz_leaf_slot){.page = page + 1, .leaf = leaf};
}

struct mlz_leaf *mlz_heap_leaf_find(struct mlz_heap *h, uint64_t page) {
  if (!h->capacity) return NULL;
  for (size_t at = slot_of(h, page); h->slots[at].page; at = (at + 1) & (h->capacity - 1)) {
    if (h->slots[at].page != page + 1) continue;
    cache_set(h, page, h->slots[at].leaf);
    return h->slots[at].leaf;
  }
  return NULL;
}

static bool slots_grow(struct mlz_heap *h) {
  size_t old = h->capacity, capacity = old ? old * 2 : 64;
  struct mlz_leaf_slot *from = h->slots, *slots = calloc(capacity, sizeof *slots);
  if (!slots) return false;
  h->slots = slots;
  h->capacity = capacity;
  for (size_t i = 0; i < old; i++) {
    if (!from[i].page) continue;
    size_t at = slot_of(h, from[i].page - 1);
    while (slots[at].page) at = (at + 1) & (capacity - 1);
    slots[at] = from[i];
  }
  free(from);
  return true;
}

struct mlz_leaf *mlz_heap_leaf_make(struct mlz_heap *h, uint64_t page) {
  if ((h->leaves + 1) * 3 > h->capacity * 2 && !slots_grow(h)) return NULL;
  struct mlz_leaf *leaf = h->spare ? h->spare : calloc(1, sizeof *leaf);
  if (!leaf) return NULL;
  h->spare = NULL;
  size_t at = slot_of(h, page);
  while (h->slots[at].page) at = (at + 1) & (h->capacity - 1);
  h->slots[at] = (struct mlz_leaf_slot){.page = page + 1, .leaf = leaf};
  h->leaves++;
  cache_set(h, page, leaf);
  return leaf;
}

/* Linear probing without tombstones: what follows the hole moves back. */
void mlz_heap_leaf_drop(struct mlz_heap *h, uint64_t page) {
  size_t mask = h->capacity - 1, hole = slot_of(h, page);
  while (h->slots[hole].page != page + 1) hole = (hole + 1) & mask;
  struct mlz_leaf *leaf = h->slots[hole].leaf; /* all zero again */
  for (size_t at = (hole + 1) & mask; h->slots[at].page; at = (at + 1) & mask) {
    size_t home = slot_of(h, h->slots[at].page - 1);
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    h->slots[hole] = h->slots[at];
    hole = at;
  }
  h->slots[hole] = (struct mlz_leaf_slot){0};
  h->leaves--;
  if (h->cache[page % MLZ_LEAF_CACHE].page == page + 1) h->cache[page % MLZ_LEAF_CACHE].page = 0;
  if (h->spare) {
    free(leaf);
  } else {
    h->spare = leaf;
  }
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
