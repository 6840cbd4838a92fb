#include "sample.h"

#include "formats/layout.h"
#include "formats/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int flush_tables(struct mlz_writer *w) {
  struct mlz_bytes rows;
  int rc = mlz_writer_take_tables(w, &rows);
  if (rc != 0) return rc;
  rc = mlz_writer_append_tables(w, &rows);
  free(rows.data);
  return rc;
}

static uint32_t add_string(struct mlz_writer *w, const char *s) { return mlz_writer_string(w, s, strlen(s)); }

static void first_tables(struct mlz_writer *w) {
  static const char *const names[] = {
      "main", "app.py", "__main__", "load", "lib/f\xc3\xa4rben.py", "lib.f\xc3\xa4rben", "a \"quoted\" name", "warm"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) add_string(w, names[i]);
  mlz_writer_frame(w, &(struct mlz_frame){1, 2, 3, 10, MLZ_LANG_PYTHON});
  mlz_writer_frame(w, &(struct mlz_frame){4, 5, 6, 77, MLZ_LANG_PYTHON});
  mlz_writer_frame(w, &(struct mlz_frame){7, 5, 6, 70000, MLZ_LANG_NATIVE});
  mlz_writer_stack(w, (uint32_t[]){1}, 1, false);
  mlz_writer_stack(w, (uint32_t[]){2, 1}, 2, false);
  mlz_writer_stack(w, (uint32_t[]){3, 2, 1}, 3, false);
  mlz_writer_stack(w, (uint32_t[]){3, 2, 2, 2}, 4, true);
  mlz_writer_process(w, json_pack("{s:i,s:i,s:i,s:s,s:[s,s],s:i}", "id", 1, "pid", 4711, "parent", 0, "origin", "exec", "command",
                                  "python3", "app.py", "start_ns", 0));
  mlz_writer_thread(w, json_pack("{s:i,s:i,s:i,s:s,s:b}", "id", 1, "process", 1, "tid", 4711, "name", "MainThread", "main", 1));
  mlz_writer_thread(w, json_pack("{s:i,s:i,s:i,s:s,s:b}", "id", 2, "process", 1, "tid", 4712, "name", "worker", "main", 0));
}

static void first_events(struct mlz_builder *b) {
  mlz_builder_begin(b, 1, 0, 100);
  mlz_builder_thread(b, 1);
  mlz_builder_rare(b, &(struct mlz_rare){.op = MLZ_OP_THREAD_START, .start_ns = 90});
  uint64_t kept = mlz_builder_alloc(b, 1, 100, 2, 1.0);
  uint64_t gone = mlz_builder_alloc(b, 2, 32, 2, 1.0);
  mlz_builder_free_block(b, gone, 2, 32, 2, 1.0, true);
  mlz_builder_time(b, 1500);
  mlz_builder_thread(b, 2);
  uint64_t other = mlz_builder_alloc(b, 3, UINT64_C(1) << 40, 4, 2.5);
  mlz_builder_thread(b, 1);
  for (int i = 0; i < 300; i++) {
    uint64_t a = mlz_builder_alloc(b, 1 + (uint32_t)i % 4, 16 + 16 * (uint64_t)(i % 70), (unsigned)i % 5, 1.0);
    if (i % 3 != 0) mlz_builder_free_block(b, a, 1 + (uint32_t)i % 4, 16 + 16 * (uint64_t)(i % 70), (unsigned)i % 5, 1.0, i % 3 == 1);
    if (i % 10 == 0) mlz_builder_time(b, 2000 + 10 * (uint64_t)i);
  }
  mlz_builder_free_block(b, other, 3, UINT64_C(1) << 40, 4, 2.5, true); /* freed by another thread: not its latest */
  mlz_builder_free_block(b, kept, 1, 100, 2, 1.0, false);
  mlz_builder_free_foreign(b);
  mlz_builder_rare(b, &(struct mlz_rare){4000, 250, 12, 3, 2, 4, 0, MLZ_OP_GC});
  mlz_builder_time(b, 6000);
  mlz_builder_rare(b, &(struct mlz_rare){.op = MLZ_OP_MARK, .start_ns = 6000, .name = 8});
}

static void later_events(struct mlz_builder *b) {
  mlz_builder_begin(b, 1, 303, 6000);
  mlz_builder_thread(b, 2);
  mlz_builder_alloc(b, 5, 64, 0, 1.0);
  mlz_builder_time(b, 7000);
  mlz_builder_free_block(b, 3, 1, 16, 0, 1.0, false); /* i == 0 above: kept */
  mlz_builder_free_block(b, 6, 4, 64, 3, 1.0, true);  /* i == 3 */
  mlz_builder_rare(b, &(struct mlz_rare){.op = MLZ_OP_SNAPSHOT, .start_ns = 7000, .name = 9});
  mlz_builder_rare(b, &(struct mlz_rare){.op = MLZ_OP_LOST, .start_ns = 7001, .collected = 5, .uncollectable = 6});
  mlz_builder_rare(b, &(struct mlz_rare){.op = MLZ_OP_FINALIZE, .start_ns = 7002});
  mlz_builder_rare(b, &(struct mlz_rare){.op = MLZ_OP_THREAD_END, .start_ns = 7003});
}

