#include "formats/survey.h"

#include "formats/walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct listed { /* a chunk as the index has it */
  uint64_t at;
  uint32_t stored, kind;
  const uint8_t *extent; /* EVENTS; in walk.index */
};

struct walk {
  struct mlz_trace *t; /* whose tables, buffers and damage the decoders use; not opened as the reader does */
  struct mlz_survey *s;
  mlz_walk_take take;
  void *arg;
  uint8_t *index;
  size_t index_bytes;
  struct listed *list;
  size_t list_n, next; /* the first listed chunk at or behind the walk's place */
  uint64_t index_at;   /* of the last INDEX chunk; 0: none */
  bool index_wrong, index_sound;
  size_t open; /* the first fault of which it is not known until when it lasted */
};

/* ---- faults ---- */

static int add_fault(struct walk *w, struct mlz_fault f) {
  struct mlz_survey *s = w->s;
  if (f.kind != MLZ_FAULT_CUT && f.kind != MLZ_FAULT_MISSING && f.kind != MLZ_FAULT_INDEX) {
    s->bytes_bad += f.bytes;
    w->t->damage.bytes_bad += f.bytes; /* the tables' loaders allow holes by it */
    if (f.kind == MLZ_FAULT_BYTES || f.kind == MLZ_FAULT_CONTENT) s->chunks_bad++;
  }
  bool harmless = f.kind == MLZ_FAULT_HEADER || f.kind == MLZ_FAULT_INDEX || f.kind == MLZ_FAULT_APPENDED || f.kind == MLZ_FAULT_MISSING;
  if (f.chunk == MLZ_C_EVENTS && f.counted) s->events_lost += f.count;
  if (f.chunk == MLZ_C_TOTALS || f.chunk == 0) s->totals_lost |= !harmless;
  if (!f.listed && !harmless && s->summary == NULL) s->events_lost_known = false; /* no event comes behind a SUMMARY */
  if (s->faults_n == MLZ_SURVEY_FAULTS_MAX) {
    s->faults_more++;
    return 0;
  }
  if (!mlz_grow(&s->faults, &s->faults_room, s->faults_n + 1, sizeof s->faults[0])) return -ENOMEM;
  s->faults[s->faults_n++] = f;
  return 0;
}

/* All events up to `ns` have been passed: no fault before it lost later ones. */
static void close_faults(struct walk *w, uint64_t ns) {
  for (; w->open < w->s->faults_n; w->open++)
    if (w->s->faults[w->open].to_ns == UINT64_MAX) w->s->faults[w->open].to_ns = ns;
}

static struct mlz_fault fault_here(const struct walk *w, enum mlz_fault_kind kind, uint64_t at, uint64_t bytes) {
  return (struct mlz_fault){.kind = kind, .at = at, .bytes = bytes, .from_ns = w->s->group_ns, .to_ns = UINT64_MAX};
}

/* ---- the index ---- */

static bool same_extent(const struct mlz_extent *a, const struct mlz_extent *b) {
  return a->process == b->process && a->events == b->events && a->allocs == b->allocs && a->frees == b->frees &&
         a->first_alloc == b->first_alloc && a->first_ns == b->first_ns && a->last_ns == b->last_ns && a->points == b->points &&
         memcmp(a->point_alloc, b->point_alloc, a->points * sizeof a->point_alloc[0]) == 0 &&
         memcmp(a->point_ns, b->point_ns, a->points * sizeof a->point_ns[0]) == 0;
}

/* The list of all chunks, from the file's last bytes, into w->list. Nothing if it is not there or not sound: the walk will say why. */
static int read_index(struct walk *w, uint64_t first) {
  struct mlz_chunk_header end, h;
  const uint8_t *p;
  uint64_t size = w->t->source.size;
  if (size < first + 2 * sizeof h) return 0;
  int rc = mlz_trace_read(w->t, size - sizeof end, &end, &p);
  if (rc != 1 || end.kind != MLZ_C_END || end.count < first || end.count > size - 2 * sizeof h) return rc < 0 ? rc : 0;
  rc = mlz_trace_chunk(w->t, end.count, MLZ_C_INDEX, &h, &p);
  if (rc != 1 || h.count > size / sizeof h) return rc < 0 ? rc : 0;
  w->index = malloc(h.raw + 1);
  w->list = calloc(h.count + 1, sizeof w->list[0]);
  if (w->index == NULL || w->list == NULL) return -ENOMEM;
  memcpy(w->index, p, h.raw);
  w->index_bytes = h.raw;
  struct mlz_cursor c = {.p = w->index, .end = w->index + h.raw};
  uint64_t here = first;
  struct mlz_extent x;
  for (; w->list_n < h.count && here < end.count; w->list_n++) {
    uint64_t kind = mlz_get_varint(&c), stored = mlz_get_varint(&c);
    if (c.bad || kind > UINT16_MAX || stored > end.count - here) break;
    w->list[w->list_n] = (struct listed){.at = here, .stored = (uint32_t)stored, .kind = (uint32_t)kind, .extent = c.p};
    if (kind == MLZ_C_EVENTS && !mlz_extent_get(&c, &x)) break;
    here += sizeof h + stored;
  }
  w->index_sound = w->list_n == h.count && here == end.count && c.p == c.end;
  w->index_wrong = !w->index_sound;
  if (!w->index_sound) w->list_n = 0;
  return 0;
}

