#include "tracer/recorder/paths.h"

#include <criterion/criterion.h>

Test(paths, found_as_added) {
  struct mlz_paths p;
  cr_assert(mlz_paths_init(&p));
  cr_assert_eq(mlz_paths_find(&p, 1, 0), 0);
  mlz_paths_add(&p, mlz_paths_root(10, false), 0, 1);
  mlz_paths_add(&p, mlz_paths_root(10, true), 0, 2);
  mlz_paths_add(&p, mlz_paths_root(11, false), 0, 3);
  mlz_paths_add(&p, 1, 77, 4);
  cr_assert_eq(mlz_paths_find(&p, mlz_paths_root(10, false), 0), 1);
  cr_assert_eq(mlz_paths_find(&p, mlz_paths_root(10, true), 0), 2);
  cr_assert_eq(mlz_paths_find(&p, mlz_paths_root(11, false), 0), 3);
  cr_assert_eq(mlz_paths_find(&p, 1, 77), 4);
  cr_assert_eq(mlz_paths_find(&p, 77, 1), 0);
  mlz_paths_deinit(&p);
}

/* It grows, and at its largest it is emptied: what it answers is right or not known, whatever was forgotten. */
Test(paths, forgets_rather_than_grow_without_end) {
  enum { N = 600000 };
  struct mlz_paths p;
  cr_assert(mlz_paths_init(&p));
  unsigned known = 0;
  for (uint32_t i = 1; i <= N; i++) {
    mlz_paths_add(&p, i / 3, (uint64_t)i << 32 | i % 7, i);
    cr_assert_eq(mlz_paths_find(&p, i / 3, (uint64_t)i << 32 | i % 7), i);
  }
  for (uint32_t i = 1; i <= N; i++) {
    uint32_t to = mlz_paths_find(&p, i / 3, (uint64_t)i << 32 | i % 7);
    cr_assert(to == 0 || to == i);
    known += to == i;
  }
  cr_assert_eq(known, p.count);
  cr_assert_lt(p.mask, 1u << 20, "its memory is bounded");
  mlz_paths_deinit(&p);
}
