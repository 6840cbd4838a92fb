/* The instant at which the chosen processes together held most: its bytes, its time, and a cut at which a second pass can stop.
 *
 * Within a process the order of events is exact. Across processes, chunks of a group are merged by the time steps of their events; a process
 * that has ended holds nothing. Chunks are summed up on several threads (scan.h). Memory: one step for each distinct time in a group, if there are several processes. */
#ifndef MLZ_ANALYZER_PEAK_H
#define MLZ_ANALYZER_PEAK_H

#include "analyzer/scan.h"

struct mlz_peak {
  double bytes;
  uint64_t time_ns;
  bool unknown;       /* of a trace that has totals only (totals.h): bytes and time are 0 */
  struct mlz_cut cut; /* the caller clears it */
  /* Above 0: the highest of all lay in the beginning that was left out; bytes, time and cut are those of the highest since. */
  double earlier_bytes;
  uint64_t earlier_ns;
};
/* Of the whole run. */
static inline double mlz_peak_bytes(const struct mlz_peak *p) { return p->earlier_bytes > 0 ? p->earlier_bytes : p->bytes; }
static inline uint64_t mlz_peak_ns(const struct mlz_peak *p) { return p->earlier_bytes > 0 ? p->earlier_ns : p->time_ns; }

struct mlz_peak_finder;
/* Feed it every slice and every process end of one scan. */
struct mlz_peak_finder *mlz_peak_new(struct mlz_input *in, bool include_mmap);
void mlz_peak_slice(void *finder, const struct mlz_slice *slice); /* its part: a struct mlz_peak_part, or NULL */
/* What a stretch of one chunk does to the sum; for scan's part. */
struct mlz_peak_part {
  int64_t *values; /* of the chunk's classes, and one 0 */
  uint32_t room;
  struct mlz_peak_step *steps; /* one process: one; several: one for each time */
  size_t n_steps, room_steps;
};
void mlz_peak_prepare(void *finder, const struct mlz_block *block, void *part); /* the whole chunk; on any thread */
void mlz_peak_take(struct mlz_peak_finder *finder, const struct mlz_slice *slice, const struct mlz_peak_part *part);
void mlz_peak_clear_part(void *part);
void mlz_peak_process_end(void *finder, const struct mlz_process_end *end);
/* Frees the finder, fills *out. */
void mlz_peak_done(struct mlz_peak_finder *finder, struct mlz_peak *out);

/* A scan of its own, up to `to` (NULL: all). */
void mlz_peak_find(struct mlz_input *in, bool include_mmap, const struct mlz_cut *to, struct mlz_peak *out);

#endif
