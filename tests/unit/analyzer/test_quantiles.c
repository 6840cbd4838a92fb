#include "analyzer/quantiles.h"

#include <criterion/criterion.h>

Test(quantiles, nothing_is_zero) {
  struct mlz_quantiles q = {0};
  cr_assert_eq(mlz_quantiles_at(&q, 0.5), 0);
  mlz_quantiles_clear(&q);
}

Test(quantiles, small_streams_are_exact) {
  struct mlz_quantiles q = {0};
  for (uint64_t i = 100; i >= 1; i--) mlz_quantiles_add(&q, i * 1000);
  cr_assert_eq(mlz_quantiles_at(&q, 0.5), 50000);
  cr_assert_eq(mlz_quantiles_at(&q, 0.9), 90000);
  cr_assert_eq(mlz_quantiles_at(&q, 0.99), 99000);
  cr_assert_eq(mlz_quantiles_at(&q, 1), 100000);
  mlz_quantiles_add(&q, 1); /* after a question */
  cr_assert_eq(mlz_quantiles_at(&q, 0), 1);
  cr_assert_eq(q.min, 1);
  cr_assert_eq(q.max, 100000);
  cr_assert_eq(q.total, 5050001);
  mlz_quantiles_clear(&q);
}

Test(quantiles, large_streams_are_within_one_percent) {
  struct mlz_quantiles q = {0};
  const uint64_t n = 3 * MLZ_QUANTILES_EXACT;
  for (uint64_t i = 1; i <= n; i++) mlz_quantiles_add(&q, i * i);
  cr_assert(q.buckets && !q.values);
  for (int percent = 1; percent < 100; percent++) {
    double rank = (double)(n / 100 * (uint64_t)percent), expected = rank * rank, got = (double)mlz_quantiles_at(&q, percent / 100.0);
    cr_assert(got > expected * 0.99 && got < expected * 1.01, "p%d: %g, not %g", percent, got, expected);
  }
  cr_assert_eq(q.count, n);
  cr_assert_eq(q.max, n * n);
  cr_assert_eq(mlz_quantiles_at(&q, 1), n * n);
  mlz_quantiles_clear(&q);
}

Test(quantiles, extreme_values_have_a_bucket) {
  struct mlz_quantiles q = {0};
  for (uint64_t i = 0; i <= MLZ_QUANTILES_EXACT; i++) mlz_quantiles_add(&q, i % 2 ? UINT64_MAX : 0);
  cr_assert_eq(mlz_quantiles_at(&q, 0.25), 0);
  cr_assert_gt(mlz_quantiles_at(&q, 0.75), UINT64_MAX / 100 * 99);
  mlz_quantiles_clear(&q);
}
