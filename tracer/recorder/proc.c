#include "tracer/recorder/proc.h"

#include <stdio.h>
#include <stdlib.h>

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
