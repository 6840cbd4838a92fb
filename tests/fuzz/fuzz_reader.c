/* libFuzzer target: any bytes, opened as a trace and read to the end, once as they are and once with all checksums put right, so that the
 * fuzzer gets past them. Also a plain program that runs the files it is given (built without libFuzzer, -DMLZ_FUZZ_REPLAY). */
#include "formats/layout.h"
#include "formats/trace.h"
#include "tests/fuzz/mend.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint64_t sink;

static void read_tables(struct mlz_trace *t) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < mlz_trace_strings(t); i++) sum += strlen(mlz_trace_string(t, i));
  for (uint32_t i = 0, all = mlz_trace_frames(t); i < all; i++) {
    struct mlz_frame f = mlz_trace_frame(t, i);
    if (f.function >= mlz_trace_strings(t) || f.file >= mlz_trace_strings(t) || f.module >= mlz_trace_strings(t)) abort();
  }
  for (uint32_t i = 0; i < mlz_trace_stacks(t); i++) {
    uint32_t depth;
    bool truncated;
    const uint32_t *frames = mlz_trace_stack(t, i, &depth, &truncated);
    for (uint32_t k = 0; k < depth; k++)
      if (frames[k] >= mlz_trace_frames(t)) abort();
  }
  for (uint32_t i = 0, all = mlz_trace_frames(t); i < all; i++) {
    struct mlz_native_frame f;
    if (!mlz_trace_native(t, i, &f)) continue;
    sum += strlen(f.path) + strlen(f.build_id) + f.n;
    if (i % 3 && mlz_trace_symbol(t, i, &(struct mlz_symbol_name){.function = "found", .line = 1}, i % 2) != 0) abort();
  }
  if (mlz_trace_symbols_done(t) != 0) abort();
  for (size_t i = 0; i < mlz_trace_processes(t) + mlz_trace_threads(t); i++)
    sum += json_object_size(i < mlz_trace_processes(t) ? mlz_trace_process(t, i) : mlz_trace_thread(t, i - mlz_trace_processes(t)));
  sum += json_object_size(mlz_trace_meta(t)) + json_object_size(mlz_trace_summary(t)) + mlz_trace_complete(t);
  sink += sum;
}

static void check_block(struct mlz_trace *t, const struct mlz_block *b) {
  for (uint32_t i = 0; i < b->n_classes; i++)
    if (b->classes[i].stack >= mlz_trace_stacks(t) || b->classes[i].domain > 4) abort();
  for (uint32_t i = 0; i < b->n; i++) {
    uint32_t limit = b->ops[i] >= MLZ_OP_RARE ? b->n_rares : b->n_classes;
    if (b->ops[i] != MLZ_OP_FREE_FOREIGN && b->classes_of[i] >= limit) abort();
    if (b->alloc_no != NULL) sink += b->alloc_no[i] + b->time_ns[i] + b->thread[i];
  }
  for (uint32_t i = 0; i < b->n_rares; i++)
    if (b->rares[i].stack >= mlz_trace_stacks(t) || b->rares[i].name >= mlz_trace_strings(t)) abort();
  uint64_t ns;
  sink += mlz_trace_alloc_time(t, b->process, b->first_alloc, &ns);
}

static void check_point(struct mlz_trace *t, const struct mlz_totals_point *p) {
  if (p->head.name >= mlz_trace_strings(t) || (!p->known && p->n != 0)) abort();
  for (uint32_t i = 0; i < p->n; i++) {
    const struct mlz_totals_row *row = &p->rows[i];
    if (row->key.stack >= mlz_trace_stacks(t) || row->key.domain > 4 || !(row->key.weight >= 1)) abort();
    sink += row->is[MLZ_TOTAL_ALLOCS];
  }
}

static void read_trace(const uint8_t *data, size_t n) {
  struct mlz_trace *t;
  struct mlz_block b;
  char err[256] = "";
  int rc = mlz_trace_open_memory(&t, data, n, err, sizeof err);
  if (rc != 0) {
    if (err[0] == 0) abort();
    return;
  }
  read_tables(t);
  while ((rc = mlz_trace_next(t, 0, &b)) == 1) check_block(t, &b);
  mlz_trace_rewind(t);
  while ((rc = mlz_trace_next(t, MLZ_WANT_ALL, &b)) == 1) check_block(t, &b);
  struct mlz_totals_point p;
  while (mlz_trace_totals_next(t, &p) == 1) check_point(t, &p);
  mlz_trace_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  fuzz_both(data, n, read_trace);
  return 0;
}

#ifdef MLZ_FUZZ_REPLAY
#include "tests/fuzz/replay.h"
#endif
