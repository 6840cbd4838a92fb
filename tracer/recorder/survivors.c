#include "tracer/recorder/survivors.h"
#include "tracer/recorder/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef char *read_function(uint32_t pid, size_t *bytes);

static char *maps(uint32_t pid, size_t *bytes) { return mlz_proc_read(pid, "maps", bytes); }

static bool any_process(read_function *read_of, const char *wanted) {
  DIR *proc = opendir("/proc");
  bool found = false;
  for (struct dirent *e; proc && !found && (e = readdir(proc));) {
    if (!isdigit((unsigned char)e->d_name[0])) continue;
    uint32_t pid = (uint32_t)strtoul(e->d_name, NULL, 10);
    if (pid == (uint32_t)getpid()) continue;
    size_t bytes;
    char *text = read_of(pid, &bytes);
    found = text && memmem(text, bytes, wanted, strlen(wanted));
    free(text);
  }
  if (proc) closedir(proc);
  return found;
}

bool mlz_survivors_map(const char *memfd_name) {
  char wanted[300];
  snprintf(wanted, sizeof wanted, "/memfd:%s ", memfd_name);
  return any_process(maps, wanted);
}

bool mlz_survivors_preload(const char *session_id) {
  char wanted[300];
  snprintf(wanted, sizeof wanted, "/%s/libmemlyze.so", session_id);
  return any_process(mlz_proc_environ, wanted);
}
