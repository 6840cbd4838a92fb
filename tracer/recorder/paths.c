#include "tracer/recorder/paths.h"

#include <stdlib.h>
#include <string.h>

#define ENTRIES_MIN (UINT32_C(1) << 13) /* more than twice MLZ_FRAMES_MAX: a feed always gets its frames in */
#define ENTRIES_MAX (UINT32_C(1) << 20) /* 16 MiB */

static void empty(struct mlz_paths *p) {
  memset(p->at, 0xff, ((size_t)p->mask + 1) * sizeof *p->at); /* MLZ_PATH_NONE */
  p->count = 0;
  p->generation++;
}

bool mlz_paths_init(struct mlz_paths *p) {
  *p = (struct mlz_paths){.at = malloc(ENTRIES_MIN * sizeof *p->at), .mask = ENTRIES_MIN - 1};
  if (p->at) empty(p);
  return p->at != NULL;
}

void mlz_paths_deinit(struct mlz_paths *p) {
  free(p->at);
  *p = (struct mlz_paths){0};
}

static void grow(struct mlz_paths *p) {
  if (p->mask + 1 < ENTRIES_MAX) {
    uint32_t entries = (p->mask + 1) * 4;
    struct mlz_path *grown = malloc(entries * sizeof *grown);
    if (grown) {
      free(p->at);
      p->at = grown;
      p->mask = entries - 1;
    }
  }
  empty(p);
}

uint32_t mlz_paths_add(struct mlz_paths *p, uint32_t parent, uint64_t word) {
  if ((p->count + 1) * 2 > p->mask + 1) {
    grow(p);
    return MLZ_PATH_NONE;
  }
  uint32_t i = mlz_paths_hash(parent, word);
  while (p->at[i & p->mask].parent != MLZ_PATH_NONE) i++;
  p->at[i & p->mask] = (struct mlz_path){.word = word, .parent = parent, .stack = 0};
  p->count++;
  return i & p->mask;
}
