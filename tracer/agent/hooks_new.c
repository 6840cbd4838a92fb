/* C++'s operators new and delete, where an allocator brings its own (tcmalloc, mimalloc, jemalloc): such ones reach no malloc that could be hooked.
 * Where they come with the C++ library, they call malloc and free: then everything here is a jump to them.
 *
 * Any thread, at any time. No exception passes through a hook that says it is busy: a throwing operator is asked by its form that does not throw, and only
 * when that has no memory is the throwing one called, by a jump. */
#include "modules.h"
#include "record.h"

#include <dlfcn.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* Mangled by the Itanium C++ ABI: nw, na, dl, da: new, new[], delete, delete[]; m: size_t; P v: void *. */
#define NOTHROW "RKSt9nothrow_t"
#define ALIGN "St11align_val_t"

static struct {
  void *(*plain)(size_t, const void *); /* the form that does not throw */
  void *(*aligned)(size_t, size_t, const void *);
  _Atomic uint32_t known; /* 0: not looked yet */
  bool own;               /* the operators are the allocator's own */
} operators;
static const char nothrow; /* std::nothrow is never looked at */

static void *find(const char *name) {
  void *f = dlsym(RTLD_NEXT, name);
  return f ? f : mlz_modules_find(name); /* a C++ library that was loaded for a module alone */
}

/* The loader may allocate, and call us again meanwhile. */
static MLZ_COLD void look(void) {
  struct mlz_tls *t = &mlz_tls;
  uint32_t busy = t->busy;
  t->busy = MLZ_BUSY_OWN;
  Dl_info with_new, with_malloc;
  void *of_new = find("_Znwm"), *of_malloc = dlsym(RTLD_NEXT, "malloc");
  *(void **)&operators.plain = find("_Znwm" NOTHROW);
  *(void **)&operators.aligned = find("_Znwm" ALIGN NOTHROW);
  operators.own =
      of_new && of_malloc && dladdr(of_new, &with_new) && dladdr(of_malloc, &with_malloc) && with_new.dli_fbase == with_malloc.dli_fbase;
  dlerror();
  t->busy = busy;
  atomic_store_explicit(&operators.known, 1, memory_order_release);
}

/* Does this call report? Not inside another hook. */
static inline bool reports(struct mlz_tls *t) {
  if (MLZ_UNLIKELY(!atomic_load_explicit(&operators.known, memory_order_acquire))) look();
  return MLZ_UNLIKELY(operators.own) && !t->busy && mlz_agent.trace_malloc;
}
static inline void busy(struct mlz_tls *t, enum mlz_busy with) {
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = with;
  atomic_signal_fence(memory_order_seq_cst);
}
MLZ_INLINE void *tell(struct mlz_tls *t, void *block, size_t size, const uintptr_t *frame) {
  busy(t, MLZ_BUSY_EVENT);
  if (MLZ_LIKELY(block && mlz_agent_enter(t))) mlz_record_alloc(t, MLZ_K_ALLOC, MLZ_D_MALLOC, block, size, frame);
  busy(t, MLZ_BUSY_NOT);
  return block;
}
static __attribute__((noinline)) void *traced(size_t size) {
  struct mlz_tls *t = &mlz_tls;
  busy(t, MLZ_BUSY_INNER);
  return tell(t, operators.plain(size, &nothrow), size, mlz_agent.native ? MLZ_NATIVE_FRAME() : NULL);
}
static __attribute__((noinline)) void *traced_aligned(size_t size, size_t alignment) {
  struct mlz_tls *t = &mlz_tls;
  busy(t, MLZ_BUSY_INNER);
  return tell(t, operators.aligned(size, alignment, &nothrow), size, mlz_agent.native ? MLZ_NATIVE_FRAME() : NULL);
}

/* The next definition, found once; `otherwise`: where there is none. */
#define REAL(symbol, type, otherwise)                                                                                                      \
  static type real;                                                                                                                        \
  if (MLZ_UNLIKELY(!__atomic_load_n(&real, __ATOMIC_RELAXED))) {                                                                           \
    void *f = find(symbol);                                                                                                                \
    __atomic_store_n(&real, f ? (type)f : (type)(void *)otherwise, __ATOMIC_RELAXED);                                                      \
  }

