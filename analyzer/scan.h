/* One pass over the events: walks the chunks of a trace, applies the process choice and the time limits, and hands out slices.
 *
 * A slice is a range of one chunk's events. Its process has not ended (docs/architecture.md, "When does a process end?") unless the
 * upper limit asks for later events too. Memory: a few words for each process, and the chunks that are decoded ahead.
 *
 * Chunks are decoded by several threads (formats/reader.h), which prepare what a pass wants to know of a chunk alone; everything else happens on the
 * caller's thread, in order. A pass gives the same results with a part as without one: so they do not depend on the number of threads. */
#ifndef MLZ_ANALYZER_SCAN_H
#define MLZ_ANALYZER_SCAN_H

#include "analyzer/input.h"

/* An instant in every process. */
enum mlz_cut_mode {
  MLZ_CUT_END = 0, /* the process's end */
  MLZ_CUT_EXIT,    /* the last event of the file, finalisation too */
  MLZ_CUT_TIME,    /* after all events with time_ns <= value */
  MLZ_CUT_ORDINAL, /* after the process's first `value` events */
  MLZ_CUT_PEAK,    /* at a peak of which only the bytes and the time are known (totals.h): not for scans */
};
struct mlz_cut_limit {
  enum mlz_cut_mode mode;
  uint64_t value;
};
struct mlz_cut {
  struct mlz_cut_limit all;     /* processes without a limit of their own */
  struct mlz_cut_limit *limits; /* by process index; NULL: none */
  size_t n_limits;
};
static inline struct mlz_cut_limit mlz_cut_limit_of(const struct mlz_cut *cut, size_t process_index) {
  return cut->limits && process_index < cut->n_limits ? cut->limits[process_index] : cut->all;
}

void mlz_cut_clear(struct mlz_cut *cut);

/* What a pass need not read of each process, since it has the sums: its first so many events. */
struct mlz_scan_start {
  uint64_t *ordinals; /* by process index; UINT64_MAX: nothing is read of it */
  size_t n;
};

struct mlz_slice {
  const struct mlz_block *block;
  struct mlz_process *process;
  uint32_t from, to;   /* events [from, to) of the block */
  uint64_t ordinal;    /* number, in the process, of the block's first event (event 0, not `from`) */
  uint64_t from_alloc; /* blocks allocated before the lower limit have a smaller number */
  const void *part;    /* what prepare_part found out of the block; NULL: there is none, or the slice is not the whole of it */
};

struct mlz_process_end {
  struct mlz_process *process;
  uint64_t allocs; /* of the process, up to here */
  uint64_t last_ns;
  bool finalized; /* it ended; else a limit was passed or the file ended */
};

struct mlz_scan {
  unsigned want;                      /* enum mlz_want; RARES_ONLY without limits only */
  const struct mlz_cut *from;         /* NULL: the beginning */
  const struct mlz_cut *to;           /* NULL: MLZ_CUT_END */
  const struct mlz_scan_start *start; /* NULL: all is read */
  void (*on_block)(void *context, const struct mlz_block *block,
                   struct mlz_process *process);                  /* every chunk of every process, whole; may be NULL */
  void (*on_slice)(void *context, const struct mlz_slice *slice); /* may be NULL */
  /* Once for each chosen process that had a slice, when its upper limit was passed or the file ended. May be NULL. */
  void (*on_process_end)(void *context, const struct mlz_process_end *end);
  /* On several threads at a time: fills part_bytes of memory, which are zero at first and later as another chunk left them. May be NULL. */
  size_t part_bytes;
  void (*prepare_part)(void *context, const struct mlz_block *block, void *part);
  void (*clear_part)(void *part);
  void *context;
};

/* Rewinds, reads all that lies between the limits; with on_block all. Exits with a message when memory is out. */
void mlz_scan_run(struct mlz_input *in, const struct mlz_scan *scan);

/* The rows of the rare column, [*first, *end), that belong to the slice. */
void mlz_slice_rares(const struct mlz_slice *slice, uint32_t *first, uint32_t *end);

/* How many of n ops are `op`. */
uint64_t mlz_scan_count(const uint8_t *ops, size_t n, enum mlz_op op);

#endif
