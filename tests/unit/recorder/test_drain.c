#include "fake.h"

static struct fake f;

static const char *events(void) {
  struct mlz_trace *t = fake_end(&f);
  const char *text = fake_events(t, 1);
  mlz_trace_close(t);
  return text;
}

Test(drain, pairs_and_totals) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 100, 64);
  fake_alloc(x, 200, 32);
  fake_free(x, 100);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 32);
  cr_assert_eq(f.d.peak_bytes, 96);
  cr_assert_eq(atomic_load(&x->r->tail), x->head, "the producer has its room back");
  struct mlz_counters t = mlz_drain_counters(&f.d);
  cr_assert_eq(t.allocs, 2);
  cr_assert_eq(t.frees, 1);
  fake_free(x, 200);
  fake_free(x, 300);
  cr_assert_str_eq(events(), "+64 +32 -64 -32 ~");
}

/* Rule 11: rings of one image are taken in the order of their sequence numbers, whatever their place in the arena. */
Test(drain, order_by_sequence_number) {
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  fake_order(b, 1);
  fake_alloc(b, 10, 1);
  fake_order(a, 2);
  fake_alloc(a, 20, 2);
  fake_alloc(a, 21, 3);
  fake_order(b, 3);
  fake_alloc(b, 11, 4);
  fake_free(b, 20);
  fake_order(a, 4);
  fake_free(a, 11);
  cr_assert_str_eq(events(), "+1 +2 +3 +4 -2 -4");
}

/* Rule 10: what was published between the two looks at the heads, in a ring as new as its thread, comes before what another ring
 * published later. */
Test(drain, order_of_what_lies_between_the_heads) {
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  mlz_drain_round(&f.d);
  fake_order(a, 1);
  fake_alloc(a, 1, 10);
  fake_order(b, 2);
  fake_alloc(b, 7, 60);
  fake_free(b, 7);
  fake_order(a, 3);
  fake_alloc(a, 7, 70);
  struct mlz_feed *x = f.d.feeds[0], *y = f.d.feeds[1];
  x->h1 = x->h2 = a->head;
  y->h1 = 0;
  y->h2 = b->head;
  mlz_order_image(&f.d, x->image);
  cr_assert_eq(y->pos, b->head);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.frees_inferred, 0);
  cr_assert_str_eq(events(), "+10 +60 -60 +70");
}

/* Without sequence numbers the published time orders. */
Test(drain, order_by_time) {
  fake_begin(&f);
  f.arena.control->base_ns -= 1000000; /* so that these times are past */
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  fake_put(a, MLZ_K_TIME, 300);
  fake_alloc(a, 1, 3);
  fake_put(b, MLZ_K_TIME, 100);
  fake_alloc(b, 2, 1);
  fake_put(b, MLZ_K_TIME, 400);
  fake_alloc(b, 3, 4);
  cr_assert_str_eq(events(), "+1 +3 +4");
}

/* Rule 12: an address that another thread has freed and this one got. */
Test(drain, allocation_waits_for_the_free) {
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  fake_alloc(b, 7, 70);
  mlz_drain_round(&f.d);
  for (int i = 0; i < 2; i++) { /* whichever ring is looked at first */
    struct fake_ring *from = i ? a : b, *to = i ? b : a;
    fake_free(from, 7);
    fake_alloc(to, 7, 71 + (uint64_t)i);
    mlz_drain_round(&f.d);
    cr_assert_eq(f.d.total.frees_inferred, 0);
  }
  cr_assert_str_eq(events(), "+70 -70 +71 -71 +72");
}

/* Rule 13: a free that is read before the allocation it belongs to. */
Test(drain, free_waits_for_the_allocation) {
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  fake_alloc(a, 1, 10);
  fake_alloc(b, 2, 20);
  fake_free(a, 2);
  fake_free(b, 1);
  fake_free(b, 99);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 0);
  cr_assert_eq(f.d.total.frees_foreign, 1, "only that of an address that nobody allocated");
  mlz_trace_close(fake_end(&f));
}

