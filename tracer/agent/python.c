#include "python.h"

#include "code_ids.h"
#include "event.h"
#include "native.h"
#include "sys.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>

struct mlz_python mlz_python;

static const int always_one = 1, always_zero = 0;

static void *symbol(const char *name) { return dlsym(RTLD_DEFAULT, name); }

/* The address that a getter of one field of _PyRuntime reads: `mov disp(%rip),%rax; mov disp(%rax),...; ret` through the GOT, or
 * `mov disp(%rip),...; ret`. NULL: something else. */
static const char *getter_address(const unsigned char *f) {
  if (!f) return NULL;
  int32_t disp;
  if (f[0] == 0xf3 && f[1] == 0x0f && f[2] == 0x1e && f[3] == 0xfa) f += 4; /* endbr64 */
  if (f[0] == 0x48 && f[1] == 0x8b && f[2] == 0x05 && (f[7] == 0x8b || (f[7] == 0x48 && f[8] == 0x8b))) {
    memcpy(&disp, f + 3, 4);
    const char *base;
    memcpy(&base, f + 7 + disp, 8);
    const unsigned char *second = f + 7 + (f[7] == 0x48) + 1;
    if (second[0] == 0x40) return base + (int8_t)second[1];
    if (second[0] == 0x80) {
      memcpy(&disp, second + 1, 4);
      return base + disp;
    }
    return second[0] == 0x00 ? base : NULL;
  }
  size_t prefix = f[0] == 0x48 ? 1 : 0;
  if (f[prefix] == 0x8b && f[prefix + 1] == 0x05 && f[prefix + 6] == 0xc3) {
    memcpy(&disp, f + prefix + 2, 4);
    return (const char *)f + prefix + 6 + disp;
  }
  return NULL;
}

static void find_runtime(void) {
  const struct mlz_py_layout *l = mlz_python.layout;
  mlz_python.runtime = symbol("_PyRuntime");
  mlz_python.initialized = &always_one;
  mlz_python.collecting = &always_zero;
  *(void **)&mlz_python.is_initialized = symbol("Py_IsInitialized");
  const char *flag = getter_address((const unsigned char *)(void *)mlz_python.is_initialized);
  const char *known = mlz_python.runtime && l && l->runtime_initialized ? mlz_python.runtime + l->runtime_initialized : NULL;
  if (flag && (!known || known == flag)) mlz_python.initialized = (const int *)(const void *)flag;
  const char *state = l && l->minor <= 11 ? getter_address((const unsigned char *)(void *)mlz_python.tstate_get) : NULL;
  if (state) mlz_python.tstate_global = (const void *const *)(const void *)state;
}

/* The newest one is the first of the interpreter's list. It is not looked into: its own thread may be ending it. */
void mlz_python_count(void) {
  void *(*head)(void) = (void *(*)(void))symbol("PyInterpreterState_Head");
  void *first = head && mlz_python.main_one ? head() : NULL;
  if (first && first != mlz_python.main_one()) mlz_marks_atomic[MLZ_MARKS_PLAIN] = true;
}

