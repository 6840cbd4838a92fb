/* Reads a .mlyze file: checks it, and hands out its events chunk by chunk, decoded to plain arrays.
 * Memory: the tables and one chunk, whatever the number of events; mlz_trace_read_all: a few chunks. One thread calls for each `struct mlz_trace`; what may be called
 * from mlz_reading.prepare on other threads says so.
 *
 * A damaged file: tables and chunks that fail their checksum (or were cut) are passed over and counted in
 * `mlz_trace_damage`; what can be read is given. Nothing read is trusted: every index is checked against its table before a
 * caller sees it. One id of each table (mlz_trace_lost_string, mlz_trace_lost_frame; the last stack) is no stored row: it stands for every row that
 * was lost or never there, and reads as "<lost>", a frame of that function, and a stack of that frame. An unknown thread reads as 0. Only pairing is not checked: a
 * block freed twice is possible in a forged file. */
#ifndef MLZ_FORMATS_READER_H
#define MLZ_FORMATS_READER_H

#include "events.h"
#include "totals.h"

#include <jansson.h>

struct mlz_trace;

struct mlz_damage {
  uint64_t chunks_bad;     /* whole chunks passed over: checksum or content wrong */
  uint64_t bytes_bad;      /* their bytes, and those of a cut tail */
  uint64_t events_bad;     /* events that those chunks say (or the index says) they held; 0 if not known */
  uint64_t chunks_unknown; /* of a kind this reader does not know: skipped, not damage */
  bool cut;                /* no trailer: the recorder did not finish (killed, disk full) */
};

/* Opens and reads all tables. On failure returns a negative errno and puts one line without newline into err:
 * what is wrong and what to do, without the file's name. -EINVAL: not a .mlyze file or a newer format. */
int mlz_trace_open(struct mlz_trace **out, const char *path, char *err, size_t err_size);
struct mlz_trace *mlz_trace_close(struct mlz_trace *t); /* returns NULL */

const json_t *mlz_trace_meta(const struct mlz_trace *t); /* object, never NULL */
const json_t *mlz_trace_summary(
    const struct mlz_trace *t); /* the finished trace's summary, or the last group's state; object, never NULL */
const struct mlz_damage *mlz_trace_damage(const struct mlz_trace *t); /* complete once all chunks were read */
bool mlz_trace_complete(const struct mlz_trace *t);                   /* finished by the recorder and undamaged so far */

/* Tables. Strings are valid UTF-8 (a byte that is not reads as '?'), NUL-terminated (a NUL inside is cut there), owned by the trace. */
uint32_t mlz_trace_strings(const struct mlz_trace *t); /* ids 0..n-1 */
const char *mlz_trace_string(const struct mlz_trace *t, uint32_t id);
uint32_t mlz_trace_frames(const struct mlz_trace *t);
struct mlz_frame mlz_trace_frame(const struct mlz_trace *t, uint32_t id); /* its string ids are valid */
uint32_t mlz_trace_stacks(const struct mlz_trace *t);
const uint32_t *mlz_trace_stack(const struct mlz_trace *t, uint32_t id, uint32_t *n, bool *truncated); /* innermost first */
uint32_t mlz_trace_lost_string(const struct mlz_trace *t);
uint32_t mlz_trace_lost_frame(const struct mlz_trace *t);

/* Native frames. The file has them by address, and what they stand for (SYMBOLS): in every stack that mlz_trace_stack gives, these stand in their
 * place. A frame that nothing is said of reads as "module+0x12ab", its file is the module's path. */
