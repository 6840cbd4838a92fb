#include "tracer/recorder/extents.h"

#include <stdlib.h>
#include <string.h>

void mlz_extents_deinit(struct mlz_extents *e) {
  free(e->at);
  *e = (struct mlz_extents){0};
}

size_t mlz_extents_find(const struct mlz_extents *e, uint64_t start) {
  size_t low = 0, high = e->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (e->at[middle].end > start) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

bool mlz_extents_add(struct mlz_extents *e, struct mlz_range x) {
  if (e->count == e->size) {
    size_t size = e->size ? e->size * 2 : 64;
    struct mlz_range *grown = reallocarray(e->at, size, sizeof *grown);
    if (!grown) return false;
    e->at = grown;
    e->size = size;
  }
  size_t i = mlz_extents_find(e, x.start);
  memmove(e->at + i + 1, e->at + i, (e->count - i) * sizeof *e->at);
  e->at[i] = x;
  e->count++;
  return true;
}

bool mlz_extents_take(struct mlz_extents *e, uint64_t start, uint64_t end, struct mlz_range *out) {
  size_t i = mlz_extents_find(e, start);
  if (i == e->count || e->at[i].start >= end) return false;
  *out = e->at[i];
  e->count--;
  memmove(e->at + i, e->at + i + 1, (e->count - i) * sizeof *e->at);
  return true;
}