void mlz_python_start(void) {
  const char *(*get_version)(void) = (const char *(*)(void))symbol("Py_GetVersion");
  if (!get_version) return;
  const char *version = get_version();
  size_t n = strcspn(version, " ");
  if (n >= sizeof(mlz_python.version)) n = sizeof(mlz_python.version) - 1;
  memcpy(mlz_python.version, version, n);
  struct mlz_python *py = &mlz_python;
  py->layout = mlz_python_layout_for(version);
  *(void **)&py->mem_get = symbol("PyMem_GetAllocator");
  *(void **)&py->mem_set = symbol("PyMem_SetAllocator");
  *(void **)&py->arena_get = symbol("PyObject_GetArenaAllocator");
  *(void **)&py->arena_set = symbol("PyObject_SetArenaAllocator");
  *(void **)&py->tstate_get = symbol("PyThreadState_GetUnchecked");
  if (!py->tstate_get) *(void **)&py->tstate_get = symbol("_PyThreadState_UncheckedGet");
  *(void **)&py->tstate_own = symbol("PyGILState_GetThisThreadState");
  *(void **)&py->main_one = symbol("PyInterpreterState_Main");
  *(void **)&py->add_pending = symbol("Py_AddPendingCall");
  *(void **)&py->extra_request = symbol("_PyEval_RequestCodeExtraIndex");
  if (!py->extra_request) *(void **)&py->extra_request = symbol("PyUnstable_Eval_RequestCodeExtraIndex");
  *(void **)&py->watch = symbol("PyCode_AddWatcher");
  *(void **)&py->interp_number = symbol("PyInterpreterState_GetID");
  *(void **)&py->dict_get = symbol("PyDict_GetItem");
  *(void **)&py->intern = symbol("PyUnicode_InternFromString");
  *(void **)&py->err_fetch = symbol("PyErr_Fetch");
  *(void **)&py->err_restore = symbol("PyErr_Restore");
  *(void **)&py->err_clear = symbol("PyErr_Clear");
  py->type_code = symbol("PyCode_Type");
  py->type_unicode = symbol("PyUnicode_Type");
  py->type_bytes = symbol("PyBytes_Type");
  py->type_list = symbol("PyList_Type");
  if (!py->mem_get || !py->mem_set || !py->tstate_get || !py->tstate_own) return;
  find_runtime();
  bool walkable = py->layout && mlz_python_layout_published(py->layout, py->runtime) && py->extra_request && py->dict_get && py->intern &&
                  py->err_fetch && py->err_restore && py->type_code && py->type_unicode && py->type_bytes &&
                  (py->layout->minor > 11 || py->tstate_global);
  py->reader = walkable ? mlz_stack_reader_for(py->layout->minor, mlz_agent.native) : NULL;
  if (mlz_agent.native) mlz_native_python();
  /* Free-threaded: there is no GIL that mem and obj events are under. Marks are changed atomically, nobody takes the quick way. */
  if (strstr(version, "free-threading")) mlz_marks_atomic[MLZ_MARKS_PLAIN] = true;
  mlz_python_count();
  atomic_store(&py->state, MLZ_PY_NEW);
  /* Without its allocators the interpreter still gives stacks, collections and the end of the process. */
  if (mlz_agent.trace_python && !(mlz_agent.started ? mlz_running_hook() : mlz_python_install())) atomic_store(&py->state, MLZ_PY_NONE);
}

/* ---- the check: everything is read through the kernel, so a wrong offset is an answer and not a fault ---- */

static bool peek(const char *address, void *out, size_t bytes) {
  struct iovec local = {out, bytes}, remote = {(void *)(uintptr_t)address, bytes};
  return mlz_sys6(SYS_process_vm_readv, mlz_agent.pid, (long)&local, 1, (long)&remote, 1, 0) == (long)bytes;
}
static const char *peek_pointer(const char *address) {
  const char *p = NULL;
  return address && peek(address, &p, sizeof(p)) ? p : NULL;
}
static bool has_type(const char *object, const void *type) { return object && peek_pointer(object + 8) == type; }

static bool code_plausible(const char *code) {
  const struct mlz_py_layout *l = mlz_python.layout;
  int32_t line;
  return has_type(code, mlz_python.type_code) && has_type(peek_pointer(code + l->code_file), mlz_python.type_unicode) &&
         has_type(peek_pointer(code + l->code_name), mlz_python.type_unicode) &&
         (!l->code_qualname || has_type(peek_pointer(code + l->code_qualname), mlz_python.type_unicode)) &&
         has_type(peek_pointer(code + l->code_lines), mlz_python.type_bytes) && peek(code + l->code_first_line, &line, sizeof(line)) &&
         line >= 0 && line < 1 << 28;
}

static bool layout_holds(const char *tstate) {
  const struct mlz_py_layout *l = mlz_python.layout;
  unsigned long thread_id = 0;
  if (!peek(tstate + l->tstate_thread_id, &thread_id, sizeof(thread_id)) || thread_id != (unsigned long)pthread_self()) return false;
  if (!peek_pointer(tstate + l->tstate_interp)) return false;
  const char *f = peek_pointer(tstate + l->tstate_frame);
  if (f && l->cframe_frame >= 0) f = peek_pointer(f + l->cframe_frame);
  for (unsigned n = 0; f; f = peek_pointer(f + l->frame_previous)) {
    if (++n > 100000) return false;
    uint8_t owner = 0;
    if (l->minor >= 12 && (!peek(f + l->frame_owner, &owner, 1) || owner > 5)) return false;
    if (l->minor >= 12 && owner >= 3) continue;
    const char *code = peek_pointer(f + l->frame_code);
    if (l->minor >= 14) code = (const char *)((uintptr_t)code & ~(uintptr_t)3);
    if (!code_plausible(code)) return false;
  }
  return true;
}

/* Asked at each of the thousands of events before the first frame, so it looks directly where that is safe: a first cframe lies
 * inside the thread state, at its end (3.11: 360 bytes). */
