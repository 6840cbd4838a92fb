/* A table from byte strings to numbers: what the recorder uses to give each distinct thing one id.
 * Recorder process, drain thread only. The table owns copies of its keys; memory grows with distinct keys. */
#ifndef MLZ_RECORDER_INTERN_H
#define MLZ_RECORDER_INTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mlz_intern_slot {
  uint64_t hash; /* 0: empty */
  const uint8_t *key;
  uint32_t bytes;
  uint32_t value;
};
struct mlz_intern {
  struct mlz_intern_slot *slots;
  size_t capacity; /* a power of two, or 0 */
  size_t count;
  uint8_t *arena; /* current piece of key storage */
  size_t arena_used, arena_size;
  void *pieces; /* list of all pieces, for deinit */
};

void mlz_intern_deinit(struct mlz_intern *t);

/* The value stored under the key; `*added` tells that the key is new and its value 0, to be set by the caller before the
 * next call. `*copy` (may be NULL) receives the table's own copy of the key, 8-byte aligned, valid as long as the table.
 * NULL: out of memory. */
uint32_t *mlz_intern_get(struct mlz_intern *t, const void *key, size_t bytes, bool *added, const void **copy);

#endif
