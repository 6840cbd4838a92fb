/* Files of which only the newest part is kept (record --max-size, --flight-recorder). Writer thread.
 *
 * Why rewriting: segments beside the output would have to be put together at the end, with the disk that costs, and are no trace when the recorder is killed before; holes
 * punched into one file leave a damaged one. A new file is complete before it takes the old one's name, so at every instant there is one file that can be read.
 * It is filled a little after each group, while groups go on into the old one, so that no group waits for a disk. */
#include "formats/trace.h"
#include "formats/walk.h"
#include "formats/writing.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define REWRITE_FROM 0.62 /* parts of max_bytes: so large the file gets, */
#define KEPT 0.30         /* so much of it is kept: together with what is added meanwhile no more than the whole */
#define COPY_TIMES 16     /* as fast as the file grows */
#define COPY_LEAST (256u << 10)
#define TIME_BYTES (1u << 20) /* a file smaller than this is not written anew for the sake of time */

struct frame {  /* behind it reading may begin */
  size_t chunk; /* place of the first chunk behind it */
  uint64_t ns;
};

struct mlz_keep {
  struct mlz_keep_rule rule;
  struct frame *frames;
  size_t frames_n, frames_room;
  struct mlz_writer *next;               /* the new file; NULL: none is being filled */
  size_t from, head;                     /* the chunks from `from` on are its chunks from `head` on */
  size_t copied;                         /* chunks of the old file that need no copying any more */
  uint64_t left_out_events, left_out_ns; /* of the present file */
  uint64_t next_events, next_ns;         /* of the new one */
  uint64_t group_bytes;                  /* of the file, at the last group */
  uint8_t *buffer;
  size_t room;
};

/* From now on it is known where which chunk lies. META is there already. */
static int list_chunks(struct mlz_writer *w) {
  uint64_t at = sizeof(struct mlz_file_header), meta = mlz_writer_bytes(w) - at - sizeof(struct mlz_chunk_header);
  if (!mlz_grow(&w->placed, &w->placed_room, 1, sizeof w->placed[0])) return -ENOMEM;
  w->placed[w->placed_n++] = (struct mlz_placed){.at = at, .stored = (uint32_t)meta, .kind = MLZ_C_META};
  w->listed = true;
  return 0;
}

int mlz_writer_keep(struct mlz_writer *w, const struct mlz_keep_rule *rule) {
  w->keep = calloc(1, sizeof *w->keep);
  if (w->keep == NULL) return -ENOMEM;
  w->keep->rule = *rule;
  return list_chunks(w);
}

struct mlz_keep *mlz_keep_free(struct mlz_keep *k) {
  if (k == NULL) return NULL;
  if (k->next != NULL) {
    mlz_writer_free(k->next);
    k->rule.abandon(k->rule.context);
  }
  free(k->frames);
  free(k->buffer);
  free(k);
  return NULL;
}

bool mlz_writer_left_out(const struct mlz_writer *w, uint64_t *events, uint64_t *until_ns) {
  if (w->keep == NULL || w->keep->left_out_events == 0) return false;
  *events = w->keep->left_out_events;
  *until_ns = w->keep->left_out_ns;
  return true;
}

/* ---- chunks of the present file ---- */

static int read_at(int fd, uint64_t at, uint8_t *p, size_t n) {
  while (n > 0) {
    ssize_t done = pread(fd, p, n, (off_t)at);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return done < 0 ? -errno : -EIO;
    p += done;
    at += (uint64_t)done;
    n -= (size_t)done;
  }
  return 0;
}

