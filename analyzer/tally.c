#include "analyzer/tally.h"

#include "analyzer/begin.h"
#include "analyzer/text.h"

#include <stdlib.h>
#include <string.h>

/* What an op adds to; the rest of the table is MLZ_COUNT_NONE. */
static const uint8_t kind_of_op[256] = {
    [MLZ_OP_ALLOC] = MLZ_COUNT_ALLOC,   [MLZ_OP_FREE] = MLZ_COUNT_FREE,          [MLZ_OP_FREE_TEMP] = MLZ_COUNT_TEMP,
    [MLZ_OP_FREE_OLD] = MLZ_COUNT_FREE, [MLZ_OP_FREE_OLD_TEMP] = MLZ_COUNT_TEMP, [MLZ_OP_FREE_FOREIGN... 255] = MLZ_COUNT_NONE,
};

static void prepare(struct mlz_counter *counter, uint32_t classes) {
  if (classes + 1 > counter->room) {
    counter->room = (classes + 1) * 2;
    counter->counts = mlz_text_realloc(counter->counts, (size_t)counter->room * 4, sizeof *counter->counts);
  }
  memset(counter->counts, 0, ((size_t)classes + 1) * 4 * sizeof *counter->counts);
}

void mlz_counter_block(struct mlz_counter *counter, const struct mlz_block *block) {
  mlz_counter_run(counter, &(struct mlz_slice){.block = block, .to = block->n});
}

void mlz_counter_run(struct mlz_counter *counter, const struct mlz_slice *slice) {
  const struct mlz_block *b = slice->block;
  prepare(counter, b->n_classes);
  uint32_t *counts = counter->counts;
  const uint32_t none = b->n_classes;
  const uint8_t *ops = b->ops;
  const uint32_t *classes_of = b->classes_of;
  if (!slice->from_alloc) {
    for (uint32_t i = slice->from; i < slice->to; i++) {
      uint32_t kind = kind_of_op[ops[i]];
      uint32_t class = kind == MLZ_COUNT_NONE ? none : classes_of[i];
      counts[(size_t) class * 4 + kind]++;
    }
    return;
  }
  for (uint32_t i = slice->from; i < slice->to; i++) {
    uint32_t kind = kind_of_op[ops[i]];
    if (kind != MLZ_COUNT_NONE && b->alloc_no[i] < slice->from_alloc) continue;
    uint32_t class = kind == MLZ_COUNT_NONE ? none : classes_of[i];
    counts[(size_t) class * 4 + kind]++;
  }
}

void mlz_counter_clear(struct mlz_counter *counter) {
  free(counter->counts);
  *counter = (struct mlz_counter){0};
}

void mlz_tally_add(struct mlz_tally *row, const struct mlz_class *class, const uint32_t *counts) {
  double weight = class->weight, bytes = weight * (double)class->size;
  double frees = (double)counts[MLZ_COUNT_FREE] + counts[MLZ_COUNT_TEMP];
  row->alloc_count += weight * counts[MLZ_COUNT_ALLOC];
  row->alloc_bytes += bytes * counts[MLZ_COUNT_ALLOC];
  row->free_count += weight * frees;
  row->free_bytes += bytes * frees;
  row->temp_count += weight * counts[MLZ_COUNT_TEMP];
  row->temp_bytes += bytes * counts[MLZ_COUNT_TEMP];
}

/* Most traces are not sampled: their rows stay small. */
static void spread_row(struct mlz_tally_run *run, size_t row, const struct mlz_class *class, const uint32_t *counts) {
  if (run->n_spreads < run->n) {
    run->spreads = mlz_text_realloc(run->spreads, run->n, sizeof *run->spreads);
    memset(run->spreads + run->n_spreads, 0, (run->n - run->n_spreads) * sizeof *run->spreads);
    run->n_spreads = run->n;
  }
  mlz_tally_add_spread(&run->spreads[row], class, counts);
}

static void add_row(struct mlz_tally_run *run, size_t row, const struct mlz_class *class, const uint32_t *counts) {
  if (row >= run->n) return;
  mlz_tally_add(&run->rows[row], class, counts);
  if (class->weight > 1) spread_row(run, row, class, counts);
}

static void add_total(struct mlz_tally_run *run, const struct mlz_class *class, const uint32_t *counts) {
  mlz_tally_add(&run->total, class, counts);
  mlz_tally_add_spread(&run->total_spread, class, counts);
}

struct mlz_spread mlz_tally_spread(const struct mlz_tally_run *run, size_t row) {
  return row < run->n_spreads ? run->spreads[row] : (struct mlz_spread){0};
}

/* The thread that allocated the block of event i; frees by others count for it all the same. */
static uint32_t owner_of(struct mlz_tally_run *run, const struct mlz_slice *slice, uint32_t i) {
  const struct mlz_block *b = slice->block;
  uint8_t op = b->ops[i];
  if (op >= MLZ_OP_FREE_OLD) {
    uint32_t thread = mlz_owners_take(&run->owners, slice->process->index, b->alloc_no[i]);
    return thread == MLZ_OWNER_UNKNOWN ? b->thread[i] : thread;
  }
  uint64_t k = b->alloc_no[i] - b->first_alloc;
  uint32_t *owner = &run->chunk_owners[k < b->n ? k : b->n], thread = b->thread[i];
  if (op != MLZ_OP_ALLOC) thread = *owner == MLZ_OWNER_UNKNOWN ? thread : *owner;
  *owner = op == MLZ_OP_ALLOC ? thread : MLZ_OWNER_UNKNOWN;
  return thread;
}

