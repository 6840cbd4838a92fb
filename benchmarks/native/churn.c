/* churn THREADS BLOCKS [used]: malloc and free under 12 frames, 64 blocks at a time in each thread.
 * As it is: nothing but that, no block is touched: the worst case of a tracer.
 * used: every block is written from end to end, as programs do, and one of 16 is kept until another one takes its place, some thousands later. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGER 4096 /* blocks that each thread keeps */

static unsigned long blocks;
static void (*work)(uint64_t seed);

static __attribute__((noipa)) void some(uint64_t seed) {
  void *kept[64];
  for (unsigned i = 0; i < 64; i++) {
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    kept[i] = malloc(16 + (seed >> 33) % 500);
  }
  for (unsigned i = 0; i < 64; i++) free(kept[i]);
}
/* Out of the compiler's sight: what is written into a block that is freed it would leave out. */
static __attribute__((noipa)) void write_to(void *block, int with, size_t size) { memset(block, with, size); }
static __attribute__((noipa)) void some_used(uint64_t seed) {
  static __thread void *longer[LONGER];
  void *kept[64];
  for (unsigned i = 0; i < 64; i++) {
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    size_t size = 16 + (seed >> 33) % 500;
    kept[i] = malloc(size);
    if (!kept[i]) abort();
    write_to(kept[i], (int)(seed >> 56), size);
    if (i % 16 == 0) { /* its place is taken by the one that was kept there */
      void **place = &longer[(seed >> 44) % LONGER], *older = *place;
      *place = kept[i];
      kept[i] = older;
    }
  }
  for (unsigned i = 0; i < 64; i++) free(kept[i]);
}
static __attribute__((noipa)) void down(unsigned depth, uint64_t seed) {
  if (depth)
    down(depth - 1, seed);
  else
    work(seed);
  __asm__ volatile("");
}
static void *thread(void *arg) {
  for (unsigned long done = 0; done < blocks; done += 64) down(8, done + (uintptr_t)arg);
  return NULL;
}

int main(int argc, char **argv) {
  unsigned threads = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
  pthread_t t[64];
  blocks = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000;
  if (threads < 1 || threads > 64) return 2;
  work = argc > 3 && !strcmp(argv[3], "used") ? some_used : some;
  blocks /= threads;
  for (uintptr_t i = 1; i < threads; i++) pthread_create(&t[i], NULL, thread, (void *)i);
  thread(NULL);
  for (unsigned i = 1; i < threads; i++) pthread_join(t[i], NULL);
  return 0;
}
