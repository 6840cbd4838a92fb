/* Garbage collections, by a C function in gc.callbacks.
 *
 * The interpreter builds an `info` dict for each call only because a callback exists. Those allocations are hidden: while the
 * collector's `collecting` flag is set and our callback is due (mlz_gc_hides). And so that the dict, once freed,
 * does not stay in the interpreter's free lists, where the program's next dict would come out of it unseen, a dict
 * for which memory was allocated is kept until the next full collection, which empties those lists.
 * Everything here runs under the GIL. CPython Modules/gcmodule.c (3.8-3.12), Python/gc.c (3.13): invoke_gc_callback. */
#include "event.h"
#include "python.h"

#include <dlfcn.h>
#include <string.h>

struct method_def { /* PyMethodDef */
  const char *name;
  void *function;
  int flags;
  const char *doc;
};
#define METH_FASTCALL 0x0080

enum phase { IDLE, RUNNING, DONE };
#define KEPT_MAX 4096u

static struct {
  const char *base; /* the main interpreter's collector state */
  void *function;   /* our callback object */
  void *none;
  enum phase phase;
  unsigned generation;
  uint64_t collections_at_start;
  bool fresh_dict; /* memory was allocated for the info dict being built */
  uint64_t calls;  /* collections seen by the callback */
  uint64_t before; /* collections that passed before it was installed */
  bool installed;
  void *kept[KEPT_MAX];
  uint32_t kept_n;
  void *(*new_function)(struct method_def *, void *, void *);
  int (*append)(void *, void *);
  int (*remove)(void *, long, long, void *);
  void *(*new_list)(long);
  void *key_generation, *key_collected, *key_uncollectable; /* interned: looking a value up allocates nothing */
  long (*as_ssize)(void *);
  void (*inc)(void *);
  void (*dec)(void *);
  const char *(*as_utf8)(void *);
} gc;

static uint64_t collections(unsigned generation) {
  uint64_t n;
  memcpy(&n, gc.base + mlz_python.layout->gc_stats + 24u * generation, sizeof(n));
  return n;
}
static uint64_t all_collections(void) { return collections(0) + collections(1) + collections(2); }
static char *callbacks(void) {
  char *list;
  memcpy(&list, gc.base + mlz_python.layout->gc_callbacks, sizeof(list));
  return list;
}
static long list_size(const char *list) {
  long n;
  memcpy(&n, list + 16, sizeof(n)); /* PyListObject: ob_size 16, ob_item 24 */
  return n;
}
static void *list_first(const char *list) {
  void **items;
  memcpy(&items, list + 24, sizeof(items));
  return items[0];
}
static bool first_is_ours(void) {
  const char *list = callbacks();
  return gc.installed && list && list_size(list) > 0 && list_first(list) == gc.function;
}

bool mlz_gc_hides(bool obj_domain, size_t size) {
  if (!mlz_python.layout->gc_in_runtime) { /* another interpreter may allocate meanwhile, under its own GIL */
    const char *tstate = mlz_python_tstate(mlz_tls.thread);
    if (!tstate || *(const void *const *)(const void *)(tstate + MLZ_TSTATE_INTERP) != mlz_python.main_interp) return false;
  }
  if (!first_is_ours()) return false;
  bool due = false;
  if (gc.phase == IDLE)
    due = true; /* the start call is being prepared */
  else if (gc.phase == RUNNING)
    due = collections(gc.generation) != gc.collections_at_start; /* counted: the stop call is being prepared */
  else
    due = list_size(callbacks()) == 1; /* after our stop call only another start call allocates, if nobody else is called */
  if (due && obj_domain && size >= 64) gc.fresh_dict = true; /* the dict or its keys; all else in there is smaller */
  return due;
}

static uint64_t number(void *info, void *key) {
  void *v = mlz_python.dict_get(info, key);
  long n = v ? gc.as_ssize(v) : 0;
  return n > 0 ? (uint64_t)n : 0;
}