typedef void *plain_new(size_t, const void *);
typedef void *aligned_new(size_t, size_t, const void *);
typedef void any_delete(void *, size_t, size_t, const void *);

/* The hooks take as many arguments as any form has: those that were not given are passed on as they came. */
#define NEW(name, symbol)                                                                                                                  \
  EXPORT void *name(size_t size, const void *more) __asm__(symbol);                                                                        \
  void *name(size_t size, const void *more) {                                                                                              \
    if (MLZ_UNLIKELY(reports(&mlz_tls)) && operators.plain) {                                                                              \
      void *block = traced(size);                                                                                                          \
      if (MLZ_LIKELY(block != NULL)) return block;                                                                                         \
    }                                                                                                                                      \
    REAL(symbol, plain_new *, malloc)                                                                                                      \
    return real(size, more);                                                                                                               \
  }
#define NEW_ALIGNED(name, symbol)                                                                                                          \
  EXPORT void *name(size_t size, size_t alignment, const void *more) __asm__(symbol);                                                      \
  void *name(size_t size, size_t alignment, const void *more) {                                                                            \
    if (MLZ_UNLIKELY(reports(&mlz_tls)) && operators.aligned) {                                                                            \
      void *block = traced_aligned(size, alignment);                                                                                       \
      if (MLZ_LIKELY(block != NULL)) return block;                                                                                         \
    }                                                                                                                                      \
    REAL(symbol, aligned_new *, aligned_of)                                                                                                \
    return real(size, alignment, more);                                                                                                    \
  }
#define DELETE(name, symbol)                                                                                                               \
  EXPORT void name(void *block, size_t a, size_t b, const void *more) __asm__(symbol);                                                     \
  void name(void *block, size_t a, size_t b, const void *more) {                                                                           \
    if (block && MLZ_UNLIKELY(reports(&mlz_tls))) ended(block);                                                                            \
    REAL(symbol, any_delete *, free)                                                                                                       \
    real(block, a, b, more);                                                                                                               \
  }

static void *aligned_of(size_t size, size_t alignment, const void *more) {
  (void)more;
  return aligned_alloc(alignment, size);
}
/* Before the operator runs: whatever it calls finds no mark. */
static __attribute__((noinline)) void ended(void *block) {
  struct mlz_tls *t = &mlz_tls;
  busy(t, MLZ_BUSY_EVENT);
  mlz_record_free(t, MLZ_D_MALLOC, block);
  busy(t, MLZ_BUSY_NOT);
}

NEW(new_one, "_Znwm")
NEW(new_many, "_Znam")
NEW(new_one_nothrow, "_Znwm" NOTHROW)
NEW(new_many_nothrow, "_Znam" NOTHROW)
NEW_ALIGNED(new_one_aligned, "_Znwm" ALIGN)
NEW_ALIGNED(new_many_aligned, "_Znam" ALIGN)
NEW_ALIGNED(new_one_aligned_nothrow, "_Znwm" ALIGN NOTHROW)
NEW_ALIGNED(new_many_aligned_nothrow, "_Znam" ALIGN NOTHROW)
DELETE(delete_one, "_ZdlPv")
DELETE(delete_many, "_ZdaPv")
DELETE(delete_one_nothrow, "_ZdlPv" NOTHROW)
DELETE(delete_many_nothrow, "_ZdaPv" NOTHROW)
DELETE(delete_one_sized, "_ZdlPvm")
DELETE(delete_many_sized, "_ZdaPvm")
DELETE(delete_one_aligned, "_ZdlPv" ALIGN)
DELETE(delete_many_aligned, "_ZdaPv" ALIGN)
DELETE(delete_one_aligned_nothrow, "_ZdlPv" ALIGN NOTHROW)
DELETE(delete_many_aligned_nothrow, "_ZdaPv" ALIGN NOTHROW)
DELETE(delete_one_sized_aligned, "_ZdlPvm" ALIGN)
DELETE(delete_many_sized_aligned, "_ZdaPvm" ALIGN)
