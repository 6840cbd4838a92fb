/* The C library's malloc and mmap families, interposed. Any thread, at any time from the loader's first malloc on.
 *
 * The next definition is found by dlsym at the first call (in a process that runs already by mlz_libc_resolve, and modules.c leads the calls here). What dlsym itself may allocate meanwhile comes from a small static
 * buffer, whose blocks are never freed. */
#undef _FILE_OFFSET_BITS /* it would rename mmap to mmap64; off_t has 64 bits anyway */
#include "modules.h"
#include "record.h"
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))
#define PAGE 4096u

static struct {
  void *(*malloc)(size_t);
  void *(*calloc)(size_t, size_t);
  void *(*realloc)(void *, size_t);
  void (*free)(void *);
  int (*posix_memalign)(void **, size_t, size_t);
  void *(*aligned_alloc)(size_t, size_t);
  void *(*memalign)(size_t, size_t);
  void *(*valloc)(size_t);
  void *(*pvalloc)(size_t);
  void *(*mmap)(void *, size_t, int, int, int, off_t);
  int (*munmap)(void *, size_t);
  void *(*mremap)(void *, size_t, size_t, int, ...);
} next;
#define NEXT(X)                                                                                                                            \
  X(malloc) X(calloc) X(realloc) X(free) X(posix_memalign) X(aligned_alloc) X(memalign) X(valloc) X(pvalloc) X(mmap) X(munmap) X(mremap)
static _Atomic uint32_t resolved; /* 0 no, 1 under way, 2 yes */

static _Alignas(16) char early[16384];
static _Atomic size_t early_used;

static void *early_alloc(size_t size) {
  size_t at = atomic_fetch_add(&early_used, (size + 31) & ~(size_t)15) + 16;
  if (at + size > sizeof(early)) return NULL;
  memcpy(early + at - 16, &size, sizeof(size));
  return early + at;
}
static bool is_early(const void *p) { return (const char *)p >= early && (const char *)p < early + sizeof(early); }

static MLZ_COLD bool resolve(void) {
  uint32_t state = 0;
  if (!atomic_compare_exchange_strong(&resolved, &state, 1)) {
    return state == 2;
  }
#define FIND(name) *(void **)&next.name = dlsym(RTLD_NEXT, #name);
  NEXT(FIND)
#undef FIND
  atomic_store(&resolved, 2);
  return true;
}
static inline bool ready(void) { return MLZ_LIKELY(atomic_load_explicit(&resolved, memory_order_acquire) == 2) || resolve(); }

/* Does this call of the thread report? Not when a hook above it does, nor where the family is not traced. */
static inline bool reports(struct mlz_tls *t) {
  if (MLZ_UNLIKELY(t->busy)) {
    mlz_record_nested(t);
    return false;
  }
  if (MLZ_UNLIKELY(atomic_load_explicit(&mlz_python.wrap_pending, memory_order_relaxed))) {
    t->busy = MLZ_BUSY_OWN;
    mlz_python_rewrap();
    t->busy = MLZ_BUSY_NOT;
  }
  return mlz_agent.trace_malloc || atomic_load_explicit(&mlz_agent.attach, memory_order_relaxed) == MLZ_AGENT_NEW;
}
static inline void busy(struct mlz_tls *t, enum mlz_busy with) {
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = with;
  atomic_signal_fence(memory_order_seq_cst);
}
/* `frame`: of the exported function, in whose caller native stacks begin; NULL where there are none. */
MLZ_INLINE void *after_alloc(struct mlz_tls *t, void *block, size_t size, const uintptr_t *frame) {
  busy(t, MLZ_BUSY_EVENT);
  if (MLZ_LIKELY(block && mlz_agent_enter(t)) && mlz_agent.trace_malloc) mlz_record_alloc(t, MLZ_K_ALLOC, MLZ_D_MALLOC, block, size, frame);
  busy(t, MLZ_BUSY_NOT);
  return block;
}

/* ---- the quick way: an event of a thread without Python where nothing odd is due; all else is for the functions above and record.h ----
 *
 * What it asks for once stands for what the long way asks one by one: the clock word says whether settings changed; a ring with room whether the thread has one,
 * after a fork, too; without an interpreter there is no order of the GIL and no Python stack. */

