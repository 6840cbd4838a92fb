/* memlyze-gc: what garbage collections cost, and who triggers them. */
#include "analyzer/collections.h"
#include "analyzer/report.h"
#include "analyzer/table.h"
#include "analyzer/text.h"
#include "analyzer/totals.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <stdlib.h>

struct settings {
  struct mlz_common_options common;
  uint64_t n;
  const char *from, *to;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"number", 'n', MLZ_OPT_COUNT, "N", "show N triggers (default 10; 0: all; with --json: all)", AT(n)},
    {"from", 0, MLZ_OPT_TEXT, "TIME", "only collections after TIME", AT(from)},
    {"to", 0, MLZ_OPT_TEXT, "TIME", "only collections until TIME", AT(to)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "gc",
    .purpose = "Garbage collections: pauses by generation, what triggers them, when they happen.",
    .options = options,
    .has_json = true,
    .notes = "A pause is the time from the start to the stop of one collection. Quantiles are\n"
             "exact up to 100,000 pauses of a generation and within 1 % beyond. A trigger is\n"
             "the stack whose allocation started the collection.\n" MLZ_TIME_NOTE,
};

/* The JSON document lists so many pauses; "pauses_total" says how many there were. */
enum { PAUSES_KEPT = 1000000 };

static json_t *pause_ns_json(struct mlz_quantiles *q) {
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)q->total, "min", (json_int_t)q->min, "p50",
                   (json_int_t)mlz_quantiles_at(q, 0.5), "p90", (json_int_t)mlz_quantiles_at(q, 0.9), "p99",
                   (json_int_t)mlz_quantiles_at(q, 0.99), "max", (json_int_t)q->max);
}

/* Many pauses share few stacks: each becomes JSON once. */
static json_t *shared_stack(struct mlz_input *in, json_t **stacks, uint32_t stack) {
  if (stack >= mlz_trace_stacks(in->trace)) return json_array();
  if (!stacks[stack]) stacks[stack] = mlz_json_stack(in, stack);
  return json_incref(stacks[stack]);
}

static void print_json(struct mlz_input *in, const struct settings *s, struct mlz_collections *c, FILE *out) {
  json_t **stacks = mlz_text_calloc(mlz_trace_stacks(in->trace), sizeof(json_t *));
  json_t *document = mlz_json_document(in), *generations = json_array(), *pauses = json_array(), *triggers = json_array();
  for (unsigned g = 0; g < MLZ_GC_GENERATIONS; g++) {
    struct mlz_gc_generation *row = &c->generations[g];
    if (!row->pauses.count) continue;
    json_array_append_new(generations, json_pack("{s:i, s:I, s:I, s:I, s:o}", "generation", (int)g, "count", (json_int_t)row->pauses.count,
                                                 "collected", (json_int_t)row->collected, "uncollectable", (json_int_t)row->uncollectable,
                                                 "pause_ns", pause_ns_json(&row->pauses)));
  }
  for (size_t i = 0; i < c->n_pauses; i++) {
    const struct mlz_pause *p = &c->pauses[i];
    json_array_append_new(pauses, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "start_ns", (json_int_t)p->start_ns, "duration_ns",
                                            (json_int_t)p->duration_ns, "generation", (json_int_t)p->generation, "collected",
                                            (json_int_t)p->collected, "uncollectable", (json_int_t)p->uncollectable, "pid",
                                            (json_int_t)in->processes[p->process]->pid, "stack", shared_stack(in, stacks, p->stack)));
  }
  for (size_t i = 0; i < c->n_triggers && (s->n == UINT64_MAX || !s->n || i < s->n); i++) {
    json_t *row = json_object();
    mlz_json_add_site(in, row, c->triggers[i].stack);
    json_object_set_new(row, "count", json_integer((json_int_t)c->triggers[i].count));
    json_object_set_new(row, "pause_ns", json_integer((json_int_t)c->triggers[i].pause_ns));
    json_object_set_new(row, "collected", json_integer((json_int_t)c->triggers[i].collected));
    json_object_set_new(row, "stack", shared_stack(in, stacks, c->triggers[i].stack));
    json_array_append_new(triggers, row);
  }
  json_object_set_new(document, "duration_ns", json_integer((json_int_t)c->duration_ns));
  json_object_set_new(document, "generations", generations);
  json_object_set_new(document, "pauses_total", json_integer((json_int_t)c->all.pauses.count));
  json_object_set_new(document, "pauses", pauses);
  json_object_set_new(document, "triggers", triggers);
  mlz_json_add_losses(in, document);
  mlz_json_print(document, out);
  for (uint32_t i = 0; i < mlz_trace_stacks(in->trace); i++) json_decref(stacks[i]);
  free(stacks);
}

