#include "formats/reader.h"

#include "formats/trace.h"
#include "formats/walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SCAN_WINDOW (64u << 10)

/* ---- chunks ---- */

static int read_chunk(struct mlz_source *source, uint64_t at, struct mlz_chunk_header *h, const uint8_t **payload) {
  int rc = 0;
  const uint8_t *p = mlz_source_get(source, at, sizeof *h, &rc);
  if (p == NULL) return rc;
  memcpy(h, p, sizeof *h);
  if (h->magic != MLZ_CHUNK_MAGIC || h->raw > MLZ_CHUNK_RAW_MAX || h->stored > source->size - at - sizeof *h) return 0;
  if (!(h->flags & MLZ_CHUNK_ZSTD) && h->stored != h->raw) return 0;
  p = mlz_source_get(source, at + sizeof *h, h->stored, &rc);
  if (p == NULL) return rc;
  *payload = p;
  return mlz_chunk_checksum(h, p) == h->checksum;
}

/* The header and payload at `at`, if they are whole and their checksum holds. The payload is valid until the next read. 1: yes. 0: no. */
int mlz_trace_read(struct mlz_trace *t, uint64_t at, struct mlz_chunk_header *h, const uint8_t **payload) {
  return read_chunk(&t->source, at, h, payload);
}

/* *payload becomes the decompressed payload of h->raw bytes. 0, -EBADMSG, -ENOMEM. */
int mlz_trace_unpack(struct mlz_trace *t, const struct mlz_chunk_header *h, const uint8_t **payload) {
  if (!(h->flags & MLZ_CHUNK_ZSTD)) return 0;
  if (ZSTD_getFrameContentSize(*payload, h->stored) != h->raw) return -EBADMSG;
  if (!mlz_grow(&t->payload, &t->payload_room, h->raw, 1)) return -ENOMEM;
  size_t n = ZSTD_decompressDCtx(t->zstd, t->payload, h->raw, *payload, h->stored);
  if (ZSTD_isError(n) || n != h->raw) return -EBADMSG;
  *payload = t->payload;
  return 0;
}

int mlz_trace_chunk(struct mlz_trace *t, uint64_t at, unsigned kind, struct mlz_chunk_header *h, const uint8_t **payload) {
  int rc = mlz_trace_read(t, at, h, payload);
  if (rc != 1 || h->kind != kind) return rc < 0 ? rc : 0;
  rc = mlz_trace_unpack(t, h, payload);
  return rc == -EBADMSG ? 0 : rc < 0 ? rc : 1;
}

static int add_totals(struct mlz_trace *t, uint64_t at, uint32_t stored) {
  if (!mlz_grow(&t->totals, &t->totals_room, t->totals_n + 1, sizeof t->totals[0])) return -ENOMEM;
  t->totals[t->totals_n++] = (struct mlz_totals_entry){.at = at, .stored = stored};
  return 0;
}

static void count_bad(struct mlz_trace *t, uint64_t bytes, uint64_t events) {
  t->damage.chunks_bad++;
  t->damage.bytes_bad += bytes;
  t->damage.events_bad += events;
}

static int add_entry(struct mlz_trace *t, uint64_t at, uint32_t stored, const struct mlz_extent *x) {
  if (!mlz_grow(&t->entries, &t->entries_room, t->entries_n + 1, sizeof t->entries[0]) ||
      !mlz_grow(&t->points, &t->points_room, t->points_n + x->points + 1, sizeof t->points[0]))
    return -ENOMEM;
  t->entries[t->entries_n++] = (struct mlz_entry){
      .at = at,
      .stored = stored,
      .process = x->process,
      .events = x->events,
      .allocs = x->allocs,
      .group = t->groups,
      .first_alloc = x->first_alloc,
      .last_ns = x->last_ns,
      .points = t->points_n,
  };
  t->points[t->points_n++] = (struct mlz_point){.alloc = x->first_alloc, .ns = x->first_ns};
  for (uint32_t i = 0; i < x->points; i++)
    t->points[t->points_n++] = (struct mlz_point){.alloc = x->first_alloc + x->point_alloc[i], .ns = x->point_ns[i]};
  return 0;
}

