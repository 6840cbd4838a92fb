/* Limits as they are written, patterns, series of runs, and the verdict on traces of which every figure is known. */
#include "analyzer/check.h"

#include "fixture.h"

#include <string.h>

static char err[256];

static struct mlz_limit parse(const char *text) {
  struct mlz_limit limit = {.pattern = NULL};
  cr_assert(mlz_limit_parse(text, &limit, err, sizeof err), "%s: %s", text, err);
  return limit;
}

static void drop(struct mlz_limit *limit) {
  free(limit->pattern);
  free(limit->text);
  free(limit->bound);
}

Test(check, limits_are_read) {
  const struct {
    const char *text, *pattern;
    enum mlz_figure figure;
    double value;
    bool less;
  } good[] = {{"peak<=24MB", NULL, MLZ_FIGURE_PEAK, 24e6, false},
              {"peak_bytes <= 1 KiB", NULL, MLZ_FIGURE_PEAK, 1024, false},
              {"myapp.parser:alloc-count<=120000", "myapp.parser", MLZ_FIGURE_ALLOCS, 120000, false},
              {"src/a:b.py:live-at-end<5k", "src/a:b.py", MLZ_FIGURE_LIVE, 5000, true},
              {"gc_pause_p99<=10ms", NULL, MLZ_FIGURE_GC_P99, 10e6, false},
              {"x.*: temporary <7", "x.*", MLZ_FIGURE_TEMPORARY, 7, true}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct mlz_limit limit = parse(good[i].text);
    cr_assert_eq(limit.figure, good[i].figure, "%s", good[i].text);
    cr_assert_float_eq(limit.value, good[i].value, 0, "%s", good[i].text);
    cr_assert_eq(limit.less, good[i].less, "%s", good[i].text);
    cr_assert(good[i].pattern ? limit.pattern && !strcmp(limit.pattern, good[i].pattern) : !limit.pattern, "%s", good[i].text);
    drop(&limit);
  }
  const char *const bad[] = {
      "", "peak", "peak=5", "<=5", ":<=5", "paek<=5", "peak<=", "peak<=x", "peak<=-5", "a:gc_pause_p99<=1ms", "gc_pause_p99<=5"};
  struct mlz_limit limit;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) cr_assert_not(mlz_limit_parse(bad[i], &limit, err, sizeof err), "%s", bad[i]);
}

Test(check, a_limit_is_told_as_it_was_written) {
  const struct {
    const char *text, *bound;
  } good[] = {{"peak<=64 MB", "64 MB (61.0 MiB)"},
              {"peak<= 64MB ", "64MB (61.0 MiB)"},
              {"peak<=24 MiB", "24 MiB"},
              {"peak<=100", "100 B"},
              {"peak<=100 B", "100 B"},
              {"peak<2097152", "2.00 MiB"},
              {"allocs<=120000", "120,000"},
              {"allocs<=120k", "120k (120,000)"},
              {"gc_pause_p99<=10ms", "10ms"},
              {"gc_pause_p99<=0.01s", "0.01s (10.0 ms)"}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct mlz_limit limit = parse(good[i].text);
    cr_assert_str_eq(limit.bound, good[i].bound, "%s: %s", good[i].text, limit.bound);
    drop(&limit);
  }
}

Test(check, patterns_match_modules_functions_and_files) {
  const struct mlz_place place = {"Parser.feed", "/srv/app/myapp/parser.py", "myapp.parser", 12, MLZ_LANG_PYTHON};
  const char *const good[] = {"myapp.parser", "myapp.*",         "*",      "myapp.parser.*", "myapp.parser.Parser.feed", "*.feed",
                              "parser.py",    "myapp/parser.py", "/srv/*", "*.py",           "/srv/app/myapp/parser.py"};
  const char *const bad[] = {
      "", "myapp", "parser", "Parser.feed", "myapp.parse", "arser.py", "app/parser.py", "/app/myapp/parser.py", "myapp.parser.Parser"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) cr_assert(mlz_pattern_matches(good[i], &place), "%s", good[i]);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) cr_assert_not(mlz_pattern_matches(bad[i], &place), "%s", bad[i]);
  cr_assert(mlz_pattern_matches(NULL, &place));
}

