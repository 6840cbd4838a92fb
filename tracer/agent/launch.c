#include "launch.h"

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define STACK_BYTES 65536u
#define SIGNALS 64
#define SET_BYTES 8 /* of the kernel's sigset_t */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* Both processes run on the program's memory, one after the other, while the calling thread is suspended (vfork). An intermediate process, whose exit
 * sends no signal and which only wait4 with __WALL finds, makes the recorder and is gone once that has called exec; so the recorder is an orphan from
 * its first instruction on. (exec gives a process the ordinary exit signal back: the recorder itself could not be such a child.) */
struct birth {
  const char *const *argv, *const *envp;
  char *stack; /* two */
  int status, answers, error;
};

/* sigaction of the kernel: all that is not default would be inherited as far as it is "ignored". */
static void default_signals(void) {
  struct {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
  } action = {0};
  for (long n = 1; n <= SIGNALS; n++) mlz_sys6(SYS_rt_sigaction, n, (long)&action, 0, SET_BYTES, 0, 0);
  uint64_t none = 0;
  mlz_sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, SET_BYTES, 0, 0);
}

static void close_from(long first) {
  if (mlz_sys3(SYS_close_range, first, ~0u, 0) == 0) return;
  struct {
    uint64_t now, most;
  } limit = {65536, 65536};
  mlz_sys6(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, 0, (long)&limit, 0, 0);
  for (uint64_t fd = (uint64_t)first; fd < limit.most && fd < 1048576; fd++) mlz_sys3(SYS_close, (long)fd, 0, 0);
}

static int recorder(void *arg) {
  struct birth *b = arg;
  /* A group is enough: no signal of the terminal comes. In a session of its own the recorder would have a scheduling group of its own (autogroup),
   * and on a busy machine, as measured on Linux 6.18, wait a second for its turn while the program's threads wait for room. */
  mlz_sys3(SYS_setpgid, 0, 0, 0);
  default_signals();
  /* Away from 0 to 4 first: they may be any of them. */
  long status = mlz_sys3(SYS_fcntl, b->status, F_DUPFD, 10), answers = mlz_sys3(SYS_fcntl, b->answers, F_DUPFD, 10);
  long null = mlz_sys6(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDWR, 0, 0, 0);
  if (null >= 0) null = mlz_sys3(SYS_fcntl, null, F_DUPFD, 10);
  const long to[] = {null, null, null, status, answers};
  for (long fd = 0; fd < 5; fd++) {
    long r = to[fd] < 0 ? to[fd] : mlz_sys6(SYS_dup3, to[fd], fd, 0, 0, 0, 0);
    if (r < 0) b->error = (int)-r;
  }
  close_from(5);
  if (!b->error) b->error = (int)-mlz_sys3(SYS_execve, (long)b->argv[0], (long)b->argv, (long)b->envp);
  return 127;
}

static int intermediate(void *arg) {
  struct birth *b = arg;
  int child = clone(recorder, b->stack + 2 * STACK_BYTES, CLONE_VM | CLONE_VFORK, b);
  if (child < 0) b->error = EAGAIN;
  if (child > 0 && b->error) mlz_sys6(SYS_wait4, child, 0, __WALL, 0, 0, 0);
  return 0;
}

static int give_birth(struct birth *b) {
  long m = mlz_sys6(SYS_mmap, 0, 2 * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m < 0 && m > -4096) return (int)m;
  b->stack = (char *)m;
  uint64_t all = ~UINT64_C(0), mask;
  mlz_sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&mask, SET_BYTES, 0, 0);
  int child = clone(intermediate, b->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK, b);
  if (child < 0) b->error = errno;
  if (child > 0) {
    while (mlz_sys6(SYS_wait4, child, 0, __WALL, 0, 0, 0) == -EINTR) {}
  }
  mlz_sys6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, SET_BYTES, 0, 0);
  mlz_sys3(SYS_munmap, m, 2 * STACK_BYTES, 0);
  return -b->error;
}

static long make_pipe(int ends[2]) { return mlz_sys3(SYS_pipe2, (long)ends, O_CLOEXEC, 0); }
static void close_both(const int ends[2]) {
  mlz_sys3(SYS_close, ends[0], 0, 0);
  mlz_sys3(SYS_close, ends[1], 0, 0);
}

int mlz_launch_recorder(const char *const argv[], const char *const envp[], struct mlz_launched *out) {
  int status[2], answers[2], saved = errno;
  long e = make_pipe(status);
  if (e < 0) return (int)e;
  e = make_pipe(answers);
  if (e < 0) {
    close_both(status);
    return (int)e;
  }
  struct birth b = {.argv = argv, .envp = envp, .status = status[1], .answers = answers[1]};
  e = give_birth(&b);
  mlz_sys3(SYS_close, status[1], 0, 0);
  mlz_sys3(SYS_close, answers[1], 0, 0);
  *out = (struct mlz_launched){status[0], answers[0]};
  if (e < 0) {
    mlz_sys3(SYS_close, status[0], 0, 0);
    mlz_sys3(SYS_close, answers[0], 0, 0);
  }
  errno = saved;
  return (int)e;
}