/* Threads are known for each event only. */
static void by_thread(struct mlz_tally_run *run, const struct mlz_slice *slice) {
  const struct mlz_block *b = slice->block;
  if (b->n >= run->owners_room) {
    run->owners_room = b->n + 1;
    run->chunk_owners = mlz_text_realloc(run->chunk_owners, run->owners_room, sizeof *run->chunk_owners);
  }
  memset(run->chunk_owners, 0xff, ((size_t)b->n + 1) * sizeof *run->chunk_owners); /* MLZ_OWNER_UNKNOWN */
  for (uint32_t i = slice->from; i < slice->to; i++) {
    uint32_t kind = kind_of_op[b->ops[i]];
    if (kind == MLZ_COUNT_NONE || b->alloc_no[i] < slice->from_alloc) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    uint32_t counts[4] = {0}, thread = owner_of(run, slice, i);
    if (class->domain == MLZ_BLOCK_MMAP && !run->include_mmap) continue;
    counts[kind] = 1;
    add_row(run, thread, class, counts);
    add_total(run, class, counts);
  }
  for (uint32_t k = 0; k < b->n; k++)
    if (run->chunk_owners[k] != MLZ_OWNER_UNKNOWN)
      mlz_owners_put(&run->owners, slice->process->index, b->first_alloc + k, run->chunk_owners[k]);
}

void mlz_tally_slice(void *context, const struct mlz_slice *slice) {
  struct mlz_tally_run *run = context;
  const struct mlz_block *b = slice->block;
  if (run->key == MLZ_TALLY_THREAD) {
    by_thread(run, slice);
    return;
  }
  if (run->key == MLZ_TALLY_PROCESS && slice->process->index >= run->n) {
    run->rows = mlz_text_realloc(run->rows, slice->process->index + 1, sizeof *run->rows);
    memset(run->rows + run->n, 0, (slice->process->index + 1 - run->n) * sizeof *run->rows);
    run->n = slice->process->index + 1;
  }
  const struct mlz_counter *counter = slice->part ? slice->part : &run->counter;
  if (!slice->part) mlz_counter_run(&run->counter, slice);
  for (uint32_t c = 0; c < b->n_classes; c++) {
    const uint32_t *counts = mlz_counter_of(counter, c);
    if (!(counts[0] | counts[1] | counts[2])) continue;
    const struct mlz_class *class = &b->classes[c];
    bool counted = class->domain != MLZ_BLOCK_MMAP || run->include_mmap;
    size_t row = run->key == MLZ_TALLY_STACK ? class->stack : run->key == MLZ_TALLY_DOMAIN ? class->domain : slice->process->index;
    if (counted || run->key == MLZ_TALLY_DOMAIN) add_row(run, row, class, counts);
    if (counted) add_total(run, class, counts);
  }
}

void mlz_tally_prepare(void *context, const struct mlz_block *b, void *part) {
  const struct mlz_tally_run *run = context;
  if (run->key != MLZ_TALLY_THREAD) mlz_counter_block(part, b);
}

void mlz_tally_clear_part(void *part) { mlz_counter_clear(part); }

void mlz_tally_begin(struct mlz_tally_run *run, struct mlz_input *in, enum mlz_tally_key key, bool include_mmap) {
  *run = (struct mlz_tally_run){.in = in, .key = key, .include_mmap = include_mmap};
  run->n = key == MLZ_TALLY_STACK    ? mlz_trace_stacks(in->trace)
           : key == MLZ_TALLY_THREAD ? in->n_threads
           : key == MLZ_TALLY_DOMAIN ? MLZ_BLOCK_DOMAINS
                                     : in->n_processes;
  run->rows = mlz_text_calloc(run->n, sizeof *run->rows);
}

unsigned mlz_tally_want(const struct mlz_tally_run *run, bool lower_limit) {
  return (run->key == MLZ_TALLY_THREAD ? MLZ_WANT_THREAD | MLZ_WANT_ALLOC_NO : 0) | (lower_limit ? MLZ_WANT_ALLOC_NO : 0);
}

void mlz_tally_clear(struct mlz_tally_run *run) {
  free(run->rows);
  free(run->spreads);
  mlz_counter_clear(&run->counter);
  mlz_owners_clear(&run->owners);
  free(run->chunk_owners);
  run->chunk_owners = NULL;
  run->rows = NULL;
  run->spreads = NULL;
}

void mlz_tally_scan(struct mlz_tally_run *run, struct mlz_input *in, enum mlz_tally_key key, bool include_mmap, const struct mlz_cut *from,
                    const struct mlz_cut *to) {
  mlz_tally_begin(run, in, key, include_mmap);
  if (in->totals_only) {
    mlz_totals_tally(run, from, to);
    return;
  }
  struct mlz_scan_start start = {0};
  if (!from && key == MLZ_TALLY_THREAD && in->left_out)
    mlz_input_warn(in, "by thread only what was allocated since the beginning that was left out is known");
  if (!from && key != MLZ_TALLY_THREAD) mlz_begin_at(in, to, mlz_totals_add_point, run, &start);
  mlz_scan_run(in, &(struct mlz_scan){.want = mlz_tally_want(run, from),
                                      .from = from,
                                      .to = to,
                                      .start = &start,
                                      .on_slice = mlz_tally_slice,
                                      .part_bytes = sizeof(struct mlz_counter),
                                      .prepare_part = mlz_tally_prepare,
                                      .clear_part = mlz_tally_clear_part,
                                      .context = run});
  free(start.ordinals);
}