int mlz_trace_object(json_t **slot, const uint8_t *p, size_t n) {
  json_t *object = json_loadb((const char *)p, n, 0, NULL);
  if (!json_is_object(object)) {
    json_decref(object);
    return -EBADMSG;
  }
  json_decref(*slot);
  *slot = object;
  return 0;
}

/* Rows of [ns, process, bytes]; what is no such row tells nothing. */
static int add_rss(struct mlz_trace *t) {
  size_t i;
  json_t *row;
  json_array_foreach(json_object_get(t->group_state, "rss"), i, row) {
    json_int_t ns = json_integer_value(json_array_get(row, 0)), process = json_integer_value(json_array_get(row, 1)),
               bytes = json_integer_value(json_array_get(row, 2));
    if (ns < 0 || process < 1 || process >= UINT32_MAX || bytes < 1) continue;
    if (!mlz_grow(&t->rss, &t->rss_room, t->rss_n + 1, sizeof t->rss[0])) return -ENOMEM;
    t->rss[t->rss_n++] = (struct mlz_rss){.ns = (uint64_t)ns, .bytes = (uint64_t)bytes, .process = (uint32_t)process};
  }
  return 0;
}

/* A chunk other than EVENTS, whose checksum holds. 0, -EBADMSG, -ENOMEM. */
static int load_chunk(struct mlz_trace *t, const struct mlz_chunk_header *h, const uint8_t *payload) {
  int rc = 0;
  if (h->kind < MLZ_C_META || h->kind > MLZ_C_LAST) {
    t->damage.chunks_unknown++;
    return 0;
  }
  if (h->kind == MLZ_C_INDEX || h->kind == MLZ_C_END) return 0;
  if ((rc = mlz_trace_unpack(t, h, &payload)) != 0) return rc;
  switch (h->kind) {
  case MLZ_C_META:
    return mlz_trace_object(&t->meta, payload, h->raw);
  case MLZ_C_SUMMARY:
    return mlz_trace_object(&t->summary, payload, h->raw);
  case MLZ_C_GROUP:
    t->groups++;
    t->group_ns = h->count;
    rc = mlz_trace_object(&t->group_state, payload, h->raw);
    return rc != 0 ? rc : add_rss(t);
  default:
    return mlz_tables_load(t, h->kind, h->count, payload, h->raw);
  }
}

/* ---- with the index ---- */

struct listed {
  uint64_t at;
  uint32_t stored;
  uint32_t kind;
  size_t entry; /* EVENTS */
};

/* Reads the list of all chunks. 1: found and sound. 0: there is none. */
static int read_index(struct mlz_trace *t, uint64_t first, struct listed **out, size_t *out_n) {
  struct mlz_chunk_header end, h;
  const uint8_t *p;
  uint64_t size = t->source.size;
  if (size < first + 2 * sizeof h) return 0;
  int rc = mlz_trace_read(t, size - sizeof end, &end, &p);
  if (rc != 1 || end.kind != MLZ_C_END || end.stored != 0) return rc < 0 ? rc : 0;
  uint64_t at = end.count, here = first;
  if (at < first || at > size - 2 * sizeof h) return 0;
  rc = mlz_trace_read(t, at, &h, &p);
  if (rc != 1 || h.kind != MLZ_C_INDEX || at + sizeof h + h.stored != size - sizeof end || h.count > size / sizeof h)
    return rc < 0 ? rc : 0;
  if ((rc = mlz_trace_unpack(t, &h, &p)) != 0) return rc == -EBADMSG ? 0 : rc;
  struct mlz_cursor c = {.p = p, .end = p + h.raw};
  struct listed *list = calloc(h.count + 1, sizeof *list);
  if (list == NULL) return -ENOMEM;
  size_t n = 0;
  while (n < h.count && here <= at) {
    uint64_t kind = mlz_get_varint(&c), stored = mlz_get_varint(&c);
    if (c.bad || kind > UINT16_MAX || stored > at - here) break;
    list[n] = (struct listed){.at = here, .stored = (uint32_t)stored, .kind = (uint32_t)kind, .entry = t->entries_n};
    if (kind == MLZ_C_EVENTS) {
      struct mlz_extent x;
      if (!mlz_extent_get(&c, &x)) break;
      if (add_entry(t, here, (uint32_t)stored, &x) != 0) {
        free(list);
        return -ENOMEM;
      }
    }
    here += sizeof h + stored;
    n++;
  }
  if (n != h.count || here != at || c.p != c.end) {
    free(list);
    t->entries_n = t->points_n = 0;
    return 0;
  }
  *out = list;
  *out_n = n;
  return 1;
}

