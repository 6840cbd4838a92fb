/* Tables for programs: csv, a line for each stack or each event, and json. Stacks have the same numbers in all of them. */
#include "analyzer/export.h"

#include "analyzer/text.h"
#include "analyzer/totals.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *language_of(const struct mlz_place *p) { return p->language == MLZ_LANG_PYTHON ? "python" : "native"; }

/* ---- csv: stacks ---- */

static void write_frames(FILE *out, const struct mlz_export_stacks *s, char *const *names, uint32_t stack) {
  uint32_t n;
  const uint32_t *frames = mlz_export_stack_frames(s, stack, &n);
  char *text = NULL;
  size_t size;
  FILE *line = open_memstream(&text, &size);
  if (!line) mlz_input_fail(s->in, "out of memory");
  while (n--) fprintf(line, "%s%s", names[frames[n]], n ? ";" : "");
  fclose(line);
  mlz_export_field(out, text);
  free(text);
}

static void write_stack(FILE *out, const struct mlz_export_rows *r, char *const *names, const struct mlz_export_row *row) {
  const struct mlz_tally *t = &row->tally;
  uint32_t n;
  const uint32_t *frames = mlz_export_stack_frames(&r->stacks, row->stack, &n);
  const struct mlz_place *p = &r->stacks.places[frames[0]];
  fprintf(out, "%u,%lld,%lld,%lld,%lld,", row->stack, llround(t->alloc_count), llround(t->alloc_bytes),
          llround(t->alloc_count - t->free_count), llround(t->alloc_bytes - t->free_bytes));
  if (r->has_peak)
    fprintf(out, "%lld,%lld", llround(row->peak_count), llround(row->peak_bytes));
  else
    putc(',', out);
  fprintf(out, ",%lld,%lld,", llround(t->temp_count), llround(t->temp_bytes));
  mlz_export_field(out, p->function);
  putc(',', out);
  mlz_export_field(out, p->file);
  fprintf(out, ",%u,", p->line);
  mlz_export_field(out, p->module);
  fprintf(out, ",%s,", language_of(p));
  write_frames(out, &r->stacks, names, row->stack);
  putc('\n', out);
}

static void stacks_as_csv(struct mlz_export *e) {
  struct mlz_export_rows r;
  mlz_export_rows_take(e, &r);
  FILE *out = mlz_export_open(e, true);
  uint32_t n = r.stacks.place_keys.n;
  char **names = mlz_text_calloc((size_t)n + 1, sizeof *names);
  for (uint32_t i = 0; i < n; i++) names[i] = mlz_export_frame_text(&r.stacks.places[i], true);
  fputs("stack,alloc_count,alloc_bytes,live_count,live_bytes,peak_count,peak_bytes,temporary_count,temporary_bytes,"
        "function,file,line,module,language,frames\n",
        out);
  for (size_t i = 0; i < r.n; i++) write_stack(out, &r, names, &r.rows[i]);
  for (uint32_t i = 0; i < n; i++) free(names[i]);
  free(names);
  mlz_export_rows_clear(&r);
}

/* ---- csv: events ---- */

struct lines {
  struct mlz_export *e;
  struct mlz_export_stacks stacks;
  char **tails; /* by stack number: what each line of it ends with */
  uint64_t *tids;
};

static char *tail_of(const struct lines *l, uint32_t stack) {
  uint32_t n;
  char *text = NULL;
  size_t size;
  const struct mlz_place *p = &l->stacks.places[*mlz_export_stack_frames(&l->stacks, stack, &n)];
  FILE *out = open_memstream(&text, &size);
  if (!out) mlz_input_fail(l->e->in, "out of memory");
  fprintf(out, ",%u,", stack);
  mlz_export_field(out, p->function);
  putc(',', out);
  mlz_export_field(out, p->file);
  fprintf(out, ",%u\n", p->line);
  fclose(out);
  return text;
}

