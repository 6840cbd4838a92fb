#include "analyzer/scan.h"

#include "analyzer/text.h"

#include <stdlib.h>
#include <string.h>

/* What the walk remembers of each process. */
struct walk {
  uint64_t ordinal;    /* events before the chunk */
  uint64_t allocs;     /* number of the next allocation */
  uint64_t from_alloc; /* number of the first allocation above the lower limit */
  uint64_t last_ns;
  bool started; /* the lower limit was passed */
  bool ended;   /* the upper limit was passed */
  bool seen;    /* had a slice */
};

/* Events with a time up to `ns`: times never go back within a chunk. */
static uint32_t count_until(const struct mlz_block *b, uint64_t ns) {
  if (b->last_ns <= ns) return b->n;
  if (b->first_ns > ns) return 0;
  uint32_t low = 0, high = b->n_steps; /* the last step up to it */
  while (high - low > 1) {
    uint32_t middle = low + (high - low) / 2;
    if (b->step_ns[middle] <= ns)
      low = middle;
    else
      high = middle;
  }
  return mlz_block_step_end(b, low);
}

static uint32_t finalize_place(const struct mlz_block *b) {
  for (uint32_t i = 0; i < b->n_rares; i++)
    if (b->rares[i].op == MLZ_OP_FINALIZE) {
      const uint8_t *at = memchr(b->ops, MLZ_OP_FINALIZE, b->n);
      return at ? (uint32_t)(at - b->ops) : b->n;
    }
  return b->n;
}

/* How many of the chunk's events lie below the limit; *passed is set when the limit lies within (or before) the chunk. */
static uint32_t below(const struct mlz_block *b, struct mlz_cut_limit limit, uint64_t ordinal, bool *passed) {
  uint32_t n = b->n;
  if (limit.mode == MLZ_CUT_TIME) n = count_until(b, limit.value);
  if (limit.mode == MLZ_CUT_ORDINAL) n = limit.value <= ordinal ? 0 : limit.value - ordinal < n ? (uint32_t)(limit.value - ordinal) : n;
  *passed = n < b->n;
  return n;
}

/* Eight ops at a time: a byte of `x` is 0 where the op is the wanted one, and the sum below has bit 7 clear only there. */
uint64_t mlz_scan_count(const uint8_t *ops, size_t n, enum mlz_op op) {
  const uint64_t ones = UINT64_C(0x0101010101010101), low = ones * 0x7f;
  uint64_t count = 0;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t x;
    memcpy(&x, ops + i, 8);
    x ^= ones * (uint8_t)op;
    count += ((~(((x & low) + low) | x | low)) >> 7) * ones >> 56;
  }
  for (; i < n; i++) count += ops[i] == (uint8_t)op;
  return count;
}

/* The ops say where a row of the rare column stands; they are walked only if the slice is not all of the chunk. */
void mlz_slice_rares(const struct mlz_slice *slice, uint32_t *first, uint32_t *end) {
  const struct mlz_block *b = slice->block;
  *first = 0;
  *end = b->n_rares;
  if (!b->n_rares || (!slice->from && slice->to == b->n)) return;
  uint32_t n = 0;
  for (uint32_t i = 0; i < slice->to; i++) {
    if (i == slice->from) *first = n;
    n += b->ops[i] >= MLZ_OP_RARE;
  }
  *end = n < b->n_rares ? n : b->n_rares;
}

static uint64_t count_allocs(const struct mlz_block *b, uint32_t n) {
  return n == b->n ? b->allocs : n == 0 ? 0 : mlz_scan_count(b->ops, n, MLZ_OP_ALLOC);
}

/* A file that was cut may not say that its rate was changed. */
static bool has_weights(const struct mlz_block *b) {
  for (uint32_t c = 0; c < b->n_classes; c++)
    if (b->classes[c].weight > 1) return true;
  return false;
}

