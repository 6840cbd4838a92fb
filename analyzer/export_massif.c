/* The file of valgrind's massif, as ms_print and massif-visualizer read it: the heap's course, with the stacks at some instants and at the peak.
 *
 * One pass sums up how much the heap changed in each of SNAPSHOTS intervals; a pass of its own for each instant whose stacks are shown. A process that has
 * ended holds nothing. */
#include "analyzer/begin.h"
#include "analyzer/export.h"

#include "analyzer/flame.h"
#include "analyzer/text.h"
#include "analyzer/totals.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SNAPSHOTS = 80, DETAILED = 20 }; /* every twentieth has its stacks */
#define LEAST_PERCENT 1.0               /* smaller parts of a heap are summed up, as massif does */

struct course {
  struct mlz_export *e;
  uint64_t width_ns;
  double change[SNAPSHOTS];
  struct member { /* by process index */
    double live;
    uint64_t ended_ns;
  } * members;
  size_t n_members;
  uint64_t end_ns; /* the last event */
};

static struct member *member_of(struct course *c, uint32_t index) {
  if (index >= c->n_members) {
    c->members = mlz_text_realloc(c->members, index + 1, sizeof *c->members);
    while (c->n_members <= index) c->members[c->n_members++] = (struct member){0, UINT64_MAX};
  }
  return &c->members[index];
}

static size_t interval_of(const struct course *c, uint64_t ns) {
  uint64_t k = ns / c->width_ns;
  return k < SNAPSHOTS ? (size_t)k : SNAPSHOTS - 1;
}

static void read_slice(void *context, const struct mlz_slice *slice) {
  struct course *c = context;
  const struct mlz_block *b = slice->block;
  struct member *m = member_of(c, slice->process->index);
  for (uint32_t i = slice->from; i < slice->to; i++) {
    int sign = mlz_export_sign(c->e, slice, i);
    if (!sign) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    double change = sign * class->weight * (double)class->size;
    c->change[interval_of(c, b->time_ns[i])] += change;
    m->live += change;
  }
}

static void end_process(void *context, const struct mlz_process_end *end) {
  struct course *c = context;
  if (end->last_ns > c->end_ns) c->end_ns = end->last_ns;
  member_of(c, end->process->index)->ended_ns = mlz_export_ended(end);
}

static void read_point(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct course *c = context;
  struct member *m = member_of(c, process->index);
  struct mlz_tally t = {0};
  for (uint32_t i = 0; i < point->n; i++)
    if (mlz_totals_counts(&point->rows[i], c->e->common->include_mmap)) {
      mlz_totals_row_tally(point, &point->rows[i], &t, NULL);
      c->e->in->estimated |= point->rows[i].key.weight > 1;
    }
  double live = t.alloc_bytes - t.free_bytes;
  c->change[interval_of(c, point->head.ns)] += live - m->live;
  m->live = live;
  if (point->head.ns > c->end_ns) c->end_ns = point->head.ns;
  if (point->head.point == MLZ_POINT_END && process->end_ns) m->ended_ns = point->head.ns;
}

static void follow(struct course *c) {
  struct mlz_export *e = c->e;
  c->width_ns = mlz_input_duration(e->in) / SNAPSHOTS + 1;
  if (e->window.to && e->window.to->all.mode == MLZ_CUT_TIME && e->window.to->all.value < mlz_input_duration(e->in))
    c->width_ns = e->window.to->all.value / SNAPSHOTS + 1;
  if (!e->window.from) mlz_begin_first(e->in, false, read_point, c);
  if (e->in->totals_only)
    mlz_totals_until(e->in, e->window.to, read_point, c);
  else
    mlz_scan_run(e->in, &(struct mlz_scan){.want = mlz_export_want(e),
                                           .from = e->window.from,
                                           .to = e->window.to,
                                           .on_slice = read_slice,
                                           .on_process_end = end_process,
                                           .context = c});
  for (size_t i = 0; i < c->n_members; i++) {
    struct member *m = &c->members[i];
    if (m->ended_ns < c->end_ns) c->change[interval_of(c, m->ended_ns)] -= m->live;
  }
}

/* ---- stacks ---- */

struct shown { /* a snapshot with its stacks */
  struct mlz_flame tree;
  double bytes;
  bool known;
};

/* Allocating lines are the root's children, their callers stand below them: the flame graph's tree, turned round. */
static void take_stacks(struct mlz_export *e, const struct mlz_cut *to, struct shown *out) {
  struct mlz_tally_run run;
  mlz_tally_scan(&run, e->in, MLZ_TALLY_STACK, e->common->include_mmap, e->window.from, to);
  mlz_flame_begin(&out->tree, true);
  for (size_t i = 0; i < run.n; i++) {
    double live = mlz_tally_live_bytes(&run.rows[i]);
    if (live > 0) mlz_flame_add(&out->tree, e->in, (uint32_t)i, live, 0);
  }
  out->bytes = out->tree.nodes[0].value;
  out->known = true;
  mlz_tally_clear(&run);
}

/* The processes that ran at the end of interval k, as they stood there. */
static void take_interval(const struct course *c, size_t k, struct shown *out) {
  struct mlz_export *e = c->e;
  uint64_t ns = (k + 1) * c->width_ns - 1;
  bool last = interval_of(c, c->end_ns) <= k;
  struct mlz_cut cut = {.all = {MLZ_CUT_TIME, ns}, .n_limits = e->in->n_processes};
  cut.limits = mlz_text_calloc(cut.n_limits + 1, sizeof *cut.limits);
  for (size_t i = 0; i < cut.n_limits; i++) {
    uint64_t ended = i < c->n_members ? c->members[i].ended_ns : UINT64_MAX;
    cut.limits[i] = last ? e->window.to ? mlz_cut_limit_of(e->window.to, i) : (struct mlz_cut_limit){MLZ_CUT_END, 0} : cut.all;
    if (ended < c->end_ns && ended <= ns) cut.limits[i] = (struct mlz_cut_limit){MLZ_CUT_ORDINAL, 0};
  }
  take_stacks(e, &cut, out);
  mlz_cut_clear(&cut);
}

