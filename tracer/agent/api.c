#include "api.h"

#include "shm/mailbox_ask.h"

#include "event.h"
#include "gate.h"
#include "launch.h"
#include "modules.h"
#include "python.h"
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define READY_MS 60000 /* a recorder that takes so long to begin never will */

extern char **environ;

static int fail(enum memlyze_error code, char *text, size_t size, const char *what) {
  if (size) snprintf(text, size, "%s", what);
  return code;
}

EXPORT uint32_t memlyze_api_version(void) { return MEMLYZE_API_VERSION; }

static enum memlyze_mode mode_now(void) {
  if (mlz_agent.started) return mlz_agent.started == mlz_sys_getpid() ? MEMLYZE_MODE_STARTED : MEMLYZE_MODE_CHILD;
  return atomic_load(&mlz_agent.attach) == MLZ_AGENT_ON ? MEMLYZE_MODE_RECORD : MEMLYZE_MODE_NONE;
}

static double rate_of(uint64_t settings) { return ((double)mlz_settings_rate(settings) + 1) / 4294967296.0; }

EXPORT int memlyze_info(struct memlyze_info *info) {
  struct memlyze_info now = {.bytes = sizeof(now), .mode = mode_now()};
  uint32_t room = info->bytes < sizeof(now) ? info->bytes : sizeof(now);
  if (now.mode != MEMLYZE_MODE_NONE) {
    const struct mlz_control *c = mlz_agent_control();
    uint64_t s = atomic_load(&c->settings);
    now.recorder_pid = c->recorder_pid;
    now.max_stack_depth = mlz_settings_depth(s);
    now.sample_rate = rate_of(s);
    now.sample_over = atomic_load(&c->sample_over);
    now.track_gc = (s & MLZ_SET_GC) != 0;
    now.paused = (s & MLZ_SET_PAUSED) != 0;
    memcpy(now.session, mlz_agent.session, sizeof(now.session));
  }
  now.bytes = room;
  memcpy(info, &now, room);
  return 0;
}

/* ---- one start or stop at a time ---- */

static _Atomic uint32_t changing; /* pid of the process in which one is under way: a fork's child inherits the word, not the thread */

static bool change_begin(void) {
  uint32_t pid = mlz_sys_getpid(), seen = atomic_load(&changing);
  return seen != pid && atomic_compare_exchange_strong(&changing, &seen, pid);
}
static void change_end(void) { atomic_store(&changing, 0); }

/* Hooks, code objects' ids and the collector's callback are the main interpreter's: made and freed with its GIL and its memory. */
static bool from_another_interpreter(char *text, size_t size) {
  const void *(*main_one)(void) = (const void *(*)(void))dlsym(RTLD_DEFAULT, "PyInterpreterState_Main");
  const char *(*now)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
  if (!now) now = (const char *(*)(void))dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
  const char *tstate = main_one && now ? now() : NULL;
  if (!tstate || *(const void *const *)(const void *)(tstate + MLZ_TSTATE_INTERP) == main_one()) return false;
  fail(MEMLYZE_E_STATE, text, size, "this is a sub-interpreter; recording is started and stopped from the main one");
  return true;
}

/* ---- the recorder's process ---- */

/* A copy of a vector of strings, with one of them (NULL: none) replaced or, where `with` is NULL, left out. Mapped; *bytes of it. */
static const char **vector_copy(const char *const *of, const char *without, const char *with, size_t *bytes) {
  size_t n = 0, k = 0;
  while (of[n]) n++;
  *bytes = (n + 1) * sizeof(*of);
  long m = mlz_sys6(SYS_mmap, 0, (long)*bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m < 0 && m > -4096) return NULL;
  const char **copy = (const char **)m;
  for (size_t i = 0; i < n; i++) {
    if (of[i] != without)
      copy[k++] = of[i];
    else if (with)
      copy[k++] = with;
  }
  return copy;
}

