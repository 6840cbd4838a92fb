#include "formats/writer.h"

#include "formats/writing.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* On recorded Python programs level 2 packs 3 to 20 % better than 1 in the same time; 3 takes twice as long for nothing. */
#define DEFAULT_LEVEL 2
#define JSON_FLAGS (JSON_COMPACT | JSON_SORT_KEYS)

static int write_all(int fd, const uint8_t *p, size_t n) {
  while (n > 0) {
    ssize_t done = write(fd, p, n);
    if (done < 0) {
      if (errno == EINTR) continue;
      return -errno;
    }
    if (done == 0) return -EIO;
    p += done;
    n -= (size_t)done;
  }
  return 0;
}

/* Header and payload. What a failed write left is cut off again, as far as the file can be cut. */
static int append(struct mlz_writer *w, const void *header, size_t header_bytes, const void *payload, size_t payload_bytes) {
  if (w->error != 0) return w->error;
  int rc = write_all(w->fd, header, header_bytes);
  if (rc == 0) rc = write_all(w->fd, payload, payload_bytes);
  uint64_t at = atomic_load_explicit(&w->bytes, memory_order_relaxed);
  if (rc != 0) {
    w->error = rc;
    if (ftruncate(w->fd, (off_t)at) != 0) return rc; /* a half chunk at the end: readers take it for a cut tail */
    return rc;
  }
  atomic_store_explicit(&w->bytes, at + header_bytes + payload_bytes, memory_order_relaxed);
  return 0;
}

/* The chunk's row in the index. `x`: EVENTS only. */
static int index_add(struct mlz_writer *w, const struct mlz_chunk_header *h, const struct mlz_extent *x) {
  uint8_t *p = mlz_buffer_room(&w->index, MLZ_EXTENT_MAX_BYTES + 2 * MLZ_VARINT_MAX);
  if (p == NULL) return -ENOMEM;
  p = mlz_put_varint(p, h->kind);
  p = mlz_put_varint(p, h->stored);
  if (x != NULL) p = mlz_extent_put(p, x);
  w->index.size = (size_t)(p - w->index.data);
  w->index_rows++;
  return 0;
}

static int place(struct mlz_writer *w, const struct mlz_chunk_header *h) {
  if (w->placed_n == w->placed_room) {
    size_t room = w->placed_room == 0 ? 1024 : w->placed_room * 2;
    struct mlz_placed *grown = reallocarray(w->placed, room, sizeof *grown);
    if (grown == NULL) return -ENOMEM;
    w->placed = grown;
    w->placed_room = room;
  }
  w->placed[w->placed_n++] = (struct mlz_placed){.at = mlz_writer_bytes(w), .stored = h->stored, .kind = h->kind};
  return 0;
}

static int append_chunk(struct mlz_writer *w, struct mlz_chunk_header *h, const uint8_t *payload, const struct mlz_extent *x) {
  h->magic = MLZ_CHUNK_MAGIC;
  h->checksum = mlz_chunk_checksum(h, payload);
  int rc = w->error != 0 ? w->error : index_add(w, h, x);
  if (w->running != NULL) mlz_running_bytes(w->running, sizeof *h + h->stored);
  if (rc == 0 && w->listed) rc = place(w, h);
  return rc != 0 ? rc : append(w, h, sizeof *h, payload, h->stored);
}

/* A chunk whose whole payload is compressed if that makes it shorter. */
static int append_packed(struct mlz_writer *w, unsigned kind, uint64_t count, const uint8_t *raw, size_t n) {
  if (n > MLZ_CHUNK_RAW_MAX) return -EFBIG;
  struct mlz_chunk_header h = {.kind = (uint16_t)kind, .raw = (uint32_t)n, .stored = (uint32_t)n, .count = count};
  size_t bound = ZSTD_compressBound(n);
  w->packed.size = 0;
  uint8_t *out = mlz_buffer_room(&w->packed, bound);
  if (out == NULL) return -ENOMEM;
  size_t packed = n < 32 ? n : ZSTD_compressCCtx(w->encoder.zstd, out, bound, raw, n, w->level);
  if (n >= 32 && !ZSTD_isError(packed) && packed < n) {
    h.flags = MLZ_CHUNK_ZSTD;
    h.stored = (uint32_t)packed;
    raw = out;
  }
  return append_chunk(w, &h, raw, NULL);
}

static int append_json(struct mlz_writer *w, unsigned kind, uint64_t count, const json_t *object) {
  char *text = json_dumps(object, JSON_FLAGS);
  if (text == NULL) return -ENOMEM;
  int rc = append_packed(w, kind, count, (const uint8_t *)text, strlen(text));
  free(text);
  return rc;
}

