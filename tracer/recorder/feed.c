#include "tracer/recorder/native.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK_NS UINT64_C(1000000000) /* how often the thread of a silent ring is looked for */

static uint32_t weight_of(struct mlz_drain *d, uint64_t word) {
  double weight = mlz_changes_weight(&d->changes, word);
  for (uint32_t i = 0; i < d->weights_used; i++) {
    if (d->weights[i] == weight) return i;
  }
  double *grown = reallocarray(d->weights, d->weights_used + 1, sizeof *grown);
  if (!grown) return 0;
  d->weights = grown;
  grown[d->weights_used] = weight;
  return d->weights_used++;
}

void mlz_feed_settings(struct mlz_drain *d, struct mlz_feed *f, uint64_t word) {
  f->weight = weight_of(d, word);
  uint32_t depth = mlz_settings_depth(word);
  f->depth = depth < MLZ_STACK_DEPTH_MAX ? depth : MLZ_STACK_DEPTH_MAX;
  f->stack = f->alone = 0; /* another window */
  f->stale = true;
}

static bool left_out(const struct mlz_drain *d, const struct mlz_image *m, uint32_t tid) {
  if (m->pid != d->watched) return false;
  for (unsigned i = 0; i < d->left_out_n; i++) {
    if (d->left_out[i] == tid) return true;
  }
  return false;
}

struct mlz_feed *mlz_feed_attach(struct mlz_drain *d, uint32_t index) {
  struct mlz_control *c = d->control;
  struct mlz_ring *r = mlz_arena_ring(c, index);
  struct mlz_image *m = mlz_image_of(d, r->image, atomic_load_explicit(&r->pid, memory_order_relaxed));
  struct mlz_feed *f = m ? calloc(1, sizeof *f) : NULL;
  if (!f) return NULL;
  f->ring = r;
  f->in = mlz_ring_words(r);
  f->side = mlz_ring_side(r, c->ring_words);
  f->index = index;
  f->mask = c->ring_words - 1;
  f->batch = c->ring_words / 4 < 2048 ? c->ring_words / 4 : 2048;
  f->image = m;
  f->left_out = left_out(d, m, r->tid);
  f->next = m->feeds;
  m->feeds = f;
  m->n_feeds++;
  f->thread = ++d->threads;
  d->total.threads++;
  f->start_ns = f->ns = r->start_ns < d->clock_ns ? r->start_ns : d->clock_ns;
  f->checked_ns = d->clock_ns;
  mlz_feed_settings(d, f, atomic_load_explicit(&c->settings, memory_order_relaxed));
  d->feeds[index] = f;
  if (index >= d->feeds_high) d->feeds_high = index + 1;
  d->first_ring++;
  mlz_image_thread_row(d, f);
  return f;
}

static void ring_reset(struct mlz_ring *r) {
  atomic_store_explicit(&r->pid, 0, memory_order_relaxed);
  r->tid = r->image = r->thread_no = 0;
  r->start_ns = 0;
  for (int i = 0; i < 2; i++) atomic_store_explicit(&r->near_base[i], 0, memory_order_relaxed);
  atomic_store_explicit(&r->ending, 0, memory_order_relaxed);
  atomic_store_explicit(&r->side_head, 0, memory_order_relaxed);
  atomic_store_explicit(&r->allocs_passed, 0, memory_order_relaxed);
  atomic_store_explicit(&r->dropped_alloc, 0, memory_order_relaxed);
  atomic_store_explicit(&r->dropped_free, 0, memory_order_relaxed);
  atomic_store_explicit(&r->blocked_ns, 0, memory_order_relaxed);
  atomic_store_explicit(&r->blocked_count, 0, memory_order_relaxed);
  atomic_store_explicit(&r->nested, 0, memory_order_relaxed);
  atomic_store_explicit(&r->side_tail, 0, memory_order_relaxed);
  atomic_store_explicit(&r->tail, 0, memory_order_relaxed);
  atomic_store_explicit(&r->waiting, 0, memory_order_relaxed);
  atomic_store_explicit(&r->head, 0, memory_order_relaxed);
  atomic_store_explicit(&r->state, MLZ_RING_FREE, memory_order_release);
}

