#include "analyzer/peak.h"

#include "analyzer/begin.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes are summed as integers with 8 binary places: exact at weight 1, order-independent below rate 1, and faster than doubles. */
#define SCALE 256.0
#define VALUE_MAX ((double)(INT64_C(1) << 54))

/* All events of one process at one published time. */
struct step {
  uint64_t time;
  uint32_t process; /* index */
  uint32_t sequence;
  int64_t delta;        /* sum */
  int64_t top;          /* highest running sum within, from 0; INT64_MIN: a process's end */
  uint64_t top_ordinal; /* events of the process up to that one */
  uint64_t ordinal;     /* events of the process up to the last */
};

/* Events of a chunk, summed up. */
struct mlz_peak_step {
  uint64_t time;
  int64_t sum, top; /* the highest running sum within, from 0, is top, and stood first after event `place` */
  uint32_t place, end;
};

struct member {
  int64_t live;     /* read so far */
  uint64_t ordinal; /* merged so far; 0 once the process has ended */
  bool released;
};

struct mlz_peak_finder {
  struct mlz_input *in;
  bool include_mmap, several;
  struct mlz_peak_part part; /* of slices that have none */
  int64_t total, best;
  uint64_t best_time;
  uint32_t best_process;
  uint64_t best_ordinal;
  /* several processes */
  struct member *members;
  size_t n_members;
  struct step *steps;
  size_t n_steps, room_steps;
  uint64_t group, group_last_ns;
  struct mlz_cut cut;
};

/* What is live at the point, as the finder sums it up. false: it cannot be told exactly from the rows. */
static bool live_of(const struct mlz_totals_point *point, bool include_mmap, int64_t *live) {
  bool exact = true;
  *live = 0;
  for (uint32_t i = 0; i < point->n; i++) {
    const uint64_t *is = point->rows[i].is;
    double scale = point->rows[i].key.weight * SCALE, bytes = (double)(int64_t)(is[MLZ_TOTAL_ALLOC_BYTES] - is[MLZ_TOTAL_FREE_BYTES]);
    if (!mlz_totals_counts(&point->rows[i], include_mmap)) continue;
    exact &= scale == floor(scale); /* else single blocks were rounded */
    if (!(fabs(bytes * scale) < VALUE_MAX)) return false;
    *live += llround(bytes * scale);
  }
  return exact;
}

static struct member *member_of(struct mlz_peak_finder *f, uint32_t index);

/* The finder begins where the events do. */
static void add_begin(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct mlz_peak_finder *f = context;
  int64_t live;
  live_of(point, f->include_mmap, &live);
  bool gone = process->ended_before || (process->end_ns && process->end_ns <= f->in->left_out_ns);
  if (f->several && gone) return;
  f->total += live;
  if (!f->several) return;
  struct member *m = member_of(f, process->index);
  m->live = live;
  m->ordinal = point->head.events;
}

struct mlz_peak_finder *mlz_peak_new(struct mlz_input *in, bool include_mmap) {
  struct mlz_peak_finder *f = mlz_text_calloc(1, sizeof *f);
  f->in = in;
  f->include_mmap = include_mmap;
  f->several = in->n_chosen != 1;
  mlz_begin_first(in, false, add_begin, f);
  return f;
}

static const int64_t *class_values(const struct mlz_peak_finder *f, const struct mlz_block *b, struct mlz_peak_part *part) {
  if (b->n_classes + 1 > part->room) {
    part->room = (b->n_classes + 1) * 2;
    part->values = mlz_text_realloc(part->values, part->room, sizeof *part->values);
  }
  for (uint32_t c = 0; c < b->n_classes; c++) {
    const struct mlz_class *class = &b->classes[c];
    double value = (double)class->size * class->weight * SCALE;
    bool counted = class->domain != MLZ_BLOCK_MMAP || f->include_mmap;
    part->values[c] = !counted ? 0 : value < VALUE_MAX ? llround(value) : (int64_t)VALUE_MAX;
  }
  part->values[b->n_classes] = 0;
  return part->values;
}

/* +1 allocation, -1 free, 0 nothing. */
static const int8_t sign_of_op[256] = {
    [MLZ_OP_ALLOC] = 1, [MLZ_OP_FREE] = -1, [MLZ_OP_FREE_TEMP] = -1, [MLZ_OP_FREE_OLD] = -1, [MLZ_OP_FREE_OLD_TEMP] = -1,
};

