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

static int32_t *lows_of(const struct mlz_leak *leak) { return leak->buckets + MLZ_LEAK_BUCKETS; }

/* MLZ_LEAK_BUCKETS: beyond the history. */
static unsigned bucket_of(const struct mlz_leak *leak, uint64_t number) {
  uint64_t bucket = (number - leak->origin) >> leak->shift;
  return bucket < MLZ_LEAK_BUCKETS ? (unsigned)bucket : MLZ_LEAK_BUCKETS;
}

static void fold(struct mlz_leak *leak) {
  int32_t *lows = lows_of(leak);
  unsigned known = bucket_of(leak, leak->sampled); /* the last bucket with a low */
  for (unsigned i = 0; i < MLZ_LEAK_BUCKETS / 2; i++) {
    leak->buckets[i] = leak->buckets[2 * i] + leak->buckets[2 * i + 1];
    lows[i] = 2 * i + 1 <= known && lows[2 * i + 1] < lows[2 * i] ? lows[2 * i + 1] : lows[2 * i];
  }
  memset(leak->buckets + MLZ_LEAK_BUCKETS / 2, 0, MLZ_LEAK_BUCKETS / 2 * sizeof *leak->buckets);
  memset(lows + MLZ_LEAK_BUCKETS / 2, 0, MLZ_LEAK_BUCKETS / 2 * sizeof *lows);
  leak->shift++;
}

void mlz_leak_sample(struct mlz_leak *leak, uint64_t now, int32_t live) {
  if (!leak->buckets || now < leak->sampled) return;
  while ((now - leak->origin) >> leak->shift >= MLZ_LEAK_BUCKETS) fold(leak);
  int32_t *lows = lows_of(leak);
  unsigned to = bucket_of(leak, now);
  for (unsigned i = bucket_of(leak, leak->sampled) + 1; i <= to; i++) lows[i] = leak->live;
  if (live < lows[to]) lows[to] = live < 0 ? 0 : live;
  leak->live = live < 0 ? 0 : live;
  leak->sampled = now;
}

