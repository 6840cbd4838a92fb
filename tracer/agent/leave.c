/* Takes a running process out of its session. What makes it hard: any thread may be inside a hook, without the GIL, and what it uses there goes away.
 *
 * 1. The hooks are taken out, `attach` becomes OFF and the wiped page's image 0; a barrier on every thread of the process (membarrier). From then on
 *    a hook that begins finds no session (mlz_agent_enter); one that began before shows itself by `busy`, or is counted `inside`.
 * 2. Each thread is waited for. One that is not busy is held (it could end, and its TLS with it), and loses its ring; one that has ended is waited
 *    for until it is gone. The GIL is let go of meanwhile: a hook may need it (tracemalloc below us, a property named by names.c). The quick ways of
 *    mem and obj look at `last_gil`, which is NULL now, before they look at the arena, and not at the image: under the GIL, which we hold; where there
 *    is none, or another, `last_gil` was never theirs.
 * 3. Nobody uses the arena now. The end is published, every ring says that nothing follows, the arena is unmapped, marks and threads are emptied.
 * No mapping that a stray look could still reach (marks, threads) is unmapped: it is emptied and used again by the next session. */
#include "event.h"
#include "gate.h"
#include "modules.h"
#include "native.h"
#include "python.h"
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u
#define STEP_NS 50000L
#define LIMIT_NS UINT64_C(3000000000)

static void barrier(void) {
  if (mlz_sys3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) return;
  mlz_sys3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  if (mlz_sys3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) return;
  const struct timespec t = {.tv_nsec = 10000000}; /* a kernel without it: every processor has drained its stores by then */
  mlz_sys3(SYS_nanosleep, (long)&t, 0, 0);
}

static bool gone(const struct mlz_thread *th) { return mlz_sys3(SYS_tgkill, mlz_agent.pid, th->tid, 0) == -ESRCH; }

/* The thread's own memory says nothing about a session any more. */
static void forget_session(struct mlz_tls *t) {
  t->thread = &mlz_no_thread;
  t->image = 0;
  t->settings = 0;
  t->countdown = 0;
  t->later = 0;
  t->quick = 0;
  t->over = UINT64_MAX;
  t->last_block = NULL;
  t->retry = t->retries = 0;
  t->chosen = 0;
}

/* What sampling has passed over; the thread is not in a hook. */
static void publish_passed(struct mlz_thread *th, const struct mlz_tls *t) {
  if (t->thread == th && th->out.ring)
    atomic_store_explicit(&th->out.ring->allocs_passed, th->passed_then - mlz_gate_still(t), memory_order_relaxed);
}

/* True: this thread is in no hook and will be in none of this session. */
static bool settle(struct mlz_thread *th) {
  uint32_t ended = MLZ_THREAD_RUNS;
  if (!atomic_compare_exchange_strong(&th->ended, &ended, MLZ_THREAD_HELD)) {
    if (ended == MLZ_THREAD_FREE) return true;
    bool main_thread = th->tid == mlz_agent.pid; /* whose number and memory outlive it */
    return ended == MLZ_THREAD_ENDED && (main_thread || gone(th));
  }
  struct mlz_tls *t = th->tls;
  if (t && !gone(th)) {
    if (__atomic_load_n(&t->busy, __ATOMIC_ACQUIRE) != MLZ_BUSY_NOT) {
      atomic_store_explicit(&th->ended, MLZ_THREAD_RUNS, memory_order_release);
      return false;
    }
    publish_passed(th, t);
    if (t->thread == th) forget_session(t);
  }
  atomic_store_explicit(&th->ended, MLZ_THREAD_FREE, memory_order_release);
  return true;
}

static bool all_settled(struct mlz_thread *own) {
  if (atomic_load(&mlz_wiped_get()->inside) != 0) return false;
  bool all = true;
  for (struct mlz_thread *th = atomic_load(&mlz_agent.threads); th; th = th->next) {
    if (th != own) all &= settle(th);
  }
  return all;
}

/* The GIL is held before and after. */
static bool wait_settled(struct mlz_thread *own) {
  void *(*let_go)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyEval_SaveThread");
  void (*take)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");
  uint64_t begin = mlz_sys_monotonic();
  const struct timespec step = {.tv_nsec = STEP_NS};
  while (!all_settled(own)) {
    if (mlz_sys_monotonic() - begin > LIMIT_NS) return false;
    void *state = let_go && take ? let_go() : NULL;
    mlz_sys3(SYS_nanosleep, (long)&step, 0, 0);
    if (state) take(state);
  }
  return true;
}

