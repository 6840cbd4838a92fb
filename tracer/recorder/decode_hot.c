/* The common messages in one loop: allocations, steps and frees of blocks that fit what is known. Whatever is odd about a message
 * leaves the loop before anything is changed, and decode.c takes it. Results are those of decode.c; only what each event changes is
 * kept in local variables here, which is why the loop is one long function.
 * Budget: 80 instructions for a free, 120 for an allocation with an unchanged stack, 60 more for each frame that changes. */
#include "tracer/recorder/account.h"
#include "tracer/recorder/frames.h"

#define AGED 16384u /* a block that was allocated so many allocations ago is hardly in a cache any more */
#define GROUP 16u   /* words that are looked at ahead together */
#define AHEAD 256u  /* words ahead of which their lines are fetched: they lie in the cache of the core that wrote them */

static inline __attribute__((always_inline)) void fetch(const struct mlz_feed *f, uint64_t pos, unsigned n) {
  for (unsigned i = 0; i < n; i += 64 / sizeof(uint64_t)) __builtin_prefetch(&f->in[(pos + i) & f->mask]);
}

/* Fetches what the messages after `pos` need: a word that is no head, or is not published yet, costs a useless fetch. */
static inline __attribute__((always_inline)) void look_ahead(struct mlz_heap *h, const struct mlz_feed *f, uint64_t pos) {
  for (unsigned i = 0; i < GROUP; i++) mlz_heap_fetch_place(h, mlz_word_granule(mlz_feed_word(f, pos + 2 * GROUP + i), f->near_base));
  for (unsigned i = 0; i < GROUP; i++) mlz_heap_fetch_block(h, mlz_word_granule(mlz_feed_word(f, pos + GROUP + i), f->near_base));
}

static __attribute__((noinline)) bool change(struct mlz_drain *d, struct mlz_feed *f, uint32_t pop, uint32_t push, uint64_t end) {
  return mlz_frames_change(d, f, 0, pop, push, end);
}

static __attribute__((noinline)) uint32_t old_class(struct mlz_drain *d, struct mlz_builder *b, const struct mlz_live *block) {
  return mlz_append_class(b, block->stack, mlz_live_size(block), mlz_live_domain(block), d->weights[block->weight]);
}

