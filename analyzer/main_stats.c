/* memlyze-stats: what is in this trace. */
#include "analyzer/report.h"
#include "analyzer/resident.h"
#include "analyzer/stats.h"
#include "analyzer/table.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  const char *at;
};

static const struct mlz_option options[] = {
    {"at", 0, MLZ_OPT_TEXT, "TIME", "bytes as they stood at TIME (default: end); nothing later counts", offsetof(struct settings, at)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "stats",
    .purpose = "What is in a trace: events, bytes, peak, threads, sizes, lifetimes, losses.",
    .options = options,
    .has_json = true,
    .notes = "Event counts are raw counts of everything in the file. Bytes, sizes and\n"
             "lifetimes are those of the chosen processes up to their end: the instant at\n"
             "which the interpreter begins to finalise. Several processes: what is live at\n"
             "the end is the sum of each at its own end, the peak is of one instant.\n" MLZ_TIME_NOTE,
};

static const char *const domain_names[] = {"raw", "mem", "obj", "malloc", "mmap"};

/* ---- JSON ---- */

static json_t *threads_json(struct mlz_input *in, const struct mlz_stats *s) {
  json_t *list = json_array();
  size_t n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++) {
    const json_t *row = mlz_trace_thread(in->trace, i);
    uint64_t id = mlz_input_uint(row, "id", UINT64_MAX), process = mlz_input_uint(row, "process", 0);
    int64_t pid = 0;
    for (size_t p = 0; p < in->n_processes; p++)
      if (in->processes[p]->id == process) pid = in->processes[p]->pid;
    json_array_append_new(list, json_pack("{s:I, s:o, s:I, s:I, s:I, s:I}", "tid", (json_int_t)mlz_input_uint(row, "tid", 0), "name",
                                          mlz_json_text(mlz_input_text(row, "name")), "process", (json_int_t)pid, "events",
                                          (json_int_t)(id < s->n_threads ? s->thread_events[id] : 0), "dropped",
                                          (json_int_t)mlz_input_thread_dropped(row), "blocked_ns",
                                          (json_int_t)mlz_input_uint(row, "blocked_ns", 0)));
  }
  return list;
}

static json_t *processes_json(struct mlz_input *in, const struct mlz_stats *s) {
  json_t *list = json_array();
  for (size_t i = 0; i < in->n_processes; i++) {
    const struct mlz_process *p = in->processes[i];
    json_t *row = json_pack("{s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:b}", "pid", (json_int_t)p->pid, "parent", (json_int_t)p->parent,
                            "command", mlz_json_text(p->command), "python_version", *p->python ? mlz_json_text(p->python) : json_null(),
                            "start_ns", (json_int_t)p->start_ns, "end_ns", (json_int_t)p->end_ns, "events",
                            (json_int_t)(i < s->n_processes ? s->process_events[i] : 0), "chosen", p->chosen);
    json_array_append_new(list, row);
  }
  return list;
}

static void set_error(json_t *object, const char *key, double error) { json_object_set_new(object, key, mlz_json_number(error)); }

/* `spread`: NULL where nothing is estimated. */
static json_t *tally_json(const struct mlz_tally *t, const struct mlz_spread *spread) {
  json_t *row = json_pack("{s:o, s:o, s:o, s:o}", "alloc_count", mlz_json_number(t->alloc_count), "alloc_bytes",
                          mlz_json_number(t->alloc_bytes), "live_count", mlz_json_number(t->alloc_count - t->free_count), "live_bytes",
                          mlz_json_number(t->alloc_bytes - t->free_bytes));
  if (!spread) return row;
  set_error(row, "alloc_count_error", mlz_spread_alloc_count_error(spread));
  set_error(row, "alloc_bytes_error", mlz_spread_alloc_bytes_error(spread));
  set_error(row, "live_count_error", mlz_spread_live_count_error(spread));
  set_error(row, "live_bytes_error", mlz_spread_live_bytes_error(spread));
  return row;
}

static json_t *sizes_json(const struct mlz_input *in, const struct mlz_stats *s) {
  json_t *list = json_array();
  for (unsigned i = 0; i < MLZ_SIZE_CLASSES; i++) {
    if (!(s->sizes[i].alloc_count > 0)) continue;
    json_t *row = tally_json(&s->sizes[i], in->estimated ? &s->size_spreads[i] : NULL);
    if (in->left_out) json_object_set_new(row, "live_count", json_null()), json_object_set_new(row, "live_bytes", json_null());
    json_object_set_new(row, "up_to", json_integer((json_int_t)(UINT64_C(1) << i)));
    json_array_append_new(list, row);
  }
  return list;
}

