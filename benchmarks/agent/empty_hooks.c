/* The least that hooks in the interpreter's allocators can cost: preloaded, it hooks mem and obj as the agent does at full rate, and every hook only calls
 * on. run.py's mode `empty-hooks`; no tracer that is called for each allocation and free can be cheaper. Ends with status 1 where the hooks were not in
 * place, so that no figure is taken of nothing. */
#include "tracer/agent/python.h"

#include <dlfcn.h>
#include <unistd.h>

static struct mlz_py_allocator inner[MLZ_D_OBJ + 1];
static void (*get_allocator)(int domain, struct mlz_py_allocator *), (*set_allocator)(int domain, struct mlz_py_allocator *);

static void *hook_malloc(void *ctx, size_t size) {
  const struct mlz_py_allocator *in = ctx;
  return in->malloc(in->ctx, size);
}
static void *hook_calloc(void *ctx, size_t n, size_t size) {
  const struct mlz_py_allocator *in = ctx;
  return in->calloc(in->ctx, n, size);
}
static void *hook_realloc(void *ctx, void *old, size_t size) {
  const struct mlz_py_allocator *in = ctx;
  return in->realloc(in->ctx, old, size);
}
static void hook_free(void *ctx, void *block) {
  const struct mlz_py_allocator *in = ctx;
  in->free(in->ctx, block);
}

static __attribute__((constructor)) void begin(void) {
  *(void **)&get_allocator = dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
  *(void **)&set_allocator = dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
  if (!get_allocator || !set_allocator) return; /* another program than the interpreter: a child */
  for (int d = MLZ_D_MEM; d <= MLZ_D_OBJ; d++) {
    get_allocator(d, &inner[d]);
    set_allocator(d, &(struct mlz_py_allocator){&inner[d], hook_malloc, hook_calloc, hook_realloc, hook_free});
  }
}

static __attribute__((destructor)) void end(void) {
  static const char message[] = "empty_hooks: the hooks were not in place\n";
  struct mlz_py_allocator now = {0};
  if (!get_allocator || !set_allocator) return;
  for (int d = MLZ_D_MEM; d <= MLZ_D_OBJ; d++) {
    get_allocator(d, &now);
    if (now.malloc == hook_malloc) continue;
    if (write(2, message, sizeof(message) - 1) < 0) _exit(2);
    _exit(1);
  }
}
