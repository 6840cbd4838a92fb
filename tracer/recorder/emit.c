#include "tracer/recorder/emit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <urcu/wfcqueue.h>

#define IDLE_MAX 8
#define GROUPS_UNDER_WAY 4 /* a slow disk holds the drain up here, then the rings fill, then the program waits: bounded */

struct group {
  struct cds_wfcq_node node;
  struct mlz_bytes tables;
  json_t *state;
  uint64_t now_ns;
  uint32_t *ended; /* processes */
  unsigned n_ended, n;
  void (*after)(void *context);
  void *context;
  struct mlz_builder *builders[];
};

struct idle { /* an empty builder on its way back */
  struct cds_wfcq_node node;
  struct mlz_builder *builder;
};

struct mlz_emit {
  struct mlz_writer *writer;
  struct cds_wfcq_head work_head, idle_head;
  struct cds_wfcq_tail work_tail, idle_tail;
  sem_t work;  /* groups waiting */
  sem_t slots; /* groups that may still be handed over */
  pthread_t thread;
  _Atomic int error;
  _Atomic uint64_t bytes, events;
  _Atomic uint64_t done; /* groups */
  uint64_t handed;       /* the drain thread's, as is what follows, for the next group */
  uint32_t *ended;       /* processes */
  unsigned n_ended;
  void (*after)(void *context);
  void *context;
  _Atomic unsigned idle; /* builders in the second queue */
  _Atomic bool stop;
};

static void fail(struct mlz_emit *e, int error) {
  int none = 0;
  atomic_compare_exchange_strong(&e->error, &none, error);
}

static void wait_for(sem_t *s) {
  while (sem_wait(s) < 0 && errno == EINTR) {}
}

static void write_group(struct mlz_emit *e, struct group *g) {
  uint64_t events = 0;
  int r = atomic_load(&e->error);
  if (r == 0 && g->tables.size) r = mlz_writer_append_tables(e->writer, &g->tables);
  for (unsigned i = 0; i < g->n && r == 0; i++) {
    events += mlz_builder_count(g->builders[i]);
    r = mlz_writer_append_events(e->writer, g->builders[i]);
  }
  for (unsigned i = 0; i < g->n_ended; i++) mlz_writer_process_ended(e->writer, g->ended[i]);
  if (r == 0) r = mlz_writer_append_group(e->writer, g->now_ns, g->state);
  if (r < 0) {
    fail(e, r);
  } else {
    atomic_fetch_add(&e->events, events);
  }
  atomic_store(&e->bytes, mlz_writer_bytes(e->writer));
  if (g->after) g->after(g->context);
  atomic_fetch_add(&e->done, 1);
}

/* Back to the drain, unless enough are there already (many processes may have ended). */
static void give_back(struct mlz_emit *e, struct mlz_builder *b) {
  struct idle *back = atomic_load(&e->idle) < IDLE_MAX ? malloc(sizeof *back) : NULL;
  if (!back) {
    mlz_builder_free(b);
    return;
  }
  cds_wfcq_node_init(&back->node);
  back->builder = b;
  atomic_fetch_add(&e->idle, 1);
  cds_wfcq_enqueue(&e->idle_head, &e->idle_tail, &back->node);
}

static void *writer_main(void *arg) {
  struct mlz_emit *e = arg;
  for (;;) {
    wait_for(&e->work);
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&e->work_head, &e->work_tail);
    if (!node) {
      if (atomic_load(&e->stop)) return NULL;
      continue;
    }
    struct group *g = caa_container_of(node, struct group, node);
    write_group(e, g);
    for (unsigned i = 0; i < g->n; i++) give_back(e, g->builders[i]);
    free(g->tables.data);
    free(g->ended);
    json_decref(g->state);
    free(g);
    sem_post(&e->slots);
  }
}

int mlz_emit_new(struct mlz_emit **out, struct mlz_writer *w) {
  struct mlz_emit *e = calloc(1, sizeof *e);
  if (!e) return -ENOMEM;
  e->writer = w;
  cds_wfcq_init(&e->work_head, &e->work_tail);
  cds_wfcq_init(&e->idle_head, &e->idle_tail);
  sem_init(&e->work, 0, 0);
  sem_init(&e->slots, 0, GROUPS_UNDER_WAY);
  atomic_store(&e->bytes, mlz_writer_bytes(w));
  sigset_t all, old; /* signals are the main thread's */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int r = pthread_create(&e->thread, NULL, writer_main, e);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (r != 0) {
    free(e);
    return -r;
  }
  *out = e;
  return 0;
}

static struct mlz_builder *idle_take(struct mlz_emit *e) {
  struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&e->idle_head, &e->idle_tail);
  if (!node) return NULL;
  struct idle *back = caa_container_of(node, struct idle, node);
  struct mlz_builder *b = back->builder;
  free(back);
  atomic_fetch_sub(&e->idle, 1);
  return b;
}

struct mlz_emit *mlz_emit_free(struct mlz_emit *e) {
  if (!e) return NULL;
  for (struct mlz_builder *b; (b = idle_take(e));) mlz_builder_free(b);
  sem_destroy(&e->work);
  sem_destroy(&e->slots);
  free(e->ended);
  free(e);
  return NULL;
}

struct mlz_builder *mlz_emit_builder(struct mlz_emit *e) {
  struct mlz_builder *b = idle_take(e);
  return b ? b : mlz_builder_new();
}

void mlz_emit_after(struct mlz_emit *e, void (*run)(void *context), void *context) {
  e->after = run;
  e->context = context;
}

void mlz_emit_ended(struct mlz_emit *e, uint32_t process) {
  uint32_t *grown = reallocarray(e->ended, e->n_ended + 1, sizeof *grown);
  if (!grown) return; /* it has no last point, then */
  e->ended = grown;
  grown[e->n_ended++] = process;
}

void mlz_emit_group(struct mlz_emit *e, struct mlz_builder **builders, unsigned n, uint64_t now_ns, json_t *state) {
  struct group *g = calloc(1, sizeof *g + n * sizeof g->builders[0]);
  if (!g) {
    fail(e, -ENOMEM);
    for (unsigned i = 0; i < n; i++) mlz_builder_free(builders[i]);
    json_decref(state);
    return;
  }
  wait_for(&e->slots);
  int r = mlz_writer_take_tables(e->writer, &g->tables);
  if (r < 0) fail(e, r);
  g->state = state;
  g->now_ns = now_ns;
  g->ended = e->ended;
  g->n_ended = e->n_ended;
  g->after = e->after;
  g->context = e->context;
  e->after = NULL;
  e->ended = NULL;
  e->n_ended = 0;
  g->n = n;
  for (unsigned i = 0; i < n; i++) g->builders[i] = builders[i];
  cds_wfcq_node_init(&g->node);
  e->handed++;
  cds_wfcq_enqueue(&e->work_head, &e->work_tail, &g->node);
  sem_post(&e->work);
}

void mlz_emit_join(struct mlz_emit *e) {
  atomic_store(&e->stop, true);
  sem_post(&e->work);
  pthread_join(e->thread, NULL);
}

int mlz_emit_error(struct mlz_emit *e) { return atomic_load(&e->error); }
uint64_t mlz_emit_bytes(struct mlz_emit *e) { return atomic_load(&e->bytes); }
uint64_t mlz_emit_events(struct mlz_emit *e) { return atomic_load(&e->events); }
uint64_t mlz_emit_handed(const struct mlz_emit *e) { return e->handed; }
uint64_t mlz_emit_done(struct mlz_emit *e) { return atomic_load(&e->done); }