Test(check, the_middle_of_several_runs) {
  struct mlz_series s = {.n = 0};
  const double values[] = {10, 14, 11, 100};
  for (size_t i = 0; i < 4; i++) mlz_series_add(&s, (struct mlz_value){true, values[i], (double)i});
  mlz_series_add(&s, (struct mlz_value){false, 5000, 0});
  struct mlz_summary summary = mlz_series_summary(&s);
  cr_assert_eq(s.n, 4);
  cr_assert_float_eq(s.error, 3, 0);
  cr_assert_float_eq(summary.median, 12.5, 0);
  cr_assert_float_eq(summary.mad, 2, 0, "of 2.5, 1.5, 1.5, 87.5");
  for (int i = 0; i < 2 * MLZ_RUNS_MAX; i++) mlz_series_add(&s, (struct mlz_value){true, 1, 0});
  cr_assert_eq(s.n, MLZ_RUNS_MAX);
}

static const struct mlz_check *check_of(const struct mlz_checks *checks, const char *name) {
  for (size_t i = 0; i < checks->n; i++)
    if (!strcmp(checks->checks[i].name, name)) return &checks->checks[i];
  cr_assert_fail("no check %s", name);
  return NULL;
}

Test(check, a_service_that_leaks_against_one_that_does_not) {
  struct mlz_figures good, bad;
  struct mlz_input *constant = open_scenario("constant", NULL, NULL), *service = open_scenario("service", NULL, NULL);
  mlz_figures_measure(constant, false, NULL, &good);
  mlz_figures_measure(service, false, NULL, &bad);
  cr_assert_float_eq(good.values[MLZ_FIGURE_GROWING].value, 0, 0);
  cr_assert_geq(bad.values[MLZ_FIGURE_GROWING].value, 3000000);
  cr_assert_float_eq(mlz_figures_of(&bad, MLZ_FIGURE_GROWING, "__main__.remember").value, 3000000, 0);
  cr_assert_float_eq(mlz_figures_of(&bad, MLZ_FIGURE_PEAK, "report").value, 300 * 65536, 0);
  uint32_t stack;
  double most;
  cr_assert(mlz_figures_worst(&bad, MLZ_FIGURE_GROWING, NULL, &stack, &most));
  cr_assert_str_eq(mlz_place_of_stack(bad.in, stack).function, "remember");
  struct mlz_baseline baseline = {.name = NULL};
  mlz_baseline_add(&baseline, "constant", &good);
  struct mlz_limit limits[] = {parse("__main__.remember:alloc-count<=3000"), parse("__main__.remember:alloc-count<3000")};
  struct mlz_check_rules rules = {
      .limits = limits, .n_limits = 2, .baseline = &baseline, .before = &good, .tolerance = 0.05, .least = {4096, 100, 1e6}};
  struct mlz_checks checks;
  mlz_check_judge(&bad, 1, &rules, &checks);
  cr_assert(checks.checks[0].ok);
  cr_assert_not(checks.checks[1].ok);
  cr_assert_not(mlz_checks_ok(&checks));
  cr_assert_not(check_of(&checks, "baseline:growing")->ok);
  cr_assert_not(check_of(&checks, "baseline:live_at_end")->ok);
  cr_assert_str_eq(check_of(&checks, "baseline:live_at_end")->place.function, "remember");
  cr_assert(strstr(check_of(&checks, "baseline:growing_functions")->message, "remember"));
  mlz_checks_clear(&checks);
  mlz_check_judge(&good, 1, &(struct mlz_check_rules){.baseline = &baseline, .tolerance = 0, .least = {0}}, &checks);
  cr_assert(mlz_checks_ok(&checks), "nothing is worse than itself");
  mlz_checks_clear(&checks);
  for (size_t i = 0; i < 2; i++) drop(&limits[i]);
  mlz_baseline_clear(&baseline);
  mlz_figures_clear(&good);
  mlz_figures_clear(&bad);
  mlz_input_close(constant);
  mlz_input_close(service);
}

Test(check, losses_fail_unless_they_are_allowed) {
  struct mlz_input *in = open_scenario("lost", NULL, NULL);
  struct mlz_figures figures;
  struct mlz_checks checks;
  mlz_figures_measure(in, false, NULL, &figures);
  for (int allowed = 0; allowed < 2; allowed++) {
    mlz_check_judge(&figures, 1, &(struct mlz_check_rules){.losses_allowed = allowed}, &checks);
    cr_assert_eq(checks.n, 1);
    cr_assert_eq(mlz_checks_ok(&checks), allowed);
    mlz_checks_clear(&checks);
  }
  mlz_figures_clear(&figures);
  mlz_input_close(in);
}
