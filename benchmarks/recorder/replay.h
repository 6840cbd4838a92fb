/* Replays a file of capture_rings through the drain. Benchmarks only. */
#ifndef MLZ_BENCH_REPLAY_H
#define MLZ_BENCH_REPLAY_H

#include "tracer/recorder/drain.h"

/* One run; prints a line. `write`: with builders and the writer thread. `room`: words of a ring that a round holds at least.
 * Returns 0, or 2 with a line on stderr. */
int replay_file(const char *path, bool write, uint32_t room);

/* What both kinds of run share. */
struct bench {
  struct mlz_arena *arena;
  struct mlz_writer *writer;
  struct mlz_emit *emit;
  struct mlz_drain drain;
};
uint64_t bench_now(int clock);
int bench_begin(struct bench *b, uint32_t words, uint64_t settings, bool write);
/* Ends it and prints the line: nanoseconds of the drain thread, and of the process less `filling`. */
void bench_end(struct bench *b, const char *name, uint64_t events, uint64_t taken_ns, uint64_t started_ns, uint64_t filling_ns);

#endif