static void write_events(void *context, const struct mlz_slice *slice) {
  static const char *const domains[] = {"raw", "mem", "obj", "malloc", "mmap"};
  struct lines *l = context;
  const struct mlz_block *b = slice->block;
  const struct mlz_process *p = slice->process;
  if (ferror(l->e->out)) return; /* nobody reads it, or the disk is full */
  for (uint32_t i = slice->from; i < slice->to; i++) {
    int sign = mlz_export_sign(l->e, slice, i);
    if (!sign) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    bool temporary = b->ops[i] == MLZ_OP_FREE_TEMP || b->ops[i] == MLZ_OP_FREE_OLD_TEMP;
    uint64_t tid = b->thread[i] < l->e->in->n_threads ? l->tids[b->thread[i]] : 0;
    char weight[32] = "1";
    if (class->weight > 1) snprintf(weight, sizeof weight, "%.15g", class->weight);
    fprintf(l->e->out, "%s,%" PRIu64 ",%" PRId64 ",%" PRIu32 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s,%s,%d", sign > 0 ? "alloc" : "free",
            b->time_ns[i], p->pid, p->id, tid, b->alloc_no[i], class->size, weight,
            class->domain < MLZ_BLOCK_DOMAINS ? domains[class->domain] : "?", temporary);
    fputs(l->tails[mlz_export_stack_number(&l->stacks, class->stack)], l->e->out);
  }
}

static void events_as_csv(struct mlz_export *e) {
  struct mlz_input *in = e->in;
  struct lines l = {.e = e};
  if (in->totals_only) mlz_totals_refuse(in, "--rows event", "take --rows stack");
  mlz_export_stacks_begin(&l.stacks, in);
  for (uint32_t i = 0; i < mlz_trace_stacks(in->trace); i++) mlz_export_stack_number(&l.stacks, i);
  uint32_t n = l.stacks.stack_keys.n;
  l.tails = mlz_text_calloc((size_t)n + 1, sizeof *l.tails);
  for (uint32_t i = 0; i < n; i++) l.tails[i] = tail_of(&l, i);
  l.tids = mlz_text_calloc(in->n_threads + 1, sizeof *l.tids);
  for (size_t i = 0; i < mlz_trace_threads(in->trace); i++) {
    uint64_t id = mlz_input_uint(mlz_trace_thread(in->trace, i), "id", 0);
    if (id < in->n_threads) l.tids[id] = mlz_input_uint(mlz_trace_thread(in->trace, i), "tid", 0);
  }
  fputs("event,time_ns,pid,process,thread,allocation,size,weight,domain,temporary,stack,function,file,line\n", mlz_export_open(e, false));
  mlz_scan_run(
      in, &(struct mlz_scan){.want = MLZ_WANT_ALL, .from = e->window.from, .to = e->window.to, .on_slice = write_events, .context = &l});
  for (uint32_t i = 0; i < n; i++) free(l.tails[i]);
  free(l.tails);
  free(l.tids);
  mlz_export_stacks_clear(&l.stacks);
}

void mlz_export_csv(struct mlz_export *e) {
  e->all_stacks = true;
  if (e->events)
    events_as_csv(e);
  else
    stacks_as_csv(e);
}

/* ---- json ---- */

/* Written piece by piece: the stacks of a large program would be many times as large as a document in memory. */
static void write_value(FILE *out, const char *key, json_t *value) {
  fprintf(out, ",\n\"%s\": ", key);
  json_dumpf(value, out, JSON_COMPACT | JSON_ENCODE_ANY);
  json_decref(value);
}

static json_t *processes_of(const struct mlz_input *in) {
  json_t *list = json_array();
  for (size_t i = 0; i < in->n_processes; i++) {
    const struct mlz_process *p = in->processes[i];
    if (!p->chosen) continue;
    json_t *row =
        json_pack("{s:I, s:I, s:I, s:o, s:o, s:I}", "id", (json_int_t)p->id, "pid", (json_int_t)p->pid, "parent", (json_int_t)p->parent,
                  "command", mlz_json_text(p->command), "python_version", mlz_json_text(p->python), "start_ns", (json_int_t)p->start_ns);
    json_object_set_new(row, "end_ns", p->end_ns ? json_integer((json_int_t)p->end_ns) : json_null());
    json_array_append_new(list, row);
  }
  return list;
}

static json_t *marks_of(struct mlz_input *in) {
  struct mlz_marks marks;
  json_t *list = json_array();
  mlz_marks_read(in, &marks);
  for (size_t i = 0; i < marks.n; i++) {
    const struct mlz_mark *m = &marks.marks[i];
    if (!in->processes[m->process]->chosen) continue;
    json_array_append_new(list, json_pack("{s:o, s:I, s:I, s:b}", "name", mlz_json_text(m->name), "time_ns", (json_int_t)m->ns, "process",
                                          (json_int_t)in->processes[m->process]->id, "snapshot", m->snapshot));
  }
  mlz_marks_clear(&marks);
  return list;
}

