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

static void drop(void *array) {
  void *p;
  memcpy(&p, array, sizeof p);
  free(p);
  p = NULL;
  memcpy(array, &p, sizeof p);
}

static void drop_work(struct mlz_decode_work *w) {
  drop(&w->alloc_class), drop(&w->ref), drop(&w->scratch), drop(&w->old_class), drop(&w->thread_ids), drop(&w->wide), drop(&w->old_ref);
  w->room = 0;
}

static void drop_out(struct mlz_decode_out *o) {
  drop(&o->classes), drop(&o->ops), drop(&o->classes_of), drop(&o->thread), drop(&o->run_thread), drop(&o->run_events);
  drop(&o->alloc_no), drop(&o->time_ns), drop(&o->rares), drop(&o->step_at), drop(&o->step_ns);
  o->room = 0;
}

static bool room(size_t n, void *array, size_t element) {
  void *p;
  memcpy(&p, array, sizeof p);
  if (p == NULL) {
    p = malloc(n * element);
    memcpy(array, &p, sizeof p);
  }
  return p != NULL;
}

/* Arrays for a chunk none of whose lists is longer than `need`. */
static bool all_room(struct mlz_decode_work *w, struct mlz_decode_out *o, size_t need, unsigned want) {
  size_t more = need + need / 2;
  more = more < 64 ? 64 : more > MLZ_CHUNK_EVENTS_MAX ? MLZ_CHUNK_EVENTS_MAX : more;
  if (need > w->room) {
    drop_work(w);
    w->room = more;
  }
  if (need > o->room) {
    drop_out(o);
    o->room = more;
  }
  size_t n = w->room + 1, m = o->room; /* run() reads one value in advance */
  return room(n, &w->alloc_class, sizeof *w->alloc_class) && room(n, &w->ref, sizeof *w->ref) && room(n, &w->scratch, sizeof *w->scratch) &&
         room(n, &w->wide, sizeof *w->wide) && room(n, &w->old_class, sizeof *w->old_class) && room(n, &w->old_ref, sizeof *w->old_ref) &&
         room(2 * n, &w->thread_ids, sizeof *w->thread_ids) && room(m, &o->classes, sizeof *o->classes) && room(m, &o->ops, 1) &&
         room(m, &o->classes_of, sizeof *o->classes_of) && room(m, &o->rares, sizeof *o->rares) &&
         room(m, &o->run_thread, sizeof *o->run_thread) && room(m, &o->run_events, sizeof *o->run_events) &&
         room(m + 1, &o->step_at, sizeof *o->step_at) && room(m + 1, &o->step_ns, sizeof *o->step_ns) &&
         (!(want & MLZ_WANT_ALLOC_NO) || room(m, &o->alloc_no, sizeof *o->alloc_no)) &&
         (!(want & MLZ_WANT_TIME) || room(m, &o->time_ns, sizeof *o->time_ns)) &&
         (!(want & MLZ_WANT_THREAD) || room(m, &o->thread, sizeof *o->thread));
}

void mlz_decode_work_close(struct mlz_decode_work *w) {
  drop_work(w);
  drop(&w->column);
  w->column_room = 0;
  ZSTD_freeDCtx(w->zstd);
  w->zstd = NULL;
}

void mlz_decode_out_close(struct mlz_decode_out *o) { drop_out(o); }

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

/* The column's bytes: in `into` (room for c->raw) if they are packed, else where they lie. */
static int unpack_into(struct mlz_decode_work *w, const struct column *c, uint8_t *into, const uint8_t **out) {
  if (c->packing == MLZ_PACK_NONE && c->stored == c->raw) {
    *out = c->data;
    return 0;
  }
  if (c->packing != MLZ_PACK_ZSTD) return -EBADMSG;
  if (w->zstd == NULL && (w->zstd = ZSTD_createDCtx()) == NULL) return -ENOMEM;
  size_t n = ZSTD_decompressDCtx(w->zstd, into, (size_t)c->raw, c->data, (size_t)c->stored);
  if (ZSTD_isError(n) || n != c->raw) return -EBADMSG;
  *out = into;
  return 0;
}

