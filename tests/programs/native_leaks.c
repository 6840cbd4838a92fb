/* Leaks whose functions and lines are known: native_leaks [LIBRARY...] loads each library, calls its keep(), and unloads it. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *kept[64];
static int n;

__attribute__((noinline)) static void *make(size_t bytes) {
  void *p = malloc(bytes); /* @make */
  memset(p, 1, bytes);
  return p;
}
__attribute__((noinline)) static void keep_ten(void) {
  for (int i = 0; i < 10; i++) kept[n++] = make(100); /* @ten */
}
__attribute__((noinline)) static void drop_ten(void) {
  for (int i = 0; i < 10; i++) free(make(50)); /* @drop */
}
static inline __attribute__((always_inline)) void inlined(void) { kept[n++] = calloc(3, 1000); /* @inlined */ }
__attribute__((noinline)) static void recurse(int depth) {
  if (depth == 0)
    kept[n++] = make(7777);
  else
    recurse(depth - 1);              /* @recurse */
  __asm__ volatile("" ::: "memory"); /* no tail call */
}
static void *thread(void *arg) {
  kept[n++] = realloc(make(10), 5000); /* @thread */
  free(arg);                           /* from another thread */
  return NULL;
}

int main(int argc, char **argv) {
  keep_ten();
  drop_ten();
  inlined();
  recurse(5);
  pthread_t t;
  if (pthread_create(&t, NULL, thread, make(60000)) == 0) pthread_join(t, NULL);
  for (int i = 1; i < argc; i++) {
    void *library = dlopen(argv[i], RTLD_NOW);
    void (*keep)(void) = library ? (void (*)(void))dlsym(library, "keep") : NULL;
    if (!keep) return 3;
    keep();
    dlclose(library);
  }
  return 0;
}