static inline __attribute__((always_inline)) void take(struct mlz_drain *d, struct mlz_feed *f, uint64_t end, const bool writes,
                                                       const bool deep, const bool totals, const bool native) {
  struct mlz_image *m = f->image;
  struct mlz_heap *h = &m->heap;
  struct mlz_builder *const b = m->builder;
  struct mlz_live *const blocks = h->blocks;
  const uint64_t *const in = f->in;
  const uint64_t bases[2] = {f->near_base[0], f->near_base[1]};
  const uint64_t mask = f->mask, start = f->pos, first = writes ? b->first_alloc : 0;
  const uint32_t weight = f->weight;
  uint64_t pos = start, live = m->live_bytes, top = 0, next = m->next_alloc, look = pos, took = 0, freed = 0, aged = 0;
  uint64_t filtered = 0, filtered_frees = 0;
  uint32_t n = 0, refs = 0, latest = 0, spare = h->blocks_free, used = h->blocks_used;
  uint64_t weight_bits = 0;
  if (writes) {
    if (b->pending || b->weight != d->weights[weight]) return; /* decode.c settles that */
    n = b->n;
    refs = b->refs;
    latest = b->thread_latest[b->thread_index];
    weight_bits = (uint64_t)b->weight_index << 52;
  }
  if (!totals && end - pos > m->room) end = pos + m->room; /* an event takes a word at least */

  while (pos < end) {
    if (__builtin_expect(pos >= look, 0)) {
      if (pos + AHEAD + GROUP <= f->h2) fetch(f, pos + AHEAD, GROUP);
      if (deep) look_ahead(h, f, pos);
      look = pos + GROUP;
    }
    const uint64_t word = in[pos & mask], granule = mlz_word_granule(word, bases);
    if (native && mlz_word_kind(word) == MLZ_K_NATIVE) {
      if (!mlz_native_set(f, mlz_word_value(word), mlz_word_flags(word))) break;
      pos++;
      continue;
    }
    const struct mlz_region_slot *c = &h->cache[granule >> MLZ_REGION_SHIFT & (MLZ_REGION_CACHE - 1)];
    if (__builtin_expect(c->number != (granule >> MLZ_REGION_SHIFT) + 1, 0)) {
      if (mlz_heap_region_find(h, granule >> MLZ_REGION_SHIFT)) continue; /* in the cache now */
      break;
    }
    struct mlz_page *page = &c->region->pages[granule >> MLZ_LEAF_SHIFT & (MLZ_REGION_PAGES - 1)];
    struct mlz_leaf *leaf = mlz_page_leaf(page);
    if (__builtin_expect(!leaf, 0)) break;
    uint32_t *at = &leaf->at[granule & 255];
    const unsigned kind = mlz_word_kind(word);

    if (kind == MLZ_K_FREE) {
      const bool temporary = mlz_word_flags(word) & MLZ_F_TEMPORARY;
      uint32_t number = *at;
      if (__builtin_expect(number == 0, 0)) break;
      struct mlz_live *block = &blocks[number];
      uint64_t size = mlz_live_size(block), no = block->alloc_no;
      if (__builtin_expect(block->stack == MLZ_STACK_FILTERED, 0)) {
        filtered_frees++;
        goto gone;
      }
      if (!totals) aged += next - no > AGED;
      freed++;
      if (totals) mlz_totals_freed(m->totals, (uint32_t)no, size, temporary);
      if (writes) {
        if (__builtin_expect(no < first, 0)) {
          b->ops[n++] = temporary ? MLZ_OP_FREE_OLD_TEMP : MLZ_OP_FREE_OLD;
          b->old_class[b->olds] = __builtin_expect(block->weight == weight, 1)
                                      ? mlz_append_class_of(b, block->stack, block->size_domain | weight_bits)
                                      : old_class(d, b, block);
          b->old_ref[b->olds++] = first - 1 - no;
        } else {
          uint32_t a = (uint32_t)(no - first);
          bool named = !temporary || latest != a + 1;
          b->ops[n++] = !temporary ? MLZ_OP_FREE : named ? MLZ_FILE_OP_FREE_TEMP_REF : MLZ_OP_FREE_TEMP;
          b->ref[refs] = a;
          b->ref_allocs[refs] = (uint32_t)(next - first);
          refs += named;
        }
      }
      live -= mlz_account_bytes(d, size, block->weight);
    gone:
      block->stack = spare;
      spare = number;
      *at = 0;
      pos++;
      if (__builtin_expect(--page->count == 0, 0)) mlz_heap_leaf_drop(h, granule);
      continue;
    }

    if (__builtin_expect(*at != 0 || (spare == 0 && used >= h->blocks_size), 0)) break;
    unsigned flags = 0, domain;
    uint64_t size, after = pos + 1;
    if (mlz_word_small(word)) {
      if (__builtin_expect(f->count == 0 || bases[0] == 0, 0)) break;
      mlz_frames_step(d, f, mlz_small_offset(word));
      size = mlz_small_size(word);
      domain = mlz_small_domain(word);
    } else if (kind == MLZ_K_ALLOC_NEAR) {
      const uint32_t pop = mlz_near_pop(word), push = mlz_near_push(word);
      domain = mlz_near_domain(word);
      after += push;
      if (__builtin_expect(after > f->h2 || domain >= MLZ_D_COUNT || bases[mlz_near_base(domain)] == 0, 0)) break;
      if (pop | push && !change(d, f, pop, push, after)) break;
      size = mlz_near_size(word);
      flags = mlz_near_flags(word);
    } else {
      flags = mlz_word_flags(word);
      domain = mlz_word_domain(word);
      if (__builtin_expect(flags & ~(unsigned)(MLZ_F_NOSTACK | MLZ_F_NOGIL) || pos + 2 > f->h2, 0)) break;
      const uint64_t what = in[after++ & mask];
      if (kind == MLZ_K_ALLOC_STEP) {
        if (f->count == 0) break;
        mlz_frames_step(d, f, (uint32_t)(what >> 32));
        size = (uint32_t)what;
      } else if (kind == MLZ_K_ALLOC) {
        const uint32_t push = (uint32_t)(what >> 56);
        after += push;
        if (push == MLZ_PUSH_LONG || after > f->h2) break;
        if (what >> 48 && !change(d, f, (uint32_t)(what >> 48 & 0xff), push, after)) break;
        size = what & MLZ_SIZE_MASK;
      } else {
        break;
      }
    }
    const uint64_t size_domain = (uint64_t)domain << 48 | size;
    uint32_t stack = mlz_frames_stack(d, f, flags, native), number = spare;
    const bool kept = stack != MLZ_STACK_FILTERED;
    if (writes && __builtin_expect(kept, 1)) {
      b->ops[n++] = MLZ_OP_ALLOC;
      latest = (uint32_t)(next - first);
      b->alloc_class[latest++] = mlz_append_class_of(b, stack, size_domain | weight_bits);
    }
    if (__builtin_expect(number != 0, 1)) {
      spare = blocks[number].stack;
    } else {
      number = used++;
    }
    uint64_t no = next;
    if (totals && kept) {
      no = mlz_totals_row(m->totals, stack, domain, weight, d->weights[weight]);
      mlz_totals_alloc(m->totals, (uint32_t)no, size);
    }
    blocks[number] = (struct mlz_live){.alloc_no = no, .size_domain = size_domain, .stack = stack, .weight = weight};
    *at = number;
    page->count++;
    pos = after;
    if (__builtin_expect(!kept, 0)) {
      filtered++;
      continue;
    }
    next++;
    live += mlz_account_bytes(d, size, weight);
    if (live > top) top = live;
    took++;
  }

  if (writes) {
    m->room -= n - b->n;
    b->n = n;
    b->allocs = (uint32_t)(next - first);
    b->refs = refs;
    b->frees += (uint32_t)freed;
    b->thread_latest[b->thread_index] = latest;
  } else if (!totals) {
    m->room -= (uint32_t)(took + freed);
  }
  f->pos = pos;
  f->allocs += took;
  f->frees += freed;
  mlz_account_filtered(d, f, filtered, filtered_frees);
  m->next_alloc = next;
  if (freed) f->deep = aged * 4 > freed;
  h->blocks_free = spare;
  h->blocks_used = used;
  h->live += took + filtered - freed - filtered_frees;
  uint64_t others = d->live_bytes - m->live_bytes; /* of the other images */
  d->live_bytes = others + live;
  m->live_bytes = live;
  if (totals && took && top > m->totals->peak_bytes) {
    m->totals->peak_bytes = top;
    m->totals->peak_ns = f->ns;
  }
  if (took && others + top > d->peak_bytes) {
    d->peak_bytes = others + top;
    d->peak_ns = f->ns;
  }
}

static __attribute__((noinline)) void take_native(struct mlz_drain *d, struct mlz_feed *f, uint64_t end) {
  if (f->image->totals) {
    take(d, f, end, false, false, true, true);
  } else if (f->image->builder && f->deep) {
    take(d, f, end, true, true, false, true);
  } else if (f->image->builder) {
    take(d, f, end, true, false, false, true);
  } else {
    take(d, f, end, false, false, false, true);
  }
}

void mlz_decode_hot(struct mlz_drain *d, struct mlz_feed *f, uint64_t end) {
  const struct mlz_image *m = f->image;
  if (m->n_blocked | m->n_shadows || (!m->room && !m->totals)) return;
  if (d->native) {
    take_native(d, f, end);
  } else if (m->totals) {
    take(d, f, end, false, false, true, false);
  } else if (!m->builder) {
    take(d, f, end, false, false, false, false);
  } else if (f->deep) {
    take(d, f, end, true, true, false, false);
  } else {
    take(d, f, end, true, false, false, false);
  }
}
