#include "analyzer/intern.h"

#include "analyzer/text.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const void *mlz_intern_bytes(const struct mlz_intern *in, uint32_t number, size_t *size) {
  size_t begin = number ? in->ends[number - 1] : 0;
  *size = in->ends[number] - begin;
  return begin ? in->bytes + begin : in->bytes; /* NULL where there is nothing yet */
}

/* The slot that holds the key, or the empty one where it belongs. */
static size_t slot_of(const struct mlz_intern *in, const void *key, size_t size) {
  size_t mask = in->table_size - 1, at = XXH64(key, size, 0) & mask;
  for (; in->table[at]; at = (at + 1) & mask) {
    size_t other;
    const void *bytes = mlz_intern_bytes(in, in->table[at] - 1, &other);
    if (other == size && (!size || !memcmp(bytes, key, size))) break;
  }
  return at;
}

static void grow(struct mlz_intern *in) {
  free(in->table);
  in->table_size = in->table_size ? in->table_size * 2 : 256;
  in->table = mlz_text_calloc(in->table_size, sizeof *in->table);
  for (uint32_t i = 0; i < in->n; i++) {
    size_t size;
    const void *bytes = mlz_intern_bytes(in, i, &size);
    in->table[slot_of(in, bytes, size)] = i + 1;
  }
}

static void append(struct mlz_intern *in, const void *key, size_t size) {
  if (in->n_bytes + size > in->room_bytes) {
    in->room_bytes = (in->n_bytes + size) * 2;
    in->bytes = mlz_text_realloc(in->bytes, in->room_bytes, 1);
  }
  if (size) memcpy(in->bytes + in->n_bytes, key, size);
  in->n_bytes += size;
  if (in->n == in->room) {
    in->room = in->room ? in->room * 2 : 128;
    in->ends = mlz_text_realloc(in->ends, in->room, sizeof *in->ends);
  }
  in->ends[in->n++] = in->n_bytes;
}

uint32_t mlz_intern_key(struct mlz_intern *in, const void *key, size_t size) {
  if (((size_t)in->n + 1) * 2 > in->table_size) grow(in);
  size_t slot = slot_of(in, key, size);
  if (!in->table[slot]) {
    append(in, key, size);
    in->table[slot] = in->n;
  }
  return in->table[slot] - 1;
}

uint32_t mlz_intern_text(struct mlz_intern *in, const char *text) { return mlz_intern_key(in, text, strlen(text)); }

uint32_t mlz_intern_find(const struct mlz_intern *in, const void *key, size_t size) {
  return in->n ? in->table[slot_of(in, key, size)] - 1 : MLZ_INTERN_NONE; /* an empty slot gives MLZ_INTERN_NONE, too */
}

void mlz_intern_clear(struct mlz_intern *in) {
  free(in->bytes);
  free(in->ends);
  free(in->table);
  *in = (struct mlz_intern){0};
}
