#include "tracer/recorder/totals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 1024u
#define BASE_EVERY 64u /* points: what damage to one chunk may take away, and what it costs to begin reading anywhere */

struct mlz_totals *mlz_totals_new(void) {
  struct mlz_totals *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->slots = calloc(SLOTS_MIN, sizeof *t->slots);
  t->rows = calloc(64, sizeof *t->rows);
  t->mask = SLOTS_MIN - 1;
  t->room = 64;
  t->n = t->defined = 1;
  return t->slots && t->rows ? t : mlz_totals_free(t);
}

struct mlz_totals *mlz_totals_free(struct mlz_totals *t) {
  if (!t) return NULL;
  free(t->rows);
  free(t->slots);
  free(t);
  return NULL;
}

static void put(struct mlz_totals_slot *slots, uint32_t mask, struct mlz_totals_slot s) {
  uint32_t at = mlz_totals_hash(s.key - 1);
  while (slots[at & mask].key) at++;
  slots[at & mask] = s;
}

static bool make_room(struct mlz_totals *t) {
  if (t->n == t->room) {
    uint32_t room = t->room < UINT32_MAX / 2 ? t->room * 2 : 0;
    struct mlz_totals_sum *grown = room ? reallocarray(t->rows, room, sizeof *grown) : NULL;
    if (!grown) return false;
    t->rows = grown;
    t->room = room;
  }
  if (t->n * UINT64_C(4) < t->mask) return true;
  uint32_t mask = t->mask * 2 + 1;
  struct mlz_totals_slot *grown = calloc((size_t)mask + 1, sizeof *grown);
  if (!grown) return t->n < t->mask; /* slower, as long as one is left */
  for (uint32_t i = 0; i <= t->mask; i++) {
    if (t->slots[i].key) put(grown, mask, t->slots[i]);
  }
  free(t->slots);
  t->slots = grown;
  t->mask = mask;
  return true;
}

__attribute__((noinline)) uint32_t mlz_totals_row_slow(struct mlz_totals *t, uint32_t stack, unsigned domain, uint32_t weight, double w) {
  uint64_t key = mlz_totals_hash_key(stack, domain, weight);
  for (uint32_t at = mlz_totals_hash(key);; at++) {
    const struct mlz_totals_slot *s = &t->slots[at & t->mask];
    if (s->key == key + 1) return s->row;
    if (!s->key) break;
  }
  if (!make_room(t)) return 0;
  put(t->slots, t->mask, (struct mlz_totals_slot){.key = key + 1, .row = t->n});
  t->rows[t->n] = (struct mlz_totals_sum){.key = {.stack = stack, .domain = domain, .weight = w}};
  return t->n++;
}

void mlz_totals_square(struct mlz_totals_sum *s, unsigned of, uint64_t size) { s->squares[of] += (double)size * (double)size; }

static uint64_t square(double sum) {
  double units = sum / MLZ_TOTAL_SQUARE;
  return units < 9e18 ? (uint64_t)llround(units) : UINT64_C(9000000000000000000);
}

/* What has changed since the point before, or all that is not 0; returns how many. */
static uint32_t collect(struct mlz_totals *t, bool base, struct mlz_totals_change *changes) {
  uint32_t n = 0;
  for (uint32_t row = 1; row < t->n; row++) {
    struct mlz_totals_sum *s = &t->rows[row];
    struct mlz_totals_change *c = &changes[n];
    uint64_t is[MLZ_TOTALS];
    memcpy(is, s->now, sizeof s->now);
    is[MLZ_TOTAL_ALLOC_SQUARES] = square(s->squares[0]);
    is[MLZ_TOTAL_FREE_SQUARES] = square(s->squares[1]);
    if (!base && memcmp(is, s->then, sizeof is) == 0) continue;
    c->row = row - 1;
    for (unsigned i = 0; i < MLZ_TOTALS; i++) c->by[i] = is[i] - (base ? 0 : s->then[i]);
    memcpy(s->then, is, sizeof is);
    n++;
  }
  return n;
}

void mlz_totals_write(struct mlz_totals *t, struct mlz_writer *writer, struct mlz_totals_head *head) {
  bool base = t->points % BASE_EVERY == 0;
  uint32_t first = base ? 1 : t->defined, n_rows = t->n - first;
  struct mlz_totals_change *changes = malloc((size_t)t->n * sizeof *changes);
  struct mlz_totals_key *rows = malloc(((size_t)n_rows + 1) * sizeof *rows);
  head->events = t->events;
  head->foreign = t->foreign;
  head->peak_bytes = t->peak_bytes;
  head->peak_ns = t->peak_ns;
  if (changes && rows) {
    for (uint32_t i = 0; i < n_rows; i++) rows[i] = t->rows[first + i].key;
    mlz_writer_totals(writer, head, &t->part, base, rows, n_rows, changes, collect(t, base, changes));
    t->defined = t->n;
    t->points++;
  } else {
    t->points = 0; /* the point is lost; the next one stands alone */
    t->part++;
  }
  free(changes);
  free(rows);
}
