/* memlyze-top: who allocates. */
#include "analyzer/names.h"
#include "analyzer/select.h"
#include "analyzer/sites.h"
#include "analyzer/table.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  int by, group;
  uint64_t n;
  const char *at, *from, *to, *filter;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"by", 0, MLZ_OPT_CHOICE, MLZ_METRIC_CHOICES, "what to sort by (default alloc-bytes)", AT(by)},
    {"group", 0, MLZ_OPT_CHOICE, MLZ_GROUP_CHOICES, "what makes a site (default line)", AT(group)},
    {"number", 'n', MLZ_OPT_COUNT, "N", "show N sites (default 20; 0: all; with --json: all)", AT(n)},
    {"at", 0, MLZ_OPT_TEXT, "TIME", "live blocks as they stood at TIME (default: end); nothing later counts", AT(at)},
    {"from", 0, MLZ_OPT_TEXT, "TIME", "only blocks allocated after TIME", AT(from)},
    {"to", 0, MLZ_OPT_TEXT, "TIME", "only what happened until TIME", AT(to)},
    {"filter", 0, MLZ_OPT_TEXT, "RE",
     "only sites whose \"module.function file:line\" matches the POSIX extended regular expression; with --group stack: any frame",
     AT(filter)},
    MLZ_SYMBOLS_OPTION,
    MLZ_PYTHON_OPTION,
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "top",
    .purpose = "Who allocates: the sites of a trace, largest first.",
    .options = options,
    .has_json = true,
    .notes = "alloc-bytes, alloc-count   everything that was allocated\n"
             "live-bytes                 allocated and not freed at the end (or at --at)\n"
             "peak-bytes                 live at the instant of the highest total\n"
             "temporary                  blocks freed before the thread's next allocation\n" MLZ_TIME_NOTE,
};

struct results {
  struct mlz_window window;
  struct mlz_tally_run now, at_peak;
  struct mlz_peak peak;
  bool has_peak;
  struct mlz_sites sites;
};

/* The peak costs a second pass, so text asks for it only when it shows it. */
static void compute(struct mlz_input *in, const struct settings *s, struct results *r) {
  enum mlz_tally_key key = mlz_group_key((enum mlz_group)s->group);
  bool mmap = s->common.include_mmap;
  mlz_window_resolve(in, s->at, s->from, s->to, mmap, &r->window);
  r->has_peak = s->common.json || s->by == MLZ_BY_PEAK_BYTES;
  if (r->has_peak) mlz_peak_find(in, mmap, r->window.to, &r->peak);
  if (in->totals_only && s->by != MLZ_BY_PEAK_BYTES) r->has_peak = false; /* its bytes are known, its stacks are not */
  if (r->has_peak) {
    mlz_tally_scan(&r->at_peak, in, key, mmap, r->window.from, &r->peak.cut);
  }
  mlz_tally_scan(&r->now, in, key, mmap, r->window.from, r->window.to);
  mlz_sites_build(in, (enum mlz_group)s->group, (enum mlz_metric)s->by, &r->now, r->has_peak ? &r->at_peak : NULL, &r->sites);
}

static void clear(struct results *r) {
  mlz_sites_clear(&r->sites);
  mlz_tally_clear(&r->now);
  mlz_tally_clear(&r->at_peak);
  mlz_cut_clear(&r->peak.cut);
  mlz_window_clear(&r->window);
}

/* ---- the filter ---- */

static bool matches(struct mlz_input *in, const struct settings *s, const struct mlz_select *select, const struct mlz_site *site) {
  if (s->group <= MLZ_GROUP_STACK) return mlz_select_stack(select, in, site->row, s->group == MLZ_GROUP_STACK);
  char *name, *where;
  mlz_site_label(in, (enum mlz_group)s->group, site, &name, &where);
  bool found = mlz_select_text(select, name) || mlz_select_text(select, where);
  free(name);
  free(where);
  return found;
}

static void filter(struct mlz_input *in, const struct settings *s, struct mlz_sites *sites) {
  struct mlz_select select;
  mlz_select_begin(&select, in, s->filter);
  size_t kept = 0;
  for (size_t i = 0; i < sites->n; i++)
    if (matches(in, s, &select, &sites->sites[i])) sites->sites[kept++] = sites->sites[i];
  sites->n = kept;
  mlz_select_clear(&select);
}

/* ---- output ---- */

