#include "agent.h"

#include "event.h"
#include "gate.h"
#include "native.h"
#include "python.h"
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

struct mlz_control mlz_no_control = {.settings = UINT64_MAX, .clock = UINT64_MAX}; /* like nothing that a thread obeys or has seen */
struct mlz_agent mlz_agent = {.peer = {.control = &mlz_no_control}};
union mlz_wiped_page mlz_wiped;
struct mlz_thread mlz_no_thread;
void *const mlz_no_slot[2];
__thread struct mlz_tls mlz_tls = {.thread = &mlz_no_thread};

enum { ATTACHING = 3 };
static pthread_key_t end_key;
static bool end_key_made;
static __thread uint32_t end_rounds __attribute__((tls_model("initial-exec")));

#define RETRY_FIRST 1024u /* events between two tries for a ring, doubled up to RETRY_LAST */
#define RETRY_LAST (1u << 20)
#define END_ROUNDS 4u /* PTHREAD_DESTRUCTOR_ITERATIONS of glibc: the last round in which destructors run */

static void thread_end(void *arg);
static void watch_forks(void);

/* The arena is mapped. */
static void prepare(void) {
  struct mlz_wiped *w = mlz_wiped_get();
  mlz_agent.no_wipe = mlz_sys3(SYS_madvise, (long)w, sizeof(mlz_wiped), MADV_WIPEONFORK) != 0;
  uint64_t s = atomic_load_explicit(&mlz_agent_control()->settings, memory_order_acquire);
  mlz_agent.trace_malloc = s & MLZ_SET_MALLOC;
  mlz_agent.trace_python = s & MLZ_SET_PYTHON;
  mlz_agent.trace_gc = s & MLZ_SET_GC;
  mlz_agent.native = false; /* of an earlier session in this process, perhaps */
  mlz_agent.native = false; /* a process may have several sessions */
  if (s & MLZ_SET_NATIVE) mlz_native_start();
  mlz_agent.session_number++;
  if (!end_key_made) end_key_made = pthread_key_create(&end_key, thread_end) == 0;
}

static void attach(void) {
  uint32_t state = MLZ_AGENT_NEW;
  if (!atomic_compare_exchange_strong(&mlz_agent.attach, &state, ATTACHING)) return;
  bool on = mlz_session_find() && mlz_session_open();
  if (on) prepare();
  atomic_store(&mlz_agent.attach, on ? MLZ_AGENT_ON : MLZ_AGENT_OFF);
}

/* What the recorder calls this process or thread: the number at the end of a link of /proc, which is the recorder's, else the arena
 * would not have been found there. In a pid namespace of its own (a sandbox) the process knows itself by another number. */
static uint32_t number_in_proc(const char *link, uint32_t otherwise) {
  char text[64];
  long n = mlz_sys6(SYS_readlinkat, AT_FDCWD, (long)link, (long)text, sizeof(text), 0, 0);
  uint32_t number = 0, unit = 1;
  while (n-- > 0 && text[n] >= '0' && text[n] <= '9') number += (uint32_t)(text[n] - '0') * unit, unit *= 10;
  return number ? number : otherwise;
}