/* With t->busy EVENT. Of a process whose session ends the image is looked at first: it is cleared before the arena goes (leave.c). */
MLZ_INLINE bool quick(const struct mlz_tls *t, const struct mlz_thread *th) {
  return MLZ_LIKELY((atomic_load_explicit(&mlz_python.state, memory_order_relaxed) | t->countdown) ==
                    0) && /* MLZ_PY_NONE; nothing to pass over */
         MLZ_LIKELY(t->image == atomic_load_explicit(&mlz_wiped_get()->image, memory_order_relaxed)) &&
         MLZ_LIKELY(mlz_producer_quick(&th->out)) &&
         MLZ_LIKELY(atomic_load_explicit(&mlz_agent_control()->clock, memory_order_relaxed) == th->clock_seen) &&
         MLZ_LIKELY(atomic_load_explicit(&mlz_agent_control()->order_next, memory_order_relaxed) == th->order_seen);
}
_Static_assert(MLZ_PY_NONE == 0, "it is asked for together with the countdown");
/* Is this block one whose allocation may be told of quickly, on top of that? */
MLZ_INLINE bool quick_block(const struct mlz_tls *t, const void *block, size_t size) {
  return MLZ_LIKELY(block != NULL) && MLZ_LIKELY(((uintptr_t)block & 15) == 0) && MLZ_LIKELY((size | MLZ_SIZE_MASK) == MLZ_SIZE_MASK) &&
         MLZ_LIKELY(size < t->over);
}
static __attribute__((noinline)) void *after_any(void *block, size_t size) { return after_alloc(&mlz_tls, block, size, NULL); }
/* After the allocator's own work. */
MLZ_INLINE void *after_quick(struct mlz_tls *t, void *block, size_t size) {
  struct mlz_thread *th = t->thread;
  struct mlz_marks_piece *piece = mlz_marks_find((uintptr_t)block);
  if (MLZ_UNLIKELY(!piece)) return NULL;
  if (MLZ_UNLIKELY(mlz_marks_locked(MLZ_MARKS_SHARED)))
    atomic_fetch_or_explicit(&piece->map[MLZ_MARKS_SHARED][mlz_marks_word((uintptr_t)block)], mlz_marks_bit((uintptr_t)block),
                             memory_order_relaxed);
  else
    mlz_marks_set_plain(piece, block, MLZ_MARKS_SHARED);
  uint64_t *words = th->out.cursor;
  words[0] = mlz_event_block_word(MLZ_K_ALLOC, MLZ_F_NOGIL | MLZ_F_NOSTACK, MLZ_D_MALLOC, block);
  words[1] = mlz_size_word(size, 0, 0);
  mlz_producer_advance(&th->out, 2);
  t->last_block = block;
  busy(t, MLZ_BUSY_NOT);
  return block;
}
/* A function of its own, so that it needs no register that the allocator's call would destroy. */
static __attribute__((noinline)) void *after(void *block, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  busy(t, MLZ_BUSY_EVENT);
  if (MLZ_LIKELY(quick(t, t->thread)) && quick_block(t, block, size) && MLZ_LIKELY(after_quick(t, block, size) != NULL)) return block;
  return after_any(block, size);
}
/* The same with a native stack; the capture may use up the room. Inline: what `frame` points to is gone once the function whose frame it is has jumped elsewhere. */
MLZ_INLINE void *native_after(void *block, size_t size, const uintptr_t *frame) {
  struct mlz_tls *t = &mlz_tls;
  busy(t, MLZ_BUSY_EVENT);
  if (MLZ_LIKELY(quick(t, t->thread)) && quick_block(t, block, size) && MLZ_LIKELY(mlz_marks_find((uintptr_t)block) != NULL) &&
      MLZ_LIKELY(mlz_native_capture(t, frame, NULL)) && MLZ_LIKELY(mlz_producer_quick(&t->thread->out)))
    return after_quick(t, block, size);
  return after_alloc(t, block, size, frame);
}

