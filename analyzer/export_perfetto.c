/* The trace event format of Chrome's about:tracing, which Perfetto opens too: the heap of each process and its resident memory as counters, collections as
 * slices of their threads, marks and snapshots as instants. Written as it is read; memory: a few words for each process and thread.
 *
 * A counter is written at most twice in each of INTERVALS parts of the trace, at the highest and at the last value in it, so that no peak is left out. */
#include "analyzer/begin.h"
#include "analyzer/export.h"

#include "analyzer/resident.h"
#include "analyzer/text.h"
#include "analyzer/totals.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INTERVALS = 2000 };

struct level {
  double bytes, blocks;
  uint64_t ns;
};
struct counter { /* of a process */
  struct level now, top;
  uint64_t interval;
  bool pending;
  uint64_t ended_ns;
};

struct events {
  struct mlz_export *e;
  FILE *out;
  uint64_t width_ns, end_ns;
  struct counter *counters; /* by process index */
  size_t n_counters;
  uint64_t *tids; /* by thread id */
  bool some;
};

static struct counter *counter_of(struct events *v, uint32_t index) {
  if (index >= v->n_counters) {
    v->counters = mlz_text_realloc(v->counters, index + 1, sizeof *v->counters);
    while (v->n_counters <= index) v->counters[v->n_counters++] = (struct counter){.ended_ns = UINT64_MAX};
  }
  return &v->counters[index];
}

static int64_t pid_of(const struct mlz_process *p) { return p->pid ? p->pid : (int64_t)p->id; }

/* What all events begin with; the caller closes the object. Times are microseconds. */
static void begin(struct events *v, const char *name, char phase, const struct mlz_process *p, uint64_t tid, uint64_t ns) {
  fputs(v->some ? ",\n{\"name\":" : "\n{\"name\":", v->out);
  v->some = true;
  mlz_export_quoted(v->out, name);
  fprintf(v->out, ",\"ph\":\"%c\",\"pid\":%" PRId64 ",\"tid\":%" PRIu64 ",\"ts\":%" PRIu64 ".%03u", phase, pid_of(p), tid, ns / 1000,
          (unsigned)(ns % 1000));
}

static void write_level(struct events *v, const struct mlz_process *p, const struct level *l, bool blocks) {
  begin(v, "heap", 'C', p, 0, l->ns);
  fprintf(v->out, ",\"args\":{\"bytes\":%lld}}", llround(fmax(l->bytes, 0)));
  if (!blocks) return;
  begin(v, "blocks", 'C', p, 0, l->ns);
  fprintf(v->out, ",\"args\":{\"live\":%lld}}", llround(fmax(l->blocks, 0)));
}

static void flush(struct events *v, const struct mlz_process *p, struct counter *c) {
  if (c->pending && c->top.bytes > c->now.bytes) write_level(v, p, &c->top, true);
  if (c->pending) write_level(v, p, &c->now, true);
  c->pending = false;
}

/* ---- collections, marks ---- */

static void write_gc(struct events *v, const struct mlz_process *p, uint64_t tid, const struct mlz_rare *r) {
  char name[48];
  struct mlz_place place = mlz_place_of_stack(v->e->in, r->stack);
  char *where = mlz_export_frame_text(&place, false);
  snprintf(name, sizeof name, "gc generation %u", r->generation);
  begin(v, name, 'X', p, tid, r->start_ns);
  fprintf(v->out, ",\"dur\":%" PRIu64 ".%03u,\"cat\":\"gc\",\"args\":{\"collected\":%" PRIu64 ",\"uncollectable\":%" PRIu64 ",\"trigger\":",
          r->duration_ns / 1000, (unsigned)(r->duration_ns % 1000), r->collected, r->uncollectable);
  mlz_export_quoted(v->out, where);
  fputs("}}", v->out);
  free(where);
}

static void write_instant(struct events *v, const struct mlz_process *p, uint64_t tid, const struct mlz_rare *r) {
  bool lost = r->op == MLZ_OP_LOST;
  begin(v, lost ? "records lost" : mlz_trace_string(v->e->in->trace, r->name), 'i', p, tid, r->start_ns);
  fprintf(v->out, ",\"s\":\"p\",\"cat\":\"%s\"", lost ? "lost" : r->op == MLZ_OP_MARK ? "mark" : "snapshot");
  if (lost) fprintf(v->out, ",\"args\":{\"allocations\":%" PRIu64 ",\"frees\":%" PRIu64 "}", r->collected, r->uncollectable);
  fputs("}", v->out);
}

static void write_rare(struct events *v, const struct mlz_slice *slice, uint32_t i) {
  const struct mlz_block *b = slice->block;
  const struct mlz_rare *r = &b->rares[b->classes_of[i]];
  uint64_t tid = b->thread[i] < v->e->in->n_threads ? v->tids[b->thread[i]] : 0;
  if (r->op == MLZ_OP_GC) write_gc(v, slice->process, tid, r);
  if (r->op == MLZ_OP_MARK || r->op == MLZ_OP_SNAPSHOT || r->op == MLZ_OP_LOST) write_instant(v, slice->process, tid, r);
}

/* ---- the passes ---- */