/* A fork's child reallocates and frees what it inherited: nothing will explain that, so nobody must run ahead of it. */
Test(drain, what_is_inherited_holds_up_no_order) {
  const unsigned domains[] = {MLZ_D_MEM, MLZ_D_MALLOC};
  for (size_t i = 0; i < 2; i++) {
    fake_domain = domains[i];
    fake_begin(&f);
    struct fake_ring *parent = fake_ring(&f, 2, 1), *a = fake_ring(&f, 0, 2), *b = fake_ring(&f, 1, 2);
    fake_image(parent, 0, MLZ_ORIGIN_EXEC);
    fake_image(a, 1, MLZ_ORIGIN_FORK);
    fake_order(a, 1);
    fake_word(a, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, domains[i], 1000));
    fake_event(a, MLZ_K_REALLOC_END, 0, domains[i], 1001, 5, 0, NULL, 0);
    fake_free(a, 2000);
    fake_order(b, 2);
    fake_alloc(b, 7, 60);
    fake_order(a, 3);
    fake_free(a, 7);
    fake_order(b, 4);
    fake_alloc(b, 8, 100);
    mlz_drain_round(&f.d);
    cr_assert_eq(f.d.live_bytes, 105);
    cr_assert_eq(f.d.peak_bytes, 105, "100 came when 60 was gone: %lu", f.d.peak_bytes);
    mlz_trace_close(fake_end(&f));
  }
}

Test(drain, a_lost_free_closes_the_old_block) {
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1);
  fake_ring(&f, 1, 1);
  fake_alloc(a, 5, 50);
  fake_alloc(a, 5, 51);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.frees_inferred, 1);
  cr_assert_str_eq(events(), "+50 -50 +51");
}

/* A: +x -x, then B: +x, all in one round, B read first. */
Test(drain, allocation_taken_too_early) {
  fake_domain = MLZ_D_MALLOC;
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  fake_alloc(a, 5, 50);
  fake_free(a, 5);
  fake_alloc(b, 5, 51);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 51);
  cr_assert_eq(f.d.total.frees_inferred, 0);
  mlz_trace_close(fake_end(&f));
}

/* A: +x, B: -x +x, A: -x: A's two are read together. */
Test(drain, free_taken_too_early) {
  fake_domain = MLZ_D_MALLOC;
  fake_begin(&f);
  for (uint32_t i = 0; i < 2; i++) {
    struct fake_ring *a = fake_ring(&f, 2 * i + (i == 0), i + 1), *b = fake_ring(&f, 2 * i + (i != 0), i + 1);
    fake_alloc(a, 5, 50);
    fake_free(b, 5);
    fake_alloc(b, 5, 51);
    fake_free(a, 5);
  }
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 0);
  cr_assert_eq(f.d.total.frees_foreign, 0);
  mlz_trace_close(fake_end(&f));
}

static void reallocate(struct fake_ring *x, uint64_t old, uint64_t granule, uint64_t size, unsigned flags) {
  if (old) fake_word(x, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, MLZ_D_MEM, old));
  fake_event(x, MLZ_K_REALLOC_END, flags, MLZ_D_MEM, granule, size, 0, NULL, 0);
}

Test(drain, realloc) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 1, 10);
  reallocate(x, 1, 2, 20, 0);            /* moves */
  reallocate(x, 2, 2, 30, 0);            /* grows in place */
  reallocate(x, 2, 0, 40, MLZ_F_FAILED); /* nothing happens */
  reallocate(x, 2, 0, 0, MLZ_F_ZERO);    /* frees */
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 0);
  cr_assert_str_eq(events(), "+10 -10 +20 -20 +30 -30");
}

/* Another thread gets the old address while the realloc that left it has not told its end. */
Test(drain, address_used_again_during_realloc) {
  fake_domain = MLZ_D_RAW;
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1);
  fake_alloc(a, 1, 10);
  fake_word(a, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, MLZ_D_RAW, 1));
  fake_publish(a);
  fake_alloc(b, 1, 11);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.frees_inferred, 0);
  cr_assert_eq(f.d.live_bytes, 11);
  fake_event(a, MLZ_K_REALLOC_END, 0, MLZ_D_RAW, 2, 12, 0, NULL, 0);
  cr_assert_str_eq(events(), "+11 +10 -10 +12");
}