static void write_head(struct mlz_export *e, const struct mlz_export_rows *r, FILE *out) {
  struct mlz_input *in = e->in;
  char *command = mlz_input_command(mlz_trace_meta(in->trace));
  const struct mlz_tally *t = &r->total;
  fputs("{\"schema\": \"memlyze.export/1\"", out);
  if (in->estimated) write_value(out, "estimated", json_true());
  write_value(out, "command", mlz_json_text(command));
  write_value(out, "pid", json_integer((json_int_t)mlz_input_uint(mlz_trace_meta(in->trace), "pid", 0)));
  write_value(out, "duration_ns", json_integer((json_int_t)mlz_input_duration(in)));
  write_value(out, "sample_rate", json_real(in->sample_rate));
  write_value(out, "total",
              json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "alloc_count", mlz_json_number(t->alloc_count), "alloc_bytes",
                        mlz_json_number(t->alloc_bytes), "live_count", mlz_json_number(t->alloc_count - t->free_count), "live_bytes",
                        mlz_json_number(t->alloc_bytes - t->free_bytes), "temporary_count", mlz_json_number(t->temp_count),
                        "temporary_bytes", mlz_json_number(t->temp_bytes)));
  write_value(out, "peak",
              r->peak.unknown ? json_null()
                              : json_pack("{s:o, s:I}", "bytes", mlz_json_number(r->peak.bytes), "time_ns", (json_int_t)r->peak.time_ns));
  write_value(out, "processes", processes_of(in));
  free(command);
}

static void write_json_stack(FILE *out, const struct mlz_export_rows *r, const struct mlz_export_row *row) {
  const struct mlz_tally *t = &row->tally;
  uint32_t n;
  const uint32_t *frames = mlz_export_stack_frames(&r->stacks, row->stack, &n);
  fprintf(out, "{\"stack\":%u,\"frames\":[", row->stack);
  for (uint32_t i = 0; i < n; i++) fprintf(out, "%s%u", i ? "," : "", frames[i]);
  fprintf(out, "],\"alloc_count\":%lld,\"alloc_bytes\":%lld,\"live_count\":%lld,\"live_bytes\":%lld", llround(t->alloc_count),
          llround(t->alloc_bytes), llround(t->alloc_count - t->free_count), llround(t->alloc_bytes - t->free_bytes));
  if (r->has_peak)
    fprintf(out, ",\"peak_count\":%lld,\"peak_bytes\":%lld", llround(row->peak_count), llround(row->peak_bytes));
  else
    fputs(",\"peak_count\":null,\"peak_bytes\":null", out);
  fprintf(out, ",\"temporary_count\":%lld,\"temporary_bytes\":%lld}", llround(t->temp_count), llround(t->temp_bytes));
}

static void write_json_frame(FILE *out, const struct mlz_place *p) {
  fputs("{\"function\":", out);
  mlz_export_quoted(out, p->function);
  fputs(",\"module\":", out);
  mlz_export_quoted(out, p->module);
  fputs(",\"file\":", out);
  mlz_export_quoted(out, p->file);
  fprintf(out, ",\"line\":%u,\"language\":\"%s\"}", p->line, language_of(p));
}

void mlz_export_json(struct mlz_export *e) {
  struct mlz_export_rows r;
  e->all_stacks = true;
  json_t *marks = marks_of(e->in); /* a pass, so before the output is opened */
  mlz_export_rows_take(e, &r);
  FILE *out = mlz_export_open(e, true);
  write_head(e, &r, out);
  write_value(out, "marks", marks);
  fputs(",\n\"frames\": [", out);
  for (uint32_t i = 0; i < r.stacks.place_keys.n; i++) {
    fputs(i ? ",\n" : "\n", out);
    write_json_frame(out, &r.stacks.places[i]);
  }
  fputs("],\n\"stacks\": [", out);
  for (size_t i = 0; i < r.n; i++) {
    fputs(i ? ",\n" : "\n", out);
    write_json_stack(out, &r, &r.rows[i]);
  }
  putc(']', out);
  json_t *losses = json_object(), *value;
  const char *key;
  mlz_json_add_losses(e->in, losses);
  json_object_foreach(losses, key, value) write_value(out, key, json_incref(value));
  json_decref(losses);
  fputs("}\n", out);
  mlz_export_rows_clear(&r);
}
