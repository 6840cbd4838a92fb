/* Puts the checksums of a fuzzed trace right, so that the fuzzer gets past them. */
#ifndef MLZ_TESTS_FUZZ_MEND_H
#define MLZ_TESTS_FUZZ_MEND_H

#include "formats/layout.h"

#include <stdlib.h>
#include <string.h>

static inline void fuzz_mend(uint8_t *p, size_t n) {
  struct mlz_file_header f;
  struct mlz_chunk_header h;
  size_t at = sizeof f;
  if (n < sizeof f) return;
  memcpy(&f, p, sizeof f);
  f.header_bytes = sizeof f;
  memcpy(p, &f, sizeof f);
  f.checksum = mlz_header_checksum(p, sizeof f);
  memcpy(p, &f, sizeof f);
  while (n - at >= sizeof h) {
    memcpy(&h, p + at, sizeof h);
    if (h.magic != MLZ_CHUNK_MAGIC || h.stored > n - at - sizeof h) return;
    h.checksum = mlz_chunk_checksum(&h, p + at + sizeof h);
    memcpy(p + at, &h, sizeof h);
    at += sizeof h + h.stored;
  }
}

/* The input as it is, and once more with its checksums right. */
static inline void fuzz_both(const uint8_t *data, size_t n, void (*read)(const uint8_t *data, size_t n)) {
  read(data, n);
  uint8_t *copy = malloc(n + 1);
  if (copy != NULL) {
    memcpy(copy, data, n);
    fuzz_mend(copy, n);
    read(copy, n);
  }
  free(copy);
}

#endif
