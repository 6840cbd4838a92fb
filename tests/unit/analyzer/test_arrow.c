/* Traces as Arrow tables (analyzer/arrow.h), against what the reader says event by event. Built twice: once with a window of frees so small that nearly each
 * chunk is one of its own. */
#include "tests/golden/sample.h"
#include "tests/tools/arrow_drain.h"
#include "tests/tools/scenarios.h"

#include "formats/reader.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static char path[64];
static void make_file(void) {
  snprintf(path, sizeof path, "/tmp/memlyze-arrow-XXXXXX");
  int fd = mkstemp(path);
  cr_assert(fd >= 0);
  close(fd);
}
static void remove_file(void) { unlink(path); }
TestSuite(arrow, .init = make_file, .fini = remove_file);

/* ---- what the rows must be ---- */

struct row {
  uint32_t process, thread, stack, domain;
  uint64_t order, time, size, freed;
  double weight;
  bool is_freed, temporary, live, after;
};
static struct row *rows;
static size_t n_rows, room_rows;
enum { PROCESSES = 64 };

static void free_row(const struct mlz_block *b, uint32_t i, bool ended) {
  for (size_t k = n_rows; k-- > 0;)
    if (rows[k].process == b->process && rows[k].order == b->alloc_no[i]) {
      rows[k].is_freed = true;
      rows[k].freed = b->time_ns[i];
      rows[k].temporary = b->ops[i] == MLZ_OP_FREE_TEMP || b->ops[i] == MLZ_OP_FREE_OLD_TEMP;
      if (!ended) rows[k].live = false;
      return;
    }
  cr_assert_fail("a free without its allocation");
}

static void read_rows(void) {
  struct mlz_trace *t;
  struct mlz_block b;
  char err[256];
  bool ended[PROCESSES] = {false};
  cr_assert(mlz_trace_open(&t, path, err, sizeof err) == 0, "%s", err);
  n_rows = 0;
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) > 0)
    for (uint32_t i = 0; i < b.n; i++) {
      if (b.ops[i] >= MLZ_OP_RARE) {
        ended[b.process] |= b.ops[i] == MLZ_OP_FINALIZE;
      } else if (b.ops[i] == MLZ_OP_ALLOC) {
        const struct mlz_class *c = &b.classes[b.classes_of[i]];
        if (n_rows == room_rows) rows = realloc(rows, (room_rows = room_rows * 2 + 64) * sizeof rows[0]);
        rows[n_rows++] = (struct row){b.process, b.thread[i], c->stack, c->domain, b.alloc_no[i],     b.time_ns[i],    c->size,
                                      0,         c->weight,   false,    false,     !ended[b.process], ended[b.process]};
      } else if (b.ops[i] != MLZ_OP_FREE_FOREIGN) {
        free_row(&b, i, ended[b.process]);
      }
    }
  mlz_trace_close(t);
}

static struct memlyze_read *open_trace(void) {
  struct memlyze_read *r;
  char err[256];
  cr_assert(memlyze_read_open(&r, path, err, sizeof err) == 0, "%s", err);
  return r;
}

#define I64(column) (((const int64_t *)a.children[column]->buffers[1])[i])
#define U32(column) (((const uint32_t *)a.children[column]->buffers[1])[i])

static void compare_allocations(void) {
  struct memlyze_read *r = open_trace();
  struct ArrowArrayStream stream;
  struct ArrowArray a;
  char err[256];
  size_t at = 0;
  cr_assert(memlyze_read_stream(r, MEMLYZE_ALLOCATIONS, &stream, err, sizeof err) == 0, "%s", err);
  memlyze_read_close(r); /* the stream goes on */
  while (stream.get_next(&stream, &a) == 0 && a.release) {
    for (int64_t i = 0; i < a.length; i++, at++) {
      const struct row *w = &rows[at];
      const void *valid = a.children[6]->buffers[0];
      cr_assert(at < n_rows);
      cr_assert(I64(0) == (int64_t)w->time && I64(1) == (int64_t)w->order && I64(2) == (int64_t)w->size, "row %zu", at);
      cr_assert(U32(3) == w->stack && U32(4) == w->thread && U32(5) == w->process, "row %zu", at);
      cr_assert((!valid || arrow_bit(valid, i)) == w->is_freed, "row %zu", at);
      if (w->is_freed) cr_assert(I64(6) == (int64_t)(w->freed - w->time), "row %zu", at);
      cr_assert(((const uint8_t *)a.children[7]->buffers[1])[i] == w->domain, "row %zu", at);
      cr_assert(((const double *)a.children[8]->buffers[1])[i] == w->weight, "row %zu", at);
      cr_assert(arrow_bit(a.children[10]->buffers[1], i) == w->temporary && arrow_bit(a.children[11]->buffers[1], i) == w->live &&
                    arrow_bit(a.children[12]->buffers[1], i) == w->after,
                "row %zu", at);
    }
    a.release(&a);
  }
  cr_assert(stream.get_last_error(&stream) == NULL, "%s", stream.get_last_error(&stream));
  cr_assert(at == n_rows, "%zu rows of %zu", at, n_rows);
  stream.release(&stream);
}

