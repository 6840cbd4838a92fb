/* One trace as a tool sees it: opened, its processes chosen, its marks found, and what every tool must say about it
 * (processes left out, damage, losses, emptiness). One thread. Owns the trace; strings live as long as the input. */
#ifndef MLZ_ANALYZER_INPUT_H
#define MLZ_ANALYZER_INPUT_H

#include "analyzer/options.h"
#include "formats/reader.h"

struct mlz_process {
  uint32_t id;
  uint32_t index; /* in mlz_input.processes */
  int64_t pid, parent;
  char *command;      /* "" if not known */
  const char *python; /* version; "" if it ran none */
  uint64_t start_ns, end_ns;
  uint64_t finalize_ns; /* its end (docs/architecture.md) is not before it; UINT64_MAX: it has none; 0: not known */
  bool chosen;
  bool ended_before; /* in the part that was left out */
};

struct mlz_input {
  const char *tool;
  char *path; /* without @MARK */
  char *mark; /* NULL: none */
  struct mlz_trace *trace;
  struct mlz_process **processes;
  size_t n_processes;
  size_t n_chosen;
  size_t n_threads;           /* highest thread id + 1 */
  uint64_t duration_ns;       /* 0: not written in the file; mlz_input_duration finds it */
  uint64_t gap_ns;            /* no time difference below it means anything */
  double sample_rate;         /* at the start */
  const json_t *rate_changes; /* array of what docs/format.md says; NULL: none */
  bool left_out;              /* the beginning is not there (record --max-size): so many events, until then (begin.h) */
  uint64_t left_out_events, left_out_ns;
  bool totals_only; /* its points are all that it knows of blocks (totals.h) */
  unsigned jobs;    /* threads that decode; 0: as many as there are CPUs */
  bool python;      /* --python: several stacks may show the same frames */
  bool quiet;       /* nothing is said that was said when the same trace was opened before */
  bool estimated;   /* some blocks stand for more than one: the rate was below 1 at some time. Complete after a scan */
  /* filled by scans */
  uint64_t events_read;
  uint64_t points_read;             /* of a trace that has totals only */
  uint64_t lost_allocs, lost_frees; /* of the chosen processes, from LOST events */
};

/* Opens common->path, chooses processes, prints the notice of what was left out. On failure prints one line to stderr and exits 2. */
struct mlz_input *mlz_input_open(const char *tool, const struct mlz_common_options *common);
bool mlz_input_same_file(const char *a, const char *b);
/* Is `path` (with or without @NAME) the file of this input? */
bool mlz_input_is_trace(const struct mlz_input *in, const char *path);
struct mlz_input *mlz_input_close(struct mlz_input *in); /* returns NULL */

/* Never NULL: a process that no table names (damage) gets an entry when it is first seen. */
struct mlz_process *mlz_input_process(struct mlz_input *in, uint32_t id);

uint64_t mlz_input_duration(struct mlz_input *in); /* ns; reads the file once if the recorder could not write it */

/* After the scans: warnings to stderr (damage, losses, empty trace with its cause). Returns the tool's exit status: 0, or 2
 * if nothing could be read. */
int mlz_input_finish(struct mlz_input *in);

/* Records of this THREAD row that its full ring had no room for. */
uint64_t mlz_input_thread_dropped(const json_t *thread);
/* Losses of the chosen processes: what LOST events say, or the recorder's counters where those say more. */
uint64_t mlz_input_dropped(const struct mlz_input *in);

/* Ends the program with "memlyze-TOOL: FILE: message" and status 2. */
void mlz_input_fail(const struct mlz_input *in, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void mlz_input_warn(const struct mlz_input *in, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Lenient look-ups: a missing key or another type gives the default. */
uint64_t mlz_input_uint(const json_t *object, const char *key, uint64_t otherwise);
const char *mlz_input_text(const json_t *object, const char *key);
/* A command line as one clean line; arguments that the shell would split are quoted. malloc'd. */
char *mlz_input_command(const json_t *object);

#endif
