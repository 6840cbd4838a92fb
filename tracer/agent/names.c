/* What `threading` calls the program's threads. The system's own names say "python3" for all of them before CPython 3.14.
 *
 * Asked at the end of a garbage collection, where calling the interpreter is safe: under the GIL, between two allocations,
 * with t->busy == MLZ_BUSY_OWN. A thread that comes and goes between two collections keeps its system's name. */
#include "event.h"
#include "python.h"

#include <dlfcn.h>

#define THREADS_MAX 256u
#define EVERY 32u /* collections between two looks when no thread has come */

static struct {
  void *(*modules)(void);
  int (*next)(void *, long *, void **, void **);
  void *(*attribute)(void *, void *);
  unsigned long (*as_unsigned)(void *);
  void (*inc)(void *);
  void (*dec)(void *);
  void *type_dict;
  void *key_threading, *key_active, *key_name;
  uint32_t threads_then, countdown;
  bool ready;
} names;

void mlz_names_prepare(void) {
#define FIND(member, name) *(void **)&names.member = dlsym(RTLD_DEFAULT, name)
  FIND(modules, "PyImport_GetModuleDict");
  FIND(next, "PyDict_Next");
  FIND(attribute, "PyObject_GetAttr");
  FIND(as_unsigned, "PyLong_AsUnsignedLong");
  FIND(inc, "Py_IncRef");
  FIND(dec, "Py_DecRef");
  FIND(type_dict, "PyDict_Type");
#undef FIND
  names.key_threading = mlz_python.intern("threading");
  names.key_active = mlz_python.intern("_active");
  names.key_name = mlz_python.intern("_name");
  names.threads_then = names.countdown = 0;
  names.ready = names.modules && names.next && names.attribute && names.as_unsigned && names.inc && names.dec && names.type_dict &&
                names.key_threading && names.key_active && names.key_name;
}

static struct mlz_thread *thread_of(unsigned long self) {
  for (struct mlz_thread *th = atomic_load_explicit(&mlz_agent.threads, memory_order_acquire); th; th = th->next)
    if (th->self == self && atomic_load_explicit(&th->ended, memory_order_relaxed) == 0) return th;
  return NULL;
}

/* FNV-1a: whether a name is the one that was sent. */
static uint64_t hash(const uint8_t *text, uint32_t n) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (uint32_t i = 0; i < n; i++) h = (h ^ text[i]) * UINT64_C(0x100000001b3);
  return h | 1;
}

static void send(struct mlz_tls *t, struct mlz_thread *th, const char *name) {
  uint8_t text[256];
  uint32_t n = mlz_code_utf8(name, text, sizeof(text));
  if (!n || hash(text, n) == th->name_hash) return;
  th->name_hash = hash(text, n);
  struct mlz_two payload = {mlz_event_text(t->thread, text, n), th->number};
  mlz_event_rare(t->thread, MLZ_K_NAME, 0, 0, mlz_peer_clock(&mlz_agent.peer), &payload, 1, true);
}

/* Looks through threading._active: {ident: Thread}. The objects are held while their names are asked for. */
static void look(struct mlz_tls *t, void *active) {
  static void *held[THREADS_MAX]; /* the GIL is held, but an attribute may be a property that lets go of it: entries are copied out first */
  static bool looking;
  if (looking) return;
  looking = true;
  unsigned long self[THREADS_MAX];
  uint32_t n = 0;
  long at = 0;
  for (void *key, *value; n < THREADS_MAX && names.next(active, &at, &key, &value);) {
    self[n] = names.as_unsigned(key);
    names.inc(value);
    held[n++] = value;
  }
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_thread *th = thread_of(self[i]);
    void *name = th ? names.attribute(held[i], names.key_name) : NULL;
    if (name) {
      send(t, th, name);
      names.dec(name);
    }
    names.dec(held[i]);
  }
  looking = false;
}

void mlz_names_look(struct mlz_tls *t) {
  uint32_t threads = atomic_load_explicit(&mlz_agent.thread_next, memory_order_relaxed);
  if (!names.ready || (threads == names.threads_then && names.countdown--)) return;
  names.threads_then = threads;
  names.countdown = EVERY;
  void *type, *value, *traceback;
  mlz_python.err_fetch(&type, &value, &traceback);
  void *threading = mlz_python.dict_get(names.modules(), names.key_threading);
  void *active = threading ? names.attribute(threading, names.key_active) : NULL;
  if (active && ((void **)active)[1] == names.type_dict) look(t, active);
  if (active) names.dec(active);
  mlz_python.err_clear();
  mlz_python.err_restore(type, value, traceback);
}
