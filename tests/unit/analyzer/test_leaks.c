#include "analyzer/leaks.h"
#include "analyzer/report.h"
#include "analyzer/tally.h"

#include "fixture.h"

#include <string.h>

static void find(struct mlz_input *in, struct mlz_leaks *leaks) { mlz_leaks_find(in, &(struct mlz_leak_options){0}, leaks); }

static const struct mlz_leak_entry *entry_of(struct mlz_input *in, const struct mlz_leaks *leaks, const char *function) {
  for (size_t i = 0; i < leaks->n; i++)
    if (!strcmp(mlz_place_of_stack(in, leaks->entries[i].stack).function, function)) return &leaks->entries[i];
  return NULL;
}

Test(leaks, what_grows_is_on_top) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  const struct mlz_leak_entry *leak = &leaks.entries[0];
  cr_assert_eq(leak, entry_of(in, &leaks, "remember"));
  cr_assert_eq(leak->grade, MLZ_GRADE_GROWING);
  cr_assert_float_eq(leak->count, 3000, 0);
  cr_assert_float_eq(leak->bytes, 3000000, 0);
  cr_assert_lt(leak->first_ns, 30000000);
  cr_assert_gt(leak->last_ns, UINT64_C(2900000000));
  cr_assert_eq(entry_of(in, &leaks, "append_history")->grade, MLZ_GRADE_GROWING, "its one buffer does");
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}

Test(leaks, constant_state_is_none) {
  struct mlz_input *in = open_scenario("constant", NULL, NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  for (size_t i = 0; i < leaks.n; i++) cr_assert_neq(leaks.entries[i].grade, MLZ_GRADE_GROWING);
  cr_assert_eq(entry_of(in, &leaks, "load_config")->grade, MLZ_GRADE_STARTUP);
  cr_assert_eq(entry_of(in, &leaks, "exec_module")->grade, MLZ_GRADE_INTERPRETER);
  cr_assert_eq(entry_of(in, &leaks, "(no stack)")->grade, MLZ_GRADE_INTERPRETER);
  cr_assert_float_eq(entry_of(in, &leaks, "TemplateCache.get")->count, 200, 0);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}

Test(leaks, the_total_is_what_is_live) {
  const char *const scenarios[] = {"service", "constant", "sampled", "names", "processes", "bulk"};
  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
    struct mlz_input *in = open_scenario(scenarios[i], "all", NULL);
    struct mlz_leaks leaks;
    struct mlz_tally_run run;
    find(in, &leaks);
    mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
    cr_assert_float_eq(leaks.bytes, run.total.alloc_bytes - run.total.free_bytes, 1e-3, "%s", scenarios[i]);
    cr_assert_float_eq(leaks.count, run.total.alloc_count - run.total.free_count, 1e-3, "%s", scenarios[i]);
    for (size_t k = 0; k < leaks.n; k++) {
      const struct mlz_tally *t = &run.rows[leaks.entries[k].stack];
      cr_assert_float_eq(leaks.entries[k].bytes, t->alloc_bytes - t->free_bytes, 1e-3);
    }
    mlz_tally_clear(&run);
    mlz_leaks_clear(&leaks);
    mlz_input_close(in);
  }
}

Test(leaks, since_a_mark) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_leaks leaks;
  struct mlz_cut warm = {0};
  struct mlz_when when = mlz_when_parse("warm");
  mlz_when_resolve(in, &when, &warm);
  mlz_leaks_find(in, &(struct mlz_leak_options){.since = &warm}, &leaks);
  cr_assert_float_eq(entry_of(in, &leaks, "remember")->count, 3000 - 751, 0);
  cr_assert_null(entry_of(in, &leaks, "load_config"));
  mlz_leaks_clear(&leaks);
  mlz_cut_clear(&warm);
  mlz_input_close(in);
}