/* Our LD_PRELOAD is not for the recorder. */
static const char *own_preload(void) {
  for (char **e = environ; e && *e; e++) {
    if (strncmp(*e, "LD_PRELOAD=", 11) == 0 && strstr(*e, "/" MLZ_AGENT_NAME)) return *e;
  }
  return NULL;
}

static int spawn(const char *const argv[], struct mlz_launched *out) {
  static const char *const empty[] = {NULL};
  char serve[32];
  const char *plain = NULL;
  snprintf(serve, sizeof(serve), "--serve=%u", mlz_sys_getpid());
  for (const char *const *a = argv; *a; a++) {
    if (!plain && strcmp(*a, "--serve") == 0) plain = *a;
  }
  size_t args_bytes, env_bytes;
  const char **args = vector_copy(argv, plain, serve, &args_bytes);
  const char **env = args ? vector_copy(environ ? (const char *const *)environ : empty, own_preload(), NULL, &env_bytes) : NULL;
  int e = env ? mlz_launch_recorder(args, env, out) : -ENOMEM;
  if (env) mlz_sys3(SYS_munmap, (long)env, (long)env_bytes, 0);
  if (args) mlz_sys3(SYS_munmap, (long)args, (long)args_bytes, 0);
  return e;
}

/* Its one line, without newline; false: none came. */
static bool read_status(int fd, char *line, size_t size) {
  size_t n = 0;
  bool whole = false;
  while (!whole && n < size - 1) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    long r = mlz_sys3(SYS_poll, (long)&p, 1, READY_MS);
    if (r == -EINTR) continue;
    if (r <= 0) break;
    r = mlz_sys3(SYS_read, fd, (long)(line + n), 1);
    if (r == -EINTR) continue;
    if (r <= 0) break;
    whole = line[n] == '\n';
    n += (size_t)r;
  }
  line[whole ? n - 1 : n] = 0;
  return n > 0;
}

/* Sets mlz_agent.session. */
static int begin_recorder(const char *const argv[], int *answers, char *text, size_t size) {
  struct mlz_launched s;
  char line[4096];
  int e = spawn(argv, &s);
  if (e < 0) {
    snprintf(line, sizeof(line), "%s: cannot be executed: %s", argv[0], strerror(-e));
    return fail(MEMLYZE_E_SYSTEM, text, size, line);
  }
  bool said = read_status(s.status, line, sizeof(line));
  mlz_sys3(SYS_close, s.status, 0, 0);
  int result = MEMLYZE_E_SYSTEM;
  if (strncmp(line, "ready /", 7) == 0 && strlen(line + 6) < sizeof(mlz_agent.session)) {
    strcpy(mlz_agent.session, line + 6);
    *answers = s.answers;
    return 0;
  }
  if (!said)
    fail(result, text, size, "the recorder ended before it was ready");
  else if (strncmp(line, "wrong ", 6) == 0)
    result = fail(MEMLYZE_E_VALUE, text, size, line + 6);
  else if (strncmp(line, "error ", 6) == 0)
    fail(result, text, size, line + 6);
  else
    fail(result, text, size, "the recorder did not answer as it should; is memlyze-record of this version?");
  mlz_sys3(SYS_close, s.answers, 0, 0);
  return result;
}

/* ---- start and stop ---- */

/* The recorder is ready: events of this process from here on. */
static int join(struct mlz_tls *t, char *text, size_t size) {
  mlz_agent.started = mlz_sys_getpid();
  int e = mlz_agent_join(t);
  if (e == -ENOENT) {
    mlz_agent.started = 0;
    mlz_agent.session[0] = 0;
    return fail(MEMLYZE_E_SYSTEM, text, size,
                "the recorder's shared memory cannot be opened; has this process another user, or another /proc?");
  }
  if (e == 0) {
    mlz_agent_own(t);
    mlz_python.id_session = mlz_agent.session_number - 1;
    mlz_python_start();
    t->busy = MLZ_BUSY_EVENT;
    const char *tstate = mlz_python.tstate_get ? mlz_python.tstate_get() : NULL;
    if (tstate) mlz_python_check(t, tstate);
    t->busy = MLZ_BUSY_NOT;
    if (mlz_agent.trace_gc) mlz_gc_install();
    mlz_libc_resolve();
    mlz_exec_resolve();
    mlz_modules_redirect();
    if (tstate) return 0;
  }
  mlz_agent_leave(t);
  return fail(MEMLYZE_E_SYSTEM, text, size, e ? "no memory for this thread's ring" : "no interpreter was found in this process");
}

