#include "tracer/recorder/tool.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int mlz_tool_exec(const char *tool, char **argv, char *path, size_t size) {
  static const char *const places[] = {"", "/../../analyzer"};
  char exe[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (n < 0) n = 0;
  exe[n] = 0;
  char *slash = strrchr(exe, '/');
  if (!slash) return -ENOENT;
  *slash = 0;
  for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
    if (snprintf(path, size, "%s%s/memlyze-%s", exe, places[i], tool) >= (int)size) continue;
    execv(path, argv);
    if (errno != ENOENT && errno != ENOTDIR) return -errno;
  }
  return -ENOENT;
}