/* ---- text ---- */

/* `narrow`: without the columns that fewest look for. */
static void add_generation(struct mlz_table *t, const char *name, struct mlz_gc_generation *g, bool narrow) {
  char a[MLZ_UNITS_MAX];
  struct mlz_quantiles *q = &g->pauses;
  mlz_table_cell(t, name);
  mlz_table_cell(t, mlz_units_count(a, (double)q->count));
  mlz_table_cell(t, mlz_units_time(a, (double)q->total));
  mlz_table_cell(t, mlz_units_time(a, (double)mlz_quantiles_at(q, 0.5)));
  if (!narrow) mlz_table_cell(t, mlz_units_time(a, (double)mlz_quantiles_at(q, 0.9)));
  mlz_table_cell(t, mlz_units_time(a, (double)mlz_quantiles_at(q, 0.99)));
  mlz_table_cell(t, mlz_units_time(a, (double)q->max));
  mlz_table_cell(t, mlz_units_count(a, (double)g->collected));
  if (!narrow) mlz_table_cell(t, mlz_units_count(a, (double)g->uncollectable));
}

static void print_generations(struct mlz_collections *c, FILE *out, unsigned width, bool color) {
  static const char *const titles[] = {"gen", "count", "total", "p50", "p90", "p99", "max", "collected", "uncoll."};
  struct mlz_table *t = mlz_table_new();
  bool narrow = width < 78;
  for (unsigned i = 0; i < sizeof titles / sizeof *titles; i++)
    if (!narrow || (i != 4 && i != 8)) mlz_table_column(t, titles[i], i ? MLZ_COL_NUMBER : MLZ_COL_WORD);
  unsigned shown = 0;
  for (unsigned g = 0; g < MLZ_GC_GENERATIONS; g++) {
    char name[16];
    if (!c->generations[g].pauses.count) continue;
    snprintf(name, sizeof name, "%u", g);
    add_generation(t, name, &c->generations[g], narrow);
    shown++;
  }
  if (shown > 1) add_generation(t, "all", &c->all, narrow);
  mlz_table_print(t, out, width, color);
  mlz_table_free(t);
}

static void add_place(struct mlz_input *in, struct mlz_table *t, uint32_t stack) {
  struct mlz_place p = mlz_place_of_stack(in, stack);
  char *where = mlz_place_text(&p);
  mlz_table_cell(t, p.function);
  mlz_table_cell(t, where);
  free(where);
}

static void print_triggers(struct mlz_input *in, const struct settings *s, const struct mlz_collections *c, FILE *out, unsigned width,
                           bool color) {
  char a[MLZ_UNITS_MAX];
  struct mlz_table *t = mlz_table_new();
  uint64_t limit = s->n == UINT64_MAX ? 10 : s->n ? s->n : UINT64_MAX;
  mlz_table_column(t, "pause", MLZ_COL_NUMBER);
  mlz_table_column(t, "share", MLZ_COL_NUMBER);
  mlz_table_column(t, "count", MLZ_COL_NUMBER);
  mlz_table_column(t, "collected", MLZ_COL_NUMBER);
  mlz_table_column(t, "triggered by", MLZ_COL_NAME);
  mlz_table_column(t, "where", MLZ_COL_PATH);
  size_t i = 0;
  for (; i < c->n_triggers && i < limit; i++) {
    const struct mlz_gc_trigger *row = &c->triggers[i];
    mlz_table_cell(t, mlz_units_time(a, (double)row->pause_ns));
    mlz_table_cell(t, mlz_units_percent(a, (double)row->pause_ns, (double)c->all.pauses.total));
    mlz_table_cell(t, mlz_units_count(a, (double)row->count));
    mlz_table_cell(t, mlz_units_count(a, (double)row->collected));
    add_place(in, t, row->stack);
  }
  fputc('\n', out);
  mlz_table_print(t, out, width, color);
  if (i < c->n_triggers) fprintf(out, "%zu more (-n 0 shows all)\n", c->n_triggers - i);
  mlz_table_free(t);
}

