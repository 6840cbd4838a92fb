#include "analyzer/owners.h"

#include "analyzer/text.h"

#include <stdlib.h>

/* 24 bits of process, 40 of allocation number; never 0. */
static uint64_t key_of(uint32_t process, uint64_t alloc_no) {
  return (uint64_t)(process + 1) << 40 | (alloc_no & ((UINT64_C(1) << 40) - 1));
}

static size_t home_of(const struct mlz_owners *o, uint64_t key) {
  uint64_t hash = key * UINT64_C(0x9e3779b97f4a7c15);
  return (hash ^ hash >> 32) & (o->size - 1);
}

static void insert(struct mlz_owners *o, struct mlz_owner owner) {
  size_t at = home_of(o, owner.key);
  while (o->table[at].key && o->table[at].key != owner.key) at = (at + 1) & (o->size - 1);
  o->n += !o->table[at].key;
  o->table[at] = owner;
}

static void grow(struct mlz_owners *o) {
  struct mlz_owners old = *o;
  o->size = old.size ? old.size * 2 : 1024;
  o->n = 0;
  o->table = mlz_text_calloc(o->size, sizeof *o->table);
  for (size_t i = 0; i < old.size; i++)
    if (old.table[i].key) insert(o, old.table[i]);
  free(old.table);
}

void mlz_owners_put(struct mlz_owners *o, uint32_t process, uint64_t alloc_no, uint32_t thread) {
  if ((o->n + 1) * 4 > o->size * 3) grow(o);
  insert(o, (struct mlz_owner){key_of(process, alloc_no), thread});
}

uint32_t mlz_owners_take(struct mlz_owners *o, uint32_t process, uint64_t alloc_no) {
  if (!o->size) return MLZ_OWNER_UNKNOWN;
  uint64_t key = key_of(process, alloc_no);
  size_t at = home_of(o, key);
  while (o->table[at].key && o->table[at].key != key) at = (at + 1) & (o->size - 1);
  if (!o->table[at].key) return MLZ_OWNER_UNKNOWN;
  uint32_t thread = o->table[at].thread;
  /* Those behind move up, so that no probe meets a hole before its entry. */
  for (size_t next = (at + 1) & (o->size - 1); o->table[next].key; next = (next + 1) & (o->size - 1)) {
    size_t home = home_of(o, o->table[next].key);
    if (((next - home) & (o->size - 1)) < ((next - at) & (o->size - 1))) continue;
    o->table[at] = o->table[next];
    at = next;
  }
  o->table[at].key = 0;
  o->n--;
  return thread;
}

void mlz_owners_clear(struct mlz_owners *o) {
  free(o->table);
  *o = (struct mlz_owners){0};
}