uint64_t mlz_feed_seen(const struct mlz_feed *f) {
  const struct mlz_ring *r = f->ring;
  return f->allocs + f->filtered + f->maps + atomic_load_explicit(&r->allocs_passed, memory_order_relaxed) +
         atomic_load_explicit(&r->dropped_alloc, memory_order_relaxed);
}

static void counters_add(struct mlz_counters *t, const struct mlz_feed *f) {
  const struct mlz_ring *r = f->ring;
  t->seen += mlz_feed_seen(f);
  t->filtered += f->filtered;
  t->dropped_alloc += atomic_load_explicit(&r->dropped_alloc, memory_order_relaxed);
  t->dropped_free += atomic_load_explicit(&r->dropped_free, memory_order_relaxed);
  t->blocked_ns += atomic_load_explicit(&r->blocked_ns, memory_order_relaxed);
  t->blocked_count += atomic_load_explicit(&r->blocked_count, memory_order_relaxed);
  t->nested += atomic_load_explicit(&r->nested, memory_order_relaxed);
}

struct mlz_counters mlz_drain_counters(const struct mlz_drain *d) {
  struct mlz_counters t = d->total;
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    if (d->feeds[i]) counters_add(&t, d->feeds[i]);
  }
  for (const struct mlz_image *m = d->images; m; m = m->next) {
    t.allocs += mlz_image_allocs(m);
    t.frees += mlz_image_frees(m);
  }
  return t;
}

void mlz_feed_release(struct mlz_drain *d, struct mlz_feed *f) {
  struct mlz_image *m = f->image;
  if (!f->end_ns) f->end_ns = f->ns;
  if (f->ns > m->last_ns) m->last_ns = f->ns;
  mlz_image_thread_row(d, f);
  counters_add(&d->total, f);
  m->seen += mlz_feed_seen(f);
  m->allocs += f->allocs;
  m->frees += f->frees;
  for (struct mlz_feed **at = &m->feeds; *at; at = &(*at)->next) {
    if (*at != f) continue;
    *at = f->next;
    break;
  }
  m->n_feeds--;
  if (m->current == f) m->current = NULL;
  d->feeds[f->index] = NULL;
  ring_reset(f->ring);
  atomic_store_explicit(&d->control->ring_hint, f->index, memory_order_relaxed); /* its pages are there already */
  free(f->words);
  free(f->windows);
  free(f->code);
  free(f->name);
  mlz_native_forget(f);
  free(f);
}

static bool thread_gone(uint32_t pid, uint32_t tid) { return pid && tid && syscall(SYS_tgkill, pid, tid, 0) < 0 && errno == ESRCH; }

void mlz_feed_look(struct mlz_drain *d) {
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (!f || f->gone) continue;
    uint32_t ending = atomic_load_explicit(&f->ring->ending, memory_order_acquire);
    if (ending == MLZ_RING_DETACHED) mlz_image_dead(f->image, MLZ_END_STOP);
    if (f->image->dead) {
      f->gone = true;
    } else if (ending || d->clock_ns - f->checked_ns > LOOK_NS) {
      f->checked_ns = d->clock_ns;
      f->gone = thread_gone(f->image->pid, f->ring->tid);
    }
  }
}

/* A ring that a process claimed and did not live to use. */
static void free_claimed(struct mlz_ring *r) {
  uint32_t pid = atomic_load_explicit(&r->pid, memory_order_relaxed);
  if (pid && kill((pid_t)pid, 0) < 0 && errno == ESRCH) ring_reset(r);
}

void mlz_feed_sweep(struct mlz_drain *d) {
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (f && f->gone && f->pos == atomic_load_explicit(&f->ring->head, memory_order_acquire)) mlz_feed_release(d, f);
  }
  while (d->feeds_high && !d->feeds[d->feeds_high - 1]) d->feeds_high--;
  if (d->round % 1024 != 0) return;
  uint32_t high = atomic_load_explicit(&d->control->ring_high, memory_order_relaxed);
  for (uint32_t i = 0; i < high && i < d->control->ring_count; i++) {
    struct mlz_ring *r = mlz_arena_ring(d->control, i);
    if (atomic_load_explicit(&r->state, memory_order_acquire) == MLZ_RING_CLAIMED) free_claimed(r);
  }
}