static void print_longest(struct mlz_input *in, const struct mlz_collections *c, FILE *out, unsigned width, bool color) {
  char a[MLZ_UNITS_MAX];
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "longest", MLZ_COL_NUMBER);
  mlz_table_column(t, "at", MLZ_COL_NUMBER);
  mlz_table_column(t, "gen", MLZ_COL_NUMBER);
  mlz_table_column(t, "collected", MLZ_COL_NUMBER);
  mlz_table_column(t, "triggered by", MLZ_COL_NAME);
  mlz_table_column(t, "where", MLZ_COL_PATH);
  for (unsigned i = 0; i < c->n_longest && i < 5; i++) {
    const struct mlz_pause *p = &c->longest[i];
    mlz_table_cell(t, mlz_units_time(a, (double)p->duration_ns));
    mlz_table_cell(t, mlz_units_time(a, (double)p->start_ns));
    mlz_table_cell(t, mlz_units_count(a, p->generation));
    mlz_table_cell(t, mlz_units_count(a, (double)p->collected));
    add_place(in, t, p->stack);
  }
  fputc('\n', out);
  mlz_table_print(t, out, width, color);
  mlz_table_free(t);
}

/* One character for each sixtieth of the trace, or thirtieth on a narrow terminal; the scale is the worst of them. */
static void print_timeline(const struct mlz_collections *c, FILE *out, unsigned columns) {
  static const char levels[] = " .:-=+*#%@";
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX], d[MLZ_UNITS_MAX];
  uint64_t most = 0, slices[MLZ_GC_SLICES] = {0};
  unsigned each = columns < MLZ_GC_SLICES + 4 ? 2 : 1, n = MLZ_GC_SLICES / each;
  for (unsigned i = 0; i < MLZ_GC_SLICES; i++) slices[i / each] += c->slices[i];
  for (unsigned i = 0; i < n; i++)
    if (slices[i] > most) most = slices[i];
  if (!most) return;
  fputs("\npause time over the trace\n  |", out);
  for (unsigned i = 0; i < n; i++) {
    unsigned level = slices[i] ? 1 + (unsigned)((double)slices[i] / (double)most * 8.999) : 0;
    fputc(levels[level > 9 ? 9 : level], out);
  }
  double width = (double)c->duration_ns / n;
  fprintf(out, "|\n  0%*s\n  worst: %s of %s (%.1f%%)\n", (int)n + 1, mlz_units_time(a, (double)c->duration_ns),
          mlz_units_time(b, (double)most), mlz_units_time(d, width), 100 * (double)most / width);
}

static void print_text(struct mlz_input *in, const struct settings *s, struct mlz_collections *c, FILE *out) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX], d[MLZ_UNITS_MAX];
  bool color = mlz_term_color(out, (enum mlz_color)s->common.color);
  unsigned width = mlz_term_width(out);
  if (!c->all.pauses.count) {
    const json_t *tracked = json_object_get(json_object_get(mlz_trace_meta(in->trace), "settings"), "track_gc");
    if (json_is_false(tracked))
      fputs("Collections were not traced (--no-track-gc).\n", out);
    else if (in->left_out)
      fprintf(out, "No garbage collection took place from %s on.\n", mlz_units_time(a, (double)in->left_out_ns));
    else
      fputs("No garbage collection took place.\n", out);
    return;
  }
  fprintf(out, "%s collections took %s, %s of the trace\n\n", mlz_units_count(a, (double)c->all.pauses.count),
          mlz_units_time(b, (double)c->all.pauses.total), mlz_units_percent(d, (double)c->all.pauses.total, (double)c->duration_ns));
  print_generations(c, out, width, color);
  print_triggers(in, s, c, out, width, color);
  print_longest(in, c, out, width, color);
  print_timeline(c, out, width);
}

int main(int argc, char **argv) {
  struct settings s = {.n = UINT64_MAX};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  if (in->totals_only) mlz_totals_refuse(in, "collections", "record without --snapshots-only to see them");
  struct mlz_window window;
  mlz_window_resolve(in, NULL, s.from, s.to, false, &window);
  struct mlz_collections collections;
  mlz_collections_find(in, window.from, window.to, s.common.json ? PAUSES_KEPT : 0, &collections);
  int status = mlz_input_finish(in);
  if (!status) {
    FILE *out = mlz_report_open(in, &s.common);
    if (s.common.json)
      print_json(in, &s, &collections, out);
    else
      print_text(in, &s, &collections, out);
    mlz_report_close(in, &s.common, out);
  }
  mlz_collections_clear(&collections);
  mlz_window_clear(&window);
  mlz_input_close(in);
  return status;
}