static bool listed_extent(const struct walk *w, const struct listed *l, struct mlz_extent *x) {
  struct mlz_cursor c = {.p = l->extent, .end = w->index + w->index_bytes};
  return l->kind == MLZ_C_EVENTS && mlz_extent_get(&c, x);
}

static const struct listed *listed_at(struct walk *w, uint64_t at) {
  while (w->next < w->list_n && w->list[w->next].at < at) w->next++;
  return w->next < w->list_n && w->list[w->next].at == at ? &w->list[w->next] : NULL;
}

/* Does the index have this sound chunk as it is? */
static void hold_index(struct walk *w, uint64_t at, const struct mlz_chunk_header *h, const struct mlz_extent *x) {
  if (!w->index_sound || h->kind == MLZ_C_INDEX || h->kind == MLZ_C_END) return;
  const struct listed *l = listed_at(w, at);
  struct mlz_extent says;
  if (l == NULL || l->kind != h->kind || l->stored != h->stored || (x != NULL && !(listed_extent(w, l, &says) && same_extent(&says, x))))
    w->index_wrong = true;
}

/* ---- sound chunks ---- */

static uint64_t rows_of(const struct mlz_trace *t, unsigned kind) {
  switch (kind) {
  case MLZ_C_STRINGS:
    return t->strings_n;
  case MLZ_C_FRAMES:
    return t->frames_n;
  case MLZ_C_MODULES:
    return t->native.modules_n != 0 ? t->native.modules_n : 1;
  default:
    return t->stacks_n;
  }
}

static bool is_table(unsigned kind) {
  return (kind >= MLZ_C_STRINGS && kind <= MLZ_C_THREAD) || kind == MLZ_C_MODULES || kind == MLZ_C_SYMBOLS;
}

static int take_table(struct walk *w, struct mlz_walk_chunk *c) {
  unsigned kind = c->h->kind;
  c->have = rows_of(w->t, kind);
  int rc = mlz_tables_load(w->t, kind, c->h->count, c->raw, c->h->raw);
  if (rc == 0 && (kind <= MLZ_C_STACKS || kind == MLZ_C_MODULES)) c->first = rows_of(w->t, kind) - c->h->count;
  return rc;
}

static int take_events(struct walk *w, struct mlz_walk_chunk *c, struct mlz_extent *x, struct mlz_block *b) {
  if (c->h->flags != 0) return -EBADMSG;
  int rc = mlz_decode_events(w->t, &w->t->work, &w->t->out, c->stored, c->h->stored, MLZ_WANT_ALL, x, b);
  if (rc != 0) return rc;
  if (x->events != c->h->count) return -EBADMSG;
  c->extent = x;
  c->block = b;
  struct mlz_survey *s = w->s;
  if (s->events == 0 || x->first_ns < s->first_ns) s->first_ns = x->first_ns;
  if (x->last_ns > s->last_ns) s->last_ns = x->last_ns;
  s->events += x->events;
  s->allocs += x->allocs;
  s->frees += x->frees;
  return mlz_tables_know_process(w->t, x->process);
}

