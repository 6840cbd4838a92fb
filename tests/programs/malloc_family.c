/* The C library's whole malloc family, with known sizes. `none` makes the same process without these calls, so that the difference of
 * two traces is exactly what is printed: allocations, their bytes, blocks kept, their bytes. Built dynamically and statically. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct { unsigned long count, bytes, kept_count, kept_bytes; } known;
static volatile int failures;

static void tell(unsigned long bytes, int kept) {
  known.count++;
  known.bytes += bytes;
  if (kept) {
    known.kept_count++;
    known.kept_bytes += bytes;
  }
}
static void expect(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "malloc_family: %s\n", what);
  failures++;
}

static void each_function(void) {
  void *p, *q;
  p = malloc(1001), tell(1001, 1);
  expect(p && malloc_usable_size(p) >= 1001 && malloc_usable_size(p) < 1040, "usable size of malloc");
  p = malloc(1002), tell(1002, 0);
  free(p);
  p = malloc(0), tell(0, 1);
  expect(p != NULL, "malloc(0)");
  free(NULL);
  p = calloc(3, 101), tell(303, 1);
  for (int i = 0; i < 303; i++) expect(((char *)p)[i] == 0, "calloc does not clear");
  p = realloc(NULL, 404), tell(404, 0);
  memset(p, 7, 404);
  p = realloc(p, 80800), tell(80800, 0);
  p = realloc(p, 99), tell(99, 1);
  for (int i = 0; i < 99; i++) expect(((char *)p)[i] == 7, "realloc loses content");
  p = malloc(505), tell(505, 0);
  q = realloc(p, 0); /* glibc: frees, and returns NULL */
  expect(q == NULL, "realloc(p, 0)");
  p = reallocarray(NULL, 10, 61), tell(610, 0);
  p = reallocarray(p, 20, 61), tell(1220, 1);
  expect(posix_memalign(&p, 64, 1005) == 0 && ((uintptr_t)p & 63) == 0, "posix_memalign"), tell(1005, 1);
  p = aligned_alloc(128, 1024), tell(1024, 1);
  expect(((uintptr_t)p & 127) == 0, "aligned_alloc");
  p = memalign(32, 555), tell(555, 0);
  expect(((uintptr_t)p & 31) == 0, "memalign");
  free(p);
  p = valloc(777), tell(777, 1);
  expect(((uintptr_t)p & 4095) == 0, "valloc");
  p = pvalloc(10), tell(4096, 1);
  expect(((uintptr_t)p & 4095) == 0, "pvalloc");
  p = strdup("ten letter"), tell(11, 1);

  /* What fails is no allocation, and the old block of a realloc lives on. */
  errno = 0;
  expect(malloc(SIZE_MAX / 2) == NULL && errno == ENOMEM, "errno of a malloc that fails");
  errno = 0;
  expect(calloc(SIZE_MAX / 2, 4) == NULL && errno == ENOMEM, "errno of a calloc that overflows");
  p = malloc(333), tell(333, 1);
  expect(realloc(p, SIZE_MAX / 2) == NULL, "realloc that fails");
  expect(reallocarray(p, SIZE_MAX / 2, 4) == NULL, "reallocarray that overflows");
  q = NULL;
  expect(posix_memalign(&q, 3, 8) == EINVAL, "posix_memalign with a wrong alignment");

  errno = 77;
  p = malloc(12), tell(12, 0);
  free(p);
  expect(errno == 77, "errno after malloc and free");
}

enum { THREADS = 4, BLOCKS = 2000 };
static void *shared[THREADS][BLOCKS];
static pthread_barrier_t barrier;
static int with_blocks;

/* Each thread frees every second block of its neighbour. */
static void *work(void *arg) {
  long me = (long)arg;
  if (with_blocks)
    for (int i = 0; i < BLOCKS; i++) shared[me][i] = malloc(16 + (size_t)i);
  pthread_barrier_wait(&barrier);
  if (with_blocks)
    for (int i = 0; i < BLOCKS; i += 2) free(shared[(me + 1) % THREADS][i]);
  return NULL;
}
static void threads(void) {
  pthread_t t[THREADS];
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (long i = 0; i < THREADS; i++) expect(pthread_create(&t[i], NULL, work, (void *)i) == 0, "pthread_create");
  for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
  for (int i = 0; with_blocks && i < THREADS * BLOCKS; i++) tell(16 + (unsigned long)(i % BLOCKS), i % 2);
}

/* 64 MiB reserved, the middle half given back, the last quarter moved to a larger place: 16 + 24 MiB stay. */
static void mappings(void) {
  size_t mib = 1 << 20;
  char *p = mmap(NULL, 64 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  expect(p != MAP_FAILED, "mmap");
  expect(munmap(p + 16 * mib, 32 * mib) == 0, "munmap");
  expect(mremap(p + 48 * mib, 16 * mib, 24 * mib, MREMAP_MAYMOVE) != MAP_FAILED, "mremap");
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "functions";
  if (!strcmp(what, "functions")) each_function();
  with_blocks = !strcmp(what, "threads");
  if (with_blocks || !strcmp(what, "no-threads")) threads();
  if (!strcmp(what, "mappings")) mappings();
  char text[200];
  int n = snprintf(text, sizeof text, "%lu %lu %lu %lu\n", known.count, known.bytes, known.kept_count, known.kept_bytes);
  expect(write(1, text, (size_t)n) == n, "write");
  return failures ? 1 : 0;
}
