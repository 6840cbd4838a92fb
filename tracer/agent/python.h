/* The interpreter, as seen from inside its allocator hooks, without its headers: what was found at run time.
 *
 * Byte offsets per version; sources: CPython 3.8-3.14 Include/internal/pycore_frame.h, pycore_runtime.h,
 * Include/cpython/{code,frameobject,pystate}.h, Modules/gcmodule.c (Python/gc.c), checked against the running
 * interpreter before the first walk (mlz_python_check). An interpreter that does not pass is traced without stacks. */
#ifndef MLZ_AGENT_PYTHON_H
#define MLZ_AGENT_PYTHON_H

#include "agent.h"

#pragma GCC visibility push(hidden)

struct mlz_py_layout {
  uint16_t minor;
  uint16_t tstate_frame; /* to the top frame, or to the cframe */
  int16_t cframe_frame;  /* from the cframe to the top frame; -1: there is none */
  uint16_t frame_previous, frame_code, frame_instr, frame_owner, frame_globals;
  uint16_t tstate_interp, tstate_thread_id;
  uint16_t code_start, code_first_line, code_file, code_name, code_qualname /* 0: none */, code_lines, code_traceable, code_extra;
  uint16_t lines_format; /* enum mlz_linetable */
  uint16_t str_ascii_data, str_data;
  uint16_t runtime_initialized;
  uint16_t gc_in_runtime; /* 1: gc_base is relative to _PyRuntime, else to the interpreter */
  uint32_t gc_base;
  uint16_t gc_stats, gc_collecting, gc_callbacks;
};

/* NULL: a version that is not known, or a free-threaded build. */
const struct mlz_py_layout *mlz_python_layout_for(const char *version);
/* Does it agree with the offsets that the interpreter itself publishes (3.13 and later, in _PyRuntime)? Earlier versions: true. */
bool mlz_python_layout_published(const struct mlz_py_layout *l, const char *runtime);

#define MLZ_TSTATE_INTERP 16 /* PyThreadState.interp, in every version */

enum mlz_py_state {
  MLZ_PY_NONE = 0,    /* no interpreter in this process */
  MLZ_PY_NEW = 1,     /* hooks are in, nothing was checked yet */
  MLZ_PY_READY = 2,   /* stacks are walked */
  MLZ_PY_UNKNOWN = 3, /* no stacks: version or layout not known */
};

/* allocator table of PyMem_SetAllocator: CPython Include/cpython/pymem.h */
struct mlz_py_allocator {
  void *ctx;
  void *(*malloc)(void *ctx, size_t size);
  void *(*calloc)(void *ctx, size_t n, size_t size);
  void *(*realloc)(void *ctx, void *p, size_t size);
  void (*free)(void *ctx, void *p);
};

struct mlz_py_arenas { /* PyObjectArenaAllocator */
  void *ctx;
  void *(*alloc)(void *ctx, size_t size);
  void (*free)(void *ctx, void *arena, size_t size);
};

/* Compares the thread's stack with what it remembers. 0: unchanged; MLZ_STACK_CHANGED: the difference is in th; MLZ_F_NOSTACK: there is none. */
typedef unsigned mlz_capture_function(struct mlz_thread *th, const char *tstate);

struct mlz_stack_reader;
struct mlz_python {
  _Atomic uint32_t state; /* enum mlz_py_state */
  const struct mlz_py_layout *layout;
  const struct mlz_stack_reader *reader; /* NULL: no stacks */
  char *runtime;                         /* &_PyRuntime */
  const int *initialized;                /* the runtime's flag; a constant 1 where it was not found */
  const int *collecting;                 /* the main interpreter's; a constant 0 until known */
  const void *const *tstate_global;      /* <= 3.11: where the GIL holder's state is kept */
  void *(*tstate_get)(void);
  void *(*tstate_own)(void); /* PyGILState_GetThisThreadState */
  void *(*main_one)(void);   /* PyInterpreterState_Main; NULL before 3.7 */
  int (*is_initialized)(void);
  const void *main_interp;
  bool seen_initialized;         /* it was initialised when code was last seen for the first time: 0 is the end then, not the beginning */
  _Atomic uint32_t wrap_pending; /* look, in malloc, whether pre-initialisation replaced our hooks */
  bool ended;                    /* it has begun to finalise; true until it is begun again */
  long extra_index;
  bool extra_ready;
  bool watched;        /* instead of co_extra: code_ids.h; decided once */
  uint32_t id_session; /* upper half of what co_extra holds: an id of another session of this process is none */
  char version[32];

