/* memlyze-leaks: what was not freed, and which of it grows. */
#include "analyzer/leaks.h"
#include "analyzer/names.h"
#include "analyzer/report.h"
#include "analyzer/suppress.h"
#include "analyzer/table.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  uint64_t n, min_size;
  const char *since, *at, *suppress;
  bool at_exit, all, stacks;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"since", 0, MLZ_OPT_TEXT, "TIME", "only blocks allocated after TIME", AT(since)},
    {"at", 0, MLZ_OPT_TEXT, "TIME", "what was live at TIME instead of the end", AT(at)},
    {"at-exit", 0, MLZ_OPT_FLAG, NULL, "count what the interpreter frees while it finalises, too", AT(at_exit)},
    {"min-size", 0, MLZ_OPT_SIZE, "SIZE", "leave out stacks that hold less than SIZE", AT(min_size)},
    {"suppress", 0, MLZ_OPT_TEXT, "FILE",
     "leave out stacks that match a line leak:PATTERN of FILE (LeakSanitizer's syntax: a part of a function or file, * ^ $)", AT(suppress)},
    {"number", 'n', MLZ_OPT_COUNT, "N", "show N lines (default 20; 0: all; with --json: all)", AT(n)},
    {"all", 'a', MLZ_OPT_FLAG, NULL, "show start-up and interpreter blocks one by one as well", AT(all)},
    {"stacks", 's', MLZ_OPT_FLAG, NULL, "show each stack by itself, with the callers below its line", AT(stacks)},
    MLZ_SYMBOLS_OPTION,
    MLZ_PYTHON_OPTION,
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "leaks",
    .purpose = "What was not freed by the end of the process, by stack, and which of it grows.",
    .options = options,
    .has_json = true,
    .notes = "Grades, most important first:\n"
             "  growing      survivors were added until the end, in most parts of the run, and\n"
             "               the number of live blocks rose; or one buffer was enlarged again\n"
             "               and again: what a leak looks like\n"
             "  recent       all from the last tenth of the run: likely in use when it ended\n"
             "  turnover     older ones were freed, newer ones stand for them: cache, queue,\n"
             "               garbage that waits for a full collection\n"
             "  constant     no trend: few blocks, allocated in one stretch, or by processes\n"
             "               that each lived for less than a tenth of the trace\n"
             "  startup      allocated at the beginning, or by a module being imported\n"
             "  interpreter  the import machinery's, or no Python frame on the stack\n"
             "A block that the interpreter takes from one of its free lists is counted at the\n"
             "line that first allocated it: a leak named in a library may be its caller's.\n"
             "A terminal of 120 columns shows the reason of each grade; --json always does.\n"
             "The end of a process is the instant at which its interpreter begins to\n"
             "finalise, after its atexit callbacks. A run is measured in allocations, from\n"
             "the first that a frame of __main__ made behind its first imports.\n" MLZ_TIME_NOTE,
};

static void suppress(struct mlz_input *in, const struct settings *s, struct mlz_leaks *leaks, struct mlz_leak_entry *hidden) {
  struct mlz_suppressions *list = NULL;
  char err[200];
  if (s->suppress && !(list = mlz_suppress_read(s->suppress, err, sizeof err))) {
    fprintf(stderr, "memlyze-leaks: %s: %s\n", s->suppress, err);
    exit(2);
  }
  size_t kept = 0;
  for (size_t i = 0; i < leaks->n; i++) {
    const struct mlz_leak_entry *e = &leaks->entries[i];
    if (list && mlz_suppress_stack(list, in, e->stack)) {
      hidden->count += e->count;
      hidden->bytes += e->bytes;
      hidden->processes++;
    } else if (e->bytes >= (double)s->min_size) {
      leaks->entries[kept++] = *e;
    }
  }
  leaks->n = kept;
  mlz_suppress_free(list);
}

struct sum {
  double count, bytes;
  struct mlz_spread spread;
  size_t stacks;
};

static void sum_up(const struct mlz_leaks *leaks, struct sum *sums) {
  for (size_t i = 0; i < leaks->n; i++) {
    struct sum *g = &sums[leaks->entries[i].grade];
    g->count += leaks->entries[i].count;
    g->bytes += leaks->entries[i].bytes;
    mlz_spread_join(&g->spread, &leaks->entries[i].spread);
    g->stacks++;
  }
}

static uint64_t growth_per_second(const struct mlz_leak_entry *e) {
  if (e->grade != MLZ_GRADE_GROWING || e->last_ns <= e->first_ns) return 0;
  double growth = e->bytes * 1e9 / (double)(e->last_ns - e->first_ns);
  return growth < 0x1p62 ? (uint64_t)growth : UINT64_C(1) << 62; /* a damaged trace may say anything */
}

