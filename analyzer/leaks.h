/* What was not freed by the end, for each stack, and how it came about: a coarse history of the surviving allocations and of how many
 * blocks were live, from which grade.c judges. One pass over events with their allocation numbers; chunks are prepared on several threads (scan.h).
 *
 * Memory: one record for each stack of each process that has not ended, with a history if it has survivors, and 16 bytes for each
 * collection of generation 1 or 2; when a process ends its records are judged and added to those of the trace. Nothing grows with the
 * number of allocations. */
#ifndef MLZ_ANALYZER_LEAKS_H
#define MLZ_ANALYZER_LEAKS_H

#include "analyzer/scan.h"
#include "analyzer/spread.h"

#define MLZ_LEAK_BUCKETS 64

/* One stack in one process. Time is counted in allocations of the process: exact where published time is coarse. Bucket i of the history
 * holds the survivors numbered [origin + (i << shift), origin + ((i + 1) << shift)); low i is the smallest number of live blocks seen
 * meanwhile, freed ones included. A leak raises the lows; a cache, a buffer that is filled and emptied, or garbage that is collected
 * now and then does not. */
struct mlz_leak {
  uint32_t stack;
  uint32_t shift;
  int32_t *buckets;     /* MLZ_LEAK_BUCKETS, and as many lows behind them; NULL: nothing survived its chunk yet */
  uint64_t sampled;     /* number up to which the lows are known */
  int32_t live;         /* blocks live there */
  int32_t running;      /* used between two samples by whoever counts */
  uint64_t origin;      /* number of the stack's first allocation */
  uint64_t first, last; /* of the survivors added, the first and the last; exact unless that one was freed later */
  uint64_t allocated;   /* allocations of this stack, raw */
  uint64_t size_max;    /* largest block that the stack ever allocated */
  uint32_t highs;       /* how often a larger size than ever before came up */
  uint64_t seen;        /* survivors, raw */
  uint64_t in_flight;   /* those of them that were allocated just before a collection of generation 1 or 2 */
  uint64_t seen_bytes;
  double count, bytes; /* survivors, weighted */
  int64_t older;       /* blocks from the beginning that was left out, raw; they are in none of the above */
  double older_count, older_bytes;
  struct mlz_spread spread; /* of them: what was removed is in its frees */
};

/* The end of one process, for the judge. Numbers are allocation numbers. */
struct mlz_leak_process {
  struct mlz_process *process;
  uint64_t
      run_begin; /* first allocation of the program itself, a frame of __main__ on its stack, behind its first imports; 0: none ever has one */
  uint64_t end;
  uint64_t run_begin_ns, end_ns;
  uint64_t gap_ns;          /* no time difference below it means anything */
  uint64_t lossy_end;       /* allocations below it were made before frees were lost; 0: none lost */
  uint64_t old_collections; /* of generation 1 or 2 */
};

/* Most important first. */
enum mlz_grade {
  MLZ_GRADE_GROWING,
  MLZ_GRADE_RECENT,
  MLZ_GRADE_TURNOVER,
  MLZ_GRADE_CONSTANT,
  MLZ_GRADE_STARTUP,
  MLZ_GRADE_INTERPRETER,
  MLZ_GRADE_COUNT
};
const char *mlz_grade_name(enum mlz_grade grade);

/* One stack over all chosen processes. */
struct mlz_leak_entry {
  uint32_t stack;
  uint32_t stacks;      /* 1; after mlz_leaks_merge_lines as many as it stands for: `stack` is the largest of them */
  uint32_t same_grade;  /* how many of them have this grade themselves */
  enum mlz_grade grade; /* the most important of its processes */
  bool spans_loss;
  bool program; /* allocated by the program itself: no module's import, no interpreter without a Python frame */
  uint32_t processes;
  uint32_t growing, brief; /* in how many of them it grew; in how many of those that lived for less than a tenth of the trace */
  uint64_t seen;
  double count, bytes;
  struct mlz_spread spread;
  double older_count; /* of them from the beginning that was left out: allocated before the trace's first event */
  uint64_t first_ns, last_ns;
  double judged_bytes; /* of the process that gave the reason */
  char reason[120];
};

struct mlz_leaks {
  struct mlz_leak_entry *entries; /* growing first, startup and interpreter last, largest first */
  size_t n;
  double count, bytes; /* of all */
  struct mlz_spread spread;
  uint64_t duration_ns;
};

struct mlz_leak_options {
  bool include_mmap;
  const struct mlz_cut *since; /* NULL: the beginning */
  const struct mlz_cut *to;    /* NULL: each process's end */
};
void mlz_leaks_find(struct mlz_input *in, const struct mlz_leak_options *options, struct mlz_leaks *out);
/* leaks_totals.c: its part where the trace has totals only. `kinds`: enum mlz_stack_kind by stack. The entries are in no order. */
void mlz_leaks_of_totals(struct mlz_input *in, const struct mlz_leak_options *options, const uint8_t *kinds, struct mlz_leaks *out);
/* One entry for all stacks of the same line (function, file) and grade. Where one stack of a line grows, what its others keep in the run
 * belongs to it: a person looks at the line. */
void mlz_leaks_merge_lines(struct mlz_input *in, struct mlz_leaks *leaks);
void mlz_leaks_clear(struct mlz_leaks *leaks);

/* ---- the judge ---- */

/* What a stack is, as far as grades care. */
enum mlz_stack_kind {
  MLZ_STACK_PROGRAM,
  MLZ_STACK_MODULE_BODY, /* a module other than __main__ is being imported */
  MLZ_STACK_IMPORT,      /* the import machinery itself is innermost */
  MLZ_STACK_NO_PYTHON,
};
/* Reason: a short clause, written to `reason` (120 bytes). `last_ns`: when the last survivor was allocated. */
enum mlz_grade mlz_grade_judge(const struct mlz_leak *leak, enum mlz_stack_kind kind, const struct mlz_leak_process *process,
                               uint64_t last_ns, char *reason);

/* Adds a survivor; takes it away again (false: it was never added, damage or loss, and nothing happens). */
void mlz_leak_add(struct mlz_leak *leak, uint64_t alloc_no, const struct mlz_class *class);
bool mlz_leak_remove(struct mlz_leak *leak, uint64_t alloc_no, const struct mlz_class *class);
/* `live` blocks are live when the process has made `now` allocations; since the last sample that number was not known to change. */
void mlz_leak_sample(struct mlz_leak *leak, uint64_t now, int32_t live);
/* The history of a line: of all of its stacks in one process, each sampled up to `end`. Sizes do not count, so no buffer is seen in it.
 * true: the caller frees its buckets; false: no survivors, nothing to free. */
bool mlz_leak_sum(struct mlz_leak *sum, const struct mlz_leak *const *stacks, size_t n, uint64_t end);
/* Numbers of the first and the last survivor, to the precision of a bucket. false: none. */
bool mlz_leak_span(const struct mlz_leak *leak, uint64_t *first, uint64_t *last);

#endif
