#include "dump_trace.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void text(FILE *out, const char *s) {
  fputc(' ', out);
  fputc('"', out);
  for (; *s != 0; s++) {
    unsigned char c = (unsigned char)*s;
    if (c <= ' ' || c == '"' || c == '%' || c >= 0x7f)
      fprintf(out, "%%%02x", c);
    else
      fputc(c, out);
  }
  fputc('"', out);
}

static void object(FILE *out, const char *name, const json_t *o) {
  char *s = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
  fprintf(out, "%s %s\n", name, s == NULL ? "?" : s);
  free(s);
}

static void tables(struct mlz_trace *t, FILE *out) {
  for (uint32_t i = 1; i < mlz_trace_lost_string(t); i++) {
    fprintf(out, "string %" PRIu32, i);
    text(out, mlz_trace_string(t, i));
    fputc('\n', out);
  }
  for (uint32_t i = 1; i < mlz_trace_lost_frame(t); i++) {
    struct mlz_frame f = mlz_trace_frame(t, i);
    fprintf(out, "frame %" PRIu32, i);
    text(out, mlz_trace_string(t, f.function));
    text(out, mlz_trace_string(t, f.file));
    text(out, mlz_trace_string(t, f.module));
    fprintf(out, " %" PRIu32 " %" PRIu32 "\n", f.line, f.language);
  }
  for (uint32_t i = 1; i < mlz_trace_lost_frame(t); i++) {
    struct mlz_native_frame f;
    if (!mlz_trace_native(t, i, &f)) continue;
    fprintf(out, "native %" PRIu32, i);
    text(out, f.path);
    text(out, f.build_id);
    fprintf(out, " %" PRIx64 " resolved %d", f.address, f.resolved);
    for (uint32_t k = 0; k < f.n; k++) fprintf(out, " %" PRIu32, f.frames[k]);
    fputc('\n', out);
  }
  for (uint32_t i = 1; i + 1 < mlz_trace_stacks(t); i++) {
    uint32_t n;
    bool truncated;
    const uint32_t *frames = mlz_trace_stack(t, i, &n, &truncated);
    fprintf(out, "stack %" PRIu32 " %d", i, truncated);
    for (uint32_t k = 0; k < n; k++) fprintf(out, " %" PRIu32, frames[k]);
    fputc('\n', out);
  }
  for (size_t i = 0; i < mlz_trace_processes(t); i++) object(out, "process", mlz_trace_process(t, i));
  for (size_t i = 0; i < mlz_trace_threads(t); i++) object(out, "thread", mlz_trace_thread(t, i));
}

static void chunk(const struct mlz_block *b, FILE *out) {
  fprintf(out, "chunk process %" PRIu32 " group %" PRIu64 " events %" PRIu32 " first_alloc %" PRIu64 " ns %" PRIu64 " to %" PRIu64 "\n",
          b->process, b->group, b->n, b->first_alloc, b->first_ns, b->last_ns);
  for (uint32_t i = 0; i < b->n_classes; i++) {
    const struct mlz_class *k = &b->classes[i];
    uint64_t weight;
    memcpy(&weight, &k->weight, sizeof weight);
    fprintf(out, "class %" PRIu32 " stack %" PRIu32 " size %" PRIu64 " domain %" PRIu32 " weight %016" PRIx64 "\n", i, k->stack, k->size,
            k->domain, weight);
  }
  for (uint32_t i = 0; i < b->n; i++) {
    fprintf(out, "event %u thread %" PRIu32 " ns %" PRIu64, b->ops[i], b->thread[i], b->time_ns[i]);
    if (b->ops[i] >= MLZ_OP_RARE) {
      const struct mlz_rare *r = &b->rares[b->classes_of[i]];
      fprintf(out, " start %" PRIu64 " duration %" PRIu64 " collected %" PRIu64 " uncollectable %" PRIu64, r->start_ns, r->duration_ns,
              r->collected, r->uncollectable);
      fprintf(out, " generation %" PRIu32 " stack %" PRIu32 " name %" PRIu32, r->generation, r->stack, r->name);
    } else if (b->classes_of[i] != UINT32_MAX) {
      fprintf(out, " class %" PRIu32 " alloc %" PRIu64, b->classes_of[i], b->alloc_no[i]);
    }
    fputc('\n', out);
  }
}

static void point(const struct mlz_totals_point *p, FILE *out) {
  const struct mlz_totals_head *h = &p->head;
  fprintf(out, "point process %" PRIu32 " kind %u name %" PRIu32 " ns %" PRIu64 " events %" PRIu64 " allocations %" PRIu64, h->process,
          (unsigned)h->point, h->name, h->ns, h->events, h->allocations);
  fprintf(out, " peak %" PRIu64 " at %" PRIu64 " all %" PRIu64 " at %" PRIu64 " foreign %" PRIu64 " known %d\n", h->peak_bytes, h->peak_ns,
          h->all_peak_bytes, h->all_peak_ns, h->foreign, p->known);
  for (uint32_t i = 0; i < p->n; i++) {
    const struct mlz_totals_row *row = &p->rows[i];
    uint64_t weight;
    memcpy(&weight, &row->key.weight, sizeof weight);
    fprintf(out, "row %" PRIu32 " stack %" PRIu32 " domain %" PRIu32 " weight %016" PRIx64, i, row->key.stack, row->key.domain, weight);
    for (unsigned k = 0; k < MLZ_TOTALS; k++) fprintf(out, " %" PRIu64, row->is[k]);
    fputc('\n', out);
  }
}

void dump_trace(struct mlz_trace *t, FILE *out) {
  object(out, "meta", mlz_trace_meta(t));
  object(out, "summary", mlz_trace_summary(t));
  tables(t, out);
  struct mlz_block b;
  mlz_trace_rewind(t);
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) chunk(&b, out);
  struct mlz_totals_point p;
  mlz_trace_totals_rewind(t);
  while (mlz_trace_totals_next(t, &p) == 1) point(&p, out);
  const struct mlz_damage *d = mlz_trace_damage(t);
  fprintf(out, "damage chunks %" PRIu64 " bytes %" PRIu64 " unknown %" PRIu64 " cut %d\n", d->chunks_bad, d->bytes_bad, d->chunks_unknown,
          d->cut);
}

char *dump_trace_text(struct mlz_trace *t) {
  char *s = NULL;
  size_t n;
  FILE *out = open_memstream(&s, &n);
  if (out == NULL) return NULL;
  dump_trace(t, out);
  return fclose(out) == 0 ? s : NULL;
}
