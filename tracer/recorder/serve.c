#include "tracer/recorder/serve.h"

#include "tracer/recorder/proc.h"
#include "tracer/recorder/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STATUS = 3, ANSWERS = 4 };

/* What a terminal or a session manager sends to everybody: the program decides what it means, and the trace ends when the program does. */
static void ignore_signals(void) {
  static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGXFSZ, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};
  for (unsigned i = 0; i < sizeof ignored / sizeof ignored[0]; i++) signal(ignored[i], SIG_IGN);
}

/* The command line as the system knows it. */
static char **command_of(uint32_t pid) {
  size_t n, words = 0;
  char *text = mlz_proc_read(pid, "cmdline", &n);
  for (size_t i = 0; text && i < n; i += strlen(text + i) + 1) words++;
  char **command = calloc(words + 1, sizeof *command);
  if (command) {
    for (size_t i = 0, w = 0; w < words; i += strlen(text + i) + 1) command[w++] = text + i;
  }
  return command;
}

int mlz_serve_begin(struct mlz_serve *s, uint32_t pid, char *err, size_t size) {
  if (fcntl(STATUS, F_SETFD, FD_CLOEXEC) < 0 || fcntl(ANSWERS, F_SETFD, FD_CLOEXEC) < 0) {
    snprintf(err, size, "--serve is used by memlyze.start(); descriptors 3 and 4 are not open");
    return -EBADF;
  }
  ignore_signals();
  *s = (struct mlz_serve){.pid = pid, .pidfd = (int)syscall(SYS_pidfd_open, pid, 0), .command = command_of(pid)};
  if (s->command && (s->pidfd >= 0 || errno != ESRCH)) return 0;
  snprintf(err, size, s->command ? "process %u does not run" : "out of memory (process %u)", pid);
  return -ESRCH;
}

void mlz_serve_say(const char *word, const char *text) {
  char line[PATH_MAX + 300];
  int n = snprintf(line, sizeof line, "%s %s\n", word, text);
  if (n >= (int)sizeof line) n = sizeof line - 1;
  if (write(STATUS, line, (size_t)n) == n) close(STATUS);
}

static bool program_gone(const struct mlz_serve *s) {
  struct pollfd p = {.fd = s->pidfd, .events = POLLIN};
  if (s->pidfd >= 0) return poll(&p, 1, 0) > 0;
  return kill((pid_t)s->pid, 0) < 0 && errno == ESRCH; /* before Linux 5.3 */
}

/* Nobody waits for the answers, and the program has sent nothing yet: its start() has given up. Later it may close them as it likes. */
static bool given_up(const struct mlz_drain *d) {
  struct pollfd p = {.fd = ANSWERS};
  return d->first_ring == 0 && poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

bool mlz_serve_over(const struct mlz_serve *s, const struct mlz_drain *d) { return d->watched_left || program_gone(s) || given_up(d); }

void mlz_serve_answer(int file, const char *problem) {
  char path[PATH_MAX + 64], name[] = "memlyze-stats", json[] = "--json", trace[32];
  if (!problem) {
    snprintf(trace, sizeof trace, "/proc/self/fd/%d", file);
    dup2(ANSWERS, 1);
    int e = mlz_tool_exec("stats", (char *[]){name, json, trace, NULL}, path, sizeof path);
    dprintf(1, "memlyze-record: memlyze-stats cannot be executed: %s; reinstall memlyze\n", strerror(-e));
  } else {
    dprintf(ANSWERS, "memlyze-record: %s\n", problem);
  }
  _exit(problem ? 125 : 0);
}