static void child_events(struct mlz_builder *b) {
  mlz_builder_begin(b, 2, 0, 6500);
  mlz_builder_thread(b, 3);
  mlz_builder_free_foreign(b);
  for (int i = 0; i < 40; i++) mlz_builder_alloc(b, 5, 48, 1, 10.0);
}

static json_t *state(int complete, int ns) {
  return json_pack("{s:b,s:i,s:i,s:{s:i,s:i},s:i}", "complete", complete, "duration_ns", ns, "exit_status", 0, "counters",
                   "allocations_seen", 344, "events_written", 600, "peak_bytes", 4096);
}

static int group(struct mlz_writer *w, int ns) {
  json_t *s = state(0, ns);
  int rc = mlz_writer_append_group(w, (uint64_t)ns, s);
  json_decref(s);
  return rc;
}

static int write_body(struct mlz_writer *w, struct mlz_builder *b, int finish) {
  int rc;
  first_tables(w);
  first_events(b);
  if ((rc = flush_tables(w)) != 0 || (rc = mlz_writer_append_events(w, b)) != 0 || (rc = group(w, 6000)) != 0) return rc;
  add_string(w, "later");
  mlz_writer_frame(w, &(struct mlz_frame){9, 2, 3, 0, MLZ_LANG_PYTHON});
  mlz_writer_stack(w, (uint32_t[]){4, 1}, 2, false);
  mlz_writer_process(w, json_pack("{s:i,s:i,s:i,s:s,s:[s],s:i}", "id", 2, "pid", 4720, "parent", 1, "origin", "fork", "command", "python3",
                                  "start_ns", 6400));
  mlz_writer_thread(w, json_pack("{s:i,s:i,s:i,s:s,s:b}", "id", 3, "process", 2, "tid", 4720, "name", "MainThread", "main", 1));
  later_events(b);
  if ((rc = flush_tables(w)) != 0 || (rc = mlz_writer_append_events(w, b)) != 0) return rc;
  child_events(b);
  if ((rc = mlz_writer_append_events(w, b)) != 0 || (rc = group(w, 7100)) != 0) return rc;
  mlz_writer_process(w, json_pack("{s:i,s:i,s:i,s:s,s:[s,s],s:i,s:i,s:s}", "id", 1, "pid", 4711, "parent", 0, "origin", "exec", "command",
                                  "python3", "app.py", "start_ns", 0, "end_ns", 7002, "end", "exit"));
  if (!finish) return flush_tables(w);
  json_t *s = state(1, 7200);
  rc = mlz_writer_finish(w, s);
  json_decref(s);
  return rc;
}

int sample_write(int fd, int finish) {
  json_t *meta = json_pack("{s:s,s:[s,s],s:i,s:s,s:I,s:{s:f,s:i,s:s}}", "version", "0.1.0", "command", "python3", "app.py", "pid", 4711,
                           "host", "here", "start", (json_int_t)1700000000000000000, "settings", "sample_rate", 0.5, "max_stack_depth", 10,
                           "on_full", "block");
  struct mlz_builder *b = mlz_builder_new();
  struct mlz_writer *w = NULL;
  int rc = b == NULL ? -ENOMEM : mlz_writer_new(&w, fd, meta, 0);
  if (rc == 0)
    rc = write_body(w, b, finish);
  else
    close(fd);
  mlz_writer_free(w);
  mlz_builder_free(b);
  json_decref(meta);
  return rc;
}

uint8_t *sample_bytes(int finish, size_t *n) {
  int fd = memfd_create("sample", MFD_CLOEXEC), keep = dup(fd);
  uint8_t *bytes = NULL;
  if (keep >= 0 && sample_write(fd, finish) == 0) {
    off_t size = lseek(keep, 0, SEEK_END);
    bytes = malloc((size_t)size + 1);
    if (bytes != NULL && pread(keep, bytes, (size_t)size, 0) != size) {
      free(bytes);
      bytes = NULL;
    }
    *n = (size_t)size;
  }
  if (keep >= 0) close(keep);
  return bytes;
}