  /* of the C API */
  void (*mem_get)(int domain, struct mlz_py_allocator *a);
  void (*mem_set)(int domain, struct mlz_py_allocator *a);
  void (*arena_get)(struct mlz_py_arenas *a);
  void (*arena_set)(struct mlz_py_arenas *a);
  int (*add_pending)(int (*f)(void *), void *arg);
  long (*extra_request)(void (*free_function)(void *));
  int (*watch)(int (*callback)(int event, void *code)); /* PyCode_AddWatcher */
  int64_t (*interp_number)(const void *interp);
  void *(*dict_get)(void *dict, void *key);
  void *(*intern)(const char *);
  void (*err_fetch)(void **, void **, void **);
  void (*err_restore)(void *, void *, void *);
  void (*err_clear)(void);
  void *type_code, *type_unicode, *type_bytes, *type_list;
  void *name_key; /* interned "__name__" */
};
extern struct mlz_python mlz_python;
static inline __attribute__((always_inline)) bool mlz_python_unchecked(void) {
  return atomic_load_explicit(&mlz_python.state, memory_order_relaxed) == MLZ_PY_NEW;
}

/* From the constructor, or where a session is started in a running process: finds the interpreter and installs the hooks. */
void mlz_python_start(void);
/* hooks_python.c */
bool mlz_python_install(void);
void mlz_python_count(void);  /* where there are several interpreters, of which each may have a GIL: marks are atomic from now on */
void mlz_python_rewrap(void); /* from malloc, while wrap_pending */
bool mlz_python_arenas_hidden(void);
void mlz_python_arenas(void); /* takes pymalloc's arenas out of the mmap hooks' sight: they are what obj and mem blocks are made of */
void mlz_python_on_top(void); /* puts our hooks back where the interpreter has thrown them out */
extern const struct mlz_py_allocator mlz_python_hooks[3];              /* by domain: the ones that ask every question anew */
struct mlz_py_allocator *mlz_python_inner(void *ctx, unsigned domain); /* what a hook that was called with this ctx calls */
struct mlz_py_allocator mlz_python_whole(unsigned domain);             /* the hooks of a session that may record all, without a ctx */
bool mlz_python_ours(const struct mlz_py_allocator *a);                /* is it hooks of ours? */
void mlz_python_free_any(struct mlz_py_allocator *in, void *block, unsigned domain); /* of a marked block */
bool mlz_python_place(const void *ctx);         /* of a hook of ours; behind functions that are not, nobody looks at it */
struct mlz_py_allocator mlz_python_under(void); /* what our hooks call in the mem domain; the GIL is held */

/* hooks_slim.c: puts the hooks of a session that records few allocations into hooks[3], if this one does and `under`, what they are to call, is fit for
 * them. False: nothing was done. */
#define MLZ_SLIM_RATE                                                                                                                      \
  0x07ffffffu /* of the settings word: 1/32. At 1/20 what recorded blocks cost more outside their arenas eats up what is saved (callgrind) */
bool mlz_slim_hooks(const struct mlz_py_allocator *under, struct mlz_py_allocator *hooks);

/* hooks_running.c: the same for a session that is started in an interpreter that runs, and that ends before it. The GIL is held. */
bool mlz_running_hook(void);   /* puts our hooks on top, unless they are there; false: the interpreter has no allocators */
void mlz_running_arenas(void); /* mlz_python_arenas, in every session */
bool mlz_running_arenas_hidden(void);
/* Read through the kernel: what lies behind pointers of others is not known. */
bool mlz_python_peek(const void *address, void *out, size_t bytes);
void mlz_running_look(void);   /* whether somebody who came before us and has gone has thrown our hooks out: puts them back */
void mlz_running_unhook(void); /* gives back what was hooked, as far as nobody hooked it after us */
/* A block that PyMem_Free may free, unseen by every hook; and the end of such a block, or of one that is reported where it was recorded. For whoever is
 * busy with OWN. */