static inline int64_t event_delta(const struct mlz_block *b, const int64_t *values, uint32_t i) {
  int64_t sign = sign_of_op[b->ops[i]];
  return values[sign ? b->classes_of[i] : b->n_classes] * sign;
}

/* Sums up [from, to). The place is looked for in the one stretch that has the top. */
static struct mlz_peak_step run_events(const struct mlz_block *b, const int64_t *values, uint32_t from, uint32_t to, int64_t top) {
  enum { STRETCH = 256 };
  struct mlz_peak_step step = {.top = top, .place = from, .end = to};
  uint32_t best = to;
  int64_t sum = 0, before_best = 0;
  for (uint32_t at = from; at < to;) {
    uint32_t end = to - at > STRETCH ? at + STRETCH : to;
    int64_t before = sum, high = step.top;
    for (uint32_t i = at; i < end; i++) {
      sum += event_delta(b, values, i);
      high = sum > high ? sum : high;
    }
    if (high > step.top) step.top = high, best = at, before_best = before;
    at = end;
  }
  step.sum = sum;
  if (best < to)
    for (step.place = best; (before_best += event_delta(b, values, step.place)) != step.top;) step.place++;
  return step;
}

static struct mlz_peak_step *next_step(struct mlz_peak_part *part) {
  if (part->n_steps == part->room_steps) {
    part->room_steps = part->room_steps ? part->room_steps * 2 : 4;
    part->steps = mlz_text_realloc(part->steps, part->room_steps, sizeof *part->steps);
  }
  return &part->steps[part->n_steps++];
}

static void prepare(const struct mlz_peak_finder *f, const struct mlz_block *b, uint32_t from, uint32_t to, struct mlz_peak_part *part) {
  const int64_t *values = class_values(f, b, part);
  part->n_steps = 0;
  if (!f->several) {
    *next_step(part) = run_events(b, values, from, to, INT64_MIN);
    return;
  }
  for (uint32_t i = from, s = 0; i < to;) {
    while (mlz_block_step_end(b, s) <= i) s++;
    uint64_t now = b->step_ns[s];
    while (s + 1 < b->n_steps && b->step_ns[s + 1] == now) s++;
    uint32_t end = mlz_block_step_end(b, s);
    end = end < to ? end : to;
    struct mlz_peak_step *step = next_step(part);
    *step = run_events(b, values, i, end, -1);
    step->time = now;
    i = end;
  }
}

void mlz_peak_prepare(void *finder, const struct mlz_block *block, void *part) { prepare(finder, block, 0, block->n, part); }

void mlz_peak_clear_part(void *part) {
  struct mlz_peak_part *p = part;
  free(p->values);
  free(p->steps);
  *p = (struct mlz_peak_part){0};
}

static void one_process(struct mlz_peak_finder *f, const struct mlz_slice *slice, const struct mlz_peak_step *step) {
  if (f->total + step->top > f->best) {
    f->best = f->total + step->top;
    f->best_time = mlz_block_time(slice->block, step->place);
    f->best_process = slice->process->index;
    f->best_ordinal = slice->ordinal + step->place + 1;
  }
  f->total += step->sum;
}

/* ---- several processes ---- */

static struct member *member_of(struct mlz_peak_finder *f, uint32_t index) {
  if (index >= f->n_members) {
    f->members = mlz_text_realloc(f->members, index + 1, sizeof *f->members);
    memset(f->members + f->n_members, 0, (index + 1 - f->n_members) * sizeof *f->members);
    f->n_members = index + 1;
  }
  return &f->members[index];
}

static void add_step(struct mlz_peak_finder *f, struct step step) {
  if (f->n_steps == f->room_steps) {
    f->room_steps = f->room_steps ? f->room_steps * 2 : 1024;
    f->steps = mlz_text_realloc(f->steps, f->room_steps, sizeof *f->steps);
  }
  step.sequence = (uint32_t)f->n_steps;
  f->steps[f->n_steps++] = step;
}

static int compare_steps(const void *a, const void *b) {
  const struct step *x = a, *y = b;
  if (x->time != y->time) return x->time < y->time ? -1 : 1;
  if (x->process != y->process) return x->process < y->process ? -1 : 1;
  return x->sequence < y->sequence ? -1 : 1;
}