/* Temporary: freed while it is still the thread's latest allocation, recorded or not. */
Test(drain, temporary) {
  static const uint8_t want[] = {MLZ_OP_ALLOC, MLZ_OP_FREE_TEMP, MLZ_OP_ALLOC, MLZ_OP_FREE, MLZ_OP_ALLOC, MLZ_OP_ALLOC,
                                 MLZ_OP_FREE,  MLZ_OP_FREE_TEMP, MLZ_OP_ALLOC, MLZ_OP_FREE, MLZ_OP_ALLOC};
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 1, 8);
  fake_free_after(x, 1, 1);
  fake_alloc(x, 2, 8);
  fake_free_after(x, 2, 0); /* another one was passed over in between */
  fake_alloc(x, 3, 8);
  fake_alloc(x, 4, 8);
  fake_free_after(x, 3, 4);
  fake_word(x, mlz_head_word(MLZ_K_REALLOC_BEGIN, MLZ_F_TEMPORARY, MLZ_D_OBJ, 4));
  fake_event(x, MLZ_K_REALLOC_END, 0, MLZ_D_OBJ, 5, 16, 0, NULL, 0);
  fake_word(x, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, MLZ_D_OBJ, 5));
  fake_event(x, MLZ_K_REALLOC_END, 0, MLZ_D_OBJ, 5, 32, 0, NULL, 0);
  mlz_drain_round(&f.d);
  cr_assert_eq(mlz_drain_counters(&f.d).seen, 6);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert_eq(b.n, sizeof want);
  for (uint32_t i = 0; i < b.n; i++) cr_assert_eq(b.ops[i], want[i], "event %u", i);
  mlz_trace_close(t);
}

static void map(struct fake_ring *x, uint64_t page, uint64_t pages) {
  fake_event(x, MLZ_K_MMAP, 0, MLZ_D_MMAP, page << 8, pages << 12, 0, NULL, 0);
}
static void unmap(struct fake_ring *x, uint64_t page, uint64_t pages) {
  fake_put(x, mlz_head_word(MLZ_K_MUNMAP, 0, MLZ_D_MMAP, page << 8), pages << 12);
  fake_publish(x);
}

Test(drain, mappings) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  map(x, 10, 10);
  unmap(x, 13, 2);  /* a hole: 3 pages before, 5 after */
  unmap(x, 100, 4); /* never seen */
  map(x, 12, 4);    /* MAP_FIXED over the ends of both */
  unmap(x, 0, 50);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.peak_bytes, 0, "reserved, not heap");
  cr_assert_eq(f.d.images->extents.count, 0);
  cr_assert_str_eq(events(), "+40960 -40960 +12288 +20480 -12288 +8192 -20480 +16384 +16384 -8192 -16384 -16384");
}

/* ---- stacks ---- */

static const char *stack_text(struct mlz_trace *t, uint32_t id) {
  static char out[512];
  uint32_t n;
  bool truncated;
  size_t at = 0;
  const uint32_t *frames = mlz_trace_stack(t, id, &n, &truncated);
  out[0] = 0;
  for (uint32_t i = 0; i < n && at < sizeof out - 64; i++) {
    struct mlz_frame frame = mlz_trace_frame(t, frames[i]);
    at += (size_t)sprintf(out + at, "%s%s:%u", i ? " " : "", mlz_trace_string(t, frame.function), frame.line);
  }
  if (truncated) strcpy(out + at, " ...");
  return out;
}

Test(drain, stacks) {
  static const char *const want[] = {
      "g:22 f:10", "g:22 f:10", "g:23 f:10", "", "f:12", "<unknown>:0 f:12", "f:10", "g:20 g:20 g:20 g:20 ...", "f:10 ..."};
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_code(x, 1, "f", 10, 1);
  fake_code(x, 2, "g", 20, 3);
  uint64_t fg[] = {MLZ_FRAME(1, 0), MLZ_FRAME(2, 4)}, g[] = {MLZ_FRAME(2, 6)}, top[] = {MLZ_FRAME(1, 4)}, bad[] = {MLZ_FRAME(77, 4)},
           deep[300];
  for (int i = 0; i < 300; i++) deep[i] = MLZ_FRAME(2, 0);
  fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET, 2, 1, 1, 0, fg, 2);
  fake_event(x, MLZ_K_ALLOC, 0, 2, 2, 1, 0, NULL, 0);
  fake_event(x, MLZ_K_ALLOC, 0, 2, 3, 1, 1, g, 1);
  fake_event(x, MLZ_K_ALLOC, MLZ_F_NOSTACK, 2, 4, 1, 0, NULL, 0);
  fake_event(x, MLZ_K_ALLOC, 0, 2, 5, 1, 2, top, 1);
  fake_event(x, MLZ_K_ALLOC, 0, 2, 6, 1, 0, bad, 1);
  fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET, 2, 7, 1, 0, fg, 1);
  fake_event(x, MLZ_K_ALLOC, 0, 2, 8, 1, 0, deep, 300);
  fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET | MLZ_F_BELOW, 2, 9, 1, 0, fg, 1);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert_eq(b.n, 9);
  for (uint32_t i = 0; i < b.n; i++) cr_assert_str_eq(stack_text(t, b.classes[b.classes_of[i]].stack), want[i], "event %u", i);
  mlz_trace_close(t);
}

