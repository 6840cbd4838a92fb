/* The interpreter's three allocator domains, hooked by PyMem_SetAllocator. Any thread; mem and obj under the GIL. */
#include "record.h"

#include <string.h>

/* Two generations: those installed before the interpreter starts, and those put on top when pre-initialisation
 * (PYTHONMALLOC, -X dev) has replaced them. Constant once installed. */
static struct mlz_py_allocator inner[2][3];
static unsigned generation_now;

bool mlz_python_place(const void *ctx) { return (uintptr_t)ctx - (uintptr_t)inner < sizeof(inner); }

/* What a hook calls. A caller reads ctx and function one after the other; where nothing that we hold keeps it from running meanwhile, its ctx may be
 * that of whoever was there before us. */
MLZ_INLINE struct mlz_py_allocator *under(void *ctx, unsigned domain) {
  return MLZ_LIKELY(mlz_python_place(ctx)) ? ctx : &inner[generation_now][domain];
}

MLZ_INLINE void *after_alloc(struct mlz_tls *t, void *block, size_t size, unsigned domain, const uintptr_t *frame) {
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  if (MLZ_LIKELY(block && mlz_agent_enter(t))) mlz_record_alloc(t, MLZ_K_ALLOC, domain, block, size, frame);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}

void *mlz_python_alloc_any(struct mlz_tls *t, void *block, size_t size, unsigned domain) {
  return after_alloc(t, block, size, domain, NULL);
}

MLZ_INLINE void *hook_malloc(struct mlz_py_allocator *in, size_t size, unsigned domain, const uintptr_t *frame) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    return in->malloc(in->ctx, size);
  }
  t->busy = MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  return after_alloc(t, in->malloc(in->ctx, size), size, domain, frame);
}
void *mlz_python_malloc_any(struct mlz_py_allocator *in, size_t size, unsigned domain) { return hook_malloc(in, size, domain, NULL); }

MLZ_INLINE void *hook_calloc(struct mlz_py_allocator *in, size_t n, size_t size, unsigned domain, const uintptr_t *frame) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    return in->calloc(in->ctx, n, size);
  }
  t->busy = MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  return after_alloc(t, in->calloc(in->ctx, n, size), n * size, domain, frame);
}
void *mlz_python_calloc_any(struct mlz_py_allocator *in, size_t n, size_t size, unsigned domain) {
  return hook_calloc(in, n, size, domain, NULL);
}

void *mlz_python_realloc_any(struct mlz_tls *t, void *old, void *block, size_t size, unsigned domain) {
  t->busy = MLZ_BUSY_EVENT;
  if (mlz_agent_enter(t)) mlz_record_realloc_end(t, domain, true, old, block, size ? size : 1, NULL);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}

MLZ_INLINE void *hook_realloc(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain, const uintptr_t *frame) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    if (old) mlz_record_free_inside(t, domain, old);
    return in->realloc(in->ctx, old, size);
  }
  t->busy = old ? MLZ_BUSY_EVENT : MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  if (!old) return after_alloc(t, in->realloc(in->ctx, old, size), size, domain, frame);
  bool begun = mlz_agent_enter(t) && mlz_record_realloc_begin(t, domain, old);
  t->busy = MLZ_BUSY_INNER;
  void *block = in->realloc(in->ctx, old, size);
  t->busy = MLZ_BUSY_EVENT;
  if (mlz_agent_enter(t)) mlz_record_realloc_end(t, domain, begun, old, block, size ? size : 1, frame);
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = MLZ_BUSY_NOT;
  return block;
}
void *mlz_python_realloc_whole(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  return hook_realloc(in, old, size, domain, NULL);
}

/* ---- where some allocations are passed over ---- */

enum choice { PASSED, CHOSEN, ODD };
/* The thread says that it is busy before it looks at the session, which another one may be ending without a GIL in common (leave.c); it says so no more
 * where the answer is ODD. */
MLZ_INLINE enum choice choose(struct mlz_tls *t, size_t size) {
  t->busy = MLZ_BUSY_EVENT;
  atomic_signal_fence(memory_order_seq_cst);
  if (MLZ_UNLIKELY(t->image == 0) || MLZ_UNLIKELY(t->image != atomic_load_explicit(&mlz_wiped_get()->image, memory_order_relaxed)) ||
      MLZ_UNLIKELY(size >= t->over) ||
      MLZ_UNLIKELY(t->thread->settings != atomic_load_explicit(&mlz_agent_control()->settings, memory_order_relaxed)) || /* or a fork */
      MLZ_UNLIKELY(*mlz_python.collecting) || MLZ_UNLIKELY(mlz_python_unchecked())) {
    atomic_signal_fence(memory_order_seq_cst);
    t->busy = MLZ_BUSY_NOT;
    return ODD;
  }
  enum mlz_gate_answer answer = mlz_gate(t, size);
  t->chosen = answer;
  return answer == MLZ_GATE_PASS ? PASSED : CHOSEN;
}