static int one_point(struct mlz_writer *w, uint32_t *part, uint32_t process, enum mlz_point_kind kind, uint32_t name, uint64_t ns) {
  static const struct mlz_totals_key keys[] = {{1, 2, 1}, {2, 2, 1}, {4, 4, 1}, {3, 0, 12.5}, {3, 2, 1}};
  struct mlz_totals_change changes[5];
  bool base = *part == 0 || kind == MLZ_POINT_EXIT, later = process == 1 && *part >= 1;
  uint32_t n = 0, n_rows = later ? 5 : 3;
  for (uint32_t row = 0; row < n_rows; row++) {
    if (!base && row == 1) continue; /* nothing new */
    struct mlz_totals_change *c = &changes[n++];
    *c = (struct mlz_totals_change){.row = row, .by = {3 + row, 1000 * (row + 1), row, 40 * row, row / 2, 16 * (row / 2), row * row}};
    if (row == 3) c->by[MLZ_TOTAL_ALLOC_SQUARES] = ns, c->by[MLZ_TOTAL_FREE_SQUARES] = 1;
    if (row == 4) c->by[MLZ_TOTAL_SIZE_MAX] = UINT64_C(1) << 40;
  }
  struct mlz_totals_head h = {.process = process, .point = kind, .name = name, .ns = ns, .events = *part + 1, .allocations = 10 * ns};
  h.peak_bytes = 5000 + ns, h.peak_ns = ns - 10, h.all_peak_bytes = 7000 + ns, h.all_peak_ns = ns - 20, h.foreign = ns / 100;
  if (base) return mlz_writer_totals(w, &h, part, true, keys, n_rows, changes, n);
  return mlz_writer_totals(w, &h, part, false, keys + 3, *part == 1 ? n_rows - 3 : 0, changes, n);
}

static int write_totals(struct mlz_writer *w) {
  uint32_t first = 0, second = 0;
  first_tables(w);
  int rc = one_point(w, &first, 1, MLZ_POINT_SNAPSHOT, 8, 1000);
  if (rc == 0) rc = flush_tables(w);
  if (rc == 0) rc = one_point(w, &first, 1, MLZ_POINT_SNAPSHOT, 8, 2000);
  if (rc == 0) rc = one_point(w, &second, 2, MLZ_POINT_SNAPSHOT, 8, 2000);
  if (rc == 0) rc = flush_tables(w);
  if (rc == 0) rc = one_point(w, &second, 2, MLZ_POINT_END, 0, 2500);
  if (rc == 0) rc = one_point(w, &first, 1, MLZ_POINT_END, 0, 3000);
  if (rc == 0) rc = one_point(w, &first, 1, MLZ_POINT_EXIT, 0, 3100);
  if (rc != 0) return rc;
  json_t *s = state(1, 3200);
  rc = mlz_writer_finish(w, s);
  json_decref(s);
  return rc;
}

/* The bytes that `body` writes into a new file. */
static uint8_t *written(size_t *n, json_t *meta, int (*open)(struct mlz_writer **, int, const json_t *, int),
                        int (*body)(struct mlz_writer *)) {
  int fd = memfd_create("sample", MFD_CLOEXEC), keep = dup(fd);
  uint8_t *bytes = NULL;
  struct mlz_writer *w = NULL;
  int rc = open(&w, fd, meta, 0);
  if (rc == 0) rc = body(w);
  off_t size = rc == 0 ? lseek(keep, 0, SEEK_END) : -1;
  if (size > 0 && (bytes = malloc((size_t)size)) != NULL && pread(keep, bytes, (size_t)size, 0) != size) {
    free(bytes);
    bytes = NULL;
  }
  *n = (size_t)size;
  mlz_writer_free(w);
  close(keep);
  json_decref(meta);
  return bytes;
}

uint8_t *sample_totals(size_t *n) {
  return written(n, json_pack("{s:s,s:{s:b}}", "version", "0.1.0", "settings", "snapshots_only", 1), mlz_writer_new_totals_only,
                 write_totals);
}

static int with_builder(struct mlz_writer *w, const struct mlz_frame_rule *rule, int finish) {
  struct mlz_builder *b = mlz_builder_new();
  int rc = b == NULL ? -ENOMEM : mlz_writer_frames(w, rule);
  if (rc == 0) rc = write_body(w, b, finish);
  mlz_builder_free(b);
  return rc;
}

static int write_points(struct mlz_writer *w) { return with_builder(w, &(struct mlz_frame_rule){.least_events = 1, .share = 1e9}, 1); }

uint8_t *sample_points(size_t *n) { return written(n, json_pack("{s:s}", "version", "0.1.0"), mlz_writer_new, write_points); }