const uint32_t *mlz_trace_stack_stored(const struct mlz_trace *t, uint32_t id, uint32_t *n); /* with frames by address */
struct mlz_native_frame {
  const char *path;     /* "": the code belongs to no file */
  const char *build_id; /* hexadecimal; "": it has none */
  uint64_t address;
  uint32_t module; /* row of MODULES; 0: none */
  bool resolved;
  const uint32_t *frames; /* if resolved: what it stands for, innermost first */
  uint32_t n;             /* 0: it is hidden */
};
/* Is the stored frame one by address? Valid until frames are resolved. */
bool mlz_trace_native(const struct mlz_trace *t, uint32_t frame, struct mlz_native_frame *out);
struct mlz_symbol_name {
  const char *function, *file; /* file NULL: the module's path stands there */
  uint32_t line;
  bool inferred;
};
/* Says what a frame by address stands for, whatever the file says. Stacks change with mlz_trace_symbols_done; ids that were known stay. -ENOMEM. */
int mlz_trace_symbol(struct mlz_trace *t, uint32_t frame, const struct mlz_symbol_name *names, uint32_t n);
int mlz_trace_symbols_done(struct mlz_trace *t);
/* From now on a stack with Python frames shows these alone. -ENOMEM. */
int mlz_trace_python_frames(struct mlz_trace *t);
/* Each object has its "id" (1 or more); of a process whose object was lost there is {"id", "lost": true}. */
size_t mlz_trace_processes(const struct mlz_trace *t);
const json_t *mlz_trace_process(const struct mlz_trace *t, size_t i); /* in order of id */
size_t mlz_trace_threads(const struct mlz_trace *t);
const json_t *mlz_trace_thread(const struct mlz_trace *t, size_t i);

/* One decoded EVENTS chunk. All arrays have `n` entries, in order, and stay valid until the next call. */
struct mlz_block {
  uint32_t process;
  uint32_t n;
  uint32_t allocs;  /* how many of them are ALLOC */
  uint64_t group;   /* number of the group (from 0) that the chunk belongs to; after damage to the index and a GROUP chunk, a lower one */
  uint64_t ordinal; /* number (from 0) of the process's first event in this chunk; chunks that were lost count where the index knows them */
  uint64_t first_alloc; /* number of the process's first allocation in this chunk */
  uint64_t first_ns, last_ns;
  uint32_t n_classes;
  const struct mlz_class *classes;
  const uint8_t *ops;         /* enum mlz_op */
  const uint32_t *classes_of; /* ALLOC and FREE*: index into classes; FREE_FOREIGN: UINT32_MAX; RARE: index into rares */
  const uint64_t *alloc_no;   /* ALLOC: its own number in the process; FREE*: of the block's allocation; FREE_FOREIGN, RARE: UINT64_MAX */
  const uint64_t *time_ns;
  const uint32_t *thread; /* thread id */
  uint32_t n_runs;        /* the same in short: runs of events of one thread, in order */
  const uint32_t *run_thread, *run_events;
  uint32_t n_steps; /* time_ns in short: from event step_at[i] up to the next step's it is step_ns[i]; at least one, the first at event 0 */
  const uint32_t *step_at;
  const uint64_t *step_ns;
  uint32_t n_rares;
  const struct mlz_rare *rares;
};

/* Which parts the caller looks at; the others' pointers are NULL and cost nothing. ops, classes, classes_of, runs and steps are always there, but with
 * RARES_ONLY: then there are classes, rares, and ops if there are rares; or with MARKS_ONLY: then there are rares and ops of chunks that may
 * have a MARK or a SNAPSHOT. */
enum mlz_want {
  MLZ_WANT_ALLOC_NO = 1,
  MLZ_WANT_TIME = 2,
  MLZ_WANT_THREAD = 4,
  MLZ_WANT_ALL = 7,
  MLZ_WANT_RARES_ONLY = 8,
  MLZ_WANT_MARKS_ONLY = 16
};

/* time_ns[i], from the steps. */
static inline uint64_t mlz_block_time(const struct mlz_block *b, uint32_t i) {
  uint32_t low = 0, high = b->n_steps;
  while (high - low > 1) {
    uint32_t middle = low + (high - low) / 2;
    if (b->step_at[middle] <= i)
      low = middle;
    else
      high = middle;
  }
  return b->step_ns[low];
}
/* The first event behind step i. */
static inline uint32_t mlz_block_step_end(const struct mlz_block *b, uint32_t i) { return i + 1 < b->n_steps ? b->step_at[i + 1] : b->n; }

void mlz_trace_rewind(struct mlz_trace *t);
/* 1: *b is the next chunk. 0: no more. Negative errno: out of memory. Damaged chunks are passed over and counted. */
int mlz_trace_next(struct mlz_trace *t, unsigned want, struct mlz_block *b);

/* What the index knows of the chunk that mlz_trace_next would read. */
struct mlz_ahead {
  uint32_t process, events;
  uint64_t group, ordinal, first_alloc, first_ns, last_ns;
};
bool mlz_trace_ahead(const struct mlz_trace *t, struct mlz_ahead *ahead); /* false: no more */
void mlz_trace_skip(struct mlz_trace *t);                                 /* it is not read */

