#include "analyzer/stats.h"

#include "analyzer/begin.h"
#include "analyzer/text.h"
#include "analyzer/totals.h"

#include <stdlib.h>
#include <string.h>

uint64_t mlz_lifetime_bound(unsigned i) {
  static const uint64_t bounds[MLZ_LIFETIMES] = {100000,       1000000,      10000000,      100000000, 1000000000,
                                                 10000000000u, 60000000000u, 600000000000u, UINT64_MAX};
  return bounds[i];
}

/* Of one chunk, or a slice of it. */
struct stats_part {
  struct mlz_counter counter;
  struct mlz_peak_part peak;
  double lifetimes[MLZ_LIFETIMES];
  uint64_t foreign;
  uint64_t *alloc_ns; /* of the chunk's allocations, by number less the first */
  uint32_t room;
  size_t near;
};
struct stats_pass {
  struct mlz_input *in;
  bool include_mmap;
  struct mlz_stats *out;
  struct mlz_peak_finder *finder;
  struct stats_part part; /* of slices that have none */
};

static uint64_t *grown(uint64_t *list, size_t *n, size_t index) {
  if (index < *n) return list;
  list = mlz_text_realloc(list, index + 1, sizeof *list);
  memset(list + *n, 0, (index + 1 - *n) * sizeof *list);
  *n = index + 1;
  return list;
}

static void count_threads(struct mlz_stats *s, const struct mlz_block *b) {
  for (uint32_t i = 0; i < b->n_runs; i++) {
    uint32_t thread = b->run_thread[i];
    if (!b->run_events[i] || (thread >= s->n_threads && thread > 1u << 24)) continue; /* no table has so many */
    s->thread_events = grown(s->thread_events, &s->n_threads, thread);
    s->thread_events[thread] += b->run_events[i];
  }
}

/* Bookkeeping (a thread's start, an end, a loss) is no event of the program: taken away again, so that the sums agree with events.written. */
static void discount(struct mlz_stats *s, const struct mlz_block *b) {
  for (uint32_t r = 0, i = 0; r < b->n_runs; r++)
    for (uint32_t end = i + b->run_events[r]; i < end; i++)
      if (b->ops[i] > MLZ_OP_SNAPSHOT && b->run_thread[r] < s->n_threads) s->thread_events[b->run_thread[r]]--;
}

static void stats_block(void *context, const struct mlz_block *b, struct mlz_process *process) {
  struct mlz_stats *s = ((struct stats_pass *)context)->out;
  uint64_t bookkeeping = 0;
  for (uint32_t i = 0; i < b->n_rares; i++) {
    uint32_t op = b->rares[i].op;
    s->gc += op == MLZ_OP_GC;
    s->marks += op == MLZ_OP_MARK;
    s->snapshots += op == MLZ_OP_SNAPSHOT;
    bookkeeping += op > MLZ_OP_SNAPSHOT;
  }
  s->allocs += b->allocs;
  s->frees += b->n - b->allocs - b->n_rares;
  s->process_events = grown(s->process_events, &s->n_processes, process->index);
  s->process_events[process->index] += b->n - bookkeeping;
  count_threads(s, b);
  if (bookkeeping) discount(s, b);
}

static unsigned size_class(uint64_t size) {
  unsigned c = size <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(size - 1);
  return c < MLZ_SIZE_CLASSES ? c : MLZ_SIZE_CLASSES - 1;
}

static void add_classes(struct stats_pass *pass, const struct mlz_block *b, const struct stats_part *part) {
  struct mlz_stats *s = pass->out;
  for (uint32_t c = 0; c < b->n_classes; c++) {
    const uint32_t *counts = mlz_counter_of(&part->counter, c);
    const struct mlz_class *class = &b->classes[c];
    if (!(counts[0] | counts[1] | counts[2])) continue;
    if (class->domain < MLZ_BLOCK_DOMAINS) {
      mlz_tally_add(&s->domains[class->domain], class, counts);
      mlz_tally_add_spread(&s->domain_spreads[class->domain], class, counts);
    }
    if (class->domain == MLZ_BLOCK_MMAP && !pass->include_mmap) continue;
    mlz_tally_add(&s->total, class, counts);
    mlz_tally_add_spread(&s->spread, class, counts);
    mlz_tally_add(&s->sizes[size_class(class->size)], class, counts);
    mlz_tally_add_spread(&s->size_spreads[size_class(class->size)], class, counts);
  }
}

static unsigned lifetime_place(uint64_t ns) {
  unsigned i = 0;
  while (ns >= mlz_lifetime_bound(i) && i + 1 < MLZ_LIFETIMES) i++;
  return i;
}

static void add_lifetime(struct stats_part *part, const struct mlz_block *b, uint32_t i, uint64_t now, uint64_t born) {
  part->lifetimes[lifetime_place(now > born ? now - born : 0)] += b->classes[b->classes_of[i]].weight;
}