static void apply(struct member *m, const struct step *s) { m->ordinal = s->top == INT64_MIN ? 0 : s->ordinal; }

/* The positions of all processes at the group's best step: replayed from those at the group's begin. */
static void save_cut(struct mlz_peak_finder *f, size_t best) {
  mlz_cut_clear(&f->cut);
  f->cut.all = (struct mlz_cut_limit){MLZ_CUT_ORDINAL, 0};
  f->cut.n_limits = f->n_members;
  f->cut.limits = mlz_text_calloc(f->n_members, sizeof *f->cut.limits);
  for (size_t i = 0; i < f->n_members; i++) f->cut.limits[i] = (struct mlz_cut_limit){MLZ_CUT_ORDINAL, f->members[i].ordinal};
  for (size_t i = 0; i < best; i++) {
    struct member m;
    apply(&m, &f->steps[i]);
    f->cut.limits[f->steps[i].process].value = m.ordinal;
  }
  f->cut.limits[f->steps[best].process].value = f->steps[best].top_ordinal;
}

/* From `time` on the process holds nothing. */
static void release(struct mlz_peak_finder *f, uint32_t index, uint64_t time) {
  struct member *m = member_of(f, index);
  if (m->released) return;
  add_step(f, (struct step){.time = time, .process = index, .delta = -m->live, .top = INT64_MIN});
  m->released = true;
}

/* Processes that ended without saying so (killed, exec): their table row has the time. */
static void release_ended(struct mlz_peak_finder *f) {
  for (uint32_t i = 0; i < f->n_members; i++) {
    uint64_t end = f->in->processes[i]->end_ns;
    if (end && end < f->group_last_ns) release(f, i, end);
  }
}

static void finish_group(struct mlz_peak_finder *f) {
  if (!f->several) return;
  release_ended(f);
  if (f->n_steps) qsort(f->steps, f->n_steps, sizeof *f->steps, compare_steps);
  size_t best = SIZE_MAX;
  for (size_t i = 0; i < f->n_steps; i++) {
    const struct step *s = &f->steps[i];
    if (s->top != INT64_MIN && f->total + s->top > f->best) {
      f->best = f->total + s->top;
      f->best_time = s->time;
      best = i;
    }
    f->total += s->delta;
  }
  if (best != SIZE_MAX) save_cut(f, best);
  for (size_t i = 0; i < f->n_steps; i++) apply(&f->members[f->steps[i].process], &f->steps[i]);
  f->n_steps = 0;
}

static void several_processes(struct mlz_peak_finder *f, const struct mlz_slice *slice, const struct mlz_peak_part *part) {
  const struct mlz_block *b = slice->block;
  if (b->group != f->group) finish_group(f);
  f->group = b->group;
  if (b->last_ns > f->group_last_ns) f->group_last_ns = b->last_ns;
  struct member *m = member_of(f, slice->process->index);
  if (m->released) { /* its end was announced too early: it comes back with what it held */
    add_step(f,
             (struct step){.time = b->first_ns, .process = slice->process->index, .delta = m->live, .top = -1, .ordinal = slice->ordinal});
    m->released = false;
  }
  for (size_t i = 0; i < part->n_steps; i++) {
    const struct mlz_peak_step *step = &part->steps[i];
    add_step(f, (struct step){.time = step->time,
                              .process = slice->process->index,
                              .delta = step->sum,
                              .top = step->top,
                              .top_ordinal = slice->ordinal + step->place + 1,
                              .ordinal = slice->ordinal + step->end});
    m->live += step->sum;
  }
}

void mlz_peak_take(struct mlz_peak_finder *f, const struct mlz_slice *slice, const struct mlz_peak_part *part) {
  if (!part) {
    prepare(f, slice->block, slice->from, slice->to, &f->part);
    part = &f->part;
  }
  if (f->several)
    several_processes(f, slice, part);
  else
    one_process(f, slice, part->steps);
}

void mlz_peak_slice(void *context, const struct mlz_slice *slice) { mlz_peak_take(context, slice, slice->part); }

void mlz_peak_process_end(void *context, const struct mlz_process_end *end) {
  struct mlz_peak_finder *f = context;
  if (f->several && end->finalized) release(f, end->process->index, end->last_ns);
}