static void compare_totals(void) {
  struct memlyze_read *r = open_trace();
  struct ArrowArrayStream stream;
  struct ArrowArray a;
  char err[256];
  static const int columns[] = {4, 5, 8, 9};
  double want[4] = {0}, got[4] = {0};
  for (size_t i = 0; i < n_rows; i++) {
    if (rows[i].after) continue;
    want[0] += rows[i].weight;
    want[1] += rows[i].weight * (double)rows[i].size;
    want[2] += rows[i].live ? rows[i].weight : 0;
    want[3] += rows[i].live ? rows[i].weight * (double)rows[i].size : 0;
  }
  cr_assert(memlyze_read_stream(r, MEMLYZE_TOTALS, &stream, err, sizeof err) == 0, "%s", err);
  while (stream.get_next(&stream, &a) == 0 && a.release) {
    for (int64_t i = 0; i < a.length; i++)
      for (int k = 0; k < 4; k++) got[k] += (double)I64(columns[k]);
    a.release(&a);
  }
  stream.release(&stream);
  memlyze_read_close(r);
  for (int k = 0; k < 4; k++)
    cr_assert(want[k] - got[k] < 100 && got[k] - want[k] < 100, "%d: %f, wanted %f", k, got[k], want[k]); /* rounded rows */
}

static void check(const char *scenario, uint64_t events) {
  int64_t found[MEMLYZE_TABLES];
  cr_assert(mlz_scenario_write(scenario, path, events));
  read_rows();
  compare_allocations();
  compare_totals();
  cr_assert(arrow_drain_all(path, found));
  for (int i = 0; i < MEMLYZE_TABLES; i++) cr_assert(found[i] >= 0, "table %d", i);
}

Test(arrow, processes) { check("processes", 0); }
Test(arrow, sampled) { check("sampled", 0); }
Test(arrow, lost) { check("lost", 0); }
Test(arrow, empty) { check("empty", 0); }
Test(arrow, marks) { check("marks", 0); }
Test(arrow, children) { check("children", 0); }
Test(arrow, histories) { check("histories", 20000); }

/* Frees in later chunks, of several processes, in the finalisation too: what the scenarios have little of. */
Test(arrow, golden) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  int fd = open(path, O_WRONLY | O_TRUNC);
  cr_assert(bytes && write(fd, bytes, n) == (ssize_t)n);
  close(fd);
  free(bytes);
  read_rows();
  compare_allocations();
  compare_totals();
}

Test(arrow, totals_only) {
  size_t n;
  int64_t found[MEMLYZE_TABLES];
  uint8_t *bytes = sample_totals(&n);
  int fd = open(path, O_WRONLY | O_TRUNC);
  cr_assert(bytes && write(fd, bytes, n) == (ssize_t)n);
  close(fd);
  free(bytes);
  cr_assert(arrow_drain_all(path, found));
  cr_assert(found[MEMLYZE_ALLOCATIONS] == -1);
  cr_assert(found[MEMLYZE_TOTALS] == 5, "%d rows", (int)found[MEMLYZE_TOTALS]); /* process 2 of the sample is in no table */
}

Test(arrow, damaged_places) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  int64_t found[MEMLYZE_TABLES];
  unsigned opened = 0;
  cr_assert(bytes != NULL);
  for (size_t i = 0; i < 300; i++) {
    size_t at = n * i / 300;
    int fd = open(path, O_WRONLY | O_TRUNC);
    bytes[at] ^= (uint8_t)(1u << (i % 8));
    cr_assert(write(fd, bytes, i % 3 ? n : n - at / 2) > 0);
    close(fd);
    opened += arrow_drain_all(path, found);
    bytes[at] ^= (uint8_t)(1u << (i % 8));
  }
  free(bytes);
  cr_assert(opened > 200, "%u of 300 could be opened", opened);
}

Test(arrow, what_is_no_trace) {
  struct memlyze_read *r;
  char err[256];
  cr_assert(memlyze_read_version() == MEMLYZE_READ_VERSION);
  cr_assert(memlyze_read_open(&r, "/nowhere/at/all", err, sizeof err) == ENOENT);
  cr_assert(memlyze_read_open(&r, "/tmp", err, sizeof err) == EINVAL);
  cr_assert(memlyze_read_open(&r, path, err, sizeof err) == EINVAL); /* empty */
  cr_assert(mlz_scenario_write("marks", path, 0));
  r = open_trace();
  struct ArrowArrayStream stream;
  struct ArrowSchema schema;
  cr_assert(memlyze_read_stream(r, MEMLYZE_TABLES, &stream, err, sizeof err) == EINVAL);
  cr_assert(memlyze_read_schema(-1, &schema) == EINVAL);
  memlyze_read_close(r);
}

/* The file is replaced while it is read: the trace that was opened is read on. */
Test(arrow, another_file_by_its_name) {
  cr_assert(mlz_scenario_write("marks", path, 0));
  struct memlyze_read *r = open_trace();
  unlink(path);
  cr_assert(mlz_scenario_write("lost", path, 0));
  cr_assert(arrow_drain(r, MEMLYZE_ALLOCATIONS) == 12);
  memlyze_read_close(r);
}