/* Tells of a block of mem or obj that was chosen. */
static void tell(void *block, size_t size, unsigned domain) {
  const struct mlz_stack_reader *reader = mlz_python.reader; /* its hooks alone lead here */
  (domain == MLZ_D_OBJ ? reader->obj_after : reader->mem_after)(block, size);
}

/* `call` gives the block. */
#define SAMPLED(call, bytes, domain)                                                                                                       \
  t->busy = MLZ_BUSY_INNER;                                                                                                                \
  atomic_signal_fence(memory_order_seq_cst);                                                                                               \
  void *block = call;                                                                                                                      \
  atomic_signal_fence(memory_order_seq_cst);                                                                                               \
  if (MLZ_UNLIKELY(choice == CHOSEN)) {                                                                                                    \
    tell(block, bytes, domain);                                                                                                            \
    t->chosen = MLZ_GATE_PASS;                                                                                                             \
  } else {                                                                                                                                 \
    t->busy = MLZ_BUSY_NOT;                                                                                                                \
  }                                                                                                                                        \
  return block

void *mlz_python_malloc_sampled(struct mlz_py_allocator *in, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  enum choice choice = choose(t, size);
  if (MLZ_UNLIKELY(choice == ODD)) return mlz_python_malloc_any(in, size, domain);
  SAMPLED(in->malloc(in->ctx, size), size, domain);
}

void *mlz_python_calloc_sampled(struct mlz_py_allocator *in, size_t n, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  enum choice choice = choose(t, n * size);
  if (MLZ_UNLIKELY(choice == ODD)) return mlz_python_calloc_any(in, n, size, MLZ_D_MEM);
  SAMPLED(in->calloc(in->ctx, n, size), n * size, MLZ_D_MEM);
}

/* A block that was passed over becomes another one; a recorded one goes the general way. */
void *mlz_python_realloc_sampled(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  enum choice choice = mlz_record_marked(old, domain) ? ODD : choose(t, size);
  if (MLZ_UNLIKELY(choice == ODD)) return mlz_python_realloc_whole(in, old, size, domain);
  SAMPLED(in->realloc(in->ctx, old, size), size, domain);
}

void mlz_python_free_any(struct mlz_py_allocator *in, void *block, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (t->busy) {
    mlz_record_free_inside(t, domain, block);
  } else {
    t->busy = MLZ_BUSY_EVENT;
    atomic_signal_fence(memory_order_seq_cst);
    mlz_record_free(t, domain, block);
    atomic_signal_fence(memory_order_seq_cst);
    t->busy = MLZ_BUSY_NOT;
  }
  in->free(in->ctx, block);
}
MLZ_INLINE void hook_free_any(struct mlz_py_allocator *in, void *block, unsigned domain) {
  if (mlz_marks_test(block, MLZ_MARKS_SHARED) || mlz_marks_test(block, MLZ_MARKS_PLAIN))
    mlz_python_free_any(in, block, domain);
  else
    in->free(in->ctx, block);
}

/* mem and obj. What has no mark of theirs may still have one of the layers below, whose hooks look for it: nothing says that we are busy
 * while the allocator frees. Budget: 4 ns for a recorded block, 1 ns for another. */
MLZ_INLINE void hook_free(struct mlz_py_allocator *in, void *block, unsigned domain) {
  if (MLZ_UNLIKELY(mlz_record_free_quick(block, mlz_head_word(MLZ_K_FREE, 0, domain, 0)) == MLZ_FREE_ODD))
    mlz_python_free_any(in, block, domain);
  else
    in->free(in->ctx, block);
}

/* Each twice: with native stacks the hooks have frame pointers. */
#define ALLOCATING(name, domain, frame)                                                                                                    \
  static void *name##_malloc(void *ctx, size_t size) { return hook_malloc(under(ctx, domain), size, domain, frame); }                      \
  static void *name##_calloc(void *ctx, size_t n, size_t size) { return hook_calloc(under(ctx, domain), n, size, domain, frame); }         \
  static void *name##_realloc(void *ctx, void *old, size_t size) { return hook_realloc(under(ctx, domain), old, size, domain, frame); }
