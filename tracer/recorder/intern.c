#include "tracer/recorder/intern.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PIECE_BYTES (64u << 10)

struct piece {
  struct piece *next;
  uint64_t data[];
};

void mlz_intern_deinit(struct mlz_intern *t) {
  for (struct piece *p = t->pieces, *next; p; p = next) {
    next = p->next;
    free(p);
  }
  free(t->slots);
  memset(t, 0, sizeof *t);
}

static uint8_t *arena_take(struct mlz_intern *t, size_t bytes) {
  size_t need = bytes ? (bytes + 7) & ~(size_t)7 : 8;
  if (t->arena_size - t->arena_used < need) {
    size_t size = need > PIECE_BYTES ? need : PIECE_BYTES;
    struct piece *p = malloc(sizeof *p + size);
    if (!p) return NULL;
    p->next = t->pieces;
    t->pieces = p;
    t->arena = (uint8_t *)p->data;
    t->arena_size = size;
    t->arena_used = 0;
  }
  uint8_t *at = t->arena + t->arena_used;
  t->arena_used += need;
  return at;
}

static bool grow(struct mlz_intern *t) {
  size_t capacity = t->capacity ? t->capacity * 2 : 256;
  struct mlz_intern_slot *slots = calloc(capacity, sizeof *slots);
  if (!slots) return false;
  for (size_t i = 0; i < t->capacity; i++) {
    if (!t->slots[i].hash) continue;
    size_t at = t->slots[i].hash & (capacity - 1);
    while (slots[at].hash) at = (at + 1) & (capacity - 1);
    slots[at] = t->slots[i];
  }
  free(t->slots);
  t->slots = slots;
  t->capacity = capacity;
  return true;
}

uint32_t *mlz_intern_get(struct mlz_intern *t, const void *key, size_t bytes, bool *added, const void **copy) {
  if ((t->count + 1) * 4 > t->capacity * 3 && !grow(t)) return NULL;
  uint64_t hash = XXH3_64bits(key, bytes) | 1;
  size_t at = hash & (t->capacity - 1);
  for (; t->slots[at].hash; at = (at + 1) & (t->capacity - 1)) {
    struct mlz_intern_slot *s = &t->slots[at];
    if (s->hash == hash && s->bytes == bytes && (!bytes || memcmp(s->key, key, bytes) == 0)) {
      *added = false;
      if (copy) *copy = s->key;
      return &s->value;
    }
  }
  uint8_t *own = arena_take(t, bytes);
  if (!own) return NULL;
  if (bytes) memcpy(own, key, bytes);
  t->slots[at] = (struct mlz_intern_slot){.hash = hash, .key = own, .bytes = (uint32_t)bytes, .value = 0};
  t->count++;
  *added = true;
  if (copy) *copy = own;
  return &t->slots[at].value;
}
