/* A library with an allocator of its own that nobody outside sees, as extension modules with a static mimalloc or jemalloc have: MALLOC is its name.
 * TEXTS: what jemalloc prints, for a library that is stripped. EXPORTED: it is the C library's malloc for whoever loads it first. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef MALLOC
void *MALLOC(size_t n);
__attribute__((visibility("hidden"), noinline)) void *MALLOC(size_t n) {
  static char *pool;
  static size_t left;
  n = (n + 15) & ~(size_t)15;
  if (n > left) {
    pool = mmap(NULL, left = 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pool == MAP_FAILED) abort();
  }
  left -= n;
  return pool + left;
}
#else
#define MALLOC malloc
#endif

#ifdef EXPORTED
void *malloc(size_t n) { return MALLOC(n); }
#endif

const char *own_texts[] = {"not empty",
#ifdef TEXTS
                           TEXTS
#endif
};

int own_work(size_t n);
int own_work(size_t n) {
  volatile char *block = MALLOC(n), *other = malloc(n);
  if (!block || !other) return 1;
  memset((char *)block, 1, n);
  return block[n - 1] - 1; /* no tail calls: our frame stays on the stack */
}