/* Before the allocator's own work, t->busy EVENT: takes the mark off and tells. */
enum freed { NOT_MARKED, TOLD, ODD /* nothing was done: for mlz_record_free */ };
MLZ_INLINE enum freed free_quick(struct mlz_tls *t, void *block) {
  struct mlz_marks_piece *piece = mlz_marks_find((uintptr_t)block);
  if (MLZ_UNLIKELY(!piece)) return NOT_MARKED;
  _Atomic uint64_t *word = &piece->map[MLZ_MARKS_SHARED][mlz_marks_word((uintptr_t)block)];
  uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
  if (!mlz_marks_in(old, (uintptr_t)block)) return mlz_marks_test(block, MLZ_MARKS_PLAIN) ? ODD : NOT_MARKED;
  struct mlz_thread *th = t->thread;
  if (MLZ_UNLIKELY(!quick(t, th))) return ODD;
  if (MLZ_UNLIKELY(mlz_marks_locked(MLZ_MARKS_SHARED)))
    atomic_fetch_and_explicit(word, ~mlz_marks_bit((uintptr_t)block), memory_order_relaxed);
  else
    atomic_store_explicit(word, old & ~mlz_marks_bit((uintptr_t)block), memory_order_relaxed);
  bool temporary = t->last_block == block;
  *th->out.cursor =
      mlz_event_block_word(MLZ_K_FREE, MLZ_F_NOGIL, MLZ_D_MALLOC, block) + mlz_head_word(0, temporary ? MLZ_F_TEMPORARY : 0, 0, 0);
  mlz_producer_advance(&th->out, 1);
  if (MLZ_UNLIKELY(temporary)) t->last_block = NULL;
  return TOLD;
}

/* Of functions that are not called so often: without a twin. */
#define FRAME_IF_NATIVE() (MLZ_UNLIKELY(mlz_agent.native) ? MLZ_NATIVE_FRAME() : NULL)

/* malloc, calloc and realloc where native stacks are captured: functions of their own, jumped to, so that the others need no frame pointer. */
#define TWIN static __attribute__((noinline))

TWIN void *native_malloc(size_t size) {
  busy(&mlz_tls, MLZ_BUSY_INNER);
  return native_after(next.malloc(size), size, MLZ_NATIVE_FRAME());
}
TWIN void *malloc_any(size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(!ready())) return early_alloc(size);
  if (!reports(t)) return next.malloc(size);
  if (MLZ_UNLIKELY(mlz_agent.native)) return native_malloc(size);
  busy(t, MLZ_BUSY_INNER);
  return after(next.malloc(size), size);
}
EXPORT void *malloc(size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(atomic_load_explicit(&resolved, memory_order_acquire) != 2) || MLZ_UNLIKELY(t->busy) ||
      MLZ_UNLIKELY(atomic_load_explicit(&mlz_python.wrap_pending, memory_order_relaxed)) || MLZ_UNLIKELY(!mlz_agent.trace_malloc))
    return malloc_any(size);
  if (MLZ_UNLIKELY(mlz_agent.native)) return native_malloc(size);
  busy(t, MLZ_BUSY_INNER);
  return after(next.malloc(size), size);
}

TWIN void *native_calloc(size_t n, size_t size) {
  busy(&mlz_tls, MLZ_BUSY_INNER);
  return native_after(next.calloc(n, size), n * size, MLZ_NATIVE_FRAME());
}

EXPORT void *calloc(size_t n, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(!ready())) return early_alloc(n * size); /* static memory is zero */
  if (!reports(t)) return next.calloc(n, size);
  if (MLZ_UNLIKELY(mlz_agent.native)) return native_calloc(n, size);
  busy(t, MLZ_BUSY_INNER);
  return after(next.calloc(n, size), n * size);
}

static MLZ_COLD void *early_realloc(void *old, size_t size) {
  size_t old_size;
  memcpy(&old_size, (char *)old - 16, sizeof(old_size));
  void *block = malloc(size);
  if (block) memcpy(block, old, old_size < size ? old_size : size);
  return block;
}

MLZ_INLINE void *traced_realloc(struct mlz_tls *t, void *old, size_t size, const uintptr_t *frame) {
  busy(t, old ? MLZ_BUSY_EVENT : MLZ_BUSY_INNER);
  if (!old) return after_alloc(t, next.realloc(old, size), size, frame);
  bool begun = mlz_agent_enter(t) && mlz_record_realloc_begin(t, MLZ_D_MALLOC, old);
  busy(t, MLZ_BUSY_INNER);
  void *block = next.realloc(old, size);
  busy(t, MLZ_BUSY_EVENT);
  if (mlz_agent_enter(t)) mlz_record_realloc_end(t, MLZ_D_MALLOC, begun, old, block, size, frame);
  busy(t, MLZ_BUSY_NOT);
  return block;
}
TWIN void *native_realloc(void *old, size_t size) { return traced_realloc(&mlz_tls, old, size, MLZ_NATIVE_FRAME()); }

