/* Allocators that traced programs and their modules have linked in: what they give is not seen, and a trace that does not say so would mislead. COMMAND's
 * file, and with --native every module that a stack came through, also those that dlopen brought. Recorder process, at the end of a session: the thread
 * that looks names up (naming.h), and before it the main thread. */
#ifndef MLZ_RECORDER_ALLOCATORS_H
#define MLZ_RECORDER_ALLOCATORS_H

#include "tracer/symbols/symbolizer.h"

#include <jansson.h>
#include <sys/types.h>

#define MLZ_OWN_ALLOCATORS_MAX 64u

struct mlz_own_allocator {
  char *module; /* path */
  struct mlz_symbol_allocator what;
  bool program; /* not a library */
  dev_t dev;
  ino_t ino;
};
struct mlz_own_allocators {
  struct mlz_own_allocator at[MLZ_OWN_ALLOCATORS_MAX]; /* more are not told */
  unsigned n;
};

/* One file: fd -1 gives nothing. Looks only; returns how many. */
unsigned mlz_allocators_find(int fd, const char *path, const uint8_t *build_id, size_t n,
                             struct mlz_own_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]);
/* Takes over what was found; of a file that is known already it is forgotten. */
void mlz_allocators_add(struct mlz_own_allocators *o, const struct mlz_own_allocator *found, unsigned n);
void mlz_allocators_free(struct mlz_own_allocators *o);

/* The sentence about one. malloc'd; NULL: out of memory. */
char *mlz_allocators_text(const struct mlz_own_allocator *a);
json_t *mlz_allocators_json(const struct mlz_own_allocators *o); /* new reference */

#endif
