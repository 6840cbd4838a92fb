/* The interpreter's three allocator domains, hooked by PyMem_SetAllocator. Any thread; mem and obj under the GIL. */
#include "record.h"

#include <string.h>

/* Two generations: those installed before the interpreter starts, and those put on top when pre-initialisation
 * (PYTHONMALLOC, -X dev) has replaced them. Constant once installed. */
static struct mlz_py_allocator inner[2][3];
static unsigned generation_now;

MLZ_INLINE void *after_alloc(struct mlz_tls *t, void *block, size_t size, unsigned domain) {
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  if (MLZ_LIKELY(block && mlz_agent_enter(t))) mlz_record_alloc(t, MLZ_K_ALLOC, domain, block, size);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}

MLZ_INLINE void *hook_malloc(struct mlz_py_allocator *in, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    return in->malloc(in->ctx, size);
  }
  t->busy = MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  return after_alloc(t, in->malloc(in->ctx, size), size, domain);
}
MLZ_INLINE void *hook_calloc(struct mlz_py_allocator *in, size_t n, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    return in->calloc(in->ctx, n, size);
  }
  t->busy = MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  return after_alloc(t, in->calloc(in->ctx, n, size), n * size, domain);
}
MLZ_INLINE void *hook_realloc(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    if (old) mlz_record_free_inside(t, domain, old);
    return in->realloc(in->ctx, old, size);
  }
  t->busy = old ? MLZ_BUSY_EVENT : MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  if (!old) return after_alloc(t, in->realloc(in->ctx, old, size), size, domain);
  bool begun = mlz_agent_enter(t) && mlz_record_realloc_begin(t, domain, old);
  t->busy = MLZ_BUSY_INNER;
  void *block = in->realloc(in->ctx, old, size);
  t->busy = MLZ_BUSY_EVENT;
  if (mlz_agent_enter(t)) mlz_record_realloc_end(t, domain, begun, old, block, size ? size : 1);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}
MLZ_INLINE void hook_free(struct mlz_py_allocator *in, void *block, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy || !block)) {
    if (block) mlz_record_free_inside(t, domain, block);
    in->free(in->ctx, block);
    return;
  }
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  mlz_record_free(t, domain, block);
  t->busy = MLZ_BUSY_INNER;
  in->free(in->ctx, block);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
}

#define HOOKS(name, domain)                                                                                                                \
  static void *name##_malloc(void *ctx, size_t size) { return hook_malloc(ctx, size, domain); }                                            \
  static void *name##_calloc(void *ctx, size_t n, size_t size) { return hook_calloc(ctx, n, size, domain); }                               \
  static void *name##_realloc(void *ctx, void *old, size_t size) { return hook_realloc(ctx, old, size, domain); }                          \
  static void name##_free(void *ctx, void *block) { hook_free(ctx, block, domain); }

HOOKS(raw, MLZ_D_RAW)
HOOKS(mem, MLZ_D_MEM)
HOOKS(obj, MLZ_D_OBJ)

static const struct mlz_py_allocator hooks[3] = {
    {NULL, raw_malloc, raw_calloc, raw_realloc, raw_free},
    {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free},
    {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free},
};

static void install(unsigned generation) {
  generation_now = generation;
  for (int d = 0; d < 3; d++) {
    struct mlz_py_allocator a = hooks[d];
    mlz_python.mem_get(d, &inner[generation][d]);
    a.ctx = &inner[generation][d];
    mlz_python.mem_set(d, &a);
  }
}

bool mlz_python_uncover(struct mlz_py_allocator *top) {
  mlz_python.mem_get(MLZ_D_MEM, top);
  if (top->malloc == mem_malloc || !inner[generation_now][MLZ_D_MEM].malloc) return false;
  mlz_python.mem_set(MLZ_D_MEM, &inner[generation_now][MLZ_D_MEM]);
  return true;
}

void *mlz_python_mem_alloc(size_t size) {
  struct mlz_py_allocator under = inner[generation_now][MLZ_D_MEM];
  if (!under.malloc) mlz_python.mem_get(MLZ_D_MEM, &under); /* --no-python: no hook of ours is there */
  return under.malloc(under.ctx, size);
}

bool mlz_python_install(void) {
  struct mlz_py_allocator now;
  mlz_python.mem_get(MLZ_D_OBJ, &now);
  if (!now.malloc) return false;
  install(0);
  atomic_store(&mlz_python.wrap_pending, 1);
  return true;
}

/* The first malloc with a thread state comes while the interpreter initialises, after it chose its allocators for good. */
void mlz_python_rewrap(void) {
  if (!mlz_python.tstate_get()) return;
  if (atomic_exchange(&mlz_python.wrap_pending, 0)) mlz_python_on_top();
}

void mlz_python_on_top(void) {
  struct mlz_py_allocator now;
  mlz_python.mem_get(MLZ_D_OBJ, &now);
  if (now.malloc != obj_malloc) install(!generation_now);
}
