#include "formats/builder.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

struct mlz_builder *mlz_builder_new(void) {
  void *p = mmap(NULL, sizeof(struct mlz_builder), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return NULL;
  struct mlz_builder *b = p;
  mlz_builder_begin(b, 0, 0, 0);
  return b;
}

struct mlz_builder *mlz_builder_free(struct mlz_builder *b) {
  if (b != NULL) munmap(b, sizeof *b);
  return NULL;
}

void mlz_builder_begin(struct mlz_builder *b, uint32_t process, uint64_t first_alloc, uint64_t now_ns) {
  memset(b, 0, offsetof(struct mlz_builder, weights));
  memset(b->thread_slot, 0, sizeof b->thread_slot);
  b->hash_mask = MLZ_BUILDER_HASH_MIN - 1;
  memset(b->hash, 0, MLZ_BUILDER_HASH_MIN * sizeof b->hash[0]);
  b->process = process;
  b->first_alloc = first_alloc;
  b->first_ns = b->now_ns = b->last_ns = now_ns;
  b->pending = true;
}

bool mlz_builder_full(const struct mlz_builder *b) {
  return b->n + 8 > MLZ_CHUNK_EVENTS_MAX || b->rares_n + 8 > MLZ_RARES_MAX || b->weights_n + 8 > MLZ_WEIGHTS_MAX;
}

uint32_t mlz_builder_count(const struct mlz_builder *b) { return b->n; }

void mlz_builder_time(struct mlz_builder *b, uint64_t ns) {
  if (ns > b->now_ns) {
    b->now_ns = ns;
    b->pending = true;
  }
}

void mlz_builder_thread(struct mlz_builder *b, uint32_t thread) {
  if (thread != b->thread) {
    b->thread = thread;
    b->pending = true;
  }
}

/* The place of the current thread in the chunk's list. A slot taken by another thread with the same low bits costs a walk. */
static uint32_t thread_index(struct mlz_builder *b) {
  uint32_t *slot = &b->thread_slot[b->thread % MLZ_BUILDER_THREAD_SLOTS];
  if (*slot != 0 && b->thread_id[*slot - 1] == b->thread) return *slot - 1;
  uint32_t i = 0;
  if (*slot == 0) i = b->threads_n;
  while (i < b->threads_n && b->thread_id[i] != b->thread) i++;
  if (i == b->threads_n) {
    b->thread_id[i] = b->thread;
    b->thread_latest[i] = 0;
    b->threads_n++;
  }
  *slot = i + 1;
  return i;
}

/* Before an event whose thread or time may differ from the previous event's. */
static __attribute__((noinline, cold)) void settle(struct mlz_builder *b) {
  b->pending = false;
  if (b->runs_n == 0 || b->thread_id[b->thread_index] != b->thread) {
    b->thread_index = thread_index(b);
    b->runs[b->runs_n++] = (struct mlz_builder_run){.event = b->n, .index = b->thread_index};
  }
  if (b->n == 0)
    b->first_ns = b->now_ns;
  else if (b->now_ns != b->last_ns)
    b->steps[b->steps_n++] = (struct mlz_builder_step){.ns = b->now_ns, .event = b->n, .alloc = b->allocs};
  b->last_ns = b->now_ns;
}

static inline void event(struct mlz_builder *b, uint8_t op) {
  assert(b->n < MLZ_CHUNK_EVENTS_MAX); /* the caller asks mlz_builder_full */
  if (UNLIKELY(b->pending)) settle(b);
  b->ops[b->n++] = op;
}

static inline uint64_t class_hash(uint32_t stack, uint64_t size, unsigned domain) {
  uint64_t h = (size << 3 | domain) * UINT64_C(0x9e3779b97f4a7c15) ^ stack * UINT64_C(0xc2b2ae3d27d4eb4f);
  return h ^ h >> 29;
}

static __attribute__((noinline, cold)) void hash_grow(struct mlz_builder *b) {
  uint32_t size = (b->hash_mask + 1) * 4;
  if (size > MLZ_BUILDER_HASH_MAX) size = MLZ_BUILDER_HASH_MAX;
  memset(b->hash, 0, size * sizeof b->hash[0]);
  b->hash_mask = size - 1;
  for (uint32_t i = 0; i < b->classes_n; i++) {
    const struct mlz_class *k = &b->classes[i];
    uint64_t h = class_hash(k->stack, k->size, k->domain);
    while (b->hash[h & b->hash_mask] != 0) h++;
    b->hash[h & b->hash_mask] = i + 1;
  }
}

static __attribute__((noinline)) uint32_t class_add(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  if ((b->classes_n + 1) * 2 > b->hash_mask + 1 && b->hash_mask + 1 < MLZ_BUILDER_HASH_MAX) hash_grow(b);
  uint64_t h = class_hash(stack, size, domain);
  while (b->hash[h & b->hash_mask] != 0) h++;
  /* Readers refuse a chunk with a class beyond the format's limits; one odd event must not cost all others. */
  if (size >> 48 != 0) size = (UINT64_C(1) << 48) - 1;
  if (!(weight >= 1 && weight <= 0x1p33)) weight = 1;
  uint32_t i = b->classes_n++;
  b->classes[i] = (struct mlz_class){.size = size, .weight = weight, .stack = stack, .domain = domain <= 4 ? domain : 0};
  b->hash[h & b->hash_mask] = i + 1;
  uint32_t w = 0;
  while (w < b->weights_n && b->weights[w] != weight) w++;
  if (w == b->weights_n) {
    assert(w < MLZ_WEIGHTS_MAX);
    b->weights[b->weights_n++] = weight;
  }
  return i;
}

static inline uint32_t class_of(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  for (uint64_t h = class_hash(stack, size, domain);; h++) {
    uint32_t at = b->hash[h & b->hash_mask];
    if (UNLIKELY(at == 0)) return class_add(b, stack, size, domain, weight);
    const struct mlz_class *k = &b->classes[at - 1];
    if (k->size == size && k->stack == stack && k->domain == domain && k->weight == weight) return at - 1;
  }
}

uint64_t mlz_builder_alloc(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  event(b, MLZ_OP_ALLOC);
  uint32_t a = b->allocs++;
  b->alloc_class[a] = class_of(b, stack, size, domain, weight);
  b->thread_latest[b->thread_index] = a + 1;
  return b->first_alloc + a;
}

void mlz_builder_free_block(struct mlz_builder *b, uint64_t alloc_no, uint32_t stack, uint64_t size, unsigned domain, double weight,
                            bool temporary) {
  b->frees++;
  if (UNLIKELY(alloc_no < b->first_alloc)) {
    event(b, temporary ? MLZ_OP_FREE_OLD_TEMP : MLZ_OP_FREE_OLD);
    b->old_class[b->olds] = class_of(b, stack, size, domain, weight);
    b->old_ref[b->olds++] = b->first_alloc - 1 - alloc_no;
    return;
  }
  uint32_t a = (uint32_t)(alloc_no - b->first_alloc);
  assert(alloc_no - b->first_alloc < b->allocs);
  if (temporary) {
    event(b, MLZ_OP_FREE_TEMP);
    if (b->thread_latest[b->thread_index] == a + 1) return;
    b->ops[b->n - 1] = MLZ_FILE_OP_FREE_TEMP_REF;
  } else {
    event(b, MLZ_OP_FREE);
  }
  b->ref[b->refs] = a;
  b->ref_allocs[b->refs++] = b->allocs;
}

void mlz_builder_free_foreign(struct mlz_builder *b) {
  b->frees++;
  event(b, MLZ_OP_FREE_FOREIGN);
}

void mlz_builder_rare(struct mlz_builder *b, const struct mlz_rare *r) {
  assert(r->op >= MLZ_OP_RARE && r->op < MLZ_OP_COUNT && b->rares_n < MLZ_RARES_MAX);
  event(b, (uint8_t)r->op);
  b->rares[b->rares_n++] = *r;
}
