#include "formats/trace.h"

#include <errno.h>
#include <stdlib.h>

#define ALL_ONES UINT32_MAX

struct column {
  const uint8_t *data;
  uint32_t count;
  uint64_t raw, stored;
  uint8_t form, packing, predictor;
};

/* Lets go of all arrays of a chunk; they grow with the largest chunk seen, so that a small trace needs little. */
static void drop_arrays(struct mlz_trace *t) {
  void *all[] = {t->alloc_class, t->ref,      t->scratch, t->wide,  t->classes,   t->ops,        t->classes_of, t->thread,
                 t->thread_ids,  t->alloc_no, t->time_ns, t->rares, t->run_index, t->run_length, t->old_class,  t->old_ref};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  t->alloc_class = t->ref = t->scratch = t->classes_of = t->thread = t->thread_ids = t->run_index = t->run_length = t->old_class = NULL;
  t->wide = t->old_ref = t->alloc_no = t->time_ns = NULL;
  t->ops = NULL;
  t->classes = NULL;
  t->rares = NULL;
  t->events_room = 0;
}

static bool room(const struct mlz_trace *t, void *array, size_t element) {
  void *p;
  memcpy(&p, array, sizeof p);
  if (p == NULL) {
    p = malloc(t->events_room * element);
    memcpy(array, &p, sizeof p);
  }
  return p != NULL;
}

/* Arrays for a chunk none of whose lists is longer than `need`. */
static bool all_room(struct mlz_trace *t, size_t need, unsigned want) {
  if (need > t->events_room) {
    size_t more = need + need / 2;
    drop_arrays(t);
    t->events_room = more < 64 ? 64 : more > MLZ_CHUNK_EVENTS_MAX ? MLZ_CHUNK_EVENTS_MAX : more;
  }
  return room(t, &t->alloc_class, sizeof *t->alloc_class) && room(t, &t->ref, sizeof *t->ref) && room(t, &t->scratch, sizeof *t->scratch) &&
         room(t, &t->wide, sizeof *t->wide) && room(t, &t->classes, sizeof *t->classes) && room(t, &t->ops, 1) &&
         room(t, &t->classes_of, sizeof *t->classes_of) && room(t, &t->thread_ids, 2 * sizeof *t->thread_ids) &&
         room(t, &t->rares, sizeof *t->rares) && room(t, &t->run_index, sizeof *t->run_index) &&
         room(t, &t->run_length, sizeof *t->run_length) && room(t, &t->old_class, sizeof *t->old_class) &&
         room(t, &t->old_ref, sizeof *t->old_ref) && (!(want & MLZ_WANT_ALLOC_NO) || room(t, &t->alloc_no, sizeof *t->alloc_no)) &&
         (!(want & MLZ_WANT_TIME) || room(t, &t->time_ns, sizeof *t->time_ns)) &&
         (!(want & MLZ_WANT_THREAD) || room(t, &t->thread, sizeof *t->thread));
}

void mlz_decode_close(struct mlz_trace *t) {
  drop_arrays(t);
  free(t->column);
}

static int read_directory(struct mlz_cursor *c, struct column columns[MLZ_COL_COUNT], uint32_t *longest) {
  memset(columns, 0, MLZ_COL_COUNT * sizeof columns[0]);
  while (c->p < c->end) {
    const uint8_t *fixed = mlz_get_bytes(c, 4);
    uint64_t count = mlz_get_varint(c), raw = mlz_get_varint(c), stored = mlz_get_varint(c);
    const uint8_t *data = mlz_get_bytes(c, stored);
    if (c->bad) return -EBADMSG;
    unsigned id = fixed[0];
    if (id == 0 || id >= MLZ_COL_COUNT) {
      if (id & MLZ_COL_REQUIRED) return -EBADMSG;
      continue;
    }
    if (columns[id].data != NULL || count > MLZ_CHUNK_EVENTS_MAX || raw > count * MLZ_VARINT_MAX) return -EBADMSG;
    *longest = count > *longest ? (uint32_t)count : *longest;
    columns[id] = (struct column){data, (uint32_t)count, raw, stored, fixed[1], fixed[2], fixed[3]};
  }
  return 0;
}

