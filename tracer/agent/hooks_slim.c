/* The hooks of a session that records few allocations: those that are passed over, and their frees, cost next to nothing.
 *
 * A block of mem or obj that is recorded is made to live outside pymalloc's arenas. The interpreter's own allocator is asked for more than pymalloc
 * gives (ASK), while the thread's wish says what is wanted; so it asks PyMem_RawMalloc, which is our raw hook, which gives what is wanted. Whatever
 * frees or resizes such a block finds no arena, and comes to our raw hook again. So free of mem and obj stays the interpreter's own function, and only
 * recorded blocks (and what is no arena's anyway) are looked at. docs/architecture.md, "Few of many".
 *
 * That the allocator is one that behaves so is tried first (behaves). Where it is not, and where the rate is raised, the hooks of hooks_python.c are put
 * in, before the first block inside an arena is recorded: from then on a mark tells, as ever. Any thread; mem and obj under the GIL. */
#include "record.h"

#include <string.h>

enum { ASK = 513 }; /* more than pymalloc gives: CPython Objects/obmalloc.c, SMALL_REQUEST_THRESHOLD, 3.8-3.14 */

struct mlz_wish {
  size_t ask;         /* the request that is meant */
  size_t bytes;       /* what it is to be given */
  void *got;          /* what our raw hook gave, or resized: that address it will see again */
  const void *caller; /* of our raw hook */
  const void *freed;  /* what it was given to free */
};

enum state { UNTRIED, WORKS, WORKS_NOT };
static struct {
  uint32_t state; /* enum state */
  uint32_t whole; /* session in which the other hooks were put in: there is no way back, blocks inside arenas may be marked */
  uint32_t tries; /* to put them in */
  const void *caller
      [2]; /* of our raw hook, when the interpreter's allocator calls it: malloc, calloc. Nobody stands in between who might write where
                          * he believes that he was given ASK bytes */
} slim;

static void busy(struct mlz_tls *t, enum mlz_busy with) {
  atomic_signal_fence(memory_order_seq_cst);
  t->busy = with;
  atomic_signal_fence(memory_order_seq_cst);
}

/* ---- raw ---- */

#define ARENA_TABLE UINT64_C(768) /* 16 x sizeof(struct arena_object), doubled when it is full: CPython Objects/obmalloc.c, new_arena */

/* pymalloc's own tables are no allocations of the program: that a block of mem or obj is being made below is not known where it is passed over. A fork's
 * child comes here, too, before it has entered, with its thread's memory wiped. */
static bool table_grows(const uint64_t *old, size_t size) {
  if (!old || !mlz_tls.image || mlz_tls.image != atomic_load_explicit(&mlz_wiped_get()->image, memory_order_relaxed) ||
      size % ARENA_TABLE || (size / ARENA_TABLE & (size / ARENA_TABLE - 1)) || !mlz_python_tstate_checked(mlz_tls.thread))
    return false;
  uint64_t first[3]; /* of its first arena: address, pool_address, nfreepools and ntotalpools */
  if (!mlz_python_peek(old, first, sizeof(first))) return false;
  uint32_t free_pools = (uint32_t)first[2], pools = (uint32_t)(first[2] >> 32);
  return first[0] && !(first[0] & 4095) && first[1] - first[0] <= 1 << 20 && free_pools <= pools && (pools == 63 || pools == 64);
}
static bool node_made(struct mlz_tls *t, size_t n, size_t size) {
  struct mlz_thread *th = t->thread;
  if (MLZ_LIKELY(!th->arena_new)) return false;
  if (n == 1 && size >= 1024 && th->arena_still == mlz_gate_still(t))
    return true; /* of the map of arenas (3.10 and later): right after it */
  th->arena_new = false;
  return false;
}

/* Debug hooks in between ask for some words more. */
static bool wished(const struct mlz_tls *t, size_t size) { return MLZ_UNLIKELY(t->wish) && size - t->wish->ask <= 64; }

static void *grant(struct mlz_py_allocator *in, size_t size, bool zero, const void *caller) {
  struct mlz_wish *w = mlz_tls.wish;
  size_t bytes = caller == slim.caller[zero] && size == w->ask ? w->bytes : size;
  mlz_tls.wish = NULL;
  w->caller = caller;
  w->got = zero ? in->calloc(in->ctx, 1, bytes) : in->malloc(in->ctx, bytes);
  return w->got;
}

