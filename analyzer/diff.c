#include "analyzer/diff.h"

#include "analyzer/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *mlz_diff_status_name(enum mlz_diff_status status) {
  static const char *const names[] = {"new", "gone", "grew", "shrank", "same"};
  return names[status];
}

/* Sums of estimates differ in their last digits. */
static bool is_nothing(double value) { return fabs(value) < 0.5; }

enum mlz_diff_status mlz_diff_status_of(const struct mlz_diff_site *s) {
  double before = s->amount[MLZ_BEFORE].value, after = s->amount[MLZ_AFTER].value;
  if (is_nothing(after - before)) return MLZ_DIFF_SAME;
  if (is_nothing(before)) return MLZ_DIFF_NEW;
  if (is_nothing(after)) return MLZ_DIFF_GONE;
  return after > before ? MLZ_DIFF_GREW : MLZ_DIFF_SHRANK;
}

/* ---- uncertainty ---- */

static double left(double more, double less) { return more > less ? more - less : 0; }

/* The variance of a difference within one trace, as the spread of something allocated and not freed. What lives at both instants is in
 * neither sum: new survivors, and old blocks that were freed between. */
static struct mlz_spread spread_between(const struct mlz_diff_site *s, enum mlz_metric metric) {
  bool forward = s->spread[MLZ_AFTER].alloc_count >= s->spread[MLZ_BEFORE].alloc_count;
  const struct mlz_spread *late = &s->spread[forward ? MLZ_AFTER : MLZ_BEFORE], *early = &s->spread[forward ? MLZ_BEFORE : MLZ_AFTER];
  const struct mlz_spread *b = &s->between;
  struct mlz_spread out = {.step_count = fmax(late->step_count, early->step_count),
                           .step_bytes = fmax(late->step_bytes, early->step_bytes)};
  out.alloc_count = left(late->alloc_count, early->alloc_count);
  out.alloc_bytes = left(late->alloc_bytes, early->alloc_bytes);
  out.temp_count = left(late->temp_count, early->temp_count);
  if (!mlz_metric_lives(metric)) return out;
  out.alloc_count = left(b->alloc_count, b->free_count) + left(late->free_count - early->free_count, b->free_count);
  out.alloc_bytes = left(b->alloc_bytes, b->free_bytes) + left(late->free_bytes - early->free_bytes, b->free_bytes);
  return out;
}

void mlz_diff_finish(struct mlz_diff_site *s, enum mlz_metric metric, bool between) {
  for (int side = 0; side < MLZ_SIDES; side++) s->error[side] = mlz_measure_error(metric, &s->spread[side]);
  s->difference = hypot(s->error[MLZ_BEFORE], s->error[MLZ_AFTER]);
  if (!between) return;
  struct mlz_spread spread = spread_between(s, metric);
  double error = mlz_measure_error(metric, &spread);
  if (error < s->difference) s->difference = error;
}

void mlz_diff_add(struct mlz_diff_site *into, const struct mlz_diff_site *more) {
  for (int side = 0; side < MLZ_SIDES; side++) {
    into->amount[side].value += more->amount[side].value;
    into->amount[side].count += more->amount[side].count;
    mlz_spread_join(&into->spread[side], &more->spread[side]);
  }
  mlz_spread_join(&into->between, &more->between);
}

bool mlz_diff_between(struct mlz_input *const *in, const struct mlz_measure *m, bool include_mmap, struct mlz_tally_run *out) {
  bool sampled = m[MLZ_BEFORE].run.n_spreads || m[MLZ_AFTER].run.n_spreads;
  if (!sampled || m->metric == MLZ_BY_PEAK_BYTES || in[MLZ_AFTER]->totals_only ||
      !mlz_input_same_file(in[MLZ_BEFORE]->path, in[MLZ_AFTER]->path))
    return false;
  bool forward = m[MLZ_AFTER].run.total.alloc_count >= m[MLZ_BEFORE].run.total.alloc_count;
  const struct mlz_cut *early = m[forward ? MLZ_BEFORE : MLZ_AFTER].window.to, *late = m[forward ? MLZ_AFTER : MLZ_BEFORE].window.to;
  if (!early) return false;
  mlz_tally_scan(out, in[MLZ_AFTER], MLZ_TALLY_STACK, include_mmap, early, late);
  return true;
}

/* ---- sites ---- */

struct building {
  const struct mlz_match *match;
  struct mlz_diff *diff;
  struct mlz_intern keys;
  uint32_t *words; /* one key */
  size_t room_words, room;
};

static void put_word(struct building *b, size_t n, uint32_t word) {
  if (n >= b->room_words) {
    b->room_words = b->room_words ? b->room_words * 2 : 64;
    b->words = mlz_text_realloc(b->words, b->room_words, sizeof *b->words);
  }
  b->words[n] = word;
}