static int load_listed(struct mlz_trace *t, const struct listed *list, size_t n) {
  uint64_t groups = 0;
  for (size_t i = 0; i < n; i++) {
    struct mlz_chunk_header h;
    const uint8_t *p;
    if (list[i].kind == MLZ_C_EVENTS) {
      t->entries[list[i].entry].group = groups;
      continue;
    }
    if (list[i].kind == MLZ_C_TOTALS) {
      if (add_totals(t, list[i].at, list[i].stored) != 0) return -ENOMEM;
      continue;
    }
    groups += list[i].kind == MLZ_C_GROUP;
    int rc = mlz_trace_read(t, list[i].at, &h, &p);
    if (rc == 1)
      rc = h.kind == list[i].kind && h.stored == list[i].stored ? load_chunk(t, &h, p) : -EBADMSG;
    else if (rc == 0)
      rc = -EBADMSG;
    if (rc == -EBADMSG)
      count_bad(t, sizeof h + list[i].stored, 0);
    else if (rc != 0)
      return rc;
  }
  return 0;
}

/* ---- without the index ---- */

/* The next offset from `from` on at which a sound chunk begins, or the file's end. */
int64_t mlz_trace_find(struct mlz_trace *t, uint64_t from) {
  static const uint8_t magic[4] = {0xf7, 'M', 'L', 'C'};
  uint64_t size = t->source.size;
  while (from < size && size - from >= sizeof(struct mlz_chunk_header)) {
    int rc = 0;
    size_t window = size - from < SCAN_WINDOW ? (size_t)(size - from) : SCAN_WINDOW;
    const uint8_t *p = mlz_source_get(&t->source, from, window, &rc);
    if (p == NULL && rc != 0) return rc;
    const uint8_t *hit = p == NULL ? NULL : memmem(p, window, magic, sizeof magic);
    if (hit == NULL) {
      from += window - (sizeof magic - 1); /* the magic may lie across the border; a window that cannot be read is passed over */
      continue;
    }
    struct mlz_chunk_header h;
    const uint8_t *payload;
    from += (uint64_t)(hit - p);
    rc = mlz_trace_read(t, from, &h, &payload);
    if (rc != 0) return rc < 0 ? rc : (int64_t)from;
    from++;
  }
  return (int64_t)size;
}

/* What lies between two sound chunks, or before the end: damage, or what a killed recorder had begun. */
static void count_gap(struct mlz_trace *t, uint64_t from, uint64_t to) {
  struct mlz_chunk_header h = {0};
  int rc = 0;
  const uint8_t *p = mlz_source_get(&t->source, from, sizeof h, &rc);
  if (p != NULL) memcpy(&h, p, sizeof h);
  bool tail = to == t->source.size && (p == NULL || h.magic != MLZ_CHUNK_MAGIC || h.stored > to - from - sizeof h);
  bool events = p != NULL && h.magic == MLZ_CHUNK_MAGIC && h.kind == MLZ_C_EVENTS && h.count <= MLZ_CHUNK_EVENTS_MAX;
  if (!tail) t->damage.chunks_bad++;
  t->damage.bytes_bad += to - from;
  t->damage.events_bad += events ? h.count : 0;
}