#define HOOKS(name, domain)                                                                                                                \
  ALLOCATING(name, domain, NULL)                                                                                                           \
  ALLOCATING(name##_native, domain, MLZ_LIKELY(mlz_agent.native) ? MLZ_NATIVE_FRAME() : NULL)                                              \
  static void name##_free_any(void *ctx, void *block) { hook_free_any(under(ctx, domain), block, domain); }

HOOKS(raw, MLZ_D_RAW)
HOOKS(mem, MLZ_D_MEM)
HOOKS(obj, MLZ_D_OBJ)

/* For callers that hold the one GIL: what they read is of a piece. */
static void mem_free(void *ctx, void *block) { hook_free(ctx, block, MLZ_D_MEM); }
static void obj_free(void *ctx, void *block) { hook_free(ctx, block, MLZ_D_OBJ); }

const struct mlz_py_allocator mlz_python_hooks[3] = {
    {NULL, raw_malloc, raw_calloc, raw_realloc, raw_free_any},
    {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free},
    {NULL, obj_malloc, obj_calloc, obj_realloc, obj_free},
};

static const struct mlz_py_allocator hooks_native[3] = {
    {NULL, raw_native_malloc, raw_native_calloc, raw_native_realloc, raw_free_any},
    {NULL, mem_native_malloc, mem_native_calloc, mem_native_realloc, mem_free},
    {NULL, obj_native_malloc, obj_native_calloc, obj_native_realloc, obj_free},
};

struct mlz_py_allocator *mlz_python_inner(void *ctx, unsigned domain) {
  return under(ctx, domain);
}

/* This library's functions. */
extern const char __ehdr_start[] __attribute__((visibility("hidden"))), etext[] __attribute__((visibility("hidden")));
bool mlz_python_ours(const struct mlz_py_allocator *a) {
  return (uintptr_t)a->malloc - (uintptr_t)__ehdr_start < (uintptr_t)etext - (uintptr_t)__ehdr_start;
}

struct mlz_py_allocator mlz_python_whole(unsigned domain) {
  const struct mlz_stack_reader *reader = mlz_python.reader;
  struct mlz_py_allocator hooks = (mlz_agent.native ? hooks_native : mlz_python_hooks)[domain];
  if (domain != MLZ_D_RAW && mlz_agent.started && mlz_marks_atomic[MLZ_MARKS_PLAIN]) { /* others are at work under GILs of their own */
    hooks.free = domain == MLZ_D_OBJ ? obj_free_any : mem_free_any;
    return hooks;
  }
  if (!reader || mlz_agent.native) return hooks;
  if (domain == MLZ_D_OBJ) {
    hooks.malloc = reader->obj_malloc;
    hooks.realloc = reader->obj_realloc;
  } else if (domain == MLZ_D_MEM) {
    hooks.malloc = reader->mem_malloc;
    hooks.calloc = reader->mem_calloc;
    hooks.realloc = reader->mem_realloc;
  }
  return hooks;
}

static void install(unsigned generation) {
  generation_now = generation;
  struct mlz_py_allocator hooks[3];
  for (unsigned d = 0; d < 3; d++) {
    mlz_python.mem_get((int)d, &inner[generation][d]);
    if (mlz_python_place(inner[generation][d].ctx)) inner[generation][d].ctx = NULL; /* as give_back left it */
    hooks[d] = mlz_python_whole(d);
  }
  mlz_slim_hooks(inner[generation], hooks);
  for (int d = 0; d < 3; d++) {
    struct mlz_py_allocator a = hooks[d], step = inner[generation][d];
    a.ctx = &inner[generation][d];
    /* The raw domain is called without the GIL meanwhile: no more of it than need be meets our function with another's context. */
    step.ctx = step.ctx ? step.ctx : a.ctx;
    mlz_python.mem_set(d, &step);
    mlz_python.mem_set(d, &a);
  }
}

/* ---- pymalloc's arenas ---- */

static struct mlz_py_arenas arenas;

/* Says that an allocator is at work, if nobody has; returns what is to be put back. */
static uint32_t arena_begin(void) {
  uint32_t busy = mlz_tls.busy;
  if (busy == MLZ_BUSY_NOT) mlz_tls.busy = MLZ_BUSY_INNER;
  atomic_signal_fence(memory_order_seq_cst);
  return busy;
}
static void arena_end(uint32_t busy) {
  atomic_signal_fence(memory_order_seq_cst);
  mlz_tls.busy = busy;
}
static void *arena_alloc(void *ctx, size_t size) {
  (void)ctx;
  uint32_t busy = arena_begin();
  if (busy == MLZ_BUSY_NOT && mlz_tls.image) { /* below an allocation that is passed over: hooks_slim.c */
    mlz_tls.thread->arena_new = true;
    mlz_tls.thread->arena_still = mlz_gate_still(&mlz_tls);
  }
  void *arena = arenas.alloc(arenas.ctx, size);
  arena_end(busy);
  return arena;
}
static void arena_free(void *ctx, void *arena, size_t size) {
  (void)ctx;
  uint32_t busy = arena_begin();
  arenas.free(arenas.ctx, arena, size);
  arena_end(busy);
}

bool mlz_python_arenas_hidden(void) { return arenas.alloc != NULL; }
void mlz_python_arenas(void) {
  struct mlz_py_arenas top;
  if (!mlz_python.arena_get || !mlz_python.arena_set) return;
  mlz_python.arena_get(&top);
  if (top.alloc == arena_alloc) return;
  arenas = top;
  mlz_python.arena_set(&(struct mlz_py_arenas){NULL, arena_alloc, arena_free});
}

struct mlz_py_allocator mlz_python_under(void) {
  struct mlz_py_allocator under = inner[generation_now][MLZ_D_MEM];
  if (!under.malloc) mlz_python.mem_get(MLZ_D_MEM, &under); /* --no-python: no hook of ours is there */
  return under;
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
  if (!mlz_python_ours(&now)) install(!generation_now);
}
