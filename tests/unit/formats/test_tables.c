/* Rows written and read back; what a lost table chunk leaves behind. */
#include "formats/layout.h"
#include "formats/reader.h"
#include "formats/tables.h"
#include "formats/trace.h"
#include "tests/golden/sample.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char err[256];

static struct mlz_writer *writer(int *keep) {
  struct mlz_writer *w;
  int fd = memfd_create("trace", MFD_CLOEXEC);
  *keep = dup(fd);
  json_t *meta = json_object();
  cr_assert_eq(mlz_writer_new(&w, fd, meta, 0), 0);
  json_decref(meta);
  return w;
}

static struct mlz_trace *read_back(struct mlz_writer *w, int keep) {
  char path[64];
  struct mlz_trace *t;
  json_t *summary = json_pack("{s:b}", "complete", 1);
  cr_assert_eq(mlz_writer_finish(w, summary), 0);
  json_decref(summary);
  mlz_writer_free(w);
  snprintf(path, sizeof path, "/proc/self/fd/%d", keep);
  cr_assert_eq(mlz_trace_open(&t, path, err, sizeof err), 0, "%s", err);
  close(keep);
  cr_assert(mlz_trace_complete(t));
  return t;
}

Test(tables, strings_of_all_kinds) {
  int keep;
  struct mlz_writer *w = writer(&keep);
  char *large = malloc(3 << 20);
  memset(large, 'x', 3 << 20);
  memcpy(large + MLZ_STRING_MAX - 1, "\xc3\xa4", 2); /* the limit falls into a character */
  cr_assert_eq(mlz_writer_string(w, "", 0), 1);
  cr_assert_eq(mlz_writer_string(w, "a\0b", 3), 2);
  cr_assert_eq(mlz_writer_string(w, "\xc3\xa4\xff|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82", 15), 3);
  cr_assert_eq(mlz_writer_string(w, "\xe2\x82\xac \xf0\x9f\x90\x8d", 8), 4);
  cr_assert_eq(mlz_writer_string(w, large, 3 << 20), 5);
  for (int i = 0; i < 10; i++) mlz_writer_string(w, large, MLZ_STRING_MAX - 1); /* more than one chunk */
  struct mlz_trace *t = read_back(w, keep);
  cr_assert_eq(mlz_trace_strings(t), 17u);
  cr_assert_str_eq(mlz_trace_string(t, 0), "");
  cr_assert_str_eq(mlz_trace_string(t, 1), "");
  cr_assert_str_eq(mlz_trace_string(t, 2), "a");
  cr_assert_str_eq(mlz_trace_string(t, 3), "\xc3\xa4?|???|????|??");
  cr_assert_str_eq(mlz_trace_string(t, 4), "\xe2\x82\xac \xf0\x9f\x90\x8d");
  cr_assert_eq(strlen(mlz_trace_string(t, 5)), (size_t)MLZ_STRING_MAX - 1);
  cr_assert_eq(strlen(mlz_trace_string(t, 15)), (size_t)MLZ_STRING_MAX - 1);
  cr_assert_str_eq(mlz_trace_string(t, 16), "<lost>");
  cr_assert_str_eq(mlz_trace_string(t, UINT32_MAX), "<lost>");
  mlz_trace_close(t);
  free(large);
}

Test(tables, many_rows_in_many_flushes) {
  int keep;
  struct mlz_writer *w = writer(&keep);
  uint32_t frames[64], rows = 600000;
  for (uint32_t i = 1; i <= rows; i++) {
    struct mlz_frame f = {i % 3, 0, 0, i * 7919u, i % 2};
    cr_assert_eq(mlz_writer_frame(w, &f), i);
    for (uint32_t k = 0; k < 64; k++) frames[k] = 1 + (i * 31 + k * k) % rows;
    cr_assert_eq(mlz_writer_stack(w, frames, i % 65, i % 5 == 0), i);
    if (i == 1000) {
      struct mlz_bytes b;
      cr_assert_eq(mlz_writer_take_tables(w, &b), 0);
      cr_assert_eq(mlz_writer_append_tables(w, &b), 0);
      free(b.data);
    }
  }
  mlz_writer_string(w, "one", 3);
  mlz_writer_string(w, "two", 3);
  struct mlz_trace *t = read_back(w, keep);
  cr_assert_eq(mlz_trace_frames(t), rows + 2);
  cr_assert_eq(mlz_trace_stacks(t), rows + 2);
  for (uint32_t i = 1; i <= rows; i++) {
    struct mlz_frame f = mlz_trace_frame(t, i);
    uint32_t n;
    bool truncated;
    const uint32_t *s = mlz_trace_stack(t, i, &n, &truncated);
    cr_assert(f.function == i % 3 && f.line == i * 7919u && f.language == i % 2);
    cr_assert(n == i % 65 && truncated == (i % 5 == 0));
    for (uint32_t k = 0; k < n; k++) cr_assert_eq(s[k], 1 + (i * 31 + k * k) % rows);
  }
  mlz_trace_close(t);
}