static void *raw_malloc(void *ctx, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (wished(t, size)) return grant(mlz_python_inner(ctx, MLZ_D_RAW), size, false, __builtin_return_address(0));
  return mlz_python_hooks[MLZ_D_RAW].malloc(ctx, size);
}

static void *raw_calloc(void *ctx, size_t n, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  if (wished(t, n * size)) return grant(mlz_python_inner(ctx, MLZ_D_RAW), n * size, true, __builtin_return_address(0));
  if (MLZ_LIKELY(!t->busy) && MLZ_UNLIKELY(node_made(t, n, size))) {
    struct mlz_py_allocator *in = mlz_python_inner(ctx, MLZ_D_RAW);
    busy(t, MLZ_BUSY_INNER);
    void *block = in->calloc(in->ctx, n, size);
    busy(t, MLZ_BUSY_NOT);
    return block;
  }
  return mlz_python_hooks[MLZ_D_RAW].calloc(ctx, n, size);
}

static void *raw_realloc(void *ctx, void *old, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  struct mlz_py_allocator *in = mlz_python_inner(ctx, MLZ_D_RAW);
  struct mlz_wish *w = t->wish;
  if (MLZ_UNLIKELY(w)) {
    t->wish = NULL; /* whoever stands above may allocate for himself before he returns */
    mlz_record_free_inside(t, MLZ_D_RAW, old);
    w->caller = NULL;
    return w->got = in->realloc(in->ctx, old, size);
  }
  if (MLZ_LIKELY(!t->busy) && MLZ_UNLIKELY(table_grows(old, size)) && !mlz_record_marked(old, MLZ_D_RAW)) {
    busy(t, MLZ_BUSY_INNER);
    void *block = in->realloc(in->ctx, old, size);
    busy(t, MLZ_BUSY_NOT);
    return block;
  }
  return mlz_python_hooks[MLZ_D_RAW].realloc(ctx, old, size);
}

static void raw_free(void *ctx, void *block) {
  struct mlz_py_allocator *in = mlz_python_inner(ctx, MLZ_D_RAW);
  struct mlz_tls *t = &mlz_tls;
  if (MLZ_UNLIKELY(t->wish)) t->wish->freed = block;
  if (MLZ_UNLIKELY(mlz_marks_test(block, MLZ_MARKS_PLAIN))) {
    /* Of obj or mem, so the GIL is held: it came through their free. Which of both nobody asks. */
    if (MLZ_LIKELY(t->busy == MLZ_BUSY_NOT)) mlz_gate_settle(t);
    if (MLZ_UNLIKELY(mlz_record_free_quick(block, mlz_head_word(MLZ_K_FREE, 0, MLZ_D_OBJ, 0)) == MLZ_FREE_ODD)) {
      mlz_python_free_any(in, block, MLZ_D_OBJ);
      return;
    }
  } else if (MLZ_UNLIKELY(mlz_marks_test(block, MLZ_MARKS_SHARED))) {
    mlz_python_free_any(in, block, MLZ_D_RAW);
    return;
  }
  in->free(in->ctx, block);
}

/* ---- which hooks ---- */

/* The allocator of mem and obj, asked for a block as a recorded one will be asked for, in the way of the hooks, must come to our raw hook for it, for its
 * resizing and for its end. The GIL is held; t->busy is not NOT. */
static bool behaves(struct mlz_py_allocator *in) {
  struct mlz_tls *t = &mlz_tls;
  bool well = true;
  for (int zero = 0; zero < 2 && well; zero++) {
    struct mlz_wish w = {.ask = ASK, .bytes = ASK};
    t->wish = &w;
    void *block = zero ? in->calloc(in, 1, ASK) : in->malloc(in, ASK);
    t->wish = NULL;
    if (!block) return false;
    well = w.got == block && w.caller;
    slim.caller[zero] = w.caller;
    w.got = NULL;
    if (well) {
      t->wish = &w;
      void *moved = in->realloc(in, block, ASK + 16);
      t->wish = NULL;
      well = moved && w.got == moved;
      if (moved) block = moved;
    }
    t->wish = &w;
    in->free(in, block);
    t->wish = NULL;
    well = well && w.freed == block;
  }
  return well;
}

static bool top_is_ours(int domain, struct mlz_py_allocator *top) {
  mlz_python.mem_get(domain, top);
  return mlz_python_ours(top);
}