static int walk(struct mlz_trace *t, uint64_t at) {
  t->damage.cut = true;
  while (at < t->source.size) {
    struct mlz_chunk_header h;
    const uint8_t *p;
    int rc = mlz_trace_read(t, at, &h, &p);
    if (rc < 0) return rc;
    if (rc == 0) {
      int64_t next = mlz_trace_find(t, at + 1);
      if (next < 0) return (int)next;
      count_gap(t, at, (uint64_t)next);
      at = (uint64_t)next;
      continue;
    }
    if (h.kind == MLZ_C_EVENTS) {
      struct mlz_extent x;
      struct mlz_cursor c = {.p = p, .end = p + h.stored};
      rc = h.flags == 0 && mlz_extent_get(&c, &x) ? add_entry(t, at, h.stored, &x) : -EBADMSG;
    } else if (h.kind == MLZ_C_TOTALS) {
      rc = add_totals(t, at, h.stored);
    } else {
      rc = load_chunk(t, &h, p);
    }
    if (rc == -EBADMSG)
      count_bad(t, sizeof h + h.stored, h.kind == MLZ_C_EVENTS && h.count <= MLZ_CHUNK_EVENTS_MAX ? h.count : 0);
    else if (rc != 0)
      return rc;
    at += sizeof h + h.stored;
    if (h.kind == MLZ_C_END) {
      t->damage.cut = false;
      t->damage.bytes_bad += t->source.size - at; /* whatever was appended is not ours */
      return 0;
    }
  }
  return 0;
}

/* ---- opening ---- */

int mlz_trace_header(struct mlz_trace *t, uint64_t *first, char *err, size_t err_size) {
  struct mlz_file_header h;
  int rc = 0;
  uint64_t size = t->source.size;
  const char *what = NULL;
  const uint8_t *p = mlz_source_get(&t->source, 0, size < sizeof h ? (size_t)size : sizeof h, &rc);
  if (rc != 0) {
    what = strerror(-rc);
  } else if (size == 0) {
    what = "the file is empty: nothing was recorded into it; record again";
  } else if (p == NULL) {
    rc = -EIO;
    what = "the file cannot be read: input/output error; check the disk";
  } else if (memcmp(p, MLZ_FILE_MAGIC, size < 8 ? (size_t)size : 8) != 0) {
    what = "not a .mlyze file; name a file that memlyze record wrote";
  } else if (size < sizeof h) {
    what = "cut inside its header: nothing was recorded into it; record again";
  }
  if (what != NULL) {
    snprintf(err, err_size, "%s", what);
    return rc != 0 ? rc : -EINVAL;
  }
  memcpy(&h, p, sizeof h);
  *first = sizeof h;
  const uint8_t *all = h.header_bytes >= sizeof h && h.header_bytes <= 4096 ? mlz_source_get(&t->source, 0, h.header_bytes, &rc) : NULL;
  if (all != NULL) memcpy(&h.checksum, all + h.header_bytes - sizeof h.checksum, sizeof h.checksum);
  if (all == NULL || mlz_header_checksum(all, h.header_bytes) != h.checksum) {
    count_bad(t, sizeof h, 0); /* the chunks can still be found */
    return 0;
  }
  *first = h.header_bytes;
  t->features = h.features;
  if (h.oldest_reader > MLZ_FILE_VERSION || (h.features & ~MLZ_FEATURES_KNOWN & MLZ_FEATURES_REQUIRED) != 0) {
    snprintf(err, err_size, "written by a newer memlyze (format %u, this program reads %u); use that version or a later one", h.version,
             MLZ_FILE_VERSION);
    return -EINVAL;
  }
  return 0;
}