/* Nearly all that is freed in the chunk of its allocation lived for less than the first bound above the clock's precision: that is the one
 * likely branch, and none depends on whether an event is an allocation or a free. */
static double add_young(const struct mlz_input *in, struct stats_part *part, const struct mlz_block *b, uint32_t from, uint32_t to,
                        uint64_t now, uint64_t bound) {
  uint64_t *alloc_ns = part->alloc_ns;
  double young = 0;
  for (uint32_t i = from; i < to; i++) {
    uint8_t op = b->ops[i];
    if (op >= MLZ_OP_FREE_OLD) {
      uint64_t born;
      if (op >= MLZ_OP_FREE_FOREIGN)
        part->foreign += op == MLZ_OP_FREE_FOREIGN;
      else if (mlz_trace_alloc_time_near(in->trace, &part->near, b->process, b->alloc_no[i], &born))
        add_lifetime(part, b, i, now, born);
      continue;
    }
    uint64_t k = b->alloc_no[i] - b->first_alloc;
    k = k < b->n ? k : b->n;
    bool is_alloc = op == MLZ_OP_ALLOC;
    uint64_t born = is_alloc ? now : alloc_ns[k];
    alloc_ns[k] = born;
    if (now - born < bound)
      young += is_alloc ? 0 : b->classes[b->classes_of[i]].weight;
    else
      add_lifetime(part, b, i, now, born);
  }
  return young;
}

static void find_lifetimes(const struct mlz_input *in, struct stats_part *part, const struct mlz_slice *slice) {
  const struct mlz_block *b = slice->block;
  if (b->n >= part->room) {
    part->room = b->n + 1;
    part->alloc_ns = mlz_text_realloc(part->alloc_ns, part->room, sizeof *part->alloc_ns);
  }
  memset(part->lifetimes, 0, sizeof part->lifetimes);
  part->foreign = 0;
  uint64_t bound = mlz_lifetime_bound(0);
  while (bound < in->gap_ns) bound *= 10;
  double young = 0;
  for (uint32_t s = 0, i = slice->from; i < slice->to && s < b->n_steps; s++) {
    uint32_t end = mlz_block_step_end(b, s);
    end = end < slice->to ? end : slice->to;
    if (end <= i) continue;
    young += add_young(in, part, b, i, end, b->step_ns[s], bound);
    i = end;
  }
  part->lifetimes[lifetime_place(bound - 1)] += young;
}

static void find_part(struct stats_pass *pass, const struct mlz_slice *slice, struct stats_part *part) {
  mlz_counter_run(&part->counter, slice);
  find_lifetimes(pass->in, part, slice);
}

static void prepare_part(void *context, const struct mlz_block *b, void *part) {
  struct stats_pass *pass = context;
  find_part(pass, &(struct mlz_slice){.block = b, .to = b->n}, part);
  mlz_peak_prepare(pass->finder, b, &((struct stats_part *)part)->peak);
}

static void clear_part(void *part) {
  struct stats_part *p = part;
  mlz_counter_clear(&p->counter);
  mlz_peak_clear_part(&p->peak);
  free(p->alloc_ns);
}

static void add_collections(struct mlz_stats *s, const struct mlz_slice *slice) {
  uint32_t i, end;
  mlz_slice_rares(slice, &i, &end);
  for (; i < end; i++) {
    const struct mlz_rare *r = &slice->block->rares[i];
    if (r->op != MLZ_OP_GC) continue;
    unsigned g = r->generation < MLZ_GENERATIONS ? r->generation : MLZ_GENERATIONS - 1;
    s->gc_count[g]++;
    s->gc_ns[g] += r->duration_ns;
  }
}

static void stats_slice(void *context, const struct mlz_slice *slice) {
  struct stats_pass *pass = context;
  const struct stats_part *part = slice->part;
  if (!part) find_part(pass, slice, &pass->part);
  mlz_peak_take(pass->finder, slice, part ? &part->peak : NULL);
  if (!part) part = &pass->part;
  add_classes(pass, slice->block, part);
  for (unsigned i = 0; i < MLZ_LIFETIMES; i++) pass->out->lifetimes[i] += part->lifetimes[i];
  pass->out->foreign += (double)part->foreign;
  add_collections(pass->out, slice);
}

static void stats_process_end(void *context, const struct mlz_process_end *end) {
  mlz_peak_process_end(((struct stats_pass *)context)->finder, end);
}

/* What is live at the peak: a pass of its own, and only of a trace that is sampled. */
static void add_peak_spread(struct mlz_input *in, bool include_mmap, struct mlz_stats *out) {
  struct mlz_tally_run run;
  mlz_tally_scan(&run, in, MLZ_TALLY_DOMAIN, include_mmap, NULL, &out->peak.cut);
  out->peak_spread = run.total_spread;
  mlz_tally_clear(&run);
}

/* ---- traces of totals ---- */