static int start(const char *const argv[], int *answers, char *text, size_t size) {
  struct mlz_tls *t = &mlz_tls;
  enum memlyze_mode mode = mode_now();
  bool dead = mlz_agent_control() != &mlz_no_control && mlz_recorder_died(mlz_agent_control());
  if (mode == MEMLYZE_MODE_STARTED) return fail(MEMLYZE_E_STATE, text, size, "recording was started already; stop it first");
  if (mode != MEMLYZE_MODE_NONE && !dead)
    return fail(MEMLYZE_E_STATE, text, size,
                mode == MEMLYZE_MODE_RECORD ? "this process runs inside memlyze record"
                                            : "this process is recorded as a child of the one that called start; stop it first");
  if (dead) mlz_agent_leave(t); /* an ancestor's session, which has ended */
  int e = begin_recorder(argv, answers, text, size);
  if (e < 0) return e;
  e = join(t, text, size);
  if (e < 0) mlz_sys3(SYS_close, *answers, 0, 0);
  return e;
}

EXPORT int memlyze_start(const char *const argv[], int *answers, char *text, size_t size) {
  int saved = errno;
  if (size) text[0] = 0;
  *answers = -1;
  int r = MEMLYZE_E_STATE;
  if (from_another_interpreter(text, size)) {
    /* said */
  } else if (change_begin()) {
    r = start(argv, answers, text, size);
    if (r < 0) *answers = -1;
    change_end();
  } else {
    fail(r, text, size, "another thread is starting or stopping the recording");
  }
  errno = saved;
  return r;
}

static int stop(char *text, size_t size) {
  enum memlyze_mode mode = mode_now();
  if (mode == MEMLYZE_MODE_NONE) return fail(MEMLYZE_E_STATE, text, size, "recording was not started");
  if (mode == MEMLYZE_MODE_RECORD) return fail(MEMLYZE_E_STATE, text, size, "this process runs inside memlyze record, which ends with it");
  uint32_t recorder = mlz_agent_control()->recorder_pid;
  bool dead = mlz_recorder_died(mlz_agent_control());
  mlz_agent_leave(&mlz_tls);
  if (!dead || mode == MEMLYZE_MODE_CHILD) return 0; /* a child's recorder may have ended long ago, with the one that started it */
  char line[160];
  snprintf(line, sizeof(line), "the recorder (process %u) has died; the trace is readable up to what it had written", recorder);
  return fail(MEMLYZE_E_RECORDER, text, size, line);
}

EXPORT int memlyze_stop(char *text, size_t size) {
  int saved = errno;
  if (size) text[0] = 0;
  int r = MEMLYZE_E_STATE;
  if (from_another_interpreter(text, size)) {
    /* said */
  } else if (change_begin()) {
    r = stop(text, size);
    change_end();
  } else {
    fail(r, text, size, "another thread is starting or stopping the recording");
  }
  errno = saved;
  return r;
}

/* ---- requests ---- */

static bool take_name(const char *name, char *into, uint32_t *bytes, const char *what, char *text, size_t size) {
  if (!name) return true;
  size_t n = strnlen(name, MLZ_MAILBOX_NAME_MAX + 1);
  const char *problem = mlz_mailbox_mark_problem(name, n);
  if (problem) {
    if (size) snprintf(text, size, "%s: the name %s", what, problem);
    return false;
  }
  memcpy(into, name, n);
  *bytes = (uint32_t)n;
  return true;
}

static bool recording(void) { return atomic_load(&mlz_agent.attach) == MLZ_AGENT_ON; }