static int compare_entries(const void *a, const void *b, void *arg) {
  const struct mlz_trace *t = arg;
  size_t i = *(const size_t *)a, j = *(const size_t *)b;
  const struct mlz_entry *x = &t->entries[i], *y = &t->entries[j];
  if (x->process != y->process) return x->process < y->process ? -1 : 1;
  if (x->first_alloc != y->first_alloc) return x->first_alloc < y->first_alloc ? -1 : 1;
  return i < j ? -1 : i > j; /* chunks without allocations share a number; the last one has them */
}

/* Events of each process in earlier chunks. Entries of one process are in the order of the file. */
static int number_events(struct mlz_trace *t) {
  struct sum {
    uint32_t process;
    uint64_t events;
  } *sums = calloc(t->processes.n + 1, sizeof *sums), *last = sums;
  if (sums == NULL) return -ENOMEM;
  for (size_t i = 0; i < t->processes.n; i++) sums[i].process = t->processes.ids[i];
  for (size_t i = 0; i < t->entries_n; i++) {
    struct mlz_entry *e = &t->entries[i];
    size_t low = 0, high = last->process == e->process ? 0 : t->processes.n;
    while (low < high) {
      size_t middle = low + (high - low) / 2;
      if (sums[middle].process < e->process)
        low = middle + 1;
      else
        high = middle;
    }
    if (last->process != e->process) last = &sums[low];
    e->ordinal = last->events;
    last->events += e->events;
  }
  free(sums);
  return 0;
}

/* The beginning was left out: the points say how many events that were. */
static int shift_events(struct mlz_trace *t) {
  const struct mlz_totals_mark *marks;
  size_t n;
  int rc = mlz_trace_totals_marks(t, &marks, &n);
  uint32_t done = 0; /* the process looked at before; each has a few marks at the file's begin */
  for (size_t i = 0; i < n && rc == 0; i++) {
    uint32_t process = marks[i].head.process;
    uint64_t events = 0;
    bool first = process != done;
    for (size_t k = 0; k < i && first; k++) first = marks[k].head.process != process || marks[k].head.point == MLZ_POINT_END;
    done = first && marks[i].head.point == MLZ_POINT_END ? 0 : process;
    if (!first || marks[i].head.point == MLZ_POINT_END) continue;
    for (size_t k = 0; k < t->entries_n && t->entries[k].at < marks[i].at; k++)
      if (t->entries[k].process == process) events += t->entries[k].events;
    if (marks[i].head.events < events) continue;
    for (size_t k = 0; k < t->entries_n; k++)
      if (t->entries[k].process == process) t->entries[k].ordinal += marks[i].head.events - events;
  }
  return rc;
}

static int prepare(struct mlz_trace *t) {
  t->by_alloc = malloc((t->entries_n + 1) * sizeof t->by_alloc[0]);
  if (t->by_alloc == NULL) return -ENOMEM;
  for (size_t i = 0; i < t->entries_n; i++) {
    t->by_alloc[i] = i;
    if (mlz_tables_know_process(t, t->entries[i].process) != 0) return -ENOMEM;
  }
  if (number_events(t) != 0) return -ENOMEM;
  if (t->entries_n != 0) qsort_r(t->by_alloc, t->entries_n, sizeof t->by_alloc[0], compare_entries, t);
  if (t->meta == NULL) t->meta = json_object();
  if (mlz_trace_left_out(t)) {
    int rc = shift_events(t);
    if (rc != 0) return rc;
  }
  if (t->summary == NULL) {
    t->summary = t->group_state != NULL ? json_incref(t->group_state) : json_object();
    if (t->group_state != NULL && json_object_get(t->summary, "duration_ns") == NULL)
      json_object_set_new(t->summary, "duration_ns", json_integer((json_int_t)t->group_ns));
    json_object_set_new(t->summary, "complete", json_false());
  }
  return t->meta == NULL || t->summary == NULL ? -ENOMEM : mlz_tables_end(t);
}

