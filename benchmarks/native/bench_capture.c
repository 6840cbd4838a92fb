/* bench_capture: nanoseconds of a capture of a native stack, and of a frame of it, beside libunwind's unw_backtrace and the C library's backtrace().
 *
 * Three programs in one, each with stacks of 8, 16 and 32 frames without frame pointers:
 *   known     the same stacks again and again, 64 places: the memo
 *   turned    the innermost quarter moves with each capture: the shadow stack verifies the rest
 *   moved     the whole stack moves with each capture, as if nothing were remembered: every frame is walked and looked up in the trie
 * Time by the processor's counter around each capture, less what reading it costs; the least of seven rounds, in turn. */
#include "tests/unit/agent/native_ring.h"

#include <alloca.h>
#include <execinfo.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>
#ifdef WITH_LIBUNWIND
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#endif

#define APART __attribute__((noinline, noclone))
#define FRAMES 32u
#define ROUNDS 7u

enum way { NOTHING, CAPTURE, LIBUNWIND, BACKTRACE, WAYS };
static const char *const way_names[WAYS] = {"nothing", "memlyze", "unw_backtrace", "backtrace()"};

static enum way way;
static uint64_t ticks;
static struct native_ring *ring;
static unsigned depth_of_turn;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static void use(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

static APART void leaf(void) {
  void *frames[FRAMES];
  uint64_t begin = __rdtsc();
  switch (way) {
  case CAPTURE:
    mlz_native_capture(&mlz_tls, MLZ_NATIVE_FRAME(), NULL);
    break;
#ifdef WITH_LIBUNWIND
  case LIBUNWIND:
    unw_backtrace(frames, FRAMES);
    break;
#endif
  case BACKTRACE:
    backtrace(frames, FRAMES);
    break;
  default:
    break;
  }
  ticks += __rdtsc() - begin;
  use(frames);
}

/* 64 places to be called from, at every depth. */
#define PLACE(n)                                                                                                                           \
  case n:                                                                                                                                  \
    leaf();                                                                                                                                \
    __asm__ volatile("nop");                                                                                                               \
    break;
#define PLACES(n) PLACE(n) PLACE(n + 1) PLACE(n + 2) PLACE(n + 3) PLACE(n + 4) PLACE(n + 5) PLACE(n + 6) PLACE(n + 7)
static APART void place(unsigned n) {
  switch (n) { PLACES(0) PLACES(8) PLACES(16) PLACES(24) PLACES(32) PLACES(40) PLACES(48) PLACES(56) }
}

static APART void go(unsigned depth, unsigned n);
static APART void wide(unsigned depth, unsigned n) {
  char room[100];
  use(room);
  go(depth, n);
  use(room);
}
static APART void go(unsigned depth, unsigned n) {
  char room[40];
  use(room);
  if (depth == depth_of_turn) {
    char *moved = alloca(16 * (1 + n % 4093));
    use(moved);
    if (depth == 0)
      place(n % 64);
    else
      (depth % 2 ? go : wide)(depth - 1, n);
    use(moved);
  } else if (depth == 0) {
    place(n % 64);
  } else {
    (depth % 2 ? go : wide)(depth - 1, n);
  }
  use(room);
}

/* From the outermost frame of the benchmark each time. */
static uint64_t round_of(unsigned depth, enum way w, uint64_t captures) {
  way = w;
  for (unsigned n = 0; n < 4096; n++) { /* warm */
    go(depth, n);
    if (n % 64 == 0) native_ring_read(ring);
  }
  native_ring_read(ring);
  ticks = 0;
  for (uint64_t left = captures; left; left -= 1024) {
    for (unsigned n = 0; n < 1024; n++) go(depth, (unsigned)left + n);
    native_ring_read(ring);
  }
  return ticks;
}

/* Ticks in a nanosecond. */
static double tick_rate(void) {
  uint64_t begin = now(), first = __rdtsc();
  while (now() - begin < 50000000) {}
  return (double)(__rdtsc() - first) / (double)(now() - begin);
}

int main(void) {
  static const struct {
    const char *name;
    unsigned turn; /* where the stack moves, in quarters of its depth; 9: nowhere */
  } programs[] = {{"known", 9}, {"turned", 1}, {"moved", 4}};
  const uint64_t captures = 1 << 16;
  const double rate = tick_rate();
  mlz_native_start();
  ring = native_ring_open(FRAMES);
  printf("| stack | frames | %s | %s | %s | memlyze, a frame |\n|---|---|---|---|---|---|\n", way_names[1], way_names[2], way_names[3]);
  for (unsigned p = 0; p < 3; p++) {
    for (unsigned frames = 8; frames <= FRAMES; frames *= 2) {
      unsigned depth = frames - 7; /* main and what is under it, go(0), place */
      uint64_t least[WAYS];
      depth_of_turn = programs[p].turn == 9 ? UINT32_MAX : depth * programs[p].turn / 4;
      for (enum way w = NOTHING; w < WAYS; w++) least[w] = UINT64_MAX;
      for (unsigned r = 0; r < ROUNDS; r++) {
        for (enum way w = NOTHING; w < WAYS; w++) {
          uint64_t some = w == BACKTRACE ? captures / 16 : captures, spent = round_of(depth, w, some) * (captures / some);
          if (spent < least[w]) least[w] = spent;
        }
      }
      double ns[WAYS];
      for (enum way w = CAPTURE; w < WAYS; w++) ns[w] = ((double)least[w] - (double)least[NOTHING]) / (double)captures / rate;
      printf("| %s | %u | %.0f | %.0f | %.0f | %.1f |\n", programs[p].name, frames, ns[CAPTURE], ns[LIBUNWIND], ns[BACKTRACE],
             ns[CAPTURE] / frames);
      fflush(stdout);
    }
  }
  if (ring->wrong) printf("wrong: %s\n", ring->wrong);
  return ring->wrong != NULL;
}
