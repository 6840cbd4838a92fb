/* A module that allocates and calls back: built twice, with another function at the place of the same one. */
#include <stdlib.h>

void module_entry(void (*callback)(unsigned));

static __attribute__((noinline, noclone)) void NAME(void (*callback)(unsigned)) {
  char room[FRAME];
  __asm__ volatile("" : : "r"(room) : "memory");
  callback(FRAME);
  __asm__ volatile("" : : "r"(room) : "memory");
}

void module_entry(void (*callback)(unsigned)) {
  void *p = malloc(FRAME);
  __asm__ volatile("" : : "r"(p) : "memory");
  NAME(callback);
  free(p);
}
