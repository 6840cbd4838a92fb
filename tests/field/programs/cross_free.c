/* Four threads that free each other's blocks; every seventh block is kept. Its totals do not depend on how the threads run. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, BLOCKS = 5000 };

static void *blocks[THREADS][BLOCKS];
static pthread_barrier_t barrier;

static void *run(void *arg) {
  long self = (long)arg;
  for (int i = 0; i < BLOCKS; i++) blocks[self][i] = i % 3 ? malloc(16 + (size_t)(i % 200)) : calloc(2, 8 + (size_t)(i % 50));
  pthread_barrier_wait(&barrier);
  long other = (self + 1) % THREADS;
  for (int i = 0; i < BLOCKS; i++) {
    if (i % 7 == 0) continue;
    if (i % 5 == 0) blocks[other][i] = realloc(blocks[other][i], 300);
    free(blocks[other][i]);
  }
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, run, (void *)i);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  puts("done");
  return 0;
}