Test(tables, a_stack_beyond_the_limit_is_cut_outside_and_says_so) {
  int keep;
  struct mlz_writer *w = writer(&keep);
  uint32_t frames[MLZ_STACK_MAX + 10], n;
  bool truncated;
  struct mlz_frame f = {0};
  for (uint32_t i = 0; i < MLZ_STACK_MAX + 10; i++) frames[i] = mlz_writer_frame(w, &f);
  mlz_writer_stack(w, frames, MLZ_STACK_MAX + 10, false);
  struct mlz_trace *t = read_back(w, keep);
  const uint32_t *s = mlz_trace_stack(t, 1, &n, &truncated);
  cr_assert(n == MLZ_STACK_MAX && truncated && s[0] == 1 && s[n - 1] == MLZ_STACK_MAX);
  mlz_trace_close(t);
}

Test(tables, rows_that_are_not_there_read_as_lost) {
  int keep;
  struct mlz_writer *w = writer(&keep);
  uint32_t frames[] = {1, 99}, n;
  mlz_writer_frame(w, &(struct mlz_frame){77, 0, 0, 3, 0});
  mlz_writer_stack(w, frames, 2, false);
  struct mlz_trace *t = read_back(w, keep);
  cr_assert_str_eq(mlz_trace_string(t, mlz_trace_frame(t, 1).function), "<lost>");
  const uint32_t *s = mlz_trace_stack(t, 1, &n, NULL);
  cr_assert(n == 2 && s[0] == 1 && s[1] == mlz_trace_frames(t) - 1);
  cr_assert_str_eq(mlz_trace_string(t, mlz_trace_frame(t, s[1]).function), "<lost>");
  s = mlz_trace_stack(t, 4000000000u, &n, NULL);
  cr_assert(n == 1 && s[0] == mlz_trace_frames(t) - 1);
  mlz_trace_close(t);
}

Test(tables, a_lost_chunk_leaves_a_hole_and_shifts_nothing) {
  size_t n, at = sizeof(struct mlz_file_header);
  uint8_t *bytes = sample_bytes(1, &n);
  for (unsigned kind = MLZ_C_STRINGS; kind <= MLZ_C_STACKS; kind++) {
    while (sample_chunk_kind(bytes + at) != kind) at += sample_chunk_size(bytes + at);
    bytes[at + 33] ^= 0x10; /* the first chunk of each table */
  }
  struct mlz_trace *t;
  uint32_t depth;
  for (int with_index = 1; with_index >= 0; with_index--) {
    cr_assert_eq(mlz_trace_open_memory(&t, bytes, with_index ? n : n - 1, err, sizeof err), 0);
    cr_assert_eq(mlz_trace_damage(t)->chunks_bad, with_index ? 3 : 1); /* neighbours: one gap */
    cr_assert(!mlz_trace_complete(t));
    cr_assert_str_eq(mlz_trace_string(t, 1), "<lost>");
    cr_assert_str_eq(mlz_trace_string(t, 9), "later");
    cr_assert_str_eq(mlz_trace_string(t, mlz_trace_frame(t, 1).function), "<lost>");
    cr_assert_str_eq(mlz_trace_string(t, mlz_trace_frame(t, 4).function), "later");
    cr_assert_eq(mlz_trace_stack(t, 1, &depth, NULL)[0], mlz_trace_frames(t) - 1);
    cr_assert_eq(mlz_trace_stack(t, 5, &depth, NULL)[0], 4);
    cr_assert_eq(depth, 2);
    mlz_trace_close(t);
  }
  free(bytes);
}

Test(tables, a_hole_larger_than_the_damage_is_refused) {
  size_t n, at = sizeof(struct mlz_file_header);
  uint8_t *bytes = sample_bytes(1, &n), *forged = malloc(n + 64), row[16];
  at += sample_chunk_size(bytes + at);
  memcpy(forged, bytes, at);
  uint8_t *end = mlz_put_varint(row, 4000000000u);
  *end++ = 1;
  *end++ = 'x';
  at += sample_chunk(forged + at, MLZ_C_STRINGS, 1, row, (uint32_t)(end - row));
  struct mlz_trace *t;
  cr_assert_eq(mlz_trace_open_memory(&t, forged, at, err, sizeof err), 0);
  cr_assert_eq(mlz_trace_strings(t), 2u);
  cr_assert_eq(mlz_trace_damage(t)->chunks_bad, 1);
  mlz_trace_close(t);
  free(bytes);
  free(forged);
}

Test(tables, a_later_object_replaces_the_earlier) {
  int keep;
  struct mlz_writer *w = writer(&keep);
  for (int round = 0; round < 2; round++)
    for (int id = 50; id > 0; id--) mlz_writer_thread(w, json_pack("{s:i,s:i}", "id", id, "round", round));
  struct mlz_trace *t = read_back(w, keep);
  cr_assert_eq(mlz_trace_threads(t), 50);
  for (int i = 0; i < 50; i++) {
    cr_assert_eq(json_integer_value(json_object_get(mlz_trace_thread(t, (size_t)i), "id")), i + 1);
    cr_assert_eq(json_integer_value(json_object_get(mlz_trace_thread(t, (size_t)i), "round")), 1);
  }
  cr_assert_null(mlz_trace_thread(t, 50));
  mlz_trace_close(t);
}