/* The innermost frame moves on, its code and what lies below stay; sizes and offsets use all their bits. */
Test(drain, steps_of_the_innermost_frame) {
  static const char *const want[] = {"g:22 f:10", "g:23 f:10", "g:23 f:10", "f:12", "", "f:10", "g:22 f:10"};
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_code(x, 1, "f", 10, 1);
  fake_code(x, 2, "g", 20, 1);
  uint64_t fg[] = {MLZ_FRAME(1, 0), MLZ_FRAME(2, 4)}, g[] = {MLZ_FRAME(2, 4)};
  fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET, 2, 1, 1, 0, fg, 2);
  fake_step(x, 0, 2, UINT32_MAX, 6);
  fake_alloc(x, 3, 3);
  fake_event(x, MLZ_K_STACK, 0, 0, 0, 0, 1, NULL, 0);
  fake_step(x, MLZ_F_CERTAIN, 4, 4, 4);
  fake_step(x, MLZ_F_NOSTACK, 5, 5, 0);
  fake_alloc(x, 6, 6);
  fake_event(x, MLZ_K_ALLOC, 0, 2, 7, 7, 0, g, 1);
  mlz_drain_round(&f.d);
  cr_assert_eq(mlz_drain_counters(&f.d).seen, 7);
  cr_assert_eq(f.d.live_bytes, 1 + UINT64_C(0xffffffff) + 3 + 4 + 5 + 6 + 7);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert_eq(b.n, 7);
  for (uint32_t i = 0; i < b.n; i++) cr_assert_str_eq(stack_text(t, b.classes[b.classes_of[i]].stack), want[i], "event %u", i);
  mlz_trace_close(t);
}

Test(drain, a_step_needs_a_frame) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_step(x, 0, 1, 1, 2);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.broken, 1);
  cr_assert_eq(f.d.live_bytes, 0);
  mlz_trace_close(fake_end(&f));
}

/* Two threads whose stacks change at random against a model: far more paths than the tree of paths begins with. */
enum { CHANGES = 40000, DEEPEST = 40 };
struct walker {
  struct fake_ring *ring;
  uint64_t frames[DEEPEST];
  unsigned count;
  bool below;
};
static unsigned window_key(const uint64_t *lines, unsigned n, bool truncated) { /* lines: innermost first, 0..7 */
  unsigned key = truncated ? 1 : 0;
  for (unsigned i = 0; i < n; i++) key = key * 9 + 1 + (unsigned)lines[i];
  return key;
}
static unsigned walker_key(const struct walker *w) {
  uint64_t lines[4];
  unsigned n = w->count < 4 ? w->count : 4;
  for (unsigned i = 0; i < n; i++) {
    uint64_t frame = w->frames[w->count - 1 - i];
    lines[i] = (MLZ_FRAME_CODE(frame) - 1) * 4 + MLZ_FRAME_OFFSET(frame) / 2;
  }
  return window_key(lines, n, w->count > 4 || (w->below && n > 0));
}
static void walk(struct walker *w, unsigned *seed, uint64_t granule, uint64_t size) {
  unsigned what = (unsigned)rand_r(seed);
  if (w->count && what % 3 == 0) {
    uint32_t offset = (what >> 8 & 3) * 2;
    w->frames[w->count - 1] = MLZ_FRAME(MLZ_FRAME_CODE(w->frames[w->count - 1]), offset);
    fake_step(w->ring, 0, granule, size, offset);
    return;
  }
  bool reset = what % 64 == 1;
  unsigned pop = reset ? 0 : (what >> 8) % 4, push = (what >> 16) % 4, flags = 0;
  if (pop > w->count) pop = w->count;
  if (reset) {
    w->below = what >> 20 & 1;
    w->count = 0;
    flags = MLZ_F_RESET | (w->below ? MLZ_F_BELOW : 0);
  }
  w->count -= pop;
  if (push > DEEPEST - w->count) push = DEEPEST - w->count;
  for (unsigned i = 0; i < push; i++) w->frames[w->count + i] = MLZ_FRAME(1 + rand_r(seed) % 2, rand_r(seed) % 4 * 2);
  fake_event(w->ring, MLZ_K_ALLOC, flags, MLZ_D_OBJ, granule, size, pop, w->frames + w->count, push);
  w->count += push;
}