/* All chunks in order, decoded by several threads. What a caller sees does not depend on how many they are. */
#define MLZ_JOBS_MAX 8u
struct mlz_reading {
  unsigned want;     /* enum mlz_want */
  unsigned jobs;     /* threads, the caller's among them; 0: as many CPUs as it may use, at most MLZ_JOBS_MAX */
  size_t part_bytes; /* memory for what `prepare` finds out of a chunk: zero at first, then as it was left by another chunk */
  /* Both on the caller's thread. skip: before anything is read, may it be said now that `pass` will say yes? pass: in order, shall it be passed over, as if
   * mlz_trace_skip had been called? NULL: never. */
  bool (*skip)(void *context, const struct mlz_ahead *ahead);
  bool (*pass)(void *context, const struct mlz_ahead *ahead);
  /* On any of the threads, several at a time, in any order: may read the trace's tables and what does not change. NULL: nothing to do. */
  void (*prepare)(void *context, const struct mlz_block *b, void *part);
  void (*clear)(void *part); /* frees what a part owns; may be NULL */
  /* On the caller's thread, in the order of the file. */
  void (*take)(void *context, const struct mlz_block *b, void *part);
  void *context;
};
/* Rewinds and reads all. 0 or -ENOMEM. `take` may not come back (exit, longjmp) only where the program ends. */
int mlz_trace_read_all(struct mlz_trace *t, const struct mlz_reading *r);
unsigned mlz_trace_jobs(unsigned wanted); /* what 0 stands for */

/* One point of a process (TOTALS): all of its rows as they stand there. `rows` stay valid until the next call. */
struct mlz_totals_point {
  struct mlz_totals_head head;       /* its name is a valid string id */
  bool known;                        /* false: what it builds upon was damaged, there are no rows */
  const struct mlz_totals_row *rows; /* their stack ids are valid */
  uint32_t n;
  double square; /* unit of the rows' squares */
};
/* Are allocations and frees no events of this file? Then its points are all that it knows of them. */
bool mlz_trace_totals_only(const struct mlz_trace *t);
size_t mlz_trace_totals_count(const struct mlz_trace *t); /* TOTALS chunks, at least as many as points */
void mlz_trace_totals_rewind(struct mlz_trace *t);
/* The next point of any process, those of one process in order. 1, 0: no more, -ENOMEM. Memory: the rows of each process. */
int mlz_trace_totals_next(struct mlz_trace *t, struct mlz_totals_point *p);

/* The heads of all points that are known, in the order of the file, read without their rows; and one of them, with its rows, which stay valid until the next
 * call of a function of totals. 1; 0: some of it is damaged after all; -ENOMEM. */
struct mlz_totals_mark {
  struct mlz_totals_head head;
  size_t first, last;             /* its TOTALS chunks, from the base on */
  uint32_t part_first, part_last; /* numbers of its own among those of its process */
  uint64_t at;                    /* offset behind the last of them */
};
int mlz_trace_totals_marks(struct mlz_trace *t, const struct mlz_totals_mark **marks, size_t *n);
/* What the recorder saw of the processes' resident memory, in the order of time; owned by the trace. n 0: nothing. */
struct mlz_rss {
  uint64_t ns, bytes;
  uint32_t process;
};
const struct mlz_rss *mlz_trace_rss(const struct mlz_trace *t, size_t *n);
/* Was the beginning left out (record --max-size)? Then the points that lie before the first EVENTS chunk, whose offset is the other's answer, stand for it. */
bool mlz_trace_left_out(const struct mlz_trace *t);
uint64_t mlz_trace_first_at(const struct mlz_trace *t); /* UINT64_MAX: there is none */
int mlz_trace_totals_load(struct mlz_trace *t, const struct mlz_totals_mark *mark, struct mlz_totals_point *p);

/* ns since the start at which the process's allocation `alloc_no` was recorded, to the precision of one chunk's time steps kept by the index;
 * false: not known. Needs no decoding. */
bool mlz_trace_alloc_time(struct mlz_trace *t, uint32_t process, uint64_t alloc_no, uint64_t *ns);
/* The same on any thread. *near: the caller's memory of where it found the last one, 0 at first. */
bool mlz_trace_alloc_time_near(const struct mlz_trace *t, size_t *near, uint32_t process, uint64_t alloc_no, uint64_t *ns);

#endif
