/* The judge, on histories of which the verdict is plain. A run of 100000 allocations, 1 s. */
#include "analyzer/leaks.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct mlz_class small = {.size = 100, .weight = 1};
static const struct mlz_leak_process run = {
    .run_begin = 10000, .end = 110000, .run_begin_ns = 100000000, .end_ns = 1100000000, .gap_ns = 1000000};
static char reason[120];

static uint64_t when(uint64_t number) { return number * 10000; }

static enum mlz_grade judge(struct mlz_leak *leak, enum mlz_stack_kind kind) {
  uint64_t first = 0, last = 0;
  mlz_leak_span(leak, &first, &last);
  enum mlz_grade grade = mlz_grade_judge(leak, kind, &run, when(last), reason);
  free(leak->buckets);
  leak->buckets = NULL;
  return grade;
}

/* `count` survivors, evenly from `from` to `to`. */
static struct mlz_leak even(uint64_t from, uint64_t to, uint64_t count) {
  struct mlz_leak leak = {.origin = from, .allocated = count, .size_max = 100, .highs = 1};
  for (uint64_t i = 0; i < count; i++) mlz_leak_add(&leak, from + (to - from) * i / count, &small);
  return leak;
}

Test(grade, a_list_that_only_grows_grows) {
  const uint64_t counts[] = {12, 50, 1000, 90000};
  for (size_t i = 0; i < 4; i++) {
    struct mlz_leak leak = even(10000, 110000, counts[i]);
    cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%lu survivors: %s", (unsigned long)counts[i], reason);
  }
}

Test(grade, growth_in_batches_grows) {
  struct mlz_leak leak = {.origin = 15000, .allocated = 1000};
  for (uint64_t batch = 0; batch < 10; batch++)
    for (uint64_t i = 0; i < 100; i++) mlz_leak_add(&leak, 15000 + batch * 10000 + i, &small);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
}

Test(grade, a_leak_of_one_in_a_hundred_grows) {
  struct mlz_leak leak = even(10000, 110000, 500);
  leak.allocated = 50000;
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
}

Test(grade, start_up_state_does_not) {
  struct mlz_leak leak = even(10000, 20000, 5000), before = even(100, 9000, 300);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_STARTUP, "%s", reason);
  cr_assert_eq(judge(&before, MLZ_STACK_PROGRAM), MLZ_GRADE_STARTUP, "%s", reason);
}

Test(grade, what_was_allocated_just_now_is_in_use) {
  struct mlz_leak leak = even(108000, 110000, 500);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_RECENT, "%s", reason);
}

Test(grade, a_full_cache_turns_over) {
  struct mlz_leak leak = {.origin = 10000, .allocated = 5000};
  for (uint64_t i = 0; i < 1000; i++) mlz_leak_add(&leak, 60000 + i * 50, &small);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_TURNOVER, "%s", reason);
}

Test(grade, random_replacement_turns_over) {
  struct mlz_leak leak = {.origin = 10000, .allocated = 20000};
  for (double k = 999; k > 0; k--) mlz_leak_add(&leak, 110000 - (uint64_t)(100000 * pow(k / 1000, 6)), &small); /* the young prevail */
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_TURNOVER, "%s", reason);
}

Test(grade, growth_that_stopped_long_ago_in_time_is_none) {
  struct mlz_leak leak = even(10000, 110000, 1000);
  struct mlz_leak_process idle = run;
  idle.end_ns = run.end_ns * 100; /* it slept afterwards */
  cr_assert_neq(mlz_grade_judge(&leak, MLZ_STACK_PROGRAM, &idle, when(110000), reason), MLZ_GRADE_GROWING, "%s", reason);
  idle.gap_ns = idle.end_ns; /* but a clock this coarse says nothing */
  cr_assert_eq(mlz_grade_judge(&leak, MLZ_STACK_PROGRAM, &idle, when(110000), reason), MLZ_GRADE_GROWING, "%s", reason);
  free(leak.buckets);
}

Test(grade, the_interpreters_own_is_not_the_programs) {
  struct mlz_leak leak = even(10000, 110000, 1000);
  cr_assert_eq(judge(&leak, MLZ_STACK_NO_PYTHON), MLZ_GRADE_INTERPRETER);
  leak = even(10000, 110000, 1000);
  cr_assert_eq(judge(&leak, MLZ_STACK_IMPORT), MLZ_GRADE_INTERPRETER);
  leak = even(10000, 110000, 200);
  cr_assert_eq(judge(&leak, MLZ_STACK_MODULE_BODY), MLZ_GRADE_STARTUP);
  leak = even(10000, 110000, 5000); /* a module body that leaks in a loop is another matter */
  cr_assert_eq(judge(&leak, MLZ_STACK_MODULE_BODY), MLZ_GRADE_GROWING, "%s", reason);
}

