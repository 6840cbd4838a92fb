#include "formats/survey.h"
#include "formats/walk.h"
#include "formats/writing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct range { /* allocations of a process that are in the new file */
  uint32_t process;
  uint64_t first, end;
};

struct repair {
  struct mlz_writer *writer;
  struct mlz_builder *builder; /* NULL until one is needed */
  const struct mlz_survey *s;
  struct mlz_repair *out;
  struct range *ranges; /* by rising process and number */
  size_t ranges_n, ranges_room;
  bool totals; /* TOTALS chunks are kept */
  bool begun;  /* an EVENTS chunk was seen: before it TOTALS chunks stand for a beginning that was left out */
};

/* ---- rows that were lost ---- */

/* A table chunk of rows that read "<lost>": ids that no row can have stand for it. Returns its size. */
static size_t fill_rows(uint8_t *out, unsigned kind, uint64_t first, uint32_t count) {
  static const char lost[] = "<lost>";
  struct mlz_chunk_header h = {.magic = MLZ_CHUNK_MAGIC, .kind = (uint16_t)kind, .count = count};
  uint8_t *p = mlz_put_varint(out + sizeof h, first);
  uint64_t nobody = mlz_zigzag(-1);
  if (kind == MLZ_C_STRINGS) {
    for (uint32_t i = 0; i < count; i++) *p++ = sizeof lost - 1;
    for (uint32_t i = 0; i < count; i++, p += sizeof lost - 1) memcpy(p, lost, sizeof lost - 1);
  } else if (kind == MLZ_C_FRAMES) {
    p = mlz_put_varint(p, nobody);
    for (uint32_t i = 1; i < 5 * count; i++) *p++ = 0;
  } else if (kind == MLZ_C_MODULES) {
    for (uint32_t i = 0; i < count; i++) p = mlz_put_varint(p, UINT32_MAX);
    for (uint32_t i = 0; i < count; i++) *p++ = 0;
  } else {
    for (uint32_t i = 0; i < count; i++) {
      *p++ = 2; /* one frame, none shared */
      *p++ = 0;
      p = mlz_put_varint(p, nobody);
    }
  }
  h.raw = h.stored = (uint32_t)(p - out - (ptrdiff_t)sizeof h);
  memcpy(out, &h, sizeof h);
  return (size_t)(p - out);
}

static int fill_hole(struct repair *r, unsigned kind, uint64_t from, uint64_t to) {
  uint8_t *chunk = malloc(sizeof(struct mlz_chunk_header) + MLZ_VARINT_MAX * 2 + 8 * (size_t)MLZ_TABLE_ROWS_MAX);
  int rc = chunk == NULL ? -ENOMEM : 0;
  r->out->rows_filled += to - from;
  while (rc == 0 && from < to) {
    uint32_t some = to - from < MLZ_TABLE_ROWS_MAX ? (uint32_t)(to - from) : MLZ_TABLE_ROWS_MAX;
    struct mlz_bytes bytes = {.data = chunk, .size = fill_rows(chunk, kind, from, some)};
    rc = mlz_writer_append_tables(r->writer, &bytes);
    from += some;
  }
  free(chunk);
  return rc;
}

/* ---- frees of blocks whose allocation was lost ---- */

/* The place of the first range that begins behind (process, number). */
static size_t range_behind(const struct repair *r, uint32_t process, uint64_t number) {
  size_t low = 0, high = r->ranges_n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct range *x = &r->ranges[middle];
    if (x->process < process || (x->process == process && x->first <= number))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static bool is_there(const struct repair *r, uint32_t process, uint64_t number) {
  size_t i = range_behind(r, process, number);
  return i > 0 && r->ranges[i - 1].process == process && number < r->ranges[i - 1].end;
}

static int add_range(struct repair *r, const struct mlz_extent *x) {
  if (x->allocs == 0) return 0;
  size_t i = range_behind(r, x->process, x->first_alloc);
  uint64_t end = x->first_alloc + x->allocs;
  if (i > 0 && r->ranges[i - 1].process == x->process && r->ranges[i - 1].end >= x->first_alloc) {
    if (end > r->ranges[i - 1].end) r->ranges[i - 1].end = end;
    return 0;
  }
  if (!mlz_grow(&r->ranges, &r->ranges_room, r->ranges_n + 1, sizeof r->ranges[0])) return -ENOMEM;
  memmove(&r->ranges[i + 1], &r->ranges[i], (r->ranges_n - i) * sizeof r->ranges[0]);
  r->ranges[i] = (struct range){x->process, x->first_alloc, end};
  r->ranges_n++;
  return 0;
}

static bool is_old(uint8_t op) { return op == MLZ_OP_FREE_OLD || op == MLZ_OP_FREE_OLD_TEMP; }

static uint64_t orphans(const struct repair *r, const struct mlz_block *b) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < b->n; i++) n += is_old(b->ops[i]) && !is_there(r, b->process, b->alloc_no[i]);
  return n;
}