/* The constructor's part of a process: also the fork child's, at its first event. */
static bool image_begin(void) {
  struct mlz_control *c = mlz_agent_control();
  bool forked = mlz_agent.last_image != 0;
  /* Without --follow: the command itself and what its exec chain becomes, which stays the recorder's child. */
  bool followed = c->follow || (!forked && (mlz_agent.started || (uint32_t)mlz_sys3(SYS_getppid, 0, 0, 0) == c->recorder_pid));
  if (mlz_recorder_died(c) || !followed) {
    atomic_store(&mlz_agent.attach, MLZ_AGENT_OFF);
    return false;
  }
  mlz_agent.parent_pid = forked ? mlz_agent.pid : 0;
  mlz_agent.pid = mlz_sys_getpid();
  mlz_agent.peer_pid = number_in_proc("/proc/self", mlz_agent.pid);
  mlz_agent.image_parent = mlz_agent.last_image;
  if (forked) atomic_store_explicit(&mlz_agent.threads, NULL, memory_order_relaxed); /* the parent's; in a session begun anew, free ones */
  atomic_store_explicit(&mlz_agent.last_gil, NULL, memory_order_relaxed);
  atomic_store_explicit(&mlz_agent.peer.stalled, 0, memory_order_relaxed);
  atomic_store_explicit(&mlz_agent.thread_next, 1, memory_order_relaxed);
  atomic_store_explicit(&mlz_agent.finalized, 0, memory_order_relaxed);
  mlz_agent.last_image = atomic_fetch_add_explicit(&c->image_next, 1, memory_order_relaxed);
  atomic_store_explicit(&mlz_wiped_get()->image, mlz_agent.last_image, memory_order_release);
  return true;
}

static bool thread_gone(const struct mlz_thread *th) {
  return atomic_load_explicit(&th->ended, memory_order_acquire) == MLZ_THREAD_ENDED &&
         mlz_sys3(SYS_tgkill, mlz_agent.pid, th->tid, 0) == -ESRCH;
}

/* Memory for a thread: one of a thread that is gone, else newly mapped. */
static struct mlz_thread *thread_memory(struct mlz_tls *t) {
  for (struct mlz_thread *th = atomic_load_explicit(&mlz_agent.threads, memory_order_acquire); th; th = th->next) {
    uint32_t ended = atomic_load_explicit(&th->ended, memory_order_acquire);
    if ((ended == MLZ_THREAD_FREE || thread_gone(th)) && atomic_compare_exchange_strong(&th->ended, &ended, MLZ_THREAD_TAKEN)) {
      if (th->out.ring) mlz_session_unmap(th->out.ring);
      memset(th, 0, offsetof(struct mlz_thread, ended));
      th->tls = t;
      return th;
    }
  }
  long m = mlz_sys6(SYS_mmap, 0, sizeof(struct mlz_thread), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m < 0 && m > -4096) return NULL;
  mlz_sys3(SYS_madvise, m, sizeof(struct mlz_thread), MADV_WIPEONFORK);
  struct mlz_thread *th = (struct mlz_thread *)m;
  th->tls = t;
  th->next = atomic_load_explicit(&mlz_agent.threads, memory_order_relaxed);
  while (!atomic_compare_exchange_weak(&mlz_agent.threads, &th->next, th)) {}
  return th;
}

static void send_name(struct mlz_thread *th, unsigned kind) {
  char name[16] = {0};
  mlz_sys3(SYS_prctl, PR_GET_NAME, (long)name, 0);
  struct mlz_two payload = {mlz_event_text(th, name, strnlen(name, sizeof(name))), th->number};
  mlz_event_rare(th, kind, 0, 0, mlz_peer_clock(&mlz_agent.peer), &payload, 1, false);
}

static void send_settings(struct mlz_tls *t) {
  struct mlz_two payload = {t->over == UINT64_MAX ? 0 : t->over, 0};
  mlz_event_rare(t->thread, MLZ_K_SETTINGS, 0, 0, t->settings, &payload, 1, false);
}

static void obey_settings(struct mlz_tls *t) {
  struct mlz_control *c = mlz_agent_control();
  struct mlz_thread *th = t->thread;
  uint64_t s = atomic_load_explicit(&c->settings, memory_order_acquire);
  uint64_t over = atomic_load_explicit(&c->sample_over, memory_order_relaxed);
  t->settings = th->settings = s;
  t->over = over ? over : UINT64_MAX;
  t->quick = 0;
  mlz_gate_reset(t);
  if (th->depth != mlz_settings_depth(s)) {
    th->depth = mlz_settings_depth(s);
    if (th->depth > MLZ_STACK_DEPTH_MAX) th->depth = MLZ_STACK_DEPTH_MAX;
    mlz_thread_forget(th);
  }
  send_settings(t);
}