static MLZ_COLD void try(struct mlz_tls *t, struct mlz_py_allocator *in) {
  struct mlz_py_allocator top;
  if (!mlz_python.tstate_get()) return; /* from 3.12 on it would be looked for in vain */
  busy(t, MLZ_BUSY_INNER);
  slim.state =
      top_is_ours(MLZ_D_RAW, &top) && top_is_ours(MLZ_D_MEM, &top) && top_is_ours(MLZ_D_OBJ, &top) && behaves(in) ? WORKS : WORKS_NOT;
  busy(t, MLZ_BUSY_NOT);
}

/* The hooks that look at every free: first those of free, for threads under another GIL may be calling meanwhile. False: ours are not on top, so they
 * could be put nowhere. */
static bool put_whole(void) {
  struct mlz_py_allocator top[3];
  if (slim.tries++ & 63) return false;
  if (!top_is_ours(MLZ_D_MEM, &top[MLZ_D_MEM]) || !top_is_ours(MLZ_D_OBJ, &top[MLZ_D_OBJ])) return false;
  for (int d = MLZ_D_MEM; d <= MLZ_D_OBJ; d++) {
    struct mlz_py_allocator whole = mlz_python_whole((unsigned)d);
    top[d].free = whole.free;
    mlz_python.mem_set(d, &top[d]);
  }
  for (int d = MLZ_D_MEM; d <= MLZ_D_OBJ; d++) {
    struct mlz_py_allocator whole = mlz_python_whole((unsigned)d);
    whole.ctx = top[d].ctx;
    mlz_python.mem_set(d, &whole);
  }
  slim.tries = 0;
  slim.whole = mlz_agent.session_number;
  return true;
}

/* ---- mem and obj ---- */

/* Is this allocation recorded? t->busy is EVENT from here on. As the beginning of mlz_record_alloc, before the block is there. */
static bool chosen(struct mlz_tls *t, size_t size, unsigned domain) {
  busy(t, MLZ_BUSY_EVENT);
  if (MLZ_UNLIKELY(!mlz_agent_enter(t))) return false;
  mlz_python_look_begin(t, mlz_python_tstate(t->thread));
  mlz_python_look_finalize(t);
  if (MLZ_UNLIKELY(*mlz_python.collecting) && mlz_gc_hides(domain == MLZ_D_OBJ, size)) return false;
  enum mlz_gate_answer answer = mlz_gate(t, size);
  if (MLZ_UNLIKELY(t->quick == 0) && t->countdown && slim.state == WORKS && mlz_running_arenas_hidden() &&
      atomic_load_explicit(&mlz_python.state, memory_order_relaxed) == MLZ_PY_READY)
    t->quick = (t->over < ASK ? t->over : ASK) - 1;
  t->chosen = answer;
  return answer != MLZ_GATE_PASS;
}

/* How a chosen one is to be recorded. */
enum where { OUTSIDE, ANYWHERE, NOWHERE };
static MLZ_COLD enum where where_else(struct mlz_tls *t) {
  if (slim.state == WORKS && mlz_settings_rate(t->settings) <= MLZ_SLIM_RATE) return OUTSIDE;
  if (put_whole()) return ANYWHERE;
  return slim.state == WORKS ? OUTSIDE : NOWHERE;
}
MLZ_INLINE enum where where_of(struct mlz_tls *t) {
  busy(t, MLZ_BUSY_INNER);
  if (MLZ_LIKELY(slim.state == WORKS) && MLZ_LIKELY(mlz_settings_rate(t->settings) <= MLZ_SLIM_RATE)) return OUTSIDE;
  return where_else(t);
}

/* Tells of a chosen block; NULL where there is none, or none that we would hear of again. */
static void *tell(struct mlz_tls *t, void *block, void *known, size_t size, unsigned domain) {
  if (MLZ_UNLIKELY(block && !known)) {
    busy(t, MLZ_BUSY_EVENT);
    t->chosen = MLZ_GATE_PASS;
    mlz_record_refuse(t, &mlz_agent_control()->unmarked);
    slim.state = WORKS_NOT;
    busy(t, MLZ_BUSY_NOT);
    return block;
  }
  const struct mlz_stack_reader *reader = mlz_python.reader;
  if (MLZ_UNLIKELY(t->chosen == MLZ_GATE_CERTAIN))
    mlz_python_alloc_any(t, known, size, domain); /* says so in the record */
  else
    (domain == MLZ_D_OBJ ? reader->obj_after : reader->mem_after)(known, size);
  t->chosen = MLZ_GATE_PASS;
  return block;
}

