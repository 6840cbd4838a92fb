/* Bursts of allocations and frees for hot_path.py, which loads this with ctypes.PyDLL: the GIL is held, the Python stack stands still. Calls what it is
 * given (PyObject_Malloc, PyObject_Free, or the C library's), so it links nothing of Python.
 *
 * A burst is `count` allocations, then `count` frees, each phase timed by itself; after it the caller's thread spins for `gap_ns`, so that the recorder
 * has emptied the ring and no wait for room is in the figures. */
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define COUNT_MAX 4096

typedef void *allocate_function(size_t size);
typedef void free_function(void *block);

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void mlz_bench_spin(uint64_t ns);
int mlz_bench_bursts(allocate_function *allocate, free_function *release, size_t size, int count, int bursts, uint64_t gap_ns,
                     uint64_t *alloc_ns, uint64_t *free_ns);
int mlz_bench_pairs(allocate_function *allocate, free_function *release, size_t size, int count);
int mlz_bench_allocate(allocate_function *allocate, size_t size, int count);

/* Waits without an allocation, which a loop in Python cannot. */
void mlz_bench_spin(uint64_t ns) {
  uint64_t until = now() + ns;
  while (now() < until) {}
}

/* ns of each burst's two phases into alloc_ns[bursts], free_ns[bursts]. 0, or -1 where an allocation failed or count is too large. */
int mlz_bench_bursts(allocate_function *allocate, free_function *release, size_t size, int count, int bursts, uint64_t gap_ns,
                     uint64_t *alloc_ns, uint64_t *free_ns) {
  static void *blocks[COUNT_MAX];
  if (count > COUNT_MAX) return -1;
  for (int b = 0; b < bursts; b++) {
    uint64_t began = now();
    for (int i = 0; i < count; i++) blocks[i] = allocate(size);
    uint64_t between = now();
    for (int i = 0; i < count; i++) {
      if (!blocks[i]) return -1;
      release(blocks[i]);
    }
    uint64_t ended = now();
    alloc_ns[b] = between - began;
    free_ns[b] = ended - between;
    mlz_bench_spin(gap_ns);
  }
  return 0;
}

/* For the instruction counter: allocations that are freed at once. */
int mlz_bench_pairs(allocate_function *allocate, free_function *release, size_t size, int count) {
  for (int i = 0; i < count; i++) {
    void *block = allocate(size);
    if (!block) return -1;
    release(block);
  }
  return 0;
}

/* The same without the frees: the difference is what a free costs. */
int mlz_bench_allocate(allocate_function *allocate, size_t size, int count) {
  for (int i = 0; i < count; i++) {
    if (!allocate(size)) return -1;
  }
  return 0;
}