static int read_all(struct mlz_trace *t, char *err, size_t err_size) {
  uint64_t first = 0;
  struct listed *list = NULL;
  size_t n = 0;
  int rc = mlz_trace_header(t, &first, err, err_size);
  if (rc != 0) return rc;
  if ((rc = mlz_tables_begin(t)) == 0 && (rc = read_index(t, first, &list, &n)) == 1)
    rc = load_listed(t, list, n);
  else if (rc == 0)
    rc = walk(t, first);
  free(list);
  if (rc == 0) rc = prepare(t);
  if (rc != 0) {
    snprintf(err, err_size, "out of memory while reading the tables; free some memory or raise the limit");
    return rc;
  }
  if (json_object_size(t->meta) == 0 && t->entries_n == 0 && t->damage.chunks_bad != 0) {
    snprintf(err, err_size, "damaged from its start: no part of it can be read; use a copy");
    return -EINVAL;
  }
  return 0;
}

static int open_source(struct mlz_trace **out, struct mlz_source *source, char *err, size_t err_size) {
  struct mlz_trace *t = calloc(1, sizeof *t);
  if (t != NULL) t->zstd = ZSTD_createDCtx();
  if (t == NULL || t->zstd == NULL) {
    free(t);
    mlz_source_close(source);
    snprintf(err, err_size, "out of memory");
    return -ENOMEM;
  }
  t->source = *source;
  int rc = read_all(t, err, err_size);
  if (rc != 0)
    mlz_trace_close(t);
  else
    *out = t;
  return rc;
}

int mlz_trace_open(struct mlz_trace **out, const char *path, char *err, size_t err_size) {
  struct mlz_source source;
  int rc = mlz_source_open(&source, path, err, err_size);
  return rc != 0 ? rc : open_source(out, &source, err, err_size);
}

int mlz_trace_open_memory(struct mlz_trace **out, const uint8_t *bytes, size_t n, char *err, size_t err_size) {
  struct mlz_source source;
  mlz_source_memory(&source, bytes, n);
  return open_source(out, &source, err, err_size);
}

struct mlz_trace *mlz_trace_close(struct mlz_trace *t) {
  if (t == NULL) return NULL;
  mlz_source_close(&t->source);
  mlz_tables_close(t);
  mlz_decode_work_close(&t->work);
  mlz_decode_out_close(&t->out);
  mlz_totals_close(t);
  json_decref(t->meta);
  json_decref(t->summary);
  json_decref(t->group_state);
  ZSTD_freeDCtx(t->zstd);
  free(t->payload);
  free(t->rss);
  free(t->entries);
  free(t->points);
  free(t->by_alloc);
  free(t);
  return NULL;
}

/* ---- what callers ask ---- */

const json_t *mlz_trace_meta(const struct mlz_trace *t) { return t->meta; }
const json_t *mlz_trace_summary(const struct mlz_trace *t) { return t->summary; }
const struct mlz_damage *mlz_trace_damage(const struct mlz_trace *t) { return &t->damage; }

const struct mlz_rss *mlz_trace_rss(const struct mlz_trace *t, size_t *n) {
  *n = t->rss_n;
  return t->rss;
}

bool mlz_trace_complete(const struct mlz_trace *t) {
  return !t->damage.cut && t->damage.chunks_bad == 0 && t->damage.bytes_bad == 0 && json_is_true(json_object_get(t->summary, "complete"));
}

void mlz_trace_rewind(struct mlz_trace *t) { t->next = 0; }

int mlz_trace_entry(const struct mlz_trace *t, const struct mlz_entry *e, struct mlz_source *source, struct mlz_decode_work *w,
                    struct mlz_decode_out *o, unsigned want, struct mlz_block *b) {
  struct mlz_chunk_header h;
  struct mlz_extent x;
  const uint8_t *p;
  int rc = read_chunk(source, e->at, &h, &p);
  if (rc != 1) return rc;
  if (h.kind != MLZ_C_EVENTS || h.flags != 0 || h.stored != e->stored || h.count != e->events) return 0;
  rc = mlz_decode_events(t, w, o, p, h.stored, want, &x, b);
  if (rc == -ENOMEM) return rc;
  if (rc != 0 || x.process != e->process || x.events != e->events || x.first_alloc != e->first_alloc) return 0;
  b->group = e->group;
  b->ordinal = e->ordinal;
  return 1;
}