/* There was no memory for a block outside, as there may have been inside: that one is not recorded. */
static MLZ_COLD void *inside(struct mlz_tls *t, void *block) {
  busy(t, MLZ_BUSY_EVENT);
  t->chosen = MLZ_GATE_PASS;
  if (block) mlz_record_refuse(t, &mlz_agent_control()->unmarked);
  busy(t, MLZ_BUSY_NOT);
  return block;
}

/* May the allocation be passed over, and nothing else be done, nor be said that the thread is busy? What is below would make a second allocation of it
 * where it is more than pymalloc gives, or nothing. Budget: 1 ns. */
MLZ_INLINE bool passed(struct mlz_tls *t, size_t size) {
  if (MLZ_UNLIKELY(size - 1 >= t->quick) || MLZ_UNLIKELY(*mlz_python.collecting)) return false;
  if (MLZ_LIKELY(--t->countdown != 0)) return true;
  t->countdown = 1;
  return false;
}

/* Where the stretch ends, for large blocks and for those that change their size: the settings are looked at, too. t->busy is EVENT from here on: another
 * thread, of another GIL, may be ending the session. */
MLZ_INLINE bool passed_looking(struct mlz_tls *t, size_t size) {
  busy(t, MLZ_BUSY_EVENT);
  if (MLZ_UNLIKELY(!t->quick) || MLZ_UNLIKELY(size >= t->over) || MLZ_UNLIKELY(*mlz_python.collecting) ||
      MLZ_UNLIKELY(t->image != atomic_load_explicit(&mlz_wiped_get()->image, memory_order_relaxed)) ||
      MLZ_UNLIKELY(t->settings != atomic_load_explicit(&mlz_agent_control()->settings, memory_order_relaxed)))
    return false;
  if (t->countdown > 1)
    t->countdown--;
  else if (t->countdown && t->later)
    mlz_gate_set(t, t->later);
  else
    return false;
  return true;
}

static __attribute__((noinline)) void *give(struct mlz_py_allocator *in, size_t size, unsigned domain, bool zero) {
  struct mlz_tls *t = &mlz_tls;
  void *block;
  if (MLZ_UNLIKELY(t->busy)) return zero ? mlz_python_calloc_any(in, 1, size, domain) : mlz_python_malloc_any(in, size, domain);
  if (MLZ_UNLIKELY(slim.state == UNTRIED)) try(t, in); /* before anybody else is on top */
  if (MLZ_LIKELY(passed_looking(t, size)) || !chosen(t, size, domain)) {
    busy(t, MLZ_BUSY_INNER);
    block = zero ? in->calloc(in->ctx, 1, size) : in->malloc(in->ctx, size);
    busy(t, MLZ_BUSY_NOT);
    return block;
  }
  enum where where = where_of(t);
  if (MLZ_UNLIKELY(where != OUTSIDE)) {
    block = zero ? in->calloc(in->ctx, 1, size) : in->malloc(in->ctx, size);
    return tell(t, block, where == NOWHERE ? NULL : block, size, domain);
  }
  struct mlz_wish w = {.ask = size < ASK ? ASK : size, .bytes = size < 16 ? 16 : size};
  t->wish = &w;
  block = zero ? in->calloc(in->ctx, 1, w.ask) : in->malloc(in->ctx, w.ask);
  t->wish = NULL;
  if (MLZ_UNLIKELY(!block) && size < ASK) return inside(t, zero ? in->calloc(in->ctx, 1, size) : in->malloc(in->ctx, size));
  return tell(t, block, w.got, size, domain);
}

MLZ_INLINE void *any_malloc(struct mlz_py_allocator *in, size_t size, unsigned domain) {
  if (MLZ_LIKELY(passed(&mlz_tls, size))) return in->malloc(in, size); /* it does not look at its ctx */
  return give(in, size, domain, false);
}
MLZ_INLINE void *any_calloc(struct mlz_py_allocator *in, size_t n, size_t size, unsigned domain) {
  if (MLZ_LIKELY(passed(&mlz_tls, n * size))) return in->calloc(in, n, size);
  return give(in, n * size, domain, true);
}

/* A recorded block: it stays outside. */
static __attribute__((noinline)) void *recorded_moves(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  struct mlz_wish w = {.ask = SIZE_MAX / 2}; /* no new block is meant */
  busy(t, MLZ_BUSY_EVENT);
  bool begun = mlz_agent_enter(t) && mlz_record_realloc_begin(t, domain, old);
  busy(t, MLZ_BUSY_INNER);
  t->wish = &w;
  void *block = in->realloc(in->ctx, old, size);
  t->wish = NULL;
  busy(t, MLZ_BUSY_EVENT);
  if (mlz_agent_enter(t)) mlz_record_realloc_end(t, domain, begun, old, block && w.got ? w.got : block, size ? size : 1, NULL);
  busy(t, MLZ_BUSY_NOT);
  return block;
}