/* Nothing below the precision of the clock is told apart. */
static unsigned first_lifetime(const struct mlz_input *in) {
  unsigned i = 0;
  while (i + 2 < MLZ_LIFETIMES && mlz_lifetime_bound(i) < in->gap_ns) i++;
  return i;
}

static double lifetime_count(const struct mlz_input *in, const struct mlz_stats *s, unsigned i) {
  double count = s->lifetimes[i];
  if (i == first_lifetime(in))
    for (unsigned k = 0; k < i; k++) count += s->lifetimes[k];
  return count;
}

static json_t *lifetimes_json(const struct mlz_input *in, const struct mlz_stats *s) {
  json_t *list = json_array();
  for (unsigned i = first_lifetime(in); i < MLZ_LIFETIMES; i++) {
    bool last = i + 1 == MLZ_LIFETIMES;
    json_array_append_new(list, json_pack("{s:o, s:o}", "below_ns", last ? json_null() : json_integer((json_int_t)mlz_lifetime_bound(i)),
                                          "count", mlz_json_number(lifetime_count(in, s, i))));
  }
  return list;
}

/* The snapshots of a trace that has totals only. */
static json_t *points_json(const struct mlz_stats *s) {
  json_t *list = json_array();
  for (size_t i = 0; i < s->n_points; i++) {
    json_t *row = tally_json(&s->points[i].total, NULL);
    json_object_set_new(row, "name", mlz_json_text(s->points[i].name));
    json_object_set_new(row, "time_ns", json_integer((json_int_t)s->points[i].ns));
    json_array_append_new(list, row);
  }
  return list;
}

/* A pass of its own, where there are any. Of a trace of totals its points are the instants. */
static bool read_marks(struct mlz_input *in, const struct mlz_stats *s, struct mlz_marks *marks) {
  if (in->totals_only || !(s->marks + s->snapshots)) return false;
  mlz_marks_read(in, marks);
  return true;
}

static json_t *marks_json(struct mlz_input *in, const struct mlz_stats *s) {
  json_t *list = json_array();
  struct mlz_marks marks;
  if (!read_marks(in, s, &marks)) return list;
  for (size_t i = 0; i < marks.n; i++)
    json_array_append_new(list, json_pack("{s:o, s:s, s:I, s:I}", "name", mlz_json_text(marks.marks[i].name), "kind",
                                          marks.marks[i].snapshot ? "snapshot" : "mark", "time_ns", (json_int_t)marks.marks[i].ns, "pid",
                                          (json_int_t)in->processes[marks.marks[i].process]->pid));
  mlz_marks_clear(&marks);
  return list;
}

static void set_copy(json_t *document, const char *key, const json_t *from, const char *from_key) {
  json_t *value = json_object_get(from, from_key);
  json_object_set_new(document, key, value ? json_deep_copy(value) : json_null());
}

static json_t *events_json(const struct mlz_input *in, const struct mlz_stats *s) {
  uint64_t dropped = 0;
  size_t n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++) dropped += mlz_input_thread_dropped(mlz_trace_thread(in->trace, i));
  uint64_t told = mlz_input_uint(mlz_trace_summary(in->trace), "events_dropped", 0);
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "written", (json_int_t)(s->allocs + s->frees + s->gc + s->marks + s->snapshots),
                   "dropped", (json_int_t)(told > dropped ? told : dropped), "allocs", (json_int_t)s->allocs, "frees", (json_int_t)s->frees,
                   "gc", (json_int_t)s->gc, "marks", (json_int_t)s->marks, "snapshots", (json_int_t)s->snapshots);
}

static void add_errors(const struct mlz_stats *s, json_t *bytes, json_t *blocks) {
  set_error(bytes, "allocated_error", mlz_spread_alloc_bytes_error(&s->spread));
  set_error(bytes, "freed_error", mlz_spread_free_bytes_error(&s->spread));
  set_error(bytes, "live_at_end_error", mlz_spread_live_bytes_error(&s->spread));
  set_error(bytes, "peak_error", mlz_spread_live_bytes_error(&s->peak_spread));
  set_error(blocks, "allocated_error", mlz_spread_alloc_count_error(&s->spread));
  set_error(blocks, "freed_error", mlz_spread_free_count_error(&s->spread));
  set_error(blocks, "live_at_end_error", mlz_spread_live_count_error(&s->spread));
  set_error(blocks, "temporary_error", mlz_spread_temp_count_error(&s->spread));
}

