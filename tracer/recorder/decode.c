#include "tracer/recorder/account.h"
#include "tracer/recorder/frames.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum verdict { TAKEN, STOPPED, RELEASED, OVER, BROKEN }; /* of one message; STOPPED, OVER: left in the ring */

void mlz_feed_publish(struct mlz_feed *f, uint64_t room) {
  struct mlz_ring *r = f->ring;
  atomic_store_explicit(&r->side_tail, f->side_pos, memory_order_release);
  atomic_store_explicit(&r->tail, f->pos, memory_order_release);
  f->tail = f->pos;
  f->unlooked = f->h2 - f->pos > room;
  if (f->unlooked) return;
  atomic_thread_fence(memory_order_seq_cst); /* concurrency.md 6 */
  if (atomic_load_explicit(&r->waiting, memory_order_relaxed)) {
    atomic_fetch_add(&r->room_futex, 1);
    syscall(SYS_futex, &r->room_futex, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
  }
}

static inline const struct mlz_slot *slot_at(const struct mlz_feed *f, uint64_t pos) { return &f->slots[pos & f->mask]; }

/* Payload slots of a message with frames; *push: number of frames. 0xffffffff: it does not fit. */
static inline uint32_t stack_slots(const struct mlz_feed *f, uint64_t b, uint32_t *push) {
  uint32_t n = (uint32_t)(b >> 56), extra = 0;
  *push = n;
  if (n == 0) return 0;
  if (__builtin_expect(n == MLZ_PUSH_LONG, 0)) {
    if (f->pos + 2 > f->h2) return UINT32_MAX;
    uint64_t real = slot_at(f, f->pos + 1)->a;
    if (real > MLZ_STACK_DEPTH_MAX) return UINT32_MAX;
    n = (uint32_t)real;
    extra = 1;
  }
  *push = n;
  uint32_t slots = extra + (n + 1) / 2;
  return f->pos + 1 + slots <= f->h2 ? slots : UINT32_MAX;
}

/* ---- waiting for other feeds (rules 12, 13) ---- */

/* Should the feed wait for others before it takes the event? What explains an event below h1 lies below h2. What explains one beyond it may have
 * been published after the other ring's h2 was read: there nothing is concluded, the event waits for the next round. */
static bool block(struct mlz_drain *d, struct mlz_feed *f, unsigned kind, uint64_t granule) {
  struct mlz_image *m = f->image;
  if (m->n_feeds == 1) return false;
  if (f->force) {
    f->force = false;
    return false;
  }
  if (kind != MLZ_K_MMAP && f->pos < f->h1 && !mlz_coming(d, f, granule)) return false;
  f->blocked = true;
  f->blocked_kind = (uint8_t)kind;
  f->blocked_granule = granule;
  m->n_blocked++;
  return true;
}

/* An event of `kind` at the granule was taken: who waited for it? */
static bool release(struct mlz_image *m, unsigned kind, uint64_t granule) {
  bool any = false;
  for (struct mlz_feed *f = m->feeds; f; f = f->next) {
    if (!f->blocked || f->blocked_kind != kind || (kind != MLZ_K_MMAP && f->blocked_granule != granule)) continue;
    f->blocked = false;
    m->n_blocked--;
    any = true;
  }
  return any;
}

static inline enum verdict taken(struct mlz_drain *d, struct mlz_feed *f, unsigned kind, uint64_t granule) {
  struct mlz_image *m = f->image;
  if (__builtin_expect((m->n_blocked | m->n_shadows) == 0, 1)) return TAKEN;
  if (m->n_shadows && kind == MLZ_K_FREE) mlz_aside_freed(m, granule);
  if (m->n_shadows && kind == MLZ_K_ALLOC) mlz_aside_allocated(d, f, granule);
  return m->n_blocked && release(m, kind, granule) ? RELEASED : TAKEN;
}

static bool under_gil(unsigned domain) { return domain == MLZ_D_MEM || domain == MLZ_D_OBJ; }

/* A block that is not known was inherited by fork: surely so under the GIL, where the rings have an order, while that is kept. */
static bool inherited(const struct mlz_feed *f, unsigned domain) {
  const struct mlz_image *m = f->image;
  return m->origin == MLZ_ORIGIN_FORK && under_gil(domain) && (m->n_feeds == 1 || (f->pos < f->h1 && m->n_blocked == 0));
}

/* An allocation where a block lives, and no other thread frees that. */
static void close_old(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule, unsigned domain) {
  if (mlz_aside_realloc_left(d, f, granule)) return;
  if (f->image->n_feeds > 1 && !under_gil(domain) && mlz_aside_block(f->image, granule)) return;
  if (mlz_account_free(d, f, granule, false)) d->total.frees_inferred++;
}

/* A free of nothing, and no other thread allocates that. A fork's child may have inherited it. */
static void free_nothing(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule, unsigned domain) {
  if (f->image->origin != MLZ_ORIGIN_FORK && f->image->n_feeds > 1 && !under_gil(domain) && mlz_aside_debt(f->image, granule)) return;
  mlz_account_foreign(d, f);
}

/* ---- messages ---- */

/* Index of the weight that an allocation with these flags has. */
static inline uint32_t weight_of(const struct mlz_feed *f, unsigned flags) { return flags & MLZ_F_CERTAIN ? 0 : f->weight; }

/* The stack difference of a message, if it has one. false: it is none. */
static inline bool restack(struct mlz_drain *d, struct mlz_feed *f, unsigned flags, uint64_t b, uint32_t push, uint32_t slots) {
  return !(b >> 48 || flags & MLZ_F_RESET) || mlz_frames_change(d, f, flags, b, push, f->pos + 1 + slots);
}

/* Where an allocation's block goes. What lives there is closed. */
static __attribute__((noinline, cold)) struct mlz_place cleared(struct mlz_drain *d, struct mlz_feed *f, uint64_t a) {
  uint64_t granule = mlz_word_value(a);
  if (mlz_heap_find(&f->image->heap, granule)) close_old(d, f, granule, mlz_word_domain(a));
  return mlz_heap_place_make(&f->image->heap, granule);
}

/* false: the feed waits for the free of what lives there. */
static inline bool vacant(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, struct mlz_place *place) {
  *place = mlz_heap_place(&f->image->heap, mlz_word_value(a));
  if (__builtin_expect(place->at && *place->at == 0, 1)) return true;
  if (place->at && block(d, f, MLZ_K_FREE, mlz_word_value(a))) return false;
  *place = cleared(d, f, a);
  return true;
}

static inline enum verdict take_alloc(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint32_t push, slots = stack_slots(f, b, &push);
  if (__builtin_expect(slots == UINT32_MAX, 0)) return BROKEN;
  unsigned flags = mlz_word_flags(a);
  struct mlz_place place;
  if (!vacant(d, f, a, &place)) return STOPPED;
  if (!restack(d, f, flags, b, push, slots)) return BROKEN;
  mlz_account_alloc(d, f, place, b & MLZ_SIZE_MASK, mlz_word_domain(a), mlz_frames_stack(d, f, flags, d->native), weight_of(f, flags));
  f->pos += 1 + slots;
  return taken(d, f, MLZ_K_ALLOC, mlz_word_value(a));
}

static inline enum verdict take_alloc_step(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  unsigned flags = mlz_word_flags(a);
  struct mlz_place place;
  if (__builtin_expect(f->count == 0 || flags & MLZ_F_RESET, 0)) return BROKEN;
  if (!vacant(d, f, a, &place)) return STOPPED;
  mlz_frames_step(d, f, (uint32_t)(b >> 32));
  mlz_account_alloc(d, f, place, (uint32_t)b, mlz_word_domain(a), mlz_frames_stack(d, f, flags, d->native), weight_of(f, flags));
  f->pos++;
  return taken(d, f, MLZ_K_ALLOC, mlz_word_value(a));
}

/* Is the block of a free the one that the thread allocated last? */
static inline bool temporary(uint64_t a, uint64_t b) { return b == mlz_word_value(a) << MLZ_GRANULE_SHIFT; }

static inline enum verdict take_free(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint64_t granule = mlz_word_value(a);
  if (__builtin_expect(!mlz_account_free(d, f, granule, temporary(a, b)), 0)) {
    if (!inherited(f, mlz_word_domain(a)) && block(d, f, MLZ_K_ALLOC, granule)) return STOPPED;
    free_nothing(d, f, granule, mlz_word_domain(a));
  }
  f->pos++;
  return taken(d, f, MLZ_K_FREE, granule);
}

static __attribute__((noinline)) enum verdict take_realloc_begin(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint64_t granule = mlz_word_value(a);
  bool known = mlz_heap_find(&f->image->heap, granule) != NULL;
  if (!known && !inherited(f, mlz_word_domain(a)) && block(d, f, MLZ_K_ALLOC, granule)) return STOPPED;
  f->realloc_open = true;
  f->realloc_freed = false;
  f->realloc_temp = temporary(a, b);
  f->realloc_granule = granule;
  f->pos++;
  return TAKEN;
}

static __attribute__((noinline)) enum verdict take_realloc_end(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint32_t push, slots = stack_slots(f, b, &push);
  if (slots == UINT32_MAX) return BROKEN;
  unsigned flags = mlz_word_flags(a);
  uint64_t granule = mlz_word_value(a), old = f->realloc_granule;
  bool frees = f->realloc_open && !(flags & MLZ_F_FAILED), allocates = !(flags & (MLZ_F_FAILED | MLZ_F_ZERO));
  bool same = frees && !f->realloc_freed && old == granule;
  struct mlz_place place;
  if (allocates && !same && !vacant(d, f, a, &place)) return STOPPED;
  enum verdict v = TAKEN;
  if (frees && !f->realloc_freed) {
    if (!mlz_account_free(d, f, old, f->realloc_temp)) free_nothing(d, f, old, mlz_word_domain(a));
    v = taken(d, f, MLZ_K_FREE, old);
  }
  f->realloc_open = false;
  if (!restack(d, f, flags, b, push, slots)) return BROKEN;
  if (allocates) {
    place = cleared(d, f, a);
    mlz_account_alloc(d, f, place, b & MLZ_SIZE_MASK, mlz_word_domain(a), mlz_frames_stack(d, f, flags, d->native), weight_of(f, flags));
    if (taken(d, f, MLZ_K_ALLOC, granule) == RELEASED) v = RELEASED;
  }
  f->pos += 1 + slots;
  return v;
}

static bool mapped(const struct mlz_image *m, uint64_t start, uint64_t granules) {
  size_t i = mlz_extents_find(&m->extents, start);
  return i < m->extents.count && m->extents.at[i].start < start + granules;
}

static enum verdict take_map(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint32_t push, slots = stack_slots(f, b, &push);
  if (slots == UINT32_MAX) return BROKEN;
  unsigned flags = mlz_word_flags(a);
  uint64_t start = mlz_word_value(a), granules = (b & MLZ_SIZE_MASK) >> MLZ_GRANULE_SHIFT;
  if (mapped(f->image, start, granules) && block(d, f, MLZ_K_MMAP, start)) return STOPPED;
  if (!restack(d, f, flags, b, push, slots)) return BROKEN;
  f->maps++;
  mlz_account_map(d, f, start, granules, mlz_frames_stack(d, f, flags, d->native), weight_of(f, flags));
  f->pos += 1 + slots;
  return taken(d, f, MLZ_K_MMAP, start);
}

static enum verdict take_unmap(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint64_t start = mlz_word_value(a), granules = (b & MLZ_SIZE_MASK) >> MLZ_GRANULE_SHIFT;
  if (!mapped(f->image, start, granules) && block(d, f, MLZ_K_MMAP, start)) return STOPPED;
  mlz_account_unmap(d, f, start, granules); /* of what was never recorded: nothing */
  f->pos++;
  return taken(d, f, MLZ_K_MMAP, start);
}

static void time_set(const struct mlz_drain *d, struct mlz_feed *f, uint64_t ns) {
  if (ns > d->clock_ns) ns = d->clock_ns;
  if (ns <= f->ns) return;
  f->ns = ns;
  if (f->image->builder) mlz_builder_time(f->image->builder, ns);
}

static enum verdict take_stack(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint32_t push, slots = stack_slots(f, b, &push);
  if (slots == UINT32_MAX) return BROKEN;
  if (!mlz_frames_change(d, f, mlz_word_flags(a), b, push, f->pos + 1 + slots)) return BROKEN;
  f->pos += 1 + slots;
  return TAKEN;
}

static enum verdict take_gc_start(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  time_set(d, f, b);
  f->gc_open = true;
  f->gc_generation = (uint32_t)mlz_word_value(a);
  f->gc_start = b;
  f->gc_stack = d->native ? mlz_native_python_stack(d, f) : mlz_frames_stack(d, f, mlz_word_flags(a), false);
  if (mlz_word_flags(a) & MLZ_F_NOSTACK && (d->native || f->gc_stack == MLZ_STACK_FILTERED)) f->gc_stack = 0;
  if (f->gc_stack == MLZ_STACK_FILTERED) f->gc_stack = mlz_frames_any_stack(d, f);
  f->pos++;
  return TAKEN;
}

static __attribute__((noinline)) enum verdict take_rare(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  switch (mlz_word_kind(a)) {
  case MLZ_K_MMAP:
    return take_map(d, f, a, b);
  case MLZ_K_MUNMAP:
    return take_unmap(d, f, a, b);
  case MLZ_K_STACK:
    return take_stack(d, f, a, b);
  case MLZ_K_GC_START:
    return take_gc_start(d, f, a, b);
  case MLZ_K_NATIVE:
    if (!d->native || !mlz_native_set(f, mlz_word_value(a), mlz_word_flags(a))) return BROKEN;
    f->pos++;
    return TAKEN;
  case MLZ_K_NATIVE_NODE:
    if (!mlz_native_take_node(d, f, mlz_word_value(a), mlz_word_flags(a), b)) return BROKEN;
    f->pos++;
    return TAKEN;
  case MLZ_K_CODE:
  case MLZ_K_MODULE:
  case MLZ_K_NATIVE_RESET:
  case MLZ_K_SETTINGS: /* b is no time */
    break;
  default:
    time_set(d, f, b);
    break;
  }
  return mlz_decode_rare(d, f, a, b) ? TAKEN : BROKEN;
}

static __attribute__((cold)) void give_up(struct mlz_drain *d, struct mlz_feed *f) {
  f->broken = true;
  d->total.broken++;
}

static enum verdict take_one(struct mlz_drain *d, struct mlz_feed *f, uint64_t stop_seq, uint64_t stop_ns) {
  const struct mlz_slot *s = slot_at(f, f->pos);
  uint64_t a = s->a, b = s->b;
  switch (mlz_word_kind(a)) {
  case MLZ_K_ALLOC:
    return take_alloc(d, f, a, b);
  case MLZ_K_ALLOC_STEP:
    return take_alloc_step(d, f, a, b);
  case MLZ_K_FREE:
    return take_free(d, f, a, b);
  case MLZ_K_REALLOC_BEGIN:
    return take_realloc_begin(d, f, a, b);
  case MLZ_K_REALLOC_END:
    return take_realloc_end(d, f, a, b);
  case MLZ_K_TIME:
    if (f->seq == stop_seq && b > stop_ns) return OVER;
    time_set(d, f, b);
    f->pos++;
    return TAKEN;
  case MLZ_K_ORDER:
    if (b > stop_seq) return OVER;
    f->seq = b;
    f->pos++;
    return TAKEN;
  default:
    return take_rare(d, f, a, b);
  }
}

/* May the message be one of those that mlz_decode_hot takes? */
static bool common(const struct mlz_feed *f) {
  unsigned kind = mlz_word_kind(slot_at(f, f->pos)->a);
  return kind == MLZ_K_ALLOC || kind == MLZ_K_FREE || kind == MLZ_K_ALLOC_STEP || kind == MLZ_K_NATIVE;
}

void mlz_decode_run(struct mlz_drain *d, struct mlz_feed *f, uint64_t end, uint64_t stop_seq, uint64_t stop_ns) {
  mlz_account_turn(f->image, f);
  enum verdict v = TAKEN;
  while (f->pos < end && v == TAKEN) {
    uint64_t part = f->tail + f->batch < end ? f->tail + f->batch : end;
    mlz_decode_hot(d, f, part);
    while (f->pos < part && v == TAKEN) {
      v = take_one(d, f, stop_seq, stop_ns);
      if (common(f)) break;
    }
    if (f->pos - f->tail >= f->batch) mlz_feed_publish(f, d->control->ring_slots / 2);
  }
  if (v == BROKEN) give_up(d, f);
}
