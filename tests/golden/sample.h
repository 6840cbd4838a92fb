/* A small trace with one of everything, written by the real writer: the golden files and the unit tests begin with it. */
#ifndef MLZ_TESTS_SAMPLE_H
#define MLZ_TESTS_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

/* Two processes, three groups, each op, table chunks in between. finish: with SUMMARY, INDEX, END. 0 or negative errno. */
int sample_write(int fd, int finish);
uint8_t *sample_bytes(int finish, size_t *n); /* the same in memory, malloc'ed; NULL: it failed */

/* A trace of totals: points of two processes, at two weights. malloc'ed. */
uint8_t *sample_totals(size_t *n);

/* Native frames: resolved, inlined, hidden, inferred, unresolved, without a module; stacks through all of them. malloc'ed. */
uint8_t *sample_native(size_t *n);
/* The sample with points beside its events; and its second half, with points for the first one. */
uint8_t *sample_points(size_t *n);
uint8_t *sample_left_out(size_t *n);

/* A chunk appended or inserted by hand. Returns its size; `out` must have room for 32 bytes and the payload. */
size_t sample_chunk(uint8_t *out, unsigned kind, uint64_t count, const void *payload, uint32_t n);
size_t sample_chunk_size(const uint8_t *chunk); /* of the chunk that begins there */
unsigned sample_chunk_kind(const uint8_t *chunk);

#endif