/* What a stack belongs to: the same number for both traces. */
static uint32_t key_of(struct building *b, enum mlz_side side, uint32_t stack) {
  uint32_t n, words = 0;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(b->match->in[side]->trace, stack, &n, &truncated);
  if (!n) return mlz_intern_key(&b->keys, "", 0);
  uint32_t index = mlz_match_of(b->match, side, frames[0]);
  const struct mlz_match_frame *frame = &b->match->frames[index];
  switch (b->diff->group) {
  case MLZ_GROUP_MODULE: {
    struct mlz_place p = mlz_match_place(b->match, index);
    if (*p.module) return mlz_intern_text(&b->keys, p.module);
    put_word(b, words++, frame->file);
    put_word(b, words++, 0); /* eight bytes that end in a NUL are no module's name */
    break;
  }
  case MLZ_GROUP_FILE:
    put_word(b, words++, frame->file);
    break;
  case MLZ_GROUP_FUNCTION:
    put_word(b, words++, frame->function);
    break;
  case MLZ_GROUP_STACK:
    /* Callers as functions, as in a flame graph: one of their lines mistaken would make all below it new and gone. */
    put_word(b, words++, index);
    for (uint32_t i = 1; i < n; i++) put_word(b, words++, b->match->frames[mlz_match_of(b->match, side, frames[i])].function);
    put_word(b, words++, truncated);
    break;
  default:
    put_word(b, words++, index);
  }
  return mlz_intern_key(&b->keys, b->words, words * sizeof *b->words);
}

static struct mlz_diff_site *site_of(struct building *b, uint32_t key) {
  struct mlz_diff *d = b->diff;
  if (key < d->n) return &d->sites[key];
  if (d->n == b->room) {
    b->room = b->room ? b->room * 2 : 256;
    d->sites = mlz_text_realloc(d->sites, b->room, sizeof *d->sites);
  }
  d->sites[d->n] = (struct mlz_diff_site){.stack = {MLZ_INTERN_NONE, MLZ_INTERN_NONE}};
  return &d->sites[d->n++];
}

static void add_side(struct building *b, enum mlz_side side, const struct mlz_measure *m) {
  for (uint32_t row = 0; row < m->run.n; row++) {
    const struct mlz_tally *t = &m->run.rows[row];
    if (!(t->alloc_count > 0) && !(t->free_count > 0)) continue;
    struct mlz_diff_site *site = site_of(b, key_of(b, side, row));
    struct mlz_amount a = mlz_measure_row(m, row);
    struct mlz_spread spread = mlz_tally_spread(&m->run, row);
    site->amount[side].value += a.value;
    site->amount[side].count += a.count;
    mlz_spread_join(&site->spread[side], &spread);
    if (site->stack[side] != MLZ_INTERN_NONE && a.value <= site->weight[side]) continue;
    site->stack[side] = row;
    site->weight[side] = a.value;
  }
}

static void add_between(struct building *b, const struct mlz_tally_run *between) {
  for (uint32_t row = 0; row < between->n_spreads; row++) {
    if (!(between->rows[row].alloc_count > 0)) continue;
    struct mlz_spread spread = mlz_tally_spread(between, row);
    mlz_spread_join(&site_of(b, key_of(b, MLZ_AFTER, row))->between, &spread);
  }
}

static int compare_sites(const void *a, const void *b) {
  const struct mlz_diff_site *x = a, *y = b;
  double dx = fabs(mlz_diff_delta(x)), dy = fabs(mlz_diff_delta(y));
  if (dx != dy) return dx > dy ? -1 : 1;
  for (int side = MLZ_AFTER; side >= MLZ_BEFORE; side--)
    if (x->stack[side] != y->stack[side]) return x->stack[side] < y->stack[side] ? -1 : 1;
  return 0;
}

void mlz_diff_build(const struct mlz_match *match, const struct mlz_measure *m, const struct mlz_tally_run *between, enum mlz_group group,
                    struct mlz_diff *out) {
  *out = (struct mlz_diff){.group = group, .metric = m->metric, .total = {.stack = {MLZ_INTERN_NONE, MLZ_INTERN_NONE}}};
  struct building b = {.match = match, .diff = out};
  for (int side = 0; side < MLZ_SIDES; side++) {
    add_side(&b, (enum mlz_side)side, &m[side]);
    out->total.amount[side] = mlz_measure_total(&m[side]);
    out->total.spread[side] = m[side].run.total_spread;
  }
  if (between) {
    add_between(&b, between);
    out->total.between = between->total_spread;
  }
  for (size_t i = 0; i < out->n; i++) {
    for (int side = 0; side < MLZ_SIDES; side++) mlz_spread_floor(&out->sites[i].spread[side], &m[side].run.total_spread);
    mlz_diff_finish(&out->sites[i], out->metric, between);
  }
  mlz_diff_finish(&out->total, out->metric, between);
  mlz_intern_clear(&b.keys);
  free(b.words);
  if (out->n) qsort(out->sites, out->n, sizeof *out->sites, compare_sites);
}

void mlz_diff_clear(struct mlz_diff *diff) {
  free(diff->sites);
  *diff = (struct mlz_diff){0};
}