static void print_json(struct mlz_input *in, const struct mlz_stats *s, FILE *out) {
  const json_t *meta = mlz_trace_meta(in->trace), *summary = mlz_trace_summary(in->trace), *settings = json_object_get(meta, "settings");
  json_t *document = mlz_json_document(in), *domains = json_object();
  char *command = mlz_input_command(meta);
  json_object_set_new(document, "command", mlz_json_text(command));
  free(command);
  set_copy(document, "pid", meta, "pid");
  if (!json_is_integer(json_object_get(document, "pid")) && in->n_processes)
    json_object_set_new(document, "pid", json_integer(in->processes[0]->pid));
  json_object_set_new(document, "duration_ns", json_integer((json_int_t)mlz_input_duration(in)));
  json_object_set_new(document, "complete", json_boolean(mlz_trace_complete(in->trace)));
  json_object_set_new(document, "sample_rate", json_real(in->sample_rate));
  json_object_set_new(document, "rate_changes", in->rate_changes ? json_deep_copy(in->rate_changes) : json_array());
  set_copy(document, "max_stack_depth", settings, "max_stack_depth");
  const char *python = "";
  for (size_t i = 0; i < in->n_processes && !*python; i++)
    if (in->processes[i]->chosen) python = in->processes[i]->python;
  json_object_set_new(document, "python_version", *python ? mlz_json_text(python) : json_null());
  set_copy(document, "settings", meta, "settings");
  set_copy(document, "version", meta, "version");
  json_object_set_new(document, "events", events_json(in, s));
  if (in->left_out)
    json_object_set_new(document, "left_out",
                        json_pack("{s:I, s:I}", "events", (json_int_t)in->left_out_events, "until_ns", (json_int_t)in->left_out_ns));
  json_object_set_new(document, "bytes",
                      json_pack("{s:o, s:o, s:o, s:o, s:I}", "allocated", mlz_json_number(s->total.alloc_bytes), "freed",
                                mlz_json_number(s->total.free_bytes), "live_at_end",
                                mlz_json_number(s->total.alloc_bytes - s->total.free_bytes), "peak",
                                s->peak.unknown ? json_null() : mlz_json_number(mlz_peak_bytes(&s->peak)), "peak_time_ns",
                                (json_int_t)mlz_peak_ns(&s->peak)));
  uint64_t resident, resident_ns;
  json_object_set_new(document, "resident",
                      mlz_resident_peak(in, &resident, &resident_ns)
                          ? json_pack("{s:I, s:I}", "peak", (json_int_t)resident, "peak_time_ns", (json_int_t)resident_ns)
                          : json_null());
  json_object_set_new(document, "blocks",
                      json_pack("{s:o, s:o, s:o, s:o, s:o}", "allocated", mlz_json_number(s->total.alloc_count), "freed",
                                mlz_json_number(s->total.free_count), "live_at_end",
                                mlz_json_number(s->total.alloc_count - s->total.free_count), "temporary",
                                mlz_json_number(s->total.temp_count), "foreign_frees", mlz_json_number(s->foreign)));
  if (in->estimated) add_errors(s, json_object_get(document, "bytes"), json_object_get(document, "blocks"));
  json_object_set_new(document, "threads", threads_json(in, s));
  json_object_set_new(document, "processes", processes_json(in, s));
  for (unsigned d = 0; d < MLZ_BLOCK_DOMAINS; d++)
    json_object_set_new(domains, domain_names[d], tally_json(&s->domains[d], in->estimated ? &s->domain_spreads[d] : NULL));
  json_object_set_new(document, "domains", domains);
  json_object_set_new(document, "sizes", in->totals_only ? json_null() : sizes_json(in, s));
  json_object_set_new(document, "lifetimes", in->totals_only ? json_null() : lifetimes_json(in, s));
  if (in->totals_only) json_object_set_new(document, "points", points_json(s));
  json_object_set_new(document, "marks", marks_json(in, s));
  json_object_set_new(document, "largest_time_gap_ns", json_integer((json_int_t)in->gap_ns));
  set_copy(document, "counters", summary, "counters");
  if (!in->events_read) set_copy(document, "untraced_cause", summary, "untraced_cause");
  if (json_object_get(summary, "own_allocators")) set_copy(document, "own_allocators", summary, "own_allocators");
  mlz_json_add_losses(in, document);
  mlz_json_print(document, out);
}

/* ---- text ---- */