/* Header and stored payload; valid until the next call. */
static int read_chunk(struct mlz_writer *w, const struct mlz_placed *c, struct mlz_chunk_header *h, const uint8_t **payload) {
  struct mlz_keep *k = w->keep;
  if (!mlz_grow(&k->buffer, &k->room, sizeof *h + c->stored, 1)) return -ENOMEM;
  int rc = read_at(w->fd, c->at, k->buffer, sizeof *h + c->stored);
  if (rc != 0) return rc;
  memcpy(h, k->buffer, sizeof *h);
  *payload = k->buffer + sizeof *h;
  bool sound =
      h->magic == MLZ_CHUNK_MAGIC && h->kind == c->kind && h->stored == c->stored && mlz_chunk_checksum(h, *payload) == h->checksum;
  return sound ? 0 : -EIO; /* somebody else writes into it, or the disk is failing */
}

static int copy_chunk(struct mlz_writer *w, size_t i, struct mlz_writer *to) {
  struct mlz_chunk_header h;
  const uint8_t *p;
  struct mlz_extent x;
  int rc = read_chunk(w, &w->placed[i], &h, &p);
  if (rc != 0) return rc;
  struct mlz_cursor c = {.p = p, .end = p + h.stored};
  if (h.kind == MLZ_C_EVENTS && !mlz_extent_get(&c, &x)) return -EIO;
  return mlz_writer_append_stored(to, &h, p, h.kind == MLZ_C_EVENTS ? &x : NULL);
}

/* ---- what stands for the chunks that are left out ---- */

struct begin { /* of a process */
  struct mlz_totals_head at, end;
  uint32_t part; /* of the last chunk */
  bool ended;    /* `end` is there, and the rows as they were then */
  struct mlz_totals_row *rows;
  uint32_t n;
  uint64_t peak_bytes, peak_ns; /* since the start */
};
struct begins {
  struct begin *of;
  size_t n, room;
};

static struct begin *begin_of(struct begins *b, uint32_t process) {
  for (size_t i = b->n; i-- > 0;)
    if (b->of[i].at.process == process) return &b->of[i];
  if (!mlz_grow(&b->of, &b->room, b->n + 1, sizeof b->of[0])) return NULL;
  b->of[b->n] = (struct begin){.at.process = process};
  return &b->of[b->n++];
}

static int take_point(struct begins *begins, const struct mlz_totals_point *point) {
  struct begin *b = begin_of(begins, point->head.process);
  if (b == NULL) return -ENOMEM;
  b->at = point->head;
  if (point->head.peak_bytes > b->peak_bytes) b->peak_bytes = point->head.peak_bytes, b->peak_ns = point->head.peak_ns;
  if (point->head.point != MLZ_POINT_END) return 0;
  b->ended = true;
  b->end = point->head;
  free(b->rows);
  b->rows = malloc((point->n + (size_t)1) * sizeof *b->rows);
  if (b->rows == NULL) return -ENOMEM;
  memcpy(b->rows, point->rows, point->n * sizeof *b->rows);
  b->n = point->n;
  return 0;
}

/* All points before chunk `to`: `t` holds the rows then. */
static int read_points(struct mlz_writer *w, struct mlz_trace *t, size_t to, struct begins *begins) {
  for (size_t i = 0; i < to; i++) {
    struct mlz_chunk_header h;
    struct mlz_totals_point point;
    const uint8_t *p;
    if (w->placed[i].kind != MLZ_C_TOTALS) continue;
    int rc = read_chunk(w, &w->placed[i], &h, &p);
    if (rc == 0) rc = mlz_trace_unpack(t, &h, &p);
    if (rc == 0) rc = mlz_totals_part(t, p, h.raw, h.count, &point);
    if (rc == 1) rc = point.known ? take_point(begins, &point) : -EIO;
    if (rc < 0) return rc == -EBADMSG ? -EIO : rc;
  }
  return 0;
}

static uint32_t parts_of(size_t n) { return n <= MLZ_TABLE_ROWS_MAX ? 1 : (uint32_t)((n + MLZ_TABLE_ROWS_MAX - 1) / MLZ_TABLE_ROWS_MAX); }

