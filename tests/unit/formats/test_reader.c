/* Opening: what is no trace, what is none any more, what is one from the future; and what a trace answers without decoding. */
#include "formats/layout.h"
#include "formats/reader.h"
#include "formats/trace.h"
#include "tests/golden/dump_trace.h"
#include "tests/golden/sample.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char err[256];
static struct mlz_trace *t;

static int open_bytes(const void *bytes, size_t n) {
  err[0] = 0;
  return mlz_trace_open_memory(&t, bytes, n, err, sizeof err);
}

static void refused(const void *bytes, size_t n, const char *word) {
  cr_assert_eq(open_bytes(bytes, n), -EINVAL);
  cr_assert_not_null(strstr(err, word), "%s", err);
  cr_assert_null(strchr(err, '\n'));
}

Test(reader, what_is_not_a_trace_says_why) {
  refused("", 0, "empty");
  refused("#!/bin/sh\n", 10, "not a .mlyze file");
  refused("M", 1, "cut inside its header");
  refused("MX", 2, "not a .mlyze file");
  refused("MLYZE\n\x1a and a text-mode transfer damaged this one here, 64 bytes", 64, "not a .mlyze file");
  char junk[200] = "MLYZE\r\n\x1a";
  refused(junk, sizeof junk, "damaged from its start");
}

Test(reader, what_is_not_a_file_says_why) {
  char dir[] = "/tmp/mlz_reader.XXXXXX", fifo[64];
  cr_assert_not_null(mkdtemp(dir));
  snprintf(fifo, sizeof fifo, "%s/fifo", dir);
  cr_assert_eq(mkfifo(fifo, 0600), 0);
  cr_assert_eq(mlz_trace_open(&t, dir, err, sizeof err), -EINVAL);
  cr_assert_not_null(strstr(err, "directory"));
  cr_assert_eq(mlz_trace_open(&t, fifo, err, sizeof err), -EINVAL);
  cr_assert_not_null(strstr(err, "pipe"));
  cr_assert_eq(mlz_trace_open(&t, "/dev/null", err, sizeof err), -EINVAL);
  unlink(fifo);
  cr_assert_eq(mlz_trace_open(&t, fifo, err, sizeof err), -ENOENT);
  cr_assert_not_null(strstr(err, "no such file"));
  rmdir(dir);
}

static void set_header(uint8_t *bytes, unsigned version, unsigned oldest, uint64_t features) {
  struct mlz_file_header h;
  memcpy(&h, bytes, sizeof h);
  h.version = (uint16_t)version;
  h.oldest_reader = (uint16_t)oldest;
  h.features = features;
  h.checksum = mlz_header_checksum(&h, sizeof h);
  memcpy(bytes, &h, sizeof h);
}

Test(reader, a_newer_format_is_refused_only_if_it_must_be) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  set_header(bytes, 2, 1, UINT64_C(1) << 40);
  cr_assert_eq(open_bytes(bytes, n), 0);
  mlz_trace_close(t);
  set_header(bytes, 2, 2, 0);
  refused(bytes, n, "newer");
  set_header(bytes, 1, 1, 4);
  refused(bytes, n, "newer");
  free(bytes);
}

Test(reader, index_and_walk_give_the_same) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  cr_assert_eq(open_bytes(bytes, n), 0);
  cr_assert(mlz_trace_complete(t));
  char *listed = dump_trace_text(t);
  mlz_trace_close(t);
  cr_assert_eq(open_bytes(bytes, n - 32), 0); /* no END */
  cr_assert(mlz_trace_damage(t)->cut && mlz_trace_damage(t)->bytes_bad == 0);
  char *walked = dump_trace_text(t);
  mlz_trace_close(t);
  cr_assert_eq(strlen(listed), strlen(walked));
  cr_assert_eq(memcmp(listed, walked, strlen(listed) - 2), 0); /* all but the last digit: cut */
  free(listed);
  free(walked);
  free(bytes);
}

Test(reader, chunks_of_an_unknown_kind_are_no_damage) {
  size_t n, at = sizeof(struct mlz_file_header);
  uint8_t *bytes = sample_bytes(1, &n), *more = malloc(n + 100);
  at += sample_chunk_size(bytes + at);
  memcpy(more, bytes, at);
  size_t grown = sample_chunk(more + at, 999, 3, "news", 4);
  memcpy(more + at + grown, bytes + at, n - at);
  cr_assert_eq(open_bytes(more, n + grown - 32), 0);
  cr_assert_eq(mlz_trace_damage(t)->chunks_unknown, 1);
  cr_assert_eq(mlz_trace_damage(t)->chunks_bad, 0);
  mlz_trace_close(t);
  free(bytes);
  free(more);
}

