/* Tally, peak, limits and statistics on traces of which every figure is known (tests/tools/scenarios.c). */
#include "analyzer/collections.h"
#include "analyzer/peak.h"
#include "analyzer/sites.h"
#include "analyzer/stats.h"

#include "fixture.h"

#include <math.h>
#include <string.h>

static const struct mlz_tally *row_of(struct mlz_input *in, const struct mlz_tally_run *run, const char *function) {
  for (uint32_t i = 0; i < run->n; i++)
    if (!strcmp(mlz_place_of_stack(in, i).function, function)) return &run->rows[i];
  cr_assert_fail("no stack of %s", function);
  return NULL;
}

static double live(const struct mlz_tally *t) { return t->alloc_bytes - t->free_bytes; }

Test(passes, tally_is_exact) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run run;
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
  const struct mlz_tally *leak = row_of(in, &run, "remember"), *churn = row_of(in, &run, "<listcomp>"),
                         *peak = row_of(in, &run, "build_report");
  cr_assert_float_eq(leak->alloc_count, 3000, 0);
  cr_assert_float_eq(live(leak), 3000000, 0);
  cr_assert_float_eq(churn->alloc_count, 120000, 0);
  cr_assert_float_eq(churn->temp_count, 120000, 0);
  cr_assert_float_eq(live(churn), 0, 0);
  cr_assert_float_eq(peak->alloc_bytes, 300 * 65536, 0);
  cr_assert_float_eq(live(peak), 0, 0);
  cr_assert_float_eq(live(row_of(in, &run, "TemplateCache.get")), 200 * 4096, 0);
  mlz_tally_clear(&run);
  mlz_input_close(in);
}

Test(passes, what_comes_after_the_end_counts_only_on_request) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run end, all;
  const struct mlz_cut whole = {{MLZ_CUT_EXIT, 0}, NULL, 0};
  mlz_tally_scan(&end, in, MLZ_TALLY_STACK, false, NULL, NULL);
  mlz_tally_scan(&all, in, MLZ_TALLY_STACK, false, NULL, &whole);
  cr_assert_float_eq(all.total.alloc_count - end.total.alloc_count, 1000, 0);
  mlz_tally_clear(&end);
  mlz_tally_clear(&all);
  mlz_input_close(in);
}

Test(passes, marks_and_windows_cut_exactly) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run run;
  struct mlz_cut warm = {0};
  struct mlz_when when = mlz_when_parse("warm");
  cr_assert_eq(when.kind, MLZ_WHEN_NAME);
  cr_assert(mlz_when_resolve(in, &when, &warm));
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, &warm); /* set in round 750, after its allocations */
  cr_assert_float_eq(row_of(in, &run, "remember")->alloc_count, 751, 0);
  mlz_tally_clear(&run);
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, &warm, NULL);
  cr_assert_float_eq(row_of(in, &run, "remember")->alloc_count, 3000 - 751, 0);
  const struct mlz_tally *cache = row_of(in, &run, "TemplateCache.get"); /* frees of older blocks do not count */
  cr_assert_float_eq(cache->alloc_count, 3000 - 751, 0);
  cr_assert_float_eq(cache->alloc_count - cache->free_count, 200, 0);
  mlz_tally_clear(&run);
  mlz_cut_clear(&warm);
  mlz_input_close(in);
}

Test(passes, a_time_is_a_limit) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run run;
  struct mlz_cut half = {0};
  struct mlz_when when = mlz_when_parse("50%");
  cr_assert(mlz_when_resolve(in, &when, &half));
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, &half);
  double n = row_of(in, &run, "remember")->alloc_count;
  cr_assert(n > 1450 && n < 1550, "%g", n);
  mlz_tally_clear(&run);
  when = mlz_when_parse("0s");
  cr_assert(mlz_when_resolve(in, &when, &half));
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, &half);
  cr_assert_leq(run.total.alloc_count, 101);
  mlz_tally_clear(&run);
  mlz_input_close(in);
}