/* The same, valid until the next call. */
static int unpack(struct mlz_decode_work *w, const struct column *c, const uint8_t **out) {
  if (!mlz_grow(&w->column, &w->column_room, (size_t)c->raw, 1)) return -ENOMEM;
  return unpack_into(w, c, w->column, out);
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
static int integers(struct mlz_decode_work *w, const struct column *c, uint32_t *out) {
  if (c->count == 0) return c->raw == 0 ? 0 : -EBADMSG;
  const uint8_t *p;
  int rc = unpack(w, c, &p);
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

static int wide_integers(struct mlz_decode_work *w, const struct column *c, uint64_t *out) {
  if (c->form != MLZ_FORM_VARINT) {
    int rc = integers(w, c, w->scratch);
    for (uint32_t i = 0; rc == 0 && i < c->count; i++) out[i] = w->scratch[i];
    return rc;
  }
  if (c->count == 0) return c->raw == 0 ? 0 : -EBADMSG;
  const uint8_t *p;
  int rc = unpack(w, c, &p);
  if (rc != 0) return rc;
  struct mlz_cursor in = {.p = p, .end = p + c->raw};
  for (uint32_t i = 0; i < c->count; i++) out[i] = mlz_get_varint(&in);
  return in.bad || in.p != in.end ? -EBADMSG : 0;
}

/* 64-bit values, plain or as differences. */
static int wide_values(struct mlz_decode_work *w, const struct column *c, uint64_t *out) {
  int rc = wide_integers(w, c, out);
  if (rc != 0 || c->predictor == MLZ_PRED_NONE) return rc;
  if (c->predictor != MLZ_PRED_DELTA) return -EBADMSG;
  uint64_t v = 0;
  for (uint32_t i = 0; i < c->count; i++) out[i] = v += mlz_unzigzag(out[i]);
  return 0;
}

static int class_values(struct mlz_decode_work *w, const struct column *c, uint32_t *out, uint32_t classes) {
  int rc = integers(w, c, out);
  if (rc != 0 || c->count == 0) return rc;
  if (c->predictor != MLZ_PRED_NONE) return -EBADMSG;
  uint32_t bad = 0;
  for (uint32_t i = 0; i < c->count; i++) bad |= out[i] >= classes;
  return bad ? -EBADMSG : 0;
}

static int decode_classes(const struct mlz_trace *t, struct mlz_decode_work *w, struct mlz_class *classes, const struct column *columns,
                          uint32_t *count) {
  const struct column *stack = &columns[MLZ_COL_CLASS_STACK], *weights = &columns[MLZ_COL_WEIGHTS];
  uint32_t n = stack->count;
  uint64_t *wide = w->wide;
  double weight[MLZ_WEIGHTS_MAX];
  int rc;
  if (columns[MLZ_COL_CLASS_SIZE].count != n || columns[MLZ_COL_CLASS_KIND].count != n || weights->count > MLZ_WEIGHTS_MAX) return -EBADMSG;
  if ((rc = wide_values(w, stack, wide)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) classes[i].stack = wide[i] < t->stacks_n ? (uint32_t)wide[i] : (uint32_t)t->stacks_n;
  if ((rc = wide_values(w, &columns[MLZ_COL_CLASS_SIZE], wide)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) {
    classes[i].size = wide[i];
    if (wide[i] >= UINT64_C(1) << 48) return -EBADMSG;
  }
  if ((rc = wide_values(w, weights, wide)) != 0) return rc;
  memcpy(weight, wide, weights->count * sizeof weight[0]);
  for (uint32_t i = 0; i < weights->count; i++)
    if (!(weight[i] >= 1 && weight[i] <= 0x1p33)) return -EBADMSG;
  if ((rc = wide_values(w, &columns[MLZ_COL_CLASS_KIND], wide)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) {
    uint64_t domain = wide[i] & 7, of = wide[i] >> 3;
    if (domain > 4 || of >= weights->count) return -EBADMSG;
    classes[i].domain = (uint32_t)domain;
    classes[i].weight = weight[of];
  }
  *count = n;
  return 0;
}

struct events {
  uint32_t allocs, refs, olds, rares; /* so far */
  uint32_t ref;                       /* the previous reference */
};

/* One thread's run of events. `distance` and `numbers` are constants where this is inlined. */
static inline __attribute__((always_inline)) bool run(const struct mlz_decode_work *w, struct mlz_decode_out *o, struct events *s,
                                                      uint32_t from, uint32_t to, uint32_t *latest, uint64_t first_alloc, bool distance,
                                                      bool numbers) {
  uint32_t allocs = s->allocs, refs = s->refs, ref = s->ref, olds = s->olds, last = *latest;
  const uint32_t *alloc_class = w->alloc_class, *refs_of = w->ref, *old_class = w->old_class;
  const uint64_t *old_ref = w->old_ref;
  uint8_t *ops = o->ops;
  uint32_t *classes_of = o->classes_of;
  uint64_t *alloc_no = o->alloc_no;
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
      uint32_t v = refs_of[refs++];
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
      k = old_class[olds];
      number = numbers ? first_alloc - 1 - old_ref[olds] : 0;
      olds++;
      break;
    case MLZ_OP_FREE_FOREIGN:
      k = ALL_ONES;
      number = UINT64_MAX;
      break;
    default:
      k = s->rares++;
      number = UINT64_MAX;
    }
    classes_of[i] = k;
    if (numbers) alloc_no[i] = number;
  }
  s->allocs = allocs;
  s->refs = refs;
  s->ref = ref;
  s->olds = olds;
  *latest = last;
  return true;
}

struct threads {
  uint32_t *latest;
  uint32_t n, runs;
};

/* o->run_thread are indices into w->thread_ids as yet. */
static int decode_runs(const struct mlz_trace *t, struct mlz_decode_work *w, struct mlz_decode_out *o, const struct column *columns,
                       uint32_t events, struct threads *out) {
  const struct column *ids = &columns[MLZ_COL_THREADS], *run_thread = &columns[MLZ_COL_RUN_THREAD],
                      *run_events = &columns[MLZ_COL_RUN_EVENTS];
  int rc;
  if (run_thread->count != run_events->count || ids->predictor != MLZ_PRED_NONE || run_thread->predictor != MLZ_PRED_NONE ||
      run_events->predictor != MLZ_PRED_NONE)
    return -EBADMSG;
  if ((rc = integers(w, ids, w->thread_ids)) != 0 || (rc = integers(w, run_thread, o->run_thread)) != 0 ||
      (rc = integers(w, run_events, o->run_events)) != 0)
    return rc;
  out->n = ids->count;
  out->runs = run_thread->count;
  out->latest = w->thread_ids + w->room;
  memset(out->latest, 0, out->n * sizeof out->latest[0]);
  for (uint32_t i = 0; i < out->n; i++) w->thread_ids[i] = mlz_tables_known_thread(t, w->thread_ids[i]);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < out->runs; i++) {
    sum += o->run_events[i];
    if (o->run_thread[i] >= out->n) return -EBADMSG;
  }
  return sum == events ? 0 : -EBADMSG;
}

static int decode_steps(struct mlz_decode_work *w, struct mlz_decode_out *o, const struct column *columns, const struct mlz_extent *x,
                        uint32_t *steps) {
  const struct column *at = &columns[MLZ_COL_STEP_EVENTS], *ns = &columns[MLZ_COL_STEP_NS];
  int rc;
  if (at->count != ns->count || at->predictor != MLZ_PRED_NONE || ns->predictor != MLZ_PRED_NONE) return -EBADMSG;
  if ((rc = wide_integers(w, ns, w->wide)) != 0 || (rc = integers(w, at, w->scratch)) != 0) return rc;
  o->step_at[0] = 0;
  o->step_ns[0] = x->first_ns;
  for (uint32_t step = 0; step < at->count; step++) {
    if (w->scratch[step] > x->events - o->step_at[step] || w->wide[step] > x->last_ns - o->step_ns[step]) return -EBADMSG;
    o->step_at[step + 1] = o->step_at[step] + w->scratch[step];
    o->step_ns[step + 1] = o->step_ns[step] + w->wide[step];
  }
  *steps = at->count + 1;
  return o->step_ns[at->count] == x->last_ns ? 0 : -EBADMSG;
}

static int decode_rares(const struct mlz_trace *t, struct mlz_decode_work *w, struct mlz_rare *rares, const struct column *c, uint32_t n,
                        uint64_t first_ns) {
  if (c->count != n * MLZ_RARE_FIELDS || n > MLZ_RARES_MAX || c->predictor != MLZ_PRED_NONE || c->form != MLZ_FORM_VARINT) return -EBADMSG;
  int rc = wide_integers(w, c, w->wide);
  if (rc != 0) return rc;
  const uint64_t *v = w->wide;
  uint64_t start = first_ns;
  for (uint32_t i = 0; i < n; i++, v += MLZ_RARE_FIELDS) {
    start += mlz_unzigzag(v[0]);
    rares[i] = (struct mlz_rare){
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

/* How often each op up to FREE_TEMP_REF comes up: 16 at a time, since one counter for each value would wait for itself. */
static void count_ops(const uint8_t *ops, uint32_t n, uint32_t count[MLZ_FILE_OP_FREE_TEMP_REF + 1]) {
  typedef uint8_t lanes __attribute__((vector_size(16)));
  enum { OPS = MLZ_FILE_OP_FREE_TEMP_REF + 1, LANES = sizeof(lanes), MOST = 255 };
  uint32_t i = 0;
  while (n - i >= LANES) {
    lanes sum[OPS] = {{0}};
    for (uint32_t end = n - i >= MOST * LANES ? i + MOST * LANES : n; end - i >= LANES && i < end; i += LANES) {
      lanes v;
      memcpy(&v, ops + i, sizeof v);
      for (unsigned op = 0; op < OPS; op++) sum[op] -= (lanes)(v == (uint8_t)op);
    }
    for (unsigned op = 0; op < OPS; op++)
      for (unsigned k = 0; k < LANES; k++) count[op] += sum[op][k];
  }
  for (; i < n; i++)
    if (ops[i] < OPS) count[ops[i]]++;
}

/* Counts the ops and checks the columns' lengths against them, so that the loops need not look again. */
static int check_counts(struct mlz_decode_work *w, uint8_t *into, const struct column *columns, const struct mlz_extent *x,
                        uint32_t *rares) {
  const struct column *ops = &columns[MLZ_COL_OPS];
  const uint8_t *p;
  if (ops->count != x->events || ops->raw != x->events || ops->form != 1 || ops->predictor != MLZ_PRED_NONE) return -EBADMSG;
  if (ops->count == 0) return -EBADMSG;
  int rc = unpack_into(w, ops, into, &p);
  if (rc != 0) return rc;
  if (p != into) memcpy(into, p, x->events);
  uint32_t count[MLZ_FILE_OP_FREE_TEMP_REF + 1] = {0}, known = 0, odd = 0;
  count_ops(into, x->events, count);
  for (unsigned op = 0; op <= MLZ_FILE_OP_FREE_TEMP_REF; op++) known += count[op];
  *rares = x->events - known;
  for (uint32_t i = 0; odd < *rares && i < x->events; i++) {
    if (into[i] <= MLZ_FILE_OP_FREE_TEMP_REF) continue;
    if (into[i] < MLZ_OP_RARE || into[i] >= MLZ_OP_COUNT) return -EBADMSG;
    odd++;
  }
  uint32_t refs = count[MLZ_OP_FREE] + count[MLZ_FILE_OP_FREE_TEMP_REF], olds = count[MLZ_OP_FREE_OLD] + count[MLZ_OP_FREE_OLD_TEMP];
  bool ok = count[MLZ_OP_ALLOC] == x->allocs && x->frees == refs + olds + count[MLZ_OP_FREE_TEMP] + count[MLZ_OP_FREE_FOREIGN] &&
            columns[MLZ_COL_ALLOC_CLASS].count == x->allocs && columns[MLZ_COL_FREE_REF].count == refs &&
            columns[MLZ_COL_OLD_CLASS].count == olds && columns[MLZ_COL_OLD_REF].count == olds;
  return ok ? 0 : -EBADMSG;
}

static bool all_runs(const struct mlz_decode_work *w, struct mlz_decode_out *o, const struct threads *threads, uint64_t first_alloc,
                     bool distance, bool numbers) {
  struct events s = {0};
  uint32_t at = 0;
  bool ok = true;
  for (uint32_t r = 0; ok && r < threads->runs; r++) {
    uint32_t to = at + o->run_events[r], *latest = &threads->latest[o->run_thread[r]];
    if (distance)
      ok = numbers ? run(w, o, &s, at, to, latest, first_alloc, true, true) : run(w, o, &s, at, to, latest, first_alloc, true, false);
    else
      ok = numbers ? run(w, o, &s, at, to, latest, first_alloc, false, true) : run(w, o, &s, at, to, latest, first_alloc, false, false);
    at = to;
  }
  return ok;
}

static int decode_events(const struct mlz_trace *t, struct mlz_decode_work *w, struct mlz_decode_out *o, const struct column *columns,
                         const struct mlz_extent *x, unsigned want, uint32_t classes, struct mlz_block *b) {
  const struct column *allocs = &columns[MLZ_COL_ALLOC_CLASS], *refs = &columns[MLZ_COL_FREE_REF], *olds = &columns[MLZ_COL_OLD_REF];
  struct threads threads;
  int rc;
  if ((rc = class_values(w, allocs, w->alloc_class, classes)) != 0 ||
      (rc = class_values(w, &columns[MLZ_COL_OLD_CLASS], w->old_class, classes)) != 0 || (rc = integers(w, refs, w->ref)) != 0)
    return rc;
  if (refs->count != 0 && refs->predictor != MLZ_PRED_DELTA && refs->predictor != MLZ_PRED_DISTANCE) return -EBADMSG;
  if (want & MLZ_WANT_ALLOC_NO) {
    if ((rc = wide_values(w, olds, w->old_ref)) != 0) return rc;
    for (uint32_t i = 0; i < olds->count; i++)
      if (w->old_ref[i] >= x->first_alloc) return -EBADMSG;
  }
  w->alloc_class[allocs->count] = w->ref[refs->count] = w->old_class[olds->count] = 0; /* read in advance */
  w->old_ref[olds->count] = 0;
  if ((rc = decode_runs(t, w, o, columns, x->events, &threads)) != 0) return rc;
  if (!all_runs(w, o, &threads, x->first_alloc, refs->predictor == MLZ_PRED_DISTANCE, (want & MLZ_WANT_ALLOC_NO) != 0)) return -EBADMSG;
  for (uint32_t r = 0; r < threads.runs; r++) o->run_thread[r] = w->thread_ids[o->run_thread[r]];
  if (want & MLZ_WANT_THREAD)
    for (uint32_t r = 0, i = 0; r < threads.runs; r++)
      for (uint32_t end = i + o->run_events[r]; i < end; i++) o->thread[i] = o->run_thread[r];
  b->n_runs = threads.runs;
  if ((rc = decode_steps(w, o, columns, x, &b->n_steps)) != 0) return rc;
  if (want & MLZ_WANT_TIME)
    for (uint32_t s = 0, i = 0; s < b->n_steps; s++)
      for (uint32_t end = s + 1 < b->n_steps ? o->step_at[s + 1] : x->events; i < end; i++) o->time_ns[i] = o->step_ns[s];
  return 0;
}

/* May there be a MARK or a SNAPSHOT? They have a name, if not the empty one, and nothing else. */
static int may_have_marks(struct mlz_decode_work *w, const struct column *c, bool *may) {
  *may = false;
  if (c->form != MLZ_FORM_VARINT || c->count % MLZ_RARE_FIELDS != 0) return -EBADMSG;
  int rc = wide_integers(w, c, w->wide);
  for (const uint64_t *v = w->wide; rc == 0 && v < w->wide + c->count; v += MLZ_RARE_FIELDS) *may |= !(v[1] | v[2] | v[3] | v[4] | v[5]);
  return rc;
}

int mlz_decode_events(const struct mlz_trace *t, struct mlz_decode_work *w, struct mlz_decode_out *o, const uint8_t *p, size_t n,
                      unsigned want, struct mlz_extent *x, struct mlz_block *b) {
  struct mlz_cursor c = {.p = p, .end = p + n};
  struct column columns[MLZ_COL_COUNT];
  struct mlz_block counts = {0};
  uint32_t classes = 0, rares;
  int rc;
  if (!mlz_extent_get(&c, x)) return -EBADMSG;
  uint32_t longest = x->events;
  if ((rc = read_directory(&c, columns, &longest)) != 0) return rc;
  if (!all_room(w, o, longest, want)) return -ENOMEM;
  const struct column *rare = &columns[MLZ_COL_RARE];
  bool marks = (want & MLZ_WANT_MARKS_ONLY) != 0, few = marks || (want & MLZ_WANT_RARES_ONLY) != 0, none = few && rare->count == 0, may;
  if (!marks && (rc = decode_classes(t, w, o->classes, columns, &classes)) != 0) return rc;
  if (marks && !none) {
    if ((rc = may_have_marks(w, rare, &may)) != 0) return rc;
    none = !may;
  }
  rares = 0;
  if (!none &&
      ((rc = check_counts(w, o->ops, columns, x, &rares)) != 0 || (rc = decode_rares(t, w, o->rares, rare, rares, x->first_ns)) != 0))
    return rc;
  if (!few && (rc = decode_events(t, w, o, columns, x, want, classes, &counts)) != 0) return rc;
  for (uint32_t i = 0, r = 0; r < rares; i++)
    if (o->ops[i] >= MLZ_OP_RARE) o->rares[r++].op = o->ops[i];
  *b = (struct mlz_block){
      .process = x->process,
      .n = x->events,
      .allocs = x->allocs,
      .first_alloc = x->first_alloc,
      .first_ns = x->first_ns,
      .last_ns = x->last_ns,
      .n_classes = classes,
      .classes = o->classes,
      .ops = none ? NULL : o->ops,
      .classes_of = few ? NULL : o->classes_of,
      .alloc_no = !few && want & MLZ_WANT_ALLOC_NO ? o->alloc_no : NULL,
      .time_ns = !few && want & MLZ_WANT_TIME ? o->time_ns : NULL,
      .thread = !few && want & MLZ_WANT_THREAD ? o->thread : NULL,
      .n_runs = counts.n_runs,
      .run_thread = few ? NULL : o->run_thread,
      .run_events = few ? NULL : o->run_events,
      .n_steps = counts.n_steps,
      .step_at = few ? NULL : o->step_at,
      .step_ns = few ? NULL : o->step_ns,
      .n_rares = rares,
      .rares = o->rares,
  };
  return 0;
}
