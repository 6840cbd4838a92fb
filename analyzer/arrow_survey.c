/* One walk over all events: how many allocations each chunk has and how many of them are freed later, where each process ends and where its heap was
 * largest, and what rarely happens. After it a stream knows how much it has to remember of the frees ahead. */
#include "analyzer/arrow_trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool mlz_read_room(void *array, size_t *room, size_t need, size_t element) {
  if (need <= *room) return true;
  size_t n = *room ? *room : 64;
  while (n < need) n += n / 2;
  void *p;
  memcpy(&p, array, sizeof p);
  p = realloc(p, n * element);
  if (!p) return false;
  memcpy(array, &p, sizeof p);
  *room = n;
  return true;
}

struct mlz_read_process *mlz_read_process_of(struct memlyze_read *r, uint32_t id) {
  size_t low = 0, high = r->n_processes;
  if (id - 1 < high && r->processes[id - 1].id == id) return &r->processes[id - 1];
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (r->processes[middle].id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < r->n_processes && r->processes[low].id == id ? &r->processes[low] : NULL;
}

static bool chunk_has(const struct mlz_read_chunk *c, uint64_t alloc_no) {
  return alloc_no >= c->first_alloc && alloc_no - c->first_alloc < c->allocs;
}

uint32_t mlz_read_chunk_of(const struct memlyze_read *r, const struct mlz_read_process *p, uint64_t alloc_no, size_t *hit) {
  if (*hit < p->n_chunks && chunk_has(&r->chunks[p->chunks[*hit]], alloc_no)) return p->chunks[*hit];
  size_t low = 0, high = p->n_chunks; /* the last chunk that begins at or before it */
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (r->chunks[p->chunks[middle]].first_alloc <= alloc_no)
      low = middle + 1;
    else
      high = middle;
  }
  if (!low || !chunk_has(&r->chunks[p->chunks[low - 1]], alloc_no)) return MLZ_NOWHERE;
  *hit = low - 1;
  return p->chunks[low - 1];
}

bool mlz_read_same_chunk(const struct memlyze_read *r, size_t at, const struct mlz_block *b) {
  if (at >= r->n_chunks) return false;
  const struct mlz_read_chunk *c = &r->chunks[at];
  return r->processes[c->process].id == b->process && c->first_alloc == b->first_alloc && c->ordinal == b->ordinal && c->events == b->n;
}

int mlz_read_skip(const struct memlyze_read *r, struct mlz_trace *trace, size_t at) {
  struct mlz_ahead ahead;
  if (at >= r->n_chunks || !mlz_trace_ahead(trace, &ahead)) return -1;
  mlz_trace_skip(trace);
  const struct mlz_read_chunk *c = &r->chunks[at];
  return r->processes[c->process].id == ahead.process && c->ordinal == ahead.ordinal && c->events == ahead.events;
}

static bool add_rare(struct memlyze_read *r, struct mlz_read_process *p, const struct mlz_block *b, uint32_t i) {
  const struct mlz_rare *rare = &b->rares[b->classes_of[i]];
  uint32_t chunk = (uint32_t)(r->n_chunks - 1);
  if (rare->op == MLZ_OP_FINALIZE && p->end.chunk == MLZ_NOWHERE) p->end = (struct mlz_read_place){chunk, i};
  if (rare->op == MLZ_OP_LOST) r->lost += rare->collected + rare->uncollectable;
  bool mark = rare->op == MLZ_OP_MARK || rare->op == MLZ_OP_SNAPSHOT;
  if (!mark && rare->op != MLZ_OP_GC) return true;
  if (!mlz_read_room(&r->rares, &r->room_rares, r->n_rares + 1, sizeof r->rares[0])) return false;
  r->rares[r->n_rares++] = (struct mlz_read_rare){*rare, b->process, b->thread[i]};
  r->marks += mark;
  r->collections += !mark;
  return true;
}

