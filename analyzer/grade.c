#include "analyzer/leaks.h"

#include "analyzer/text.h"
#include "analyzer/units.h"

#include <stdio.h>
#include <string.h>

const char *mlz_grade_name(enum mlz_grade grade) {
  static const char *const names[] = {"growing", "recent", "turnover", "constant", "startup", "interpreter"};
  return grade < MLZ_GRADE_COUNT ? names[grade] : "?";
}

/* ---- the history ---- */

static void fold(struct mlz_leak *leak) {
  for (unsigned i = 0; i < MLZ_LEAK_BUCKETS / 2; i++) leak->buckets[i] = leak->buckets[2 * i] + leak->buckets[2 * i + 1];
  memset(leak->buckets + MLZ_LEAK_BUCKETS / 2, 0, MLZ_LEAK_BUCKETS / 2 * sizeof *leak->buckets);
  leak->shift++;
}

void mlz_leak_add(struct mlz_leak *leak, uint64_t alloc_no, const struct mlz_class *class) {
  if (!leak->buckets) leak->buckets = mlz_text_calloc(MLZ_LEAK_BUCKETS, sizeof *leak->buckets);
  if (!leak->seen) leak->first = alloc_no;
  leak->last = alloc_no;
  uint64_t offset = alloc_no - leak->origin;
  while (offset >> leak->shift >= MLZ_LEAK_BUCKETS) fold(leak);
  leak->buckets[offset >> leak->shift]++;
  leak->seen++;
  leak->seen_bytes += class->size;
  leak->count += class->weight;
  leak->bytes += class->weight * (double)class->size;
}

bool mlz_leak_remove(struct mlz_leak *leak, uint64_t alloc_no, const struct mlz_class *class) {
  if (!leak->buckets || !leak->seen || alloc_no < leak->origin) return false;
  uint64_t bucket = (alloc_no - leak->origin) >> leak->shift;
  if (bucket >= MLZ_LEAK_BUCKETS || leak->buckets[bucket] <= 0) return false;
  leak->buckets[bucket]--;
  leak->seen--;
  leak->seen_bytes -= class->size < leak->seen_bytes ? class->size : leak->seen_bytes;
  leak->count -= class->weight;
  leak->bytes -= class->weight * (double)class->size;
  return true;
}

bool mlz_leak_span(const struct mlz_leak *leak, uint64_t *first, uint64_t *last) {
  if (!leak->buckets || !leak->seen) return false;
  unsigned low = 0, high = MLZ_LEAK_BUCKETS - 1;
  while (low < high && leak->buckets[low] <= 0) low++;
  while (high > low && leak->buckets[high] <= 0) high--;
  *first = leak->origin + ((uint64_t)low << leak->shift);
  *last = leak->origin + (((uint64_t)high + 1) << leak->shift) - 1;
  /* Exact where the remembered one may still be there. */
  if (leak->first > *first && leak->first <= *last) *first = leak->first;
  if (leak->last < *last && leak->last >= *first) *last = leak->last;
  return true;
}

/* ---- the judge ---- */

enum {
  SURVIVORS_MIN = 10,          /* fewer blocks show no trend */
  SURVIVORS_MIN_IMPORT = 1000, /* a module body keeps much, once; it takes more to call it a leak */
  PARTS = 8,
  PARTS_MIN = 6,              /* of PARTS between the first survivor and the end must hold survivors */
  ENLARGED_MIN = 16,          /* sizes at random set a dozen records at most */
  ENLARGED_SURVIVORS_MAX = 4, /* the buffer, and what else the line holds */
  ENLARGED_BYTES_MIN = 4096,
};
#define GROWING_UNTIL 0.75     /* of the program's allocations: the last survivor lies beyond it */
#define GROWING_UNTIL_TIME 0.6 /* and of its time */
#define GROWING_SPAN 0.2       /* of its allocations lie between first and last survivor */
#define FIRST_HALF_MIN 0.2     /* of the survivors, where many were freed */
#define RECENT_FROM 0.9
#define STARTUP_UNTIL 0.25
#define TURNOVER_FROM 0.3   /* of the stack's own activity: everything older was freed */
#define TIME_STEPS_MIN 20.0 /* a run shorter than this many time steps is judged by allocations alone */

static double place(uint64_t at, uint64_t begin, uint64_t end) {
  if (at <= begin || end <= begin) return 0;
  return at >= end ? 1 : (double)(at - begin) / (double)(end - begin);
}

/* In how many of PARTS equal parts of [first, end) survivors were allocated. */
static unsigned parts_filled(const struct mlz_leak *leak, uint64_t first, uint64_t end) {
  bool filled[PARTS] = {false};
  double width = (double)(end - first) / PARTS;
  uint64_t step = UINT64_C(1) << leak->shift;
  unsigned n = 0;
  for (unsigned i = 0; i < MLZ_LEAK_BUCKETS; i++) {
    if (leak->buckets[i] <= 0) continue;
    uint64_t low = leak->origin + i * step, high = low + step - 1;
    double from = low > first ? (double)(low - first) / width : 0, to = high > first ? (double)(high - first) / width : 0;
    /* A bucket wider than a part fills as many parts as it has survivors for. */
    int32_t left = leak->buckets[i];
    for (unsigned part = (unsigned)from; part <= to && part < PARTS && left > 0; part++, left--) filled[part] = true;
  }
  for (unsigned i = 0; i < PARTS; i++) n += filled[i];
  return n;
}

