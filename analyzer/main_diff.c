/* memlyze-diff: what grew, shrank, came or went between two traces, or between two instants of one. */
#include "analyzer/diff.h"
#include "analyzer/names.h"
#include "analyzer/select.h"
#include "analyzer/table.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  int by, group;
  uint64_t n;
  const char *filter, *fail_over, *fail_site_over;
};

#define AT(field) offsetof(struct settings, field)
#define GROUPS "line|function|file|module|stack"
static const struct mlz_option options[] = {
    {"by", 0, MLZ_OPT_CHOICE, MLZ_METRIC_CHOICES, "what to compare (default: live-bytes if a trace is looked at @TIME, else alloc-bytes)",
     AT(by)},
    {"group", 0, MLZ_OPT_CHOICE, GROUPS, "what makes a site (default: line; with --json: stack)", AT(group)},
    {"number", 'n', MLZ_OPT_COUNT, "N", "show N sites (default 20; 0: all; with --json: all)", AT(n)},
    {"filter", 0, MLZ_OPT_TEXT, "RE",
     "only sites whose \"module.function file:line\" matches the POSIX extended regular expression; with --group stack: any frame",
     AT(filter)},
    {"fail-over", 0, MLZ_OPT_TEXT, "SIZE|N%", "exit with status 1 if the total (of --filter's sites) grew by more than that",
     AT(fail_over)},
    {"fail-site-over", 0, MLZ_OPT_TEXT, "SIZE", "exit with status 1 if any one site grew by more than that", AT(fail_site_over)},
    MLZ_SYMBOLS_OPTION,
    MLZ_PYTHON_OPTION,
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "diff",
    .purpose = "What grew, shrank, came or went between two traces, or two instants of one.",
    .options = options,
    .has_json = true,
    .traces = 2,
    .traces_max = 2,
    .usage = "[options] old.mlyze[@TIME] new.mlyze[@TIME]",
    .exit_status = "0 done; 1 a limit of --fail-over was passed; 2 wrong usage or an\nunreadable trace",
    .notes = "  memlyze diff old.mlyze new.mlyze             what two runs allocated\n"
             "  memlyze diff trace.mlyze@warm @end           what is live since a mark\n"
             "  memlyze diff --by peak-bytes old.mlyze new.mlyze\n"
             "An @TIME alone means the first trace. --process PID,PID: one of each.\n"
             "Sites are matched by function: the same file and qualified name. Files may lie\n"
             "elsewhere; lines of a function may have moved: their order, how far their\n"
             "neighbours moved and what they call say which is which.\n"
             "Stacks are the same if they go through the same functions to the same line.\n"
             "new: there was nothing of it before; gone: there is nothing after.\n"
             "For sampled traces +- is half the interval of the difference; one within it may\n"
             "be chance (~), and is never a failure.\n" MLZ_TIME_NOTE,
};

static const char *const metric_names[] = {"alloc-bytes", "alloc-count", "live-bytes", "peak-bytes", "temporary"};
static const char *const verbs[] = {"allocated", "allocated", "live", "live at the peak", "temporary"};

/* ---- limits ---- */

struct limit {
  bool given, percent;
  double value;
};

static struct limit read_limit(const char *name, const char *text, bool percent) {
  struct limit limit = {.given = text};
  uint64_t size;
  char *end;
  if (!text) return limit;
  if (mlz_units_parse_size(text, &size)) {
    limit.value = (double)size;
    return limit;
  }
  limit.percent = true;
  limit.value = strtod(text, &end);
  if (percent && strspn(text, "0123456789.") && end > text && !strcmp(end, "%") && isfinite(limit.value)) return limit;
  fprintf(stderr, "memlyze-diff: --%s: '%s' is not a size%s; write it as 24 MB or 12.3 MiB%s\n", name, text, percent ? " or a share" : "",
          percent ? ", or 5%" : "");
  exit(2);
}

static bool passes(const struct limit *limit, const struct mlz_diff_site *s) {
  return limit->given && mlz_diff_delta(s) > (limit->percent ? s->amount[MLZ_BEFORE].value * limit->value / 100 : limit->value);
}

/* ---- what is compared ---- */

struct results {
  struct mlz_input *in[MLZ_SIDES];
  struct mlz_measure measures[MLZ_SIDES];
  struct mlz_tally_run between;
  bool has_between;
  struct mlz_match match;
  struct mlz_diff diff;
  struct mlz_diff_site total;       /* of what the filter leaves */
  size_t counts[MLZ_DIFF_STATUSES]; /* sites */
  double deltas[MLZ_DIFF_STATUSES];
  struct limit fail_over, fail_site_over;
  bool failed, passed_by_noise;
  size_t failed_sites;
};

