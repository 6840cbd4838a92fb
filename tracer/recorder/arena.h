/* Makes the arena (shm/control.h) and owns its descriptor and mapping. Recorder process, main thread: the thread that
 * makes it holds recorder_mutex until the process ends, which is how agents learn of its death. */
#ifndef MLZ_RECORDER_ARENA_H
#define MLZ_RECORDER_ARENA_H

#include "shm/control.h"

struct mlz_arena {
  int fd;
  struct mlz_control *control;
};

/* Negative errno: no descriptor, no memory. `name` is what /proc/PID/maps shows of the memfd. */
int mlz_arena_make(struct mlz_arena *a, const char *name, uint32_t words, uint64_t settings, uint64_t sample_over, bool follow);
void mlz_arena_unmake(struct mlz_arena *a); /* tests; the recorder keeps it until it exits */

uint64_t mlz_arena_clock(const struct mlz_control *c); /* ns since the start of the trace */

#endif
