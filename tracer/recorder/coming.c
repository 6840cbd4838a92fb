#include "tracer/recorder/coming.h"
#include "tracer/recorder/drain.h"

#include <stdlib.h>
#include <string.h>

#define PLACES (1u << 16)
#define SEVERAL UINT16_MAX

static uint32_t place(uint64_t granule) { return (uint32_t)(granule * UINT64_C(0x9e3779b97f4a7c15) >> 48); }
_Static_assert(UINT64_MAX >> 48 == PLACES - 1, "place() gives every place");

static void fill(struct mlz_drain *d, const struct mlz_image *m) {
  struct mlz_coming *c = &d->coming;
  memset(c->owners, 0, PLACES * sizeof *c->owners);
  for (const struct mlz_feed *f = m->feeds; f; f = f->next) {
    uint16_t self = f->index + 1 < SEVERAL ? (uint16_t)(f->index + 1) : SEVERAL;
    for (uint64_t pos = f->pos; pos < f->h2; pos++) {
      uint16_t *owner = &c->owners[place(mlz_word_granule(mlz_feed_word(f, pos), f->near_base))];
      *owner = *owner == 0 || *owner == self ? self : SEVERAL;
    }
  }
  c->round = d->round;
  c->image = m;
}

/* Was the message's event made without the GIL? */
static bool nogil(uint64_t a) {
  if (mlz_word_small(a)) return false;
  return (mlz_word_kind(a) == MLZ_K_ALLOC_NEAR ? mlz_near_flags(a) : mlz_word_flags(a)) & MLZ_F_NOGIL;
}

/* Really there, not only by its hash? Under the GIL, and while its order is kept, what another ring still holds comes later and explains nothing. */
static bool there(const struct mlz_feed *f, uint64_t granule) {
  const bool any = f->image->n_blocked != 0 || nogil(mlz_feed_word(f, f->pos));
  for (const struct mlz_feed *o = f->image->feeds; o; o = o->next) {
    if (o == f) continue;
    for (uint64_t pos = o->pos; pos < o->h2; pos++) {
      uint64_t word = mlz_feed_word(o, pos);
      if (mlz_word_granule(word, o->near_base) == granule && (any || nogil(word))) return true;
    }
  }
  return false;
}

bool mlz_coming(struct mlz_drain *d, const struct mlz_feed *f, uint64_t granule) {
  struct mlz_coming *c = &d->coming;
  if (!c->owners && !(c->owners = malloc(PLACES * sizeof *c->owners))) return true;
  if (c->round != d->round || c->image != f->image) fill(d, f->image);
  uint16_t owner = c->owners[place(granule)];
  if (owner == 0 || owner == f->index + 1) return false;
  /* Elsewhere hardly anything is unknown but what comes; a fork's child frees what it inherited, and waiting in vain lets others run ahead. */
  return f->image->origin != MLZ_ORIGIN_FORK || there(f, granule);
}

void mlz_coming_free(struct mlz_coming *c) {
  free(c->owners);
  *c = (struct mlz_coming){0};
}