/* "@TIME" alone is an instant of the first trace, "PID,PID" a process of each. */
static void open_inputs(const struct settings *s, struct results *r) {
  char *process[MLZ_SIDES] = {NULL, NULL}, *same = NULL;
  const char *comma = s->common.process ? strchr(s->common.process, ',') : NULL;
  for (int side = 0; side < MLZ_SIDES && s->common.process; side++)
    process[side] = !comma ? mlz_text_format("%s", s->common.process)
                    : side ? mlz_text_format("%s", comma + 1)
                           : mlz_text_format("%.*s", (int)(comma - s->common.process), s->common.process);
  for (int side = 0; side < MLZ_SIDES; side++) {
    struct mlz_common_options common = s->common;
    common.path = s->common.paths.items[side];
    common.process = process[side];
    if (side == MLZ_AFTER && common.path[0] == '@' && common.path[1])
      common.path = same = mlz_text_format("%s%s", r->in[0]->path, common.path);
    common.quiet = side == MLZ_AFTER && mlz_input_is_trace(r->in[MLZ_BEFORE], common.path);
    r->in[side] = mlz_input_open(tool.name, &common);
    free(process[side]);
  }
  free(same);
}

static bool site_is_selected(const struct results *r, const struct mlz_select *select, const struct mlz_diff_site *site) {
  for (int side = 0; side < MLZ_SIDES; side++)
    if (site->stack[side] != MLZ_INTERN_NONE && mlz_select_stack(select, r->in[side], site->stack[side], r->diff.group == MLZ_GROUP_STACK))
      return true;
  return false;
}

static void filter(const struct settings *s, struct results *r) {
  r->total = r->diff.total;
  if (!s->filter) return;
  struct mlz_select select;
  mlz_select_begin(&select, r->in[MLZ_AFTER], s->filter);
  struct mlz_diff *d = &r->diff;
  size_t kept = 0;
  r->total = (struct mlz_diff_site){.stack = {MLZ_INTERN_NONE, MLZ_INTERN_NONE}};
  for (size_t i = 0; i < d->n; i++) {
    if (!site_is_selected(r, &select, &d->sites[i])) continue;
    mlz_diff_add(&r->total, &d->sites[i]);
    d->sites[kept++] = d->sites[i];
  }
  d->n = kept;
  mlz_select_clear(&select);
  for (int side = 0; side < MLZ_SIDES; side++) mlz_spread_floor(&r->total.spread[side], &d->total.spread[side]);
  mlz_diff_finish(&r->total, d->metric, r->has_between);
}

static void judge(struct results *r) {
  for (size_t i = 0; i < r->diff.n; i++) {
    const struct mlz_diff_site *site = &r->diff.sites[i];
    enum mlz_diff_status status = mlz_diff_status_of(site);
    r->counts[status]++;
    r->deltas[status] += mlz_diff_delta(site);
    bool over = passes(&r->fail_site_over, site), noise = mlz_diff_is_noise(site);
    r->failed_sites += over && !noise;
    r->passed_by_noise |= over && noise;
  }
  bool over = passes(&r->fail_over, &r->total), noise = mlz_diff_is_noise(&r->total);
  r->failed = over && !noise;
  r->passed_by_noise |= over && noise;
}

static void compute(const struct settings *s, struct results *r) {
  bool mmap = s->common.include_mmap, points = r->in[MLZ_BEFORE]->mark || r->in[MLZ_AFTER]->mark;
  enum mlz_metric metric = s->by >= 0 ? (enum mlz_metric)s->by : points ? MLZ_BY_LIVE_BYTES : MLZ_BY_ALLOC_BYTES;
  enum mlz_group group = s->group >= 0 ? (enum mlz_group)s->group : s->common.json ? MLZ_GROUP_STACK : MLZ_GROUP_LINE;
  for (int side = 0; side < MLZ_SIDES; side++) mlz_measure_take(r->in[side], metric, mmap, NULL, NULL, NULL, &r->measures[side]);
  r->has_between = mlz_diff_between(r->in, r->measures, mmap, &r->between);
  mlz_match_build(r->in[MLZ_BEFORE], r->in[MLZ_AFTER], &r->match);
  mlz_diff_build(&r->match, r->measures, r->has_between ? &r->between : NULL, group, &r->diff);
  filter(s, r);
  judge(r);
}