struct totals_pass {
  struct mlz_input *in;
  bool include_mmap;
  struct mlz_stats *out;
  struct mlz_tally *latest; /* by process index: at its latest point */
  size_t n_latest, room;
};

static void add_totals(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct totals_pass *pass = context;
  struct mlz_stats *s = pass->out;
  (void)process;
  s->foreign += (double)point->head.foreign;
  for (uint32_t i = 0; i < point->n; i++) {
    const struct mlz_totals_row *row = &point->rows[i];
    pass->in->estimated |= row->key.weight > 1;
    mlz_totals_row_tally(point, row, &s->domains[row->key.domain], &s->domain_spreads[row->key.domain]);
    if (mlz_totals_counts(row, pass->include_mmap)) mlz_totals_row_tally(point, row, &s->total, &s->spread);
  }
}

static void add_stats_point(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct totals_pass *pass = context;
  struct mlz_stats *s = pass->out;
  if (process->index >= pass->n_latest) {
    pass->latest = mlz_text_realloc(pass->latest, process->index + 1, sizeof *pass->latest);
    memset(pass->latest + pass->n_latest, 0, (process->index + 1 - pass->n_latest) * sizeof *pass->latest);
    pass->n_latest = process->index + 1;
  }
  struct mlz_tally *now = &pass->latest[process->index];
  *now = (struct mlz_tally){0};
  for (uint32_t i = 0; i < point->n; i++)
    if (mlz_totals_counts(&point->rows[i], pass->include_mmap)) mlz_totals_row_tally(point, &point->rows[i], now, NULL);
  if (point->head.point != MLZ_POINT_SNAPSHOT) return;
  const char *name = mlz_trace_string(pass->in->trace, point->head.name);
  struct mlz_stats_point *last = s->n_points ? &s->points[s->n_points - 1] : NULL;
  if (!last || last->ns != point->head.ns || strcmp(last->name, name)) { /* each process has a point of the same snapshot */
    if (s->n_points == pass->room) {
      pass->room = pass->room ? pass->room * 2 : 64;
      s->points = mlz_text_realloc(s->points, pass->room, sizeof *s->points);
    }
    last = &s->points[s->n_points++];
  }
  *last = (struct mlz_stats_point){.name = name, .ns = point->head.ns};
  for (size_t i = 0; i < pass->n_latest; i++) {
    last->total.alloc_count += pass->latest[i].alloc_count;
    last->total.alloc_bytes += pass->latest[i].alloc_bytes;
    last->total.free_count += pass->latest[i].free_count;
    last->total.free_bytes += pass->latest[i].free_bytes;
  }
}

static void find_totals(struct mlz_input *in, bool include_mmap, const struct mlz_cut *to, struct mlz_stats *out) {
  struct totals_pass pass = {.in = in, .include_mmap = include_mmap, .out = out};
  mlz_totals_at(in, to, add_totals, &pass);
  mlz_totals_until(in, to, add_stats_point, &pass);
  mlz_cut_clear(&out->peak.cut);
  mlz_peak_find(in, include_mmap, to, &out->peak);
  free(pass.latest);
}

void mlz_stats_find(struct mlz_input *in, bool include_mmap, const struct mlz_cut *to, struct mlz_stats *out) {
  struct stats_pass pass = {.in = in, .include_mmap = include_mmap, .out = out};
  *out = (struct mlz_stats){0};
  pass.finder = mlz_peak_new(in, include_mmap);
  mlz_begin_first(in, false, add_totals, &(struct totals_pass){.in = in, .include_mmap = include_mmap, .out = out});
  mlz_scan_run(in, &(struct mlz_scan){.want = MLZ_WANT_ALLOC_NO,
                                      .to = to,
                                      .on_block = stats_block,
                                      .on_slice = stats_slice,
                                      .on_process_end = stats_process_end,
                                      .part_bytes = sizeof(struct stats_part),
                                      .prepare_part = prepare_part,
                                      .clear_part = clear_part,
                                      .context = &pass});
  mlz_peak_done(pass.finder, &out->peak);
  if (in->totals_only) find_totals(in, include_mmap, to, out);
  if (in->estimated && !in->totals_only) add_peak_spread(in, include_mmap, out);
  for (unsigned d = 0; d < MLZ_BLOCK_MMAP; d++) mlz_spread_floor(&out->domain_spreads[d], &out->spread);
  uint64_t over = mlz_input_uint(json_object_get(mlz_trace_meta(in->trace), "settings"), "sample_over", 0);
  for (unsigned i = 0; i < MLZ_SIZE_CLASSES; i++)
    if (!over || i == 0 || (UINT64_C(1) << (i - 1)) + 1 < over) mlz_spread_floor(&out->size_spreads[i], &out->spread);
  clear_part(&pass.part);
}

void mlz_stats_clear(struct mlz_stats *stats) {
  free(stats->thread_events);
  free(stats->process_events);
  free(stats->points);
  mlz_cut_clear(&stats->peak.cut);
  *stats = (struct mlz_stats){0};
}
