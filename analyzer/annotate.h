/* What each line of source, and each native call, has allocated. What native code allocates that Python has called counts for both: for the native line,
 * and for the Python line. The figures of memlyze-annotate, and the source to show them in. One thread.
 * Memory: an entry for each line and each call that allocated, and one file's source at a time. */
#ifndef MLZ_ANALYZER_ANNOTATE_H
#define MLZ_ANALYZER_ANNOTATE_H

#include "analyzer/sites.h"

struct mlz_figures {
  struct mlz_tally tally;
  double peak_bytes, peak_count;
  double value; /* of the metric */
};
void mlz_figures_add(struct mlz_figures *to, const struct mlz_figures *x);

struct mlz_call { /* native code that called for memory */
  uint32_t frame; /* as stored: mlz_trace_native */
  struct mlz_figures figures;
};
struct mlz_line {
  const char *function;
  uint32_t line; /* 0: not known */
  enum mlz_language language;
  struct mlz_figures figures;
  struct mlz_call *calls; /* largest first */
  size_t n_calls, calls_room;
};
struct mlz_source_file {
  const char *path, *module; /* of the trace */
  struct mlz_line *lines;    /* by line, then by function */
  size_t n, room;
  struct mlz_figures figures;
};
struct mlz_annotation {
  struct mlz_source_file *files; /* largest first */
  size_t n, room;
  struct mlz_figures total; /* of what is shown */
};
struct mlz_annotate_wish {
  enum mlz_metric by;
  const char *function,
      *file; /* NULL: all. A function by its name, with or without what stands ahead of the last dot or colon; a file by its path or its end */
};
/* `peak` NULL: not asked for. Both have stacks as their keys. */
void mlz_annotate(struct mlz_input *in, const struct mlz_annotate_wish *wish, const struct mlz_tally_run *now,
                  const struct mlz_tally_run *peak, struct mlz_annotation *out);
void mlz_annotation_clear(struct mlz_annotation *a);

/* ---- source ---- */

struct mlz_source_text {
  char *path;   /* where it was found; NULL: nowhere */
  char **lines; /* [0] is line 1; without their ends */
  size_t n;
  bool later; /* changed after the recording began */
  char *bytes;
};
/* In `directory` (NULL: none was named), at the recorded path, or relative to where the command was started. */
void mlz_source_find(const struct mlz_input *in, const char *path, const char *directory, struct mlz_source_text *out);
void mlz_source_clear(struct mlz_source_text *text);

#endif