static int add_block(struct memlyze_read *r, const struct mlz_block *b) {
  struct mlz_read_process *p = mlz_read_process_of(r, b->process);
  if (!p || r->n_chunks >= MLZ_NOWHERE - 1) return EIO;
  if (!mlz_read_room(&r->chunks, &r->room_chunks, r->n_chunks + 1, sizeof r->chunks[0])) return ENOMEM;
  uint32_t number = (uint32_t)r->n_chunks++;
  r->chunks[number] = (struct mlz_read_chunk){
      .first_alloc = b->first_alloc, .ordinal = b->ordinal, .process = (uint32_t)(p - r->processes), .events = b->n};
  uint32_t allocs = 0;
  for (uint32_t i = 0; i < b->n; i++) {
    uint8_t op = b->ops[i];
    if (op >= MLZ_OP_RARE) {
      if (!add_rare(r, p, b, i)) return ENOMEM;
      continue;
    }
    if (op == MLZ_OP_FREE_FOREIGN) continue;
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    double bytes = class->domain == MLZ_BLOCK_MMAP ? 0 : class->weight * (double)class->size;
    if (op == MLZ_OP_ALLOC) {
      allocs++;
      p->heap += bytes;
      if (p->heap > p->heap_peak && p->end.chunk == MLZ_NOWHERE) {
        p->heap_peak = p->heap;
        p->peak = (struct mlz_read_place){number, i};
      }
      continue;
    }
    p->heap -= bytes;
    if (op != MLZ_OP_FREE_OLD && op != MLZ_OP_FREE_OLD_TEMP) continue;
    uint32_t target = mlz_read_chunk_of(r, p, b->alloc_no[i], &p->hit);
    if (target != MLZ_NOWHERE) r->chunks[target].old++;
  }
  r->chunks[number].allocs = allocs;
  r->allocations += allocs;
  if (!allocs) return 0;
  if (!mlz_read_room(&p->chunks, &p->room_chunks, p->n_chunks + 1, sizeof p->chunks[0])) return ENOMEM;
  p->chunks[p->n_chunks++] = number;
  return 0;
}

static int begin(struct memlyze_read *r) {
  size_t n = mlz_trace_processes(r->trace);
  r->processes = calloc(n + 1, sizeof r->processes[0]);
  if (!r->processes) return ENOMEM;
  for (size_t i = 0; i < n; i++) {
    struct mlz_read_process *p = &r->processes[r->n_processes++];
    p->id = (uint32_t)json_integer_value(json_object_get(mlz_trace_process(r->trace, i), "id"));
    p->end.chunk = p->peak.chunk = MLZ_NOWHERE;
  }
  return 0;
}

void mlz_read_survey_clear(struct memlyze_read *r) {
  for (size_t i = 0; i < r->n_processes; i++) free(r->processes[i].chunks);
  free(r->processes);
  free(r->chunks);
  free(r->rares);
  r->processes = NULL;
  r->chunks = NULL;
  r->rares = NULL;
  r->n_processes = r->n_chunks = r->room_chunks = r->n_rares = r->room_rares = 0;
  r->allocations = r->marks = r->collections = r->lost = 0;
}

int mlz_read_survey(struct memlyze_read *r, char *err, size_t err_size) {
  struct mlz_trace *trace;
  struct mlz_block b;
  if (r->surveyed) return 0;
  int rc = mlz_read_again(r, &trace, err, err_size), more = 0;
  if (rc) return rc;
  rc = begin(r);
  while (!rc && (more = mlz_trace_next(trace, MLZ_WANT_ALLOC_NO | MLZ_WANT_THREAD, &b)) > 0) rc = add_block(r, &b);
  if (more < 0) rc = -more;
  r->damage = *mlz_trace_damage(trace);
  mlz_trace_close(trace);
  if (rc) {
    mlz_read_survey_clear(r);
    return mlz_read_fail(err, err_size, rc,
                         rc == ENOMEM ? "out of memory while reading" : "the file changed while it was read; open it again");
  }
  r->surveyed = true;
  return 0;
}
