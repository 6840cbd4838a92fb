/* The file of valgrind's DHAT, version 2 (valgrind, dhat/dh_view.js), as its viewer wants it. Times are microseconds.
 *
 * How much of a stack was live at most, and for how long its blocks lived, is summed up without pairing: a block adds its end and subtracts its beginning.
 * That is done for each process by itself, since a block that is left ends with its process; memory: a row for each stack and running process. */
#include "analyzer/export.h"

#include "analyzer/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct life { /* of a stack, in one process or in all */
  double live_count, live_bytes, max_count, max_bytes;
  double time_us; /* sum of ends less sum of beginnings; of what is live the end is missing */
};

struct lives {
  struct mlz_export *e;
  size_t n_stacks;
  struct life *all;        /* by stack id: max is that of the process in which it was highest; time is complete */
  struct life **processes; /* by index, NULL: not seen, or ended */
  size_t n_processes;
  uint64_t end_ns;
};

static struct life *rows_of(struct lives *l, uint32_t index) {
  if (index >= l->n_processes) {
    l->processes = mlz_text_realloc(l->processes, index + 1, sizeof *l->processes);
    while (l->n_processes <= index) l->processes[l->n_processes++] = NULL;
  }
  if (!l->processes[index]) l->processes[index] = mlz_text_calloc(l->n_stacks, sizeof **l->processes);
  return l->processes[index];
}

static void read_slice(void *context, const struct mlz_slice *slice) {
  struct lives *l = context;
  const struct mlz_block *b = slice->block;
  struct life *rows = rows_of(l, slice->process->index);
  for (uint32_t i = slice->from; i < slice->to; i++) {
    int sign = mlz_export_sign(l->e, slice, i);
    if (!sign) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    struct life *row = &rows[class->stack];
    double weight = sign * class->weight;
    row->time_us -= weight * ((double)b->time_ns[i] / 1000);
    row->live_count += weight;
    row->live_bytes += weight * (double)class->size;
    if (row->live_bytes > row->max_bytes) row->max_bytes = row->live_bytes, row->max_count = row->live_count;
  }
}

static void end_process(void *context, const struct mlz_process_end *end) {
  struct lives *l = context;
  struct life *rows = rows_of(l, end->process->index);
  if (end->last_ns > l->end_ns) l->end_ns = end->last_ns;
  for (size_t i = 0; i < l->n_stacks; i++) {
    struct life *all = &l->all[i];
    all->time_us += rows[i].time_us + rows[i].live_count * ((double)end->last_ns / 1000);
    if (rows[i].max_bytes > all->max_bytes) all->max_bytes = rows[i].max_bytes, all->max_count = rows[i].max_count;
  }
  free(rows);
  l->processes[end->process->index] = NULL;
}

/* Lives of stacks that read the same, together. */
static struct life *by_number(const struct lives *l, const struct mlz_export_stacks *s) {
  struct life *out = mlz_text_calloc(s->stack_keys.n + 1, sizeof *out);
  for (size_t i = 0; i < l->n_stacks; i++) {
    if (!s->of_stack[i]) continue;
    struct life *row = &out[s->of_stack[i] - 1];
    row->max_bytes += l->all[i].max_bytes;
    row->max_count += l->all[i].max_count;
    row->time_us += l->all[i].time_us;
  }
  return out;
}

