#include "tracer/recorder/survivors.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long one process may be in the middle of execve; a process may also have wiped its own arguments and environment. */
#define EXEC_MS 50

/* The text may lie across two reads: the end of each is kept before the next. *empty: nothing could be read. */
static bool file_holds(const char *path, const char *wanted, bool *empty) {
  char buffer[16384];
  size_t n = strlen(wanted), kept = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  bool found = false;
  *empty = true;
  for (ssize_t got; fd >= 0 && !found && (got = read(fd, buffer + kept, sizeof buffer - kept)) > 0;) {
    size_t have = kept + (size_t)got;
    *empty = false;
    found = memmem(buffer, have, wanted, n) != NULL;
    kept = have < n - 1 ? have : n - 1;
    memmove(buffer, buffer + have - kept, kept);
  }
  if (fd >= 0) close(fd);
  return found;
}

/* In the middle of execve a process has its new image and no arguments or environment yet: both files read as empty (fs/exec.c and
 * fs/proc/base.c of Linux). Threads of the kernel and the dead read so too, but name no executable; one started with an empty environment
 * has arguments. */
static bool in_exec(const char *pid) {
  char path[300], byte;
  snprintf(path, sizeof path, "/proc/%s/exe", pid);
  if (readlink(path, &byte, 1) < 1) return false;
  snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool none = read(fd, &byte, 1) == 0;
  close(fd);
  return none;
}

static bool any_process(const char *file, const char *wanted) {
  char path[300];
  DIR *proc = opendir("/proc");
  bool found = false;
  for (struct dirent *e; proc && !found && (e = readdir(proc));) {
    if (!isdigit((unsigned char)e->d_name[0]) || strtol(e->d_name, NULL, 10) == getpid()) continue;
    snprintf(path, sizeof path, "/proc/%s/%s", e->d_name, file);
    bool empty;
    found = file_holds(path, wanted, &empty);
    for (int i = 0; i < EXEC_MS && empty && in_exec(e->d_name); i++) {
      usleep(1000);
      found = file_holds(path, wanted, &empty);
    }
  }
  if (proc) closedir(proc);
  return found;
}

bool mlz_survivors_map(const char *memfd_name) {
  char wanted[300];
  snprintf(wanted, sizeof wanted, "/memfd:%s ", memfd_name);
  return any_process("maps", wanted);
}

bool mlz_survivors_preload(const char *session_id) {
  char wanted[300];
  snprintf(wanted, sizeof wanted, "/%s/libmemlyze.so", session_id);
  return any_process("environ", wanted);
}