/* The same events, with frees of unknown blocks in the place of those. */
static int append_without_orphans(struct repair *r, const struct mlz_block *b) {
  if (r->builder == NULL && (r->builder = mlz_builder_new()) == NULL) return -ENOMEM;
  struct mlz_builder *to = r->builder;
  mlz_builder_begin(to, b->process, b->first_alloc, b->first_ns);
  for (uint32_t i = 0; i < b->n; i++) {
    uint8_t op = b->ops[i];
    mlz_builder_time(to, b->time_ns[i]);
    mlz_builder_thread(to, b->thread[i]);
    if (op >= MLZ_OP_RARE) {
      mlz_builder_rare(to, &b->rares[b->classes_of[i]]);
    } else if (op == MLZ_OP_FREE_FOREIGN || (is_old(op) && !is_there(r, b->process, b->alloc_no[i]))) {
      mlz_builder_free_foreign(to);
    } else {
      const struct mlz_class *c = &b->classes[b->classes_of[i]];
      if (op == MLZ_OP_ALLOC)
        mlz_builder_alloc(to, c->stack, c->size, c->domain, c->weight);
      else
        mlz_builder_free_block(to, b->alloc_no[i], c->stack, c->size, c->domain, c->weight,
                               op == MLZ_OP_FREE_TEMP || op == MLZ_OP_FREE_OLD_TEMP);
    }
  }
  return mlz_writer_append_events(r->writer, to);
}

static int take_events(struct repair *r, const struct mlz_walk_chunk *c) {
  uint64_t n = orphans(r, c->block);
  r->begun = true;
  r->out->events += c->block->n;
  r->out->foreign += n;
  int rc = n != 0 ? append_without_orphans(r, c->block) : mlz_writer_append_stored(r->writer, c->h, c->stored, c->extent);
  return rc != 0 ? rc : add_range(r, c->extent);
}

/* ---- totals ---- */

/* A chunk that leans on a lost one tells nothing, and is left out. Beside events all are, if any event was lost: they would say otherwise. */
static int take_totals(struct repair *r, const struct mlz_walk_chunk *c) {
  bool begin = r->s->left_out && !r->begun;
  if (begin) {
    struct mlz_cursor cursor = {.p = c->raw, .end = c->raw + c->h->raw};
    uint64_t v[8]; /* process, part, flags, point, name, ns, events, allocations */
    for (size_t k = 0; k < 8; k++) v[k] = mlz_get_varint(&cursor);
    struct mlz_extent there = {.process = (uint32_t)v[0], .allocs = v[7] < UINT32_MAX ? (uint32_t)v[7] : UINT32_MAX};
    int rc = add_range(r, &there);
    if (rc == 0 && v[7] > UINT32_MAX) r->ranges[range_behind(r, there.process, 0) - 1].end = v[7];
    if (rc != 0) return rc;
  }
  if ((r->totals || begin) && c->told) return mlz_writer_append_stored(r->writer, c->h, c->stored, NULL);
  r->out->totals_left_out++;
  return 0;
}

/* ---- the file ---- */

static int take(void *arg, const struct mlz_walk_chunk *c) {
  struct repair *r = arg;
  switch (c->h->kind) {
  case MLZ_C_META: /* written by the writer itself */
  case MLZ_C_SUMMARY:
  case MLZ_C_INDEX:
  case MLZ_C_END:
    return 0;
  case MLZ_C_EVENTS:
    return take_events(r, c);
  case MLZ_C_TOTALS:
    return take_totals(r, c);
  case MLZ_C_STRINGS:
  case MLZ_C_FRAMES:
  case MLZ_C_STACKS:
  case MLZ_C_MODULES:
    if (c->first > c->have) {
      int rc = fill_hole(r, c->h->kind, c->have, c->first);
      if (rc != 0) return rc;
    }
  }
  return mlz_writer_append_stored(r->writer, c->h, c->stored, NULL);
}

/* An index can be made again, and so can the end of a file that has its summary. */
static bool lost_something(const struct mlz_survey *s) {
  for (size_t i = 0; i < s->faults_n; i++) {
    const struct mlz_fault *f = &s->faults[i];
    bool trailer = f->chunk == MLZ_C_INDEX || f->chunk == MLZ_C_END || f->kind == MLZ_FAULT_CUT || f->kind == MLZ_FAULT_TAIL;
    bool harmless = f->kind == MLZ_FAULT_HEADER || f->kind == MLZ_FAULT_INDEX || f->kind == MLZ_FAULT_APPENDED;
    if (!harmless && !(trailer && s->summary != NULL)) return true;
  }
  return s->faults_more != 0;
}