EXPORT void *realloc(void *old, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(is_early(old))) return early_realloc(old, size);
  if (MLZ_UNLIKELY(!ready())) return early_alloc(size);
  if (!reports(t)) {
    if (old) mlz_record_free_inside(t, MLZ_D_MALLOC, old);
    return next.realloc(old, size);
  }
  if (MLZ_UNLIKELY(mlz_agent.native)) return native_realloc(old, size);
  return traced_realloc(t, old, size, NULL);
}

EXPORT void *reallocarray(void *old, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes)) {
    errno = ENOMEM;
    return NULL;
  }
  return realloc(old, bytes);
}

static __attribute__((noinline)) void free_any(void *block) { mlz_record_free(&mlz_tls, MLZ_D_MALLOC, block); }
static __attribute__((noinline)) void free_inside(void *block) {
  mlz_record_free_inside(&mlz_tls, MLZ_D_MALLOC, block);
  next.free(block);
}

EXPORT void free(void *block) {
  struct mlz_tls *t = &mlz_tls;
  bool outermost = !t->busy;
  if (MLZ_LIKELY(outermost)) {
    busy(t, MLZ_BUSY_EVENT);
    enum freed freed = free_quick(t, block);
    if (MLZ_UNLIKELY(freed == ODD)) free_any(block);
    if (MLZ_LIKELY(freed != NOT_MARKED)) { /* so it came from the allocator, which is known */
      busy(t, MLZ_BUSY_INNER);
      next.free(block);
      busy(t, MLZ_BUSY_NOT);
      return;
    }
  }
  if (MLZ_LIKELY(block && !is_early(block) && ready())) {
    if (MLZ_UNLIKELY(!outermost)) {
      free_inside(block);
      return;
    }
    busy(t, MLZ_BUSY_INNER);
    next.free(block);
  }
  if (outermost) busy(t, MLZ_BUSY_NOT);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (!ready()) return ENOMEM;
  if (!reports(t)) return next.posix_memalign(out, alignment, size);
  busy(t, MLZ_BUSY_INNER);
  int r = next.posix_memalign(out, alignment, size);
  after_alloc(t, r == 0 ? *out : NULL, size, FRAME_IF_NATIVE());
  return r;
}

#define ALIGNED(name)                                                                                                                      \
  EXPORT void *name(size_t alignment, size_t size) {                                                                                       \
    struct mlz_tls *t = &mlz_tls;                                                                                                          \
    if (!ready()) return NULL;                                                                                                             \
    if (!reports(t)) return next.name(alignment, size);                                                                                    \
    busy(t, MLZ_BUSY_INNER);                                                                                                               \
    return after_alloc(t, next.name(alignment, size), size, FRAME_IF_NATIVE());                                                            \
  }
ALIGNED(aligned_alloc)
ALIGNED(memalign)

#define PAGED(name, recorded)                                                                                                              \
  EXPORT void *name(size_t size) {                                                                                                         \
    struct mlz_tls *t = &mlz_tls;                                                                                                          \
    if (!ready()) return NULL;                                                                                                             \
    if (!reports(t)) return next.name(size);                                                                                               \
    busy(t, MLZ_BUSY_INNER);                                                                                                               \
    return after_alloc(t, next.name(size), recorded, FRAME_IF_NATIVE());                                                                   \
  }
PAGED(valloc, size)
PAGED(pvalloc, (size + PAGE - 1) & ~(size_t)(PAGE - 1))

/* ---- address space: a domain of its own; always sent, the recorder keeps the intervals ---- */

static size_t pages(size_t bytes) { return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1); }