/* Children of each node as a list: first of it, next of the same parent, largest first. */
struct children {
  const struct mlz_flame *tree;
  uint32_t *first, *next;
};

static const struct mlz_flame *sorting;
static int compare_nodes(const void *a, const void *b) {
  uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
  double x = sorting->nodes[i].value, y = sorting->nodes[k].value;
  return x != y ? (x < y ? -1 : 1) : i < k ? 1 : -1;
}

static void link_children(const struct mlz_flame *tree, struct children *out) {
  uint32_t n = (uint32_t)tree->n_nodes, *order = mlz_text_calloc(n, sizeof *order);
  *out = (struct children){tree, mlz_text_calloc(n, sizeof *out->first), mlz_text_calloc(n, sizeof *out->next)};
  for (uint32_t i = 0; i < n; i++) order[i] = i;
  sorting = tree;
  qsort(order, n, sizeof *order, compare_nodes);
  for (uint32_t i = 0; i < n; i++) { /* smallest first, each put in front: node 0 is nobody's child */
    uint32_t node = order[i], parent = tree->nodes[node].parent;
    if (!node) continue;
    out->next[node] = out->first[parent];
    out->first[parent] = node;
  }
  free(order);
}

static void write_node(const struct children *c, uint32_t node, FILE *out) {
  const struct mlz_flame_node *n = &c->tree->nodes[node];
  double least = c->tree->nodes[0].value * LEAST_PERCENT / 100, small = 0;
  unsigned shown = 0, hidden = 0;
  for (uint32_t i = c->first[node]; i; i = c->next[i]) {
    if (c->tree->nodes[i].value >= least)
      shown++;
    else
      hidden++, small += c->tree->nodes[i].value;
  }
  fprintf(out, "%*sn%u: %lld ", (int)n->depth, "", shown + (hidden > 0), llround(n->value));
  if (node) {
    char *text = mlz_export_frame_text(&c->tree->keys[n->key].place, false);
    for (char *p = text; (p = strchr(p, '#'));) *p = ':'; /* begins a comment */
    fprintf(out, "0x%X: %s\n", n->key, text);
    free(text);
  } else {
    fputs("(heap allocation functions) Python's allocators, malloc, and what calls them\n", out);
  }
  for (uint32_t i = c->first[node]; i; i = c->next[i])
    if (c->tree->nodes[i].value >= least) write_node(c, i, out);
  if (hidden)
    fprintf(out, "%*sn0: %lld in %u place%s, %sbelow massif's threshold (%.2f%%)\n", (int)n->depth + 1, "", llround(small), hidden,
            hidden == 1 ? "" : "s", hidden == 1 ? "" : "all ", LEAST_PERCENT);
}

/* ---- the file ---- */

static void write_snapshot(FILE *out, unsigned number, double ms, double bytes, const struct shown *stacks, bool peak) {
  fprintf(out, "#-----------\nsnapshot=%u\n#-----------\ntime=%.3f\nmem_heap_B=%lld\nmem_heap_extra_B=0\nmem_stacks_B=0\nheap_tree=%s\n",
          number, ms, llround(bytes > 0 ? bytes : 0),
          !stacks->known ? "empty"
          : peak         ? "peak"
                         : "detailed");
  if (!stacks->known) return;
  struct children c;
  link_children(&stacks->tree, &c);
  write_node(&c, 0, out);
  free(c.first);
  free(c.next);
}

void mlz_export_massif(struct mlz_export *e) {
  struct course c = {.e = e};
  struct shown stacks[SNAPSHOTS] = {{.known = false}}, at_peak = {.known = false};
  struct mlz_peak peak;
  follow(&c);
  size_t n = interval_of(&c, c.end_ns) + 1;
  for (size_t k = 0; k < n; k++)
    if ((k + 1) % DETAILED == 0 || k + 1 == n) take_interval(&c, k, &stacks[k]);
  mlz_peak_find(e->in, e->common->include_mmap, e->window.to, &peak);
  at_peak.bytes = peak.bytes;
  if (!e->in->totals_only) take_stacks(e, &peak.cut, &at_peak);
  FILE *out = mlz_export_open(e, true);
  char *command = mlz_input_command(mlz_trace_meta(e->in->trace)), *note = mlz_export_note(e);
  for (char *p = command; (p = strchr(p, '#'));) *p = ':';
  fprintf(out, "desc: %s\ncmd: %s\ntime_unit: ms\n", note, command);
  unsigned number = 0;
  double live = 0;
  bool written = peak.unknown || !(at_peak.bytes > 0);
  write_snapshot(out, number++, 0, 0, &(struct shown){.known = false}, false);
  for (size_t k = 0; k < n; k++) {
    uint64_t ns = k + 1 == n ? c.end_ns : (k + 1) * c.width_ns;
    live += c.change[k];
    if (!written && (peak.time_ns <= ns || k + 1 == n)) {
      write_snapshot(out, number++, (double)peak.time_ns / 1e6, at_peak.bytes, &at_peak, true);
      written = true;
    }
    write_snapshot(out, number++, (double)ns / 1e6, stacks[k].known ? stacks[k].bytes : live, &stacks[k], false);
    mlz_flame_clear(&stacks[k].tree);
  }
  mlz_flame_clear(&at_peak.tree);
  mlz_cut_clear(&peak.cut);
  free(command);
  free(note);
  free(c.members);
}