Test(drain, stacks_against_a_model) {
  static unsigned want[CHANGES + 1];
  fake_begin(&f);
  struct walker walkers[2] = {{.ring = fake_ring(&f, 0, 1)}, {.ring = fake_ring(&f, 1, 1)}};
  fake_code(walkers[0].ring, 1, "f", 10, 1);
  fake_code(walkers[0].ring, 2, "g", 20, 1);
  unsigned seed = 7;
  for (unsigned i = 1; i <= CHANGES; i++) {
    struct walker *w = &walkers[rand_r(&seed) % 2];
    walk(w, &seed, 16 + i, i);
    want[i] = walker_key(w);
    if (i % 100 == 0) mlz_drain_round(&f.d);
  }
  cr_assert_gt(f.d.symbols.paths.mask, 4095, "the table of paths has grown on the way");
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  unsigned events = 0;
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {
    for (uint32_t i = 0; i < b.n; i++, events++) {
      const struct mlz_class *k = &b.classes[b.classes_of[i]];
      uint64_t lines[8];
      uint32_t n;
      bool truncated;
      const uint32_t *frames = mlz_trace_stack(t, k->stack, &n, &truncated);
      for (uint32_t j = 0; j < n && j < 8; j++) {
        uint32_t line = mlz_trace_frame(t, frames[j]).line;
        lines[j] = line / 20 * 4 + line % 10;
      }
      cr_assert_leq(n, 4);
      cr_assert_eq(window_key(lines, n, truncated), want[k->size], "event %u", events);
    }
  }
  cr_assert_eq(events, CHANGES);
  mlz_trace_close(t);
}

/* A fork's child names a code that its parent announced and that still lies unread in the parent's ring. */
Test(drain, code_in_a_ring_read_later) {
  fake_begin(&f);
  struct fake_ring *parent = fake_ring(&f, 1, 1), *child = fake_ring(&f, 0, 2);
  uint64_t frame[] = {MLZ_FRAME(5, 2)};
  fake_image(child, 1, MLZ_ORIGIN_FORK);
  fake_event(child, MLZ_K_ALLOC, MLZ_F_RESET, 2, 1, 1, 0, frame, 1);
  fake_image(parent, 0, MLZ_ORIGIN_EXEC);
  fake_event(parent, MLZ_K_ALLOC, 0, 2, 1, 2, 0, NULL, 0);
  fake_code(parent, 5, "late", 40, 2);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  int found = 0;
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {
    if (b.classes[0].size != 1) continue;
    cr_assert_str_eq(stack_text(t, b.classes[0].stack), "late:41");
    found++;
  }
  cr_assert_eq(found, 1);
  mlz_trace_close(t);
}

/* ---- names, marks, collections, losses ---- */

Test(drain, rare_events_and_rows) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_image(x, 0, MLZ_ORIGIN_EXEC);
  fake_put(x, MLZ_K_THREAD, 5);
  fake_put(x, fake_text(x, "main", 4), 1);
  fake_put(x, MLZ_K_PYTHON, 6);
  fake_put(x, fake_text(x, "3.12.1\0known", 12), 0);
  fake_alloc(x, 1, 8);
  fake_put(x, mlz_head_word(MLZ_K_GC_START, 0, 0, 2), 7);
  fake_put(x, mlz_head_word(MLZ_K_GC_STOP, 0, 0, 2), 9);
  fake_put(x, 11, 0);
  fake_put(x, MLZ_K_MARK, 10);
  fake_put(x, fake_text(x, "warm", 4), MLZ_MARK_MARK);
  fake_put(x, MLZ_K_LOST, 11);
  fake_put(x, 3, 0);
  fake_put(x, MLZ_K_FINALIZE, 12);
  fake_free(x, 1);
  struct mlz_counters n;
  mlz_drain_round(&f.d);
  n = mlz_drain_counters(&f.d);
  cr_assert_eq(n.gcs, 1);
  cr_assert_eq(n.marks, 1);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(fake_events(t, 1), "!21 +8 !16 !17 !20 !19 -8");
  const json_t *p = mlz_trace_process(t, 0), *th = mlz_trace_thread(t, 0);
  cr_assert_str_eq(json_string_value(json_object_get(p, "python_version")), "3.12.1");
  cr_assert_str_eq(json_string_value(json_array_get(json_object_get(p, "command"), 1)), "app.py");
  cr_assert_str_eq(json_string_value(json_object_get(th, "name")), "main");
  mlz_trace_close(t);
}

