/* What all exported formats are made of: texts fit for JSON and CSV, stacks and frames by content (the traces: tests/tools/scenarios.c). */
#include "analyzer/export.h"

#include "fixture.h"

#include <math.h>
#include <string.h>

static char *written(void (*write)(FILE *, const char *), const char *text) {
  char *out = NULL;
  size_t size;
  FILE *file = open_memstream(&out, &size);
  cr_assert(file);
  write(file, text);
  fclose(file);
  return out;
}

static void check(void (*write)(FILE *, const char *), const char *text, const char *wanted) {
  char *got = written(write, text);
  cr_assert_str_eq(got, wanted, "'%s' is written as %s, wanted %s", text, got, wanted);
  free(got);
}

Test(export, texts_as_json) {
  check(mlz_export_quoted, "", "\"\"");
  check(mlz_export_quoted, "a \"b\" \\ c", "\"a \\\"b\\\" \\\\ c\"");
  check(mlz_export_quoted, "tab\t line\n \x01", "\"tab\\u0009 line\\u000a \\u0001\"");
  check(mlz_export_quoted, "f\xc3\xbcr", "\"f\xc3\xbcr\"");
  check(mlz_export_quoted, "bad \xff", "\"bad \xef\xbf\xbd\"");
}

Test(export, texts_as_csv) {
  check(mlz_export_field, "", "");
  check(mlz_export_field, "plain; text", "plain; text");
  check(mlz_export_field, "a, b", "\"a, b\"");
  check(mlz_export_field, "say \"so\"", "\"say \"\"so\"\"\"");
  check(mlz_export_field, "line\nbreak",
        "line\xef\xbf\xbd"
        "break");
}

Test(export, texts_of_frames) {
  const struct mlz_place places[] = {
      {"f", "/srv/a.py", "a", 7, MLZ_LANG_PYTHON}, {"f", "/srv/a.py", "a", 0, MLZ_LANG_PYTHON}, {"f", "", "", 0, MLZ_LANG_NATIVE}};
  const char *const wanted[] = {"f (/srv/a.py:7)", "f (/srv/a.py)", "f"};
  for (size_t i = 0; i < 3; i++)
    for (int whole = 0; whole < 2; whole++) {
      char *text = mlz_export_frame_text(&places[i], whole);
      cr_assert_str_eq(text, wanted[i]);
      free(text);
    }
}

Test(export, stacks_have_one_number_for_what_they_say) {
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_export_stacks s;
  mlz_export_stacks_begin(&s, in);
  uint32_t n, all = mlz_trace_stacks(in->trace), empty = mlz_export_stack_number(&s, 0);
  cr_assert_eq(empty, 0);
  const uint32_t *frames = mlz_export_stack_frames(&s, empty, &n);
  cr_assert_eq(n, 1);
  cr_assert_str_eq(s.places[frames[0]].function, "(no stack)");
  for (uint32_t i = 0; i < all; i++) {
    uint32_t depth, number = mlz_export_stack_number(&s, i);
    bool truncated;
    const uint32_t *ids = mlz_trace_stack(in->trace, i, &depth, &truncated);
    frames = mlz_export_stack_frames(&s, number, &n);
    cr_assert_eq(n, depth + (truncated || !depth));
    for (uint32_t k = 0; k < depth; k++) {
      struct mlz_place p = mlz_place_of_frame(in, ids[k]);
      cr_assert_str_eq(s.places[frames[k]].function, p.function);
      cr_assert_str_eq(s.places[frames[k]].file, p.file);
      cr_assert_eq(s.places[frames[k]].line, p.line);
    }
    cr_assert_eq(mlz_export_stack_number(&s, i), number);
  }
  cr_assert_leq(s.stack_keys.n, all);
  mlz_export_stacks_clear(&s);
  mlz_input_close(in);
}

Test(export, rows_add_up_to_the_total) {
  const char *const names[] = {"service", "sampled", "processes"};
  for (size_t i = 0; i < 3; i++) {
    struct mlz_common_options common = {0};
    struct mlz_export e = {.in = open_scenario(names[i], NULL, NULL), .common = &common, .by = MLZ_BY_LIVE_BYTES};
    struct mlz_export_rows r;
    mlz_export_rows_take(&e, &r);
    double bytes = 0, live = 0, peak = 0, before = INFINITY;
    for (size_t k = 0; k < r.n; k++) {
      bytes += r.rows[k].tally.alloc_bytes;
      live += mlz_tally_live_bytes(&r.rows[k].tally);
      peak += r.rows[k].peak_bytes;
      cr_assert_leq(mlz_export_value(&r.rows[k], e.by), before, "largest first");
      before = mlz_export_value(&r.rows[k], e.by);
    }
    cr_assert_float_eq(bytes, r.total.alloc_bytes, 1);
    cr_assert_float_eq(live, r.total.alloc_bytes - r.total.free_bytes, 1);
    cr_assert_float_eq(peak, r.peak.bytes, 1);
    mlz_export_rows_clear(&r);
    mlz_input_close(e.in);
  }
}