Test(passes, threads_processes_and_domains) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run run;
  mlz_tally_scan(&run, in, MLZ_TALLY_THREAD, false, NULL, NULL);
  double sum = 0;
  for (size_t i = 0; i < run.n; i++) sum += run.rows[i].alloc_count;
  cr_assert_float_eq(sum, run.total.alloc_count, 0);
  cr_assert_gt(run.rows[2].alloc_count, 80000);
  /* Round i runs on thread 1 + i % 3 and frees what an earlier one, of another thread, put into the cache. */
  for (size_t i = 2; i <= 3; i++) {
    double kept = live(&run.rows[i]);
    cr_assert(kept > 1000000 && kept < 1000000 + 70 * 4096 + 65536, "thread %zu keeps its third of the leak and of the cache: %g", i, kept);
  }
  mlz_tally_clear(&run);
  mlz_tally_scan(&run, in, MLZ_TALLY_DOMAIN, false, NULL, NULL);
  cr_assert_float_eq(run.rows[MLZ_BLOCK_MALLOC].alloc_count, 3300, 0);
  cr_assert_float_eq(run.rows[MLZ_BLOCK_MEM].alloc_count, 120000, 0);
  mlz_tally_clear(&run);
  mlz_input_close(in);
}

Test(passes, the_peak_of_one_process) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_peak peak;
  struct mlz_tally_run run;
  mlz_peak_find(in, false, NULL, &peak);
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, &peak.cut);
  cr_assert_float_eq(live(&run.total), peak.bytes, 0, "the second pass stops at the instant that the first one found");
  cr_assert_float_eq(live(row_of(in, &run, "build_report")), 300 * 65536, 0);
  mlz_tally_clear(&run);
  mlz_cut_clear(&peak.cut);
  mlz_input_close(in);
}

static void check_peak(const char *process, double bytes, uint64_t ns) {
  struct mlz_input *in = open_scenario("processes", process, NULL);
  struct mlz_peak peak;
  struct mlz_tally_run run;
  mlz_peak_find(in, false, NULL, &peak);
  cr_assert_float_eq(peak.bytes, bytes, 0, "--process %s: %g", process ? process : "default", peak.bytes);
  cr_assert_eq(peak.time_ns, ns);
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, &peak.cut);
  cr_assert_float_eq(live(&run.total), bytes, 0, "second pass: %g", live(&run.total));
  mlz_tally_clear(&run);
  mlz_cut_clear(&peak.cut);
  mlz_input_close(in);
}

Test(passes, the_peak_across_processes) {
  check_peak(NULL, 3000, 3000000); /* 1000 + 2000; those that ran Python */
  check_peak("all", 3010, 3000000);
  check_peak("100", 1500, 8000000);
  check_peak("101", 2000, 3000000);
  check_peak("99", 10, 1000000);
}

Test(passes, processes_are_chosen) {
  struct mlz_input *in = open_scenario("processes", NULL, NULL);
  cr_assert_eq(in->n_chosen, 2);
  mlz_input_close(in);
  in = open_scenario("processes", "all", NULL);
  cr_assert_eq(in->n_chosen, 3);
  mlz_input_close(in);
}

Test(passes, estimates_are_sums_of_weights) {
  struct mlz_input *in = open_scenario("sampled", NULL, NULL);
  struct mlz_tally_run run;
  struct mlz_peak peak;
  cr_assert(in->estimated);
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
  cr_assert_float_eq(run.total.alloc_count, 10005, 1e-6);
  cr_assert_float_eq(run.total.alloc_bytes, 10000 * 100 + 5e6, 1e-6);
  cr_assert_float_eq(live(&run.total), 6000 * 100 + 5e6, 1e-6);
  mlz_peak_find(in, false, NULL, &peak);
  cr_assert_float_eq(peak.bytes, live(&run.total), 1000);
  mlz_tally_clear(&run);
  mlz_cut_clear(&peak.cut);
  mlz_input_close(in);
}