static bool is_estimated(const struct results *r) { return r->in[MLZ_BEFORE]->estimated || r->in[MLZ_AFTER]->estimated; }

static enum mlz_side side_of(const struct mlz_diff_site *s) { return s->stack[MLZ_AFTER] == MLZ_INTERN_NONE ? MLZ_BEFORE : MLZ_AFTER; }

/* The line before, if the site has moved. */
static bool has_moved(const struct results *r, const struct mlz_diff_site *s, struct mlz_place *from) {
  if (s->stack[MLZ_BEFORE] == MLZ_INTERN_NONE || s->stack[MLZ_AFTER] == MLZ_INTERN_NONE) return false;
  if (r->diff.group != MLZ_GROUP_LINE && r->diff.group != MLZ_GROUP_STACK) return false;
  struct mlz_place to = mlz_place_of_stack(r->in[MLZ_AFTER], s->stack[MLZ_AFTER]);
  *from = mlz_place_of_stack(r->in[MLZ_BEFORE], s->stack[MLZ_BEFORE]);
  return from->line != to.line;
}

/* ---- JSON ---- */

static void add_values(const struct results *r, const struct mlz_diff_site *s, json_t *row) {
  json_object_set_new(row, "before", mlz_json_number(s->amount[MLZ_BEFORE].value));
  json_object_set_new(row, "after", mlz_json_number(s->amount[MLZ_AFTER].value));
  json_object_set_new(row, "delta", mlz_json_number(mlz_diff_delta(s)));
  json_object_set_new(row, "before_count", mlz_json_number(s->amount[MLZ_BEFORE].count));
  json_object_set_new(row, "after_count", mlz_json_number(s->amount[MLZ_AFTER].count));
  if (!is_estimated(r)) return;
  json_object_set_new(row, "before_error", mlz_json_number(s->error[MLZ_BEFORE]));
  json_object_set_new(row, "after_error", mlz_json_number(s->error[MLZ_AFTER]));
  json_object_set_new(row, "delta_error", mlz_json_number(s->difference));
  json_object_set_new(row, "within_noise", json_boolean(mlz_diff_is_noise(s)));
}

static json_t *site_json(const struct results *r, const struct mlz_diff_site *s) {
  json_t *row = json_object();
  enum mlz_side side = side_of(s);
  struct mlz_place from;
  mlz_site_add_json(r->in[side], r->diff.group, &(struct mlz_site){.row = s->stack[side]}, row);
  add_values(r, s, row);
  json_object_set_new(row, "status", json_string(mlz_diff_status_name(mlz_diff_status_of(s))));
  if (has_moved(r, s, &from))
    json_object_set_new(row, "moved_from", json_pack("{s:o, s:I}", "file", mlz_json_text(from.file), "line", (json_int_t)from.line));
  json_object_set_new(row, "stack", mlz_json_stack(r->in[side], s->stack[side]));
  return row;
}

static json_t *trace_json(const struct mlz_input *in) {
  json_t *trace = json_object();
  char *command = mlz_input_command(mlz_trace_meta(in->trace));
  json_object_set_new(trace, "file", mlz_json_text(in->path));
  json_object_set_new(trace, "at", in->mark ? mlz_json_text(in->mark) : json_null());
  json_object_set_new(trace, "command", mlz_json_text(command));
  json_object_set_new(trace, "sample_rate", json_real(in->sample_rate));
  mlz_json_add_losses(in, trace);
  free(command);
  return trace;
}