void mlz_trace_entry_bad(struct mlz_trace *t, struct mlz_entry *e) {
  if (!e->bad) count_bad(t, sizeof(struct mlz_chunk_header) + e->stored, e->events);
  e->bad = true;
}

int mlz_trace_next(struct mlz_trace *t, unsigned want, struct mlz_block *b) {
  while (t->next < t->entries_n) {
    struct mlz_entry *e = &t->entries[t->next++];
    int rc = e->bad ? 0 : mlz_trace_entry(t, e, &t->source, &t->work, &t->out, want, b);
    if (rc != 0) return rc;
    mlz_trace_entry_bad(t, e);
  }
  return 0;
}

struct mlz_ahead mlz_trace_entry_ahead(const struct mlz_trace *t, size_t i) {
  const struct mlz_entry *e = &t->entries[i];
  return (struct mlz_ahead){.process = e->process,
                            .events = e->events,
                            .group = e->group,
                            .ordinal = e->ordinal,
                            .first_alloc = e->first_alloc,
                            .first_ns = t->points[e->points].ns,
                            .last_ns = e->last_ns};
}

uint64_t mlz_trace_first_at(const struct mlz_trace *t) { return t->entries_n == 0 ? UINT64_MAX : t->entries[0].at; }

bool mlz_trace_left_out(const struct mlz_trace *t) {
  if (mlz_trace_totals_only(t)) return false;
  if (t->features & MLZ_FEATURE_LEFT_OUT) return true;
  return t->totals_n != 0 && t->totals[0].at < mlz_trace_first_at(t); /* the header may be damaged */
}

bool mlz_trace_ahead(const struct mlz_trace *t, struct mlz_ahead *ahead) {
  if (t->next >= t->entries_n) return false;
  *ahead = mlz_trace_entry_ahead(t, t->next);
  return true;
}

void mlz_trace_skip(struct mlz_trace *t) { t->next += t->next < t->entries_n; }

static bool entry_has(const struct mlz_entry *e, uint32_t process, uint64_t alloc_no) {
  return e->process == process && alloc_no >= e->first_alloc && alloc_no - e->first_alloc < e->allocs;
}

/* The entry that holds the allocation. Callers ask for old blocks in runs, so the last answer is tried first. */
static const struct mlz_entry *find_entry(const struct mlz_trace *t, size_t *found, uint32_t process, uint64_t alloc_no) {
  if (*found < t->entries_n && entry_has(&t->entries[*found], process, alloc_no)) return &t->entries[*found];
  size_t low = 0, high = t->entries_n; /* the last entry of the process that begins at or before alloc_no */
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct mlz_entry *e = &t->entries[t->by_alloc[middle]];
    if (e->process < process || (e->process == process && e->first_alloc <= alloc_no))
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0 || !entry_has(&t->entries[t->by_alloc[low - 1]], process, alloc_no)) return NULL;
  *found = t->by_alloc[low - 1];
  return &t->entries[*found];
}

bool mlz_trace_alloc_time_near(const struct mlz_trace *t, size_t *near, uint32_t process, uint64_t alloc_no, uint64_t *ns) {
  const struct mlz_entry *e = find_entry(t, near, process, alloc_no);
  if (e == NULL) return false;
  size_t from = e->points, to = e + 1 < t->entries + t->entries_n ? e[1].points : t->points_n;
  while (to - from > 1) {
    size_t middle = from + (to - from) / 2;
    if (t->points[middle].alloc <= alloc_no)
      from = middle;
    else
      to = middle;
  }
  *ns = t->points[from].ns;
  return true;
}

bool mlz_trace_alloc_time(struct mlz_trace *t, uint32_t process, uint64_t alloc_no, uint64_t *ns) {
  return mlz_trace_alloc_time_near(t, &t->entry_found, process, alloc_no, ns);
}