void mlz_leak_add(struct mlz_leak *leak, uint64_t alloc_no, const struct mlz_class *class) {
  if (!leak->buckets) {
    leak->buckets = mlz_text_calloc(2 * MLZ_LEAK_BUCKETS, sizeof *leak->buckets);
    leak->sampled = leak->origin;
  }
  if (!leak->seen) leak->first = alloc_no;
  leak->last = alloc_no;
  uint64_t offset = alloc_no - leak->origin;
  while (offset >> leak->shift >= MLZ_LEAK_BUCKETS) fold(leak);
  leak->buckets[offset >> leak->shift]++;
  leak->seen++;
  leak->seen_bytes += class->size;
  leak->count += class->weight;
  leak->bytes += class->weight * (double)class->size;
  if (class->weight > 1) mlz_spread_add(&leak->spread, class, 1, 0, 0);
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
  if (class->weight > 1) mlz_spread_add(&leak->spread, class, 0, 1, 0);
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

/* Adds one stack's history to that of its line, as far as it is sure: survivors where their bucket ends, the smallest of the lows that a
 * wider bucket covers. */
static void add_history(struct mlz_leak *sum, const struct mlz_leak *leak, uint64_t end) {
  const int32_t *lows = lows_of(leak);
  int32_t *into = lows_of(sum);
  unsigned known = bucket_of(leak, leak->sampled);
  for (uint64_t i = 0; i < MLZ_LEAK_BUCKETS; i++) {
    uint64_t last = leak->origin + ((i + 1) << leak->shift) - 1;
    unsigned at = bucket_of(sum, last < end ? last : end - 1);
    if (leak->buckets[i] > 0 && at < MLZ_LEAK_BUCKETS) sum->buckets[at] += leak->buckets[i];
    uint64_t begin = sum->origin + (i << sum->shift);
    if (begin < leak->origin) continue; /* none was live yet */
    unsigned from = bucket_of(leak, begin), to = bucket_of(leak, begin + (UINT64_C(1) << sum->shift) - 1);
    int32_t low = leak->live;
    for (unsigned k = from; k <= to && k <= known && k < MLZ_LEAK_BUCKETS; k++)
      if (k == from || lows[k] < low) low = lows[k];
    into[i] += low;
  }
}

bool mlz_leak_sum(struct mlz_leak *sum, const struct mlz_leak *const *stacks, size_t n, uint64_t end) {
  *sum = (struct mlz_leak){.origin = UINT64_MAX, .first = UINT64_MAX};
  for (size_t i = 0; i < n; i++) {
    const struct mlz_leak *leak = stacks[i];
    sum->allocated += leak->allocated;
    if (!leak->buckets) continue;
    sum->origin = leak->origin < sum->origin ? leak->origin : sum->origin;
    sum->shift = leak->shift > sum->shift ? leak->shift : sum->shift;
    if (!leak->seen) continue;
    sum->first = leak->first < sum->first ? leak->first : sum->first;
    sum->last = leak->last > sum->last ? leak->last : sum->last;
    sum->seen += leak->seen;
    sum->in_flight += leak->in_flight;
    sum->seen_bytes += leak->seen_bytes;
  }
  if (!sum->seen || end <= sum->origin) return false;
  while ((end - sum->origin) >> sum->shift >= MLZ_LEAK_BUCKETS) sum->shift++;
  sum->buckets = mlz_text_calloc(2 * MLZ_LEAK_BUCKETS, sizeof *sum->buckets);
  sum->sampled = end;
  sum->live = (int32_t)sum->seen;
  for (size_t i = 0; i < n; i++)
    if (stacks[i]->buckets) add_history(sum, stacks[i], end);
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
  CHANCE = 9,              /* three standard deviations of the number of blocks, squared, for each block, if they come and go at random */
  OLD_COLLECTIONS_MIN = 3, /* fewer may fall together with survivors by chance */
};
#define LIVE_RISE 0.3          /* in the second half; a list that only grows doubles */
#define IN_FLIGHT_MIN 0.4      /* of the survivors; by chance it would be 1/16 */
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

/* The smallest number of live blocks in each of PARTS equal parts of [begin, end). false: the history is too coarse, or not known. Whatever
 * survived is live from its allocation on: where samples lie far apart, or frees were of older blocks, no low is below that. */
static bool find_lows(const struct mlz_leak *leak, uint64_t begin, uint64_t end, int32_t *lows) {
  if (end <= begin || begin < leak->origin || leak->sampled + (end - begin) / PARTS < end) return false;
  unsigned from = bucket_of(leak, begin), to = bucket_of(leak, end - 1);
  if (to >= MLZ_LEAK_BUCKETS || to + 1 - from < PARTS) return false;
  const int32_t *all = lows_of(leak);
  int32_t survivors = 0; /* from buckets before k */
  unsigned k = 0;
  for (unsigned i = 0; i < PARTS; i++) {
    unsigned low = from + (to + 1 - from) * i / PARTS, high = from + (to + 1 - from) * (i + 1) / PARTS;
    for (; k < low; k++) survivors += leak->buckets[k];
    lows[i] = INT32_MAX;
    for (; k < high; k++) {
      int32_t live = all[k] > survivors ? all[k] : survivors;
      lows[i] = live < lows[i] ? live : lows[i];
      survivors += leak->buckets[k];
    }
  }
  return true;
}

/* Where blocks are freed, too, survivors are added until the end of any cache: there the number of live blocks tells. It must rise in the
 * second half by LIVE_RISE or, where much was there from the beginning, as steadily as in the quarter before; and by more than chance. */
static bool is_rising(const struct mlz_leak *leak, const struct mlz_leak_process *p, int32_t *lows) {
  uint64_t begin = leak->origin > p->run_begin ? leak->origin : p->run_begin;
  if (leak->allocated <= leak->seen || !find_lows(leak, begin, p->end, lows)) return true;
  int32_t middle = lows[PARTS / 2 - 1], rise = lows[PARTS - 1] - middle;
  bool none_replaced = middle <= first_half(leak, begin, p->end) * (double)leak->seen + 1; /* what was live then is live still */
  bool by_chance = (double)rise * rise < CHANCE * middle;
  if (rise <= 0 || (!none_replaced && by_chance)) return false;
  if (lows[PARTS - 1] - lows[PARTS - 3] < rise / 4) return false; /* half of what an even rise has there: it is full */
  if (rise >= LIVE_RISE * middle) return true;
  if (by_chance) return false;
  for (unsigned i = PARTS / 2; i < PARTS; i++)
    if (lows[i] <= lows[i - 1]) return false;
  return rise >= middle - lows[PARTS / 4 - 1];
}

/* Nearly all were in use when a collection made them old, and many of their like are gone: garbage, most likely, that a full one will find. */
static bool is_garbage(const struct mlz_leak *leak, const struct mlz_leak_process *p) {
  return p->old_collections >= OLD_COLLECTIONS_MIN && leak->seen >= SURVIVORS_MIN && leak->allocated >= 4 * leak->seen &&
         (double)leak->in_flight >= IN_FLIGHT_MIN * (double)leak->seen;
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
  snprintf(reason, 120, "added to until the end (in %u of %d parts of the run)", parts, PARTS);
  return true;
}

/* What the judge looks at. */
struct view {
  uint64_t first, last; /* survivors */
  double from, until;   /* where these stand in the run, 0 to 1 */
  bool late;            /* in time, too, the last one is */
  bool older_freed, rising, garbage;
  int32_t lows[PARTS];
};

static void look(struct view *v, const struct mlz_leak *leak, const struct mlz_leak_process *p, uint64_t last_ns) {
  *v = (struct view){.first = leak->origin, .last = leak->origin};
  mlz_leak_span(leak, &v->first, &v->last);
  v->from = place(v->first, p->run_begin, p->end);
  v->until = place(v->last, p->run_begin, p->end);
  double duration = p->end_ns > p->run_begin_ns ? (double)(p->end_ns - p->run_begin_ns) : 0;
  v->late = duration < TIME_STEPS_MIN * (double)p->gap_ns || place(last_ns, p->run_begin_ns, p->end_ns) >= GROWING_UNTIL_TIME;
  v->older_freed = leak->allocated >= leak->seen + leak->seen / 2 && leak->allocated > leak->seen + 1 &&
                   place(v->first, leak->origin, p->end) > TURNOVER_FROM;
  v->rising = is_rising(leak, p, v->lows);
  v->garbage = is_garbage(leak, p);
}

/* Neither growing nor of the start. */
static enum mlz_grade judge_state(const struct mlz_leak *leak, const struct view *v, char *reason) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  bool enough = leak->seen >= SURVIVORS_MIN && v->until >= GROWING_UNTIL, level = enough && !v->rising;
  int32_t lowest = v->lows[PARTS / 2];
  for (unsigned i = PARTS / 2; i < PARTS; i++) lowest = v->lows[i] < lowest ? v->lows[i] : lowest;
  if (level && lowest >= (int32_t)(leak->seen / 2)) {
    mlz_units_count(a, lowest);
    mlz_units_count(b, (double)leak->seen);
    bool same = !strcmp(a, b);
    snprintf(reason, 120, "a cache, or in use: %s%s%s live since half its time", a, same ? "" : " to ", same ? "" : b);
    return MLZ_GRADE_TURNOVER;
  }
  if (v->from >= RECENT_FROM) {
    snprintf(reason, 120, "likely in use: all from the last %.0f%% of the run", 100 * (1 - v->from) < 1 ? 1 : 100 * (1 - v->from));
    return MLZ_GRADE_RECENT;
  }
  if (v->garbage) {
    snprintf(reason, 120, "likely garbage for a full collection: made old by younger ones while in use");
    return MLZ_GRADE_TURNOVER;
  }
  if (level) {
    snprintf(reason, 120, "a buffer that is emptied, or in use: as few as %s live in between", mlz_units_count(a, lowest));
    return MLZ_GRADE_TURNOVER;
  }
  if (enough && (v->older_freed || leak->allocated >= 2 * leak->seen)) {
    double freed = 1 - (double)leak->seen / (double)leak->allocated;
    snprintf(reason, 120, "a cache or a queue: %.0f%% were freed, the older ones first", 100 * freed);
    return MLZ_GRADE_TURNOVER;
  }
  if (leak->seen < SURVIVORS_MIN)
    snprintf(reason, 120, "too few to show a trend");
  else
    snprintf(reason, 120, "allocated between %.0f%% and %.0f%% of the run, %s", 100 * v->from, 100 * v->until,
             v->until < GROWING_UNTIL ? "none since" : "not steadily");
  return MLZ_GRADE_CONSTANT;
}

enum mlz_grade mlz_grade_judge(const struct mlz_leak *leak, enum mlz_stack_kind kind, const struct mlz_leak_process *p, uint64_t last_ns,
                               char *reason) {
  if (kind == MLZ_STACK_NO_PYTHON || kind == MLZ_STACK_IMPORT) {
    snprintf(reason, 120, "%s",
             kind == MLZ_STACK_IMPORT ? "kept by the import machinery" : "no Python frame: the interpreter's or a library's own");
    return MLZ_GRADE_INTERPRETER;
  }
  struct view v;
  look(&v, leak, p, last_ns);
  bool may_grow = is_enlarged_buffer(leak) || (v.rising && !v.older_freed && !v.garbage);
  if (may_grow && is_growing(leak, kind, p, v.first, v.last, v.late, reason)) return MLZ_GRADE_GROWING;
  if (kind == MLZ_STACK_MODULE_BODY) {
    snprintf(reason, 120, "kept by a module that was imported");
    return MLZ_GRADE_STARTUP;
  }
  if (v.until <= STARTUP_UNTIL) {
    snprintf(reason, 120, "none since %.0f%% of the run", 100 * v.until);
    return MLZ_GRADE_STARTUP;
  }
  return judge_state(leak, &v, reason);
}