static void print_json(const struct settings *s, const struct results *r, FILE *out) {
  static const char *const groups[] = {"line", "function", "file", "module", "stack"};
  json_t *document = mlz_json_document(r->in[MLZ_AFTER]), *list = json_array(), *statuses = json_object(), *total = json_object();
  if (is_estimated(r)) json_object_set_new(document, "estimated", json_true());
  json_object_set_new(document, "by", json_string(metric_names[r->diff.metric]));
  json_object_set_new(document, "group", json_string(groups[r->diff.group]));
  json_object_set_new(document, "before", trace_json(r->in[MLZ_BEFORE]));
  json_object_set_new(document, "after", trace_json(r->in[MLZ_AFTER]));
  add_values(r, &r->total, total);
  json_object_set_new(document, "total", total);
  for (int i = 0; i < MLZ_DIFF_STATUSES; i++)
    json_object_set_new(statuses, mlz_diff_status_name((enum mlz_diff_status)i),
                        json_pack("{s:I, s:o}", "sites", (json_int_t)r->counts[i], "delta", mlz_json_number(r->deltas[i])));
  json_object_set_new(document, "statuses", statuses);
  if (r->fail_over.given || r->fail_site_over.given) json_object_set_new(document, "ok", json_boolean(!r->failed && !r->failed_sites));
  for (size_t i = 0; i < r->diff.n && (!s->n || s->n == UINT64_MAX || json_array_size(list) < s->n); i++)
    if (mlz_diff_status_of(&r->diff.sites[i]) != MLZ_DIFF_SAME) json_array_append_new(list, site_json(r, &r->diff.sites[i]));
  json_object_set_new(document, "sites", list);
  mlz_json_print(document, out);
}

/* ---- text ---- */

static char *amount_text(const struct results *r, double value, bool sign) {
  char text[MLZ_UNITS_MAX];
  mlz_metric_counts(r->diff.metric) ? mlz_units_count(text, value) : mlz_units_size(text, value);
  return mlz_text_format("%s%s", sign && *text != '-' && value >= 0.5 ? "+" : "", text);
}

static void add_amount(const struct results *r, struct mlz_table *t, double value, bool sign) {
  char *text = amount_text(r, value, sign);
  mlz_table_cell(t, text);
  free(text);
}

enum { /* columns from which there is room for it */
       MOVED_FROM = 100,
       BEFORE_FROM = 70,
};
static bool has_before(unsigned width) { return width >= BEFORE_FROM; }
static bool has_after(const struct results *r, unsigned width) { return width >= BEFORE_FROM || !is_estimated(r); }

static struct mlz_table *make_table(const struct results *r, unsigned width) {
  static const char *const names[] = {"function", "function", "file", "module", "function"};
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "change", MLZ_COL_NUMBER);
  if (is_estimated(r)) mlz_table_column(t, "+-", MLZ_COL_NUMBER);
  if (has_before(width)) mlz_table_column(t, "before", MLZ_COL_NUMBER);
  if (has_after(r, width)) mlz_table_column(t, "after", MLZ_COL_NUMBER);
  mlz_table_column(t, "", MLZ_COL_WORD);
  mlz_table_column(t, names[r->diff.group], r->diff.group == MLZ_GROUP_FILE ? MLZ_COL_PATH : MLZ_COL_NAME);
  if (r->diff.group != MLZ_GROUP_FILE) mlz_table_column(t, "where", MLZ_COL_PATH);
  if (width >= MOVED_FROM) mlz_table_column(t, "", MLZ_COL_NOTE);
  return t;
}

static void add_callers(const struct results *r, struct mlz_table *t, const struct mlz_diff_site *s, unsigned width) {
  struct mlz_input *in = r->in[side_of(s)];
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, s->stack[side_of(s)], &n, &truncated);
  unsigned numbers = 2u + is_estimated(r) + has_before(width) + has_after(r, width);
  for (uint32_t i = 1; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(in, frames[i]);
    char *where = mlz_place_text(&p), *name = mlz_text_format("  %s", p.function);
    for (unsigned k = 0; k < numbers; k++) mlz_table_cell(t, "");
    mlz_table_cell(t, name);
    mlz_table_cell(t, where);
    if (width >= MOVED_FROM) mlz_table_cell(t, "");
    mlz_table_style(t, MLZ_STYLE_DIM);
    free(name);
    free(where);
  }
}

static void add_site(const struct results *r, struct mlz_table *t, const struct mlz_diff_site *s, unsigned width) {
  enum mlz_diff_status status = mlz_diff_status_of(s);
  bool noise = mlz_diff_is_noise(s);
  add_amount(r, t, mlz_diff_delta(s), true);
  if (is_estimated(r)) add_amount(r, t, s->difference, false);
  if (has_before(width)) add_amount(r, t, s->amount[MLZ_BEFORE].value, false);
  if (has_after(r, width)) add_amount(r, t, s->amount[MLZ_AFTER].value, false);
  char *word = mlz_text_format("%s%s", mlz_diff_status_name(status), noise ? "~" : ""), *name, *where;
  mlz_table_cell(t, word);
  mlz_table_style(t, noise ? MLZ_STYLE_DIM : mlz_diff_delta(s) > 0 ? MLZ_STYLE_RED : MLZ_STYLE_GREEN);
  mlz_site_label(r->in[side_of(s)], r->diff.group, &(struct mlz_site){.row = s->stack[side_of(s)]}, &name, &where);
  mlz_table_cell(t, name);
  if (r->diff.group != MLZ_GROUP_FILE) mlz_table_cell(t, where);
  if (width >= MOVED_FROM) {
    struct mlz_place from;
    char *note = has_moved(r, s, &from) ? mlz_text_format("was line %" PRIu32, from.line) : mlz_text_format("%s", "");
    mlz_table_cell(t, note);
    free(note);
  }
  free(word);
  free(name);
  free(where);
  if (r->diff.group == MLZ_GROUP_STACK) add_callers(r, t, s, width);
}