void *mlz_running_mem_alloc(size_t size);
void mlz_running_mem_free(void *block);

/* The first event with a frame: checks the layout, sends PYTHON, prepares GC and code ids. The GIL is held. */
MLZ_COLD void mlz_python_check(struct mlz_tls *t, const char *tstate);
MLZ_COLD void mlz_python_begin(struct mlz_tls *t, const char *tstate); /* the same, or mlz_python_again */
bool mlz_python_in_main(const char *tstate);                           /* is it the main interpreter's? */
void mlz_python_retell(struct mlz_thread *th);
MLZ_COLD bool mlz_python_again(struct mlz_thread *th);
MLZ_COLD void mlz_python_find_slot(struct mlz_thread *th);
/* The interpreter of this thread changed: is it one that we can take code ids from? */
MLZ_COLD bool mlz_python_interp(struct mlz_thread *th, const void *interp);
bool mlz_python_interp_holds(struct mlz_thread *th);

/* code.c: the id of a code object seen for the first time; 0: none could be had. */
MLZ_COLD uint32_t mlz_code_register(struct mlz_thread *th, const char *frame, const char *code);
bool mlz_code_prepare(void);
bool mlz_code_place(void); /* a place for us in the current interpreter: the one in co_extra that we have in the main one, or a watcher */
uint32_t mlz_code_utf8(const char *string, uint8_t *out, uint32_t size); /* of a str object; 0: none, or too long */

/* names.c */
void mlz_names_prepare(void);
void mlz_names_look(struct mlz_tls *t);

/* gc.c */
void mlz_gc_prepare(void);
/* collecting != 0: true if this allocation is made only because our callback exists. */
MLZ_COLD bool mlz_gc_hides(bool obj_domain, size_t size);
void mlz_gc_finalize(void);
void mlz_gc_install(void); /* at once; the GIL is held, and calling the interpreter is safe here */
void mlz_gc_leave(void);   /* takes the callback out */

/* stack.c: what is compiled for each layout of frames. */
struct mlz_stack_reader {
  mlz_capture_function *capture;
  unsigned (*bare)(const char *tstate); /* for native stacks: how many innermost loops of the interpreter run no frame. NULL: never any */
  /* Hooks with the walk in them (hooks_quick.h). NULL with native stacks, but for the second half: hooks of an earlier
   * session of the process may still be there. */
  void *(*obj_malloc)(void *ctx, size_t size);
  void *(*obj_realloc)(void *ctx, void *old, size_t size);
  void *(*mem_malloc)(void *ctx, size_t size);
  void *(*mem_calloc)(void *ctx, size_t n, size_t size);
  void *(*mem_realloc)(void *ctx, void *old, size_t size);
  /* Their second half, for a block that was chosen: tells of it, and returns it. */
  void *(*obj_after)(void *block, size_t size);
  void *(*mem_after)(void *block, size_t size);
};
const struct mlz_stack_reader *mlz_stack_reader_for(unsigned minor, bool native); /* NULL: none; native: frames carry MLZ_FRAME_INLINED */

/* hooks_python.c: what those hooks leave to others. First where the allocator has done its work, t->busy is EVENT and the event is due;
 * they return `block`. */
MLZ_COLD void *mlz_python_alloc_any(struct mlz_tls *t, void *block, size_t size, unsigned domain);
MLZ_COLD void *mlz_python_realloc_any(struct mlz_tls *t, void *old, void *block, size_t size, unsigned domain);
/* The whole call, where a hook of the thread is running already, or anything else is odd. */
MLZ_COLD void *mlz_python_malloc_any(struct mlz_py_allocator *in, size_t size, unsigned domain);
void *mlz_python_calloc_any(struct mlz_py_allocator *in, size_t n, size_t size, unsigned domain);
void *mlz_python_realloc_whole(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain);
/* The whole call, where some allocations are passed over: a budget of 2 ns for those. t->busy is NOT, the countdown runs. */
void *mlz_python_malloc_sampled(struct mlz_py_allocator *in, size_t size, unsigned domain);
void *mlz_python_calloc_sampled(struct mlz_py_allocator *in, size_t n, size_t size);                    /* of mem */
void *mlz_python_realloc_sampled(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain); /* old is a block */

