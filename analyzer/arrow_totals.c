/* What each stack of each process amounts to at the end of its process: one more walk over the events, or the last points of a trace that has totals only.
 * Memory: a row for each (process, stack, domain). */
#include "analyzer/arrow_trace.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct total { /* weighted: estimates of the whole */
  uint32_t stack, domain;
  double allocs, alloc_bytes, frees, free_bytes, temps, temp_bytes, peak, peak_bytes;
};
struct rows { /* of a process */
  struct total *rows;
  size_t n, room;
  uint32_t *table; /* row + 1, by hash of stack and domain; 0: free */
  size_t size;     /* a power of two, or 0 */
  bool ended;      /* before the first event of the file */
};
struct totals {
  struct rows *of; /* by place of the process */
  size_t n;
  size_t process, row; /* what is put out next */
  uint32_t *row_of;    /* by class of the chunk in hand; UINT32_MAX: not looked for */
  size_t room_row_of;
  bool has_peak;
};

enum { PROCESS, STACK, STACK_ID, DOMAIN, ALLOCS, ALLOC_BYTES, FREES, FREE_BYTES, LIVE, LIVE_BYTES, TEMPS, TEMP_BYTES, PEAK, PEAK_BYTES };

static size_t home_of(const struct rows *p, uint32_t stack, uint32_t domain) {
  uint64_t hash = ((uint64_t)stack * 8 + domain) * UINT64_C(0x9e3779b97f4a7c15);
  return (size_t)(hash ^ hash >> 32) & (p->size - 1);
}

static bool grow_table(struct rows *p) {
  size_t size = p->size ? p->size * 2 : 64;
  uint32_t *table = calloc(size, sizeof table[0]);
  if (!table) return false;
  free(p->table);
  p->table = table;
  p->size = size;
  for (size_t i = 0; i < p->n; i++) {
    size_t at = home_of(p, p->rows[i].stack, p->rows[i].domain);
    while (table[at]) at = (at + 1) & (size - 1);
    table[at] = (uint32_t)i + 1;
  }
  return true;
}

/* The row's number, a new one if need be; UINT32_MAX: out of memory. */
static uint32_t row_of(struct rows *p, uint32_t stack, uint32_t domain) {
  if ((p->n + 1) * 4 > p->size * 3 && !grow_table(p)) return UINT32_MAX;
  size_t at = home_of(p, stack, domain);
  for (; p->table[at]; at = (at + 1) & (p->size - 1)) {
    struct total *row = &p->rows[p->table[at] - 1];
    if (row->stack == stack && row->domain == domain) return p->table[at] - 1;
  }
  if (!mlz_read_room(&p->rows, &p->room, p->n + 1, sizeof p->rows[0])) return UINT32_MAX;
  p->rows[p->n] = (struct total){.stack = stack, .domain = domain};
  p->table[at] = (uint32_t)++p->n;
  return p->table[at] - 1;
}

static void empty_rows(struct rows *p) {
  p->n = 0;
  if (p->size) memset(p->table, 0, p->size * sizeof p->table[0]);
}

/* ---- from points ---- */

/* `exit`: a point of kind EXIT counts, too. */
static int add_point(struct memlyze_read *r, struct totals *t, const struct mlz_totals_point *point, bool exit) {
  const struct mlz_read_process *p = mlz_read_process_of(r, point->head.process);
  uint32_t stacks = mlz_trace_stacks(r->trace);
  if (!p || !point->known || (!exit && point->head.point == MLZ_POINT_EXIT)) return 0;
  struct rows *rows = &t->of[p - r->processes];
  empty_rows(rows);
  for (uint32_t i = 0; i < point->n; i++) {
    const struct mlz_totals_row *from = &point->rows[i];
    if (from->key.stack >= stacks) return EIO;
    uint32_t number = row_of(rows, from->key.stack, from->key.domain);
    if (number == UINT32_MAX) return ENOMEM;
    struct total *row = &rows->rows[number];
    double weight = from->key.weight;
    row->allocs += weight * (double)from->is[MLZ_TOTAL_ALLOCS];
    row->alloc_bytes += weight * (double)from->is[MLZ_TOTAL_ALLOC_BYTES];
    row->frees += weight * (double)from->is[MLZ_TOTAL_FREES];
    row->free_bytes += weight * (double)from->is[MLZ_TOTAL_FREE_BYTES];
    row->temps += weight * (double)from->is[MLZ_TOTAL_TEMPS];
    row->temp_bytes += weight * (double)from->is[MLZ_TOTAL_TEMP_BYTES];
  }
  return 0;
}