/* The share of the survivors that are from the first half of [first, end). A leak is about even; where blocks are replaced at random the young prevail. */
static double first_half(const struct mlz_leak *leak, uint64_t first, uint64_t end) {
  uint64_t middle = first + (end - first) / 2, step = UINT64_C(1) << leak->shift;
  double n = 0;
  for (unsigned i = 0; i < MLZ_LEAK_BUCKETS && leak->origin + i * step < middle; i++)
    if (leak->buckets[i] > 0) n += leak->buckets[i];
  return n / (double)leak->seen;
}

/* A list that holds nothing new (None, small integers) grows by its one buffer, which realloc frees and allocates again. */
static bool is_enlarged_buffer(const struct mlz_leak *leak) {
  return leak->seen <= ENLARGED_SURVIVORS_MAX && leak->highs >= ENLARGED_MIN && leak->seen_bytes >= ENLARGED_BYTES_MIN &&
         (double)leak->seen_bytes >= 0.9 * (double)leak->size_max;
}

static bool is_growing(const struct mlz_leak *leak, enum mlz_stack_kind kind, const struct mlz_leak_process *p, uint64_t first,
                       uint64_t last, bool late, char *reason) {
  char text[MLZ_UNITS_MAX];
  double until = place(last, p->run_begin, p->end);
  if (kind == MLZ_STACK_PROGRAM && late && until >= GROWING_UNTIL_TIME && is_enlarged_buffer(leak)) {
    snprintf(reason, 120, "a buffer enlarged %s times, last at %.0f%% of the run", mlz_units_count(text, leak->highs - 1), 100 * until);
    return true;
  }
  uint64_t minimum = kind == MLZ_STACK_PROGRAM ? SURVIVORS_MIN : SURVIVORS_MIN_IMPORT;
  uint64_t from = first > p->run_begin ? first : p->run_begin;
  if (leak->seen < minimum || !late || until < GROWING_UNTIL || until - place(first, p->run_begin, p->end) < GROWING_SPAN) return false;
  unsigned parts = parts_filled(leak, from, p->end);
  if (parts < PARTS_MIN || (leak->allocated >= 2 * leak->seen && first_half(leak, from, p->end) < FIRST_HALF_MIN)) return false;
  snprintf(reason, 120, "added to until the end: in %u of %d parts of the run since its first", parts, PARTS);
  return true;
}

enum mlz_grade mlz_grade_judge(const struct mlz_leak *leak, enum mlz_stack_kind kind, const struct mlz_leak_process *p, uint64_t last_ns,
                               char *reason) {
  uint64_t first, last;
  if (!mlz_leak_span(leak, &first, &last)) first = last = leak->origin;
  double from = place(first, p->run_begin, p->end), until = place(last, p->run_begin, p->end);
  if (kind == MLZ_STACK_NO_PYTHON || kind == MLZ_STACK_IMPORT) {
    snprintf(reason, 120, "%s",
             kind == MLZ_STACK_IMPORT ? "kept by the import machinery" : "no Python frame: the interpreter's or a library's own");
    return MLZ_GRADE_INTERPRETER;
  }
  double duration = p->end_ns > p->run_begin_ns ? (double)(p->end_ns - p->run_begin_ns) : 0;
  bool late = duration < TIME_STEPS_MIN * (double)p->gap_ns || place(last_ns, p->run_begin_ns, p->end_ns) >= GROWING_UNTIL_TIME;
  bool older_freed = leak->allocated >= leak->seen + leak->seen / 2 && leak->allocated > leak->seen + 1 &&
                     place(first, leak->origin, p->end) > TURNOVER_FROM;
  bool enlarged = is_enlarged_buffer(leak);
  if ((!older_freed || enlarged) && is_growing(leak, kind, p, first, last, late, reason)) return MLZ_GRADE_GROWING;
  if (kind == MLZ_STACK_MODULE_BODY) {
    snprintf(reason, 120, "kept by a module that was imported");
    return MLZ_GRADE_STARTUP;
  }
  if (until <= STARTUP_UNTIL) {
    snprintf(reason, 120, "none since %.0f%% of the run", 100 * until);
    return MLZ_GRADE_STARTUP;
  }
  if (from >= RECENT_FROM) {
    snprintf(reason, 120, "all from the last %.0f%% of the run: likely in use", 100 * (1 - from) < 1 ? 1 : 100 * (1 - from));
    return MLZ_GRADE_RECENT;
  }
  if ((older_freed || leak->allocated >= 2 * leak->seen) && leak->seen >= SURVIVORS_MIN && until >= GROWING_UNTIL) {
    snprintf(reason, 120, "%.0f%% of these were freed, the older ones first: a cache or a queue",
             100 * (1 - (double)leak->seen / (double)leak->allocated));
    return MLZ_GRADE_TURNOVER;
  }
  if (leak->seen < SURVIVORS_MIN)
    snprintf(reason, 120, "too few to show a trend");
  else
    snprintf(reason, 120, "allocated between %.0f%% and %.0f%% of the run, not steadily", 100 * from, 100 * until);
  return MLZ_GRADE_CONSTANT;
}
