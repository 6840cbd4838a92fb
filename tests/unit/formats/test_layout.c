#include "formats/events.h"
#include "formats/layout.h"

#include <criterion/criterion.h>

Test(layout, varints_of_every_length_come_back) {
  uint8_t bytes[MLZ_VARINT_MAX];
  for (unsigned bit = 0; bit < 64; bit++) {
    uint64_t values[] = {UINT64_C(1) << bit, (UINT64_C(1) << bit) - 1, ~UINT64_C(0) >> bit};
    for (size_t i = 0; i < 3; i++) {
      struct mlz_cursor c = {.p = bytes, .end = mlz_put_varint(bytes, values[i])};
      cr_assert_eq(mlz_get_varint(&c), values[i]);
      cr_assert(!c.bad && c.p == c.end);
    }
  }
}

Test(layout, a_cut_or_overlong_varint_is_bad) {
  uint8_t bytes[12];
  memset(bytes, 0xff, sizeof bytes);
  struct mlz_cursor c = {.p = bytes, .end = bytes + sizeof bytes};
  cr_assert_eq(mlz_get_varint(&c), 0);
  cr_assert(c.bad);
  cr_assert_eq(mlz_get_varint(&c), 0);
  c = (struct mlz_cursor){.p = bytes, .end = bytes + 3};
  cr_assert_eq(mlz_get_varint(&c), 0);
  cr_assert(c.bad);
  c = (struct mlz_cursor){.p = bytes, .end = bytes};
  cr_assert_eq(mlz_get_varint(&c), 0);
  cr_assert(c.bad);
}

Test(layout, zigzag_keeps_the_extremes) {
  int64_t values[] = {0, -1, 1, INT64_MIN, INT64_MAX, -123456789};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) cr_assert_eq((int64_t)mlz_unzigzag(mlz_zigzag(values[i])), values[i]);
  cr_assert_eq(mlz_zigzag(-1), 1);
  cr_assert_eq(mlz_zigzag(1), 2);
}

Test(layout, bytes_beyond_the_end_are_refused) {
  uint8_t bytes[4] = {1, 2, 3, 4};
  struct mlz_cursor c = {.p = bytes, .end = bytes + 4};
  cr_assert_eq(mlz_get_bytes(&c, 4), bytes);
  cr_assert_null(mlz_get_bytes(&c, UINT64_MAX));
  cr_assert(c.bad);
}

Test(layout, an_extent_comes_back_and_nonsense_does_not) {
  struct mlz_extent x = {
      .process = 7, .events = 100, .allocs = 60, .frees = 30, .first_alloc = 5000, .first_ns = 10, .last_ns = 99, .points = 2};
  x.point_alloc[1] = 60;
  x.point_ns[0] = 20;
  x.point_ns[1] = 99;
  uint8_t bytes[MLZ_EXTENT_MAX_BYTES];
  struct mlz_extent y;
  struct mlz_cursor c = {.p = bytes, .end = mlz_extent_put(bytes, &x)};
  cr_assert(mlz_extent_get(&c, &y));
  cr_assert_eq(c.p, c.end);
  cr_assert(y.process == 7 && y.events == 100 && y.allocs == 60 && y.frees == 30 && y.first_alloc == 5000 && y.last_ns == 99);
  cr_assert(y.points == 2 && y.point_alloc[1] == 60 && y.point_ns[1] == 99);
  x.frees = 41; /* more than the events leave room for */
  c = (struct mlz_cursor){.p = bytes, .end = mlz_extent_put(bytes, &x)};
  cr_assert(!mlz_extent_get(&c, &y));
  x.frees = 30;
  x.events = MLZ_CHUNK_EVENTS_MAX + 1;
  c = (struct mlz_cursor){.p = bytes, .end = mlz_extent_put(bytes, &x)};
  cr_assert(!mlz_extent_get(&c, &y));
}

Test(layout, the_checksum_covers_header_and_payload) {
  struct mlz_chunk_header h = {.magic = MLZ_CHUNK_MAGIC, .kind = 3, .stored = 5, .raw = 5, .count = 9};
  uint64_t sum = mlz_chunk_checksum(&h, "abcde");
  h.checksum = sum;
  cr_assert_eq(mlz_chunk_checksum(&h, "abcde"), sum);
  cr_assert_neq(mlz_chunk_checksum(&h, "abcdf"), sum);
  h.count = 8;
  cr_assert_neq(mlz_chunk_checksum(&h, "abcde"), sum);
}
