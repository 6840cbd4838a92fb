/* A module that finds another one by its own run path, and asks the loader questions whose answers depend on who asks. */
#include <dlfcn.h>

void *outer_block(void);
void *outer_next(void);

void *outer_block(void) {
  void *inner = dlopen("loaded_inner.so", RTLD_NOW);
  void *(*block)(void) = inner ? (void *(*)(void))dlsym(inner, "inner_block") : (void *(*)(void))0;
  return block ? block() : (void *)0;
}
void *outer_next(void) { return dlsym(RTLD_NEXT, "malloc"); }
