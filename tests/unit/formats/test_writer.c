/* What the writer does when the file system does not do what it is asked. */
#include "formats/layout.h"
#include "formats/reader.h"
#include "formats/writer.h"
#include "tests/golden/sample.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

Test(writer, a_full_disk_at_once_is_told) {
  struct mlz_writer *w = NULL;
  json_t *meta = json_object();
  int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
  cr_assert_geq(fd, 0);
  cr_assert_eq(mlz_writer_new(&w, fd, meta, 0), -ENOSPC);
  cr_assert_null(w);
  cr_assert_eq(close(fd), 0); /* it stayed ours */
  json_decref(meta);
}

/* The file may grow to `limit` bytes: what is there afterwards must be whole chunks. */
static void limited(size_t limit) {
  char path[] = "/tmp/mlz_writer.XXXXXX", err[256];
  int fd = mkstemp(path), keep = dup(fd);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, RLIM_INFINITY});
  int rc = sample_write(fd, 1);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
  cr_assert_eq(rc, -EFBIG);
  off_t size = lseek(keep, 0, SEEK_END);
  cr_assert_leq((size_t)size, limit);
  struct mlz_trace *t;
  struct mlz_block b;
  if (mlz_trace_open(&t, path, err, sizeof err) == 0) {
    while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) cr_assert_gt(b.n, 0u);
    const struct mlz_damage *d = mlz_trace_damage(t);
    cr_assert(d->cut && d->chunks_bad == 0 && d->bytes_bad == 0, "limit %zu: %lu bytes bad", limit, d->bytes_bad);
    mlz_trace_close(t);
  } else {
    cr_assert_lt((size_t)size, sizeof(struct mlz_file_header));
  }
  close(keep);
  unlink(path);
}

Test(writer, a_disk_that_fills_leaves_whole_chunks) {
  size_t n;
  free(sample_bytes(1, &n));
  for (size_t limit = 10; limit + 60 < n; limit += 37) /* the last bytes differ from run to run: uuid, time */
    limited(limit);
}

Test(writer, after_an_error_nothing_more_is_written) {
  struct mlz_writer *w;
  json_t *o = json_object();
  char path[] = "/tmp/mlz_writer.XXXXXX";
  int fd = mkstemp(path), keep = dup(fd);
  cr_assert_eq(mlz_writer_new(&w, fd, o, 0), 0);
  uint64_t before = mlz_writer_bytes(w);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){before + 10, RLIM_INFINITY});
  cr_assert_eq(mlz_writer_append_group(w, 1, o), -EFBIG);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
  cr_assert_eq(mlz_writer_append_group(w, 2, o), -EFBIG);
  cr_assert_eq(mlz_writer_finish(w, o), -EFBIG);
  cr_assert_eq((uint64_t)lseek(keep, 0, SEEK_END), before);
  cr_assert_eq(mlz_writer_bytes(w), before);
  mlz_writer_free(w);
  json_decref(o);
  close(keep);
  unlink(path);
}

Test(writer, bytes_are_those_of_the_file) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  cr_assert_not_null(bytes);
  cr_assert_eq(memcmp(bytes, "MLYZE\r\n\x1a", 8), 0);
  cr_assert_eq(sample_chunk_kind(bytes + n - 32), MLZ_C_END);
  free(bytes);
}

Test(writer, an_empty_builder_writes_nothing) {
  struct mlz_writer *w;
  json_t *o = json_object();
  cr_assert_eq(mlz_writer_new(&w, memfd_create("t", MFD_CLOEXEC), o, 0), 0);
  struct mlz_builder *b = mlz_builder_new();
  uint64_t before = mlz_writer_bytes(w);
  cr_assert_eq(mlz_writer_append_events(w, b), 0);
  struct mlz_bytes rows;
  cr_assert_eq(mlz_writer_take_tables(w, &rows), 0);
  cr_assert_eq(rows.size, 0);
  cr_assert_eq(mlz_writer_append_tables(w, &rows), 0);
  free(rows.data);
  cr_assert_eq(mlz_writer_bytes(w), before);
  mlz_builder_free(b);
  mlz_writer_free(w);
  json_decref(o);
}