/* What is no message gives the ring up, and nothing else. */
Test(drain, nonsense_in_a_ring) {
  fake_begin(&f);
  struct fake_ring *a = fake_ring(&f, 0, 1), *b = fake_ring(&f, 1, 1), *c = fake_ring(&f, 2, 1), *d = fake_ring(&f, 3, 1);
  fake_alloc(a, 1, 1);
  fake_put(a, 200, 0); /* no kind */
  fake_publish(a);
  fake_put(b, mlz_head_word(MLZ_K_ALLOC, 0, 0, 5), mlz_size_word(1, 0, 200)); /* payload that is not there */
  fake_publish(b);
  fake_put(c, mlz_head_word(MLZ_K_CODE, 0, 0, 5), 1 << 20); /* side bytes that are not there */
  fake_publish(c);
  fake_alloc(d, 2, 2);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.broken, 3);
  fake_alloc(d, 3, 3);
  fake_alloc(a, 4, 4);
  mlz_drain_round(&f.d);
  mlz_drain_round(&f.d);
  cr_assert_eq(atomic_load(&a->r->tail), a->head, "its producer is not held up");
  cr_assert_eq(f.d.live_bytes, 6);
  atomic_store(&d->r->head, d->head + 10 * FAKE_WORDS); /* a head out of bounds */
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.broken, 4);
  mlz_trace_close(fake_end(&f));
}

/* Each field of a short message at its ends; what is said before there is a base is no message. */
Test(drain, short_messages_hold_what_they_say) {
  const uint64_t near = (UINT64_C(1) << MLZ_NEAR_BITS) - 1, base = UINT64_C(0x7f000000000);
  for (unsigned i = 0; i < 2; i++) {
    uint64_t n = i ? near : 0, bases[2] = {base, base + 7};
    uint32_t size = i ? MLZ_SMALL_SIZE - 1 : 0, offset = i ? MLZ_SMALL_OFFSET - 2 : 0;
    uint64_t a = mlz_small_word(n, offset, size, i);
    cr_assert(mlz_word_small(a));
    cr_assert_eq(mlz_word_granule(a, bases), base + n);
    cr_assert_eq(mlz_small_offset(a), offset);
    cr_assert_eq(mlz_small_size(a), size);
    cr_assert_eq(mlz_small_domain(a), i ? MLZ_D_OBJ : MLZ_D_MEM);
    a = mlz_near_word(n, i ? MLZ_NEAR_FRAMES : 0, i ? 15 : 0, size, i ? MLZ_F_NOGIL : 0, i ? MLZ_D_MALLOC : MLZ_D_RAW);
    cr_assert_eq(mlz_word_kind(a), MLZ_K_ALLOC_NEAR);
    cr_assert_eq(mlz_word_granule(a, bases), base + 7 + n);
    cr_assert_eq(mlz_near_push(a), i ? 15 : 0);
    cr_assert_eq(mlz_near_pop(a), i ? 15 : 0);
    cr_assert_eq(mlz_near_size(a), size);
    cr_assert_eq(mlz_near_flags(a), i ? MLZ_F_NOGIL : 0);
    cr_assert_eq(mlz_near_domain(a), i ? MLZ_D_MALLOC : MLZ_D_RAW);
  }
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1), *y = fake_ring(&f, 1, 1);
  for (int k = 0; k < 2; k++) atomic_store(&x->r->near_base[k], 0), atomic_store(&y->r->near_base[k], 0);
  fake_word(x, mlz_near_word(1, 0, 0, 1, 0, MLZ_D_OBJ));
  fake_publish(x);
  fake_word(y, mlz_small_word(1, 0, 1, true));
  fake_publish(y);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.broken, 2);
  mlz_trace_close(fake_end(&f));
}

