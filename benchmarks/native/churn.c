/* churn THREADS BLOCKS: nothing but malloc and free, under 12 frames, 64 blocks at a time in each thread: the worst case of a tracer. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long blocks;

static __attribute__((noipa)) void some(uint64_t seed) {
  void *kept[64];
  for (unsigned i = 0; i < 64; i++) {
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    kept[i] = malloc(16 + (seed >> 33) % 500);
  }
  for (unsigned i = 0; i < 64; i++) free(kept[i]);
}
static __attribute__((noipa)) void down(unsigned depth, uint64_t seed) {
  if (depth)
    down(depth - 1, seed);
  else
    some(seed);
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
  blocks /= threads;
  for (uintptr_t i = 1; i < threads; i++) pthread_create(&t[i], NULL, thread, (void *)i);
  thread(NULL);
  for (unsigned i = 1; i < threads; i++) pthread_join(t[i], NULL);
  return 0;
}
