/* `memlyze-record --serve PID`: the recorder of a program that runs already and has called memlyze_start() (tracer/agent/api.h). Not for people:
 * the agent starts it, so that it is nobody's child and holds none of the program's descriptors. Recorder process, main thread.
 *
 * Descriptor 3, to be written once: "ready DIRECTORY" of the session, or "error" and what is wrong. Descriptor 4: the answers. When the program has
 * left (memlyze_stop) or is gone, the file is finished, and then what `memlyze-stats --json FILE` prints goes there; where the file could not be
 * finished, one line that says why. */
#ifndef MLZ_RECORDER_SERVE_H
#define MLZ_RECORDER_SERVE_H

#include "tracer/recorder/drain.h"

struct mlz_serve {
  uint32_t pid; /* 0: not serving, this is `memlyze record` */
  int pidfd;
  char **command; /* of the program, NULL-terminated */
};

/* Takes over the descriptors and the signals, looks at the program. Negative errno; one line in `err`. Before threads are made. */
int mlz_serve_begin(struct mlz_serve *s, uint32_t pid, char *err, size_t size);
/* The line on descriptor 3. The first one counts. */
void mlz_serve_say(const char *word, const char *text);
/* Is there nobody to serve any more? After each round. */
bool mlz_serve_over(const struct mlz_serve *s, const struct mlz_drain *d);
/* The answers, from the finished file; `problem`: why the file could not be finished, or NULL. Does not return. */
void mlz_serve_answer(int file, const char *problem) __attribute__((noreturn));

#endif