uint8_t *sample_left_out(size_t *n) {
  json_t *meta = json_pack("{s:s}", "version", "0.1.0"), *s = state(1, 7200);
  int fd = memfd_create("sample", MFD_CLOEXEC), to = memfd_create("left out", MFD_CLOEXEC), keep = dup(to);
  struct mlz_writer *w = NULL;
  int rc = mlz_writer_new(&w, fd, meta, 0);
  if (rc == 0) rc = mlz_writer_keep(w, &(struct mlz_keep_rule){.max_bytes = 1 << 30});
  if (rc == 0) rc = with_builder(w, &(struct mlz_frame_rule){.every_bytes = 1}, 0);
  if (rc == 0) rc = mlz_writer_dump(w, to, 6000, s);
  off_t size = rc == 0 ? lseek(keep, 0, SEEK_END) : 0;
  uint8_t *bytes = size > 0 ? malloc((size_t)size) : NULL;
  if (bytes != NULL && pread(keep, bytes, (size_t)size, 0) != size) rc = -EIO;
  *n = (size_t)size;
  mlz_writer_free(w);
  close(keep);
  json_decref(meta);
  json_decref(s);
  return rc == 0 ? bytes : NULL;
}

static int write_native(struct mlz_writer *w) {
  static const char *const names[] = {"/usr/lib/libone.so.1", "00ff10", "main", "app.py", "grow", "vec.c", "push", "/opt/app/two", "tail"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) add_string(w, names[i]);
  uint32_t one = mlz_writer_module(w, 1, 2), two = mlz_writer_module(w, 8, 0);
  uint32_t python = mlz_writer_frame(w, &(struct mlz_frame){3, 4, 0, 7, MLZ_LANG_PYTHON});
  struct mlz_frame at[] = {mlz_frame_at(one, 0x1234), mlz_frame_at(one, 0xfedcba987654), mlz_frame_at(two, 0x10),
                           mlz_frame_at(two, 0x20),   mlz_frame_at(0, 0x7fff00001000),   mlz_frame_at(99, 1)};
  uint32_t frames[6];
  for (int i = 0; i < 6; i++) frames[i] = mlz_writer_frame(w, &at[i]);
  mlz_writer_stack(w, (uint32_t[]){frames[0], python}, 2, false);
  mlz_writer_stack(w, (uint32_t[]){frames[3], frames[2], python, frames[1], frames[4], frames[5]}, 6, true);
  mlz_writer_stack(w, (uint32_t[]){frames[3]}, 1, false);
  mlz_writer_process(w, json_pack("{s:i,s:i}", "id", 1, "pid", 99));
  mlz_writer_thread(w, json_pack("{s:i,s:i,s:s}", "id", 1, "process", 1, "name", "main"));
  struct mlz_builder *b = mlz_builder_new();
  if (b == NULL) return -ENOMEM;
  mlz_builder_begin(b, 1, 0, 0);
  mlz_builder_thread(b, 1);
  for (uint32_t i = 1; i <= 3; i++) mlz_builder_alloc(b, i, 100 * i, 3, 1.0);
  int rc = flush_tables(w);
  if (rc == 0) rc = mlz_writer_append_events(w, b);
  mlz_builder_free(b);
  if (rc != 0) return rc;
  /* The names come at the end: one, two of which one was inlined with a tail call behind, none. */
  uint32_t push = mlz_writer_frame(w, &(struct mlz_frame){7, 6, 1, 12, MLZ_LANG_NATIVE});
  uint32_t grow = mlz_writer_frame(w, &(struct mlz_frame){5, 6, 1, 40, MLZ_LANG_NATIVE});
  uint32_t tail = mlz_writer_frame(w, &(struct mlz_frame){9, 6, 1, 50, MLZ_LANG_INFERRED});
  mlz_writer_symbol(w, frames[0], (uint32_t[]){grow}, 1);
  mlz_writer_symbol(w, frames[2], (uint32_t[]){push, grow, tail}, 3);
  mlz_writer_symbol(w, frames[3], NULL, 0);
  mlz_writer_symbol(w, frames[5], (uint32_t[]){frames[0]}, 1); /* of an address: reads as lost */
  json_t *s = state(1, 100);
  rc = mlz_writer_finish(w, s);
  json_decref(s);
  return rc;
}

uint8_t *sample_native(size_t *n) { return written(n, json_pack("{s:s}", "version", "0.1.0"), mlz_writer_new, write_native); }

size_t sample_chunk(uint8_t *out, unsigned kind, uint64_t count, const void *payload, uint32_t n) {
  struct mlz_chunk_header h = {.magic = MLZ_CHUNK_MAGIC, .kind = (uint16_t)kind, .stored = n, .raw = n, .count = count};
  h.checksum = mlz_chunk_checksum(&h, payload);
  memcpy(out, &h, sizeof h);
  memcpy(out + sizeof h, payload, n);
  return sizeof h + n;
}

size_t sample_chunk_size(const uint8_t *chunk) {
  struct mlz_chunk_header h;
  memcpy(&h, chunk, sizeof h);
  return sizeof h + h.stored;
}

unsigned sample_chunk_kind(const uint8_t *chunk) {
  struct mlz_chunk_header h;
  memcpy(&h, chunk, sizeof h);
  return h.kind;
}