static void read_slice(void *context, const struct mlz_slice *slice) {
  struct events *v = context;
  const struct mlz_block *b = slice->block;
  struct counter *c = counter_of(v, slice->process->index);
  if (ferror(v->out)) return; /* nobody reads it, or the disk is full */
  for (uint32_t i = slice->from; i < slice->to; i++) {
    if (b->ops[i] >= MLZ_OP_RARE) {
      write_rare(v, slice, i);
      continue;
    }
    int sign = mlz_export_sign(v->e, slice, i);
    if (!sign) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    uint64_t ns = b->time_ns[i];
    if (c->pending && ns >= c->interval) flush(v, slice->process, c);
    if (!c->pending) {
      c->interval = (ns / v->width_ns + 1) * v->width_ns;
      c->top = (struct level){0, 0, ns};
      c->pending = true;
    }
    c->now.bytes += sign * class->weight * (double)class->size;
    c->now.blocks += sign * class->weight;
    c->now.ns = ns;
    if (c->now.bytes > c->top.bytes) c->top = c->now;
  }
}

static void end_process(void *context, const struct mlz_process_end *end) {
  struct events *v = context;
  struct counter *c = counter_of(v, end->process->index);
  flush(v, end->process, c);
  c->ended_ns = mlz_export_ended(end);
  if (end->last_ns > v->end_ns) v->end_ns = end->last_ns;
}

static void read_point(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct events *v = context;
  struct mlz_tally t = {0};
  bool mmap = v->e->common->include_mmap;
  for (uint32_t i = 0; i < point->n; i++)
    if (mlz_totals_counts(&point->rows[i], mmap)) {
      mlz_totals_row_tally(point, &point->rows[i], &t, NULL);
      v->e->in->estimated |= point->rows[i].key.weight > 1;
    }
  struct level peak = {(double)point->head.peak_bytes, 0, point->head.peak_ns};
  struct level now = {t.alloc_bytes - t.free_bytes, t.alloc_count - t.free_count, point->head.ns};
  if (!mmap && peak.bytes > now.bytes && peak.ns <= now.ns) write_level(v, process, &peak, false);
  write_level(v, process, &now, true);
}

/* Where the beginning was left out, the counter begins with what lived then. */
static void begin_counter(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct events *v = context;
  struct mlz_tally t = {0};
  for (uint32_t i = 0; i < point->n; i++)
    if (mlz_totals_counts(&point->rows[i], v->e->common->include_mmap)) mlz_totals_row_tally(point, &point->rows[i], &t, NULL);
  struct counter *c = counter_of(v, process->index);
  c->now = (struct level){t.alloc_bytes - t.free_bytes, t.alloc_count - t.free_count, point->head.ns};
  write_level(v, process, &c->now, true);
}

/* A process that ended before the others holds nothing from then on. */
static void write_ends(struct events *v) {
  for (uint32_t i = 0; i < v->n_counters; i++)
    if (v->counters[i].ended_ns < v->end_ns) write_level(v, v->e->in->processes[i], &(struct level){0, 0, v->counters[i].ended_ns}, true);
}

/* Beside the heap: what the system counts. */
static void write_resident(struct events *v) {
  struct mlz_input *in = v->e->in;
  size_t n;
  const struct mlz_rss *seen = mlz_trace_rss(in->trace, &n);
  for (size_t i = 0; i < n; i++) {
    const struct mlz_process *p = mlz_resident_process(in, &seen[i]);
    if (!p || !p->chosen) continue;
    begin(v, "resident", 'C', p, 0, seen[i].ns);
    fprintf(v->out, ",\"args\":{\"bytes\":%" PRIu64 "}}", seen[i].bytes);
  }
}

static void write_name(struct events *v, const char *what, const struct mlz_process *p, uint64_t tid, const char *name) {
  begin(v, what, 'M', p, tid, 0);
  fputs(",\"args\":{\"name\":", v->out);
  mlz_export_quoted(v->out, name);
  fputs("}}", v->out);
}

static void write_names(struct events *v) {
  struct mlz_input *in = v->e->in;
  for (size_t i = 0; i < in->n_processes; i++)
    if (in->processes[i]->chosen) write_name(v, "process_name", in->processes[i], 0, in->processes[i]->command);
  size_t n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++) {
    const json_t *row = mlz_trace_thread(in->trace, i);
    uint64_t id = mlz_input_uint(row, "id", 0), process = mlz_input_uint(row, "process", 0), tid = mlz_input_uint(row, "tid", 0);
    if (id < in->n_threads) v->tids[id] = tid;
    for (size_t k = 0; k < in->n_processes; k++)
      if (in->processes[k]->id == process && in->processes[k]->chosen && *mlz_input_text(row, "name"))
        write_name(v, "thread_name", in->processes[k], tid, mlz_input_text(row, "name"));
  }
}

void mlz_export_perfetto(struct mlz_export *e) {
  struct events v = {.e = e, .width_ns = mlz_input_duration(e->in) / INTERVALS + 1};
  char *command = mlz_input_command(mlz_trace_meta(e->in->trace));
  v.tids = mlz_text_calloc(e->in->n_threads + 1, sizeof *v.tids);
  v.out = mlz_export_open(e, false);
  fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", v.out);
  write_names(&v);
  write_resident(&v);
  if (e->in->totals_only) mlz_totals_until(e->in, e->window.to, read_point, &v);
  if (!e->window.from) mlz_begin_first(e->in, false, begin_counter, &v);
  mlz_scan_run(e->in, &(struct mlz_scan){.want = mlz_export_want(e) | MLZ_WANT_THREAD,
                                         .from = e->window.from,
                                         .to = e->window.to,
                                         .on_slice = read_slice,
                                         .on_process_end = end_process,
                                         .context = &v});
  if (!e->in->totals_only) write_ends(&v);
  char *note = mlz_export_note(e);
  fputs("],\n\"otherData\":{\"command\":", v.out);
  mlz_export_quoted(v.out, command);
  fputs(",\"exporter\":", v.out);
  mlz_export_quoted(v.out, note);
  fputs("}}\n", v.out);
  free(command);
  free(note);
  free(v.tids);
  free(v.counters);
}