static void total_of(const struct settings *s, const struct results *r, double *count, double *bytes) {
  const struct mlz_tally *t = &r->now.total;
  *count = t->alloc_count;
  *bytes = t->alloc_bytes;
  if (s->by == MLZ_BY_LIVE_BYTES) *count = t->alloc_count - t->free_count, *bytes = t->alloc_bytes - t->free_bytes;
  if (s->by == MLZ_BY_TEMPORARY) *count = t->temp_count, *bytes = t->temp_bytes;
  if (s->by == MLZ_BY_PEAK_BYTES) {
    t = &r->at_peak.total;
    *count = t->alloc_count - t->free_count;
    *bytes = t->alloc_bytes - t->free_bytes;
  }
}

/* Of the count and the bytes that total_of gives. */
static void total_error_of(const struct settings *s, const struct results *r, double *count, double *bytes) {
  const struct mlz_spread *t = &r->now.total_spread, *peak = &r->at_peak.total_spread;
  switch ((enum mlz_metric)s->by) {
  case MLZ_BY_ALLOC_BYTES:
  case MLZ_BY_ALLOC_COUNT:
    *count = mlz_spread_alloc_count_error(t);
    *bytes = mlz_spread_alloc_bytes_error(t);
    break;
  case MLZ_BY_LIVE_BYTES:
    *count = mlz_spread_live_count_error(t);
    *bytes = mlz_spread_live_bytes_error(t);
    break;
  case MLZ_BY_PEAK_BYTES:
    *count = mlz_spread_live_count_error(peak);
    *bytes = mlz_spread_live_bytes_error(peak);
    break;
  case MLZ_BY_TEMPORARY:
    *count = mlz_spread_temp_count_error(t);
    *bytes = mlz_spread_alloc_bytes_error(t); /* no more than of all */
    break;
  }
}

static void add_errors(const struct mlz_site *site, json_t *row) {
  const struct mlz_spread *t = &site->spread;
  json_object_set_new(row, "alloc_count_error", mlz_json_number(mlz_spread_alloc_count_error(t)));
  json_object_set_new(row, "alloc_bytes_error", mlz_json_number(mlz_spread_alloc_bytes_error(t)));
  json_object_set_new(row, "live_count_error", mlz_json_number(mlz_spread_live_count_error(t)));
  json_object_set_new(row, "live_bytes_error", mlz_json_number(mlz_spread_live_bytes_error(t)));
  json_object_set_new(row, "peak_bytes_error", mlz_json_number(mlz_spread_live_bytes_error(&site->peak_spread)));
  json_object_set_new(row, "temporary_count_error", mlz_json_number(mlz_spread_temp_count_error(t)));
}

static void print_json(struct mlz_input *in, const struct settings *s, const struct results *r, FILE *out) {
  static const char *const metrics[] = {"alloc-bytes", "alloc-count", "live-bytes", "peak-bytes", "temporary"};
  static const char *const groups[] = {"line", "function", "file", "module", "stack", "thread", "process", "domain"};
  json_t *document = mlz_json_document(in), *list = json_array();
  double count, bytes;
  total_of(s, r, &count, &bytes);
  json_object_set_new(document, "by", json_string(metrics[s->by]));
  json_object_set_new(document, "group", json_string(groups[s->group]));
  json_t *total = json_pack("{s:o, s:o}", "count", mlz_json_number(count), "bytes", mlz_json_number(bytes));
  if (in->estimated) {
    total_error_of(s, r, &count, &bytes);
    json_object_set_new(total, "count_error", mlz_json_number(count));
    json_object_set_new(total, "bytes_error", mlz_json_number(bytes));
  }
  json_object_set_new(document, "total", total);
  json_object_set_new(document, "peak",
                      r->peak.unknown ? json_null()
                                      : json_pack("{s:o, s:I}", "bytes", mlz_json_number(mlz_peak_bytes(&r->peak)), "time_ns",
                                                  (json_int_t)mlz_peak_ns(&r->peak)));
  json_object_set_new(document, "sites_total", json_integer((json_int_t)r->sites.n));
  for (size_t i = 0; i < r->sites.n && (!s->n || s->n == UINT64_MAX || i < s->n); i++) {
    const struct mlz_site *site = &r->sites.sites[i];
    json_t *row = json_object();
    mlz_site_add_json(in, (enum mlz_group)s->group, site, row);
    json_object_set_new(row, "alloc_count", mlz_json_number(site->tally.alloc_count));
    json_object_set_new(row, "alloc_bytes", mlz_json_number(site->tally.alloc_bytes));
    json_object_set_new(row, "live_count", mlz_json_number(site->tally.alloc_count - site->tally.free_count));
    json_object_set_new(row, "live_bytes", mlz_json_number(site->tally.alloc_bytes - site->tally.free_bytes));
    json_object_set_new(row, "peak_bytes", in->totals_only ? json_null() : mlz_json_number(site->peak_bytes));
    json_object_set_new(row, "temporary_count", mlz_json_number(site->tally.temp_count));
    if (in->estimated) add_errors(site, row);
    if (s->group <= MLZ_GROUP_STACK) json_object_set_new(row, "stack", mlz_json_stack(in, site->row));
    json_array_append_new(list, row);
  }
  json_object_set_new(document, "sites", list);
  mlz_json_add_losses(in, document);
  mlz_json_print(document, out);
}

