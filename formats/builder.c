#include "formats/append.h"

#include <assert.h>
#include <math.h>
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
  b->weight = NAN;
  memset(b->hash, 0xff, MLZ_BUILDER_HASH_MIN * sizeof b->hash[0]); /* MLZ_BUILDER_EMPTY */
  b->process = process;
  b->first_alloc = first_alloc;
  b->first_ns = b->now_ns = b->last_ns = now_ns;
  b->pending = true;
}

bool mlz_builder_full(const struct mlz_builder *b) {
  return b->n + 8 > MLZ_CHUNK_EVENTS_MAX || b->rares_n + 8 > MLZ_RARES_MAX || b->weights_n + 8 > MLZ_WEIGHTS_MAX;
}

uint32_t mlz_builder_room(const struct mlz_builder *b) {
  uint32_t events = MLZ_CHUNK_EVENTS_MAX - b->n, rares = MLZ_RARES_MAX - b->rares_n, weights = MLZ_WEIGHTS_MAX - b->weights_n;
  uint32_t least = events < rares ? events : rares; /* an event adds at most one of each */
  return weights < least ? weights : least;
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
__attribute__((cold)) void mlz_builder_settle(struct mlz_builder *b) {
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

/* Its index among the chunk's weights. Readers refuse a chunk with a class beyond the format's limits; one odd event must not cost all others. */
static uint32_t weight_index(struct mlz_builder *b, double weight) {
  if (!(weight >= 1 && weight <= 0x1p33)) weight = 1;
  uint32_t w = 0;
  while (w < b->weights_n && b->weights[w] != weight) w++;
  if (w == b->weights_n) {
    assert(w < MLZ_WEIGHTS_MAX);
    b->weights[b->weights_n++] = weight;
  }
  return w;
}

void mlz_builder_weigh(struct mlz_builder *b, double weight) {
  b->weight_index = weight_index(b, weight);
  b->weight = weight;
}

static struct mlz_builder_class *class_place(struct mlz_builder *b, uint64_t key, uint32_t stack) {
  uint64_t h = mlz_append_hash(key, stack);
  while (b->hash[h & b->hash_mask].key != MLZ_BUILDER_EMPTY) h++;
  return &b->hash[h & b->hash_mask];
}

static __attribute__((noinline, cold)) void hash_grow(struct mlz_builder *b) {
  uint32_t size = (b->hash_mask + 1) * 4;
  if (size > MLZ_BUILDER_HASH_MAX) size = MLZ_BUILDER_HASH_MAX;
  memset(b->hash, 0xff, size * sizeof b->hash[0]);
  b->hash_mask = size - 1;
  for (uint32_t i = 0; i < b->classes_n; i++) {
    const struct mlz_class *k = &b->classes[i];
    uint64_t key = k->size | (uint64_t)k->domain << 48 | (uint64_t)weight_index(b, k->weight) << 52;
    *class_place(b, key, k->stack) = (struct mlz_builder_class){.key = key, .stack = k->stack, .class = i};
  }
}

__attribute__((cold)) uint32_t mlz_builder_class_add(struct mlz_builder *b, uint64_t key, uint32_t stack) {
  if ((b->classes_n + 1) * 2 > b->hash_mask + 1 && b->hash_mask + 1 < MLZ_BUILDER_HASH_MAX) hash_grow(b);
  uint32_t i = b->classes_n++;
  unsigned domain = key >> 48 & 15;
  b->classes[i] = (struct mlz_class){
      .size = key & ((UINT64_C(1) << 48) - 1), .weight = b->weights[key >> 52], .stack = stack, .domain = domain <= 4 ? domain : 0};
  *class_place(b, key, stack) = (struct mlz_builder_class){.key = key, .stack = stack, .class = i};
  return i;
}

static uint64_t size_limit(uint64_t size) { return size >> 48 ? (UINT64_C(1) << 48) - 1 : size; }

uint64_t mlz_builder_alloc(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  assert(b->n < MLZ_CHUNK_EVENTS_MAX); /* the caller asks mlz_builder_full */
  return mlz_append_alloc(b, stack, size_limit(size), domain & 15, weight);
}

void mlz_builder_free_block(struct mlz_builder *b, uint64_t alloc_no, uint32_t stack, uint64_t size, unsigned domain, double weight,
                            bool temporary) {
  assert(b->n < MLZ_CHUNK_EVENTS_MAX);
  assert(alloc_no < b->first_alloc + b->allocs);
  mlz_append_free(b, alloc_no, stack, size_limit(size), domain & 15, weight, temporary);
}

void mlz_builder_free_foreign(struct mlz_builder *b) {
  assert(b->n < MLZ_CHUNK_EVENTS_MAX);
  b->frees++;
  mlz_append_event(b, MLZ_OP_FREE_FOREIGN);
}

void mlz_builder_rare(struct mlz_builder *b, const struct mlz_rare *r) {
  assert(b->n < MLZ_CHUNK_EVENTS_MAX && r->op >= MLZ_OP_RARE && r->op < MLZ_OP_COUNT && b->rares_n < MLZ_RARES_MAX);
  mlz_append_event(b, (uint8_t)r->op);
  b->rares[b->rares_n++] = *r;
}
