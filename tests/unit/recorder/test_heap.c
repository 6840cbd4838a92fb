#include "tracer/recorder/extents.h"
#include "tracer/recorder/heap.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(heap, add_find_take) {
  struct mlz_heap h;
  mlz_heap_init(&h);
  struct mlz_live out;
  cr_assert_null(mlz_heap_find(&h, 77));
  cr_assert_not(mlz_heap_take(&h, 77, &out));
  cr_assert(mlz_heap_add(&h, 77, (struct mlz_live){.alloc_no = 5, .size_domain = UINT64_C(2) << 48 | 640, .stack = 9, .weight = 1}));
  struct mlz_live *b = mlz_heap_find(&h, 77);
  cr_assert_not_null(b);
  cr_assert_eq(mlz_live_size(b), 640);
  cr_assert_eq(mlz_live_domain(b), 2);
  cr_assert(mlz_heap_take(&h, 77, &out));
  cr_assert_eq(out.alloc_no, 5);
  cr_assert_eq(out.stack, 9);
  cr_assert_eq(h.live, 0);
  cr_assert_null(mlz_heap_find(&h, 77));
  cr_assert_eq(h.leaves, 0, "an empty leaf is given back");
  mlz_heap_deinit(&h);
}

/* Against a plain array: addresses that collide, come, go and come back. */
Test(heap, against_a_model) {
  enum { N = 4096 };
  static uint64_t model[N]; /* alloc_no + 1 of the live block; 0: none */
  struct mlz_heap h;
  mlz_heap_init(&h);
  unsigned seed = 1, live = 0;
  for (uint64_t step = 0; step < 400000; step++) {
    unsigned i = (unsigned)rand_r(&seed) % N;
    /* 64 clusters of neighbouring granules, far apart: several leaves of the same hash neighbourhood */
    uint64_t granule = ((uint64_t)(i / 64) << 30) + (i % 64) * 97 + 1;
    struct mlz_live out, *found = mlz_heap_find(&h, granule);
    cr_assert_eq(found != NULL, model[i] != 0);
    if (model[i]) {
      cr_assert(mlz_heap_take(&h, granule, &out));
      cr_assert_eq(out.alloc_no + 1, model[i]);
      model[i] = 0;
      live--;
    } else {
      cr_assert(mlz_heap_add(&h, granule, (struct mlz_live){.alloc_no = step, .size_domain = step % 1000}));
      model[i] = step + 1;
      live++;
    }
    cr_assert_eq(h.live, live);
  }
  cr_assert_leq(h.blocks_used, N + 1u, "block numbers are used again");
  mlz_heap_deinit(&h);
}

static struct mlz_range range(uint64_t start, uint64_t end) {
  return (struct mlz_range){.start = start, .end = end, .block.alloc_no = start};
}

Test(extents, sorted_and_taken_in_order) {
  struct mlz_extents e = {0};
  struct mlz_range x;
  cr_assert_not(mlz_extents_take(&e, 0, UINT64_MAX, &x));
  for (uint64_t i = 0; i < 200; i++) cr_assert(mlz_extents_add(&e, range(i * 7 % 200 * 10, i * 7 % 200 * 10 + 8)));
  for (size_t i = 1; i < e.count; i++) cr_assert_lt(e.at[i - 1].start, e.at[i].start);
  cr_assert_not(mlz_extents_take(&e, 8, 10, &x), "the gap between two ranges holds nothing");
  cr_assert(mlz_extents_take(&e, 9, 11, &x));
  cr_assert_eq(x.start, 10);
  cr_assert(mlz_extents_take(&e, 5, 6, &x));
  cr_assert_eq(x.start, 0);
  cr_assert_eq(e.count, 198);
  mlz_extents_deinit(&e);
}