/* Words that are nearly messages: whatever a ring holds, the recorder reads nothing outside of it and goes on (run under ASan, too). */
Test(drain, random_words) {
  static const uint8_t common[] = {MLZ_K_FREE, MLZ_K_ALLOC, MLZ_K_ALLOC_STEP, MLZ_K_ALLOC_NEAR, 1};
  unsigned seed = 11;
  uint64_t frames[40], taken = 0;
  for (unsigned i = 0; i < 40; i++) frames[i] = MLZ_FRAME(1 + i % 8, 2 * i);
  for (int round = 0; round < 150; round++) {
    fake_begin(&f);
    for (uint32_t i = 0; i < 8; i++) {
      struct fake_ring *x = fake_ring(&f, i, 1);
      fake_code(x, 1 + i, "f", 10, 1);
      fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET, MLZ_D_OBJ, 1000 + i, 8, 0, frames, 40); /* else the first step is the ring's end */
      for (int n = 0; n < 600; n++) {
        unsigned r = (unsigned)rand_r(&seed), kind = r % 1000 ? common[(r >> 4) % 5] : (r >> 16) % 64;
        uint64_t granule = r >> 10 & 1 ? r >> 12 & 63 : (uint64_t)rand_r(&seed) << 12 ^ (uint64_t)rand_r(&seed);
        unsigned flags = r % 61 == 1 ? (unsigned)rand_r(&seed) & 0xff : 0;
        unsigned pop = r >> 8 & 3, push = r % 512 == 7 ? MLZ_PUSH_LONG : r >> 6 & 3;
        uint64_t b = r % 67 == 5 ? (uint64_t)rand_r(&seed) << 33 ^ (uint64_t)rand_r(&seed) : mlz_size_word(r & 0xfff, pop, push);
        if (kind == 1)
          fake_word(x, mlz_small_word(granule, (r >> 3 & 0xff) * 2, r & 0x3ff, r & 1));
        else if (kind == MLZ_K_FREE)
          fake_word(x, mlz_head_word(kind, flags, r >> 14 & 3, granule & ((UINT64_C(1) << MLZ_GRANULE_BITS) - 1)));
        else if (kind == MLZ_K_ALLOC_NEAR)
          fake_word(x, mlz_near_word(granule, r >> 6 & (r % 61 ? 1 : 15), r >> 8 & 3, r & 0x3ff, r >> 5 & 1,
                                     r % 300 ? r >> 14 & 3 : r >> 14 & 7));
        else
          fake_put(x, mlz_head_word(kind, flags, r >> 14 & 7, granule & ((UINT64_C(1) << MLZ_GRANULE_BITS) - 1)), b);
      }
      fake_publish(x);
    }
    for (int i = 0; i < 3; i++) mlz_drain_round(&f.d);
    for (uint32_t i = 0; i < 8; i++) {
      cr_assert_eq(atomic_load(&f.rings[i].r->tail), f.rings[i].head);
      taken += f.d.feeds[i]->allocs;
    }
    struct mlz_trace *t = fake_end(&f);
    struct mlz_block b;
    while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {}
    const struct mlz_damage *damage = mlz_trace_damage(t);
    cr_assert(!damage->cut && damage->chunks_bad == 0, "the file is whole");
    mlz_trace_close(t);
  }
  cr_assert_gt(taken, 150 * 8 * 10, "the rings went on for a while: %lu", (unsigned long)taken);
}

/* Frames that are pushed and never popped: no thread has so many, and the recorder's memory is not for the asking. */
Test(drain, a_stack_without_end) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  uint64_t frames[1000];
  for (int i = 0; i < 1000; i++) frames[i] = MLZ_FRAME(1, i);
  for (uint64_t i = 1; i <= 4; i++) {
    fake_event(x, MLZ_K_ALLOC, 0, MLZ_D_OBJ, i, 1, 0, frames, 1000);
    mlz_drain_round(&f.d);
  }
  cr_assert_eq(f.d.total.broken, 0);
  cr_assert_eq(f.d.live_bytes, 4);
  fake_event(x, MLZ_K_ALLOC, 0, MLZ_D_OBJ, 5, 1, 0, frames, 1000);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.broken, 1);
  cr_assert_eq(f.d.live_bytes, 4);
  mlz_trace_close(fake_end(&f));
}

/* ---- rings that come and go ---- */

Test(drain, a_ring_is_free_again_when_its_thread_is_gone) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  x->r->tid = 0x3fffff; /* beyond pid_max of most machines: nobody */
  fake_alloc(x, 1, 8);
  atomic_store(&x->r->allocs_passed, 3);
  atomic_store(&x->r->dropped_alloc, 1);
  mlz_drain_round(&f.d);
  cr_assert_eq(atomic_load(&x->r->state), MLZ_RING_LIVE, "not ending yet, and not silent for long");
  fake_free(x, 1);
  atomic_store(&x->r->ending, 1);
  for (int i = 0; i < 3; i++) mlz_drain_round(&f.d);
  cr_assert_eq(atomic_load(&x->r->state), MLZ_RING_FREE);
  cr_assert_eq(atomic_load(&x->r->head), 0);
  cr_assert_eq(mlz_drain_counters(&f.d).seen, 5, "one traced, three passed over, one lost");
  x = fake_ring(&f, 0, 1);
  fake_alloc(x, 2, 8);
  mlz_drain_round(&f.d);
  cr_assert_eq(mlz_drain_counters(&f.d).allocs, 2);
  mlz_trace_close(fake_end(&f));
}

