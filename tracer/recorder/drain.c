#include "tracer/recorder/drain.h"
#include "tracer/recorder/arena.h"
#include "tracer/recorder/marking.h"
#include "tracer/recorder/native.h"
#include "tracer/recorder/rss.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS UINT64_C(20000000)
#define NAP_MIN_NS 60000
#define NAP_MAX_NS 1000000
#define NAP_LONG_NS 200000 /* in a longer nap a ring could run full: producers may end it */
#define SLEEP_NS 100000000
#define IDLE_ROUNDS 10

int mlz_drain_init(struct mlz_drain *d, struct mlz_control *control, struct mlz_writer *writer, struct mlz_emit *emit, double rate) {
  *d = (struct mlz_drain){.control = control, .emit = emit, .weights_used = 1, .nap_ns = NAP_MAX_NS};
  int r = mlz_symbols_init(&d->symbols, writer);
  d->feeds = calloc(control->ring_count, sizeof(struct mlz_feed *));
  d->weights = malloc(sizeof *d->weights);
  d->scratch = malloc(control->side_bytes);
  if (r < 0 || !d->feeds || !d->weights || !d->scratch) {
    mlz_drain_deinit(d);
    return -ENOMEM;
  }
  d->weights[0] = 1;
  mlz_changes_init(&d->changes, atomic_load_explicit(&control->settings, memory_order_relaxed), rate);
  return 0;
}

void mlz_drain_deinit(struct mlz_drain *d) {
  for (uint32_t i = 0; d->feeds && i < d->control->ring_count; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (!f) continue;
    free(f->words);
    free(f->windows);
    free(f->code);
    free(f->name);
    mlz_native_forget(f);
    free(f);
  }
  for (struct mlz_image *m = d->images, *next; m; m = next) {
    next = m->next;
    if (m->builder) mlz_builder_free(m->builder);
    mlz_image_free(m);
  }
  mlz_symbols_deinit(&d->symbols);
  mlz_native_free(d->native);
  free(d->feeds);
  free(d->weights);
  mlz_changes_deinit(&d->changes);
  free(d->scratch);
  mlz_coming_free(&d->coming);
  free(d->process_of);
  *d = (struct mlz_drain){0};
}

/* Rule 14: producers that read a real clock raise the word too. */
static void publish_time(struct mlz_drain *d) {
  uint64_t now = mlz_arena_clock(d->control);
  bool asleep;
  mlz_clock_raise(d->control, now, &asleep);
  if (d->words_taken && now - d->now_ns > d->gap_ns) d->gap_ns = now - d->now_ns;
  d->now_ns = now;
  d->clock_ns = now;
}

static void attach_new(struct mlz_drain *d) {
  uint32_t high = atomic_load_explicit(&d->control->ring_high, memory_order_acquire);
  if (high > d->control->ring_count) high = d->control->ring_count;
  for (uint32_t i = 0; i < high; i++) {
    if (d->feeds[i]) continue;
    if (atomic_load_explicit(&mlz_arena_ring(d->control, i)->state, memory_order_acquire) == MLZ_RING_LIVE) mlz_feed_attach(d, i);
  }
}

/* A head that is out of bounds is the work of a stray pointer. */
static uint64_t head_of(struct mlz_drain *d, struct mlz_feed *f) {
  uint64_t head = atomic_load_explicit(&f->ring->head, memory_order_acquire);
  if (head - f->tail <= d->control->ring_words) return head;
  if (!f->broken) d->total.broken++;
  f->broken = true;
  return head;
}

static void read_heads(struct mlz_drain *d) {
  attach_new(d);
  d->fill = 0;
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (!f) continue;
    f->h1 = head_of(d, f);
    uint64_t fill = (f->h1 - f->pos) * 256 / d->control->ring_words;
    uint64_t side = atomic_load_explicit(&f->ring->side_head, memory_order_relaxed) - f->side_pos;
    if (side * 256 / d->control->side_bytes > fill) fill = side * 256 / d->control->side_bytes;
    if (fill > d->fill) d->fill = fill < 256 ? (uint32_t)fill : 256;
  }
  atomic_thread_fence(memory_order_seq_cst);
  attach_new(d);
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (!f) continue;
    f->h2 = head_of(d, f);
    for (int k = 0; k < 2; k++) f->near_base[k] = atomic_load_explicit(&f->ring->near_base[k], memory_order_relaxed);
    if (f->h2 - f->tail < f->h1 - f->tail && !f->broken) { /* it went back */
      f->broken = true;
      d->total.broken++;
    }
  }
  d->clock_ns = mlz_arena_clock(d->control);
}

