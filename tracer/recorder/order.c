/* Brings the rings of one image into one order (docs/concurrency.md, Order). */
#include "tracer/recorder/drain.h"

struct key {
  uint64_t seq, ns;
};

static const struct key LAST = {UINT64_MAX, UINT64_MAX};

static bool before(struct key x, struct key y) { return x.seq < y.seq || (x.seq == y.seq && x.ns < y.ns); }

/* Key of the feed's next event; only for a feed with something to read. */
static struct key key_of(const struct mlz_feed *f) {
  uint64_t a = mlz_feed_word(f, f->pos);
  struct key k = {f->seq, f->ns};
  if (mlz_word_kind(a) == MLZ_K_ORDER) k.seq = mlz_feed_word(f, f->pos + 1);
  if (mlz_word_kind(a) == MLZ_K_TIME) k.ns = mlz_feed_word(f, f->pos + 1);
  return k;
}

struct choice {
  struct mlz_feed *run;   /* the unblocked feed with the lowest key */
  struct mlz_feed *stuck; /* the blocked one with the lowest key, below h1 */
  struct key next;        /* lowest key of the others: where `run` must stop */
  bool needed;            /* something below h1 is left */
  bool later;             /* a feed waits beyond h1: what it holds back may explain the stuck ones in the next round */
};

/* What lies between h1 and h2 is taken only where it comes before something below h1, or may free a blocked feed. */
static struct choice choose(const struct mlz_image *m) {
  struct choice c = {.next = LAST};
  struct key run = LAST, stuck = LAST, due = LAST;
  for (struct mlz_feed *f = m->feeds; f; f = f->next) {
    if (f->pos >= f->h1 || f->broken) continue;
    struct key k = key_of(f);
    c.needed = true;
    if (before(k, due)) due = k;
    if (f->blocked && (!c.stuck || before(k, stuck))) {
      c.stuck = f;
      stuck = k;
    }
  }
  if (!c.needed) return c;
  for (struct mlz_feed *f = m->feeds; f; f = f->next) {
    c.later |= f->blocked && f->pos >= f->h1;
    if (f->pos >= f->h2 || f->blocked || f->broken) continue;
    struct key k = key_of(f);
    if (f->pos >= f->h1 && !c.stuck && !before(k, due)) { /* its turn comes before whatever below h1 has a later key */
      if (before(k, c.next)) c.next = k;
      continue;
    }
    if (!c.run || before(k, run)) {
      if (c.run && before(run, c.next)) c.next = run;
      c.run = f;
      run = k;
    } else if (before(k, c.next)) {
      c.next = k;
    }
  }
  return c;
}

static void image_merge(struct mlz_drain *d, struct mlz_image *m) {
  for (struct mlz_feed *f = m->feeds; f; f = f->next) f->blocked = f->force = false;
  m->n_blocked = 0;
  for (;;) {
    struct choice c = choose(m);
    if (!c.needed) return;
    if (c.run) {
      struct mlz_feed *f = c.run;
      struct key stop = c.next;
      uint64_t end = f->pos < f->h1 ? f->h1 : f->h2;
      if (f->pos >= f->h1 && !c.stuck) { /* only what comes before the lowest key that is due */
        for (struct mlz_feed *o = m->feeds; o; o = o->next) {
          if (o->pos < o->h1 && !o->broken && before(key_of(o), stop)) stop = key_of(o);
        }
      }
      mlz_decode_run(d, f, end, stop.seq, stop.ns);
    } else if (c.later) {
      return;
    } else { /* nobody can explain the event: what would have was lost */
      struct mlz_feed *f = c.stuck;
      f->blocked = false;
      f->force = true;
      m->n_blocked--;
      mlz_decode_run(d, f, f->h1, f->seq, f->ns); /* no further: the others are looked at again first */
      f->force = false;
    }
  }
}

void mlz_order_image(struct mlz_drain *d, struct mlz_image *m) {
  for (struct mlz_feed *f = m->feeds; f; f = f->next) {
    if (f->broken) { /* given up: keep its producer running */
      f->pos = f->h2;
      f->side_pos = atomic_load_explicit(&f->ring->side_head, memory_order_relaxed);
    }
  }
  if (m->n_feeds == 1) {
    if (!m->feeds->broken)
      mlz_decode_run(d, m->feeds, m->feeds->h1, LAST.seq, LAST.ns); /* not h2: a second ring may have begun in between */
  } else if (m->n_feeds > 1) {
    image_merge(d, m);
    if (m->n_shadows) mlz_aside_settle(d, m);
  }
}
