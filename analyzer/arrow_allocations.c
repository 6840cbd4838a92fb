/* The allocations as a stream, a batch for each chunk of the file, in its order; each row knows when its block was freed. Most frees stand in the same
 * chunk. Those of later chunks are looked for ahead, for as many chunks at a time (a window) as have MLZ_AHEAD_MAX of them: the survey counted them, so memory
 * has a bound, and a trace whose blocks nearly all outlive their chunk is read once more for each four million of them. */
#include "analyzer/arrow_trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef MLZ_AHEAD_MAX /* a test makes it small */
#define MLZ_AHEAD_MAX (4u << 20)
#endif
#define AHEAD_AFTER_END (1u << 31) /* of `alloc` below: the free is one of the finalisation */
#define AHEAD_TEMPORARY (1u << 30)
#define NOT_FREED INT64_MIN

struct ahead { /* a free in a later chunk */
  uint64_t ns;
  uint32_t alloc; /* number within its chunk, and the two flags */
} __attribute__((packed));

struct walk {
  struct mlz_trace *trace;
  uint32_t next;      /* number of the next chunk */
  uint32_t from, end; /* the window */
  struct ahead *ahead;
  size_t room_ahead;
  size_t *begin; /* by chunk of the window, one more than those: the chunk's place in `ahead` */
  size_t *used;
  /* of the chunk in hand, by allocation */
  int64_t freed_ns[MLZ_CHUNK_EVENTS_MAX];
  uint32_t flags[MLZ_CHUNK_EVENTS_MAX];
};

enum { TIME, ORDER, SIZE, STACK, THREAD, PROCESS, LIFETIME, DOMAIN, WEIGHT, STACK_ID, TEMPORARY, LIVE, AFTER };

static int changed(struct mlz_read_stream *s) {
  return mlz_read_fail(s->error, sizeof s->error, EIO, "the file changed while it was read; open it again");
}
static int no_memory(struct mlz_read_stream *s) { return mlz_read_fail(s->error, sizeof s->error, ENOMEM, "out of memory while reading"); }

/* ---- frees ahead ---- */

static int look_into(struct mlz_read_stream *s, const struct mlz_block *b, uint32_t number, size_t *missing) {
  struct memlyze_read *r = s->read;
  struct walk *w = s->state;
  const struct mlz_read_process *p = &r->processes[r->chunks[number].process];
  size_t hit = 0;
  for (uint32_t i = 0; i < b->n; i++) {
    bool temporary = b->ops[i] == MLZ_OP_FREE_OLD_TEMP;
    if (b->ops[i] != MLZ_OP_FREE_OLD && !temporary) continue;
    uint32_t target = mlz_read_chunk_of(r, p, b->alloc_no[i], &hit);
    if (target == MLZ_NOWHERE || target < w->from || target >= w->end) continue;
    size_t at = w->begin[target - w->from] + w->used[target - w->from]++;
    if (at >= w->begin[target - w->from + 1]) return changed(s);
    uint32_t flags = (mlz_read_after(p->end, number, i) ? AHEAD_AFTER_END : 0) | (temporary ? AHEAD_TEMPORARY : 0);
    w->ahead[at] = (struct ahead){b->time_ns[i], (uint32_t)(b->alloc_no[i] - r->chunks[target].first_alloc) | flags};
    --*missing;
  }
  return 0;
}

/* The window that begins at chunk w->next: how far it goes, and all frees of its blocks in later chunks. */
static int open_window(struct mlz_read_stream *s) {
  struct memlyze_read *r = s->read;
  struct walk *w = s->state;
  struct mlz_trace *trace;
  struct mlz_block b;
  size_t sum = 0;
  uint32_t end = w->next;
  while (end < r->n_chunks && (end == w->next || sum + r->chunks[end].old <= MLZ_AHEAD_MAX)) sum += r->chunks[end++].old;
  free(w->begin);
  free(w->used);
  w->from = w->next;
  w->end = end;
  w->begin = calloc(end - w->from + 1, sizeof w->begin[0]);
  w->used = calloc(end - w->from + 1, sizeof w->used[0]);
  if (!w->begin || !w->used || !mlz_read_room(&w->ahead, &w->room_ahead, sum, sizeof w->ahead[0])) return no_memory(s);
  for (uint32_t c = w->from; c < end; c++) w->begin[c - w->from + 1] = w->begin[c - w->from] + r->chunks[c].old;
  if (!sum) return 0;
  int rc = mlz_read_again(r, &trace, s->error, sizeof s->error), more = 0;
  if (rc) return rc;
  uint32_t number = 0;
  while (number <= w->from && more >= 0) { /* the frees are in later chunks than their blocks */
    more = mlz_read_skip(r, trace, number);
    number += more > 0;
  }
  for (; !rc && sum; number++) {
    more = mlz_trace_next(trace, MLZ_WANT_ALLOC_NO | MLZ_WANT_TIME, &b);
    if (more < 0) rc = no_memory(s);
    if (more <= 0) break;
    rc = !mlz_read_same_chunk(r, number, &b) ? changed(s) : look_into(s, &b, number, &sum);
  }
  mlz_trace_close(trace);
  return rc ? rc : sum ? changed(s) : 0;
}

/* ---- a chunk ---- */