/* What the points at the file's begin stand for, where the events of then were left out. */
static int take_left_out(struct memlyze_read *r, struct totals *t, struct mlz_trace *trace) {
  const struct mlz_totals_mark *marks;
  struct mlz_totals_point point;
  size_t n;
  if (!mlz_trace_left_out(trace)) return 0;
  int rc = mlz_trace_totals_marks(trace, &marks, &n);
  for (size_t i = 0; rc >= 0 && i < n && marks[i].at <= mlz_trace_first_at(trace); i++) {
    const struct mlz_read_process *p = mlz_read_process_of(r, marks[i].head.process);
    if (!p || t->of[p - r->processes].ended) continue;
    t->of[p - r->processes].ended = marks[i].head.point == MLZ_POINT_END;
    if ((rc = mlz_trace_totals_load(trace, &marks[i], &point)) == 1 && (rc = add_point(r, t, &point, true)) != 0) return rc;
  }
  return rc < 0 ? ENOMEM : 0;
}

/* ---- from events ---- */

static void keep_peak(struct rows *p) {
  for (size_t i = 0; i < p->n; i++) {
    p->rows[i].peak = p->rows[i].allocs - p->rows[i].frees;
    p->rows[i].peak_bytes = p->rows[i].alloc_bytes - p->rows[i].free_bytes;
  }
}

static int add_block(struct memlyze_read *r, struct totals *t, const struct mlz_block *b, uint32_t number) {
  const struct mlz_read_process *p = &r->processes[r->chunks[number].process];
  struct rows *rows = &t->of[r->chunks[number].process];
  uint32_t stacks = mlz_trace_stacks(r->trace), n = b->n;
  if (rows->ended || (p->end.chunk != MLZ_NOWHERE && number > p->end.chunk)) return 0;
  if (p->end.chunk == number) n = p->end.event;
  if (!mlz_read_room(&t->row_of, &t->room_row_of, b->n_classes, sizeof t->row_of[0])) return ENOMEM;
  memset(t->row_of, 0xff, b->n_classes * sizeof t->row_of[0]);
  for (uint32_t i = 0; i < n; i++) {
    if (b->ops[i] >= MLZ_OP_FREE_FOREIGN) continue;
    uint32_t c = b->classes_of[i];
    const struct mlz_class *class = &b->classes[c];
    if (t->row_of[c] == UINT32_MAX) {
      if (class->stack >= stacks) return EIO;
      if ((t->row_of[c] = row_of(rows, class->stack, class->domain)) == UINT32_MAX) return ENOMEM;
    }
    struct total *row = &rows->rows[t->row_of[c]];
    double bytes = class->weight * (double)class->size;
    bool temporary = b->ops[i] == MLZ_OP_FREE_TEMP || b->ops[i] == MLZ_OP_FREE_OLD_TEMP;
    if (b->ops[i] == MLZ_OP_ALLOC) {
      row->allocs += class->weight;
      row->alloc_bytes += bytes;
    } else {
      row->frees += class->weight;
      row->free_bytes += bytes;
    }
    row->temps += temporary ? class->weight : 0;
    row->temp_bytes += temporary ? bytes : 0;
    if (number == p->peak.chunk && i == p->peak.event) keep_peak(rows);
  }
  return 0;
}

static int take_events(struct mlz_read_stream *s, struct totals *t) {
  struct mlz_trace *trace;
  struct mlz_block b;
  int rc = mlz_read_again(s->read, &trace, s->error, sizeof s->error), more = 0;
  if (rc) return rc;
  rc = take_left_out(s->read, t, trace);
  for (uint32_t number = 0; !rc && number < s->read->n_chunks; number++) {
    more = mlz_trace_next(trace, 0, &b);
    if (more <= 0 || !mlz_read_same_chunk(s->read, number, &b))
      rc = more < 0 ? ENOMEM : EIO;
    else
      rc = add_block(s->read, t, &b, number);
  }
  mlz_trace_close(trace);
  return rc;
}