static void line(FILE *out, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void line(FILE *out, const char *name, const char *format, ...) {
  enum { INDENT = 16 };
  char *text = NULL;
  va_list args;
  va_start(args, format);
  if (vasprintf(&text, format, args) < 0) text = NULL;
  va_end(args);
  fprintf(out, "  %-14s", name);
  mlz_report_wrap(out, mlz_term_width(out), INDENT, INDENT, text ? text : "");
  free(text);
}

/* "0.1, from 1.2 s on 0.01, from 5.31 s on 1" */
static void print_rate(const struct mlz_input *in, FILE *out) {
  enum { SHOWN_MAX = 8 };
  char a[MLZ_UNITS_MAX];
  char *text = mlz_text_format("%g", in->sample_rate);
  const json_t *change;
  size_t i;
  json_array_foreach(in->rate_changes, i, change) {
    bool paused = json_is_true(json_object_get(change, "paused")), more = i == SHOWN_MAX;
    char *longer = more ? mlz_text_format("%s, ... (--json lists all)", text)
                   : paused
                       ? mlz_text_format("%s, from %s on paused", text, mlz_units_time(a, (double)mlz_input_uint(change, "time_ns", 0)))
                       : mlz_text_format("%s, from %s on %g", text, mlz_units_time(a, (double)mlz_input_uint(change, "time_ns", 0)),
                                         json_number_value(json_object_get(change, "sample_rate")));
    free(text);
    text = longer;
    if (more) break;
  }
  line(out, "sample rate", "%s%s", text, in->estimated ? ": bytes and blocks are estimates of the whole" : "");
  free(text);
}

/* "include json.*, app; exclude app.log: 1,234 allocations were filtered out" */
static void print_filter(const struct mlz_input *in, FILE *out) {
  static const char *const keys[] = {"include", "exclude"};
  char a[MLZ_UNITS_MAX], *text = mlz_text_format("%s", "");
  const json_t *settings = json_object_get(mlz_trace_meta(in->trace), "settings"), *pattern;
  for (size_t k = 0, i; k < 2; k++) {
    json_array_foreach(json_object_get(settings, keys[k]), i, pattern) {
      char *clean = mlz_text_clean(json_is_string(pattern) ? json_string_value(pattern) : "?", true);
      char *longer = mlz_text_format("%s%s%s%s", text, i ? ", " : *text ? "; " : "", i ? "" : k ? "exclude " : "include ", clean);
      free(clean);
      free(text);
      text = longer;
    }
  }
  uint64_t n = mlz_input_uint(json_object_get(mlz_trace_summary(in->trace), "counters"), "allocations_filtered", 0);
  if (*text) line(out, "filter", "%s: %s allocations were filtered out", text, mlz_units_count(a, (double)n));
  free(text);
}

/* "start at 1.2 s, warm at 3.4 s": what --at and the @ of a trace take. */
static void print_marks(struct mlz_input *in, const struct mlz_stats *s, FILE *out) {
  enum { SHOWN_MAX = 12 };
  char a[MLZ_UNITS_MAX], *text = mlz_text_format("%s", "");
  struct mlz_marks marks;
  if (read_marks(in, s, &marks)) {
    for (size_t i = 0; i < marks.n && i < SHOWN_MAX; i++) {
      char *clean = mlz_text_clean(marks.marks[i].name, true);
      char *longer = mlz_text_format("%s%s%s at %s", text, i ? ", " : "", clean, mlz_units_time(a, (double)marks.marks[i].ns));
      free(clean);
      free(text);
      text = longer;
    }
    if (*text && marks.n > SHOWN_MAX)
      line(out, "marks", "%s, %zu more (--json lists all)", text, marks.n - SHOWN_MAX);
    else if (*text)
      line(out, "marks", "%s", text);
    mlz_marks_clear(&marks);
  }
  free(text);
}

/* For who asks for help: what the overhead depends on. "rate 1, 10 frames, rings of 16384 records, gc, python, malloc, follow; when a ring is full:
 * block" */
static void print_settings(const struct mlz_input *in, FILE *out) {
  static const char *const switches[][2] = {{"track_gc", "gc"},   {"python", "python"}, {"malloc", "malloc"},
                                            {"native", "native"}, {"follow", "follow"}, {"snapshots_only", "snapshots only"}};
  const json_t *meta = mlz_trace_meta(in->trace), *settings = json_object_get(meta, "settings");
  if (!json_is_object(settings)) return;
  char a[MLZ_UNITS_MAX],
      *text = mlz_text_format("rate %g, %" PRIu64 " frames, rings of %" PRIu64 " records", in->sample_rate,
                              mlz_input_uint(settings, "max_stack_depth", 0), mlz_input_uint(settings, "ring_records", 0));
  uint64_t over = mlz_input_uint(settings, "sample_over", 0), blocked = 0;
  for (unsigned i = 0; i < sizeof switches / sizeof switches[0]; i++) {
    bool on = json_is_true(json_object_get(settings, switches[i][0]));
    if (!on) continue;
    char *longer = mlz_text_format("%s, %s", text, switches[i][1]);
    free(text);
    text = longer;
  }
  uint64_t every = mlz_input_uint(settings, "snapshot_every_ns", 0);
  if (every) {
    char *longer = mlz_text_format("%s, a snapshot every %s", text, mlz_units_time(a, (double)every));
    free(text);
    text = longer;
  }
  char *full = mlz_text_clean(mlz_input_text(settings, "on_full"), true), *version = mlz_text_clean(mlz_input_text(meta, "version"), true);
  line(out, "settings", "%s%s%s; when a ring is full: %s", text, over ? ", all over " : "", over ? mlz_units_size(a, (double)over) : "",
       full);
  uint64_t cpu = mlz_input_uint(mlz_trace_summary(in->trace), "recorder_cpu_ns", 0);
  line(out, "recorded by", "memlyze %s%s%s%s", version, cpu ? ", with " : "", cpu ? mlz_units_time(a, (double)cpu) : "",
       cpu ? " of CPU" : "");
  free(version);
  free(full);
  free(text);
  size_t n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++) blocked += mlz_input_uint(mlz_trace_thread(in->trace, i), "blocked_ns", 0);
  line(out, "threads", "%zu, which waited %s for room in their rings", n, mlz_units_time(a, (double)blocked));
}