/* Rows as a point: what they are, less what they were (NULL: a base). Row numbers are those of the old file. */
static int put_point(struct mlz_tables *to, struct mlz_totals_head *head, uint32_t *part, const struct mlz_totals_row *rows, uint32_t n,
                     const struct mlz_totals_row *were, uint32_t n_were) {
  struct mlz_totals_key *keys = malloc((n + (size_t)1) * sizeof *keys);
  struct mlz_totals_change *changes = malloc((n + (size_t)1) * sizeof *changes);
  uint64_t *largest = malloc((n + (size_t)1) * sizeof *largest);
  uint32_t first = were == NULL ? 0 : n_were;
  int rc = keys == NULL || changes == NULL || largest == NULL ? -ENOMEM : 0;
  for (uint32_t i = 0; i < n && rc == 0; i++) {
    if (i >= first) keys[i - first] = rows[i].key;
    changes[i].row = i;
    for (unsigned f = 0; f < MLZ_TOTALS; f++) changes[i].by[f] = rows[i].is[f] - (i < n_were && were != NULL ? were[i].is[f] : 0);
    largest[i] = rows[i].is[MLZ_TOTAL_SIZE_MAX];
  }
  head->largest = largest;
  if (rc == 0) rc = mlz_tables_totals(to, head, part, were == NULL, keys, n - first, changes, n);
  free(keys);
  free(changes);
  free(largest);
  return rc;
}

static int put_begin(struct mlz_tables *to, struct mlz_trace *t, struct begin *b) {
  const struct mlz_totals_state *s = NULL;
  for (size_t i = 0; i < t->totals_states_n; i++)
    if (t->totals_states[i].process == b->at.process) s = &t->totals_states[i];
  if (s == NULL || !s->known) return -EIO;
  bool two = b->ended && b->at.point != MLZ_POINT_END;                                        /* the end, and what came after it */
  uint32_t n = (uint32_t)s->n, part = s->part + 1 - parts_of(n) - (two ? parts_of(b->n) : 0); /* the next chunk follows on the last */
  int rc = 0;
  b->at.close = b->end.close = true;
  b->at.peak_bytes = b->end.peak_bytes = b->peak_bytes;
  b->at.peak_ns = b->end.peak_ns = b->peak_ns;
  if (two) rc = put_point(to, &b->end, &part, b->rows, b->n, NULL, 0);
  return rc != 0 ? rc : put_point(to, &b->at, &part, s->rows, n, two ? b->rows : NULL, two ? b->n : 0);
}

static int put_begins(struct mlz_writer *w, size_t to, struct mlz_tables *tables, uint64_t *events) {
  struct mlz_trace *t = calloc(1, sizeof *t);
  struct begins begins = {0};
  int rc = -ENOMEM;
  if (t != NULL) t->source.fd = -1;
  if (t != NULL && (t->zstd = ZSTD_createDCtx()) != NULL) {
    t->stacks_n = UINT32_MAX - 1; /* ids are as they are */
    t->strings_all = 1;
    rc = read_points(w, t, to, &begins);
    for (size_t i = 0; i < begins.n && rc == 0; i++) {
      *events += begins.of[i].at.events;
      rc = put_begin(tables, t, &begins.of[i]);
    }
    t->stacks_n = 0;
  }
  for (size_t i = 0; i < begins.n; i++) free(begins.of[i].rows);
  free(begins.of);
  mlz_trace_close(t);
  return rc;
}

/* Of the objects of a table the latest of each id. */
struct latest {
  char *text; /* a line */
  json_int_t id;
};

static int compare_latest(const void *a, const void *b) {
  const struct latest *x = a, *y = b;
  return x->id < y->id ? -1 : x->id > y->id;
}