/* What is live of it stands beside what was allocated, where there is room. */
static bool has_live(const struct settings *s, unsigned width) {
  return (s->by == MLZ_BY_ALLOC_BYTES || s->by == MLZ_BY_ALLOC_COUNT) && width >= 70;
}

static struct mlz_table *make_table(const struct settings *s, bool estimated, unsigned width) {
  static const char *const titles[] = {"allocated", "allocated", "live", "at peak", "temporary"};
  static const char *const names[] = {"function", "function", "file", "module", "function", "thread", "pid", "domain"};
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, titles[s->by], MLZ_COL_NUMBER);
  if (estimated) mlz_table_column(t, "+-", MLZ_COL_NUMBER);
  mlz_table_column(t, "share", MLZ_COL_NUMBER);
  mlz_table_column(t, s->by == MLZ_BY_ALLOC_COUNT ? "bytes" : s->by == MLZ_BY_TEMPORARY ? "of" : "blocks", MLZ_COL_NUMBER);
  if (has_live(s, width)) mlz_table_column(t, "live", MLZ_COL_NUMBER);
  mlz_table_column(t, names[s->group], s->group == MLZ_GROUP_FILE ? MLZ_COL_PATH : MLZ_COL_NAME);
  if (s->group != MLZ_GROUP_FILE)
    mlz_table_column(t, s->group >= MLZ_GROUP_THREAD ? "" : "where",
                     s->group == MLZ_GROUP_PROCESS || s->group == MLZ_GROUP_DOMAIN ? MLZ_COL_NOTE : MLZ_COL_PATH);
  return t;
}

static void add_numbers(struct mlz_table *t, const struct settings *s, bool estimated, const struct mlz_site *site, double total,
                        unsigned width) {
  char text[MLZ_UNITS_MAX];
  double value = mlz_metric_of(&site->tally, site->peak_bytes, (enum mlz_metric)s->by);
  bool counted = s->by == MLZ_BY_ALLOC_COUNT || s->by == MLZ_BY_TEMPORARY;
  mlz_table_cell(t, counted ? mlz_units_count(text, value) : mlz_units_size(text, value));
  if (estimated) {
    double error = mlz_metric_error(&site->spread, &site->peak_spread, (enum mlz_metric)s->by);
    mlz_table_cell(t, counted ? mlz_units_count(text, error) : mlz_units_size(text, error));
  }
  mlz_table_cell(t, mlz_units_percent(text, value, total));
  switch ((enum mlz_metric)s->by) {
  case MLZ_BY_ALLOC_BYTES:
  case MLZ_BY_TEMPORARY:
    mlz_table_cell(t, mlz_units_count(text, site->tally.alloc_count));
    break;
  case MLZ_BY_ALLOC_COUNT:
    mlz_table_cell(t, mlz_units_size(text, site->tally.alloc_bytes));
    break;
  case MLZ_BY_LIVE_BYTES:
    mlz_table_cell(t, mlz_units_count(text, site->tally.alloc_count - site->tally.free_count));
    break;
  case MLZ_BY_PEAK_BYTES:
    mlz_table_cell(t, mlz_units_count(text, site->peak_count));
    break;
  }
  if (has_live(s, width)) mlz_table_cell(t, mlz_units_size(text, mlz_tally_live_bytes(&site->tally)));
}