Test(leaks, what_spans_a_loss_is_told) {
  struct mlz_input *in = open_scenario("lost", NULL, NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  cr_assert(entry_of(in, &leaks, "before")->spans_loss);
  cr_assert_not(entry_of(in, &leaks, "after")->spans_loss);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}

/* In one chunk, and in many. */
Test(leaks, growth_is_told_from_what_comes_and_goes) {
  const uint64_t sizes[] = {60000, 3000000};
  for (size_t i = 0; i < 2; i++) {
    struct mlz_input *in = open_sized_scenario("histories", NULL, NULL, sizes[i]);
    struct mlz_leaks leaks;
    find(in, &leaks);
    const char *const growing[] = {"grow", "slow", "base"}, *const not_growing[] = {"cache", "queue", "fill", "flight"};
    for (size_t k = 0; k < 3; k++) {
      const struct mlz_leak_entry *e = entry_of(in, &leaks, growing[k]);
      cr_assert_eq(e->grade, MLZ_GRADE_GROWING, "%s of %lu: %s, %s", growing[k], (unsigned long)sizes[i], mlz_grade_name(e->grade),
                   e->reason);
    }
    for (size_t k = 0; k < 4; k++) {
      const struct mlz_leak_entry *e = entry_of(in, &leaks, not_growing[k]);
      if (k == 2 && (!e || e->grade == MLZ_GRADE_RECENT)) continue; /* the buffer was empty a moment ago */
      cr_assert_eq(e->grade, MLZ_GRADE_TURNOVER, "%s of %lu: %s, %s", not_growing[k], (unsigned long)sizes[i], mlz_grade_name(e->grade),
                   e->reason);
    }
    cr_assert(strstr(entry_of(in, &leaks, "flight")->reason, "full collection"));
    cr_assert_float_eq(entry_of(in, &leaks, "flight")->count, 60, 0);
    mlz_leaks_clear(&leaks);
    mlz_input_close(in);
  }
}

Test(leaks, children_that_each_build_the_same_do_not_grow) {
  struct mlz_input *in = open_scenario("children", "all", NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  const struct mlz_leak_entry *child = entry_of(in, &leaks, "child"), *parent = entry_of(in, &leaks, "parent");
  cr_assert_eq(child->grade, MLZ_GRADE_CONSTANT, "%s", child->reason);
  cr_assert(strstr(child->reason, "40 short processes"), "%s", child->reason);
  cr_assert_float_eq(child->count, 40000, 0);
  cr_assert_eq(child->processes, 40);
  cr_assert_eq(parent->grade, MLZ_GRADE_GROWING, "%s", parent->reason);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
  in = open_scenario("children", "7", NULL); /* looked at alone, it grows as long as it lives */
  find(in, &leaks);
  cr_assert_eq(entry_of(in, &leaks, "child")->grade, MLZ_GRADE_GROWING);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}

Test(leaks, stacks_of_one_line_can_be_shown_as_one) {
  struct mlz_input *in = open_scenario("bulk", NULL, NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  double count = 0, merged = 0;
  size_t before = leaks.n, stacks = 0;
  for (size_t i = 0; i < leaks.n; i++) count += leaks.entries[i].count;
  mlz_leaks_merge_lines(in, &leaks);
  for (size_t i = 0; i < leaks.n; i++) {
    merged += leaks.entries[i].count;
    stacks += leaks.entries[i].stacks;
    struct mlz_place a = mlz_place_of_stack(in, leaks.entries[i].stack);
    for (size_t k = 0; k < i && leaks.entries[i].stack; k++) {
      struct mlz_place b = mlz_place_of_stack(in, leaks.entries[k].stack);
      cr_assert(strcmp(a.function, b.function) || strcmp(a.file, b.file) || a.line != b.line ||
                leaks.entries[i].grade != leaks.entries[k].grade);
    }
  }
  cr_assert_eq(stacks, before);
  cr_assert_float_eq(count, merged, 1e-6);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}

/* The list's own buffer is all that is freed, and start-up is many times longer than the run. */
Test(leaks, a_plain_append_grows_however_short) {
  const uint64_t appends[] = {12, 100, 300, 866, 5000};
  for (size_t i = 0; i < sizeof appends / sizeof *appends; i++) {
    struct mlz_input *in = open_sized_scenario("append", NULL, NULL, appends[i]);
    struct mlz_leaks leaks;
    find(in, &leaks);
    const struct mlz_leak_entry *list = NULL, *fill = entry_of(in, &leaks, "fill");
    for (size_t k = 0; k < leaks.n; k++)
      if (!strcmp(mlz_place_of_stack(in, leaks.entries[k].stack).file, "/srv/a.py") && &leaks.entries[k] != fill) list = &leaks.entries[k];
    cr_assert_not_null(list);
    cr_assert_eq(list->grade, MLZ_GRADE_GROWING, "%lu: %s, %s", (unsigned long)appends[i], mlz_grade_name(list->grade), list->reason);
    cr_assert(strstr(list->reason, "added to until the end"), "%s", list->reason);
    cr_assert_float_eq(list->count, (double)appends[i] + 1, 0);
    if (appends[i] >= 100)
      cr_assert(!fill || fill->grade != MLZ_GRADE_GROWING, "%lu: %s", (unsigned long)appends[i], fill ? fill->reason : "");
    mlz_leaks_clear(&leaks);
    mlz_input_close(in);
  }
}

Test(leaks, a_line_that_threads_hand_over_grows_with_all_its_stacks) {
  struct mlz_input *in = open_scenario("handover", NULL, NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  unsigned stacks = 0;
  for (size_t i = 0; i < leaks.n; i++) {
    const struct mlz_leak_entry *e = &leaks.entries[i];
    bool adds = !strcmp(mlz_place_of_stack(in, e->stack).function, "remember");
    stacks += adds;
    cr_assert_eq(e->grade == MLZ_GRADE_GROWING, adds, "%s: %s", mlz_place_of_stack(in, e->stack).function, e->reason);
    if (adds) cr_assert_float_eq(e->count, 2000, 0, "JSON has each by itself");
  }
  cr_assert_eq(stacks, 4);
  mlz_leaks_merge_lines(in, &leaks);
  cr_assert_eq(leaks.entries[0].grade, MLZ_GRADE_GROWING);
  cr_assert_eq(leaks.entries[0].stacks, 4);
  cr_assert_float_eq(leaks.entries[0].count, 8000, 0);
  cr_assert_float_eq(leaks.entries[0].bytes, 8e6, 0);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}

/* One of two stacks grows: for a person the line does. Start-up's share is not the run's. */
Test(leaks, the_rest_of_a_line_belongs_to_the_stack_that_grows) {
  struct mlz_input *in = open_scenario("handover", NULL, NULL);
  struct mlz_leaks leaks;
  find(in, &leaks);
  size_t kept = 0;
  for (size_t i = 0; i < leaks.n; i++)
    if (!strcmp(mlz_place_of_stack(in, leaks.entries[i].stack).function, "remember")) leaks.entries[kept++] = leaks.entries[i];
  cr_assert_eq(kept, 4);
  leaks.n = kept;
  leaks.entries[1].grade = MLZ_GRADE_TURNOVER, leaks.entries[2].grade = MLZ_GRADE_CONSTANT, leaks.entries[3].grade = MLZ_GRADE_STARTUP;
  mlz_leaks_merge_lines(in, &leaks);
  cr_assert_eq(leaks.n, 2);
  cr_assert_eq(leaks.entries[0].stacks, 3);
  cr_assert_eq(leaks.entries[0].same_grade, 1);
  cr_assert_float_eq(leaks.entries[0].count, 6000, 0);
  cr_assert_eq(leaks.entries[1].grade, MLZ_GRADE_STARTUP);
  mlz_leaks_clear(&leaks);
  mlz_input_close(in);
}
