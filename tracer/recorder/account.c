#include "tracer/recorder/account.h"

_Static_assert((int)MLZ_D_RAW == (int)MLZ_BLOCK_RAW && (int)MLZ_D_MEM == (int)MLZ_BLOCK_MEM && (int)MLZ_D_OBJ == (int)MLZ_BLOCK_OBJ &&
                   (int)MLZ_D_MALLOC == (int)MLZ_BLOCK_MALLOC && (int)MLZ_D_MMAP == (int)MLZ_BLOCK_MMAP &&
                   (int)MLZ_D_COUNT == (int)MLZ_BLOCK_DOMAINS,
               "the ring's domains are the file's");

void mlz_account_room(struct mlz_drain *d, struct mlz_image *m, struct mlz_feed *f) {
  if (d->emit && m->builder && mlz_builder_room(m->builder) == 0) mlz_image_seal(d);
  m->room = 1000; /* without a builder: until we try again */
  if (!d->emit) return;
  if (!m->builder) {
    m->builder = mlz_emit_builder(d->emit);
    if (!m->builder) return; /* out of memory: the events are lost, the program runs on; mlz_emit_group will have said so */
    mlz_builder_begin(m->builder, m->process, m->next_alloc, f->ns);
    m->current = NULL;
  }
  m->room = mlz_builder_room(m->builder) - 1; /* this event's place is taken */
  mlz_account_turn(m, f);
}

void mlz_account_rare(struct mlz_drain *d, struct mlz_feed *f, const struct mlz_rare *r) {
  struct mlz_image *m = f->image;
  if (m->totals && r->op == MLZ_OP_GC) return; /* there may be as many as there would be events */
  if (m->room-- == 0) mlz_account_room(d, m, f);
  if (m->builder) {
    mlz_builder_rare(m->builder, r);
    if (m->totals) m->totals->events++;
  }
  bool gc = r->op == MLZ_OP_GC, mark = r->op == MLZ_OP_MARK || r->op == MLZ_OP_SNAPSHOT;
  m->gcs += gc;
  m->marks += mark;
  f->others += gc || mark;
}

/* ---- mappings ---- */

static void extent_free(struct mlz_drain *d, struct mlz_feed *f, const struct mlz_live *block) {
  struct mlz_image *m = f->image;
  if (block->stack == MLZ_STACK_FILTERED) {
    mlz_account_filtered(d, f, 0, 1);
    return;
  }
  if (m->totals) {
    mlz_totals_freed(m->totals, (uint32_t)block->alloc_no, mlz_live_size(block), false);
  } else if (m->room-- == 0) {
    mlz_account_room(d, m, f);
  }
  if (m->builder && !m->totals)
    mlz_builder_free_block(m->builder, block->alloc_no, block->stack, mlz_live_size(block), MLZ_D_MMAP, d->weights[block->weight], false);
  m->frees++;
  f->others += !m->totals;
}

static void extent_alloc(struct mlz_drain *d, struct mlz_feed *f, uint64_t start, uint64_t end, uint32_t stack, uint32_t weight) {
  struct mlz_image *m = f->image;
  uint64_t size = (end - start) << MLZ_GRANULE_SHIFT;
  struct mlz_live block = {.size_domain = (uint64_t)MLZ_D_MMAP << 48 | size, .stack = stack, .weight = weight};
  if (stack == MLZ_STACK_FILTERED) {
    d->total.filtered += d->symbols.filter != NULL;
  } else {
    if (m->totals) {
      block.alloc_no = mlz_totals_row(m->totals, stack, MLZ_D_MMAP, weight, d->weights[weight]);
      mlz_totals_alloc(m->totals, (uint32_t)block.alloc_no, size);
    } else {
      if (m->room-- == 0) mlz_account_room(d, m, f);
      if (m->builder) mlz_builder_alloc(m->builder, stack, size, MLZ_D_MMAP, d->weights[weight]);
      block.alloc_no = m->next_alloc;
    }
    m->next_alloc++;
    m->allocs++;
    f->others += !m->totals;
  }
  mlz_extents_add(&m->extents, (struct mlz_range){.start = start, .end = end, .block = block});
}

void mlz_account_unmap(struct mlz_drain *d, struct mlz_feed *f, uint64_t start, uint64_t granules) {
  uint64_t end = start + granules;
  struct mlz_range x;
  while (mlz_extents_take(&f->image->extents, start, end, &x)) {
    extent_free(d, f, &x.block);
    unsigned pieces = (x.start < start) + (x.end > end); /* the program allocated none of them */
    *(x.block.stack == MLZ_STACK_FILTERED ? &d->total.filtered_pieces : &d->total.pieces) += pieces;
    if (x.start < start) extent_alloc(d, f, x.start, start, x.block.stack, x.block.weight);
    if (x.end > end) extent_alloc(d, f, end, x.end, x.block.stack, x.block.weight);
  }
}

void mlz_account_map(struct mlz_drain *d, struct mlz_feed *f, uint64_t start, uint64_t granules, uint32_t stack, uint32_t weight) {
  if (granules == 0) return;
  mlz_account_unmap(d, f, start, granules); /* MAP_FIXED replaces what was there */
  extent_alloc(d, f, start, start + granules, stack, weight);
}