/* {"count", "bytes"}, and how far they may be off where they are estimates. */
static void add_errors(json_t *object, const struct mlz_spread *spread) {
  json_object_set_new(object, "count_error", mlz_json_number(mlz_spread_live_count_error(spread)));
  json_object_set_new(object, "bytes_error", mlz_json_number(mlz_spread_live_bytes_error(spread)));
}

static json_t *entry_json(struct mlz_input *in, const struct mlz_leak_entry *e) {
  json_t *row = json_object();
  mlz_json_add_site(in, row, e->stack);
  json_object_set_new(row, "count", mlz_json_number(e->count));
  json_object_set_new(row, "bytes", mlz_json_number(e->bytes));
  if (in->estimated) {
    add_errors(row, &e->spread);
    json_object_set_new(row, "seen", json_integer((json_int_t)e->seen));
  }
  json_object_set_new(row, "first_ns", json_integer((json_int_t)e->first_ns));
  json_object_set_new(row, "last_ns", json_integer((json_int_t)e->last_ns));
  json_object_set_new(row, "grade", json_string(mlz_grade_name(e->grade)));
  json_object_set_new(row, "reason", json_string(e->reason));
  if (e->grade == MLZ_GRADE_GROWING) json_object_set_new(row, "growth_bytes_per_s", json_integer((json_int_t)growth_per_second(e)));
  json_object_set_new(row, "processes", json_integer(e->processes));
  if (in->left_out) json_object_set_new(row, "before_begin_count", mlz_json_number(e->older_count));
  if (e->spans_loss) json_object_set_new(row, "spans_loss", json_true());
  json_object_set_new(row, "stack", mlz_json_stack(in, e->stack));
  return row;
}

static void print_json(struct mlz_input *in, const struct settings *s, const struct mlz_leaks *leaks, const struct mlz_leak_entry *hidden,
                       FILE *out) {
  json_t *document = mlz_json_document(in), *list = json_array(), *grades = json_object();
  struct sum sums[MLZ_GRADE_COUNT] = {{0}};
  sum_up(leaks, sums);
  json_t *total = json_pack("{s:o, s:o}", "count", mlz_json_number(leaks->count), "bytes", mlz_json_number(leaks->bytes));
  if (in->estimated) add_errors(total, &leaks->spread);
  json_object_set_new(document, "total", total);
  for (int g = 0; g < MLZ_GRADE_COUNT; g++) {
    json_t *grade = json_pack("{s:o, s:o, s:I}", "count", mlz_json_number(sums[g].count), "bytes", mlz_json_number(sums[g].bytes), "stacks",
                              (json_int_t)sums[g].stacks);
    if (in->estimated) add_errors(grade, &sums[g].spread);
    json_object_set_new(grades, mlz_grade_name((enum mlz_grade)g), grade);
  }
  json_object_set_new(document, "grades", grades);
  if (s->suppress)
    json_object_set_new(document, "suppressed",
                        json_pack("{s:o, s:o}", "count", mlz_json_number(hidden->count), "bytes", mlz_json_number(hidden->bytes)));
  for (size_t i = 0; i < leaks->n && (s->n == UINT64_MAX || !s->n || i < s->n); i++)
    json_array_append_new(list, entry_json(in, &leaks->entries[i]));
  json_object_set_new(document, "leaks", list);
  mlz_json_add_losses(in, document);
  mlz_json_print(document, out);
}

/* ---- text ---- */

enum {
  WHY_FROM = 120, /* a terminal narrower than this has no room for the reasons */
  LAST_FROM = 70, /* nor this for when the last one was allocated */
};

static bool is_shown(const struct settings *s, const struct mlz_leak_entry *e) { return s->all || e->grade < MLZ_GRADE_STARTUP; }

static void add_callers(struct mlz_input *in, struct mlz_table *t, uint32_t stack, unsigned before, bool why) {
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
  for (uint32_t i = 1; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(in, frames[i]);
    char *where = mlz_place_text(&p), *name = mlz_text_format("  %s", p.function);
    for (unsigned k = 0; k < before; k++) mlz_table_cell(t, "");
    mlz_table_cell(t, name);
    mlz_table_cell(t, where);
    if (why) mlz_table_cell(t, "");
    mlz_table_style(t, MLZ_STYLE_DIM);
    free(name);
    free(where);
  }
}

