/* TOTALS chunks: what is written is read; what is damaged tells nothing until the next base. */
#include "formats/layout.h"
#include "formats/reader.h"
#include "formats/survey.h"
#include "formats/trace.h"
#include "formats/writer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct mlz_writer *w;
static char path[64];
static uint32_t part;

static void begin(void) {
  strcpy(path, "/tmp/mlz_totals.XXXXXX");
  part = 0;
  int fd = mkstemp(path);
  json_t *meta = json_object();
  cr_assert_eq(mlz_writer_new_totals_only(&w, fd, meta, 0), 0);
  json_decref(meta);
}

static void flush(void) {
  struct mlz_bytes raw = {0};
  cr_assert_eq(mlz_writer_take_tables(w, &raw), 0);
  cr_assert_eq(mlz_writer_append_tables(w, &raw), 0);
  free(raw.data);
}

/* The file's bytes; ends the writer. */
static uint8_t *end(size_t *n) {
  json_t *summary = json_pack("{s:b}", "complete", 1);
  cr_assert_eq(mlz_writer_finish(w, summary), 0);
  json_decref(summary);
  *n = (size_t)mlz_writer_bytes(w);
  mlz_writer_free(w);
  FILE *f = fopen(path, "rb");
  uint8_t *bytes = malloc(*n);
  cr_assert_eq(fread(bytes, 1, *n, f), *n);
  fclose(f);
  unlink(path);
  return bytes;
}

static struct mlz_trace *opened(const uint8_t *bytes, size_t n) {
  struct mlz_trace *t;
  char err[256] = "";
  cr_assert_eq(mlz_trace_open_memory(&t, bytes, n, err, sizeof err), 0, "%s", err);
  return t;
}

static void point(uint32_t process, enum mlz_point_kind kind, uint64_t ns, bool base, const struct mlz_totals_key *rows, uint32_t n_rows,
                  const struct mlz_totals_change *changes, uint32_t n) {
  struct mlz_totals_head h = {.process = process,
                              .point = kind,
                              .ns = ns,
                              .events = ns / 10,
                              .allocations = 3 * ns,
                              .peak_bytes = ns + 1,
                              .peak_ns = ns - 1,
                              .all_peak_bytes = ns + 2,
                              .all_peak_ns = ns - 2,
                              .foreign = ns / 2};
  cr_assert_eq(mlz_writer_totals(w, &h, &part, base, rows, n_rows, changes, n), 0);
}

static const struct mlz_totals_key keys[] = {{0, MLZ_BLOCK_OBJ, 1}, {0, MLZ_BLOCK_MMAP, 1}, {0, MLZ_BLOCK_RAW, 10}};

Test(totals, points_add_up) {
  size_t n;
  begin();
  uint32_t name = mlz_writer_string(w, "warm", 4);
  struct mlz_totals_head named = {.process = 1, .point = MLZ_POINT_SNAPSHOT, .name = name, .ns = 5};
  struct mlz_totals_change first[] = {{0, {1, 2, 3, 4, 5, 6, 7, 8, 9}}, {1, {1, 4096}}};
  cr_assert_eq(mlz_writer_totals(w, &named, &part, true, keys, 2, first, 2), 0);
  flush();
  struct mlz_totals_change second[] = {{1, {0, 0, 1, 4096}}, {2, {7, 70, 0, 0, 0, 0, 10, 12, 0}}};
  point(1, MLZ_POINT_END, 100, false, keys + 2, 1, second, 2);
  uint8_t *bytes = end(&n);
  struct mlz_trace *t = opened(bytes, n);
  cr_assert(mlz_trace_totals_only(t));
  cr_assert_eq(mlz_trace_totals_count(t), 2);
  cr_assert(mlz_trace_complete(t));
  cr_assert_eq(mlz_trace_damage(t)->chunks_unknown, 0);
  for (int again = 0; again < 2; again++) {
    struct mlz_totals_point p;
    mlz_trace_totals_rewind(t);
    cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
    cr_assert(p.known && p.n == 2 && p.head.point == MLZ_POINT_SNAPSHOT && p.head.ns == 5);
    cr_assert_str_eq(mlz_trace_string(t, p.head.name), "warm");
    cr_assert_eq(memcmp(p.rows[0].is, first[0].by, sizeof p.rows[0].is), 0);
    cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
    cr_assert(p.known && p.n == 3 && p.head.point == MLZ_POINT_END);
    cr_assert(p.head.ns == 100 && p.head.events == 10 && p.head.allocations == 300 && p.head.peak_bytes == 101 && p.head.peak_ns == 99);
    cr_assert(p.head.all_peak_bytes == 102 && p.head.all_peak_ns == 98 && p.head.foreign == 50);
    cr_assert_eq(memcmp(p.rows[0].is, first[0].by, sizeof p.rows[0].is), 0, "what did not change stays");
    cr_assert(p.rows[1].is[MLZ_TOTAL_FREES] == 1 && p.rows[1].is[MLZ_TOTAL_ALLOC_BYTES] == 4096);
    cr_assert(p.rows[2].key.domain == MLZ_BLOCK_RAW && p.rows[2].key.weight == 10);
    cr_assert_eq(p.rows[2].is[MLZ_TOTAL_ALLOC_SQUARES], 12);
    cr_assert_eq(mlz_trace_totals_next(t, &p), 0);
  }
  mlz_trace_close(t);
  free(bytes);
}