/* Another one becomes a recorded one. How large it is only the allocator knows, so it is asked to make ASK bytes of it, which takes it out of its arena,
 * and then, outside, what is wanted. */
static __attribute__((noinline)) void *chosen_moves(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  enum where where = where_of(t);
  if (MLZ_UNLIKELY(where != OUTSIDE)) {
    void *block = in->realloc(in->ctx, old, size);
    return tell(t, block, where == NOWHERE ? NULL : block, size, domain);
  }
  struct mlz_wish w = {.ask = size < ASK ? ASK : size, .bytes = size < ASK ? ASK : size};
  t->wish = &w;
  void *block = in->realloc(in->ctx, old, w.ask);
  if (MLZ_UNLIKELY(!block) && size < ASK) {
    t->wish = NULL;
    return inside(t, in->realloc(in->ctx, old, size));
  }
  if (block && size < ASK) {
    t->wish = &w;
    void *known = w.got, *less = in->realloc(in->ctx, block, size < 16 ? 16 : size);
    if (less)
      block = less;
    else
      w.got = known;
  }
  t->wish = NULL;
  return tell(t, block, w.got, size, domain);
}

MLZ_INLINE void *any_realloc(struct mlz_py_allocator *in, void *old, size_t size, unsigned domain) {
  struct mlz_tls *t = &mlz_tls;
  if (!old) return any_malloc(in, size, domain);
  if (MLZ_UNLIKELY(t->busy)) return mlz_python_realloc_whole(in, old, size, domain);
  if (MLZ_UNLIKELY(mlz_record_marked(old, domain))) return recorded_moves(in, old, size, domain);
  if (MLZ_UNLIKELY(!passed_looking(t, size)) && MLZ_UNLIKELY(chosen(t, size ? size : 1, domain)))
    return chosen_moves(in, old, size ? size : 1, domain);
  busy(t, MLZ_BUSY_INNER); /* it may be one that is no arena's, and come to the raw hook */
  void *block = in->realloc(in->ctx, old, size);
  busy(t, MLZ_BUSY_NOT);
  return block;
}

#define HOOKS(name, domain)                                                                                                                \
  static void *name##_malloc(void *ctx, size_t size) { return any_malloc(ctx, size, domain); }                                             \
  static void *name##_calloc(void *ctx, size_t n, size_t size) { return any_calloc(ctx, n, size, domain); }                                \
  static void *name##_realloc(void *ctx, void *old, size_t size) { return any_realloc(ctx, old, size, domain); }
HOOKS(mem, MLZ_D_MEM)
HOOKS(obj, MLZ_D_OBJ)

bool mlz_slim_hooks(const struct mlz_py_allocator *under, struct mlz_py_allocator *hooks) {
  const struct mlz_py_allocator *mem = &under[MLZ_D_MEM], *obj = &under[MLZ_D_OBJ];
  bool fit = mlz_python.reader && !mlz_agent.native && !mlz_marks_atomic[MLZ_MARKS_PLAIN] && slim.whole != mlz_agent.session_number &&
             mlz_settings_rate(atomic_load_explicit(&mlz_agent_control()->settings, memory_order_relaxed)) <= MLZ_SLIM_RATE &&
             /* One allocator, that does not look at its ctx, so it may be called with that of our hooks. */
             !mem->ctx && !obj->ctx && mem->malloc == obj->malloc && mem->calloc == obj->calloc && mem->realloc == obj->realloc &&
             mem->free == obj->free;
  if (!fit) {
    slim.whole = mlz_agent.session_number;
    return false;
  }
  slim.state = UNTRIED;
  slim.tries = 0;
  hooks[MLZ_D_RAW] = (struct mlz_py_allocator){NULL, raw_malloc, raw_calloc, raw_realloc, raw_free};
  hooks[MLZ_D_MEM] = (struct mlz_py_allocator){NULL, mem_malloc, mem_calloc, mem_realloc, mem->free};
  hooks[MLZ_D_OBJ] = (struct mlz_py_allocator){NULL, obj_malloc, obj_calloc, obj_realloc, obj->free};
  return true;
}
