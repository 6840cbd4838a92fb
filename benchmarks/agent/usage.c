/* usage FILE COMMAND [ARG...]: runs COMMAND and writes into FILE, as one JSON line, what it used: wall time, user and system CPU of it and of all the
 * children that it waited for, the largest resident set among them, page faults, context switches; and how it ended.
 *
 * It stands between `memlyze record` and the program, so the program's tree is told exactly from the recorder, which is what remains of
 * record's own usage. It is linked statically: the agent cannot be preloaded into it, so it is no part of the trace, and it is so small that its own
 * resident set, which a child inherits as its first peak, does not count.
 *
 * Inside a session it also writes how much memory the session's arena (rings and control block) holds: by the link beside the preloaded agent. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Bytes that are allocated in the arena of the session whose agent is preloaded; 0 without one. */
static long long arena_bytes(void) {
  static const char agent[] = "libmemlyze.so";
  char path[4096];
  struct stat s;
  const char *preload = getenv("LD_PRELOAD"), *found = preload ? strstr(preload, agent) : NULL;
  if (!found) return 0;
  const char *begin = found;
  while (begin > preload && begin[-1] != ':' && begin[-1] != ' ') begin--;
  if (snprintf(path, sizeof path, "%.*sarena", (int)(found - begin), begin) >= (int)sizeof path || stat(path, &s)) return 0;
  return (long long)s.st_blocks * 512;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s FILE COMMAND [ARG...]\n", argv[0]);
    return 2;
  }
  double began = now();
  pid_t child = fork();
  if (child == 0) {
    execvp(argv[2], argv + 2);
    fprintf(stderr, "%s: %s\n", argv[2], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
  }
  int status;
  struct rusage used;
  pid_t got = -1;
  while (child > 0 && (got = wait4(child, &status, 0, &used)) < 0 && errno == EINTR) {}
  if (got < 0) {
    perror(argv[0]);
    return 125;
  }
  double wall = now() - began;
  FILE *out = fopen(argv[1], "w");
  if (!out) {
    perror(argv[1]);
    return 125;
  }
  fprintf(
      out,
      "{\"wall\": %.6f, \"user\": %.6f, \"sys\": %.6f, \"max_rss\": %lld, \"arena\": %lld, \"minor_faults\": %ld, \"major_faults\": %ld, "
      "\"voluntary\": %ld, \"involuntary\": %ld, \"status\": %d}\n",
      wall, seconds(used.ru_utime), seconds(used.ru_stime), (long long)used.ru_maxrss * 1024, arena_bytes(), used.ru_minflt, used.ru_majflt,
      used.ru_nvcsw, used.ru_nivcsw, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  if (fclose(out)) {
    perror(argv[1]);
    return 125;
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