static bool thread_begin(struct mlz_tls *t) {
  if (t->retry) {
    t->retry--;
    return false;
  }
  uint32_t index;
  struct mlz_thread *th = NULL;
  struct mlz_ring *r = mlz_session_claim(&index);
  if (!r || !(th = thread_memory(t))) {
    if (r) mlz_session_unclaim(r);
    t->retries = t->retries ? (t->retries < RETRY_LAST ? t->retries * 2 : RETRY_LAST) : RETRY_FIRST;
    t->retry = t->retries;
    return false;
  }
  mlz_producer_init(&th->out, &mlz_agent.peer, r);
  th->tid = mlz_sys_gettid();
  th->self = (unsigned long)pthread_self();
  th->name_hash = 0;
  th->tstate_slot = MLZ_SLOT_UNKNOWN;
  th->number = atomic_fetch_add_explicit(&mlz_agent.thread_next, 1, memory_order_relaxed);
  th->sample_key = ((uint64_t)th->number | (uint64_t)(mlz_agent.last_image - 1) << 12) << 40;
  mlz_thread_forget(th);
  th->depth = UINT32_MAX; /* obey_settings sees a change */
  r->tid = mlz_agent.peer_pid == mlz_agent.pid ? th->tid : number_in_proc("/proc/thread-self", th->tid);
  r->image = mlz_agent.last_image;
  r->thread_no = th->number;
  r->start_ns = mlz_peer_clock(&mlz_agent.peer);
  atomic_store_explicit(&r->ending, 0, memory_order_relaxed);
  atomic_store_explicit(&th->ended, MLZ_THREAD_RUNS, memory_order_release);
  atomic_store_explicit(&r->state, MLZ_RING_LIVE, memory_order_release);
  t->thread = th;
  t->image = mlz_agent.last_image;
  t->last_block = NULL;
  t->countdown = 0;
  t->later = 0;
  t->quick = 0;
  if (th->number > 1) mlz_marks_atomic[MLZ_MARKS_SHARED] = true;
  if (th->number == 1) mlz_process_begin(t);
  send_name(th, MLZ_K_THREAD);
  obey_settings(t);
  end_rounds = 0;
  if (end_key_made) { /* may allocate */
    uint32_t busy = t->busy;
    t->busy = MLZ_BUSY_OWN;
    pthread_setspecific(end_key, th);
    t->busy = busy;
  }
  return true;
}

static bool enter_slow(struct mlz_tls *t) {
  uint32_t state = atomic_load_explicit(&mlz_agent.attach, memory_order_acquire);
  if (state == MLZ_AGENT_NEW) {
    attach();
    state = atomic_load_explicit(&mlz_agent.attach, memory_order_acquire);
  }
  if (state != MLZ_AGENT_ON) return false;
  uint32_t image = atomic_load_explicit(&mlz_wiped_get()->image, memory_order_acquire);
  if (image == 0) {
    if (!image_begin()) return false;
    image = mlz_agent.last_image;
  }
  if (t->image != image) {
    t->image = 0;
    return thread_begin(t);
  }
  obey_settings(t);
  return true;
}

bool mlz_agent_enter_slow(struct mlz_tls *t) {
  mlz_agent_inside(1);
  bool yes = enter_slow(t);
  mlz_agent_inside(-1);
  return yes;
}

int mlz_agent_join(struct mlz_tls *t) {
  if (!mlz_session_open()) return -ENOENT;
  prepare();
  watch_forks();
  if (mlz_agent.last_image > mlz_agent.image_last) mlz_agent.image_last = mlz_agent.last_image;
  mlz_agent.last_image = 0;
  _Atomic uint32_t *next = &mlz_agent_control()->image_next;
  uint32_t n = atomic_load_explicit(next, memory_order_relaxed);
  while (n <= mlz_agent.image_last && !atomic_compare_exchange_weak(next, &n, mlz_agent.image_last + 1)) {}
  atomic_store(&mlz_agent.attach, MLZ_AGENT_ON);
  t->retry = 0;
  t->busy = MLZ_BUSY_EVENT;
  bool yes = mlz_agent_enter(t);
  t->busy = MLZ_BUSY_NOT;
  return yes ? 0 : -ENOMEM;
}