static int put_objects(struct mlz_writer *w, struct mlz_trace *t, unsigned kind, size_t to, struct mlz_writer *out) {
  struct latest *list = NULL;
  size_t n = 0, room = 0, kept = 0;
  int rc = 0;
  for (size_t i = 0; i < to && rc == 0; i++) {
    struct mlz_chunk_header h;
    const uint8_t *p;
    if (w->placed[i].kind != kind) continue;
    rc = read_chunk(w, &w->placed[i], &h, &p);
    if (rc == 0) rc = mlz_trace_unpack(t, &h, &p);
    for (const uint8_t *end = p + h.raw, *line = p; rc == 0 && line < end;) {
      const uint8_t *stop = memchr(line, '\n', (size_t)(end - line));
      size_t length = (size_t)((stop == NULL ? end : stop) - line);
      json_t *object = json_loadb((const char *)line, length, 0, NULL);
      json_int_t id = json_integer_value(json_object_get(object, "id"));
      json_decref(object);
      if (id > 0 && !mlz_grow(&list, &room, n + 1, sizeof list[0])) rc = -ENOMEM;
      if (id > 0 && rc == 0 && (list[n].text = strndup((const char *)line, length)) == NULL) rc = -ENOMEM;
      if (id > 0 && rc == 0) list[n++].id = id;
      line += length + 1;
    }
  }
  /* Later ones come later: a stable order by id. */
  for (size_t i = 0; i < n && rc == 0; i++) list[i].id = list[i].id << 24 | (json_int_t)(i & 0xffffff);
  if (n != 0) qsort(list, n, sizeof list[0], compare_latest);
  for (size_t i = 0; i < n && rc == 0; i++) {
    if (i + 1 < n && list[i].id >> 24 == list[i + 1].id >> 24) continue;
    json_t *object = json_loads(list[i].text, 0, NULL);
    if (object == NULL)
      rc = -ENOMEM;
    else if (kind == MLZ_C_PROCESS)
      mlz_writer_process(out, object);
    else
      mlz_writer_thread(out, object);
    kept++;
  }
  for (size_t i = 0; i < n; i++) free(list[i].text);
  free(list);
  return rc;
}

/* ---- the new file ---- */

static bool is_table(unsigned kind) {
  return (kind >= MLZ_C_STRINGS && kind <= MLZ_C_STACKS) || kind == MLZ_C_MODULES || kind == MLZ_C_SYMBOLS;
}

/* What stands before the first kept chunk: all rows of the tables so far, how the counters stood, and the totals. */
static int put_head(struct mlz_writer *w, size_t from, struct mlz_writer *out, uint64_t *events) {
  struct mlz_trace t = {.source.fd = -1, .zstd = ZSTD_createDCtx()};
  int rc = t.zstd == NULL ? -ENOMEM : 0;
  size_t group = SIZE_MAX;
  for (size_t i = 0; i < from && rc == 0; i++) {
    if (is_table(w->placed[i].kind)) rc = copy_chunk(w, i, out);
    if (w->placed[i].kind == MLZ_C_GROUP) group = i;
  }
  if (rc == 0) rc = put_objects(w, &t, MLZ_C_PROCESS, from, out);
  if (rc == 0) rc = put_objects(w, &t, MLZ_C_THREAD, from, out);
  struct mlz_bytes rows = {0};
  if (rc == 0) rc = mlz_writer_take_tables(out, &rows);
  if (rc == 0) rc = mlz_writer_append_tables(out, &rows);
  free(rows.data);
  if (rc == 0 && group != SIZE_MAX) rc = copy_chunk(w, group, out);
  struct mlz_tables totals;
  struct mlz_buffer chunks = {0};
  mlz_tables_init(&totals);
  *events = 0;
  if (rc == 0) rc = put_begins(w, from, &totals, events);
  if (rc == 0) rc = mlz_tables_take(&totals, &chunks);
  if (rc == 0) rc = mlz_writer_append_tables(out, &(struct mlz_bytes){.data = chunks.data, .size = chunks.size});
  mlz_tables_deinit(&totals);
  free(chunks.data);
  free(t.payload);
  ZSTD_freeDCtx(t.zstd);
  return rc;
}

