/* What is new, gone, grew or shrank (the traces: "version1", "version2", "service", "sampled" of tests/tools/scenarios.c). */
#include "analyzer/diff.h"

#include "fixture.h"

#include <math.h>
#include <string.h>

struct comparison {
  struct mlz_input *in[MLZ_SIDES];
  struct mlz_measure measures[MLZ_SIDES];
  struct mlz_match match;
  struct mlz_diff diff;
};

static void compare(struct comparison *c, struct mlz_input *before, struct mlz_input *after, enum mlz_metric metric, enum mlz_group group) {
  *c = (struct comparison){.in = {before, after}};
  for (int side = 0; side < MLZ_SIDES; side++) mlz_measure_take(c->in[side], metric, false, NULL, NULL, NULL, &c->measures[side]);
  mlz_match_build(before, after, &c->match);
  mlz_diff_build(&c->match, c->measures, NULL, group, &c->diff);
}

static void clear(struct comparison *c) {
  mlz_diff_clear(&c->diff);
  mlz_match_clear(&c->match);
  for (int side = 0; side < MLZ_SIDES; side++) {
    mlz_measure_clear(&c->measures[side]);
    mlz_input_close(c->in[side]);
  }
}

static const struct mlz_diff_site *site_of(const struct comparison *c, const char *function, uint32_t line) {
  for (size_t i = 0; i < c->diff.n; i++) {
    const struct mlz_diff_site *s = &c->diff.sites[i];
    enum mlz_side side = s->stack[MLZ_AFTER] == MLZ_INTERN_NONE ? MLZ_BEFORE : MLZ_AFTER;
    struct mlz_place p = mlz_place_of_stack(c->in[side], s->stack[side]);
    if (!strcmp(p.function, function) && (!line || p.line == line)) return s;
  }
  cr_assert_fail("no site %s:%u", function, line);
  return NULL;
}

static void check(const struct comparison *c, const char *function, uint32_t line, enum mlz_diff_status status, double before,
                  double after) {
  const struct mlz_diff_site *s = site_of(c, function, line);
  cr_assert_eq(mlz_diff_status_of(s), status, "%s is %s", function, mlz_diff_status_name(mlz_diff_status_of(s)));
  cr_assert_float_eq(s->amount[MLZ_BEFORE].value, before, 0, "%s before: %g", function, s->amount[MLZ_BEFORE].value);
  cr_assert_float_eq(s->amount[MLZ_AFTER].value, after, 0, "%s after: %g", function, s->amount[MLZ_AFTER].value);
}

Test(diff, two_versions_by_line_and_by_stack) {
  const enum mlz_group groups[] = {MLZ_GROUP_LINE, MLZ_GROUP_STACK};
  for (size_t i = 0; i < 2; i++) {
    struct comparison c;
    compare(&c, open_scenario("version1", NULL, NULL), open_scenario("version2", NULL, NULL), MLZ_BY_ALLOC_BYTES, groups[i]);
    check(&c, "serve", 24, MLZ_DIFF_GREW, 1000, 5000);
    check(&c, "serve", 26, MLZ_DIFF_SHRANK, 2000, 1500);
    check(&c, "parse", 5, MLZ_DIFF_SAME, 300, 300);
    check(&c, "loads", 346, MLZ_DIFF_SAME, 70, 70);
    check(&c, "old", 30, MLZ_DIFF_GONE, 900, 0);
    check(&c, "new", 36, MLZ_DIFF_NEW, 0, 700);
    cr_assert_eq(c.diff.n, 6);
    for (size_t k = 1; k < c.diff.n; k++) cr_assert_leq(fabs(mlz_diff_delta(&c.diff.sites[k])), fabs(mlz_diff_delta(&c.diff.sites[k - 1])));
    cr_assert_float_eq(c.diff.total.amount[MLZ_BEFORE].value, 4270, 0);
    cr_assert_float_eq(mlz_diff_delta(&c.diff.total), 4000 - 500 - 900 + 700, 0);
    cr_assert_float_eq(c.diff.total.difference, 0, 0, "nothing is sampled");
    cr_assert_not(mlz_diff_is_noise(&c.diff.total));
    clear(&c);
  }
}

Test(diff, groups) {
  const struct {
    enum mlz_group group;
    const char *function; /* one of the group's */
    double before, after;
  } groups[] = {{MLZ_GROUP_FUNCTION, "serve", 3000, 6500},
                {MLZ_GROUP_FILE, "serve", 3900, 7200},
                {MLZ_GROUP_MODULE, "serve", 3900, 7200},
                {MLZ_GROUP_FILE, "loads", 70, 70}};
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
    struct comparison c;
    compare(&c, open_scenario("version1", NULL, NULL), open_scenario("version2", NULL, NULL), MLZ_BY_ALLOC_BYTES, groups[i].group);
    const struct mlz_diff_site *s = site_of(&c, groups[i].function, 0);
    cr_assert_float_eq(s->amount[MLZ_BEFORE].value, groups[i].before, 0, "%g", s->amount[MLZ_BEFORE].value);
    cr_assert_float_eq(s->amount[MLZ_AFTER].value, groups[i].after, 0, "%g", s->amount[MLZ_AFTER].value);
    clear(&c);
  }
}

