#include "tracer/recorder/allocators.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

unsigned mlz_allocators_find(int fd, const char *path, const uint8_t *build_id, size_t n,
                             struct mlz_own_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]) {
  struct mlz_symbol_allocator found[MLZ_SYMBOL_ALLOCATORS_MAX];
  struct stat st;
  bool program;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) return 0;
  unsigned kept = 0, all = mlz_symbol_allocators(fd, build_id, n, &program, found);
  for (unsigned i = 0; i < all; i++) {
    char *module = strdup(path);
    if (module) out[kept++] = (struct mlz_own_allocator){module, found[i], program, st.st_dev, st.st_ino};
  }
  return kept;
}

static bool is_known(const struct mlz_own_allocators *o, const struct mlz_own_allocator *a) {
  for (unsigned i = 0; i < o->n; i++) {
    const struct mlz_own_allocator *b = &o->at[i];
    if (b->dev == a->dev && b->ino == a->ino && strcmp(b->what.name, a->what.name) == 0) return true;
  }
  return false;
}

void mlz_allocators_add(struct mlz_own_allocators *o, const struct mlz_own_allocator *found, unsigned n) {
  for (unsigned i = 0; i < n; i++) {
    if (o->n < MLZ_OWN_ALLOCATORS_MAX && !is_known(o, &found[i]))
      o->at[o->n++] = found[i];
    else
      free(found[i].module);
  }
}

void mlz_allocators_free(struct mlz_own_allocators *o) {
  for (unsigned i = 0; i < o->n; i++) free(o->at[i].module);
  o->n = 0;
}

char *mlz_allocators_text(const struct mlz_own_allocator *a) {
  char *text;
  int n = asprintf(&text, "%s has %s linked in (%s): what it gives is not traced%s", a->module, a->what.name, a->what.evidence,
                   a->program ? "; link it as a shared library to see it" : "");
  return n < 0 ? NULL : text;
}

json_t *mlz_allocators_json(const struct mlz_own_allocators *o) {
  json_t *list = json_array();
  for (unsigned i = 0; i < o->n; i++) {
    const struct mlz_own_allocator *a = &o->at[i];
    json_t *module = json_string(a->module);
    json_array_append_new(list, json_pack("{s:o, s:s, s:s, s:b}", "module", module ? module : json_string("?"), "allocator", a->what.name,
                                          "known_by", a->what.evidence, "program", a->program));
  }
  return list;
}