static void count_losses(struct mlz_input *in, const struct mlz_block *b) {
  for (uint32_t i = 0; i < b->n_rares; i++)
    if (b->rares[i].op == MLZ_OP_LOST) {
      in->lost_allocs += b->rares[i].collected;
      in->lost_frees += b->rares[i].uncollectable;
    }
}

static void end_process(const struct mlz_scan *scan, struct mlz_process *p, struct walk *w, bool finalized) {
  struct mlz_process_end end = {p, w->allocs, w->last_ns, finalized};
  if (w->seen && !w->ended && scan->on_process_end) scan->on_process_end(scan->context, &end);
  w->ended = true;
}

static uint64_t start_of(const struct mlz_scan *scan, const struct mlz_process *p) {
  return scan->start && p->index < scan->start->n ? scan->start->ordinals[p->index] : 0;
}

/* Is the chunk all before the lower limit? One with the process's end in it must be read. */
static bool before_all(const struct mlz_ahead *a, const struct mlz_process *p, struct mlz_cut_limit from, struct mlz_cut_limit to) {
  if (to.mode != MLZ_CUT_EXIT && a->last_ns >= p->finalize_ns) return false;
  return (from.mode == MLZ_CUT_TIME && a->last_ns <= from.value) || (from.mode == MLZ_CUT_ORDINAL && a->ordinal + a->events <= from.value);
}

static bool beyond(const struct mlz_ahead *a, struct mlz_cut_limit to) {
  return (to.mode == MLZ_CUT_TIME && a->first_ns > to.value) || (to.mode == MLZ_CUT_ORDINAL && a->ordinal >= to.value);
}

/* Need the chunk ahead not be read? What walk_block would have done is done. */
static bool pass_over(const struct mlz_scan *scan, const struct mlz_ahead *a, struct mlz_process *p, struct walk *w,
                      struct mlz_cut_limit from, struct mlz_cut_limit to) {
  if (!p->chosen || w->ended || (p->ended_before && to.mode != MLZ_CUT_EXIT) || a->ordinal + a->events <= start_of(scan, p)) return true;
  if (scan->from && !w->started && before_all(a, p, from, to)) return true;
  if (!beyond(a, to)) return false;
  w->last_ns = a->first_ns;
  w->allocs = a->first_alloc;
  end_process(scan, p, w, false);
  return true;
}

static void walk_block(const struct mlz_scan *scan, const struct mlz_block *b, const void *part, struct mlz_process *p, struct walk *w,
                       struct mlz_cut_limit from, struct mlz_cut_limit to) {
  struct mlz_slice slice = {.block = b, .process = p, .to = b->n, .ordinal = w->ordinal};
  bool passed = false, finalized = false;
  slice.to = below(b, to, w->ordinal, &passed);
  if (to.mode != MLZ_CUT_EXIT) {
    uint32_t end = finalize_place(b);
    if (end < b->n && end <= slice.to) slice.to = end, finalized = true;
  }
  if (scan->from && !w->started) {
    slice.from = below(b, from, w->ordinal, &w->started);
    if (w->started) w->from_alloc = b->first_alloc + count_allocs(b, slice.from);
  }
  slice.from_alloc = w->from_alloc;
  uint64_t start = start_of(scan, p);
  if (start > w->ordinal + slice.from) slice.from = start - w->ordinal < b->n ? (uint32_t)(start - w->ordinal) : b->n;
  if (!slice.from && slice.to == b->n && !slice.from_alloc) slice.part = part;
  w->last_ns = slice.to == b->n || !b->n_steps ? b->last_ns : slice.to ? mlz_block_time(b, slice.to - 1) : b->first_ns;
  w->allocs = b->first_alloc + count_allocs(b, slice.to);
  if (slice.from < slice.to && (!scan->from || w->started)) {
    w->seen = true;
    if (scan->on_slice) scan->on_slice(scan->context, &slice);
  }
  if (passed || finalized) end_process(scan, p, w, finalized);
}

struct run {
  struct mlz_input *in;
  const struct mlz_scan *scan;
  const struct mlz_cut *to;
  struct walk *walks; /* by process index */
  size_t n_walks;
};