static void record_mmap(struct mlz_tls *t, void *address, size_t bytes, const uintptr_t *frame) {
  if (!mlz_agent_enter(t) || (t->settings & MLZ_SET_PAUSED)) return;
  const char *ts = mlz_record_tstate(t->thread, MLZ_D_MMAP);
  if (frame && !mlz_native_capture(t, frame, ts)) {
    mlz_event_lost(t->thread, false);
    return;
  }
  mlz_event_alloc(t, MLZ_K_MMAP, mlz_python_stack(t, ts), MLZ_D_MMAP, address, pages(bytes), ts != NULL);
}
static void record_munmap(struct mlz_tls *t, void *address, size_t bytes) {
  if (!mlz_agent_enter(t) || ((uintptr_t)address & (PAGE - 1)) || !bytes) return;
  struct mlz_thread *th = t->thread;
  int32_t i = mlz_event_open(th, 2, mlz_record_gil(th, MLZ_D_MMAP), MLZ_ROOM_BLOCK, true);
  if (i < 0) return;
  mlz_event_close(th, mlz_event_pair(th, i, mlz_event_block_word(MLZ_K_MUNMAP, 0, MLZ_D_MMAP, address), pages(bytes)));
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  struct mlz_tls *t = &mlz_tls;
  if (!ready() || !next.mmap) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  if (!reports(t) || !mlz_agent.trace_malloc) return next.mmap(address, bytes, protection, flags, fd, offset);
  busy(t, MLZ_BUSY_INNER);
  void *m = next.mmap(address, bytes, protection, flags, fd, offset);
  busy(t, MLZ_BUSY_EVENT);
  if (m != MAP_FAILED) record_mmap(t, m, bytes, FRAME_IF_NATIVE());
  busy(t, MLZ_BUSY_NOT);
  return m;
}
EXPORT void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) __attribute__((alias("mmap")));

EXPORT int munmap(void *address, size_t bytes) {
  struct mlz_tls *t = &mlz_tls;
  if (!ready() || !next.munmap) {
    errno = EINVAL;
    return -1;
  }
  if (!reports(t) || !mlz_agent.trace_malloc) return next.munmap(address, bytes);
  busy(t, MLZ_BUSY_EVENT);
  record_munmap(t, address, bytes);
  busy(t, MLZ_BUSY_INNER);
  int r = next.munmap(address, bytes);
  busy(t, MLZ_BUSY_NOT);
  return r;
}

EXPORT void *mremap(void *address, size_t old_bytes, size_t bytes, int flags, ...) {
  struct mlz_tls *t = &mlz_tls;
  va_list rest;
  va_start(rest, flags);
  void *to = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
  va_end(rest);
  if (!ready() || !next.mremap) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  if (!reports(t) || !mlz_agent.trace_malloc) return next.mremap(address, old_bytes, bytes, flags, to);
  busy(t, MLZ_BUSY_EVENT);
  bool may_move = flags & (MREMAP_MAYMOVE | MREMAP_FIXED), keeps_old = old_bytes == 0 || (flags & 4 /* MREMAP_DONTUNMAP */);
  if (may_move && !keeps_old) record_munmap(t, address, old_bytes); /* before another thread can be given the range */
  busy(t, MLZ_BUSY_INNER);
  void *m = next.mremap(address, old_bytes, bytes, flags, to);
  busy(t, MLZ_BUSY_EVENT);
  if (m == MAP_FAILED) {
    int saved = errno;
    if (may_move && !keeps_old) record_mmap(t, address, old_bytes, FRAME_IF_NATIVE());
    errno = saved;
  } else {
    if (!may_move) record_munmap(t, address, old_bytes);
    record_mmap(t, m, bytes, FRAME_IF_NATIVE());
  }
  busy(t, MLZ_BUSY_NOT);
  return m;
}

/* ---- a process that runs already ---- */

#define FAMILY(X)                                                                                                                          \
  X(malloc)                                                                                                                                \
  X(calloc)                                                                                                                                \
  X(realloc)                                                                                                                               \
  X(reallocarray) X(free) X(posix_memalign) X(aligned_alloc) X(memalign) X(valloc) X(pvalloc) X(mmap) X(mmap64) X(munmap) X(mremap)
/* What the exported names mean here: by those names the loader gives the C library's. */
#define HERE(name) extern __typeof__(name) here_##name __attribute__((alias(#name), visibility("hidden"), copy(name)));
FAMILY(HERE)
#define ROW(name) {#name, (void *)here_##name, NULL},
static struct mlz_redirect redirects[] = {FAMILY(ROW)};

struct mlz_redirect *mlz_libc_redirects(unsigned *n) {
  *n = sizeof(redirects) / sizeof(redirects[0]);
  return redirects;
}

void mlz_libc_resolve(void) {
  uint32_t state = 0;
  if (!atomic_compare_exchange_strong(&resolved, &state, 1)) return;
#define FIND(name) *(void **)&next.name = mlz_modules_find(#name);
  NEXT(FIND)
#undef FIND
  atomic_store(&resolved, 2);
}