/* " (+- 1.2 MiB)"; "" where nothing is estimated. */
static const char *error_text(char out[MLZ_UNITS_MAX + 8], bool estimated, bool bytes, double error) {
  char a[MLZ_UNITS_MAX];
  out[0] = 0;
  if (estimated) snprintf(out, MLZ_UNITS_MAX + 8, " (+- %s)", bytes ? mlz_units_size(a, error) : mlz_units_count(a, error));
  return out;
}

/* `at`: the figures are those of another instant than the end. */
static void print_head(struct mlz_input *in, const struct mlz_stats *s, bool at, FILE *out, bool color) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX], c[MLZ_UNITS_MAX + 8], d[MLZ_UNITS_MAX + 8];
  bool guess = in->estimated;
  const json_t *meta = mlz_trace_meta(in->trace);
  char *command = mlz_input_command(meta);
  const char *python = "";
  for (size_t i = 0; i < in->n_processes && !*python; i++)
    if (in->processes[i]->chosen) python = in->processes[i]->python;
  char *short_command = mlz_text_shorten(command, mlz_term_width(out), MLZ_SHORTEN_MIDDLE);
  fprintf(out, "%s%s%s\n", color ? mlz_term_style(MLZ_STYLE_BOLD) : "", *command ? short_command : in->path,
          color ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  free(command);
  free(short_command);
  if (*python) {
    char *clean = mlz_text_clean(python, true);
    line(out, "python", "%s", clean);
    free(clean);
  }
  line(out, "duration", "%s%s", mlz_units_time(a, (double)mlz_input_duration(in)), mlz_trace_complete(in->trace) ? "" : " (incomplete)");
  print_settings(in, out);
  if (in->estimated || in->rate_changes) print_rate(in, out);
  print_filter(in, out);
  print_marks(in, s, out);
  fputc('\n', out);
  line(out, "allocated", "%s%s in %s%s blocks", mlz_units_size(a, s->total.alloc_bytes),
       error_text(c, guess, true, mlz_spread_alloc_bytes_error(&s->spread)), mlz_units_count(b, s->total.alloc_count),
       error_text(d, guess, false, mlz_spread_alloc_count_error(&s->spread)));
  line(out, "freed", "%s%s in %s%s blocks", mlz_units_size(a, s->total.free_bytes),
       error_text(c, guess, true, mlz_spread_free_bytes_error(&s->spread)), mlz_units_count(b, s->total.free_count),
       error_text(d, guess, false, mlz_spread_free_count_error(&s->spread)));
  char of[64] = "";
  bool summed = in->n_chosen > 1;
  if (summed && !at) snprintf(of, sizeof of, ": %zu processes, each at its own end", in->n_chosen);
  line(out, at ? "live then" : "live at end", "%s%s in %s%s blocks%s", mlz_units_size(a, s->total.alloc_bytes - s->total.free_bytes),
       error_text(c, guess, true, mlz_spread_live_bytes_error(&s->spread)), mlz_units_count(b, s->total.alloc_count - s->total.free_count),
       error_text(d, guess, false, mlz_spread_live_count_error(&s->spread)), of);
  if (s->peak.unknown)
    line(out, "peak", "not known: of several processes out of more, or with mmap, a trace of totals does not tell it");
  else
    line(out, "peak", "%s%s at %s%s", mlz_units_size(a, mlz_peak_bytes(&s->peak)),
         error_text(c, guess, true, mlz_spread_live_bytes_error(&s->peak_spread)), mlz_units_time(b, (double)mlz_peak_ns(&s->peak)),
         summed ? ": all processes together" : "");
  uint64_t resident, resident_ns;
  if (!at && mlz_resident_peak(in, &resident, &resident_ns))
    line(out, "resident", "up to %s at %s%s: what the system counts, looked at some ten times a second",
         mlz_units_size(a, (double)resident), mlz_units_time(b, (double)resident_ns), in->left_out ? ", of the part that was kept" : "");
  line(out, "temporary", "%s%s blocks, freed before their thread's next allocation", mlz_units_count(a, s->total.temp_count),
       error_text(c, guess, false, mlz_spread_temp_count_error(&s->spread)));
  if (s->foreign > 0) line(out, "inherited", "%s frees of blocks from before a fork", mlz_units_count(a, s->foreign));
  uint64_t dropped = mlz_input_dropped(in);
  line(out, "events", "%s in the file, %s lost", mlz_units_count(a, (double)(s->allocs + s->frees + s->gc + s->marks + s->snapshots)),
       mlz_units_count(b, (double)dropped));
  if (in->left_out)
    line(out, "left out", "%s events, until %s: sizes, lifetimes and collections are of those since",
         mlz_units_count(a, (double)in->left_out_events), mlz_units_time(b, (double)in->left_out_ns));
}