static void fill_header(struct mlz_file_header *h, uint64_t features) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *h = (struct mlz_file_header){
      .version = MLZ_FILE_VERSION, .oldest_reader = MLZ_FILE_VERSION, .header_bytes = sizeof *h, .features = features};
  memcpy(h->magic, MLZ_FILE_MAGIC, sizeof h->magic);
  h->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  if (getrandom(h->uuid, sizeof h->uuid, GRND_NONBLOCK) != (ssize_t)sizeof h->uuid) memcpy(h->uuid, &h->created_ns, sizeof h->created_ns);
  h->uuid[6] = (uint8_t)((h->uuid[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
  h->uuid[8] = (uint8_t)((h->uuid[8] & 0x3f) | 0x80);
  h->checksum = mlz_header_checksum(h, sizeof *h);
}

int mlz_writer_begin(struct mlz_writer **out, int fd, const json_t *meta, int level, uint64_t features) {
  struct mlz_writer *w = aligned_alloc(_Alignof(struct mlz_writer), sizeof *w);
  if (w == NULL) return -ENOMEM;
  memset(w, 0, sizeof *w);
  w->fd = -1;
  w->level = level == 0 ? DEFAULT_LEVEL : level;
  mlz_tables_init(&w->tables);
  int rc = mlz_encoder_init(&w->encoder, w->level);
  if (rc == 0) {
    struct mlz_file_header h;
    fill_header(&h, features);
    w->fd = fd;
    rc = append(w, &h, sizeof h, NULL, 0);
    if (rc == 0) rc = append_json(w, MLZ_C_META, 1, meta);
  }
  if (rc != 0) {
    w->fd = -1; /* on failure the descriptor stays the caller's */
    mlz_writer_free(w);
    return rc;
  }
  *out = w;
  return 0;
}

int mlz_writer_new(struct mlz_writer **out, int fd, const json_t *meta, int level) { return mlz_writer_begin(out, fd, meta, level, 0); }
int mlz_writer_new_totals_only(struct mlz_writer **out, int fd, const json_t *meta, int level) {
  return mlz_writer_begin(out, fd, meta, level, MLZ_FEATURE_TOTALS_ONLY);
}

struct mlz_writer *mlz_writer_free(struct mlz_writer *w) {
  if (w == NULL) return NULL;
  if (w->fd >= 0) close(w->fd);
  mlz_tables_deinit(&w->tables);
  mlz_encoder_deinit(&w->encoder);
  mlz_running_free(w->running);
  mlz_keep_free(w->keep);
  free(w->placed);
  free(w->packed.data);
  free(w->index.data);
  free(w);
  return NULL;
}

uint32_t mlz_writer_string(struct mlz_writer *w, const char *utf8, size_t bytes) { return mlz_tables_string(&w->tables, utf8, bytes); }
uint32_t mlz_writer_frame(struct mlz_writer *w, const struct mlz_frame *f) { return mlz_tables_frame(&w->tables, f); }
uint32_t mlz_writer_stack(struct mlz_writer *w, const uint32_t *frames, uint32_t n, bool truncated) {
  return mlz_tables_stack(&w->tables, frames, n, truncated);
}

uint32_t mlz_writer_module(struct mlz_writer *w, uint32_t path, uint32_t build_id) { return mlz_tables_module(&w->tables, path, build_id); }
void mlz_writer_symbol(struct mlz_writer *w, uint32_t frame, const uint32_t *frames, uint32_t n) {
  mlz_tables_symbol(&w->tables, frame, frames, n);
}

void mlz_writer_process(struct mlz_writer *w, json_t *process) {
  mlz_tables_json(&w->tables, &w->tables.processes, &w->tables.processes_n, process);
  json_decref(process);
}

void mlz_writer_thread(struct mlz_writer *w, json_t *thread) {
  mlz_tables_json(&w->tables, &w->tables.threads, &w->tables.threads_n, thread);
  json_decref(thread);
}

int mlz_writer_totals(struct mlz_writer *w, const struct mlz_totals_head *h, uint32_t *part, bool base, const struct mlz_totals_key *rows,
                      uint32_t n_rows, const struct mlz_totals_change *changes, uint32_t n) {
  return mlz_tables_totals(&w->tables, h, part, base, rows, n_rows, changes, n);
}

int mlz_writer_take_tables(struct mlz_writer *w, struct mlz_bytes *out) {
  struct mlz_buffer rows = {0};
  int rc = mlz_tables_take(&w->tables, &rows);
  if (rc != 0) {
    w->tables.error = rc;
    free(rows.data);
    return rc;
  }
  *out = (struct mlz_bytes){.data = rows.data, .size = rows.size};
  return 0;
}

int mlz_writer_append_tables(struct mlz_writer *w, const struct mlz_bytes *raw) {
  for (size_t at = 0; at < raw->size;) {
    struct mlz_chunk_header h;
    memcpy(&h, raw->data + at, sizeof h);
    at += sizeof h;
    int rc = append_packed(w, h.kind, h.count, raw->data + at, h.raw);
    if (rc != 0) return rc;
    at += h.raw;
  }
  return 0;
}

int mlz_writer_append_events(struct mlz_writer *w, const struct mlz_builder *b) {
  if (w->error != 0) return w->error;
  if (b->n == 0) return 0;
  struct mlz_extent x;
  int rc = mlz_encoder_events(&w->encoder, b, &x);
  if (rc != 0) return rc;
  struct mlz_chunk_header h = {.kind = MLZ_C_EVENTS, .stored = (uint32_t)w->encoder.used, .raw = (uint32_t)w->encoder.used, .count = b->n};
  if (w->running != NULL && mlz_running_events(w->running, b) != 0) {
    w->running = mlz_running_free(w->running);
    if (w->keep != NULL) return w->error = -ENOMEM; /* nothing that comes later could be left out */
  }
  return append_chunk(w, &h, w->encoder.out, &x);
}

int mlz_writer_append_stored(struct mlz_writer *w, const struct mlz_chunk_header *h, const uint8_t *payload, const struct mlz_extent *x) {
  struct mlz_chunk_header copy = *h;
  return append_chunk(w, &copy, payload, x);
}

int mlz_writer_frames(struct mlz_writer *w, const struct mlz_frame_rule *rule) {
  w->running = mlz_running_new(rule);
  return w->running == NULL ? -ENOMEM : 0;
}

void mlz_writer_process_ended(struct mlz_writer *w, uint32_t process) {
  if (w->running != NULL) mlz_running_ended(w->running, process);
}

/* Out of memory: readers go without. */
static int append_frame(struct mlz_writer *w, uint64_t now_ns, const json_t *state, bool *framed) {
  struct mlz_buffer out = {0};
  uint64_t before = mlz_writer_bytes(w);
  int rc = mlz_running_group(w->running, now_ns, (uint64_t)json_integer_value(json_object_get(state, "peak_bytes")),
                             (uint64_t)json_integer_value(json_object_get(state, "peak_ns")), &out, framed);
  if (rc == 0) {
    struct mlz_bytes chunks = {.data = out.data, .size = out.size};
    rc = mlz_writer_append_tables(w, &chunks);
    mlz_running_spent(w->running, mlz_writer_bytes(w) - before);
  } else {
    w->running = mlz_running_free(w->running);
    rc = w->keep == NULL ? 0 : rc;
  }
  free(out.data);
  return rc;
}

int mlz_writer_append_group(struct mlz_writer *w, uint64_t now_ns, const json_t *state) {
  bool framed = false;
  int rc = append_json(w, MLZ_C_GROUP, now_ns, state);
  if (rc == 0 && w->running != NULL) rc = append_frame(w, now_ns, state, &framed);
  return rc == 0 && w->keep != NULL ? mlz_keep_group(w, now_ns, framed) : rc;
}

int mlz_writer_finish(struct mlz_writer *w, const json_t *summary) {
  struct mlz_bytes rows = {0};
  int rc = mlz_writer_take_tables(w, &rows);
  if (rc == 0) rc = mlz_writer_append_tables(w, &rows);
  free(rows.data);
  if (rc == 0) rc = append_json(w, MLZ_C_SUMMARY, 1, summary);
  if (rc != 0) return rc;
  uint64_t at = mlz_writer_bytes(w);
  if (w->index.size <= MLZ_CHUNK_RAW_MAX)
    rc = append_packed(w, MLZ_C_INDEX, w->index_rows, w->index.data, w->index.size);
  else
    at = 0; /* more chunks than an index may list: readers find them by walking */
  if (rc != 0) return rc;
  struct mlz_chunk_header end = {.kind = MLZ_C_END, .count = at};
  rc = append_chunk(w, &end, NULL, NULL);
  if (rc == 0 && fsync(w->fd) != 0 && errno != EINVAL && errno != EROFS) /* EINVAL: a pipe */
    rc = -errno;
  return rc;
}

uint64_t mlz_writer_bytes(const struct mlz_writer *w) { return atomic_load_explicit(&w->bytes, memory_order_relaxed); }