static json_t *make_meta(const struct mlz_survey *s) {
  if (s->meta != NULL) return json_incref(s->meta);
  return json_pack("{s:s, s:[], s:i, s:s, s:i, s:{s:b}}", "version", "", "command", "pid", 0, "host", "", "start", 0, "settings",
                   "snapshots_only", s->totals_only);
}

/* Whatever the file says was there before: the sum stays an integer that JSON can hold. */
static void add(json_t *to, const json_t *before, const char *key, uint64_t n) {
  json_int_t had = json_integer_value(json_object_get(before, key));
  uint64_t sum = had > 0 && n < INT64_MAX - (uint64_t)had ? n + (uint64_t)had : n;
  json_object_set_new(to, key, json_integer(sum < INT64_MAX ? (json_int_t)sum : INT64_MAX));
}

static json_t *make_summary(const struct mlz_survey *s, const struct mlz_repair *out) {
  static const char *const wrong[] = {"peak_bytes", "peak_ns", "live_bytes"};
  json_t *summary = json_copy(s->summary != NULL ? s->summary : s->group), *repaired = json_object();
  const json_t *before = json_object_get(summary, "repaired");
  bool cut = s->faults_n != 0 && s->faults[s->faults_n - 1].kind == MLZ_FAULT_CUT;
  if (summary == NULL) summary = json_object();
  if (json_object_get(summary, "duration_ns") == NULL)
    json_object_set_new(summary, "duration_ns", json_integer((json_int_t)(s->group_ns > s->last_ns ? s->group_ns : s->last_ns)));
  if (lost_something(s)) {
    json_object_set_new(summary, "complete", json_false());
    add(repaired, before, "chunks_lost", s->chunks_bad);
    add(repaired, before, "bytes_lost", s->bytes_bad);
    add(repaired, before, "events_lost", s->events_lost);
    add(repaired, before, "frees_of_lost_blocks", out->foreign);
    json_object_set_new(repaired, "events_lost_known",
                        json_boolean(s->events_lost_known && !json_is_false(json_object_get(before, "events_lost_known"))));
    json_object_set_new(repaired, "cut", json_boolean((cut && s->summary == NULL) || json_is_true(json_object_get(before, "cut"))));
    json_object_set(summary, "repaired", repaired);
  }
  if (s->events_lost != 0 || !s->events_lost_known) /* they counted what is lost */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) json_object_del(summary, wrong[i]);
  json_decref(repaired);
  return summary;
}

static int write_all(struct repair *r, struct mlz_source *source, int fd, char *err, size_t err_size) {
  struct mlz_survey again;
  json_t *meta = make_meta(r->s);
  int rc = meta == NULL ? -ENOMEM
                        : mlz_writer_begin(&r->writer, fd, meta, 0,
                                           r->s->totals_only ? MLZ_FEATURE_TOTALS_ONLY
                                           : r->s->left_out  ? MLZ_FEATURE_LEFT_OUT
                                                             : 0);
  json_decref(meta);
  if (rc != 0) {
    close(fd);
    mlz_source_close(source);
    return rc;
  }
  if ((rc = mlz_walk_file(source, &again, take, r, err, err_size)) != 0) return rc;
  bool same = again.faults_n == r->s->faults_n && again.chunks_sound == r->s->chunks_sound;
  mlz_survey_clear(&again);
  if (!same) return -EAGAIN; /* it is being written */
  json_t *summary = make_summary(r->s, r->out);
  rc = mlz_writer_finish(r->writer, summary);
  json_decref(summary);
  r->out->bytes = mlz_writer_bytes(r->writer);
  return rc;
}

static int repair(struct mlz_source *source, const struct mlz_survey *s, int fd, struct mlz_repair *out, char *err, size_t err_size) {
  *out = (struct mlz_repair){0};
  struct repair r = {.s = s, .out = out, .totals = s->totals_only || (s->events_lost == 0 && s->events_lost_known)};
  int rc = write_all(&r, source, fd, err, err_size);
  if (rc != 0)
    snprintf(err, err_size, "%s", rc == -EAGAIN ? "the trace changed meanwhile; wait until its recorder has ended" : strerror(-rc));
  mlz_writer_free(r.writer);
  mlz_builder_free(r.builder);
  free(r.ranges);
  return rc;
}

int mlz_repair_file(const char *path, const struct mlz_survey *s, int fd, struct mlz_repair *out, char *err, size_t err_size) {
  struct mlz_source source;
  int rc = mlz_source_open(&source, path, err, err_size);
  if (rc != 0) {
    close(fd);
    return rc;
  }
  return repair(&source, s, fd, out, err, err_size);
}

int mlz_repair_memory(const uint8_t *bytes, size_t n, const struct mlz_survey *s, int fd, struct mlz_repair *out, char *err,
                      size_t err_size) {
  struct mlz_source source;
  mlz_source_memory(&source, bytes, n);
  return repair(&source, s, fd, out, err, err_size);
}
