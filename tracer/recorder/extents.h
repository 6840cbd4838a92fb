/* The live mappings of one image (the mmap domain): disjoint address ranges, each with the allocation it belongs to.
 * Recorder process, drain thread only.
 *
 * munmap may take a piece out of a mapping, and a new mapping may be laid over old ones. The file knows whole blocks only, so a
 * mapping that loses a part is written as its FREE and one ALLOC (same stack) for each part that stays; such an ALLOC counts as
 * an allocation of the mmap domain. */
#ifndef MLZ_RECORDER_EXTENTS_H
#define MLZ_RECORDER_EXTENTS_H

#include "tracer/recorder/heap.h"

struct mlz_range {
  uint64_t start, end; /* granules */
  struct mlz_live block;
};
struct mlz_extents {
  struct mlz_range *at; /* sorted by start; the kernel allows a process 65530 mappings, so moving them is cheap enough */
  size_t count, size;
};

void mlz_extents_deinit(struct mlz_extents *e);

/* Index of the first extent that ends after `start`. */
size_t mlz_extents_find(const struct mlz_extents *e, uint64_t start);
/* Adds a range that overlaps none. false: out of memory. */
bool mlz_extents_add(struct mlz_extents *e, struct mlz_range x);
/* Takes the first extent that overlaps [start, end) out. false: there is none. */
bool mlz_extents_take(struct mlz_extents *e, uint64_t start, uint64_t end, struct mlz_range *out);

#endif