/* ---- nobody uses it any more ---- */

static void empty_thread(struct mlz_thread *th) {
  uintptr_t from = ((uintptr_t)th->words + PAGE - 1) & ~(uintptr_t)(PAGE - 1), to = (uintptr_t)(th + 1) & ~(uintptr_t)(PAGE - 1);
  if (th->out.ring) mlz_session_unmap(th->out.ring);
  mlz_native_release(th);
  memset(th, 0, offsetof(struct mlz_thread, ended));
  mlz_sys3(SYS_madvise, (long)from, (long)(to - from), MADV_DONTNEED);
  atomic_store_explicit(&th->ended, MLZ_THREAD_FREE, memory_order_release);
}

static void empty_marks(void) {
  for (uint32_t i = 0; i < MLZ_MARKS_PIECES; i++) {
    struct mlz_marks_piece *p = atomic_load_explicit(&mlz_marks[i], memory_order_relaxed);
    if (p) mlz_sys3(SYS_madvise, (long)p, sizeof(*p), MADV_DONTNEED);
  }
}

/* The session's last words, in the ring of this thread: FINALIZE is the instant that live_at_end refers to. */
static void say_end(struct mlz_tls *t, struct mlz_thread *own) {
  t->busy = MLZ_BUSY_EVENT;
  publish_passed(own, t);
  mlz_process_finalize(t);
  t->busy = MLZ_BUSY_NOT;
}

/* Nothing follows in any ring. A ring whose thread is gone may be another process's by now. */
static void detach_rings(void) {
  for (struct mlz_thread *th = atomic_load(&mlz_agent.threads); th; th = th->next) {
    struct mlz_ring *r = th->out.ring;
    if (r && r->image == mlz_agent.last_image && r->thread_no == th->number)
      atomic_store_explicit(&r->ending, MLZ_RING_DETACHED, memory_order_release);
  }
  mlz_peer_clock(&mlz_agent.peer);
  mlz_peer_wake(&mlz_agent.peer);
}

bool mlz_agent_leave(struct mlz_tls *t) {
  bool on = atomic_load(&mlz_agent.attach) == MLZ_AGENT_ON;
  t->busy = MLZ_BUSY_EVENT;
  struct mlz_thread *own = on && mlz_agent_enter(t) ? t->thread : NULL;
  t->busy = MLZ_BUSY_NOT;
  if (mlz_agent.pid != mlz_sys_getpid()) { /* a fork's child that no event of its own has told so: the threads are its parent's */
    atomic_store(&mlz_agent.threads, NULL);
    mlz_agent.pid = mlz_sys_getpid();
  }
  mlz_gc_leave();
  mlz_running_unhook();
  atomic_store(&mlz_python.state, MLZ_PY_NONE);
  mlz_agent.trace_malloc = mlz_agent.trace_python = mlz_agent.trace_gc = false;
  atomic_store(&mlz_agent.attach, MLZ_AGENT_OFF);
  atomic_store(&mlz_wiped_get()->image, 0);
  atomic_store(&mlz_agent.last_gil, NULL);
  barrier();
  if (mlz_agent.started) mlz_modules_restore(); /* now: a thread that loads a module looks at `attach` before it redirects */
  bool quiet = wait_settled(own);
  if (!mlz_recorder_died(mlz_agent_control())) {
    if (own) say_end(t, own);
    detach_rings();
  }
  atomic_store(&mlz_agent.last_gil, NULL);
  forget_session(t);
  if (quiet) {
    for (struct mlz_thread *th = atomic_load(&mlz_agent.threads); th; th = th->next) empty_thread(th);
    mlz_session_close();
  } else {
    mlz_agent.peer.control = &mlz_no_control;
    atomic_store(&mlz_agent.threads, NULL);
  }
  empty_marks();
  if (mlz_agent.last_image > mlz_agent.image_last) mlz_agent.image_last = mlz_agent.last_image;
  mlz_agent.started = 0;
  mlz_agent.session[0] = 0;
  return quiet;
}