/* More rows than a chunk takes: one point in several parts. */
Test(totals, a_point_of_many_rows) {
  enum { ROWS = MLZ_TABLE_ROWS_MAX * 2 + 17 };
  struct mlz_totals_key *rows = calloc(ROWS, sizeof *rows);
  struct mlz_totals_change *changes = calloc(ROWS, sizeof *changes);
  for (uint32_t i = 0; i < ROWS; i++) {
    rows[i] = (struct mlz_totals_key){.domain = i % 5, .weight = 1 + i % 3};
    changes[i] = (struct mlz_totals_change){.row = i, .by = {i, UINT64_C(3) * i}};
  }
  size_t n;
  begin();
  point(1, MLZ_POINT_SNAPSHOT, 50, true, rows, ROWS, changes, ROWS);
  cr_assert_eq(part, 3);
  uint8_t *bytes = end(&n);
  struct mlz_trace *t = opened(bytes, n);
  struct mlz_totals_point p;
  cr_assert_eq(mlz_trace_totals_next(t, &p), 1, "one point");
  cr_assert(p.known);
  cr_assert_eq(p.n, ROWS);
  for (uint32_t i = 0; i < ROWS; i++)
    cr_assert(p.rows[i].is[0] == i && p.rows[i].is[1] == UINT64_C(3) * i && p.rows[i].key.domain == i % 5 &&
              p.rows[i].key.weight == 1 + i % 3);
  cr_assert_eq(mlz_trace_totals_next(t, &p), 0);
  mlz_trace_close(t);
  free(bytes);
  free(rows);
  free(changes);
}

/* Where in the file the k-th TOTALS chunk begins. */
static size_t chunk_at(const uint8_t *bytes, size_t n, unsigned k) {
  for (size_t at = sizeof(struct mlz_file_header); at + sizeof(struct mlz_chunk_header) <= n;) {
    struct mlz_chunk_header h;
    memcpy(&h, bytes + at, sizeof h);
    if (h.kind == MLZ_C_TOTALS && k-- == 0) return at;
    at += sizeof h + h.stored;
  }
  cr_assert(false, "no such chunk");
  return 0;
}

static uint8_t *four_points(size_t *n) {
  struct mlz_totals_change c = {0, {1, 16}};
  begin();
  point(1, MLZ_POINT_SNAPSHOT, 10, true, keys, 1, &c, 1);
  point(1, MLZ_POINT_SNAPSHOT, 20, false, NULL, 0, &c, 1);
  point(1, MLZ_POINT_SNAPSHOT, 30, false, NULL, 0, &c, 1);
  c.by[0] = 4;
  point(1, MLZ_POINT_END, 40, true, keys, 1, &c, 1);
  return end(n);
}

Test(totals, damage_hides_points_up_to_the_next_base) {
  size_t n;
  uint8_t *bytes = four_points(&n);
  bytes[chunk_at(bytes, n, 1) + sizeof(struct mlz_chunk_header) + 3] ^= 1;
  struct mlz_trace *t = opened(bytes, n);
  struct mlz_totals_point p;
  cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
  cr_assert(p.known && p.rows[0].is[0] == 1);
  cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
  cr_assert(p.head.ns == 30 && !p.known && p.n == 0, "it says by how much what is lost has changed");
  cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
  cr_assert(p.head.ns == 40 && p.known && p.rows[0].is[0] == 4);
  cr_assert_eq(mlz_trace_damage(t)->chunks_bad, 1);
  cr_assert_not(mlz_trace_complete(t));
  mlz_trace_totals_rewind(t);
  while (mlz_trace_totals_next(t, &p) == 1) {}
  cr_assert_eq(mlz_trace_damage(t)->chunks_bad, 1, "counted once");
  mlz_trace_close(t);
  free(bytes);
}