Test(passes, statistics) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_stats s;
  mlz_stats_find(in, false, NULL, &s);
  cr_assert_eq(s.gc, 150);
  cr_assert_eq(s.marks, 1);
  cr_assert_eq(s.snapshots, 0);
  cr_assert_float_eq((double)s.allocs, s.total.alloc_count + 1000, 0, "raw counts are of the whole file");
  cr_assert_float_eq((double)s.frees, s.total.free_count + 1000, 0);
  double lifetimes = 0, sizes = 0;
  for (unsigned i = 0; i < MLZ_LIFETIMES; i++) lifetimes += s.lifetimes[i];
  for (unsigned i = 0; i < MLZ_SIZE_CLASSES; i++) sizes += s.sizes[i].alloc_count;
  cr_assert_float_eq(lifetimes, s.total.free_count, 0, "each freed block lived for some time");
  cr_assert_float_eq(sizes, s.total.alloc_count, 0);
  cr_assert_geq(s.sizes[12].alloc_count, 3000, "4096 bytes are in the class up to 4 KiB");
  /* 2800 cache entries lived for 200 rounds of about 1 ms. */
  cr_assert_geq(s.lifetimes[4], 2800);
  uint64_t events = 0;
  for (size_t i = 0; i < s.n_threads; i++) events += s.thread_events[i];
  cr_assert_eq(events, s.allocs + s.frees + s.gc + s.marks + s.snapshots);
  cr_assert_eq(events, s.process_events[0]);
  cr_assert_eq(events + 1, in->events_read, "the end of the process is no event of it");
  cr_assert_eq(s.gc_count[2], 8);
  mlz_stats_clear(&s);
  mlz_input_close(in);
}

Test(passes, collections) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_collections c;
  mlz_collections_find(in, NULL, NULL, 1000, &c);
  cr_assert_eq(c.all.pauses.count, 150);
  cr_assert_eq(c.generations[0].pauses.count, 120);
  cr_assert_eq(c.generations[1].pauses.count, 22);
  cr_assert_eq(c.generations[2].pauses.count, 8);
  cr_assert_eq(c.n_pauses, 150);
  cr_assert_eq(c.n_triggers, 1);
  cr_assert_eq(c.triggers[0].pause_ns, c.all.pauses.total);
  cr_assert_eq(c.longest[0].duration_ns, c.all.pauses.max);
  for (unsigned i = 0; i < MLZ_GC_SLICES; i++)
    cr_assert_leq(c.slices[i], c.duration_ns / MLZ_GC_SLICES + c.n_pauses); /* a long one goes on in the next slice */
  for (unsigned i = 1; i < c.n_longest; i++) cr_assert_leq(c.longest[i].duration_ns, c.longest[i - 1].duration_ns);
  mlz_collections_clear(&c);
  /* A window counts only its own. */
  struct mlz_cut warm = {0};
  struct mlz_when when = mlz_when_parse("warm");
  mlz_when_resolve(in, &when, &warm);
  uint64_t before, after;
  mlz_collections_find(in, NULL, &warm, 0, &c);
  before = c.all.pauses.count;
  mlz_collections_clear(&c);
  mlz_collections_find(in, &warm, NULL, 0, &c);
  after = c.all.pauses.count;
  mlz_collections_clear(&c);
  cr_assert_eq(before, 38, "rounds 0, 20, ... 740");
  cr_assert_eq(before + after, 150);
  mlz_cut_clear(&warm);
  mlz_input_close(in);
}

Test(passes, sites_come_together) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run run;
  struct mlz_sites sites;
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
  mlz_sites_build(in, MLZ_GROUP_LINE, MLZ_BY_ALLOC_BYTES, &run, NULL, &sites);
  double sum = 0;
  for (size_t i = 0; i < sites.n; i++) {
    sum += sites.sites[i].tally.alloc_bytes;
    if (i) cr_assert_leq(sites.sites[i].tally.alloc_bytes, sites.sites[i - 1].tally.alloc_bytes);
  }
  cr_assert_float_eq(sum, run.total.alloc_bytes, 0);
  size_t lines = sites.n;
  mlz_sites_clear(&sites);
  mlz_sites_build(in, MLZ_GROUP_FILE, MLZ_BY_ALLOC_COUNT, &run, NULL, &sites);
  cr_assert_lt(sites.n, lines);
  mlz_sites_clear(&sites);
  mlz_tally_clear(&run);
  mlz_input_close(in);
}

