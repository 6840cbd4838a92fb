/* Starts COMMAND and keeps it and the recorder in step: signals, stops, exit status. Recorder process, main thread.
 * COMMAND sees the descriptors, signal mask, dispositions, limits and environment that `memlyze record` was started with, plus LD_PRELOAD. */
#ifndef MLZ_RECORDER_LAUNCH_H
#define MLZ_RECORDER_LAUNCH_H

#include "shm/control.h"
#include "tracer/recorder/allocators.h"

#include <sys/types.h>

struct mlz_launch {
  pid_t pid;
  bool exited, killed; /* killed: by a signal */
  int status;          /* as a shell gives it: 0-255, 128+N for signal N */
  int gate, report;    /* pipes to and from the process between fork and exec */
};

/* Before anything is opened: descriptors 0 to 2 that are closed are filled with ones that COMMAND does not inherit. */
int mlz_launch_guard_descriptors(void);

/* Takes over the signals, and holds them back until COMMAND runs; call before threads are made. */
void mlz_launch_signals(bool takes_dumps); /* SIGUSR2 asks for a dump instead of being passed on */
bool mlz_launch_dump_asked(void);          /* since the last call */
/* From now on a signal ends the sleep on control->wake. */
void mlz_launch_wakes(struct mlz_control *control);

/* Makes COMMAND's process, which waits until it is told to run. Negative errno: the recorder's failure, no process. */
int mlz_launch_fork(struct mlz_launch *l, char **command, const char *preload);
/* Lets it run. 0; or 126, 127: COMMAND cannot be executed, was not found, with the reason in *error. */
int mlz_launch_run(struct mlz_launch *l, int *error);
void mlz_launch_cancel(struct mlz_launch *l); /* instead of run */

/* Has it exited or stopped? Sets l->exited. true: it was stopped together with us (Ctrl-Z): the caller drains, then calls
 * mlz_launch_stop_self, which returns when both go on. */
bool mlz_launch_poll(struct mlz_launch *l);
void mlz_launch_stop_self(void);

/* The likely reason why no record came, found by looking at the file; a static or allocated-once string. */
const char *mlz_launch_untraced_cause(const char *command, const struct mlz_control *control);
/* Has the program that COMMAND names allocators of its own, which cannot be seen? */
void mlz_launch_own_allocators(const char *command, struct mlz_own_allocators *out);

#endif
