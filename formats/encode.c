#include "formats/encode.h"

#include <errno.h>
#include <stdlib.h>

#define COLUMN_HEADER_MAX (4 + 3 * MLZ_VARINT_MAX)
#define COMPRESS_MIN 24u /* below it a zstd frame is longer than what it packs */

int mlz_encoder_init(struct mlz_encoder *e, int level) {
  *e = (struct mlz_encoder){.level = level};
  e->raw_size = (size_t)MLZ_CHUNK_EVENTS_MAX * MLZ_VARINT_MAX;
  e->out_size = (size_t)4 << 20;
  e->zstd = ZSTD_createCCtx();
  e->values = malloc(sizeof e->values[0] * MLZ_CHUNK_EVENTS_MAX);
  e->wide = malloc(sizeof e->wide[0] * MLZ_CHUNK_EVENTS_MAX);
  e->raw = malloc(e->raw_size);
  e->out = malloc(e->out_size);
  if (e->zstd != NULL && e->values != NULL && e->wide != NULL && e->raw != NULL && e->out != NULL) return 0;
  mlz_encoder_deinit(e);
  return -ENOMEM;
}

void mlz_encoder_deinit(struct mlz_encoder *e) {
  ZSTD_freeCCtx(e->zstd);
  free(e->values);
  free(e->wide);
  free(e->raw);
  free(e->out);
  *e = (struct mlz_encoder){0};
}

static int reserve(struct mlz_encoder *e, size_t more) {
  if (e->out_size - e->used >= more) return 0;
  size_t size = e->out_size;
  while (size - e->used < more) size *= 2;
  uint8_t *out = realloc(e->out, size);
  if (out == NULL) return -ENOMEM;
  e->out = out;
  e->out_size = size;
  return 0;
}

/* Appends one column of `count` integers whose bytes are raw[0..n). */
static int put_column(struct mlz_encoder *e, unsigned id, unsigned form, unsigned predictor, uint32_t count, const uint8_t *raw, size_t n) {
  if (n == 0) return 0;
  size_t bound = n < COMPRESS_MIN ? n : ZSTD_compressBound(n);
  if (reserve(e, COLUMN_HEADER_MAX + bound) != 0) return -ENOMEM;
  /* The header's length depends on the stored size, so the data is made behind the longest header and moved up. */
  uint8_t *data = e->out + e->used + COLUMN_HEADER_MAX;
  size_t stored = n;
  unsigned packing = MLZ_PACK_NONE;
  if (n >= COMPRESS_MIN) {
    size_t packed = ZSTD_compressCCtx(e->zstd, data, bound, raw, n, e->level);
    if (!ZSTD_isError(packed) && packed < n) {
      stored = packed;
      packing = MLZ_PACK_ZSTD;
    }
  }
  uint8_t *p = e->out + e->used;
  *p++ = (uint8_t)id;
  *p++ = (uint8_t)form;
  *p++ = (uint8_t)packing;
  *p++ = (uint8_t)predictor;
  p = mlz_put_varint(p, count);
  p = mlz_put_varint(p, n);
  p = mlz_put_varint(p, stored);
  memmove(p, packing == MLZ_PACK_ZSTD ? data : raw, stored);
  e->used = (size_t)(p + stored - e->out);
  return 0;
}

static unsigned width_of(uint32_t max) { return max < 1u << 8 ? 1 : max < 1u << 16 ? 2 : max < 1u << 24 ? 3 : 4; }

/* 64-bit values (times, sizes): short columns or slowly changing ones, where varints are as good as anything. */
static int put_wide(struct mlz_encoder *e, unsigned id, unsigned predictor, const uint64_t *v, uint32_t n) {
  uint8_t *p = e->raw;
  for (uint32_t i = 0; i < n; i++) p = mlz_put_varint(p, v[i]);
  return put_column(e, id, MLZ_FORM_VARINT, predictor, n, e->raw, (size_t)(p - e->raw));
}

static int put_varints(struct mlz_encoder *e, unsigned id, unsigned predictor, const uint32_t *v, uint32_t n) {
  uint8_t *p = e->raw;
  for (uint32_t i = 0; i < n; i++) p = mlz_put_varint(p, v[i]);
  return put_column(e, id, MLZ_FORM_VARINT, predictor, n, e->raw, (size_t)(p - e->raw));
}