/* 1000 blocks of 100 bytes at weight 10, of which 400 were freed; what is always recorded (5 of 1000000 bytes) adds nothing. */
Test(passes, the_error_of_an_estimate) {
  struct mlz_input *in = open_scenario("sampled", NULL, NULL);
  struct mlz_tally_run run;
  struct mlz_sites sites;
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
  mlz_sites_build(in, MLZ_GROUP_LINE, MLZ_BY_ALLOC_COUNT, &run, NULL, &sites);
  cr_assert_eq(sites.n, 1);
  const struct mlz_spread *s = &sites.sites[0].spread;
  cr_assert_float_eq(s->alloc_count, 1000 * 90., 1e-6);
  cr_assert_float_eq(s->alloc_bytes, 1000 * 90. * 100 * 100, 1e-3);
  cr_assert_float_eq(s->free_count, 400 * 90., 1e-6);
  cr_assert_float_eq(s->temp_count, 400 * 90., 1e-6);
  cr_assert_float_eq(s->step_count, 9, 0);
  cr_assert_float_eq(s->step_bytes, 900, 0);
  cr_assert_float_eq(run.total_spread.alloc_count, s->alloc_count, 0);
  double live = mlz_spread_live_count_error(s);
  cr_assert_float_eq(mlz_spread_live_bytes_error(s), 100 * live, 1e-6, "all sampled blocks have the same size");
  /* An estimate of t - error is what 1.96 standard deviations below the true t gives: variance(t) = 9 t */
  double t = 6000 + live;
  cr_assert_float_eq(live, 1.959963984540054 * sqrt(9 * t), 1e-6);
  mlz_sites_clear(&sites);
  mlz_tally_clear(&run);
  mlz_input_close(in);
}

Test(passes, no_error_where_nothing_is_sampled) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_tally_run run;
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
  cr_assert_null(run.spreads);
  cr_assert_float_eq(mlz_spread_alloc_bytes_error(&run.total_spread), 0, 0);
  cr_assert_float_eq(mlz_spread_live_bytes_error(&run.total_spread), 0, 0);
  cr_assert_not(in->estimated);
  mlz_tally_clear(&run);
  mlz_input_close(in);
}

Test(passes, an_error_of_nothing_seen_is_not_nothing) {
  struct mlz_spread s = {0};
  struct mlz_class class = {.size = 50, .weight = 100};
  mlz_spread_add(&s, &class, 3, 3, 0);
  cr_assert_float_eq(mlz_spread_live_count_error(&s), 3.841458820694124 * 99, 1e-6, "the rule of three: no block of n is seen with 2.1%%");
  cr_assert_float_eq(mlz_spread_live_bytes_error(&s), 50 * 3.841458820694124 * 99, 1e-6);
  struct mlz_spread larger = {0};
  class.size = 1000000;
  mlz_spread_add(&larger, &class, 1, 1, 0);
  class.size = 50;
  mlz_spread_add(&larger, &class, 100, 0, 0);
  cr_assert_lt(mlz_spread_live_bytes_error(&larger), 1000000, "a large block that is freed says nothing about what is live");
}

Test(passes, counting_ops_eight_at_a_time) {
  uint8_t ops[100];
  for (size_t n = 0; n <= sizeof ops; n++) {
    uint64_t expected[4] = {0};
    for (size_t i = 0; i < n; i++) {
      ops[i] = (uint8_t)(i * i % 7 % 4 ? i * i % 7 % 4 : i % 3 ? 0 : 128);
      if (ops[i] < 4) expected[ops[i]]++;
    }
    for (int op = 0; op < 4; op++) cr_assert_eq(mlz_scan_count(ops, n, (enum mlz_op)op), expected[op]);
  }
}

Test(passes, an_empty_trace_is_read) {
  struct mlz_input *in = open_scenario("empty", NULL, NULL);
  struct mlz_stats s;
  mlz_stats_find(in, false, NULL, &s);
  cr_assert_eq(in->events_read, 0);
  cr_assert_float_eq(s.peak.bytes, 0, 0);
  cr_assert_eq(mlz_input_finish(in), 0);
  mlz_stats_clear(&s);
  mlz_input_close(in);
}

Test(passes, losses_are_told) {
  struct mlz_input *in = open_scenario("lost", NULL, NULL);
  struct mlz_stats s;
  mlz_stats_find(in, false, NULL, &s);
  cr_assert_eq(in->lost_allocs, 7);
  cr_assert_eq(in->lost_frees, 3);
  cr_assert_eq(mlz_input_dropped(in), 10);
  mlz_stats_clear(&s);
  mlz_input_close(in);
}
