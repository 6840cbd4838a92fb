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

/* The stack difference of a message, and where the message ends. */
struct difference {
  uint32_t pop, push;
  uint64_t end;
};

/* Of a message of two words, the second of which is `b`. false: it does not fit. */
static inline bool difference_of(const struct mlz_feed *f, uint64_t b, struct difference *s) {
  *s = (struct difference){.pop = (uint32_t)(b >> 48 & 0xff), .push = (uint32_t)(b >> 56), .end = f->pos + 2};
  if (__builtin_expect(s->push == MLZ_PUSH_LONG, 0)) {
    if (s->end >= f->h2 || mlz_feed_word(f, s->end) > MLZ_STACK_DEPTH_MAX) return false;
    s->push = (uint32_t)mlz_feed_word(f, s->end++);
  }
  s->end += s->push;
  return s->end <= f->h2;
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
static inline bool restack(struct mlz_drain *d, struct mlz_feed *f, unsigned flags, const struct difference *s) {
  return !(s->pop | s->push | (flags & MLZ_F_RESET)) || mlz_frames_change(d, f, flags, s->pop, s->push, s->end);
}

/* Where an allocation's block goes. What lives there is closed. */
static __attribute__((noinline, cold)) struct mlz_place cleared(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule,
                                                                unsigned domain) {
  if (mlz_heap_find(&f->image->heap, granule)) close_old(d, f, granule, domain);
  return mlz_heap_place_make(&f->image->heap, granule);
}

/* false: the feed waits for the free of what lives there. */
static inline bool vacant(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule, unsigned domain, struct mlz_place *place) {
  *place = mlz_heap_place(&f->image->heap, granule);
  if (__builtin_expect(place->at && *place->at == 0, 1)) return true;
  if (place->at && block(d, f, MLZ_K_FREE, granule)) return false;
  *place = cleared(d, f, granule, domain);
  return true;
}

/* What ALLOC, ALLOC_STEP and their short forms say. */
struct allocation {
  uint64_t granule, size;
  unsigned flags, domain;
  struct difference stack;
};

static inline enum verdict allocate(struct mlz_drain *d, struct mlz_feed *f, struct mlz_place place, const struct allocation *x) {
  mlz_account_alloc(d, f, place, x->size, x->domain, mlz_frames_stack(d, f, x->flags, d->native), weight_of(f, x->flags));
  f->pos = x->stack.end;
  return taken(d, f, MLZ_K_ALLOC, x->granule);
}

static inline enum verdict take_changed(struct mlz_drain *d, struct mlz_feed *f, const struct allocation *x) {
  struct mlz_place place;
  if (!vacant(d, f, x->granule, x->domain, &place)) return STOPPED;
  if (!restack(d, f, x->flags, &x->stack)) return BROKEN;
  return allocate(d, f, place, x);
}

static inline enum verdict take_stepped(struct mlz_drain *d, struct mlz_feed *f, const struct allocation *x, uint32_t offset) {
  struct mlz_place place;
  if (__builtin_expect(f->count == 0 || x->flags & MLZ_F_RESET, 0)) return BROKEN;
  if (!vacant(d, f, x->granule, x->domain, &place)) return STOPPED;
  mlz_frames_step(d, f, offset);
  return allocate(d, f, place, x);
}

static inline enum verdict take_alloc(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  struct allocation x = {.granule = mlz_word_value(a), .size = b & MLZ_SIZE_MASK, .flags = mlz_word_flags(a), .domain = mlz_word_domain(a)};
  return difference_of(f, b, &x.stack) ? take_changed(d, f, &x) : BROKEN;
}

/* false: no base was said, so nothing is near. */
static inline bool near_at(const struct mlz_feed *f, uint64_t a, unsigned domain, uint64_t *granule) {
  uint64_t base = f->near_base[mlz_near_base(domain)];
  *granule = mlz_near_granule(a, base);
  return base != 0;
}

static inline enum verdict take_near(struct mlz_drain *d, struct mlz_feed *f, uint64_t a) {
  struct allocation x = {.size = mlz_near_size(a),
                         .flags = mlz_near_flags(a),
                         .domain = mlz_near_domain(a),
                         .stack = {.pop = mlz_near_pop(a), .push = mlz_near_push(a), .end = f->pos + 1 + mlz_near_push(a)}};
  if (x.domain >= MLZ_D_COUNT || x.stack.end > f->h2 || !near_at(f, a, x.domain, &x.granule)) return BROKEN;
  return take_changed(d, f, &x);
}

static inline enum verdict take_small(struct mlz_drain *d, struct mlz_feed *f, uint64_t a) {
  struct allocation x = {.size = mlz_small_size(a), .domain = mlz_small_domain(a), .stack.end = f->pos + 1};
  return near_at(f, a, x.domain, &x.granule) ? take_stepped(d, f, &x, mlz_small_offset(a)) : BROKEN;
}

static inline enum verdict take_alloc_step(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  struct allocation x = {
      .granule = mlz_word_value(a), .size = (uint32_t)b, .flags = mlz_word_flags(a), .domain = mlz_word_domain(a), .stack.end = f->pos + 2};
  return take_stepped(d, f, &x, (uint32_t)(b >> 32));
}

static inline enum verdict take_free(struct mlz_drain *d, struct mlz_feed *f, uint64_t a) {
  uint64_t granule = mlz_word_value(a);
  if (__builtin_expect(!mlz_account_free(d, f, granule, mlz_word_flags(a) & MLZ_F_TEMPORARY), 0)) {
    if (!inherited(f, mlz_word_domain(a)) && block(d, f, MLZ_K_ALLOC, granule)) return STOPPED;
    free_nothing(d, f, granule, mlz_word_domain(a));
  }
  f->pos++;
  return taken(d, f, MLZ_K_FREE, granule);
}

static __attribute__((noinline)) enum verdict take_realloc_begin(struct mlz_drain *d, struct mlz_feed *f, uint64_t a) {
  uint64_t granule = mlz_word_value(a);
  bool known = mlz_heap_find(&f->image->heap, granule) != NULL;
  if (!known && !inherited(f, mlz_word_domain(a)) && block(d, f, MLZ_K_ALLOC, granule)) return STOPPED;
  f->realloc_open = true;
  f->realloc_freed = false;
  f->realloc_temp = mlz_word_flags(a) & MLZ_F_TEMPORARY;
  f->realloc_granule = granule;
  f->pos++;
  return TAKEN;
}

static __attribute__((noinline)) enum verdict take_realloc_end(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  struct difference stack;
  if (!difference_of(f, b, &stack)) return BROKEN;
  unsigned flags = mlz_word_flags(a);
  uint64_t granule = mlz_word_value(a), old = f->realloc_granule;
  bool frees = f->realloc_open && !(flags & MLZ_F_FAILED), allocates = !(flags & (MLZ_F_FAILED | MLZ_F_ZERO));
  bool same = frees && !f->realloc_freed && old == granule;
  struct mlz_place place;
  if (allocates && !same && !vacant(d, f, granule, mlz_word_domain(a), &place)) return STOPPED;
  enum verdict v = TAKEN;
  if (frees && !f->realloc_freed) {
    if (!mlz_account_free(d, f, old, f->realloc_temp)) free_nothing(d, f, old, mlz_word_domain(a));
    v = taken(d, f, MLZ_K_FREE, old);
  }
  f->realloc_open = false;
  if (!restack(d, f, flags, &stack)) return BROKEN;
  if (allocates) {
    place = cleared(d, f, granule, mlz_word_domain(a));
    mlz_account_alloc(d, f, place, b & MLZ_SIZE_MASK, mlz_word_domain(a), mlz_frames_stack(d, f, flags, d->native), weight_of(f, flags));
    if (taken(d, f, MLZ_K_ALLOC, granule) == RELEASED) v = RELEASED;
  }
  f->pos = stack.end;
  return v;
}

static bool mapped(const struct mlz_image *m, uint64_t start, uint64_t granules) {
  size_t i = mlz_extents_find(&m->extents, start);
  return i < m->extents.count && m->extents.at[i].start < start + granules;
}

static enum verdict take_map(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  struct difference stack;
  if (!difference_of(f, b, &stack)) return BROKEN;
  unsigned flags = mlz_word_flags(a);
  uint64_t start = mlz_word_value(a), granules = (b & MLZ_SIZE_MASK) >> MLZ_GRANULE_SHIFT;
  if (mapped(f->image, start, granules) && block(d, f, MLZ_K_MMAP, start)) return STOPPED;
  if (!restack(d, f, flags, &stack)) return BROKEN;
  f->maps++;
  mlz_account_map(d, f, start, granules, mlz_frames_stack(d, f, flags, d->native), weight_of(f, flags));
  f->pos = stack.end;
  return taken(d, f, MLZ_K_MMAP, start);
}

static enum verdict take_unmap(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint64_t start = mlz_word_value(a), granules = (b & MLZ_SIZE_MASK) >> MLZ_GRANULE_SHIFT;
  if (!mapped(f->image, start, granules) && block(d, f, MLZ_K_MMAP, start)) return STOPPED;
  mlz_account_unmap(d, f, start, granules); /* of what was never recorded: nothing */
  f->pos += 2;
  return taken(d, f, MLZ_K_MMAP, start);
}

static void time_set(const struct mlz_drain *d, struct mlz_feed *f, uint64_t ns) {
  if (ns > d->clock_ns) ns = d->clock_ns;
  if (ns <= f->ns) return;
  f->ns = ns;
  if (f->image->builder) mlz_builder_time(f->image->builder, ns);
}

static enum verdict take_stack(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  struct difference stack;
  if (!difference_of(f, b, &stack)) return BROKEN;
  if (!mlz_frames_change(d, f, mlz_word_flags(a), stack.pop, stack.push, stack.end)) return BROKEN;
  f->pos = stack.end;
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
  f->pos += 2;
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
    f->pos += 2;
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
  uint64_t a = mlz_feed_word(f, f->pos), b;
  if (mlz_word_small(a)) return take_small(d, f, a);
  switch (mlz_word_kind(a)) {
  case MLZ_K_ALLOC_NEAR:
    return take_near(d, f, a);
  case MLZ_K_FREE:
    return take_free(d, f, a);
  case MLZ_K_REALLOC_BEGIN:
    return take_realloc_begin(d, f, a);
  case MLZ_K_NATIVE:
  case MLZ_K_NATIVE_RESET:
    return take_rare(d, f, a, 0);
  default:
    break;
  }
  if (f->pos + 2 > f->h2) return BROKEN;
  b = mlz_feed_word(f, f->pos + 1);
  switch (mlz_word_kind(a)) {
  case MLZ_K_ALLOC:
    return take_alloc(d, f, a, b);
  case MLZ_K_ALLOC_STEP:
    return take_alloc_step(d, f, a, b);
  case MLZ_K_REALLOC_END:
    return take_realloc_end(d, f, a, b);
  case MLZ_K_TIME:
    if (f->seq == stop_seq && b > stop_ns) return OVER;
    time_set(d, f, b);
    f->pos += 2;
    return TAKEN;
  case MLZ_K_ORDER:
    if (b > stop_seq) return OVER;
    f->seq = b;
    f->pos += 2;
    return TAKEN;
  default:
    return take_rare(d, f, a, b);
  }
}

/* May the message be one of those that mlz_decode_hot takes? */
static bool common(const struct mlz_feed *f) {
  uint64_t a = mlz_feed_word(f, f->pos);
  unsigned kind = mlz_word_kind(a);
  return mlz_word_small(a) || kind == MLZ_K_ALLOC_NEAR || kind == MLZ_K_ALLOC || kind == MLZ_K_FREE || kind == MLZ_K_ALLOC_STEP ||
         kind == MLZ_K_NATIVE;
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
    if (f->pos - f->tail >= f->batch) mlz_feed_publish(f, d->control->ring_words / 2);
  }
  if (v == BROKEN) give_up(d, f);
}
