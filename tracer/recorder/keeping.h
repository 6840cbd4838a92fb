/* record --max-size and --flight-recorder: which files the writer fills (formats/writer.h, mlz_writer_keep), and when a flight recorder's memory is written to a file.
 * Recorder process; what is said to be of the writer thread runs there, between two groups. */
#ifndef MLZ_RECORDER_KEEPING_H
#define MLZ_RECORDER_KEEPING_H

#include "tracer/recorder/drain.h"
#include "tracer/recorder/options.h"
#include "tracer/recorder/output.h"

struct mlz_keeping {
  const struct mlz_options *options;
  struct mlz_output *output;
  struct mlz_writer *writer;
  char path[PATH_MAX]; /* of the dump that is asked for */
  uint64_t since_ns;
  json_t *state;     /* of the counters, then */
  bool asked;        /* the next group is followed by it */
  bool placed;       /* one was written: what it replaces is ours */
  _Atomic int error; /* of the last one; 0 or negative errno */
};

/* The file that the writer fills: the output, or memory. Its descriptor; or negative errno with a line in `err`. */
int mlz_keeping_open(struct mlz_keeping *k, const struct mlz_options *o, struct mlz_output *output, char *err, size_t size);
/* Once the writer is there: what it leaves out, and when it says where reading may begin. */
int mlz_keeping_begin(struct mlz_keeping *k, struct mlz_writer *writer);

/* The last `flight_ns` go into `path` (NULL: the output) once the next group is written. Main thread, before that group is handed over; one at a time. */
void mlz_keeping_ask(struct mlz_keeping *k, struct mlz_drain *d, const char *path);
/* The end of a flight recorder, after the writer thread's: the last of it goes into the output. 0, or negative errno. */
int mlz_keeping_end(struct mlz_keeping *k, const struct mlz_drain *d, const json_t *summary, uint64_t *bytes);

#endif