static void close_dead(struct mlz_drain *d) {
  for (struct mlz_image *m = d->images; m; m = m->next) {
    if (m->dead && !m->closed && m->n_feeds == 0) mlz_image_close(d, m, m->ending);
  }
}

uint64_t mlz_drain_round(struct mlz_drain *d) {
  publish_time(d);
  d->round++;
  atomic_store_explicit(&d->control->heartbeat, d->round, memory_order_relaxed);
  if (d->now_ns - d->polled_ns > POLL_NS) {
    d->polled_ns = d->now_ns;
    mlz_image_poll(d);
  }
  mlz_rss_look(d);
  mlz_changes_look(&d->changes, atomic_load_explicit(&d->control->settings, memory_order_relaxed), d->now_ns);
  mlz_feed_look(d);
  read_heads(d);
  uint64_t before = 0, after = 0;
  for (uint32_t i = 0; i < d->feeds_high; i++) before += d->feeds[i] ? d->feeds[i]->pos : 0;
  for (struct mlz_image *m = d->images; m; m = m->next) {
    if (m->n_feeds) mlz_order_image(d, m);
  }
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (!f) continue;
    after += f->pos;
    if (f->unlooked || f->pos != f->tail || atomic_load_explicit(&f->ring->side_tail, memory_order_relaxed) != f->side_pos)
      mlz_feed_publish(f, UINT64_MAX);
  }
  d->words_taken = after - before;
  d->words_total += d->words_taken;
  if (d->every_ns) mlz_marking_periodic(d);
  mlz_feed_sweep(d);
  close_dead(d);
  return d->words_taken;
}

/* Rule 7: says that it sleeps, sends the next event of every thread into its slow path, and looks once more. */
static void sleep_idle(struct mlz_drain *d) {
  struct mlz_control *c = d->control;
  uint32_t wake = atomic_load(&c->wake);
  atomic_store(&c->sleeping, 1);
  mlz_clock_sleep(c);
  atomic_thread_fence(memory_order_seq_cst);
  bool quiet = true;
  for (uint32_t i = 0; i < d->feeds_high && quiet; i++) {
    struct mlz_feed *f = d->feeds[i];
    quiet = !f || atomic_load_explicit(&f->ring->head, memory_order_relaxed) == f->pos;
  }
  struct timespec t = {.tv_nsec = SLEEP_NS};
  uint64_t now = d->every_ns ? mlz_arena_clock(c) : 0, next = d->every_next ? d->every_next : d->every_ns;
  if (d->every_ns && next < now + SLEEP_NS) t.tv_nsec = next > now ? (long)(next - now) : 0;
  if (quiet) syscall(SYS_futex, &c->wake, FUTEX_WAIT, wake, &t, NULL, 0);
  atomic_store(&c->sleeping, 0);
}

/* A producer that has written a quarter of its ring since it last looked, or finds it full, wakes us. */
static void nap(struct mlz_control *c, long ns) {
  struct timespec t = {.tv_nsec = ns};
  if (ns < NAP_LONG_NS) {
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    return;
  }
  uint32_t wake = atomic_load(&c->wake);
  atomic_store(&c->sleeping, 1);
  syscall(SYS_futex, &c->wake, FUTEX_WAIT, wake, &t, NULL, 0);
  atomic_store(&c->sleeping, 0);
}

void mlz_drain_sleep(struct mlz_drain *d, unsigned idle) {
  if (idle > IDLE_ROUNDS) {
    sleep_idle(d);
    return;
  }
  if (d->fill > 64) { /* more than a quarter full: no time to sleep */
    d->nap_ns = NAP_MIN_NS;
    return;
  }
  /* The nap after which the fullest ring would be an eighth full, going by the last one. */
  long ns = d->fill >= 32 ? d->nap_ns / 2 : d->nap_ns + d->nap_ns / 4;
  if (ns < NAP_MIN_NS) ns = NAP_MIN_NS;
  if (ns > NAP_MAX_NS) ns = NAP_MAX_NS;
  d->nap_ns = ns;
  nap(d->control, ns);
}
