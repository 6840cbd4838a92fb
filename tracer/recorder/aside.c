/* Events without the GIL that do not fit in the order in which they were found: see struct mlz_shadow. */
#include "tracer/recorder/account.h"

#include <stdlib.h>

static struct mlz_shadow *aside_new(struct mlz_image *m, uint64_t granule) {
  if (m->n_shadows == m->shadows_size) {
    struct mlz_shadow *grown = reallocarray(m->shadows, m->shadows_size + 64, sizeof *grown);
    if (!grown) return NULL;
    m->shadows = grown;
    m->shadows_size += 64;
  }
  struct mlz_shadow *s = &m->shadows[m->n_shadows++];
  *s = (struct mlz_shadow){.granule = granule};
  return s;
}

bool mlz_aside_block(struct mlz_image *m, uint64_t granule) {
  struct mlz_shadow *s = aside_new(m, granule);
  return s && mlz_heap_take(&m->heap, granule, &s->block);
}

bool mlz_aside_debt(struct mlz_image *m, uint64_t granule) {
  struct mlz_shadow *s = aside_new(m, granule);
  if (s) s->debt = true;
  return s != NULL;
}

static struct mlz_shadow *find(struct mlz_image *m, uint64_t granule, bool debt) {
  for (uint32_t i = m->n_shadows; i-- > 0;) {
    if (m->shadows[i].granule == granule && m->shadows[i].debt == debt) return &m->shadows[i];
  }
  return NULL;
}

static void drop(struct mlz_image *m, struct mlz_shadow *s) { *s = m->shadows[--m->n_shadows]; }

void mlz_aside_freed(struct mlz_image *m, uint64_t granule) {
  struct mlz_shadow *s = find(m, granule, false);
  if (!s || mlz_heap_find(&m->heap, granule)) return;
  mlz_heap_add(&m->heap, granule, s->block);
  drop(m, s);
}

void mlz_aside_allocated(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule) {
  struct mlz_shadow *s = find(f->image, granule, true);
  if (!s) return;
  drop(f->image, s);
  mlz_account_free(d, f, granule, false);
}

bool mlz_aside_realloc_left(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule) {
  for (struct mlz_feed *o = f->image->feeds; o; o = o->next) {
    if (!o->realloc_open || o->realloc_freed || o->realloc_granule != granule) continue;
    o->realloc_freed = true;
    return mlz_account_free(d, f, granule, false);
  }
  return false;
}

void mlz_aside_settle(struct mlz_drain *d, struct mlz_image *m) {
  struct mlz_feed *f = m->feeds;
  mlz_account_turn(m, f);
  while (m->n_shadows) {
    struct mlz_shadow s = m->shadows[m->n_shadows - 1];
    if (!s.debt && mlz_aside_realloc_left(d, f, s.granule)) {
      mlz_aside_freed(m, s.granule);
      continue;
    }
    m->n_shadows--;
    if (s.debt) {
      mlz_account_foreign(d, f);
    } else {
      mlz_account_freed(d, f, &s.block, false);
      d->total.frees_inferred++;
    }
  }
}