/* "old.mlyze at warm", "at the end" is not said. */
static char *trace_text(const struct mlz_input *in) {
  char *path = mlz_text_clean(in->path, true), *mark = in->mark ? mlz_text_clean(in->mark, true) : NULL;
  char *out = mlz_text_format("%s%s%s", path, mark ? " at " : "", mark ? mark : "");
  free(path);
  free(mark);
  return out;
}

static void print_head(const struct settings *s, const struct results *r, FILE *out, bool color) {
  char share[MLZ_UNITS_MAX] = "";
  const struct mlz_diff_site *t = &r->total;
  double before = t->amount[MLZ_BEFORE].value, delta = mlz_diff_delta(t);
  if (before >= 0.5 && fabs(delta) >= 0.5) mlz_units_percent(share, fabs(delta), before);
  char *change = amount_text(r, delta, true), *error = amount_text(r, t->difference, false);
  const char *unit = mlz_metric_counts(r->diff.metric) ? " blocks" : "";
  fprintf(out, "%s%s%s %s%s", color ? mlz_term_style(MLZ_STYLE_BOLD) : "", change, unit, verbs[r->diff.metric],
          color ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  if (*share) fprintf(out, " (%s%s)", delta < 0 ? "-" : "+", share);
  if (is_estimated(r)) fprintf(out, ", +- %s%s", error, mlz_diff_is_noise(t) ? ": within the noise of the samples" : "");
  fprintf(out, "%s\n", s->filter ? ", of the sites that match" : "");
  for (int side = 0; side < MLZ_SIDES; side++) {
    char *trace = trace_text(r->in[side]), *value = amount_text(r, t->amount[side].value, false), count[MLZ_UNITS_MAX];
    char *line = mlz_metric_counts(r->diff.metric)
                     ? mlz_text_format("%s blocks in %s", value, trace)
                     : mlz_text_format("%s in %s blocks in %s", value, mlz_units_count(count, t->amount[side].count), trace);
    fputs(side ? "  after   " : "  before  ", out);
    mlz_report_wrap(out, mlz_term_width(out), 10, 10, line);
    free(trace);
    free(value);
    free(line);
  }
  fprintf(out, "%zu new, %zu gone, %zu grew, %zu shrank, %zu the same\n", r->counts[MLZ_DIFF_NEW], r->counts[MLZ_DIFF_GONE],
          r->counts[MLZ_DIFF_GREW], r->counts[MLZ_DIFF_SHRANK], r->counts[MLZ_DIFF_SAME]);
  free(change);
  free(error);
}

static void print_text(const struct settings *s, const struct results *r, FILE *out) {
  unsigned width = mlz_term_width(out);
  bool color = mlz_term_color(out, (enum mlz_color)s->common.color), noise = false;
  print_head(s, r, out, color);
  struct mlz_table *t = make_table(r, width);
  uint64_t limit = s->n == UINT64_MAX ? 20 : s->n ? s->n : UINT64_MAX;
  size_t shown = 0, more = 0;
  for (size_t i = 0; i < r->diff.n; i++) {
    const struct mlz_diff_site *site = &r->diff.sites[i];
    if (mlz_diff_status_of(site) == MLZ_DIFF_SAME) continue;
    if (shown == limit) {
      more++;
      continue;
    }
    noise |= mlz_diff_is_noise(site);
    add_site(r, t, site, width);
    shown++;
  }
  if (shown) fputc('\n', out), mlz_table_print(t, out, width, color);
  if (more) fprintf(out, "\n%zu more (-n 0 shows all)\n", more);
  if (noise) fputs("\n~ within the noise of the samples: it may be chance\n", out);
  mlz_table_free(t);
}

/* ---- verdict ---- */

static void say_failure(const char *option, const char *limit, const struct results *r, const struct mlz_diff_site *s, const char *what) {
  char *delta = amount_text(r, mlz_diff_delta(s), true), *before = amount_text(r, s->amount[MLZ_BEFORE].value, false),
       *after = amount_text(r, s->amount[MLZ_AFTER].value, false);
  mlz_input_warn(r->in[MLZ_AFTER], "%s %s %s (from %s to %s), more than --%s %s", what, verbs[r->diff.metric], delta, before, after, option,
                 limit);
  free(delta);
  free(before);
  free(after);
}

static int verdict(const struct settings *s, const struct results *r) {
  if (r->failed) say_failure("fail-over", s->fail_over, r, &r->total, s->filter ? "the sites that match together" : "all together");
  size_t said = 0;
  for (size_t i = 0; i < r->diff.n && said < 5 && r->failed_sites; i++) {
    const struct mlz_diff_site *site = &r->diff.sites[i];
    if (!passes(&r->fail_site_over, site) || mlz_diff_is_noise(site)) continue;
    char *name, *where;
    mlz_site_label(r->in[side_of(site)], r->diff.group, &(struct mlz_site){.row = site->stack[side_of(site)]}, &name, &where);
    char *what = mlz_text_format("%s%s%s%s", name, *where ? " (" : "", where, *where ? ")" : "");
    say_failure("fail-site-over", s->fail_site_over, r, site, what);
    free(name);
    free(where);
    free(what);
    said++;
  }
  if (r->failed_sites > said) mlz_input_warn(r->in[MLZ_AFTER], "%zu more sites passed --fail-site-over", r->failed_sites - said);
  if (r->passed_by_noise)
    mlz_input_warn(r->in[MLZ_AFTER],
                   "a limit was passed by less than the noise of the samples: not judged; record at a higher --sample-rate");
  return r->failed || r->failed_sites;
}

/* What makes two traces hard to compare. */
static void warn_settings(const struct results *r) {
  uint64_t depth[MLZ_SIDES];
  for (int side = 0; side < MLZ_SIDES; side++) {
    const json_t *meta = mlz_trace_meta(r->in[side]->trace);
    depth[side] = mlz_input_uint(json_object_get(meta, "settings"), "max_stack_depth", mlz_input_uint(meta, "max_stack_depth", 0));
  }
  if (depth[MLZ_BEFORE] != depth[MLZ_AFTER] && r->diff.group == MLZ_GROUP_STACK)
    mlz_input_warn(r->in[MLZ_AFTER],
                   "stacks were recorded to a depth of %" PRIu64 " before and of %" PRIu64 " after, so few are the same; --group line",
                   depth[MLZ_BEFORE], depth[MLZ_AFTER]);
}

int main(int argc, char **argv) {
  struct settings s = {.common.look_up = mlz_names_look_up, .n = UINT64_MAX, .by = -1, .group = -1};
  struct results r = {0};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  r.fail_over = read_limit("fail-over", s.fail_over, true);
  r.fail_site_over = read_limit("fail-site-over", s.fail_site_over, false);
  open_inputs(&s, &r);
  compute(&s, &r);
  int status = mlz_input_finish(r.in[MLZ_BEFORE]);
  int second = mlz_input_finish(r.in[MLZ_AFTER]);
  if (second > status) status = second;
  bool limited = r.fail_over.given || r.fail_site_over.given;
  for (int side = 0; side < MLZ_SIDES; side++)
    if (limited && !r.in[side]->events_read && !r.in[side]->points_read && !status)
      mlz_input_fail(r.in[side], "an empty trace passes no limit: record it again");
  if (!status) {
    warn_settings(&r);
    mlz_report_guard(r.in[MLZ_BEFORE], &s.common);
    FILE *out = mlz_report_open(r.in[MLZ_AFTER], &s.common);
    if (s.common.json)
      print_json(&s, &r, out);
    else
      print_text(&s, &r, out);
    mlz_report_close(r.in[MLZ_AFTER], &s.common, out);
    status = verdict(&s, &r);
  }
  mlz_diff_clear(&r.diff);
  mlz_match_clear(&r.match);
  if (r.has_between) mlz_tally_clear(&r.between);
  for (int side = 0; side < MLZ_SIDES; side++) {
    mlz_measure_clear(&r.measures[side]);
    mlz_input_close(r.in[side]);
  }
  return status;
}