Test(drain, an_exec_ends_the_image_before) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 1, 8);
  mlz_drain_round(&f.d);
  struct fake_ring *y = fake_ring(&f, 1, 2); /* same pid */
  fake_alloc(y, 1, 16);
  for (int i = 0; i < 3; i++) mlz_drain_round(&f.d);
  cr_assert_eq(atomic_load(&x->r->state), MLZ_RING_FREE);
  cr_assert_eq(f.d.live_bytes, 16, "the memory of the old image is gone");
  cr_assert_eq(mlz_image_living(&f.d), 1);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_eq(mlz_trace_processes(t), 2);
  cr_assert_str_eq(json_string_value(json_object_get(mlz_trace_process(t, 0), "end")), "exec");
  mlz_trace_close(t);
}

Test(drain, a_process_that_leaves_lives_on) {
  fake_begin(&f);
  f.d.watched = (uint32_t)getpid();
  struct fake_ring *x = fake_ring(&f, 0, 1), *y = fake_ring(&f, 1, 1);
  fake_alloc(x, 1, 8);
  fake_alloc(y, 2, 16);
  mlz_drain_round(&f.d);
  fake_alloc(y, 3, 32);
  atomic_store(&x->r->ending, MLZ_RING_DETACHED);
  atomic_store(&y->r->ending, MLZ_RING_DETACHED);
  cr_assert_not(f.d.watched_left);
  for (int i = 0; i < 3; i++) mlz_drain_round(&f.d);
  cr_assert_eq(atomic_load(&x->r->state), MLZ_RING_FREE);
  cr_assert_eq(atomic_load(&y->r->state), MLZ_RING_FREE);
  cr_assert(f.d.watched_left, "its thread and process live");
  cr_assert_eq(mlz_drain_counters(&f.d).allocs, 3, "what was written last was taken");
  struct fake_ring *z = fake_ring(&f, 0, 2); /* it comes again */
  fake_alloc(z, 1, 8);
  mlz_drain_round(&f.d);
  cr_assert_eq(mlz_image_living(&f.d), 1);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_eq(mlz_trace_processes(t), 2);
  cr_assert_str_eq(json_string_value(json_object_get(mlz_trace_process(t, 0), "end")), "stop");
  mlz_trace_close(t);
}

/* ---- a program of several threads against a model ---- */

enum { THREADS = 6, BLOCKS = 200 };

/* Under a GIL (`ordered`) and without: blocks come, go and move between threads, the rounds fall anywhere. Without sequence numbers a round
 * may swap two allocations of one address, so sizes are compared under the GIL only. */
static void threads_against_a_model(bool ordered, unsigned seed) {
  static uint64_t size_of[BLOCKS];
  memset(size_of, 0, sizeof size_of);
  fake_domain = ordered ? MLZ_D_OBJ : MLZ_D_MALLOC;
  fake_begin(&f);
  for (uint32_t i = 0; i < THREADS; i++) fake_ring(&f, i, 1);
  uint64_t live = 0, peak = 0, order = 1, blocks = 0;
  int last = -1;
  for (int step = 0; step < 60000; step++) {
    int who = rand_r(&seed) % 4 ? (last < 0 ? 0 : last) : rand_r(&seed) % THREADS;
    struct fake_ring *x = &f.rings[who];
    if (ordered && who != last) fake_order(x, order++);
    last = who;
    unsigned i = (unsigned)rand_r(&seed) % BLOCKS;
    if (size_of[i]) {
      fake_free(x, 1000 + i);
      live -= size_of[i];
      size_of[i] = 0;
      blocks--;
    } else {
      size_of[i] = 1 + (uint64_t)step % 5000;
      fake_alloc(x, 1000 + i, size_of[i]);
      live += size_of[i];
      blocks++;
      if (live > peak) peak = live;
    }
    if (rand_r(&seed) % 200 == 0) {
      mlz_drain_round(&f.d);
      cr_assert_eq(f.d.images->heap.live, blocks, "step %d", step);
      if (ordered) cr_assert_eq(f.d.live_bytes, live, "step %d", step);
    }
  }
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.images->heap.live, blocks);
  cr_assert_eq(f.d.total.frees_inferred, 0);
  cr_assert_eq(f.d.total.frees_foreign, 0);
  if (ordered) cr_assert_eq(f.d.peak_bytes, peak, "peaks are exact under the GIL");
  mlz_trace_close(fake_end(&f));
}

Test(drain, threads_under_a_gil) { threads_against_a_model(true, 3); }
Test(drain, threads_without) { threads_against_a_model(false, 4); }