/* What is known of the highest total before the events that are there. */
static void note_earlier(struct mlz_input *in, bool include_mmap, struct mlz_peak *out) {
  const struct mlz_totals_mark *marks;
  size_t n;
  double bytes = 0;
  uint64_t ns = 0;
  if (!in->left_out || include_mmap || (in->n_chosen > 1 && in->n_chosen < in->n_processes)) return;
  if (mlz_trace_totals_marks(in->trace, &marks, &n) < 0) mlz_input_fail(in, "out of memory while reading");
  for (size_t i = 0; i < n && marks[i].at <= mlz_trace_first_at(in->trace); i++) {
    const struct mlz_totals_head *h = &marks[i].head;
    if (in->n_chosen > 1 && (double)h->all_peak_bytes > bytes) bytes = (double)h->all_peak_bytes, ns = h->all_peak_ns;
    if (in->n_chosen == 1 && mlz_input_process(in, h->process)->chosen && (double)h->peak_bytes > bytes)
      bytes = (double)h->peak_bytes, ns = h->peak_ns;
  }
  if (bytes <= out->bytes) return;
  out->earlier_bytes = bytes;
  out->earlier_ns = ns;
}

void mlz_peak_done(struct mlz_peak_finder *f, struct mlz_peak *out) {
  finish_group(f);
  *out = (struct mlz_peak){.bytes = (double)f->best / SCALE, .time_ns = f->best_time, .cut = f->cut};
  if (!f->several) {
    out->cut.all = (struct mlz_cut_limit){MLZ_CUT_ORDINAL, f->best_ordinal};
  } else if (!out->cut.limits) {
    out->cut.all = (struct mlz_cut_limit){MLZ_CUT_ORDINAL, 0};
  }
  note_earlier(f->in, f->include_mmap, out);
  mlz_peak_clear_part(&f->part);
  free(f->members);
  free(f->steps);
  free(f);
}

/* ---- one process, by its points ---- */

/* The events between two points. Within, no total is above `most` bytes, which is rounded up. */
struct stretch {
  const struct mlz_totals_mark *begin; /* NULL: the first event */
  uint64_t from, to;                   /* events of the process; UINT64_MAX: up to the limit */
  uint64_t most;                       /* UINT64_MAX: not known */
};
struct best {
  int64_t total;
  uint64_t ns, ordinal;
};

static int compare_stretches(const void *a, const void *b) {
  const struct stretch *x = a, *y = b;
  if (x->most != y->most) return x->most > y->most ? -1 : 1;
  return x->from < y->from ? -1 : x->from > y->from;
}

/* Those of the one chosen process up to the limit, the likeliest first. Returns how many; 0: it has no points there. */
static size_t find_stretches(const struct mlz_begin_points *points, uint64_t first_at, struct mlz_cut_limit limit, struct stretch **out) {
  struct stretch *list = mlz_text_calloc(points->n + 1, sizeof *list);
  size_t n = 0;
  const struct mlz_totals_mark *last = NULL;
  for (size_t i = 0; i < points->n && mlz_begin_before(&points->points[i].mark->head, limit); i++) {
    const struct mlz_totals_mark *mark = points->points[i].mark;
    if (mark->at <= first_at) { /* it stands for events that are not there */
      last = mark;
      continue;
    }
    bool next = mark->part_first == (last ? last->part_last + 1 : 0); /* else another one lies between: its peak is lost */
    list[n++] = (struct stretch){last, last ? last->head.events : 0, mark->head.events, next ? mark->head.peak_bytes : UINT64_MAX};
    last = mark;
  }
  if (last && last->head.point != MLZ_POINT_END) list[n++] = (struct stretch){last, last->head.events, UINT64_MAX, UINT64_MAX};
  if (n) qsort(list, n, sizeof *list, compare_stretches);
  *out = list;
  return n;
}

static bool live_at(struct mlz_input *in, const struct mlz_totals_mark *mark, int64_t *live) {
  struct mlz_totals_point point;
  *live = 0;
  if (!mark) return true;
  int rc = mlz_trace_totals_load(in->trace, mark, &point);
  if (rc < 0) mlz_input_fail(in, "out of memory while reading");
  return rc && live_of(&point, false, live);
}