/* The file that begins with chunk `from`; 1: with the first one behind META. Takes `fd`. */
static int begin_file(struct mlz_writer *w, int fd, size_t from, struct mlz_writer **out, uint64_t *events) {
  struct mlz_chunk_header h;
  const uint8_t *p;
  json_t *meta = NULL;
  struct mlz_trace t = {.source.fd = -1, .zstd = ZSTD_createDCtx()};
  bool left_out = from > 1 || w->keep->left_out_events != 0;
  int rc = t.zstd == NULL ? -ENOMEM : read_chunk(w, &w->placed[0], &h, &p);
  if (rc == 0) rc = mlz_trace_unpack(&t, &h, &p);
  if (rc == 0) rc = mlz_trace_object(&meta, p, h.raw) == 0 ? 0 : -EIO;
  if (rc == 0) rc = mlz_writer_begin(out, fd, meta, w->level, left_out ? MLZ_FEATURE_LEFT_OUT : 0);
  if (rc != 0) close(fd);
  json_decref(meta);
  free(t.payload);
  ZSTD_freeDCtx(t.zstd);
  if (rc != 0) return rc;
  rc = list_chunks(*out);
  if (rc == 0 && from > 1) rc = put_head(w, from, *out, events);
  if (rc != 0) *out = mlz_writer_free(*out);
  return rc;
}

/* ---- what is kept ---- */

/* The frame from which on no more than `bytes` are, the newest one if need be; or, for the sake of time, the last one that is old enough. NULL: none. */
static const struct frame *frame_for(const struct mlz_writer *w, uint64_t bytes, uint64_t before_ns) {
  const struct mlz_keep *k = w->keep;
  const struct frame *found = NULL;
  uint64_t end = mlz_writer_bytes(w);
  for (size_t i = 0; i < k->frames_n; i++) {
    const struct frame *f = &k->frames[i];
    uint64_t at = f->chunk < w->placed_n ? w->placed[f->chunk].at : end;
    if (f->ns <= before_ns || found == NULL || end - (found->chunk < w->placed_n ? w->placed[found->chunk].at : end) > bytes) found = f;
    if (end - at <= bytes && f->ns > before_ns) break;
  }
  return found;
}

static bool due(const struct mlz_writer *w, uint64_t now_ns, const struct frame **from) {
  const struct mlz_keep *k = w->keep;
  uint64_t bytes = mlz_writer_bytes(w);
  double max = (double)k->rule.max_bytes;
  if (k->frames_n == 0) return false;
  if ((double)bytes >= REWRITE_FROM * max) {
    uint64_t before = k->rule.least_ns != 0 && now_ns > k->rule.least_ns ? now_ns - k->rule.least_ns : 0;
    *from = frame_for(w, (uint64_t)(KEPT * max), before);
    return true;
  }
  if (k->rule.least_ns == 0 || now_ns <= k->rule.least_ns || bytes < TIME_BYTES) return false;
  *from = frame_for(w, UINT64_MAX, now_ns - k->rule.least_ns);
  if ((*from)->ns > now_ns - k->rule.least_ns || (*from)->chunk >= w->placed_n) return false;
  return w->placed[(*from)->chunk].at > bytes / 2; /* it is worth the copying */
}

static int begin_rewrite(struct mlz_writer *w, const struct frame *from) {
  struct mlz_keep *k = w->keep;
  int fd = k->rule.make(k->rule.context);
  if (fd < 0) return fd;
  int rc = begin_file(w, fd, from->chunk, &k->next, &k->next_events);
  if (rc == 0 && (double)mlz_writer_bytes(k->next) > KEPT * (double)k->rule.max_bytes) {
    k->next = mlz_writer_free(k->next);
    rc = -E2BIG;
  }
  if (rc != 0) {
    k->rule.abandon(k->rule.context);
    return rc;
  }
  k->next_ns = from->ns;
  k->from = k->copied = from->chunk;
  k->head = k->next->placed_n;
  return 0;
}

