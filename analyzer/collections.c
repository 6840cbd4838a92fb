#include "analyzer/collections.h"

#include "analyzer/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct gc_pass {
  struct mlz_input *in;
  struct mlz_collections *out;
  uint32_t *trigger_of; /* by stack: place + 1 */
  uint32_t n_stacks;
  size_t room_triggers, room_pauses;
};

static void add_longest(struct mlz_collections *c, const struct mlz_pause *p) {
  enum { N = sizeof c->longest / sizeof *c->longest };
  if (c->n_longest == N && p->duration_ns <= c->longest[N - 1].duration_ns) return;
  unsigned i = c->n_longest < N ? c->n_longest++ : N - 1;
  for (; i && c->longest[i - 1].duration_ns < p->duration_ns; i--) c->longest[i] = c->longest[i - 1];
  c->longest[i] = *p;
}

static void add_trigger(struct gc_pass *pass, const struct mlz_pause *p) {
  struct mlz_collections *c = pass->out;
  if (p->stack >= pass->n_stacks) return;
  if (!pass->trigger_of[p->stack]) {
    if (c->n_triggers == pass->room_triggers) {
      pass->room_triggers = pass->room_triggers ? pass->room_triggers * 2 : 64;
      c->triggers = mlz_text_realloc(c->triggers, pass->room_triggers, sizeof *c->triggers);
    }
    c->triggers[c->n_triggers++] = (struct mlz_gc_trigger){.stack = p->stack};
    pass->trigger_of[p->stack] = (uint32_t)c->n_triggers;
  }
  struct mlz_gc_trigger *t = &c->triggers[pass->trigger_of[p->stack] - 1];
  t->count++;
  t->pause_ns += p->duration_ns;
  t->collected += p->collected;
}

static void add_generation(struct mlz_gc_generation *g, const struct mlz_pause *p) {
  mlz_quantiles_add(&g->pauses, p->duration_ns);
  g->collected += p->collected;
  g->uncollectable += p->uncollectable;
}

/* A pause counts in each slice that it touches, for the time it spends there: no slice of one process exceeds its width. */
static void add_slices(struct mlz_collections *c, uint64_t start_ns, uint64_t duration_ns) {
  double width = (double)c->duration_ns / MLZ_GC_SLICES, at = (double)start_ns, end = at + (double)duration_ns;
  if (start_ns >= c->duration_ns) return;
  for (unsigned i = (unsigned)(at / width); i < MLZ_GC_SLICES && at < end; i++) {
    double edge = (i + 1) * width;
    if (edge <= at) continue;
    c->slices[i] += (uint64_t)llround((edge < end ? edge : end) - at);
    at = edge;
  }
}

static void add_pause(struct gc_pass *pass, const struct mlz_pause *p) {
  struct mlz_collections *c = pass->out;
  add_generation(&c->generations[p->generation < MLZ_GC_GENERATIONS ? p->generation : MLZ_GC_GENERATIONS - 1], p);
  add_generation(&c->all, p);
  add_longest(c, p);
  add_trigger(pass, p);
  add_slices(c, p->start_ns, p->duration_ns);
  if (c->n_pauses >= c->pauses_kept) return;
  if (c->n_pauses == pass->room_pauses) {
    pass->room_pauses = pass->room_pauses ? pass->room_pauses * 2 : 256;
    c->pauses = mlz_text_realloc(c->pauses, pass->room_pauses, sizeof *c->pauses);
  }
  c->pauses[c->n_pauses++] = *p;
}

static void gc_slice(void *context, const struct mlz_slice *slice) {
  struct gc_pass *pass = context;
  uint32_t i, end;
  mlz_slice_rares(slice, &i, &end);
  for (; i < end; i++) {
    const struct mlz_rare *r = &slice->block->rares[i];
    if (r->op != MLZ_OP_GC) continue;
    struct mlz_pause p = {r->start_ns, r->duration_ns, r->collected, r->uncollectable, r->generation, r->stack, slice->process->index};
    add_pause(pass, &p);
  }
}

static int compare_triggers(const void *a, const void *b) {
  const struct mlz_gc_trigger *x = a, *y = b;
  if (x->pause_ns != y->pause_ns) return x->pause_ns > y->pause_ns ? -1 : 1;
  return x->stack < y->stack ? -1 : x->stack > y->stack;
}

static int compare_pauses(const void *a, const void *b) {
  const struct mlz_pause *x = a, *y = b;
  return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

void mlz_collections_find(struct mlz_input *in, const struct mlz_cut *from, const struct mlz_cut *to, uint64_t keep,
                          struct mlz_collections *out) {
  struct gc_pass pass = {.in = in, .out = out, .n_stacks = mlz_trace_stacks(in->trace)};
  *out = (struct mlz_collections){.pauses_kept = keep, .duration_ns = mlz_input_duration(in)};
  pass.trigger_of = mlz_text_calloc(pass.n_stacks, sizeof *pass.trigger_of);
  mlz_scan_run(
      in, &(struct mlz_scan){.want = from || to ? 0 : MLZ_WANT_RARES_ONLY, .from = from, .to = to, .on_slice = gc_slice, .context = &pass});
  if (out->n_triggers) qsort(out->triggers, out->n_triggers, sizeof *out->triggers, compare_triggers);
  if (out->n_pauses) qsort(out->pauses, out->n_pauses, sizeof *out->pauses, compare_pauses);
  free(pass.trigger_of);
}

void mlz_collections_clear(struct mlz_collections *c) {
  for (unsigned g = 0; g < MLZ_GC_GENERATIONS; g++) mlz_quantiles_clear(&c->generations[g].pauses);
  mlz_quantiles_clear(&c->all.pauses);
  free(c->pauses);
  free(c->triggers);
  *c = (struct mlz_collections){0};
}