static int take_content(struct walk *w, uint64_t at, struct mlz_walk_chunk *c, struct mlz_extent *x, struct mlz_block *b) {
  struct mlz_totals_point point;
  int rc;
  switch (c->h->kind) {
  case MLZ_C_META:
    return mlz_trace_object(&w->s->meta, c->raw, c->h->raw);
  case MLZ_C_SUMMARY:
    return mlz_trace_object(&w->s->summary, c->raw, c->h->raw);
  case MLZ_C_GROUP:
    if (c->h->count > INT64_MAX) return -EBADMSG;
    rc = mlz_trace_object(&w->s->group, c->raw, c->h->raw);
    if (rc == 0 && c->h->count > w->s->group_ns) w->s->group_ns = c->h->count;
    if (rc == 0) close_faults(w, w->s->group_ns);
    return rc;
  case MLZ_C_EVENTS:
    return take_events(w, c, x, b);
  case MLZ_C_TOTALS:
    rc = mlz_totals_part(w->t, c->raw, c->h->raw, c->h->count, &point);
    c->told = rc >= 0 && point.known;
    return rc < 0 ? rc : 0;
  case MLZ_C_INDEX:
    w->index_at = at;
    return 0;
  case MLZ_C_END:
    if (c->h->stored != 0) return -EBADMSG;
    w->index_wrong |= c->h->count != w->index_at || (w->index_at != 0 && !w->index_sound);
    return 0;
  default:
    return is_table(c->h->kind) ? take_table(w, c) : 0;
  }
}

static int take_chunk(struct walk *w, uint64_t at, const struct mlz_chunk_header *h, const uint8_t *payload) {
  struct mlz_walk_chunk c = {.h = h, .stored = payload, .raw = payload};
  struct mlz_extent x;
  struct mlz_block b;
  bool known = h->kind >= MLZ_C_META && h->kind <= MLZ_C_LAST;
  int rc = known && h->kind != MLZ_C_EVENTS ? mlz_trace_unpack(w->t, h, &c.raw) : 0;
  if (rc == 0) rc = take_content(w, at, &c, &x, &b);
  if (rc == -EBADMSG) {
    struct mlz_fault f = fault_here(w, MLZ_FAULT_CONTENT, at, sizeof *h + h->stored);
    f.chunk = known ? h->kind : 0;
    f.counted = f.listed = known && (is_table(h->kind) || h->kind == MLZ_C_EVENTS); /* its checksum vouches for it */
    f.count = h->count;
    return add_fault(w, f);
  }
  if (rc != 0) return rc;
  hold_index(w, at, h, c.extent);
  w->s->chunks_sound++;
  w->s->chunks[known ? h->kind : 0]++;
  return w->take == NULL ? 0 : w->take(w->arg, &c);
}

/* ---- what is not sound ---- */

static bool header_says(struct walk *w, uint64_t at, struct mlz_chunk_header *h) {
  int rc = 0;
  const uint8_t *p = mlz_source_get(&w->t->source, at, sizeof *h, &rc);
  if (p != NULL) memcpy(h, p, sizeof *h);
  return p != NULL && h->magic == MLZ_CHUNK_MAGIC && h->kind >= MLZ_C_META && h->kind <= MLZ_C_LAST;
}

/* One chunk that the index knows, or everything up to the next sound chunk. *next: where to go on. */
static int take_fault(struct walk *w, uint64_t at, uint64_t *next) {
  const struct listed *l = listed_at(w, at);
  struct mlz_fault f = fault_here(w, MLZ_FAULT_BYTES, at, 0);
  struct mlz_chunk_header h;
  struct mlz_extent x;
  if (l != NULL) {
    *next = at + sizeof h + l->stored;
    f.listed = true;
    f.chunk = l->kind <= MLZ_C_LAST ? l->kind : 0;
    if (listed_extent(w, l, &x)) {
      f.counted = true;
      f.count = x.events;
      f.process = x.process;
      f.from_ns = x.first_ns;
      f.to_ns = x.last_ns;
    }
  } else {
    int64_t found = mlz_trace_find(w->t, at + 1);
    if (found < 0) return (int)found;
    *next = (uint64_t)found;
    if (*next == w->t->source.size) f.kind = MLZ_FAULT_TAIL;
  }
  if (header_says(w, at, &h) && !f.counted) {
    if (f.chunk == 0) f.chunk = h.kind;
    f.counted = (is_table(f.chunk) || f.chunk == MLZ_C_EVENTS) && h.kind == f.chunk && h.count <= MLZ_CHUNK_EVENTS_MAX;
    f.count = f.counted ? h.count : 0;
  }
  f.bytes = *next - at;
  return add_fault(w, f);
}

/* ---- the walk ---- */

