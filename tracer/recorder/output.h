/* The output file's name: the trace is written under a temporary name beside it and takes its place once COMMAND runs, so that
 * a command that cannot be started leaves an existing trace as it was. Recorder process, main thread. */
#ifndef MLZ_RECORDER_OUTPUT_H
#define MLZ_RECORDER_OUTPUT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

struct mlz_output {
  int fd;                   /* the writer owns it */
  char path[PATH_MAX];      /* links resolved */
  char temporary[PATH_MAX]; /* "": written in place (a device, a pipe) */
};

/* Negative errno; `err` holds one line: the file and what is wrong. */
int mlz_output_open(struct mlz_output *o, const char *path, char *err, size_t err_size);
/* Gives the file its name; an existing one becomes FILE.old, or goes if `force`. */
int mlz_output_place(struct mlz_output *o, bool force, char *err, size_t err_size);
void mlz_output_abandon(struct mlz_output *o); /* instead of place; not the descriptor */

/* A file that is to take the place of one that was placed: its descriptor, or negative errno. Then replace, or abandon. */
int mlz_output_again(struct mlz_output *o);
int mlz_output_replace(struct mlz_output *o, int fd); /* 0 or negative errno */

#endif