static void add_entry(struct mlz_input *in, const struct settings *s, struct mlz_table *t, unsigned width, const struct mlz_leak_entry *e) {
  bool why = width >= WHY_FROM, last = width >= LAST_FROM;
  char text[MLZ_UNITS_MAX];
  mlz_table_cell(t, mlz_units_size(text, e->bytes));
  mlz_table_cell(t, mlz_units_count(text, e->count));
  if (in->estimated) {
    mlz_table_cell(t, mlz_units_count(text, mlz_spread_live_count_error(&e->spread)));
    mlz_table_cell(t, mlz_units_count(text, (double)e->seen));
  }
  mlz_table_cell(t, mlz_grade_name(e->grade));
  mlz_table_style(t, e->grade == MLZ_GRADE_GROWING ? MLZ_STYLE_RED : e->grade < MLZ_GRADE_CONSTANT ? MLZ_STYLE_YELLOW : MLZ_STYLE_PLAIN);
  if (last) mlz_table_cell(t, mlz_units_time(text, (double)e->last_ns));
  struct mlz_place p = mlz_place_of_stack(in, e->stack);
  char *where = mlz_place_text(&p);
  mlz_table_cell(t, p.function);
  mlz_table_cell(t, where);
  free(where);
  if (why) {
    char older[MLZ_UNITS_MAX + 64] = "", blocks[MLZ_UNITS_MAX];
    if (e->older_count > 0.5 && e->older_count < e->count - 0.5)
      snprintf(older, sizeof older, "; %s from before the trace's begin", mlz_units_count(blocks, e->older_count));
    char *reason = e->stacks > 1 ? mlz_text_format("largest of %s: %s%s", mlz_units_count(text, e->stacks), e->reason, older)
                                 : mlz_text_format("%s%s", e->reason, older);
    mlz_table_cell(t, reason);
    free(reason);
  }
  if (s->stacks) add_callers(in, t, e->stack, 3u + 2u * in->estimated + last, why);
}

static void print_growing(struct mlz_input *in, const struct mlz_leaks *leaks, const struct sum *growing, FILE *out, bool color) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX], c[MLZ_UNITS_MAX], d[MLZ_UNITS_MAX];
  if (!growing->stacks) {
    fputs("No growing leak was found.\n", out);
    return;
  }
  fprintf(out, "%s%zu growing%s: %s in %s blocks\n", color ? mlz_term_style(MLZ_STYLE_BOLD) : "", growing->stacks,
          color ? mlz_term_style(MLZ_STYLE_PLAIN) : "", mlz_units_size(a, growing->bytes), mlz_units_count(b, growing->count));
  for (size_t i = 0; i < leaks->n && i < 5 && leaks->entries[i].grade == MLZ_GRADE_GROWING; i++) {
    const struct mlz_leak_entry *e = &leaks->entries[i];
    struct mlz_place p = mlz_place_of_stack(in, e->stack);
    char *where = mlz_place_text(&p), *whole = mlz_text_clean(p.function, true);
    unsigned lines = 2 * mlz_term_width(out), taken = mlz_text_width(where) + 6; /* a C++ name can be longer than a screen */
    char *name = mlz_text_shorten(whole, taken + 60 < lines ? lines - taken : 60, MLZ_SHORTEN_NAME);
    uint64_t rate = growth_per_second(e);
    char stacks[64] = "";
    if (e->same_grade < e->stacks)
      snprintf(stacks, sizeof stacks, "; %u of %u stacks grow (-s shows them)", e->same_grade, e->stacks);
    else if (e->stacks > 1)
      snprintf(stacks, sizeof stacks, "; %s stacks (-s shows them)", mlz_units_count(a, e->stacks));
    char seen[3 * MLZ_UNITS_MAX + 40] = "", speed[MLZ_UNITS_MAX + 8] = "";
    if (in->estimated)
      snprintf(seen, sizeof seen, "; seen %s, estimated %s +- %s", mlz_units_count(a, (double)e->seen), mlz_units_count(b, e->count),
               mlz_units_count(d, mlz_spread_live_count_error(&e->spread)));
    if (rate && e->last_ns - e->first_ns >= UINT64_C(1000000000)) snprintf(speed, sizeof speed, "; %s/s", mlz_units_size(c, (double)rate));
    char *why = mlz_text_format("%s%s%s%s", e->reason, seen, speed, stacks);
    fprintf(out, "  %s%s%s%s\n    ", name, *where ? " (" : "", where, *where ? ")" : "");
    mlz_report_wrap(out, mlz_term_width(out), 4, 4, why);
    free(why);
    free(where);
    free(whole);
    free(name);
  }
}

/* What the table leaves out. */
static void print_rest(const struct settings *s, const struct sum *sums, FILE *out) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  double count = 0, bytes = 0;
  for (int g = MLZ_GRADE_STARTUP; g < MLZ_GRADE_COUNT; g++) count += sums[g].count, bytes += sums[g].bytes;
  if (s->all || !(count > 0)) return;
  char *text = mlz_text_format("Constant since start-up: %s in %s blocks of the program's start, imported modules and the interpreter "
                               "(--all shows them)",
                               mlz_units_size(a, bytes), mlz_units_count(b, count));
  fputc('\n', out);
  mlz_report_wrap(out, mlz_term_width(out), 0, 0, text);
  free(text);
}