Test(grade, a_buffer_enlarged_again_and_again_grows) {
  const struct mlz_class large = {.size = 800000, .weight = 1};
  struct mlz_leak leak = {.origin = 10000, .allocated = 70, .size_max = 800000, .highs = 60};
  mlz_leak_add(&leak, 105000, &large);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
  cr_assert(strstr(reason, "enlarged"));
  leak = (struct mlz_leak){.origin = 10000, .allocated = 70, .size_max = 800000, .highs = 60};
  mlz_leak_add(&leak, 30000, &large); /* long ago */
  cr_assert_neq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
  leak = (struct mlz_leak){.origin = 10000, .allocated = 70, .size_max = 800000, .highs = 3};
  mlz_leak_add(&leak, 105000, &large); /* never enlarged */
  cr_assert_neq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
}

Test(grade, the_history_forgets_what_was_freed) {
  struct mlz_leak leak = even(10000, 110000, 1000);
  uint64_t first, last;
  cr_assert(mlz_leak_span(&leak, &first, &last));
  cr_assert_eq(first, 10000);
  cr_assert_eq(last, 109900);
  for (uint64_t i = 0; i < 500; i++) cr_assert(mlz_leak_remove(&leak, 10000 + 100 * i, &small));
  cr_assert(mlz_leak_span(&leak, &first, &last));
  cr_assert(first <= 60000 && first > 55000, "%lu", (unsigned long)first);
  cr_assert_eq(leak.seen, 500);
  cr_assert_float_eq(leak.bytes, 50000, 1e-6);
  cr_assert_not(mlz_leak_remove(&leak, 10000, &small), "it was freed already");
  cr_assert_not(mlz_leak_remove(&leak, 5, &small), "from before the stack's first");
  cr_assert_not(mlz_leak_remove(&leak, 99999999, &small), "from beyond");
  free(leak.buckets);
}

/* A survivor for each hundredth of the run, and what was live meanwhile. */
static struct mlz_leak with_live(int32_t (*live)(unsigned percent)) {
  struct mlz_leak leak = {.origin = 10000, .allocated = 100000};
  for (unsigned i = 0; i < 100; i++) {
    mlz_leak_add(&leak, 10000 + i * 1000, &small);
    mlz_leak_sample(&leak, 10000 + (i + 1) * 1000, live(i));
  }
  return leak;
}
static int32_t level(unsigned percent) { return percent < 5 ? (int32_t)percent * 20 : 95 + (int32_t)percent * 7 % 10; }
static int32_t rising(unsigned percent) { return (int32_t)percent; }
static int32_t rising_from_much(unsigned percent) { return 10000 + 10 * (int32_t)percent; }
static int32_t saturating(unsigned percent) { return (int32_t)(1000 * (1 - exp(-(double)percent / 20))); }
static int32_t filled(unsigned percent) { return percent < 66 ? 30 * (int32_t)percent : 1980; }

Test(grade, the_number_of_live_blocks_must_rise) {
  int32_t (*const rises[])(unsigned) = {rising, rising_from_much}, (*const holds[])(unsigned) = {level, saturating, filled};
  for (size_t i = 0; i < 2; i++) {
    struct mlz_leak leak = with_live(rises[i]);
    cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%zu: %s", i, reason);
  }
  for (size_t i = 0; i < 3; i++) {
    struct mlz_leak leak = with_live(holds[i]);
    cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_TURNOVER, "%zu: %s", i, reason);
    cr_assert(strstr(reason, "live since half its time"), "%zu: %s", i, reason);
  }
}

/* What is left is from the last time that it was filled. */
Test(grade, a_buffer_that_is_emptied_does_not_grow) {
  struct mlz_leak leak = {.origin = 10000, .allocated = 20000};
  for (uint64_t i = 0; i < 100; i++) {
    if (i >= 88)
      for (uint64_t k = 0; k < 5; k++) mlz_leak_add(&leak, 10000 + i * 1000 + k * 200, &small);
    mlz_leak_sample(&leak, 10000 + (i + 1) * 1000, (int32_t)((i + 12) % 25) * 5 + 5);
  }
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_TURNOVER, "%s", reason);
  cr_assert(strstr(reason, "emptied"), "%s", reason);
}