static int walk_chunks(struct walk *w, uint64_t at) {
  uint64_t size = w->t->source.size;
  bool ended = false;
  while (at < size && !ended) {
    struct mlz_chunk_header h;
    const uint8_t *payload;
    uint64_t next = size;
    int rc = mlz_trace_read(w->t, at, &h, &payload);
    if (rc == 1) {
      next = at + sizeof h + h.stored;
      ended = h.kind == MLZ_C_END;
      rc = take_chunk(w, at, &h, payload);
    } else if (rc == 0) {
      rc = take_fault(w, at, &next);
    }
    if (rc != 0) return rc;
    at = next;
  }
  int rc = 0;
  if (ended) close_faults(w, w->s->last_ns > w->s->group_ns ? w->s->last_ns : w->s->group_ns);
  if (!ended) {
    struct mlz_fault f = fault_here(w, MLZ_FAULT_CUT, size, 0);
    if (w->s->summary != NULL) f.chunk = MLZ_C_END; /* all that was recorded is there */
    rc = add_fault(w, f);
  }
  if (ended && w->index_wrong) rc = add_fault(w, fault_here(w, MLZ_FAULT_INDEX, w->index_at, 0));
  if (ended && at < size && rc == 0) rc = add_fault(w, fault_here(w, MLZ_FAULT_APPENDED, at, size - at));
  if (rc == 0 && w->s->meta == NULL) {
    struct mlz_fault f = fault_here(w, MLZ_FAULT_MISSING, 0, 0);
    f.chunk = MLZ_C_META;
    rc = add_fault(w, f);
  }
  if (rc == 0 && ended && w->s->summary == NULL) {
    struct mlz_fault f = fault_here(w, MLZ_FAULT_MISSING, size, 0);
    f.chunk = MLZ_C_SUMMARY;
    rc = add_fault(w, f);
  }
  return rc;
}

static int walk_all(struct walk *w, char *err, size_t err_size) {
  uint64_t first = 0;
  struct mlz_survey *s = w->s;
  struct mlz_trace *t = w->t;
  snprintf(err, err_size, "out of memory; free some or raise the limit");
  s->bytes = t->source.size;
  s->events_lost_known = true;
  int rc = mlz_trace_header(t, &first, err, err_size);
  if (rc != 0) return rc;
  if (t->damage.chunks_bad != 0) rc = add_fault(w, fault_here(w, MLZ_FAULT_HEADER, 0, sizeof(struct mlz_file_header)));
  if (rc == 0) rc = mlz_tables_begin(t);
  if (rc == 0) rc = read_index(w, first);
  if (rc == 0) rc = walk_chunks(w, first);
  if (rc != 0) return rc;
  s->strings = t->strings_n;
  s->frames = t->frames_n;
  s->stacks = t->stacks_n;
  s->processes = t->processes.n;
  s->threads = t->threads.n;
  t->meta = json_incref(s->meta);
  s->totals_only = mlz_trace_totals_only(t);
  s->left_out = !s->totals_only && (t->features & MLZ_FEATURE_LEFT_OUT);
  if (s->meta == NULL && s->events == 0 && s->chunks_bad != 0) {
    snprintf(err, err_size, "damaged from its start: no part of it can be read; use a copy");
    return -EINVAL;
  }
  return 0;
}

int mlz_walk_file(struct mlz_source *source, struct mlz_survey *s, mlz_walk_take take, void *arg, char *err, size_t err_size) {
  struct walk w = {.t = calloc(1, sizeof(struct mlz_trace)), .s = s, .take = take, .arg = arg};
  int rc = -ENOMEM;
  *s = (struct mlz_survey){0};
  if (w.t != NULL) w.t->source.fd = -1;
  if (w.t != NULL && (w.t->zstd = ZSTD_createDCtx()) != NULL) {
    w.t->source = *source;
    rc = walk_all(&w, err, err_size);
  } else {
    mlz_source_close(source);
    snprintf(err, err_size, "out of memory");
  }
  mlz_trace_close(w.t);
  free(w.index);
  free(w.list);
  if (rc != 0) mlz_survey_clear(s);
  return rc;
}

int mlz_survey_file(struct mlz_survey *s, const char *path, char *err, size_t err_size) {
  struct mlz_source source;
  int rc = mlz_source_open(&source, path, err, err_size);
  return rc != 0 ? rc : mlz_walk_file(&source, s, NULL, NULL, err, err_size);
}

int mlz_survey_memory(struct mlz_survey *s, const uint8_t *bytes, size_t n, char *err, size_t err_size) {
  struct mlz_source source;
  mlz_source_memory(&source, bytes, n);
  return mlz_walk_file(&source, s, NULL, NULL, err, err_size);
}

void mlz_survey_clear(struct mlz_survey *s) {
  json_decref(s->meta);
  json_decref(s->summary);
  json_decref(s->group);
  free(s->faults);
  *s = (struct mlz_survey){0};
}