static const char *bar(char *out, unsigned width, double part, double whole) {
  enum { LENGTH = 24, SHORT = 14, ROOM = 72 };
  int n = whole > 0 ? (int)(part / whole * (width < ROOM ? SHORT : LENGTH) + 0.5) : 0;
  if (!n && part > 0) n = 1;
  memset(out, '#', (size_t)n);
  out[n] = 0;
  return out;
}

/* Without what lives where the beginning was left out: the frees of its blocks are seen, the blocks are not. */
static void print_sizes(const struct mlz_input *in, const struct mlz_stats *s, FILE *out, unsigned width, bool color) {
  char a[MLZ_UNITS_MAX], b[64];
  double most = 0;
  for (unsigned i = 0; i < MLZ_SIZE_CLASSES; i++)
    if (s->sizes[i].alloc_count > most) most = s->sizes[i].alloc_count;
  if (!(most > 0)) return;
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "size up to", MLZ_COL_NUMBER);
  mlz_table_column(t, "blocks", MLZ_COL_NUMBER);
  mlz_table_column(t, "allocated", MLZ_COL_NUMBER);
  if (!in->left_out) mlz_table_column(t, "live", MLZ_COL_NUMBER);
  mlz_table_column(t, "", MLZ_COL_WORD);
  for (unsigned i = 0; i < MLZ_SIZE_CLASSES; i++) {
    const struct mlz_tally *row = &s->sizes[i];
    if (!(row->alloc_count > 0)) continue;
    mlz_units_size(a, (double)(UINT64_C(1) << i));
    mlz_table_cell(t, mlz_units_round(a));
    mlz_table_cell(t, mlz_units_count(a, row->alloc_count));
    mlz_table_cell(t, mlz_units_size(a, row->alloc_bytes));
    if (!in->left_out) mlz_table_cell(t, mlz_units_size(a, row->alloc_bytes - row->free_bytes));
    mlz_table_cell(t, bar(b, width, row->alloc_count, most));
  }
  fputc('\n', out);
  mlz_table_print(t, out, width, color);
  mlz_table_free(t);
}

static void print_lifetimes(const struct mlz_input *in, const struct mlz_stats *s, FILE *out, unsigned width, bool color) {
  char a[MLZ_UNITS_MAX], b[64];
  double total = 0, most = 0;
  for (unsigned i = first_lifetime(in); i < MLZ_LIFETIMES; i++) {
    double count = lifetime_count(in, s, i);
    total += count;
    if (count > most) most = count;
  }
  if (!(total > 0)) return;
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "freed after", MLZ_COL_WORD);
  mlz_table_column(t, "blocks", MLZ_COL_NUMBER);
  mlz_table_column(t, "share", MLZ_COL_NUMBER);
  mlz_table_column(t, "", MLZ_COL_WORD);
  for (unsigned i = first_lifetime(in); i < MLZ_LIFETIMES; i++) {
    double count = lifetime_count(in, s, i);
    if (!(count > 0)) continue;
    bool last = i + 1 == MLZ_LIFETIMES;
    mlz_units_time(a, (double)mlz_lifetime_bound(last ? i - 1 : i));
    char *label = mlz_text_format("%s %s", last ? ">=" : "<", mlz_units_round(a));
    mlz_table_cell(t, label);
    free(label);
    mlz_table_cell(t, mlz_units_count(a, count));
    mlz_table_cell(t, mlz_units_percent(a, count, total));
    mlz_table_cell(t, bar(b, width, count, most));
  }
  fputc('\n', out);
  mlz_table_print(t, out, width, color);
  mlz_table_free(t);
}