Test(grade, lows_survive_folding) {
  struct mlz_leak leak = {.origin = 1000};
  mlz_leak_add(&leak, 1000, &small);
  for (int32_t i = 1; i <= 100000; i++) mlz_leak_sample(&leak, 1000 + (uint64_t)i, i);
  for (unsigned i = 0; i <= 100000u >> leak.shift; i++) {
    int32_t low = leak.buckets[MLZ_LEAK_BUCKETS + i], begin = (int32_t)(i << leak.shift);
    cr_assert(low == (begin ? begin - 1 : 0), "bucket %u: %d", i, low); /* what was live when the bucket began */
  }
  mlz_leak_sample(&leak, 200000, 7);
  mlz_leak_sample(&leak, 150000, 0); /* back in time: damage, nothing happens */
  cr_assert_eq(leak.live, 7);
  free(leak.buckets);
}

Test(grade, what_collections_made_old_is_garbage_rather_than_a_leak) {
  struct mlz_leak_process collected = run;
  collected.old_collections = 20;
  struct mlz_leak leak = even(10000, 110000, 60);
  leak.allocated = 6000;
  leak.in_flight = 55;
  cr_assert_eq(mlz_grade_judge(&leak, MLZ_STACK_PROGRAM, &collected, when(110000), reason), MLZ_GRADE_TURNOVER, "%s", reason);
  leak.in_flight = 6; /* chance */
  cr_assert_eq(mlz_grade_judge(&leak, MLZ_STACK_PROGRAM, &collected, when(110000), reason), MLZ_GRADE_GROWING, "%s", reason);
  leak.in_flight = 60;
  leak.allocated = 60; /* none was ever freed */
  cr_assert_eq(mlz_grade_judge(&leak, MLZ_STACK_PROGRAM, &collected, when(110000), reason), MLZ_GRADE_GROWING, "%s", reason);
  free(leak.buckets);
}

/* One of a thousand stays; the others live for an instant. The live blocks are few enough for chance, but none of them is ever replaced. */
Test(grade, a_leak_of_a_dozen_blocks_grows) {
  struct mlz_leak leak = {.origin = 10000, .allocated = 12000};
  for (int32_t i = 0; i < 12; i++) {
    mlz_leak_add(&leak, 12000 + (uint64_t)i * 8000, &small);
    mlz_leak_sample(&leak, 12000 + (uint64_t)i * 8000, i + 1);
    mlz_leak_sample(&leak, 18000 + (uint64_t)i * 8000, i + 2);
  }
  mlz_leak_sample(&leak, 110000, 12);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
}

/* Samples that lie far apart, or that frees of older blocks drew down, cannot hide what is still live. */
Test(grade, no_low_is_below_what_survived) {
  struct mlz_leak leak = even(10000, 110000, 100);
  leak.allocated = 126; /* the list's buffer was moved */
  mlz_leak_sample(&leak, 100000, 0);
  mlz_leak_sample(&leak, 110000, 100);
  cr_assert_eq(judge(&leak, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "%s", reason);
}

Test(grade, stacks_that_hand_over_are_one_history) {
  struct mlz_leak a = even(10000, 30000, 100), b = even(25000, 80000, 200), c = even(80001, 109990, 100), none = {.allocated = 7};
  a.allocated = 500;
  mlz_leak_sample(&a, 20000, 70);
  mlz_leak_sample(&a, 110000, 100);
  mlz_leak_sample(&b, 110000, 200);
  mlz_leak_sample(&c, 110000, 100);
  const struct mlz_leak *const stacks[] = {&a, &b, &c, &none};
  struct mlz_leak sum;
  cr_assert(mlz_leak_sum(&sum, stacks, 4, 110000));
  cr_assert_eq(sum.origin, 10000);
  cr_assert_eq(sum.seen, 400);
  cr_assert_eq(sum.allocated, 807);
  uint64_t first, last;
  cr_assert(mlz_leak_span(&sum, &first, &last));
  cr_assert(first < 12000 && last >= 109000 && last < 110000, "%lu to %lu", (unsigned long)first, (unsigned long)last);
  cr_assert_eq(mlz_grade_judge(&sum, MLZ_STACK_PROGRAM, &run, when(last), reason), MLZ_GRADE_GROWING, "%s", reason);
  free(sum.buckets);
  cr_assert_not(mlz_leak_sum(&sum, stacks + 3, 1, 110000), "nothing survived");
  cr_assert_neq(judge(&a, MLZ_STACK_PROGRAM), MLZ_GRADE_GROWING, "alone it stopped long ago");
  free(b.buckets);
  free(c.buckets);
}