static void print_text(struct mlz_input *in, const struct settings *s, struct mlz_leaks *leaks, const struct mlz_leak_entry *hidden,
                       FILE *out) {
  if (!s->stacks) mlz_leaks_merge_lines(in, leaks);
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  struct sum sums[MLZ_GRADE_COUNT] = {{0}};
  bool color = mlz_term_color(out, (enum mlz_color)s->common.color);
  sum_up(leaks, sums);
  char of[64] = "";
  if (in->n_chosen > 1) snprintf(of, sizeof of, " of %zu processes, each its own", in->n_chosen);
  char error[2 * MLZ_UNITS_MAX + 64] = "", c[MLZ_UNITS_MAX], d[MLZ_UNITS_MAX];
  if (in->estimated)
    snprintf(error, sizeof error, " (estimated from a sample: +- %s, +- %s blocks)",
             mlz_units_size(c, mlz_spread_live_bytes_error(&leaks->spread)),
             mlz_units_count(d, mlz_spread_live_count_error(&leaks->spread)));
  char *head =
      mlz_text_format("%s in %s blocks were not freed by %s%s%s", mlz_units_size(a, leaks->bytes), mlz_units_count(b, leaks->count),
                      s->at_exit          ? "the exit"
                      : s->at || in->mark ? "then"
                                          : "the end",
                      s->at || in->mark ? "" : of, error);
  mlz_report_wrap(out, mlz_term_width(out), 0, 0, head);
  free(head);
  print_growing(in, leaks, &sums[MLZ_GRADE_GROWING], out, color);
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "kept", MLZ_COL_NUMBER);
  mlz_table_column(t, "blocks", MLZ_COL_NUMBER);
  if (in->estimated) {
    mlz_table_column(t, "+-", MLZ_COL_NUMBER);
    mlz_table_column(t, "seen", MLZ_COL_NUMBER);
  }
  mlz_table_column(t, "grade", MLZ_COL_WORD);
  unsigned width = mlz_term_width(out);
  if (width >= LAST_FROM) mlz_table_column(t, "last at", MLZ_COL_NUMBER);
  mlz_table_column(t, "function", MLZ_COL_NAME);
  mlz_table_column(t, "where", MLZ_COL_PATH);
  if (width >= WHY_FROM) mlz_table_column(t, "why", MLZ_COL_NOTE);
  uint64_t limit = s->n == UINT64_MAX ? 20 : s->n ? s->n : UINT64_MAX;
  size_t shown = 0, more = 0, lossy = 0;
  for (size_t i = 0; i < leaks->n; i++) {
    const struct mlz_leak_entry *e = &leaks->entries[i];
    lossy += e->spans_loss;
    if (!is_shown(s, e)) continue;
    if (shown == limit)
      more++;
    else
      add_entry(in, s, t, width, e), shown++;
  }
  if (shown) fputc('\n', out), mlz_table_print(t, out, width, color);
  if (more) fprintf(out, "\n%zu more (-n 0 shows all)\n", more);
  mlz_table_free(t);
  print_rest(s, sums, out);
  bool stacks = !leaks->n;
  for (size_t i = 0; i < leaks->n; i++) stacks |= mlz_report_has_stack(in, leaks->entries[i].stack);
  if (!stacks) mlz_report_no_stacks(in, out);
  if (hidden->processes) fprintf(out, "Suppressed: %s in %s blocks\n", mlz_units_size(a, hidden->bytes), mlz_units_count(b, hidden->count));
  if (lossy)
    mlz_input_warn(in, "%zu of the stacks hold blocks that were allocated before frees were lost: some may have been freed", lossy);
}

int main(int argc, char **argv) {
  struct settings s = {.common.look_up = mlz_names_look_up, .n = UINT64_MAX};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  struct mlz_window window;
  mlz_window_resolve(in, s.at, s.since, NULL, s.common.include_mmap, &window);
  static const struct mlz_cut exit_cut = {{MLZ_CUT_EXIT, 0}, NULL, 0};
  if (s.at_exit && window.to) mlz_input_fail(in, "--at-exit and another upper limit cannot both hold: give one of them");
  struct mlz_leak_options wishes = {s.common.include_mmap, window.from, s.at_exit ? &exit_cut : window.to};
  struct mlz_leaks leaks;
  struct mlz_leak_entry hidden = {0};
  mlz_leaks_find(in, &wishes, &leaks);
  suppress(in, &s, &leaks, &hidden);
  int status = mlz_input_finish(in);
  if (!status) {
    FILE *out = mlz_report_open(in, &s.common);
    if (s.common.json)
      print_json(in, &s, &leaks, &hidden, out);
    else
      print_text(in, &s, &leaks, &hidden, out);
    mlz_report_close(in, &s.common, out);
  }
  mlz_leaks_clear(&leaks);
  mlz_window_clear(&window);
  mlz_input_close(in);
  return status;
}