/* With --group stack the callers stand below their site, innermost first. */
static void add_callers(struct mlz_input *in, struct mlz_table *t, const struct settings *s, uint32_t stack, unsigned width) {
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
  unsigned numbers = 3u + has_live(s, width) + in->estimated;
  for (uint32_t i = 1; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(in, frames[i]);
    char *where = mlz_place_text(&p), *shown = mlz_place_name(&p), *name = mlz_text_format("  %s", shown);
    free(shown);
    for (unsigned k = 0; k < numbers; k++) mlz_table_cell(t, "");
    mlz_table_cell(t, name);
    mlz_table_cell(t, where);
    mlz_table_style(t, MLZ_STYLE_DIM);
    free(name);
    free(where);
  }
}

/* Live when? */
static void print_instant(const struct mlz_input *in, const struct settings *s, const struct results *r, FILE *out) {
  char a[MLZ_UNITS_MAX];
  const char *at = s->at ? s->at : s->to ? s->to : in->mark;
  if (s->by == MLZ_BY_LIVE_BYTES) {
    char *clean = mlz_text_clean(at ? at : "the end", true);
    fprintf(out, " at %s", clean);
    free(clean);
  }
  if (s->by == MLZ_BY_PEAK_BYTES) fprintf(out, ", at %s", mlz_units_time(a, (double)r->peak.time_ns));
}

static void print_text(struct mlz_input *in, const struct settings *s, const struct results *r, FILE *out) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  double count, bytes;
  total_of(s, r, &count, &bytes);
  unsigned width = mlz_term_width(out);
  bool color = mlz_term_color(out, (enum mlz_color)s->common.color), counted = s->by == MLZ_BY_ALLOC_COUNT || s->by == MLZ_BY_TEMPORARY;
  static const char *const verbs[] = {"allocated", "allocated", "live", "live at the peak", "temporary"};
  double share_of = counted ? count : bytes;
  fprintf(out, "%s in %s blocks %s", mlz_units_size(a, bytes), mlz_units_count(b, count), verbs[s->by]);
  if (in->estimated) {
    total_error_of(s, r, &count, &bytes);
    fprintf(out, " (estimated from a sample: +- %s, +- %s blocks)", mlz_units_size(a, bytes), mlz_units_count(b, count));
  }
  fputs(s->from || s->to ? " in the window" : "", out);
  print_instant(in, s, r, out);
  fputs("\n\n", out);
  struct mlz_table *t = make_table(s, in->estimated, width);
  uint64_t limit = s->n == UINT64_MAX ? 20 : s->n ? s->n : UINT64_MAX;
  size_t shown = 0, with_value = 0;
  for (size_t i = 0; i < r->sites.n; i++) {
    const struct mlz_site *site = &r->sites.sites[i];
    if (!(mlz_metric_of(&site->tally, site->peak_bytes, (enum mlz_metric)s->by) > 0)) break;
    with_value++;
    if (shown >= limit) continue;
    shown++;
    char *name, *where;
    add_numbers(t, s, in->estimated, site, share_of, width);
    mlz_site_label(in, (enum mlz_group)s->group, site, &name, &where);
    mlz_table_cell(t, name);
    if (s->group != MLZ_GROUP_FILE) mlz_table_cell(t, where);
    free(name);
    free(where);
    if (s->group == MLZ_GROUP_STACK) add_callers(in, t, s, site->row, width);
  }
  if (shown) mlz_table_print(t, out, width, color);
  if (shown < with_value) fprintf(out, "\n%zu more (-n 0 shows all)\n", with_value - shown);
  bool stacks = !shown || s->group > MLZ_GROUP_STACK;
  for (size_t i = 0; i < with_value && !stacks; i++) stacks = mlz_report_has_stack(in, r->sites.sites[i].row);
  if (!stacks) mlz_report_no_stacks(in, out);
  if (!shown) fputs(s->filter ? "No site matches the filter.\n" : "Nothing to show.\n", out);
  mlz_table_free(t);
}

int main(int argc, char **argv) {
  struct settings s = {.common.look_up = mlz_names_look_up, .n = UINT64_MAX};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  struct results r = {0};
  compute(in, &s, &r);
  filter(in, &s, &r.sites);
  int status = mlz_input_finish(in);
  if (!status) {
    FILE *out = mlz_report_open(in, &s.common);
    if (s.common.json)
      print_json(in, &s, &r, out);
    else
      print_text(in, &s, &r, out);
    mlz_report_close(in, &s.common, out);
  }
  clear(&r);
  mlz_input_close(in);
  return status;
}