static struct mlz_cut_limit lower(const struct run *run, const struct mlz_process *p) {
  return run->scan->from ? mlz_cut_limit_of(run->scan->from, p->index) : run->to->all;
}
static struct mlz_cut_limit upper(const struct run *run, const struct mlz_process *p) { return mlz_cut_limit_of(run->to, p->index); }

static struct walk *walk_of(struct run *run, const struct mlz_process *p) {
  if (p->index >= run->n_walks) {
    size_t n = run->in->n_processes;
    run->walks = mlz_text_realloc(run->walks, n, sizeof *run->walks);
    memset(run->walks + run->n_walks, 0, (n - run->n_walks) * sizeof *run->walks);
    run->n_walks = n;
  }
  return &run->walks[p->index];
}

/* What of pass_chunk's answer is known beforehand. */
static bool skip_chunk(void *context, const struct mlz_ahead *a) {
  const struct run *run = context;
  struct mlz_process *p = mlz_input_process(run->in, a->process);
  if (run->scan->on_block) return false;
  return !p->chosen || a->ordinal + a->events <= start_of(run->scan, p) ||
         (run->scan->from && before_all(a, p, lower(run, p), upper(run, p))) || beyond(a, upper(run, p));
}

static bool pass_chunk(void *context, const struct mlz_ahead *a) {
  struct run *run = context;
  struct mlz_process *p = mlz_input_process(run->in, a->process);
  if (run->scan->on_block || !pass_over(run->scan, a, p, walk_of(run, p), lower(run, p), upper(run, p))) return false;
  run->in->events_read += a->events;
  return true;
}

static void prepare(void *context, const struct mlz_block *b, void *part) {
  const struct mlz_scan *scan = ((struct run *)context)->scan;
  scan->prepare_part(scan->context, b, part);
}

static void take_block(void *context, const struct mlz_block *b, void *part) {
  struct run *run = context;
  struct mlz_input *in = run->in;
  const struct mlz_scan *scan = run->scan;
  struct mlz_process *p = mlz_input_process(in, b->process);
  struct walk *w = walk_of(run, p);
  w->ordinal = b->ordinal;
  in->events_read += b->n;
  if (!in->estimated) in->estimated = has_weights(b);
  if (scan->on_block) scan->on_block(scan->context, b, p);
  if (p->chosen && !(scan->want & MLZ_WANT_MARKS_ONLY)) count_losses(in, b);
  bool gone = p->ended_before && upper(run, p).mode != MLZ_CUT_EXIT;
  if (p->chosen && !w->ended && !gone) walk_block(scan, b, part, p, w, lower(run, p), upper(run, p));
}

void mlz_scan_run(struct mlz_input *in, const struct mlz_scan *scan) {
  static const struct mlz_cut whole = {{MLZ_CUT_END, 0}, NULL, 0};
  struct run run = {.in = in, .scan = scan, .to = scan->to ? scan->to : &whole};
  in->events_read = 0;
  if (!(scan->want & MLZ_WANT_MARKS_ONLY)) in->lost_allocs = in->lost_frees = 0; /* else what another scan found holds */
  int rc = mlz_trace_read_all(in->trace, &(struct mlz_reading){.want = scan->want,
                                                               .jobs = in->jobs,
                                                               .skip = skip_chunk,
                                                               .pass = pass_chunk,
                                                               .part_bytes = scan->part_bytes,
                                                               .prepare = scan->prepare_part ? prepare : NULL,
                                                               .clear = scan->clear_part,
                                                               .take = take_block,
                                                               .context = &run});
  if (rc < 0) mlz_input_fail(in, "out of memory while reading");
  for (size_t i = 0; i < run.n_walks; i++) end_process(scan, in->processes[i], &run.walks[i], false);
  free(run.walks);
}

void mlz_cut_clear(struct mlz_cut *cut) {
  free(cut->limits);
  *cut = (struct mlz_cut){{MLZ_CUT_END, 0}, NULL, 0};
}