static void print_domains(const struct mlz_stats *s, FILE *out, unsigned width, bool color) {
  char a[MLZ_UNITS_MAX];
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "domain", MLZ_COL_WORD);
  mlz_table_column(t, "blocks", MLZ_COL_NUMBER);
  mlz_table_column(t, "allocated", MLZ_COL_NUMBER);
  mlz_table_column(t, "live", MLZ_COL_NUMBER);
  for (unsigned d = 0; d < MLZ_BLOCK_DOMAINS; d++) {
    const struct mlz_tally *row = &s->domains[d];
    if (!(row->alloc_count > 0)) continue;
    mlz_table_cell(t, d != MLZ_BLOCK_MMAP ? domain_names[d]
                      : width < 66        ? "mmap (not in the totals)"
                                          : "mmap (reserved, not in the totals)");
    mlz_table_cell(t, mlz_units_count(a, row->alloc_count));
    mlz_table_cell(t, mlz_units_size(a, row->alloc_bytes));
    mlz_table_cell(t, mlz_units_size(a, row->alloc_bytes - row->free_bytes));
  }
  if (mlz_table_rows(t)) fputc('\n', out), mlz_table_print(t, out, width, color);
  mlz_table_free(t);
}

static void print_points(const struct mlz_stats *s, FILE *out, unsigned width, bool color) {
  enum { SHOWN_MAX = 20 };
  char a[MLZ_UNITS_MAX];
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "snapshot", MLZ_COL_NAME);
  mlz_table_column(t, "at", MLZ_COL_NUMBER);
  mlz_table_column(t, "live", MLZ_COL_NUMBER);
  mlz_table_column(t, "blocks", MLZ_COL_NUMBER);
  mlz_table_column(t, "allocated", MLZ_COL_NUMBER);
  for (size_t i = s->n_points > SHOWN_MAX ? s->n_points - SHOWN_MAX : 0; i < s->n_points; i++) {
    const struct mlz_tally *total = &s->points[i].total;
    mlz_table_cell(t, s->points[i].name);
    mlz_table_cell(t, mlz_units_time(a, (double)s->points[i].ns));
    mlz_table_cell(t, mlz_units_size(a, total->alloc_bytes - total->free_bytes));
    mlz_table_cell(t, mlz_units_count(a, total->alloc_count - total->free_count));
    mlz_table_cell(t, mlz_units_size(a, total->alloc_bytes));
  }
  if (mlz_table_rows(t)) fputc('\n', out), mlz_table_print(t, out, width, color);
  if (s->n_points > SHOWN_MAX) fprintf(out, "The last %d of %zu snapshots (--json lists all)\n", SHOWN_MAX, s->n_points);
  mlz_table_free(t);
  fputs("\nRecorded with --snapshots-only: totals at snapshots; sizes, life times and collections are not known.\n", out);
}

static void print_collections(const struct mlz_stats *s, FILE *out) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  uint64_t count = 0, ns = 0;
  for (unsigned g = 0; g < MLZ_GENERATIONS; g++) count += s->gc_count[g], ns += s->gc_ns[g];
  if (count)
    fprintf(out, "\n%s garbage collections took %s (memlyze gc)\n", mlz_units_count(a, (double)count), mlz_units_time(b, (double)ns));
}

