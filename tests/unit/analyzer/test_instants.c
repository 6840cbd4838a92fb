/* Which instant a name means (the trace: "marks" of tests/tools/scenarios.c). */
#include "analyzer/instants.h"
#include "analyzer/report.h"
#include "analyzer/tally.h"

#include "fixture.h"

#include <string.h>

Test(instants, times_are_told_from_names) {
  cr_assert_eq(mlz_when_parse(NULL).kind, MLZ_WHEN_NONE);
  cr_assert_eq(mlz_when_parse("end").kind, MLZ_WHEN_END);
  cr_assert_eq(mlz_when_parse("peak").kind, MLZ_WHEN_PEAK);
  cr_assert_eq(mlz_when_parse("90%").kind, MLZ_WHEN_PERCENT);
  cr_assert_eq(mlz_when_parse("1.5s").ns, UINT64_C(1500000000));
  cr_assert_eq(mlz_when_parse("1.5x").kind, MLZ_WHEN_NAME);
}

/* Blocks of both processes up to it. */
static double until(const char *process, const char *name) {
  struct mlz_input *in = open_scenario("marks", process, NULL);
  struct mlz_tally_run run;
  struct mlz_cut cut = {0};
  struct mlz_when when = mlz_when_parse(name);
  cr_assert(mlz_when_resolve(in, &when, &cut));
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, &cut);
  double count = run.total.alloc_count;
  mlz_tally_clear(&run);
  mlz_cut_clear(&cut);
  mlz_input_close(in);
  return count;
}

Test(instants, the_last_of_several_marks) {
  cr_assert_float_eq(until("all", "warm"), 8, 0, "of the child, at 4 ms");
  cr_assert_float_eq(until("all", "last"), 10, 0);
  cr_assert_float_eq(until("all", "warm#1"), 2, 0);
  cr_assert_float_eq(until("all", "warm#4"), 8, 0);
}

Test(instants, those_of_the_chosen_process_come_first) {
  cr_assert_float_eq(until("1", "warm"), 3, 0);
  cr_assert_float_eq(until("2", "warm"), 4, 0);
  cr_assert_float_eq(until("2", "last"), 5, 0, "no mark of its own: by time");
}

Test(instants, marks_are_read_in_the_order_of_time) {
  struct mlz_input *in = open_scenario("marks", "2", NULL);
  struct mlz_marks marks;
  size_t same;
  mlz_marks_read(in, &marks);
  cr_assert_eq(marks.n, 5);
  for (size_t i = 0; i < marks.n; i++) {
    cr_assert_eq(marks.marks[i].ns, (i + 1) * 1000000);
    cr_assert_eq(marks.marks[i].snapshot, i == 4);
    cr_assert_eq(marks.marks[i].process, i % 2);
  }
  cr_assert_eq(mlz_marks_find(in, &marks, "warm", &same), &marks.marks[3]);
  cr_assert_eq(same, 4);
  cr_assert_eq(mlz_marks_find(in, &marks, "warm#3", &same), &marks.marks[2]);
  cr_assert_eq(same, 1);
  const char *const none[] = {"", "war", "warm#", "warm#0", "warm#5", "warm#1 ", "warm#99999999999999999999", "#1"};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) cr_assert_null(mlz_marks_find(in, &marks, none[i], &same), "%s", none[i]);
  mlz_marks_clear(&marks);
  mlz_input_close(in);
}

Test(instants, a_name_behind_the_at_is_a_time_only_if_no_mark_has_it) {
  struct mlz_input *in = open_scenario("marks", NULL, NULL);
  cr_assert_eq(mlz_when_parse_at(in, "warm").kind, MLZ_WHEN_NAME);
  cr_assert_eq(mlz_when_parse_at(in, "50%").kind, MLZ_WHEN_PERCENT);
  cr_assert_eq(mlz_when_parse_at(in, "peak").kind, MLZ_WHEN_PEAK);
  mlz_input_close(in);
}