/* Its process must have a ring, whose thread carries the mark, and what this thread has passed over so far is counted before it. */
static bool be_known(struct mlz_tls *t) {
  t->busy = MLZ_BUSY_EVENT;
  bool yes = mlz_agent_enter(t);
  if (yes) mlz_gate_publish(t);
  t->busy = MLZ_BUSY_NOT;
  return yes;
}

static int ask(const struct mlz_request *q, uint64_t *ns, char *text, size_t size) {
  if (!recording() || !be_known(&mlz_tls)) {
    enum memlyze_mode mode = mode_now();
    bool dead = mode != MEMLYZE_MODE_NONE;
    return fail(dead ? MEMLYZE_E_RECORDER : MEMLYZE_E_STATE, text, size, dead ? "the recorder has ended" : "recording was not started");
  }
  struct mlz_request request = *q;
  request.pid = mlz_agent.peer_pid;
  int e = mlz_mailbox_ask(mlz_agent_control(), &request, recording, ns, text, size);
  if (e == 0 && q->mask) be_known(&mlz_tls); /* this thread obeys from its next allocation on, not from its next look */
  switch (e) {
  case 0:
    return 0;
  case -EINVAL:
    return MEMLYZE_E_VALUE;
  case -ECANCELED:
    return MEMLYZE_E_STATE;
  case -EIO:
  case -ENOSPC:
    return MEMLYZE_E_SYSTEM;
  default:
    return MEMLYZE_E_RECORDER;
  }
}

EXPORT int memlyze_request(const char *mark, const char *snapshot, double sample_rate, int max_stack_depth, int paused, uint64_t *ns,
                           char *text, size_t size) {
  int saved = errno;
  struct mlz_request q = {0};
  *ns = 0;
  if (size) text[0] = 0;
  if (!take_name(mark, q.mark, &q.mark_bytes, "mark", text, size) ||
      !take_name(snapshot, q.snapshot, &q.snapshot_bytes, "snapshot", text, size))
    return MEMLYZE_E_VALUE;
  if (!isnan(sample_rate)) {
    if (!(sample_rate > 0 && sample_rate <= 1))
      return fail(MEMLYZE_E_VALUE, text, size, "the sample rate must be a number above 0 and at most 1");
    q.mask |= MLZ_SET_RATE_MASK;
    q.sample_rate = sample_rate;
  }
  if (max_stack_depth != -1) {
    if (max_stack_depth < 0 || max_stack_depth > (int)MLZ_STACK_DEPTH_MAX)
      return fail(MEMLYZE_E_VALUE, text, size, "the stack depth must be a whole number from 0 to 1024");
    q.mask |= MLZ_SET_DEPTH_MASK;
    q.depth = (uint32_t)max_stack_depth;
  }
  if (paused != -1) {
    q.mask |= MLZ_SET_PAUSED;
    if (paused) q.bits |= MLZ_SET_PAUSED;
  }
  mlz_agent_inside(1); /* the mailbox stays mapped: another thread may stop the recording */
  int r = ask(&q, ns, text, size);
  mlz_agent_inside(-1);
  errno = saved;
  return r;
}

EXPORT int memlyze_dump(const char *path, uint64_t *ns, char *text, size_t size) {
  int saved = errno;
  struct mlz_request q = {.dump = 1};
  *ns = 0;
  if (size) text[0] = 0;
  size_t n = path ? strnlen(path, sizeof(q.path)) : 0;
  if (path && (path[0] != '/' || n == sizeof(q.path)))
    return fail(MEMLYZE_E_VALUE, text, size, "the file of a dump must be an absolute path of at most 1023 bytes");
  if (path) memcpy(q.path, path, n);
  q.path_bytes = (uint32_t)n;
  mlz_agent_inside(1);
  int r = ask(&q, ns, text, size);
  mlz_agent_inside(-1);
  errno = saved;
  return r == MEMLYZE_E_VALUE ? MEMLYZE_E_STATE : r; /* nothing else was wrong with it */
}
