/* A trace in the formats of other people's viewers. export_stacks.c brings the stacks together, and there is one file for each format or two; main_export.c
 * chooses. One thread. Memory: that of the passes, a row for each stack; what is written for each event or instant (perfetto, csv) is written as it is read. */
#ifndef MLZ_ANALYZER_EXPORT_H
#define MLZ_ANALYZER_EXPORT_H

#include "analyzer/intern.h"
#include "analyzer/measure.h"

struct mlz_export {
  struct mlz_input *in;
  const struct mlz_common_options *common;
  enum mlz_metric by;
  bool events;     /* csv: a line for each event */
  bool all_stacks; /* stacks are numbered in the order of the trace, not in that of the rows: the same in every export of it */
  struct mlz_window window;
  FILE *out; /* NULL until mlz_export_open */
};

/* Opens the output. `scanned`: all passes have run; what is to be said of the trace is said first, and the program ends where nothing could be read.
 * Else (what is written while it is read) the caller's end says it. */
FILE *mlz_export_open(struct mlz_export *e, bool scanned);

void mlz_export_collapsed(struct mlz_export *e);
void mlz_export_speedscope(struct mlz_export *e);
void mlz_export_pprof(struct mlz_export *e);
void mlz_export_dhat(struct mlz_export *e);
void mlz_export_massif(struct mlz_export *e);
void mlz_export_perfetto(struct mlz_export *e);
void mlz_export_csv(struct mlz_export *e);
void mlz_export_json(struct mlz_export *e);
/* Of the operands (and -o) one is a directory, the others are traces. Does not return; exits 2 if there is no Python. */
void mlz_export_parquet(const struct mlz_common_options *common, const char *service, const char *release, bool events)
    __attribute__((noreturn));

/* ---- text ---- */

void mlz_export_quoted(FILE *out, const char *text); /* as a JSON string */
void mlz_export_field(FILE *out, const char *text);  /* as a field of CSV (RFC 4180) */
/* "function (file:line)", clean. `whole`: the file with its folders, else as seen from the current directory. malloc'd. */
char *mlz_export_frame_text(const struct mlz_place *place, bool whole);
/* What a viewer should say of the numbers, a line: "memlyze 1.2; estimated from a sample of 0.1". malloc'd. */
char *mlz_export_note(const struct mlz_export *e);

/* ---- stacks ---- */

/* Frames and stacks by content: two rows of the trace may read the same, and viewers want them once. Frame numbers and stack numbers begin at 0, in the
 * order in which they are asked for. */
struct mlz_export_stacks {
  struct mlz_input *in;
  struct mlz_intern place_keys, stack_keys;
  struct mlz_place *places; /* by frame number */
  size_t room_places;
  uint32_t *of_frame, *of_stack; /* by id of the trace: number + 1 */
  uint32_t *path;                /* of the stack in hand */
  size_t room_path;
};
void mlz_export_stacks_begin(struct mlz_export_stacks *s, struct mlz_input *in);
void mlz_export_stacks_clear(struct mlz_export_stacks *s);
uint32_t mlz_export_stack_number(struct mlz_export_stacks *s, uint32_t stack);
/* Its frame numbers, innermost first, at least one: a stack whose outer frames are missing ends with one that says so, and so does the empty one. Valid
 * until the next number is asked for. */
const uint32_t *mlz_export_stack_frames(const struct mlz_export_stacks *s, uint32_t number, uint32_t *n);

/* All measures of each stack in the window, largest first by `by`. */
struct mlz_export_row {
  struct mlz_tally tally;
  double peak_bytes, peak_count;
  uint32_t stack; /* number */
};
struct mlz_export_rows {
  struct mlz_export_stacks stacks;
  struct mlz_export_row *rows;
  size_t n;
  bool has_peak;
  struct mlz_peak peak;
  struct mlz_tally total;
};
void mlz_export_rows_take(struct mlz_export *e, struct mlz_export_rows *out);
void mlz_export_rows_clear(struct mlz_export_rows *r);
double mlz_export_value(const struct mlz_export_row *row, enum mlz_metric metric); /* never below 0 */
static inline double mlz_export_live_count(const struct mlz_export_row *row) { return row->tally.alloc_count - row->tally.free_count; }

/* ---- events ---- */

/* +1 allocation, -1 free, 0 nothing that is counted. `from_alloc`: as in struct mlz_slice. */
static inline int mlz_export_sign(const struct mlz_export *e, const struct mlz_slice *slice, uint32_t i) {
  const struct mlz_block *b = slice->block;
  uint8_t op = b->ops[i];
  if (op >= MLZ_OP_FREE_FOREIGN) return 0;
  if (b->classes[b->classes_of[i]].domain == MLZ_BLOCK_MMAP && !e->common->include_mmap) return 0;
  if (slice->from_alloc && b->alloc_no[i] < slice->from_alloc) return 0;
  return op == MLZ_OP_ALLOC ? 1 : -1;
}
static inline unsigned mlz_export_want(const struct mlz_export *e) {
  return MLZ_WANT_TIME | (e->window.from ? (unsigned)MLZ_WANT_ALLOC_NO : 0u);
}
/* When the process ended, by its finalisation or its table row; UINT64_MAX: it did not, as far as is known. */
static inline uint64_t mlz_export_ended(const struct mlz_process_end *end) {
  return end->finalized ? end->last_ns : end->process->end_ns ? end->process->end_ns : UINT64_MAX;
}

#endif