static void keep(void *info) {
  if (!gc.fresh_dict || gc.kept_n == KEPT_MAX) return;
  gc.inc(info);
  gc.kept[gc.kept_n++] = info;
}
static void let_go(void) {
  while (gc.kept_n) gc.dec(gc.kept[--gc.kept_n]);
}

static void on_start(struct mlz_tls *t, void *info) {
  struct mlz_thread *th = t->thread;
  gc.phase = RUNNING;
  gc.generation = (unsigned)number(info, gc.key_generation) % 3;
  gc.collections_at_start = collections(gc.generation);
  unsigned stack = mlz_python_stack(t, mlz_python_tstate(th));
  if (stack == MLZ_STACK_CHANGED) {
    int32_t i = mlz_event_open(th, MLZ_EVENT_HEAD + th->push, true, MLZ_ROOM_BLOCK, false);
    if (i < 0) return;
    i = mlz_event_alloc_head(th, i, MLZ_K_STACK, mlz_event_reset(th), 0, NULL, 0, th->pop, th->push);
    mlz_event_close(th, mlz_event_stack(th, i));
  }
  mlz_event_rare(th, MLZ_K_GC_START, stack & MLZ_F_NOSTACK, gc.generation, mlz_peer_clock(&mlz_agent.peer), NULL, 0, true);
  keep(info);
}

static void on_stop(struct mlz_tls *t, void *info) {
  uint64_t now = mlz_peer_clock(&mlz_agent.peer);
  struct mlz_two payload = {number(info, gc.key_collected), number(info, gc.key_uncollectable)};
  mlz_event_rare(t->thread, MLZ_K_GC_STOP, 0, gc.generation, now, &payload, 1, true);
  gc.phase = DONE;
  gc.calls++;
  keep(info);
}

/* The callback: (phase, info). METH_FASTCALL, so that no argument tuple is made. */
static void *callback(void *self, void *const *args, long n) {
  (void)self;
  struct mlz_tls *t = &mlz_tls;
  if (n == 2 && !t->busy) {
    mlz_agent_own(t);
    const char *phase = gc.as_utf8(args[0]);
    bool start = phase && phase[0] == 's' && phase[1] == 't' && phase[2] == 'a';
    if (start && number(args[1], gc.key_generation) >= 2) let_go();
    if (mlz_agent_enter(t)) {
      if (start)
        on_start(t, args[1]);
      else
        on_stop(t, args[1]);
      if (!start) mlz_names_look(t);
      if (!start) mlz_running_look();
    }
    gc.fresh_dict = false;
    t->busy = MLZ_BUSY_NOT;
  }
  gc.inc(gc.none);
  return gc.none;
}

/* The way in that counts no level of recursion: a collection may begin at the recursion limit, where the interpreter's own entry to a C
 * function would fail (3.8 aborts the process then). PEP 590. */
static void *vectorcall(void *callable, void *const *args, size_t nargsf, void *kwnames) {
  (void)kwnames;
  return callback(callable, args, (long)(nargsf & ~((size_t)1 << 63)));
}

static struct method_def definition = {"memlyze", (void *)callback, METH_FASTCALL, NULL};

