/* Numbers for keys of any bytes: the same bytes get the same number, 0 first. One thread. Memory: a copy of each distinct key. */
#ifndef MLZ_ANALYZER_INTERN_H
#define MLZ_ANALYZER_INTERN_H

#include <stddef.h>
#include <stdint.h>

#define MLZ_INTERN_NONE UINT32_MAX

struct mlz_intern {
  unsigned char *bytes; /* of all keys, one behind the other */
  size_t n_bytes, room_bytes;
  size_t *ends; /* by number */
  uint32_t n, room;
  uint32_t *table; /* open addressing: number + 1 */
  size_t table_size;
};

uint32_t mlz_intern_key(struct mlz_intern *i, const void *key, size_t size);
uint32_t mlz_intern_text(struct mlz_intern *i, const char *text);
/* MLZ_INTERN_NONE: it has no number. */
uint32_t mlz_intern_find(const struct mlz_intern *i, const void *key, size_t size);
/* Its bytes; not ended by a NUL. */
const void *mlz_intern_bytes(const struct mlz_intern *i, uint32_t number, size_t *size);
void mlz_intern_clear(struct mlz_intern *i);

#endif