static bool has_frame(const char *tstate) {
  const struct mlz_py_layout *l = mlz_python.layout;
  const char *f;
  memcpy(&f, tstate + l->tstate_frame, sizeof(f));
  if (!f || l->cframe_frame < 0) return f != NULL;
  const char *field = f + l->cframe_frame;
  if (field < tstate || field > tstate + 512) return peek_pointer(field) != NULL;
  memcpy(&f, field, sizeof(f));
  return f != NULL;
}

static void send_python(struct mlz_thread *th, const char *state) {
  char text[96];
  size_t n = strlen(mlz_python.version) + 1, m = strlen(state);
  memcpy(text, mlz_python.version, n);
  memcpy(text + n, state, m);
  struct mlz_two payload = {mlz_event_text(th, text, n + m), 0};
  mlz_event_rare(th, MLZ_K_PYTHON, 0, 0, mlz_peer_clock(&mlz_agent.peer), &payload, 1, true);
}

bool mlz_python_in_main(const char *tstate) {
  return !mlz_python.main_one || *(const void *const *)(const void *)(tstate + MLZ_TSTATE_INTERP) == mlz_python.main_one();
}

/* There may be several GILs, or will be, with nobody to notice it: marks are changed atomically, and nobody takes the quick way (record.h). */
static void assume_several(void) {
  mlz_marks_atomic[MLZ_MARKS_PLAIN] = true;
  atomic_store_explicit(&mlz_agent.last_gil, NULL, memory_order_relaxed);
}

static void refuse(struct mlz_thread *th) {
  assume_several();
  atomic_fetch_add_explicit(&mlz_agent_control()->images_refused, 1, memory_order_relaxed);
  send_python(th, "layout not known: no stacks");
  atomic_store(&mlz_python.state, MLZ_PY_UNKNOWN);
}

void mlz_python_check(struct mlz_tls *t, const char *tstate) {
  static _Atomic uint32_t told; /* image that was told about the interpreter: a fork's child says it again */
  if (*mlz_python.initialized) mlz_python.seen_initialized = true; /* where no walk is, nobody else says it */
  if (atomic_load(&mlz_python.state) != MLZ_PY_NEW) return;
  /* What is prepared here is the main interpreter's, under its GIL. Where a session is started, others may come by before it is done. */
  if (!mlz_python_in_main(tstate)) {
    assume_several();
    return;
  }
  if (!mlz_python.reader) {
    if (atomic_exchange(&told, mlz_agent.last_image) != mlz_agent.last_image) refuse(t->thread);
    return;
  }
  if (!has_frame(tstate)) return;
  if (!layout_holds(tstate)) {
    refuse(t->thread);
    return;
  }
  mlz_python.main_interp = peek_pointer(tstate + mlz_python.layout->tstate_interp);
  if (!mlz_code_prepare()) {
    refuse(t->thread);
    return;
  }
  atomic_store(&told, mlz_agent.last_image);
  send_python(t->thread, "ok");
  mlz_running_arenas();
  atomic_store(&mlz_python.state, MLZ_PY_READY);
  if (mlz_agent.trace_gc) mlz_gc_prepare();
}

/* Other interpreters than the main one: by their number (each is given once), whether our place in co_extra is the same there. Only the
 * holder of an interpreter's GIL asks for it. */
enum { OTHERS = 4096, ASKED = 1, SAME = 2 };
static uint8_t others[OTHERS];

static int64_t number_of(const void *interp) { return mlz_python.interp_number ? mlz_python.interp_number(interp) : -1; }

static bool same_place(int64_t number) {
  if (number < 0 || number >= OTHERS) return false;
  if (!others[number]) others[number] = mlz_code_place() ? ASKED | SAME : ASKED;
  return others[number] & SAME;
}

/* An interpreter that was finalised and begun again (embedding): what was taken from the old one is taken anew. */
bool mlz_python_again(struct mlz_thread *th) {
  if (!*mlz_python.initialized) return false; /* still the end, or not yet the beginning */
  mlz_python.ended = false;
  mlz_python.main_interp = th->interp;
  if (mlz_agent.trace_python) mlz_python_on_top(); /* 3.12 and later begin with a fresh table of allocators */
  if (!mlz_agent.started) mlz_python_arenas();
  mlz_python.extra_ready = false;
  memset(others, 0, sizeof(others));
  mlz_code_ids_clear();
  mlz_agent_code_died();
  if (!mlz_code_prepare()) {
    atomic_store(&mlz_python.state, MLZ_PY_UNKNOWN);
    return false;
  }
  th->interp_known = true;
  if (mlz_agent.trace_gc) mlz_gc_prepare();
  return true;
}