/* The current thread state as the mem and obj hooks may believe it. */
static inline __attribute__((always_inline)) const char *mlz_python_tstate(struct mlz_thread *th) {
  if (MLZ_UNLIKELY(th->tstate_slot == MLZ_SLOT_UNKNOWN)) mlz_python_find_slot(th);
  if (MLZ_LIKELY(th->tstate_slot != MLZ_SLOT_UNKNOWN && th->tstate_slot != MLZ_SLOT_NONE))
    return __atomic_load_n((const char *const *)th->tstate_slot, __ATOMIC_RELAXED);
  return mlz_python.tstate_get();
}

/* As mlz_python_tstate, for hooks that may run without the GIL: NULL unless this very thread holds it. */
static inline __attribute__((always_inline)) const char *mlz_python_tstate_checked(struct mlz_thread *th) {
  const char *ts = mlz_python_tstate(th);
  if (!ts || !mlz_python.tstate_global) return ts; /* 3.12 and later: the state is the thread's own */
  return ts == mlz_python.tstate_own() ? ts : NULL;
}

/* The Python stack of an event: as mlz_capture_function. */
static inline __attribute__((always_inline)) unsigned mlz_python_stack(struct mlz_tls *t, const char *tstate) {
  struct mlz_thread *th = t->thread;
  if (MLZ_UNLIKELY(!tstate || th->depth == 0)) {
    if (tstate) {
      if (*mlz_python.initialized) mlz_python.seen_initialized = true; /* else mlz_code_register does it */
      const void *interp = *(const void *const *)(const void *)(tstate + MLZ_TSTATE_INTERP);
      if (MLZ_UNLIKELY(interp != th->interp) && mlz_python.main_interp) mlz_python_interp(th, interp); /* else the walk does it */
      if (MLZ_UNLIKELY(mlz_python_unchecked())) mlz_python_check(t, tstate);
    }
    return MLZ_F_NOSTACK;
  }
  if (MLZ_UNLIKELY(atomic_load_explicit(&mlz_python.state, memory_order_relaxed) != MLZ_PY_READY)) {
    mlz_python_check(t, tstate);
    if (atomic_load_explicit(&mlz_python.state, memory_order_relaxed) != MLZ_PY_READY) return MLZ_F_NOSTACK;
  }
  return mlz_python.reader->capture(th, tstate);
}

/* The same for a thread that has given the GIL away: nobody else changes its frames meanwhile. The interpreter is not called, so code that was
 * never seen has no name. */
MLZ_COLD unsigned mlz_python_stack_detached(struct mlz_thread *th);

/* The interpreter is looked at, and the collector's callback made, at the first allocation that has a frame, whether that is recorded or not: what we take
 * from the interpreter's free lists must not depend on the rate. So it is where one begins again. */
static inline __attribute__((always_inline)) void mlz_python_look_begin(struct mlz_tls *t, const char *tstate) {
  if ((MLZ_UNLIKELY(mlz_python_unchecked()) || MLZ_UNLIKELY(mlz_python.ended)) && tstate) mlz_python_begin(t, tstate);
}

/* Has the interpreter begun to finalise? One load; the first yes sends FINALIZE. */
static inline __attribute__((always_inline)) void mlz_python_look_finalize(struct mlz_tls *t) {
  if (MLZ_LIKELY(*mlz_python.initialized)) return;
  if (mlz_python.seen_initialized && !atomic_load_explicit(&mlz_agent.finalized, memory_order_relaxed)) {
    mlz_python.ended = true;
    mlz_gc_finalize();
    mlz_process_finalize(t);
  }
}

#pragma GCC visibility pop
#endif
