#include "tracer/recorder/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Passed on, unless the terminal sent them to both of us. SIGTSTP, SIGTTIN and SIGTTOU do not stop us at once: a stopped recorder
 * would hold up a COMMAND that does not stop. */
static const int passed[] = {SIGTERM, SIGHUP, SIGQUIT, SIGINT, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT};
enum { PASSED = sizeof passed / sizeof passed[0] };
static const int ignored[] = {SIGPIPE, SIGXFSZ}; /* both are errors of a write, reported as such */
enum { IGNORED = sizeof ignored / sizeof ignored[0] };

static struct {
  struct sigaction passed[PASSED], ignored[IGNORED], child;
  sigset_t mask;
  struct mlz_control *control;
  volatile pid_t pid;
  volatile sig_atomic_t stop_wanted;
  volatile sig_atomic_t dump_wanted; /* SIGUSR2 came; < 0: it is passed on as the others are */
} state;

static void wake(void) {
  if (state.control)
    atomic_fetch_add(&state.control->wake, 1); /* a futex wait that is about to begin fails; a running one is interrupted */
}

static void on_signal(int n, siginfo_t *info, void *context) {
  (void)context;
  int saved = errno;
  bool stop = n == SIGTSTP || n == SIGTTIN || n == SIGTTOU;
  if (stop) state.stop_wanted = 1;
  if (n == SIGCONT) state.stop_wanted = 0;
  if (n == SIGUSR2 && state.dump_wanted >= 0) {
    state.dump_wanted = 1;
    wake();
    errno = saved;
    return;
  }
  bool from_kernel = info->si_code == SI_KERNEL || info->si_pid == 0;
  if (state.pid > 0 && (!from_kernel || n == SIGCONT)) kill(state.pid, n);
  wake();
  errno = saved;
}

static void on_child(int n) {
  (void)n;
  wake();
}

int mlz_launch_guard_descriptors(void) {
  for (int fd = 0; fd <= 2; fd++) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    if (open("/dev/null", O_RDWR | O_CLOEXEC) != fd) return -EIO;
  }
  return 0;
}

void mlz_launch_wakes(struct mlz_control *control) { state.control = control; }

bool mlz_launch_dump_asked(void) {
  bool asked = state.dump_wanted > 0;
  if (asked) state.dump_wanted = 0;
  return asked;
}

void mlz_launch_signals(bool takes_dumps) {
  state.dump_wanted = takes_dumps ? 0 : -1;
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &state.mask); /* until COMMAND runs: a signal in between must reach it */
  struct sigaction pass = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, ignore = {.sa_handler = SIG_IGN};
  struct sigaction child = {.sa_handler = on_child};
  sigfillset(&pass.sa_mask);
  for (unsigned i = 0; i < PASSED; i++) sigaction(passed[i], &pass, &state.passed[i]);
  for (unsigned i = 0; i < IGNORED; i++) sigaction(ignored[i], &ignore, &state.ignored[i]);
  sigaction(SIGCHLD, &child, &state.child);
}

/* "LD_PRELOAD=agent[:what was there]" in a copy of the environment. */
static char **environment(const char *preload) {
  size_t n = 0;
  while (environ[n]) n++;
  char **copy = calloc(n + 2, sizeof *copy), *line = NULL;
  if (!copy) return NULL;
  size_t at = 0;
  const char *old = getenv("LD_PRELOAD");
  for (size_t i = 0; i < n; i++) {
    if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0) copy[at++] = environ[i];
  }
  if (asprintf(&line, "LD_PRELOAD=%s%s%s", preload, old && *old ? ":" : "", old ? old : "") < 0) {
    free(copy);
    return NULL;
  }
  copy[at] = line;
  return copy;
}

static void environment_free(char **env) {
  size_t last = 0;
  while (env[last + 1]) last++;
  free(env[last]); /* the only line that is ours */
  free(env);
}

static void run(char **command, char **env, int gate, int report) {
  char go;
  if (read(gate, &go, 1) != 1) _exit(125); /* all signals are blocked: no EINTR */
  for (unsigned i = 0; i < PASSED; i++) sigaction(passed[i], &state.passed[i], NULL);
  for (unsigned i = 0; i < IGNORED; i++) sigaction(ignored[i], &state.ignored[i], NULL);
  sigaction(SIGCHLD, &state.child, NULL);
  sigprocmask(SIG_SETMASK, &state.mask, NULL);
  execvpe(command[0], command, env);
  int error = errno;
  ssize_t r = write(report, &error, sizeof error);
  _exit(r < 0 ? 126 : 127);
}

int mlz_launch_fork(struct mlz_launch *l, char **command, const char *preload) {
  *l = (struct mlz_launch){0};
  int gate[2], report[2];
  char **env = environment(preload);
  if (!env) return -ENOMEM;
  int r = pipe2(gate, O_CLOEXEC) < 0 ? -errno : 0;
  if (r == 0 && pipe2(report, O_CLOEXEC) < 0) {
    r = -errno;
    close(gate[0]);
    close(gate[1]);
  }
  if (r < 0) {
    environment_free(env);
    return r;
  }
  l->pid = fork();
  r = l->pid < 0 ? -errno : 0;
  if (l->pid == 0) {
    close(gate[1]);
    run(command, env, gate[0], report[1]);
  }
  environment_free(env);
  close(gate[0]);
  close(report[1]);
  l->gate = gate[1];
  l->report = report[0];
  if (r < 0) {
    close(l->gate);
    close(l->report);
  }
  return r;
}

static void reap(struct mlz_launch *l) {
  while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR) {}
}

int mlz_launch_run(struct mlz_launch *l, int *error) {
  state.pid = l->pid;
  ssize_t n = write(l->gate, "g", 1);
  close(l->gate);
  while (n == 1 && (n = read(l->report, error, sizeof *error)) < 0 && errno == EINTR) n = 1;
  close(l->report);
  int r = 0;
  if (n == (ssize_t)sizeof *error) {
    state.pid = 0;
    reap(l);
    r = *error == ENOENT || *error == ENOTDIR ? 127 : 126;
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL); /* whatever was blocked for COMMAND, the recorder hears */
  return r;
}

void mlz_launch_cancel(struct mlz_launch *l) {
  close(l->gate);
  close(l->report);
  reap(l);
}

bool mlz_launch_poll(struct mlz_launch *l) {
  int status;
  if (l->exited || waitpid(l->pid, &status, WNOHANG | WUNTRACED) != l->pid) return false;
  if (WIFSTOPPED(status)) return state.stop_wanted && WSTOPSIG(status) != SIGSTOP;
  l->exited = true;
  state.pid = 0; /* its number may be given to another process */
  l->killed = WIFSIGNALED(status);
  l->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return false;
}

void mlz_launch_stop_self(void) { raise(SIGSTOP); }