static int take_points(struct mlz_read_stream *s, struct totals *t) {
  struct mlz_trace *trace;
  struct mlz_totals_point point;
  int rc = mlz_read_again(s->read, &trace, s->error, sizeof s->error), more = 0;
  if (rc) return rc;
  while (!rc && (more = mlz_trace_totals_next(trace, &point)) > 0) rc = add_point(s->read, t, &point, false);
  s->read->damage = *mlz_trace_damage(trace); /* the lock is held */
  mlz_trace_close(trace);
  return more < 0 ? ENOMEM : rc;
}

/* ---- rows ---- */

static int64_t whole(double v) { return v > 0 ? v < 9e18 ? (int64_t)llround(v) : INT64_MAX : 0; }

static void put_row(struct memlyze_read *r, struct mlz_arrow_batch *b, const struct totals *t, uint32_t process, const struct total *row) {
  mlz_arrow_u32(b, PROCESS, process);
  mlz_arrow_u32(b, STACK, row->stack);
  mlz_arrow_i64(b, STACK_ID, r->identity.stacks[row->stack]);
  mlz_arrow_named(b, DOMAIN, row->domain < MLZ_BLOCK_DOMAINS ? (uint8_t)row->domain : 0);
  mlz_arrow_i64(b, ALLOCS, whole(row->allocs));
  mlz_arrow_i64(b, ALLOC_BYTES, whole(row->alloc_bytes));
  mlz_arrow_i64(b, FREES, whole(row->frees));
  mlz_arrow_i64(b, FREE_BYTES, whole(row->free_bytes));
  mlz_arrow_i64(b, LIVE, whole(row->allocs - row->frees));
  mlz_arrow_i64(b, LIVE_BYTES, whole(row->alloc_bytes - row->free_bytes));
  mlz_arrow_i64(b, TEMPS, whole(row->temps));
  mlz_arrow_i64(b, TEMP_BYTES, whole(row->temp_bytes));
  if (t->has_peak) {
    mlz_arrow_i64(b, PEAK, whole(row->peak));
    mlz_arrow_i64(b, PEAK_BYTES, whole(row->peak_bytes));
  } else {
    mlz_arrow_null(b, PEAK);
    mlz_arrow_null(b, PEAK_BYTES);
  }
  mlz_arrow_row(b);
}

static int fill(struct mlz_read_stream *s) {
  struct totals *t = s->state;
  while (t->process < t->n && !mlz_arrow_full(&s->batch)) {
    const struct rows *p = &t->of[t->process];
    if (t->row >= p->n) {
      t->process++;
      t->row = 0;
      continue;
    }
    put_row(s->read, &s->batch, t, s->read->processes[t->process].id, &p->rows[t->row++]);
  }
  return 0;
}

static void close_totals(struct mlz_read_stream *s) {
  struct totals *t = s->state;
  for (size_t i = 0; i < t->n; i++) {
    free(t->of[i].rows);
    free(t->of[i].table);
  }
  free(t->of);
  free(t->row_of);
  free(t);
}

int mlz_read_totals_open(struct mlz_read_stream *s) {
  struct memlyze_read *r = s->read;
  struct totals *t = calloc(1, sizeof *t);
  if (t) t->of = calloc(r->n_processes + 1, sizeof t->of[0]);
  if (!t || !t->of) {
    free(t);
    return mlz_read_fail(s->error, sizeof s->error, ENOMEM, "out of memory");
  }
  t->n = r->n_processes;
  t->has_peak = !mlz_trace_totals_only(r->trace) && !mlz_trace_left_out(r->trace);
  s->state = t;
  s->fill = fill;
  s->close = close_totals;
  int rc = mlz_trace_totals_only(r->trace) ? take_points(s, t) : take_events(s, t);
  if (!rc) return 0;
  if (!s->error[0])
    mlz_read_fail(s->error, sizeof s->error, rc,
                  rc == ENOMEM ? "out of memory while reading" : "the file changed while it was read; open it again");
  close_totals(s);
  return rc;
}
