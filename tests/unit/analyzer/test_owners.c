#include "analyzer/owners.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(owners, are_found_once) {
  struct mlz_owners o = {0};
  cr_assert_eq(mlz_owners_take(&o, 0, 1), MLZ_OWNER_UNKNOWN);
  mlz_owners_put(&o, 0, 1, 7);
  mlz_owners_put(&o, 1, 1, 8);
  cr_assert_eq(mlz_owners_take(&o, 0, 1), 7);
  cr_assert_eq(mlz_owners_take(&o, 0, 1), MLZ_OWNER_UNKNOWN);
  cr_assert_eq(mlz_owners_take(&o, 1, 1), 8);
  cr_assert_eq(o.n, 0);
  mlz_owners_clear(&o);
}

/* Against a plain array, with many that come and go. */
Test(owners, survive_removals_around_them) {
  enum { N = 20000 };
  uint32_t *expected = malloc(N * sizeof *expected);
  struct mlz_owners o = {0};
  uint64_t random = 88172645463325252u;
  size_t live = 0;
  for (size_t i = 0; i < N; i++) expected[i] = MLZ_OWNER_UNKNOWN;
  for (int round = 0; round < 200000; round++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    size_t k = random % N;
    if (expected[k] == MLZ_OWNER_UNKNOWN) {
      expected[k] = (uint32_t)(random >> 40);
      mlz_owners_put(&o, 3, k, expected[k]);
      live++;
    } else {
      cr_assert_eq(mlz_owners_take(&o, 3, k), expected[k]);
      expected[k] = MLZ_OWNER_UNKNOWN;
      live--;
    }
    cr_assert_eq(o.n, live);
  }
  for (size_t k = 0; k < N; k++) cr_assert_eq(mlz_owners_take(&o, 3, k), expected[k]);
  mlz_owners_clear(&o);
  free(expected);
}
