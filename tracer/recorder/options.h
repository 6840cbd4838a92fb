/* Command line of `memlyze record`: one table makes the parser and the help text. Recorder process, before the fork. */
#ifndef MLZ_RECORDER_OPTIONS_H
#define MLZ_RECORDER_OPTIONS_H

#include "tracer/recorder/filter.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define MLZ_OPTIONS_LEFT_OUT 256u

struct mlz_options {
  const char *output;
  bool force;
  double sample_rate;
  uint64_t sample_over; /* 0: off */
  bool snapshots_only;
  uint64_t snapshot_every_ns; /* 0: off */
  uint64_t max_size;          /* 0: all is kept */
  uint64_t flight_ns;         /* 0: no flight recorder */
  uint32_t max_stack_depth;
  bool native;
  bool track_gc;
  uint32_t max_events;      /* as given; mlz_options_words rounds it */
  struct mlz_filter filter; /* pointers into argv */
  bool drop, python, malloc, follow, wait_all, quiet, verbose;
  uint32_t serve;                                      /* pid; 0: none. There is no COMMAND then (serve.h) */
  uint32_t left_out[MLZ_OPTIONS_LEFT_OUT], left_out_n; /* threads of that process whose allocations are not wanted */
  char **command;                                      /* in argv; NULL-terminated */
};

enum mlz_options_outcome { MLZ_OPTIONS_RUN = 0, MLZ_OPTIONS_HELP = 1, MLZ_OPTIONS_VERSION = 2 };

/* -EINVAL: wrong; `err` holds one line without newline. Keeps pointers into argv. */
int mlz_options_parse(struct mlz_options *o, int argc, char **argv, char *err, size_t err_size);
void mlz_options_help(FILE *to);

/* The words that a ring needs at least, whatever max_events: four messages of the largest stack. */
uint32_t mlz_options_least_words(uint32_t max_stack_depth);
/* Words of a ring: two for each of max_events, rounded up to a power of two, and room for four messages of the largest stack. */
uint32_t mlz_options_words(const struct mlz_options *o);
uint64_t mlz_options_settings(const struct mlz_options *o); /* settings word of generation 1 (shm/control.h) */

/* "24 MB" (10^6), "12.3 MiB" (2^20), "4096": bytes. false: no size. */
bool mlz_options_size(const char *text, uint64_t *bytes);
/* "500ms", "1.5 s", "5m" or "5min", "1h": nanoseconds, at most a year. false: no time. */
bool mlz_options_duration(const char *text, uint64_t *ns);

#endif
