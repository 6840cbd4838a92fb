#include "tracer/recorder/proc.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* How long one process may be in the middle of execve; a process may also have wiped its own arguments and environment. */
#define EXEC_MS 50

char *mlz_proc_read(uint32_t pid, const char *name, size_t *bytes) {
  char path[64], *text = NULL;
  snprintf(path, sizeof path, "/proc/%u/%s", pid, name);
  FILE *file = fopen(path, "re");
  size_t size = 0, n = 0;
  for (size_t got = 1; file && got; n += got) {
    char *grown = realloc(text, size = n + 65536 + 1);
    if (!grown) break;
    text = grown;
    got = fread(text + n, 1, 65536, file);
  }
  if (file) fclose(file);
  if (text) text[n] = 0;
  *bytes = n;
  return text;
}

/* A process in the middle of execve has its new image and no arguments or environment yet: both files read as empty (fs/exec.c and
 * fs/proc/base.c of Linux). Threads of the kernel and the dead read so too, but name no executable; one started with an empty environment
 * has arguments. */
static bool in_exec(uint32_t pid) {
  char path[64], byte;
  snprintf(path, sizeof path, "/proc/%u/exe", pid);
  if (readlink(path, &byte, 1) < 1) return false;
  size_t bytes;
  char *arguments = mlz_proc_read(pid, "cmdline", &bytes);
  bool none = arguments && bytes == 0;
  free(arguments);
  return none;
}

char *mlz_proc_environ(uint32_t pid, size_t *bytes) {
  char *text = mlz_proc_read(pid, "environ", bytes);
  for (int i = 0; i < EXEC_MS && text && *bytes == 0 && in_exec(pid); i++) {
    free(text);
    usleep(1000);
    text = mlz_proc_read(pid, "environ", bytes);
  }
  return text;
}