/* Runs between two bytecodes of the main thread, where calling the interpreter is safe. */
static int install(void *unused) {
  (void)unused;
  struct mlz_tls *t = &mlz_tls;
  if (t->busy || gc.installed || atomic_load_explicit(&mlz_agent.attach, memory_order_relaxed) != MLZ_AGENT_ON || !mlz_agent.trace_gc)
    return 0;
  const char *tstate = mlz_python.tstate_get();
  if (!tstate || !mlz_python_in_main(tstate)) return 0; /* the list is the main interpreter's */
  mlz_agent_own(t);
  mlz_names_prepare();
  gc.key_generation = mlz_python.intern("generation");
  gc.key_collected = mlz_python.intern("collected");
  gc.key_uncollectable = mlz_python.intern("uncollectable");
  if (!gc.key_generation || !gc.key_collected || !gc.key_uncollectable) mlz_python.err_clear();
  char *list = gc.key_generation && gc.key_collected && gc.key_uncollectable ? callbacks() : NULL;
  if (!list && gc.new_list && gc.key_uncollectable) { /* 3.8 makes it when gc is imported */
    list = gc.new_list(0);
    if (list) memcpy((char *)(uintptr_t)gc.base + mlz_python.layout->gc_callbacks, &list, sizeof(list));
  }
  if (list && *(void **)(void *)(list + 8) == mlz_python.type_list) {
    gc.function = gc.new_function(&definition, NULL, NULL);
    if (gc.function) {
      /* tp_vectorcall_offset is at 56 of a type (CPython Include/cpython/object.h, 3.8-3.14), and says 48 for a C function. */
      const char *type = *(const char **)(void *)((char *)gc.function + 8);
      long offset;
      memcpy(&offset, type + 56, sizeof(offset));
      void **entry = (void **)(void *)((char *)gc.function + 48);
      if (offset == 48 && *entry) *entry = (void *)vectorcall;
    }
    if (gc.function && gc.append(list, gc.function) == 0) {
      gc.before = all_collections();
      gc.calls = 0;
      gc.phase = IDLE;
      gc.installed = true;
    } else {
      mlz_python.err_clear();
    }
  }
  t->busy = MLZ_BUSY_NOT;
  return 0;
}

void mlz_gc_prepare(void) {
  mlz_agent_own(&mlz_tls);
#define FIND(member, name) *(void **)&gc.member = dlsym(RTLD_DEFAULT, name)
  FIND(new_function, "PyCFunction_NewEx");
  FIND(append, "PyList_Append");
  FIND(remove, "PyList_SetSlice");
  FIND(new_list, "PyList_New");
  FIND(as_ssize, "PyLong_AsSsize_t");
  FIND(inc, "Py_IncRef");
  FIND(dec, "Py_DecRef");
  FIND(as_utf8, "PyUnicode_AsUTF8");
  FIND(none, "_Py_NoneStruct");
#undef FIND
  mlz_tls.busy = MLZ_BUSY_EVENT;
  if (!gc.new_function || !gc.append || !gc.as_ssize || !gc.inc || !gc.dec || !gc.as_utf8 || !gc.none) return;
  const struct mlz_py_layout *l = mlz_python.layout;
  gc.base = (l->gc_in_runtime ? mlz_python.runtime : (const char *)mlz_python.main_interp) + l->gc_base;
  mlz_python.collecting = (const int *)(const void *)(gc.base + l->gc_collecting);
  if (*mlz_python.collecting != 0 && *mlz_python.collecting != 1) { /* not what it should be: leave it alone */
    static const int zero = 0;
    mlz_python.collecting = &zero;
    return;
  }
  if (mlz_python.add_pending) mlz_python.add_pending(install, NULL);
}

void mlz_gc_install(void) {
  if (gc.new_function) install(NULL);
}

void mlz_gc_leave(void) {
  struct mlz_tls *t = &mlz_tls;
  bool was = gc.installed;
  uint32_t kept = gc.kept_n;
  mlz_gc_finalize();
  if (!was || !gc.remove) return;
  mlz_agent_own(t);
  gc.kept_n = kept;
  let_go();
  char *list = callbacks();
  for (long i = list ? list_size(list) - 1 : -1; i >= 0; i--) {
    void **items;
    memcpy(&items, list + 24, sizeof(items));
    if (items[i] != gc.function) continue;
    if (gc.remove(list, i, i + 1, NULL) != 0) mlz_python.err_clear();
    break;
  }
  gc.dec(gc.function);
  gc.function = NULL;
  t->busy = MLZ_BUSY_NOT;
}

void mlz_gc_finalize(void) {
  static const int zero = 0;
  mlz_python.collecting = &zero; /* the interpreter's state is freed soon, on 3.9 and 3.10 for good */
  if (!gc.installed) return;
  gc.installed = false;
  gc.kept_n = 0;
  uint64_t passed = all_collections() - gc.before;
  if (passed > gc.calls) atomic_fetch_add_explicit(&mlz_agent_control()->gc_missed, passed - gc.calls, memory_order_relaxed);
}