/* The column's bytes, valid until the next call. */
static int unpack(struct mlz_trace *t, const struct column *c, const uint8_t **out) {
  if (c->packing == MLZ_PACK_NONE && c->stored == c->raw) {
    *out = c->data;
    return 0;
  }
  if (c->packing != MLZ_PACK_ZSTD) return -EBADMSG;
  if (!mlz_grow(&t->column, &t->column_room, (size_t)c->raw, 1)) return -ENOMEM;
  size_t n = ZSTD_decompressDCtx(t->zstd, t->column, (size_t)c->raw, c->data, (size_t)c->stored);
  if (ZSTD_isError(n) || n != c->raw) return -EBADMSG;
  *out = t->column;
  return 0;
}

static int planes(const uint8_t *p, const struct column *c, uint32_t *out) {
  uint32_t n = c->count, width = c->form;
  if (width < 1 || width > MLZ_FORM_PLANES_MAX || c->raw != (uint64_t)n * width) return -EBADMSG;
  const uint8_t *p1 = p + n, *p2 = p1 + n, *p3 = p2 + n;
  if (width == 1)
    for (uint32_t i = 0; i < n; i++) out[i] = p[i];
  else if (width == 2)
    for (uint32_t i = 0; i < n; i++) out[i] = p[i] | (uint32_t)p1[i] << 8;
  else if (width == 3)
    for (uint32_t i = 0; i < n; i++) out[i] = p[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16;
  else
    for (uint32_t i = 0; i < n; i++) out[i] = p[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16 | (uint32_t)p3[i] << 24;
  return 0;
}

/* The column's integers before prediction is undone. Values of more than 32 bits are wrong. */
static int integers(struct mlz_trace *t, const struct column *c, uint32_t *out) {
  if (c->count == 0) return c->raw == 0 ? 0 : -EBADMSG;
  const uint8_t *p;
  int rc = unpack(t, c, &p);
  if (rc != 0) return rc;
  if (c->form != MLZ_FORM_VARINT) return planes(p, c, out);
  struct mlz_cursor in = {.p = p, .end = p + c->raw};
  uint64_t high = 0;
  for (uint32_t i = 0; i < c->count; i++) {
    uint64_t v = mlz_get_varint(&in);
    high |= v;
    out[i] = (uint32_t)v;
  }
  return in.bad || in.p != in.end || high > UINT32_MAX ? -EBADMSG : 0;
}

static int wide_integers(struct mlz_trace *t, const struct column *c, uint64_t *out) {
  if (c->form != MLZ_FORM_VARINT) {
    int rc = integers(t, c, t->scratch);
    for (uint32_t i = 0; rc == 0 && i < c->count; i++) out[i] = t->scratch[i];
    return rc;
  }
  if (c->count == 0) return c->raw == 0 ? 0 : -EBADMSG;
  const uint8_t *p;
  int rc = unpack(t, c, &p);
  if (rc != 0) return rc;
  struct mlz_cursor in = {.p = p, .end = p + c->raw};
  for (uint32_t i = 0; i < c->count; i++) out[i] = mlz_get_varint(&in);
  return in.bad || in.p != in.end ? -EBADMSG : 0;
}

/* 64-bit values, plain or as differences. */
static int wide_values(struct mlz_trace *t, const struct column *c, uint64_t *out) {
  int rc = wide_integers(t, c, out);
  if (rc != 0 || c->predictor == MLZ_PRED_NONE) return rc;
  if (c->predictor != MLZ_PRED_DELTA) return -EBADMSG;
  uint64_t v = 0;
  for (uint32_t i = 0; i < c->count; i++) out[i] = v += mlz_unzigzag(out[i]);
  return 0;
}

static int class_values(struct mlz_trace *t, const struct column *c, uint32_t *out, uint32_t classes) {
  int rc = integers(t, c, out);
  if (rc != 0 || c->count == 0) return rc;
  if (c->predictor != MLZ_PRED_NONE) return -EBADMSG;
  for (uint32_t i = 0; i < c->count; i++)
    if (out[i] >= classes) return -EBADMSG;
  return 0;
}

static int decode_classes(struct mlz_trace *t, const struct column *columns, uint32_t *count) {
  const struct column *stack = &columns[MLZ_COL_CLASS_STACK], *weights = &columns[MLZ_COL_WEIGHTS];
  uint32_t n = stack->count;
  double weight[MLZ_WEIGHTS_MAX];
  int rc;
  if (columns[MLZ_COL_CLASS_SIZE].count != n || columns[MLZ_COL_CLASS_KIND].count != n || weights->count > MLZ_WEIGHTS_MAX) return -EBADMSG;
  if ((rc = wide_values(t, stack, t->wide)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) t->classes[i].stack = t->wide[i] < t->stacks_n ? (uint32_t)t->wide[i] : (uint32_t)t->stacks_n;
  if ((rc = wide_values(t, &columns[MLZ_COL_CLASS_SIZE], t->wide)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) {
    t->classes[i].size = t->wide[i];
    if (t->wide[i] >= UINT64_C(1) << 48) return -EBADMSG;
  }
  if ((rc = wide_values(t, weights, t->wide)) != 0) return rc;
  memcpy(weight, t->wide, weights->count * sizeof weight[0]);
  for (uint32_t i = 0; i < weights->count; i++)
    if (!(weight[i] >= 1 && weight[i] <= 0x1p33)) return -EBADMSG;
  if ((rc = wide_values(t, &columns[MLZ_COL_CLASS_KIND], t->wide)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) {
    uint64_t domain = t->wide[i] & 7, w = t->wide[i] >> 3;
    if (domain > 4 || w >= weights->count) return -EBADMSG;
    t->classes[i].domain = (uint32_t)domain;
    t->classes[i].weight = weight[w];
  }
  *count = n;
  return 0;
}

struct events {
  uint32_t allocs, refs, olds, rares; /* so far */
  uint32_t ref;                       /* the previous reference */
  uint32_t *old_class;
  uint64_t *old_ref;
};

/* One thread's run of events. `distance` and `numbers` are constants where this is inlined. */
static inline __attribute__((always_inline)) bool run(const struct mlz_trace *t, struct events *s, uint8_t *ops, uint32_t from, uint32_t to,
                                                      uint32_t *latest, uint64_t first_alloc, bool distance, bool numbers) {
  uint32_t allocs = s->allocs, refs = s->refs, ref = s->ref, last = *latest;
  const uint32_t *alloc_class = t->alloc_class;
  for (uint32_t i = from; i < to; i++) {
    uint32_t k;
    uint64_t number;
    switch (ops[i]) {
    case MLZ_OP_ALLOC:
      k = alloc_class[allocs];
      number = first_alloc + allocs;
      last = ++allocs;
      break;
    case MLZ_FILE_OP_FREE_TEMP_REF:
      ops[i] = MLZ_OP_FREE_TEMP; /* fall through */
    case MLZ_OP_FREE: {
      uint32_t v = t->ref[refs++];
      ref = distance ? allocs - 1 - v : ref + (uint32_t)mlz_unzigzag(v);
      if (ref >= allocs) return false;
      k = alloc_class[ref];
      number = first_alloc + ref;
      break;
    }
    case MLZ_OP_FREE_TEMP:
      if (last == 0) return false;
      k = alloc_class[last - 1];
      number = first_alloc + last - 1;
      break;
    case MLZ_OP_FREE_OLD:
    case MLZ_OP_FREE_OLD_TEMP:
      k = s->old_class[s->olds];
      number = numbers ? first_alloc - 1 - s->old_ref[s->olds] : 0;
      s->olds++;
      break;
    case MLZ_OP_FREE_FOREIGN:
      k = ALL_ONES;
      number = UINT64_MAX;
      break;
    default:
      k = s->rares++;
      number = UINT64_MAX;
    }
    t->classes_of[i] = k;
    if (numbers) t->alloc_no[i] = number;
  }
  s->allocs = allocs;
  s->refs = refs;
  s->ref = ref;
  *latest = last;
  return true;
}

struct threads {
  const uint32_t *ids;
  uint32_t *latest;
  uint32_t n, runs;
};

static int decode_runs(struct mlz_trace *t, const struct column *columns, uint32_t events, struct threads *out, uint32_t *index,
                       uint32_t *length) {
  const struct column *ids = &columns[MLZ_COL_THREADS], *run_thread = &columns[MLZ_COL_RUN_THREAD],
                      *run_events = &columns[MLZ_COL_RUN_EVENTS];
  int rc;
  if (run_thread->count != run_events->count || ids->predictor != MLZ_PRED_NONE || run_thread->predictor != MLZ_PRED_NONE ||
      run_events->predictor != MLZ_PRED_NONE)
    return -EBADMSG;
  if ((rc = integers(t, ids, t->thread_ids)) != 0 || (rc = integers(t, run_thread, index)) != 0 ||
      (rc = integers(t, run_events, length)) != 0)
    return rc;
  out->n = ids->count;
  out->runs = run_thread->count;
  out->ids = t->thread_ids;
  out->latest = t->thread_ids + t->events_room;
  memset(out->latest, 0, out->n * sizeof out->latest[0]);
  for (uint32_t i = 0; i < out->n; i++) t->thread_ids[i] = mlz_tables_known_thread(t, t->thread_ids[i]);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < out->runs; i++) {
    sum += length[i];
    if (index[i] >= out->n) return -EBADMSG;
  }
  return sum == events ? 0 : -EBADMSG;
}

static int decode_times(struct mlz_trace *t, const struct column *columns, const struct mlz_extent *x) {
  const struct column *at = &columns[MLZ_COL_STEP_EVENTS], *ns = &columns[MLZ_COL_STEP_NS];
  int rc;
  if (at->count != ns->count || at->predictor != MLZ_PRED_NONE || ns->predictor != MLZ_PRED_NONE) return -EBADMSG;
  if ((rc = wide_integers(t, ns, t->wide)) != 0 || (rc = integers(t, at, t->scratch)) != 0) return rc;
  uint64_t now = x->first_ns;
  uint32_t i = 0;
  for (uint32_t step = 0; step < at->count; step++) {
    if (t->scratch[step] > x->events - i || t->wide[step] > x->last_ns - now) return -EBADMSG;
    for (uint32_t end = i + t->scratch[step]; i < end; i++) t->time_ns[i] = now;
    now += t->wide[step];
  }
  for (; i < x->events; i++) t->time_ns[i] = now;
  return now == x->last_ns ? 0 : -EBADMSG;
}

static int decode_rares(struct mlz_trace *t, const struct column *c, uint32_t n, uint64_t first_ns) {
  if (c->count != n * MLZ_RARE_FIELDS || n > MLZ_RARES_MAX || c->predictor != MLZ_PRED_NONE || c->form != MLZ_FORM_VARINT) return -EBADMSG;
  int rc = wide_integers(t, c, t->wide);
  if (rc != 0) return rc;
  const uint64_t *v = t->wide;
  uint64_t start = first_ns;
  for (uint32_t i = 0; i < n; i++, v += MLZ_RARE_FIELDS) {
    start += mlz_unzigzag(v[0]);
    t->rares[i] = (struct mlz_rare){
        .start_ns = start,
        .duration_ns = v[1],
        .collected = v[2],
        .uncollectable = v[3],
        .generation = v[4] > UINT32_MAX ? UINT32_MAX : (uint32_t)v[4],
        .stack = v[5] < t->stacks_n ? (uint32_t)v[5] : (uint32_t)t->stacks_n,
        .name = v[6] < t->strings_n ? (uint32_t)v[6] : (uint32_t)t->strings_n,
    };
  }
  return 0;
}

/* Counts the ops and checks the columns' lengths against them, so that the loops need not look again. */
static int check_counts(struct mlz_trace *t, const struct column *columns, const struct mlz_extent *x, uint32_t *rares) {
  uint32_t count[256] = {0};
  const struct column *ops = &columns[MLZ_COL_OPS];
  const uint8_t *p;
  if (ops->count != x->events || ops->raw != x->events || ops->form != 1 || ops->predictor != MLZ_PRED_NONE) return -EBADMSG;
  if (ops->count == 0) return -EBADMSG;
  int rc = unpack(t, ops, &p);
  if (rc != 0) return rc;
  memcpy(t->ops, p, x->events);
  uint32_t other[256] = {0};
  for (uint32_t i = 0; i + 1 < x->events; i += 2) {
    count[p[i]]++;
    other[p[i + 1]]++;
  }
  if (x->events & 1) count[p[x->events - 1]]++;
  uint32_t known = 0;
  *rares = 0;
  for (unsigned op = 0; op < MLZ_OP_COUNT; op++) {
    count[op] += other[op];
    if (op <= MLZ_FILE_OP_FREE_TEMP_REF || op >= MLZ_OP_RARE) known += count[op];
    if (op >= MLZ_OP_RARE) *rares += count[op];
  }
  uint32_t refs = count[MLZ_OP_FREE] + count[MLZ_FILE_OP_FREE_TEMP_REF], olds = count[MLZ_OP_FREE_OLD] + count[MLZ_OP_FREE_OLD_TEMP];
  bool ok = known == x->events && count[MLZ_OP_ALLOC] == x->allocs &&
            x->frees == refs + olds + count[MLZ_OP_FREE_TEMP] + count[MLZ_OP_FREE_FOREIGN] &&
            columns[MLZ_COL_ALLOC_CLASS].count == x->allocs && columns[MLZ_COL_FREE_REF].count == refs &&
            columns[MLZ_COL_OLD_CLASS].count == olds && columns[MLZ_COL_OLD_REF].count == olds;
  return ok ? 0 : -EBADMSG;
}

static bool all_runs(struct mlz_trace *t, struct events *s, const struct threads *threads, const uint32_t *index, const uint32_t *length,
                     uint64_t first_alloc, bool distance, bool numbers) {
  uint32_t at = 0;
  bool ok = true;
  for (uint32_t r = 0; ok && r < threads->runs; r++) {
    uint32_t to = at + length[r], *latest = &threads->latest[index[r]];
    if (distance)
      ok = numbers ? run(t, s, t->ops, at, to, latest, first_alloc, true, true)
                   : run(t, s, t->ops, at, to, latest, first_alloc, true, false);
    else
      ok = numbers ? run(t, s, t->ops, at, to, latest, first_alloc, false, true)
                   : run(t, s, t->ops, at, to, latest, first_alloc, false, false);
    at = to;
  }
  return ok;
}

static int decode_events(struct mlz_trace *t, const struct column *columns, const struct mlz_extent *x, unsigned want, uint32_t classes) {
  uint32_t *index = t->run_index, *length = t->run_length, *old_class = t->old_class;
  uint64_t *old_ref = t->old_ref;
  const struct column *refs = &columns[MLZ_COL_FREE_REF], *olds = &columns[MLZ_COL_OLD_REF];
  struct threads threads;
  struct events s = {.old_class = old_class, .old_ref = old_ref};
  int rc;
  if ((rc = class_values(t, &columns[MLZ_COL_ALLOC_CLASS], t->alloc_class, classes)) != 0 ||
      (rc = class_values(t, &columns[MLZ_COL_OLD_CLASS], old_class, classes)) != 0 || (rc = integers(t, refs, t->ref)) != 0)
    return rc;
  if (refs->count != 0 && refs->predictor != MLZ_PRED_DELTA && refs->predictor != MLZ_PRED_DISTANCE) return -EBADMSG;
  if (want & MLZ_WANT_ALLOC_NO) {
    if ((rc = wide_values(t, olds, old_ref)) != 0) return rc;
    for (uint32_t i = 0; i < olds->count; i++)
      if (old_ref[i] >= x->first_alloc) return -EBADMSG;
  }
  if ((rc = decode_runs(t, columns, x->events, &threads, index, length)) != 0) return rc;
  if (!all_runs(t, &s, &threads, index, length, x->first_alloc, refs->predictor == MLZ_PRED_DISTANCE, (want & MLZ_WANT_ALLOC_NO) != 0))
    return -EBADMSG;
  if (want & MLZ_WANT_THREAD)
    for (uint32_t r = 0, i = 0; r < threads.runs; r++)
      for (uint32_t end = i + length[r]; i < end; i++) t->thread[i] = threads.ids[index[r]];
  return want & MLZ_WANT_TIME ? decode_times(t, columns, x) : 0;
}

int mlz_decode_events(struct mlz_trace *t, const uint8_t *p, size_t n, unsigned want, struct mlz_extent *x, struct mlz_block *b) {
  struct mlz_cursor c = {.p = p, .end = p + n};
  struct column columns[MLZ_COL_COUNT];
  uint32_t classes, rares;
  int rc;
  if (!mlz_extent_get(&c, x)) return -EBADMSG;
  uint32_t longest = x->events;
  if ((rc = read_directory(&c, columns, &longest)) != 0) return rc;
  if (!all_room(t, longest, want)) return -ENOMEM;
  if ((rc = check_counts(t, columns, x, &rares)) != 0 || (rc = decode_classes(t, columns, &classes)) != 0 ||
      (rc = decode_rares(t, &columns[MLZ_COL_RARE], rares, x->first_ns)) != 0 || (rc = decode_events(t, columns, x, want, classes)) != 0)
    return rc;
  for (uint32_t i = 0, r = 0; r < rares; i++)
    if (t->ops[i] >= MLZ_OP_RARE) t->rares[r++].op = t->ops[i];
  *b = (struct mlz_block){
      .process = x->process,
      .n = x->events,
      .first_alloc = x->first_alloc,
      .first_ns = x->first_ns,
      .last_ns = x->last_ns,
      .n_classes = classes,
      .classes = t->classes,
      .ops = t->ops,
      .classes_of = t->classes_of,
      .alloc_no = want & MLZ_WANT_ALLOC_NO ? t->alloc_no : NULL,
      .time_ns = want & MLZ_WANT_TIME ? t->time_ns : NULL,
      .thread = want & MLZ_WANT_THREAD ? t->thread : NULL,
      .n_rares = rares,
      .rares = t->rares,
  };
  return 0;
}