static void find_frees(struct walk *w, const struct mlz_read_process *p, const struct mlz_block *b, uint32_t number, uint32_t allocs) {
  for (uint32_t i = 0; i < allocs; i++) {
    w->freed_ns[i] = NOT_FREED;
    w->flags[i] = 0;
  }
  for (uint32_t i = 0; i < b->n; i++) {
    if (b->ops[i] != MLZ_OP_FREE && b->ops[i] != MLZ_OP_FREE_TEMP) continue;
    uint64_t at = b->alloc_no[i] - b->first_alloc;
    if (at >= allocs) continue;
    w->freed_ns[at] = (int64_t)b->time_ns[i];
    w->flags[at] = (mlz_read_after(p->end, number, i) ? AHEAD_AFTER_END : 0) | (b->ops[i] == MLZ_OP_FREE_TEMP ? AHEAD_TEMPORARY : 0);
  }
  for (size_t k = w->begin[number - w->from]; k < w->begin[number - w->from + 1]; k++) {
    uint32_t at = w->ahead[k].alloc & ~(AHEAD_AFTER_END | AHEAD_TEMPORARY);
    if (at >= allocs) continue;
    w->freed_ns[at] = (int64_t)w->ahead[k].ns;
    w->flags[at] = w->ahead[k].alloc & (AHEAD_AFTER_END | AHEAD_TEMPORARY);
  }
}

static inline void set_bit(uint8_t *bits, uint32_t at) { bits[at / 8] |= (uint8_t)(1u << (at % 8)); }

static int put_rows(struct mlz_read_stream *s, const struct mlz_block *b, uint32_t number, uint32_t allocs) {
  struct memlyze_read *r = s->read;
  struct walk *w = s->state;
  struct mlz_arrow_batch *batch = &s->batch;
  const struct mlz_read_process *p = &r->processes[r->chunks[number].process];
  int64_t *time = mlz_arrow_fill(batch, TIME, allocs), *order = mlz_arrow_fill(batch, ORDER, allocs);
  int64_t *size = mlz_arrow_fill(batch, SIZE, allocs), *lifetime = mlz_arrow_fill(batch, LIFETIME, allocs);
  int64_t *stack_id = mlz_arrow_fill(batch, STACK_ID, allocs);
  uint32_t *stack = mlz_arrow_fill(batch, STACK, allocs), *thread = mlz_arrow_fill(batch, THREAD, allocs);
  uint32_t *process = mlz_arrow_fill(batch, PROCESS, allocs);
  uint8_t *domain = mlz_arrow_fill(batch, DOMAIN, allocs), *valid = mlz_arrow_fill_valid(batch, LIFETIME, allocs);
  uint8_t *temporary = mlz_arrow_fill_bits(batch, TEMPORARY, allocs), *live = mlz_arrow_fill_bits(batch, LIVE, allocs);
  uint8_t *after = mlz_arrow_fill_bits(batch, AFTER, allocs);
  double *weight = mlz_arrow_fill(batch, WEIGHT, allocs);
  if (batch->failed) return no_memory(s);
  uint32_t k = 0, stacks = mlz_trace_stacks(r->trace); /* a file that grows may have more by now */
  for (uint32_t i = 0; i < b->n && k < allocs; i++) {
    if (b->ops[i] != MLZ_OP_ALLOC) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    if (class->stack >= stacks) return changed(s);
    bool freed = w->freed_ns[k] != NOT_FREED, late = mlz_read_after(p->end, number, i);
    time[k] = (int64_t)b->time_ns[i];
    order[k] = (int64_t)(b->first_alloc + k);
    size[k] = (int64_t) class->size;
    stack[k] = class->stack;
    stack_id[k] = r->identity.stacks[class->stack];
    thread[k] = b->thread[i];
    process[k] = b->process;
    domain[k] = class->domain < MLZ_BLOCK_DOMAINS ? (uint8_t) class->domain : 0;
    weight[k] = class->weight;
    lifetime[k] = freed && w->freed_ns[k] > time[k] ? (int64_t)((uint64_t)w->freed_ns[k] - (uint64_t)time[k]) : 0;
    if (!freed) {
      valid[k / 8] &= (uint8_t) ~(1u << (k % 8));
      batch->columns[LIFETIME].nulls++;
    }
    if (w->flags[k] & AHEAD_TEMPORARY) set_bit(temporary, k);
    if (!late && (!freed || (w->flags[k] & AHEAD_AFTER_END))) set_bit(live, k);
    if (late) set_bit(after, k);
    k++;
  }
  if (k != allocs) return changed(s);
  batch->rows = allocs;
  return 0;
}

static int fill(struct mlz_read_stream *s) {
  struct memlyze_read *r = s->read;
  struct walk *w = s->state;
  struct mlz_block b;
  while (w->next < r->n_chunks) {
    uint32_t number = w->next, allocs = r->chunks[number].allocs;
    int rc = w->next >= w->end ? open_window(s) : 0;
    if (rc) return rc;
    int more = mlz_trace_next(w->trace, MLZ_WANT_ALL, &b);
    if (more < 0) return no_memory(s);
    if (more == 0 || !mlz_read_same_chunk(r, number, &b)) return changed(s);
    w->next++;
    if (!allocs) continue;
    find_frees(w, &r->processes[r->chunks[number].process], &b, number, allocs);
    return put_rows(s, &b, number, allocs);
  }
  return 0;
}

static void close_walk(struct mlz_read_stream *s) {
  struct walk *w = s->state;
  mlz_trace_close(w->trace);
  free(w->ahead);
  free(w->begin);
  free(w->used);
  free(w);
}

int mlz_read_allocations_open(struct mlz_read_stream *s) {
  struct walk *w = calloc(1, sizeof *w);
  if (!w) return no_memory(s);
  int rc = mlz_read_again(s->read, &w->trace, s->error, sizeof s->error);
  if (rc) {
    free(w);
    return rc;
  }
  s->state = w;
  s->fill = fill;
  s->close = close_walk;
  return 0;
}
