#include "tracer/recorder/paths.h"

#include <stdlib.h>
#include <string.h>

#define ENTRIES_MIN (UINT32_C(1) << 12)
#define ENTRIES_MAX (UINT32_C(1) << 18) /* 4 MiB */

bool mlz_paths_init(struct mlz_paths *p) {
  *p = (struct mlz_paths){.at = calloc(ENTRIES_MIN, sizeof *p->at), .mask = ENTRIES_MIN - 1};
  p->recent = calloc(MLZ_PATHS_RECENT, sizeof *p->recent);
  return p->at && p->recent;
}

void mlz_paths_deinit(struct mlz_paths *p) {
  free(p->at);
  free(p->recent);
  *p = (struct mlz_paths){0};
}

uint32_t mlz_paths_look(const struct mlz_paths *p, uint32_t from, uint64_t word, uint32_t hash) {
  const struct mlz_path *x = &p->at[hash & p->mask];
  while (x->to && (x->word != word || x->from != from)) x = &p->at[++hash & p->mask];
  if (x->to) p->recent[mlz_paths_hash(from, word) % MLZ_PATHS_RECENT] = *x;
  return x->to;
}

static void put(struct mlz_path *at, uint32_t mask, struct mlz_path x) {
  uint32_t i = mlz_paths_hash(x.from, x.word);
  while (at[i & mask].to) i++;
  at[i & mask] = x;
}

static void make_room(struct mlz_paths *p) {
  uint32_t entries = p->mask + 1;
  struct mlz_path *grown = entries < ENTRIES_MAX ? calloc(entries * 2, sizeof *grown) : NULL;
  if (!grown) {
    memset(p->at, 0, entries * sizeof *p->at);
    p->count = 0;
    return;
  }
  for (uint32_t i = 0; i < entries; i++) {
    if (p->at[i].to) put(grown, entries * 2 - 1, p->at[i]);
  }
  free(p->at);
  p->at = grown;
  p->mask = entries * 2 - 1;
}

void mlz_paths_add(struct mlz_paths *p, uint32_t from, uint64_t word, uint32_t to) {
  if ((p->count + 1) * 2 > p->mask + 1) make_room(p);
  put(p->at, p->mask, (struct mlz_path){.word = word, .from = from, .to = to});
  p->count++;
}