static void print_threads(struct mlz_input *in, const struct mlz_stats *s, FILE *out, unsigned width, bool color) {
  char a[MLZ_UNITS_MAX];
  size_t n = mlz_trace_threads(in->trace);
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "thread", MLZ_COL_NAME);
  mlz_table_column(t, "tid", MLZ_COL_NUMBER);
  mlz_table_column(t, "events", MLZ_COL_NUMBER);
  mlz_table_column(t, "lost", MLZ_COL_NUMBER);
  mlz_table_column(t, "blocked", MLZ_COL_NUMBER);
  enum { SHOWN_MAX = 20 };
  size_t chosen = 0, left_out = 0;
  for (size_t i = 0; i < n; i++) {
    const json_t *row = mlz_trace_thread(in->trace, i);
    bool is_chosen = mlz_input_process(in, (uint32_t)mlz_input_uint(row, "process", 0))->chosen;
    left_out += !is_chosen;
    chosen += is_chosen;
    if (!is_chosen || chosen > SHOWN_MAX) continue;
    uint64_t id = mlz_input_uint(row, "id", UINT64_MAX);
    mlz_table_cell(t, *mlz_input_text(row, "name") ? mlz_input_text(row, "name") : "(no name)");
    char *tid = mlz_text_format("%" PRIu64, mlz_input_uint(row, "tid", 0));
    mlz_table_cell(t, tid);
    free(tid);
    mlz_table_cell(t, mlz_units_count(a, id < s->n_threads ? (double)s->thread_events[id] : 0));
    mlz_table_cell(t, mlz_units_count(a, (double)mlz_input_thread_dropped(row)));
    mlz_table_cell(t, mlz_units_time(a, (double)mlz_input_uint(row, "blocked_ns", 0)));
  }
  if (n > 1 && chosen) fputc('\n', out), mlz_table_print(t, out, width, color);
  if (chosen > SHOWN_MAX) fprintf(out, "%zu more threads (--json lists all)\n", chosen - SHOWN_MAX);
  if (left_out) fprintf(out, "Left out: %zu thread%s of other processes\n", left_out, left_out == 1 ? "" : "s");
  mlz_table_free(t);
}

static void print_processes(struct mlz_input *in, const struct mlz_stats *s, FILE *out, unsigned width, bool color) {
  char a[MLZ_UNITS_MAX];
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "pid", MLZ_COL_NUMBER);
  mlz_table_column(t, "events", MLZ_COL_NUMBER);
  mlz_table_column(t, "from", MLZ_COL_NUMBER);
  mlz_table_column(t, "to", MLZ_COL_NUMBER);
  mlz_table_column(t, "command", MLZ_COL_NOTE);
  enum { SHOWN_MAX = 20 };
  size_t chosen = 0, left_out = 0;
  for (size_t i = 0; i < in->n_processes; i++) {
    const struct mlz_process *p = in->processes[i];
    left_out += !p->chosen;
    chosen += p->chosen;
    if (!p->chosen || chosen > SHOWN_MAX) continue;
    char *pid = mlz_text_format("%" PRId64, p->pid);
    mlz_table_cell(t, pid);
    free(pid);
    mlz_table_cell(t, mlz_units_count(a, i < s->n_processes ? (double)s->process_events[i] : 0));
    mlz_table_cell(t, mlz_units_time(a, (double)p->start_ns));
    mlz_table_cell(t, p->end_ns ? mlz_units_time(a, (double)p->end_ns) : "-");
    mlz_table_cell(t, p->command);
  }
  if (in->n_processes > 1 && chosen) fputc('\n', out), mlz_table_print(t, out, width, color);
  if (chosen > SHOWN_MAX) fprintf(out, "%zu more processes (--json lists all)\n", chosen - SHOWN_MAX);
  if (left_out) fprintf(out, "Left out: %zu process%s (--json lists all)\n", left_out, left_out == 1 ? "" : "es");
  mlz_table_free(t);
}

static void print_text(struct mlz_input *in, const struct settings *settings, const struct mlz_stats *s, FILE *out) {
  bool color = mlz_term_color(out, (enum mlz_color)settings->common.color);
  unsigned width = mlz_term_width(out);
  print_head(in, s, settings->at || in->mark, out, color);
  print_domains(s, out, width, color);
  if (in->totals_only) {
    print_points(s, out, width, color);
  } else {
    print_sizes(in, s, out, width, color);
    print_lifetimes(in, s, out, width, color);
    print_collections(s, out);
  }
  print_threads(in, s, out, width, color);
  print_processes(in, s, out, width, color);
}

int main(int argc, char **argv) {
  struct settings settings = {0};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &settings);
  struct mlz_input *in = mlz_input_open(tool.name, &settings.common);
  struct mlz_window window;
  mlz_window_resolve(in, settings.at, NULL, NULL, settings.common.include_mmap, &window);
  struct mlz_stats stats;
  mlz_stats_find(in, settings.common.include_mmap, window.to, &stats);
  int status = mlz_input_finish(in);
  if (!status) {
    FILE *out = mlz_report_open(in, &settings.common);
    if (settings.common.json)
      print_json(in, &stats, out);
    else
      print_text(in, &settings, &stats, out);
    mlz_report_close(in, &settings.common, out);
  }
  mlz_stats_clear(&stats);
  mlz_window_clear(&window);
  mlz_input_close(in);
  return status;
}