static void write_point(FILE *out, const struct mlz_export_rows *r, const struct mlz_export_row *row, const struct life *life) {
  double live = mlz_tally_live_bytes(&row->tally), live_count = live > 0 ? mlz_export_live_count(row) : 0;
  fprintf(out, "{\"tb\":%lld,\"tbk\":%lld", llround(row->tally.alloc_bytes), llround(row->tally.alloc_count));
  if (life) {
    /* Several processes together may have held more at the peak, or at the end, than any of them ever did. */
    double most = fmax(life->max_bytes, fmax(row->peak_bytes, live)), most_count = fmax(life->max_count, fmax(row->peak_count, live_count));
    fprintf(out, ",\"tl\":%lld,\"mb\":%lld,\"mbk\":%lld,\"gb\":%lld,\"gbk\":%lld,\"eb\":%lld,\"ebk\":%lld", llround(fmax(life->time_us, 0)),
            llround(most), llround(most_count), llround(row->peak_bytes), llround(row->peak_count), llround(live), llround(live_count));
  }
  uint32_t n;
  const uint32_t *frames = mlz_export_stack_frames(&r->stacks, row->stack, &n);
  fputs(",\"fs\":[", out);
  for (uint32_t i = 0; i < n; i++) fprintf(out, "%s%u", i ? "," : "", frames[i] + 1);
  fputs("]}", out);
}

/* Of a trace of totals neither lifetimes nor the heap at the peak are known ("bklt" false). */
static void write_document(struct mlz_export *e, const struct mlz_export_rows *r, const struct life *lives, uint64_t end_ns, FILE *out) {
  char *command = mlz_input_command(mlz_trace_meta(e->in->trace)), *note = mlz_export_note(e);
  char *shown = mlz_text_format("%s (%s)", command, note);
  uint64_t short_us = e->in->gap_ns / 1000 > 100 ? e->in->gap_ns / 1000 : 100;
  fprintf(out, "{\"dhatFileVersion\":2,\"mode\":\"heap\",\"verb\":\"Allocated\",\"bklt\":%s,\"bkacc\":false,", lives ? "true" : "false");
  fputs("\"tu\":\"us\",\"Mtu\":\"s\",\"cmd\":", out);
  mlz_export_quoted(out, shown);
  fprintf(out, ",\"pid\":%" PRIu64 ",\"te\":%" PRIu64, mlz_input_uint(mlz_trace_meta(e->in->trace), "pid", 0), end_ns / 1000);
  if (lives) fprintf(out, ",\"tuth\":%" PRIu64 ",\"tg\":%" PRIu64, short_us, r->peak.time_ns / 1000);
  fputs(",\n\"pps\":[", out);
  for (size_t i = 0; i < r->n; i++) {
    fputs(i ? ",\n" : "\n", out);
    write_point(out, r, &r->rows[i], lives ? &lives[r->rows[i].stack] : NULL);
  }
  fputs("],\n\"ftbl\":[\"[root]\"", out);
  for (uint32_t i = 0; i < r->stacks.place_keys.n; i++) {
    char *text = mlz_export_frame_text(&r->stacks.places[i], true);
    fputs(",\n", out);
    mlz_export_quoted(out, text);
    free(text);
  }
  fputs("]}\n", out);
  free(command);
  free(note);
  free(shown);
}

void mlz_export_dhat(struct mlz_export *e) {
  struct lives l = {.e = e, .n_stacks = mlz_trace_stacks(e->in->trace)};
  struct mlz_export_rows r;
  struct life *lives = NULL;
  mlz_export_rows_take(e, &r);
  l.all = mlz_text_calloc(l.n_stacks, sizeof *l.all);
  if (!e->in->totals_only) {
    mlz_scan_run(e->in, &(struct mlz_scan){.want = mlz_export_want(e),
                                           .from = e->window.from,
                                           .to = e->window.to,
                                           .on_slice = read_slice,
                                           .on_process_end = end_process,
                                           .context = &l});
    lives = by_number(&l, &r.stacks);
  }
  if (!l.end_ns) l.end_ns = mlz_input_duration(e->in);
  FILE *out = mlz_export_open(e, true);
  write_document(e, &r, lives, l.end_ns ? l.end_ns : 1000, out);
  for (size_t i = 0; i < l.n_processes; i++) free(l.processes[i]);
  free(l.processes);
  free(l.all);
  free(lives);
  mlz_export_rows_clear(&r);
}
