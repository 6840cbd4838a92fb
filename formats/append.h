/* The hot functions of a builder, inline, for the drain thread, which calls one for each event. writer.h has the same as plain functions: what they do is said there. */
#ifndef MLZ_FORMATS_APPEND_H
#define MLZ_FORMATS_APPEND_H

#include "formats/builder.h"

/* Slow cases. */
void mlz_builder_settle(struct mlz_builder *b); /* thread or time differ from those of the last event */
void mlz_builder_weigh(struct mlz_builder *b, double weight);
uint32_t mlz_builder_class_add(struct mlz_builder *b, uint64_t key, uint32_t stack);
uint32_t mlz_builder_room(const struct mlz_builder *b); /* so many events may be added before it must be asked again */

static inline uint64_t mlz_append_hash(uint64_t key, uint32_t stack) {
  uint64_t h = (key ^ (uint64_t)stack << 21) * UINT64_C(0x9e3779b97f4a7c15);
  return h >> 32 ^ h >> 15;
}

static inline uint64_t mlz_append_key(struct mlz_builder *b, uint64_t size, unsigned domain, double weight) {
  if (__builtin_expect(weight != b->weight, 0)) mlz_builder_weigh(b, weight);
  return size | (uint64_t)domain << 48 | (uint64_t)b->weight_index << 52;
}

static inline uint32_t mlz_append_class_of(struct mlz_builder *b, uint32_t stack, uint64_t key) {
  for (uint64_t h = mlz_append_hash(key, stack);; h++) {
    const struct mlz_builder_class *k = &b->hash[h & b->hash_mask];
    if (__builtin_expect(k->key == key && k->stack == stack, 1)) return k->class;
    if (k->key == MLZ_BUILDER_EMPTY) return mlz_builder_class_add(b, key, stack);
  }
}

/* size below 2^48, domain below 16 */
static inline uint32_t mlz_append_class(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  return mlz_append_class_of(b, stack, mlz_append_key(b, size, domain, weight));
}

static inline void mlz_append_event(struct mlz_builder *b, uint8_t op) {
  if (__builtin_expect(b->pending, 0)) mlz_builder_settle(b);
  b->ops[b->n++] = op;
}

static inline uint64_t mlz_append_alloc(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  mlz_append_event(b, MLZ_OP_ALLOC);
  uint32_t a = b->allocs++;
  b->alloc_class[a] = mlz_append_class(b, stack, size, domain, weight);
  b->thread_latest[b->thread_index] = a + 1;
  return b->first_alloc + a;
}

static inline void mlz_append_free(struct mlz_builder *b, uint64_t alloc_no, uint32_t stack, uint64_t size, unsigned domain, double weight,
                                   bool temporary) {
  b->frees++;
  if (alloc_no < b->first_alloc) {
    mlz_append_event(b, temporary ? MLZ_OP_FREE_OLD_TEMP : MLZ_OP_FREE_OLD);
    b->old_class[b->olds] = mlz_append_class(b, stack, size, domain, weight);
    b->old_ref[b->olds++] = b->first_alloc - 1 - alloc_no;
    return;
  }
  uint32_t a = (uint32_t)(alloc_no - b->first_alloc);
  if (temporary) {
    mlz_append_event(b, MLZ_OP_FREE_TEMP);
    if (b->thread_latest[b->thread_index] == a + 1) return;
    b->ops[b->n - 1] = MLZ_FILE_OP_FREE_TEMP_REF;
  } else {
    mlz_append_event(b, MLZ_OP_FREE);
  }
  b->ref[b->refs] = a;
  b->ref_allocs[b->refs++] = b->allocs;
}

#endif
