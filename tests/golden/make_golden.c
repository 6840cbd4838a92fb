/* Makes the golden traces: make_golden DIR. The committed ones were made by it once; run.py makes fresh ones as well. */
#include "sample.h"

#include "formats/layout.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *dir;

static void save(const char *name, const uint8_t *bytes, size_t n) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.mlyze", dir, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || close(fd) != 0) {
    perror(path);
    exit(2);
  }
}

/* Offset of the first chunk of a kind, from `from` on. */
static size_t find(const uint8_t *bytes, size_t n, size_t from, unsigned kind) {
  size_t at = from;
  while (at < n && sample_chunk_kind(bytes + at) != kind) at += sample_chunk_size(bytes + at);
  return at;
}

int main(int argc, char **argv) {
  size_t n, open_n, first = sizeof(struct mlz_file_header);
  if (argc != 2) {
    fprintf(stderr, "usage: make_golden DIR\n");
    return 2;
  }
  dir = argv[1];
  uint8_t *whole = sample_bytes(1, &n), *open_ended = sample_bytes(0, &open_n), *copy = malloc(2 * n + 4096);
  if (whole == NULL || open_ended == NULL || copy == NULL) return 2;
  save("complete", whole, n);

  /* Killed while it wrote the second EVENTS chunk. */
  size_t events = find(open_ended, open_n, first, MLZ_C_EVENTS);
  events = find(open_ended, open_n, events + sample_chunk_size(open_ended + events), MLZ_C_EVENTS);
  save("cut", open_ended, events + 50);

  /* The first STRINGS chunk lost one byte's worth of truth: with the index, and without it. */
  size_t strings = find(whole, n, first, MLZ_C_STRINGS);
  memcpy(copy, whole, n);
  copy[strings + 40] ^= 1;
  save("hole", copy, n);
  save("hole-cut", copy, n - 32);

  /* A chunk of a kind that nobody knows yet, and a file that lost its end. */
  static const char payload[] = "from a later version";
  memcpy(copy, whole, strings);
  size_t at = strings + sample_chunk(copy + strings, 4242, 7, payload, sizeof payload);
  memcpy(copy + at, whole + strings, n - strings);
  at += n - strings;
  save("unknown", copy, at - 32);

  /* Totals beside events; in the place of the first of them; and with that lost. */
  size_t points_n;
  uint8_t *points = sample_points(&points_n);
  if (points == NULL) return 2;
  save("points", points, points_n);
  free(points);
  points = sample_left_out(&points_n);
  if (points == NULL) return 2;
  save("left-out", points, points_n);
  points[find(points, points_n, first, MLZ_C_TOTALS) + 40] ^= 1;
  save("left-out-hole", points, points_n);
  free(points);

  /* Totals instead of events; and the same with a point lost. */
  size_t totals_n;
  uint8_t *totals = sample_totals(&totals_n);
  if (totals == NULL) return 2;
  save("totals", totals, totals_n);
  size_t lost = find(totals, totals_n, first, MLZ_C_TOTALS);
  lost = find(totals, totals_n, lost + sample_chunk_size(totals + lost), MLZ_C_TOTALS);
  totals[lost + 40] ^= 1;
  save("totals-hole", totals, totals_n);
  free(totals);

  /* Native frames; the same without the list of files, and without the names. */
  size_t native_n;
  uint8_t *native = sample_native(&native_n);
  if (native == NULL) return 2;
  save("native", native, native_n);
  size_t modules = find(native, native_n, first, MLZ_C_MODULES), symbols = find(native, native_n, first, MLZ_C_SYMBOLS);
  native[modules + 34] ^= 1;
  save("native-hole", native, native_n);
  native[modules + 34] ^= 1;
  native[symbols + 34] ^= 1;
  save("native-unnamed", native, native_n);
  free(native);
  free(whole);
  free(open_ended);
  free(copy);
  return 0;
}