static bool may_hold(const struct stretch *s, const struct best *best) {
  if (s->most == UINT64_MAX || s->most >= (uint64_t)(VALUE_MAX / SCALE)) return true;
  int64_t most = (int64_t)(s->most * (uint64_t)SCALE);
  return most > best->total || (most == best->total && s->from < best->ordinal);
}

/* false: its begin is not known. */
static bool read_stretch(struct mlz_input *in, const struct stretch *s, const struct mlz_cut *limit, struct best *best) {
  struct mlz_peak_finder *f = mlz_peak_new(in, false);
  struct mlz_scan_start start = {mlz_text_calloc(in->n_processes, sizeof *start.ordinals), in->n_processes};
  struct mlz_cut to = {{MLZ_CUT_ORDINAL, s->to}, NULL, 0};
  struct mlz_peak unused;
  bool good = live_at(in, s->begin, &f->total);
  for (size_t i = 0; i < start.n; i++) start.ordinals[i] = s->from;
  if (good)
    mlz_scan_run(in, &(struct mlz_scan){.to = s->to == UINT64_MAX ? limit : &to,
                                        .start = &start,
                                        .on_slice = mlz_peak_slice,
                                        .part_bytes = sizeof(struct mlz_peak_part),
                                        .prepare_part = mlz_peak_prepare,
                                        .clear_part = mlz_peak_clear_part,
                                        .context = f});
  if (f->best > best->total || (f->best == best->total && f->best_ordinal < best->ordinal))
    *best = (struct best){f->best, f->best_time, f->best_ordinal};
  mlz_peak_done(f, &unused);
  free(start.ordinals);
  return good;
}

/* Reads only the stretches in which the highest total may lie. false: all must be read. */
static bool find_by_points(struct mlz_input *in, const struct mlz_cut *to, struct mlz_peak *out) {
  static const struct mlz_cut to_the_end = {{MLZ_CUT_END, 0}, NULL, 0};
  struct mlz_begin_points points;
  struct stretch *list;
  struct best best = {0};
  mlz_begin_read(in, &points);
  if (!to) to = &to_the_end;
  size_t n = points.n ? find_stretches(&points, in->left_out ? mlz_trace_first_at(in->trace) : 0,
                                       mlz_cut_limit_of(to, points.points[0].process->index), &list)
                      : 0;
  bool good = n > 0;
  for (size_t i = 0; i < n && good; i++)
    if (may_hold(&list[i], &best)) good = read_stretch(in, &list[i], to, &best);
  if (good) *out = (struct mlz_peak){.bytes = (double)best.total / SCALE, .time_ns = best.ns, .cut.all = {MLZ_CUT_ORDINAL, best.ordinal}};
  if (good) note_earlier(in, false, out);
  if (points.n) free(list);
  mlz_begin_clear(&points);
  return good;
}

static void find(struct mlz_input *in, bool include_mmap, const struct mlz_cut *to, struct mlz_peak *out) {
  if (in->totals_only) {
    *out = (struct mlz_peak){.cut.all = {MLZ_CUT_PEAK, 0}};
    out->unknown = include_mmap || !mlz_totals_peak(in, to, &out->bytes, &out->time_ns);
    return;
  }
  if (in->n_chosen == 1 && !include_mmap && find_by_points(in, to, out)) return;
  struct mlz_peak_finder *f = mlz_peak_new(in, include_mmap);
  mlz_scan_run(in, &(struct mlz_scan){.to = to,
                                      .on_slice = mlz_peak_slice,
                                      .on_process_end = mlz_peak_process_end,
                                      .part_bytes = sizeof(struct mlz_peak_part),
                                      .prepare_part = mlz_peak_prepare,
                                      .clear_part = mlz_peak_clear_part,
                                      .context = f});
  mlz_peak_done(f, out);
}

void mlz_peak_find(struct mlz_input *in, bool include_mmap, const struct mlz_cut *to, struct mlz_peak *out) {
  char bytes[MLZ_UNITS_MAX], time[MLZ_UNITS_MAX], since[MLZ_UNITS_MAX];
  find(in, include_mmap, to, out);
  if (out->earlier_bytes > 0)
    mlz_input_warn(
        in,
        "the peak, %s at %s, lies in the beginning that was left out: its stacks are not known, those of the highest since %s are shown",
        mlz_units_size(bytes, out->earlier_bytes), mlz_units_time(time, (double)out->earlier_ns),
        mlz_units_time(since, (double)in->left_out_ns));
}
