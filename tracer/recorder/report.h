/* What the recorder says about a session: the counters as JSON (state of a group, summary of the file), the summary
 * on stderr, and the progress line. Recorder process, main thread. */
#ifndef MLZ_RECORDER_REPORT_H
#define MLZ_RECORDER_REPORT_H

#include "tracer/recorder/allocators.h"
#include "tracer/recorder/drain.h"

json_t *mlz_report_state(const struct mlz_drain *d); /* new reference */

struct mlz_outcome {
  uint64_t duration_ns;
  uint64_t bytes_written;
  int status;                    /* exit status of COMMAND, as a shell gives it */
  int error;                     /* negative errno of the file, or 0 */
  bool complete;                 /* all that was published is in the file */
  unsigned cut;                  /* processes that were still running */
  uint64_t unnamed;              /* native frames whose names were not looked up in time */
  const char *untraced;          /* why nothing was traced; NULL: something was */
  struct mlz_own_allocators own; /* that are not traced, as far as known */
};
json_t *mlz_report_summary(const struct mlz_drain *d, const struct mlz_outcome *o); /* new reference */
void mlz_report_print(const struct mlz_drain *d, const struct mlz_outcome *o, const char *file);

/* Rewrites the line on a terminal, a few times a second; `last` is the caller's memory of it. */
void mlz_report_progress(const struct mlz_drain *d, uint64_t bytes_written, uint64_t *last);
void mlz_report_progress_erase(const uint64_t *last);

#endif