/* Byte planes: on recorded Python programs a class column of 16-bit numbers packs 15 to 45 % smaller so than as varints or words. */
static int put_ints(struct mlz_encoder *e, unsigned id, unsigned predictor, const uint32_t *v, uint32_t n) {
  uint32_t max = 0;
  for (uint32_t i = 0; i < n; i++) max = v[i] > max ? v[i] : max;
  unsigned width = width_of(max);
  if (width > 1 && n < 256) return put_varints(e, id, predictor, v, n);
  uint8_t *p = e->raw;
  for (unsigned plane = 0; plane < width; plane++, p += n)
    for (uint32_t i = 0; i < n; i++) p[i] = (uint8_t)(v[i] >> 8 * plane);
  return put_column(e, id, width, predictor, n, e->raw, (size_t)n * width);
}

static int put_class_table(struct mlz_encoder *e, const struct mlz_builder *b) {
  uint32_t n = b->classes_n, stack = 0, weight = 0;
  int rc;
  for (uint32_t i = 0; i < n; i++) {
    e->wide[i] = mlz_zigzag((int64_t)b->classes[i].stack - stack);
    stack = b->classes[i].stack;
  }
  if ((rc = put_wide(e, MLZ_COL_CLASS_STACK, MLZ_PRED_DELTA, e->wide, n)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) e->wide[i] = b->classes[i].size;
  if ((rc = put_wide(e, MLZ_COL_CLASS_SIZE, MLZ_PRED_NONE, e->wide, n)) != 0) return rc;
  for (uint32_t i = 0; i < n; i++) {
    while (b->weights[weight] != b->classes[i].weight) /* ends: class_add put it there */
      weight = weight + 1 < b->weights_n ? weight + 1 : 0;
    e->wide[i] = (uint64_t)weight << 3 | b->classes[i].domain;
  }
  if ((rc = put_wide(e, MLZ_COL_CLASS_KIND, MLZ_PRED_NONE, e->wide, n)) != 0) return rc;
  memcpy(e->wide, b->weights, b->weights_n * sizeof(double));
  return put_wide(e, MLZ_COL_WEIGHTS, MLZ_PRED_NONE, e->wide, b->weights_n);
}

/* Two ways to name a block, the cheaper one by the sum of their lengths in bits: as so many allocations ago (churn, queues), or as the
 * neighbour of the block freed before (teardown). Both are mostly small with a long tail, which varints suit better than planes. */
static int put_refs(struct mlz_encoder *e, const struct mlz_builder *b) {
  uint64_t distance_bits = 0, delta_bits = 0;
  uint32_t previous = 0;
  for (uint32_t i = 0; i < b->refs; i++) {
    uint32_t distance = b->ref_allocs[i] - 1 - b->ref[i];
    uint32_t delta = (uint32_t)mlz_zigzag((int64_t)b->ref[i] - previous);
    distance_bits += 32 - (unsigned)__builtin_clz(distance | 1);
    delta_bits += 32 - (unsigned)__builtin_clz(delta | 1);
    previous = b->ref[i];
    e->values[i] = distance;
  }
  if (distance_bits <= delta_bits) return put_varints(e, MLZ_COL_FREE_REF, MLZ_PRED_DISTANCE, e->values, b->refs);
  previous = 0;
  for (uint32_t i = 0; i < b->refs; i++) {
    e->values[i] = (uint32_t)mlz_zigzag((int64_t)b->ref[i] - previous);
    previous = b->ref[i];
  }
  return put_varints(e, MLZ_COL_FREE_REF, MLZ_PRED_DELTA, e->values, b->refs);
}

static int put_olds(struct mlz_encoder *e, const struct mlz_builder *b) {
  int rc = put_ints(e, MLZ_COL_OLD_CLASS, MLZ_PRED_NONE, b->old_class, b->olds);
  uint64_t previous = 0;
  for (uint32_t i = 0; i < b->olds; i++) {
    e->wide[i] = mlz_zigzag((int64_t)(b->old_ref[i] - previous));
    previous = b->old_ref[i];
  }
  return rc != 0 ? rc : put_wide(e, MLZ_COL_OLD_REF, MLZ_PRED_DELTA, e->wide, b->olds);
}

static int put_runs(struct mlz_encoder *e, const struct mlz_builder *b) {
  int rc = put_ints(e, MLZ_COL_THREADS, MLZ_PRED_NONE, b->thread_id, b->threads_n);
  for (uint32_t i = 0; i < b->runs_n; i++) e->values[i] = b->runs[i].index;
  if (rc == 0) rc = put_ints(e, MLZ_COL_RUN_THREAD, MLZ_PRED_NONE, e->values, b->runs_n);
  for (uint32_t i = 0; i < b->runs_n; i++) e->values[i] = (i + 1 < b->runs_n ? b->runs[i + 1].event : b->n) - b->runs[i].event;
  if (rc == 0) rc = put_ints(e, MLZ_COL_RUN_EVENTS, MLZ_PRED_NONE, e->values, b->runs_n);
  return rc;
}

static int put_steps(struct mlz_encoder *e, const struct mlz_builder *b) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < b->steps_n; i++) {
    e->values[i] = b->steps[i].event - at;
    at = b->steps[i].event;
  }
  int rc = put_ints(e, MLZ_COL_STEP_EVENTS, MLZ_PRED_NONE, e->values, b->steps_n);
  if (rc != 0) return rc;
  uint64_t ns = b->first_ns;
  for (uint32_t i = 0; i < b->steps_n; i++) {
    e->wide[i] = b->steps[i].ns - ns;
    ns = b->steps[i].ns;
  }
  return put_wide(e, MLZ_COL_STEP_NS, MLZ_PRED_NONE, e->wide, b->steps_n);
}