/* A walk finds out that it is another one, and what has no name yet asks for it. */
void mlz_python_begin(struct mlz_tls *t, const char *tstate) {
  struct mlz_thread *th = t->thread;
  if (mlz_python_unchecked()) {
    mlz_python_check(t, tstate);
  } else if (*mlz_python.initialized && th->depth && atomic_load_explicit(&mlz_python.state, memory_order_relaxed) == MLZ_PY_READY) {
    mlz_python.reader->capture(th, tstate);
    mlz_thread_forget(th); /* the difference is not sent */
  }
}

/* Tells a forked image's interpreter, which was checked before the fork. */
void mlz_python_retell(struct mlz_thread *th) {
  uint32_t state = atomic_load(&mlz_python.state);
  if (state == MLZ_PY_READY)
    send_python(th, "ok");
  else if (state == MLZ_PY_UNKNOWN)
    send_python(th, "layout not known: no stacks");
}

bool mlz_python_interp(struct mlz_thread *th, const void *interp) {
  th->interp = interp;
  th->interp_number = interp == mlz_python.main_interp ? -1 : number_of(interp);
  th->interp_known = interp == mlz_python.main_interp || same_place(th->interp_number);
  mlz_thread_forget(th);
  th->stale_n = 0;
  if (interp != mlz_python.main_interp) assume_several(); /* it may have a GIL of its own */
  return th->interp_known;
}

/* Another interpreter at the address of one that has ended: what is remembered is of the old one's code. */
bool mlz_python_interp_holds(struct mlz_thread *th) {
  if (th->interp == mlz_python.main_interp) return true;
  int64_t number = number_of(th->interp);
  if (number != th->interp_number) {
    th->interp_number = number;
    th->interp_known = same_place(number);
    mlz_agent_code_died();
  }
  return th->interp_known;
}

unsigned mlz_python_stack_detached(struct mlz_thread *th) {
  if (atomic_load_explicit(&mlz_python.state, memory_order_relaxed) != MLZ_PY_READY || th->depth == 0 || !*mlz_python.initialized)
    return MLZ_F_NOSTACK;
  const char *own = mlz_python.tstate_own();
  if (!own || *(const void *const *)(const void *)(own + MLZ_TSTATE_INTERP) != th->interp) return MLZ_F_NOSTACK;
  th->detached = true;
  unsigned flags = mlz_python.reader->capture(th, own);
  th->detached = false;
  if (th->seen_epoch == MLZ_EPOCH_NONE) th->top = MLZ_NO_FRAME; /* something had no name */
  return flags;
}

/* 3.12 and later keep the thread state in thread-local storage. Its address is taken from the getter's code: either
 * `mov %fs:disp,%rax`, or `lea tls_index(%rip),%rdi; call __tls_get_addr`, or `mov gottpoff(%rip),%rax; mov %fs:(%rax),%rax`. */
void *__tls_get_addr(void *index);

static void *const *slot_address(const unsigned char *f) {
  const char *fs;
  __asm__("mov %%fs:0, %0" : "=r"(fs));
  for (const unsigned char *end = f + 24; f < end; f++) {
    int32_t disp;
    if (f[0] == 0x64 && f[1] == 0x48 && f[2] == 0x8b && f[3] == 0x04 && f[4] == 0x25) {
      memcpy(&disp, f + 5, 4);
      return (void *const *)(fs + disp);
    }
    if (f[0] == 0x48 && f[1] == 0x8d && f[2] == 0x3d) {
      memcpy(&disp, f + 3, 4);
      return __tls_get_addr((void *)(uintptr_t)(f + 7 + disp));
    }
    if (f[0] == 0x48 && f[1] == 0x8b && f[2] == 0x05 && f[7] == 0x64 && f[8] == 0x48 && f[9] == 0x8b && f[10] == 0x00) {
      memcpy(&disp, f + 3, 4);
      int64_t offset;
      memcpy(&offset, f + 7 + disp, 8);
      return (void *const *)(fs + offset);
    }
    if (f[0] == 0xc3) break;
  }
  return NULL;
}

void mlz_python_find_slot(struct mlz_thread *th) {
  if (mlz_python.tstate_global) {
    th->tstate_slot = (void *const *)mlz_python.tstate_global;
    return;
  }
  void *ts = mlz_python.tstate_get();
  if (!ts) return; /* an empty slot proves nothing: look again */
  void *const *slot = slot_address((const unsigned char *)(void *)mlz_python.tstate_get);
  th->tstate_slot = slot && *slot == ts ? slot : MLZ_SLOT_NONE;
}