void mlz_agent_code_died(void) {
  atomic_fetch_add_explicit(&mlz_agent.code_epoch, 1, memory_order_relaxed);
  for (struct mlz_thread *th = atomic_load_explicit(&mlz_agent.threads, memory_order_acquire); th; th = th->next) th->top = MLZ_NO_FRAME;
}

/* Runs among the destructors of a thread's specific data: last, as far as pthreads allow that. */
static void thread_end(void *arg) {
  struct mlz_tls *t = &mlz_tls;
  struct mlz_thread *th = arg;
  if (++end_rounds < END_ROUNDS) {
    pthread_setspecific(end_key, arg);
    return;
  }
  if (t->busy) return;
  t->busy = MLZ_BUSY_EVENT;
  atomic_thread_fence(memory_order_seq_cst); /* whoever ends the session holds the thread, then looks whether it is busy */
  /* A fork's child whose only thread ends without having done anything needs no image for that. */
  if (t->thread == th && t->image == atomic_load_explicit(&mlz_wiped_get()->image, memory_order_relaxed) && mlz_agent_enter(t) &&
      t->thread == th) {
    mlz_gate_publish(t);
    if (!th->name_hash) send_name(th, MLZ_K_NAME);
    mlz_event_rare(th, MLZ_K_THREAD_END, 0, 0, mlz_peer_clock(&mlz_agent.peer), NULL, 0, false);
    atomic_store_explicit(&th->out.ring->ending, MLZ_RING_ENDING, memory_order_release);
    mlz_peer_wake(&mlz_agent.peer);
  }
  if (MLZ_UNLIKELY(th->native != NULL) && th->tls == t) mlz_native_release(th);
  /* Without this, the thread could be gone while it is looked at. What belongs to another thread by now is not touched. */
  for (;;) {
    uint32_t ended = MLZ_THREAD_RUNS;
    if (th->tls != t || atomic_compare_exchange_strong(&th->ended, &ended, MLZ_THREAD_ENDED) || ended != MLZ_THREAD_HELD) break;
    mlz_sys3(SYS_sched_yield, 0, 0, 0);
  }
  t->busy = MLZ_BUSY_NOT;
}

/* The child's first allocation finds out that it is one. */
static void forked_child(void) {
  mlz_gate_hurry(&mlz_tls);
  if (!mlz_agent.no_wipe) return;
  /* The kernel cannot wipe a page at fork. */
  atomic_store_explicit(&mlz_wiped_get()->image, 0, memory_order_relaxed);
  atomic_store_explicit(&mlz_wiped_get()->inside, 0, memory_order_relaxed);
  if (mlz_tls.thread != &mlz_no_thread) memset(mlz_tls.thread, 0, offsetof(struct mlz_thread, ended)); /* the child's only one */
}
static void watch_forks(void) {
  static bool watched;
  if (!watched) pthread_atfork(NULL, NULL, forked_child);
  watched = true;
}

__attribute__((constructor)) static void agent_start(void) {
  struct mlz_tls *t = &mlz_tls;
  t->busy = MLZ_BUSY_EVENT;
  mlz_agent_enter(t);
  t->busy = MLZ_BUSY_OWN;
  if (atomic_load_explicit(&mlz_agent.attach, memory_order_relaxed) == MLZ_AGENT_ON) {
    mlz_agent.preloaded = true;
    mlz_agent.native_check = mlz_agent.native && getenv("MEMLYZE_NATIVE_CHECK") != NULL;
    watch_forks();
    mlz_process_resolve_exec();
    mlz_python_start();
  }
  dlerror(); /* what we did not find is not the program's business */
  t->busy = MLZ_BUSY_NOT;
}