/* A file cut anywhere opens, and gives the points that are whole. */
Test(totals, a_cut_file) {
  size_t n;
  uint8_t *bytes = four_points(&n);
  size_t third = chunk_at(bytes, n, 2);
  struct mlz_trace *t = opened(bytes, third + 5);
  struct mlz_totals_point p;
  unsigned points = 0;
  while (mlz_trace_totals_next(t, &p) == 1) points += p.known;
  cr_assert_eq(points, 2);
  cr_assert(mlz_trace_totals_only(t));
  mlz_trace_close(t);
  free(bytes);
}

/* A payload with a sound checksum and nonsense in it. */
Test(totals, nonsense_is_damage) {
  size_t n;
  for (unsigned at = 0; at < 40; at++) {
    for (unsigned value = 0; value < 256; value += 51) {
      uint8_t *bytes = four_points(&n);
      size_t chunk = chunk_at(bytes, n, 0);
      struct mlz_chunk_header h;
      memcpy(&h, bytes + chunk, sizeof h);
      if (at < h.stored) {
        bytes[chunk + sizeof h + at] = (uint8_t)value;
        h.checksum = mlz_chunk_checksum(&h, bytes + chunk + sizeof h);
        memcpy(bytes + chunk, &h, sizeof h);
      }
      struct mlz_trace *t = opened(bytes, n);
      struct mlz_totals_point p;
      unsigned points = 0;
      while (mlz_trace_totals_next(t, &p) == 1) {
        points++;
        for (uint32_t i = 0; i < p.n; i++) cr_assert(p.rows[i].key.domain < MLZ_BLOCK_DOMAINS && p.rows[i].key.stack < mlz_trace_stacks(t));
      }
      cr_assert_leq(points, 4);
      mlz_trace_close(t);
      free(bytes);
    }
  }
}

/* Nobody has looked at the rows of a chunk that leans on a bad one: it is not taken over, be its number the next one of what was. */
Test(totals, a_repair_takes_over_what_was_read) {
  size_t n;
  char err[256] = "";
  struct mlz_totals_change good = {0, {1, 16}}, bad = {7, {1, 16}};
  begin();
  point(1, MLZ_POINT_SNAPSHOT, 10, true, keys, 1, &good, 1);
  point(1, MLZ_POINT_SNAPSHOT, 20, false, NULL, 0, &bad, 1); /* a row that is not there */
  part = 1;
  point(1, MLZ_POINT_SNAPSHOT, 30, false, NULL, 0, &bad, 1);
  uint8_t *bytes = end(&n);
  struct mlz_survey s, again;
  struct mlz_repair r;
  cr_assert_eq(mlz_survey_memory(&s, bytes, n, err, sizeof err), 0, "%s", err);
  cr_assert_eq(s.faults_n, 1);
  int fd = memfd_create("repaired", MFD_CLOEXEC), copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  cr_assert_eq(mlz_repair_memory(bytes, n, &s, fd, &r, err, sizeof err), 0, "%s", err);
  cr_assert_eq(r.totals_left_out, 1);
  off_t size = lseek(copy, 0, SEEK_END);
  uint8_t *written = malloc((size_t)size);
  cr_assert_eq(pread(copy, written, (size_t)size, 0), size);
  cr_assert_eq(mlz_survey_memory(&again, written, (size_t)size, err, sizeof err), 0, "%s", err);
  cr_assert_eq(again.faults_n, 0);
  mlz_survey_clear(&s);
  mlz_survey_clear(&again);
  free(written);
  free(bytes);
  close(copy);
}

Test(totals, a_trace_of_events_has_none) {
  begin();
  mlz_writer_free(w);
  unlink(path);
  strcpy(path, "/tmp/mlz_totals.XXXXXX");
  json_t *meta = json_object();
  cr_assert_eq(mlz_writer_new(&w, mkstemp(path), meta, 0), 0);
  json_decref(meta);
  size_t n;
  uint8_t *bytes = end(&n);
  struct mlz_trace *t = opened(bytes, n);
  cr_assert_not(mlz_trace_totals_only(t));
  cr_assert_eq(mlz_trace_totals_count(t), 0);
  mlz_trace_close(t);
  free(bytes);
}