Test(reader, what_follows_the_end_is_not_read) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n), *twice = malloc(2 * n);
  struct mlz_block b;
  memcpy(twice, bytes, n);
  memcpy(twice + n, bytes, n);
  twice[2 * n - 20] ^= 1; /* else the second index would be tried */
  cr_assert_eq(open_bytes(twice, 2 * n), 0);
  int chunks = 0;
  while (mlz_trace_next(t, 0, &b) == 1) chunks++;
  cr_assert_eq(chunks, 3);
  cr_assert_eq(mlz_trace_damage(t)->bytes_bad, n);
  cr_assert(!mlz_trace_complete(t));
  mlz_trace_close(t);
  free(bytes);
  free(twice);
}

Test(reader, a_killed_recorders_last_group_is_the_summary) {
  size_t n;
  uint8_t *bytes = sample_bytes(0, &n);
  cr_assert_eq(open_bytes(bytes, n), 0);
  const json_t *s = mlz_trace_summary(t);
  cr_assert(json_is_false(json_object_get(s, "complete")));
  cr_assert_eq(json_integer_value(json_object_get(s, "duration_ns")), 7100);
  cr_assert(mlz_trace_damage(t)->cut && !mlz_trace_complete(t));
  mlz_trace_close(t);
  free(bytes);
}

Test(reader, groups_processes_and_a_second_pass) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  struct mlz_block b;
  cr_assert_eq(open_bytes(bytes, n), 0);
  for (int pass = 0; pass < 2; pass++) {
    static const uint32_t process[] = {1, 1, 2}, group[] = {0, 1, 1};
    int i = 0;
    for (; mlz_trace_next(t, 0, &b) == 1; i++) {
      cr_assert(i < 3 && b.process == process[i] && b.group == group[i]);
      cr_assert(b.alloc_no == NULL && b.time_ns == NULL && b.thread == NULL);
    }
    cr_assert_eq(i, 3);
    mlz_trace_rewind(t);
  }
  cr_assert_eq(mlz_trace_processes(t), 2);
  cr_assert_str_eq(json_string_value(json_object_get(mlz_trace_process(t, 0), "end")), "exit");
  mlz_trace_close(t);
  free(bytes);
}

Test(reader, the_time_of_an_allocation) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  uint64_t ns;
  cr_assert_eq(open_bytes(bytes, n), 0);
  cr_assert(mlz_trace_alloc_time(t, 1, 0, &ns) && ns == 100);
  cr_assert(mlz_trace_alloc_time(t, 1, 2, &ns) && ns == 1500);
  cr_assert(mlz_trace_alloc_time(t, 1, 3, &ns) && ns == 1500);
  cr_assert(mlz_trace_alloc_time(t, 1, 4, &ns) && ns == 2000);
  cr_assert(mlz_trace_alloc_time(t, 1, 303, &ns) && ns == 6000);
  cr_assert(mlz_trace_alloc_time(t, 2, 39, &ns) && ns == 6500);
  cr_assert(!mlz_trace_alloc_time(t, 2, 40, &ns));
  cr_assert(!mlz_trace_alloc_time(t, 1, 304, &ns));
  cr_assert(!mlz_trace_alloc_time(t, 3, 0, &ns));
  mlz_trace_close(t);
  free(bytes);
}

Test(reader, a_process_whose_object_was_lost_is_still_there) {
  size_t n, at = sizeof(struct mlz_file_header);
  uint8_t *bytes = sample_bytes(1, &n);
  for (; at < n - 32; at += sample_chunk_size(bytes + at))
    if (sample_chunk_kind(bytes + at) == MLZ_C_PROCESS || sample_chunk_kind(bytes + at) == MLZ_C_THREAD) bytes[at + 35] ^= 1;
  struct mlz_block b;
  cr_assert_eq(open_bytes(bytes, n), 0);
  cr_assert_eq(mlz_trace_processes(t), 2);
  cr_assert(json_is_true(json_object_get(mlz_trace_process(t, 1), "lost")));
  cr_assert_eq(mlz_trace_threads(t), 0);
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_THREAD, &b), 1);
  for (uint32_t i = 0; i < b.n; i++) cr_assert_eq(b.thread[i], 0);
  mlz_trace_close(t);
  free(bytes);
}

Test(reader, a_file_cut_while_it_is_read_is_damaged_and_nothing_worse) {
  size_t n;
  uint8_t *bytes = sample_bytes(1, &n);
  char path[] = "/tmp/mlz_reader.XXXXXX";
  struct mlz_block b;
  int fd = mkstemp(path);
  cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
  cr_assert_eq(mlz_trace_open(&t, path, err, sizeof err), 0);
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert_eq(ftruncate(fd, 1500), 0);
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 0);
  cr_assert_eq(mlz_trace_damage(t)->chunks_bad, 2);
  cr_assert_eq(mlz_trace_damage(t)->events_bad, 48);
  mlz_trace_close(t);
  close(fd);
  unlink(path);
  free(bytes);
}
