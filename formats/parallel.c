/* Reads the chunks of a trace with several threads: each decodes a chunk and prepares what can be said of it alone; the caller's thread takes them
 * in order, and decodes like the others while the next one is not ready. Chunks in flight are at most SPARE more than threads, so memory does
 * not grow with the file, however slow the caller is. */
#include "formats/trace.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define SPARE 2u
#define SLOTS_MAX (MLZ_JOBS_MAX + SPARE)

enum slot_state { FREE, BUSY, READY };
struct slot { /* of chunk i: the one with number i % slots_n */
  enum slot_state state;
  bool skipped; /* not decoded */
  int rc;       /* of mlz_trace_entry; 0 for a chunk that was bad before */
  struct mlz_decode_out out;
  struct mlz_block block;
  void *part;
};

/* Under the lock: states, claimed, stopped, jobs that are counted. All else belongs to whoever has the slot. */
struct crew {
  struct mlz_trace *t;
  const struct mlz_reading *r;
  pthread_mutex_t lock;
  pthread_cond_t changed; /* a slot is ready or free, or it is over */
  struct slot slots[SLOTS_MAX];
  size_t slots_n;
  size_t claimed; /* the next chunk that nobody decodes */
  size_t taken;   /* the next chunk for the caller */
  bool stopped;
  uint8_t *skip; /* by chunk; NULL: none */
};

unsigned mlz_trace_jobs(unsigned wanted) {
  cpu_set_t set;
  if (wanted == 0) wanted = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
  return wanted < 1 ? 1 : wanted > MLZ_JOBS_MAX ? MLZ_JOBS_MAX : wanted;
}

static bool may_claim(const struct crew *c) { return !c->stopped && c->claimed < c->t->entries_n && c->claimed < c->taken + c->slots_n; }

static void decode(const struct crew *c, size_t i, struct slot *s, struct mlz_decode_work *work) {
  const struct mlz_reading *r = c->r;
  const struct mlz_entry *e = &c->t->entries[i];
  if (r->part_bytes != 0 && s->part == NULL && (s->part = calloc(1, r->part_bytes)) == NULL)
    s->rc = -ENOMEM;
  else
    s->rc = e->bad ? 0 : mlz_trace_entry(c->t, e, &work->source, work, &s->out, r->want, &s->block);
  if (s->rc == 1 && r->prepare != NULL) r->prepare(r->context, &s->block, s->part);
}

/* With the lock, which it lets go of meanwhile. */
static void decode_one(struct crew *c, struct mlz_decode_work *work) {
  size_t i = c->claimed++;
  struct slot *s = &c->slots[i % c->slots_n];
  s->skipped = c->skip != NULL && c->skip[i];
  if (!s->skipped) {
    s->state = BUSY;
    pthread_mutex_unlock(&c->lock);
    decode(c, i, s, work);
    pthread_mutex_lock(&c->lock);
  }
  s->state = READY;
  pthread_cond_broadcast(&c->changed);
}

static void open_work(struct crew *c, struct mlz_decode_work *work) {
  *work = (struct mlz_decode_work){.source = c->t->source};
  work->source.buffer = NULL;
  work->source.room = 0;
}

static void close_work(struct mlz_decode_work *work) {
  free(work->source.buffer); /* its file is the trace's */
  mlz_decode_work_close(work);
}

static void *help(void *arg) {
  struct crew *c = arg;
  struct mlz_decode_work work;
  open_work(c, &work);
  pthread_mutex_lock(&c->lock);
  while (!c->stopped && c->claimed < c->t->entries_n) {
    if (may_claim(c))
      decode_one(c, &work);
    else
      pthread_cond_wait(&c->changed, &c->lock);
  }
  pthread_mutex_unlock(&c->lock);
  close_work(&work);
  return NULL;
}

/* With the lock, which it lets go of meanwhile. 0, -ENOMEM. */
static int take_one(struct crew *c, struct mlz_decode_work *work) {
  const struct mlz_reading *r = c->r;
  size_t i = c->taken;
  struct slot *s = &c->slots[i % c->slots_n];
  pthread_mutex_unlock(&c->lock);
  int rc = 1;
  struct mlz_ahead ahead = mlz_trace_entry_ahead(c->t, i);
  if (r->pass == NULL || !r->pass(r->context, &ahead)) {
    if (s->skipped) decode(c, i, s, work);
    rc = s->rc;
    if (rc == 1) r->take(r->context, &s->block, s->part);
    if (rc == 0) mlz_trace_entry_bad(c->t, &c->t->entries[i]);
  }
  pthread_mutex_lock(&c->lock);
  s->state = FREE;
  c->taken++;
  pthread_cond_broadcast(&c->changed);
  return rc < 0 ? rc : 0;
}

static int take_all(struct crew *c, struct mlz_decode_work *work) {
  int rc = 0;
  pthread_mutex_lock(&c->lock);
  while (rc == 0 && c->taken < c->t->entries_n) {
    if (c->slots[c->taken % c->slots_n].state == READY)
      rc = take_one(c, work);
    else if (may_claim(c))
      decode_one(c, work);
    else
      pthread_cond_wait(&c->changed, &c->lock);
  }
  c->stopped = true;
  pthread_cond_broadcast(&c->changed);
  pthread_mutex_unlock(&c->lock);
  return rc;
}

/* 0, -ENOMEM. How many chunks are left? */
static int plan(struct crew *c, size_t *left) {
  size_t n = c->t->entries_n;
  *left = n;
  if (c->r->skip == NULL || n == 0) return 0;
  if ((c->skip = malloc(n)) == NULL) return -ENOMEM;
  for (size_t i = 0; i < n; i++) {
    struct mlz_ahead ahead = mlz_trace_entry_ahead(c->t, i);
    c->skip[i] = c->r->skip(c->r->context, &ahead);
    *left -= c->skip[i];
  }
  return 0;
}

int mlz_trace_read_all(struct mlz_trace *t, const struct mlz_reading *r) {
  struct crew *c = calloc(1, sizeof *c);
  struct mlz_decode_work work;
  pthread_t threads[MLZ_JOBS_MAX];
  if (c == NULL) return -ENOMEM;
  unsigned jobs = mlz_trace_jobs(r->jobs), started = 0;
  size_t left;
  c->t = t;
  c->r = r;
  if (plan(c, &left) != 0) {
    free(c);
    return -ENOMEM;
  }
  if (jobs > left) jobs = left != 0 ? (unsigned)left : 1;
  c->slots_n = jobs == 1 ? 1 : jobs + SPARE;
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->changed, NULL);
  mlz_trace_rewind(t);
  while (started + 1 < jobs && pthread_create(&threads[started], NULL, help, c) == 0) started++; /* with fewer it takes longer */
  open_work(c, &work);
  int rc = take_all(c, &work);
  for (unsigned i = 0; i < started; i++) pthread_join(threads[i], NULL);
  close_work(&work);
  for (size_t i = 0; i < SLOTS_MAX; i++) {
    if (c->slots[i].part != NULL && r->clear != NULL) r->clear(c->slots[i].part);
    free(c->slots[i].part);
    mlz_decode_out_close(&c->slots[i].out);
  }
  pthread_cond_destroy(&c->changed);
  pthread_mutex_destroy(&c->lock);
  free(c->skip);
  free(c);
  return rc;
}