/* The new file has all that the old one has. */
static int end_rewrite(struct mlz_writer *w) {
  struct mlz_keep *k = w->keep;
  struct mlz_writer *new = k->next;
  int rc = k->rule.replace(k->rule.context, new->fd);
  if (rc != 0) return rc;
  size_t kept = 0;
  for (size_t i = 0; i < k->frames_n; i++)
    if (k->frames[i].chunk >= k->from)
      k->frames[kept++] = (struct frame){.chunk = k->frames[i].chunk - k->from + k->head, .ns = k->frames[i].ns};
  k->frames_n = kept;
  close(w->fd);
  w->fd = new->fd;
  new->fd = -1;
  atomic_store_explicit(&w->bytes, mlz_writer_bytes(new), memory_order_relaxed);
  free(w->index.data);
  w->index = new->index;
  w->index_rows = new->index_rows;
  new->index = (struct mlz_buffer){0};
  free(w->placed);
  w->placed = new->placed;
  w->placed_n = new->placed_n;
  w->placed_room = new->placed_room;
  new->placed = NULL;
  k->next = mlz_writer_free(new);
  k->left_out_events = k->next_events;
  k->left_out_ns = k->next_ns;
  return 0;
}

static int copy_some(struct mlz_writer *w, uint64_t bytes) {
  struct mlz_keep *k = w->keep;
  uint64_t stop = mlz_writer_bytes(k->next) + bytes;
  int rc = 0;
  while (rc == 0 && k->copied < w->placed_n && mlz_writer_bytes(k->next) < stop) rc = copy_chunk(w, k->copied++, k->next);
  return rc;
}

int mlz_keep_group(struct mlz_writer *w, uint64_t now_ns, bool framed) {
  struct mlz_keep *k = w->keep;
  const struct frame *from;
  int rc = 0;
  if (framed) {
    if (!mlz_grow(&k->frames, &k->frames_room, k->frames_n + 1, sizeof k->frames[0])) return -ENOMEM;
    k->frames[k->frames_n++] = (struct frame){.chunk = w->placed_n, .ns = now_ns};
  }
  uint64_t bytes = mlz_writer_bytes(w), grown = bytes > k->group_bytes ? bytes - k->group_bytes : 0;
  if (k->next == NULL && due(w, now_ns, &from)) rc = begin_rewrite(w, from);
  if (rc == 0 && k->next != NULL) rc = copy_some(w, grown * COPY_TIMES + COPY_LEAST);
  if (rc == 0 && k->next != NULL && k->copied == w->placed_n) rc = end_rewrite(w);
  k->group_bytes = mlz_writer_bytes(w);
  if (rc != 0) w->error = rc;
  return rc;
}

int mlz_writer_dump(struct mlz_writer *w, int fd, uint64_t since_ns, const json_t *summary) {
  struct mlz_keep *k = w->keep;
  struct mlz_writer *out;
  uint64_t events = k->left_out_events;
  const struct frame *from = frame_for(w, UINT64_MAX, since_ns);
  bool whole = from == NULL || from->ns > since_ns; /* nothing is old enough */
  size_t at = whole ? 1 : from->chunk;
  int rc = begin_file(w, fd, at, &out, &events);
  if (rc != 0) return rc;
  for (size_t i = at; i < w->placed_n && rc == 0; i++) rc = copy_chunk(w, i, out);
  json_t *copy = json_copy((json_t *)summary);
  if (events != 0 && copy != NULL)
    json_object_set_new(copy, "left_out",
                        json_pack("{s:I,s:I}", "events", (json_int_t)events, "until_ns", (json_int_t)(whole ? k->left_out_ns : from->ns)));
  if (rc == 0) rc = copy == NULL ? -ENOMEM : mlz_writer_finish(out, copy);
  json_decref(copy);
  mlz_writer_free(out);
  return rc;
}
