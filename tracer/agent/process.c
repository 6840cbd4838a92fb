/* Beginning and end of a process image. The end of a process without Python is exit() or the return of main: both are
 * interposed here (an atexit handler of ours would run after the destructors of every library). */
#include "event.h"
#include "gate.h"
#include "python.h"
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* Whose child? When the parent has ended already, as a daemon's has, the kernel names who took the orphan in. */
static uint64_t whose_child(void) {
  long now = mlz_sys3(SYS_getppid, 0, 0, 0), then = mlz_agent.parent_pid;
  return (uint64_t)(then && now != then && (now == 1 || mlz_sys3(SYS_kill, then, 0, 0) == -ESRCH) ? then : now);
}

void mlz_process_begin(struct mlz_tls *t) {
  struct mlz_thread *th = t->thread;
  char line[4096];
  long n = 0, fd = mlz_sys6(SYS_openat, AT_FDCWD, (long)"/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd >= 0) {
    n = mlz_sys3(SYS_read, fd, (long)line, sizeof(line));
    mlz_sys3(SYS_close, fd, 0, 0);
  }
  struct mlz_two payload[2] = {
      {mlz_agent.image_parent, mlz_agent.image_parent ? MLZ_ORIGIN_FORK : MLZ_ORIGIN_EXEC},
      {mlz_event_text(th, line, n > 0 ? (size_t)n : 0), whose_child()},
  };
  mlz_event_rare(th, MLZ_K_IMAGE, 0, 0, mlz_peer_clock(&mlz_agent.peer), payload, 2, false);
  if (mlz_agent.image_parent) mlz_python_retell(th);
}

void mlz_process_finalize(struct mlz_tls *t) {
  if (atomic_exchange_explicit(&mlz_agent.finalized, 1, memory_order_relaxed)) return;
  mlz_gate_publish(t);
  /* With a number of its own: what other threads did without the GIL until now has higher ones than this ring's last. */
  atomic_store_explicit(&mlz_agent.last_gil, NULL, memory_order_relaxed);
  mlz_event_rare(t->thread, MLZ_K_FINALIZE, 0, 0, mlz_peer_clock(&mlz_agent.peer), NULL, 0, true);
}

static void at_exit(void) {
  struct mlz_tls *t = &mlz_tls;
  if (t->busy) return;
  t->busy = MLZ_BUSY_EVENT;
  if (mlz_agent_enter(t)) {
    mlz_gate_publish(t);
    mlz_process_finalize(t);
  }
  t->busy = MLZ_BUSY_NOT;
}

EXPORT void exit(int status) {
  at_exit();
  void (*real)(int) = (void (*)(int))dlsym(RTLD_NEXT, "exit");
  real(status);
  __builtin_unreachable();
}

typedef int main_function(int, char **, char **);
static main_function *program_main;

static int traced_main(int argc, char **argv, char **envp) {
  int status = program_main(argc, argv, envp);
  at_exit();
  return status;
}

/* glibc csu/libc-start.c; every version of the symbol has this signature. */
EXPORT int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                             void *stack_end);
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                      void *stack_end) {
  int (*real)(main_function *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
      dlsym(RTLD_NEXT, "__libc_start_main");
  program_main = main;
  return real(traced_main, argc, argv, init, fini, rtld_fini, stack_end);
}