static int put_rares(struct mlz_encoder *e, const struct mlz_builder *b) {
  uint8_t *p = e->raw; /* large enough: MLZ_RARES_MAX rows are far below MLZ_CHUNK_EVENTS_MAX integers */
  uint64_t start = b->first_ns;
  for (uint32_t i = 0; i < b->rares_n; i++) {
    const struct mlz_rare *r = &b->rares[i];
    p = mlz_put_varint(p, mlz_zigzag((int64_t)(r->start_ns - start)));
    p = mlz_put_varint(p, r->duration_ns);
    p = mlz_put_varint(p, r->collected);
    p = mlz_put_varint(p, r->uncollectable);
    p = mlz_put_varint(p, r->generation);
    p = mlz_put_varint(p, r->stack);
    p = mlz_put_varint(p, r->name);
    start = r->start_ns;
  }
  return put_column(e, MLZ_COL_RARE, MLZ_FORM_VARINT, MLZ_PRED_NONE, b->rares_n * MLZ_RARE_FIELDS, e->raw, (size_t)(p - e->raw));
}

static void fill_extent(const struct mlz_builder *b, struct mlz_extent *x) {
  *x = (struct mlz_extent){
      .process = b->process,
      .events = b->n,
      .allocs = b->allocs,
      .frees = b->frees,
      .first_alloc = b->first_alloc,
      .first_ns = b->first_ns,
      .last_ns = b->last_ns,
  };
  /* More steps than points: evenly thinned, each point still a true lower bound. */
  uint32_t n = b->steps_n < MLZ_POINTS_MAX ? b->steps_n : MLZ_POINTS_MAX;
  for (uint32_t i = 0; i < n; i++) {
    const struct mlz_builder_step *s = &b->steps[(uint64_t)i * b->steps_n / n];
    if (x->points != 0 && x->point_alloc[x->points - 1] == s->alloc) x->points--; /* no allocation between: the later time holds */
    x->point_alloc[x->points] = s->alloc;
    x->point_ns[x->points++] = s->ns;
  }
}

int mlz_encoder_events(struct mlz_encoder *e, const struct mlz_builder *b, struct mlz_extent *x) {
  _Static_assert(MLZ_RARES_MAX * MLZ_RARE_FIELDS <= MLZ_CHUNK_EVENTS_MAX, "put_rares uses the raw buffer");
  e->used = 0;
  fill_extent(b, x);
  int rc = reserve(e, MLZ_EXTENT_MAX_BYTES);
  if (rc != 0) return rc;
  e->used = (size_t)(mlz_extent_put(e->out, x) - e->out);
  if ((rc = put_column(e, MLZ_COL_OPS, 1, MLZ_PRED_NONE, b->n, b->ops, b->n)) != 0 || (rc = put_class_table(e, b)) != 0 ||
      (rc = put_ints(e, MLZ_COL_ALLOC_CLASS, MLZ_PRED_NONE, b->alloc_class, b->allocs)) != 0 || (rc = put_refs(e, b)) != 0 ||
      (rc = put_olds(e, b)) != 0 || (rc = put_runs(e, b)) != 0 || (rc = put_steps(e, b)) != 0)
    return rc;
  return put_rares(e, b);
}