Test(diff, metrics) {
  struct comparison c;
  compare(&c, open_scenario("version1", NULL, NULL), open_scenario("version2", NULL, NULL), MLZ_BY_ALLOC_COUNT, MLZ_GROUP_LINE);
  check(&c, "serve", 24, MLZ_DIFF_GREW, 10, 50);
  clear(&c);
  compare(&c, open_scenario("version1", NULL, NULL), open_scenario("version2", NULL, NULL), MLZ_BY_LIVE_BYTES, MLZ_GROUP_LINE);
  check(&c, "serve", 24, MLZ_DIFF_NEW, 0, 5000); /* freed in version1 */
  clear(&c);
  compare(&c, open_scenario("version1", NULL, NULL), open_scenario("version2", NULL, NULL), MLZ_BY_TEMPORARY, MLZ_GROUP_LINE);
  check(&c, "serve", 24, MLZ_DIFF_GONE, 10, 0);
  clear(&c);
  compare(&c, open_scenario("processes", NULL, NULL), open_scenario("processes", "100", NULL), MLZ_BY_PEAK_BYTES, MLZ_GROUP_LINE);
  check(&c, "parent", 0, MLZ_DIFF_GREW, 1000, 1500);
  check(&c, "child", 0, MLZ_DIFF_GONE, 2000, 0);
  clear(&c);
}

Test(diff, two_instants_of_one_trace) {
  struct comparison c;
  compare(&c, open_scenario("service", NULL, "warm"), open_scenario("service", NULL, NULL), MLZ_BY_LIVE_BYTES, MLZ_GROUP_LINE);
  check(&c, "remember", 31, MLZ_DIFF_GREW, 751000, 3000000);
  check(&c, "TemplateCache.get", 44, MLZ_DIFF_SAME, 200 * 4096, 200 * 4096);
  clear(&c);
}

Test(diff, traces_are_the_same_as_themselves) {
  const char *const scenarios[] = {"service", "names", "sampled", "bulk", "empty"};
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
    struct comparison c;
    compare(&c, open_scenario(scenarios[i], NULL, NULL), open_scenario(scenarios[i], NULL, NULL), MLZ_BY_ALLOC_BYTES, MLZ_GROUP_STACK);
    double sum = 0;
    for (size_t k = 0; k < c.diff.n; k++) {
      cr_assert_eq(mlz_diff_status_of(&c.diff.sites[k]), MLZ_DIFF_SAME);
      sum += c.diff.sites[k].amount[MLZ_AFTER].value;
    }
    cr_assert_float_eq(sum, c.diff.total.amount[MLZ_AFTER].value, 1e-3);
    clear(&c);
  }
}

/* "sampled": 1000 blocks at weight 10, so the estimate has an error; the same error twice. */
Test(diff, a_difference_of_estimates) {
  struct comparison c;
  compare(&c, open_scenario("sampled", NULL, NULL), open_scenario("sampled", NULL, NULL), MLZ_BY_ALLOC_COUNT, MLZ_GROUP_LINE);
  const struct mlz_diff_site *s = &c.diff.sites[0];
  cr_assert_gt(s->error[MLZ_AFTER], 0);
  cr_assert_float_eq(s->difference, sqrt(2) * s->error[MLZ_AFTER], 1e-6);
  cr_assert(mlz_diff_is_noise(s));
  clear(&c);
}

static struct mlz_spread spread(double allocs, double frees) {
  struct mlz_spread s = {0};
  mlz_spread_add(&s, &(struct mlz_class){.size = 100, .weight = 10}, allocs, frees, 0);
  return s;
}

/* 1000 blocks at the first instant, of which 30 are freed; 70 more come, of which 20 are freed: 80 make the difference uncertain. */
Test(diff, what_lives_at_both_instants_of_a_trace_is_certain) {
  struct mlz_diff_site s = {.spread = {spread(1000, 0), spread(1070, 50)}, .between = spread(70, 20)};
  struct mlz_spread both = spread(80, 0);
  double wanted = mlz_spread_live_count_error(&both);
  mlz_diff_finish(&s, MLZ_BY_LIVE_BYTES, true);
  cr_assert_float_eq(s.difference, 100 * wanted, 1e-6, "%g", s.difference);
  struct mlz_diff_site reversed = {.spread = {s.spread[1], s.spread[0]}, .between = s.between};
  mlz_diff_finish(&reversed, MLZ_BY_LIVE_BYTES, true);
  cr_assert_float_eq(reversed.difference, s.difference, 1e-6);
  both = spread(70, 0);
  mlz_diff_finish(&s, MLZ_BY_ALLOC_COUNT, true);
  cr_assert_float_eq(s.difference, mlz_spread_alloc_count_error(&both), 1e-6);
  mlz_diff_finish(&s, MLZ_BY_ALLOC_COUNT, false);
  cr_assert_gt(s.difference, 3 * mlz_spread_alloc_count_error(&both));
}
