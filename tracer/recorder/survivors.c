#include "tracer/recorder/survivors.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool maps_arena(const char *pid, const char *wanted) {
  char path[300], *line = NULL;
  size_t size = 0;
  bool found = false;
  snprintf(path, sizeof path, "/proc/%s/maps", pid);
  FILE *f = fopen(path, "re");
  if (!f) return false;
  while (!found && getline(&line, &size, f) > 0) found = strstr(line, wanted) != NULL;
  free(line);
  fclose(f);
  return found;
}

bool mlz_survivors_any(const char *memfd_name) {
  char wanted[300];
  snprintf(wanted, sizeof wanted, "/memfd:%s ", memfd_name);
  DIR *proc = opendir("/proc");
  bool found = false;
  for (struct dirent *e; proc && !found && (e = readdir(proc));) {
    if (isdigit((unsigned char)e->d_name[0]) && strtol(e->d_name, NULL, 10) != getpid()) found = maps_arena(e->d_name, wanted);
  }
  if (proc) closedir(proc);
  return found;
}
