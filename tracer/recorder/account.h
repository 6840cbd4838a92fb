/* The hot half of the drain: what an allocation and a free do to the live set, the totals and the builder.
 * Included by decode.c and account.c only; see drain.h. Budget: 25 ns for an allocation and its free. */
#ifndef MLZ_RECORDER_ACCOUNT_H
#define MLZ_RECORDER_ACCOUNT_H

#include "formats/append.h"
#include "tracer/recorder/drain.h"

/* The image's next events are this feed's. */
static inline void mlz_account_turn(struct mlz_image *m, struct mlz_feed *f) {
  if (m->current == f || !m->builder) return;
  mlz_builder_thread(m->builder, f->thread);
  mlz_builder_time(m->builder, f->ns);
  m->current = f;
}

/* Bytes that a block stands for in the estimate of the whole program. */
static inline uint64_t mlz_account_bytes(const struct mlz_drain *d, uint64_t size, uint32_t weight) {
  return __builtin_expect(weight == 0, 1) ? size : (uint64_t)((double)size * d->weights[weight] + 0.5);
}

/* Blocks that are not wanted are counted where --include and --exclude say so. Those of our own package are nowhere. */
static inline void mlz_account_filtered(struct mlz_drain *d, struct mlz_feed *f, uint64_t allocs, uint64_t frees) {
  if (!d->symbols.filter) return;
  f->filtered += allocs;
  d->total.frees_filtered += frees;
}

static inline void mlz_account_freed(struct mlz_drain *d, struct mlz_feed *f, const struct mlz_live *block, bool temporary) {
  struct mlz_image *m = f->image;
  if (__builtin_expect(block->stack == MLZ_STACK_FILTERED, 0)) {
    mlz_account_filtered(d, f, 0, 1);
    return;
  }
  uint64_t size = mlz_live_size(block), bytes = mlz_account_bytes(d, size, block->weight);
  if (m->totals) {
    mlz_totals_freed(m->totals, (uint32_t)block->alloc_no, size, temporary);
  } else if (__builtin_expect(m->room-- == 0, 0)) {
    mlz_account_room(d, m, f);
  }
  if (m->builder && !m->totals)
    mlz_append_free(m->builder, block->alloc_no, block->stack, size, mlz_live_domain(block), d->weights[block->weight], temporary);
  d->live_bytes -= bytes;
  m->live_bytes -= bytes;
  f->frees++;
}

/* The free of a block that is live. false: none is. */
static inline bool mlz_account_free(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule, bool temporary) {
  struct mlz_live block;
  if (!mlz_heap_take(&f->image->heap, granule, &block)) return false;
  mlz_account_freed(d, f, &block, temporary);
  return true;
}

static inline void mlz_account_foreign(struct mlz_drain *d, struct mlz_feed *f) {
  struct mlz_image *m = f->image;
  if (d->symbols.filter) { /* nobody knows its stack: it may well be of a block that was filtered */
    d->total.frees_filtered++;
    return;
  }
  if (m->totals) {
    m->totals->foreign++;
  } else {
    if (m->room-- == 0) mlz_account_room(d, m, f);
    if (m->builder) mlz_builder_free_foreign(m->builder);
  }
  f->frees++;
  d->total.frees_foreign++;
}

/* An allocation at a place where no block is live. */
static inline void mlz_account_alloc(struct mlz_drain *d, struct mlz_feed *f, struct mlz_place at, uint64_t size, unsigned domain,
                                     uint32_t stack, uint32_t weight) {
  struct mlz_image *m = f->image;
  if (__builtin_expect(stack == MLZ_STACK_FILTERED, 0)) {
    struct mlz_live block = {.alloc_no = 0, .size_domain = (uint64_t)domain << 48 | size, .stack = stack, .weight = weight};
    if (at.at) mlz_heap_put(&m->heap, at, block);
    mlz_account_filtered(d, f, 1, 0);
    return;
  }
  uint64_t number = m->next_alloc; /* a new builder begins with it */
  if (m->totals) {
    number = mlz_totals_row(m->totals, stack, domain, weight, d->weights[weight]);
    mlz_totals_alloc(m->totals, (uint32_t)number, size);
  } else {
    if (__builtin_expect(m->room-- == 0, 0)) mlz_account_room(d, m, f);
    if (m->builder) mlz_append_alloc(m->builder, stack, size, domain, d->weights[weight]);
  }
  struct mlz_live block = {.alloc_no = number, .size_domain = (uint64_t)domain << 48 | size, .stack = stack, .weight = weight};
  if (at.at) mlz_heap_put(&m->heap, at, block); /* out of memory: its free will be foreign */
  uint64_t bytes = mlz_account_bytes(d, size, weight);
  m->live_bytes += bytes;
  d->live_bytes += bytes;
  if (d->live_bytes > d->peak_bytes) {
    d->peak_bytes = d->live_bytes;
    d->peak_ns = f->ns;
  }
  if (m->totals && m->live_bytes > m->totals->peak_bytes) {
    m->totals->peak_bytes = m->live_bytes;
    m->totals->peak_ns = f->ns;
  }
  m->next_alloc++;
  f->allocs++;
}

#endif
