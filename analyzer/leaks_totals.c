/* leaks of a trace that has totals at its snapshots only: what lives at the end is exact, growth is judged from how many blocks lived at each point. */
#include "analyzer/intern.h"
#include "analyzer/leaks.h"
#include "analyzer/text.h"
#include "analyzer/totals.h"
#include "analyzer/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is live of a stack. */
struct level {
  double count, bytes;
  uint64_t seen, freed;
  struct mlz_spread spread;
};

/* One stack in one process. */
struct course {
  uint32_t process, stack;
  struct level now, since;
  double first, most;     /* counts: at the process's first point, and the highest of any */
  uint64_t freed_first;   /* frees until the first point that it lived at */
  uint32_t rises, falls;  /* between neighbouring points */
  uint32_t born, rose_at; /* points of the process (from 1): the first at which it lived, the last to which it rose */
  uint64_t first_ns, last_ns;
};
struct process_course {
  uint32_t points;
  uint64_t last_ns;
  uint32_t *courses; /* of its stacks */
  size_t n, room;
};

struct totals_pass {
  struct mlz_input *in;
  bool include_mmap;
  struct mlz_intern keys;
  struct course *courses;
  size_t room;
  struct process_course *processes; /* by index */
  size_t n_processes;
};

static struct process_course *process_of(struct totals_pass *pass, const struct mlz_process *p) {
  if (p->index >= pass->n_processes) {
    pass->processes = mlz_text_realloc(pass->processes, p->index + 1, sizeof *pass->processes);
    memset(pass->processes + pass->n_processes, 0, (p->index + 1 - pass->n_processes) * sizeof *pass->processes);
    pass->n_processes = p->index + 1;
  }
  return &pass->processes[p->index];
}

static struct course *course_of(struct totals_pass *pass, const struct mlz_process *p, uint32_t stack) {
  uint32_t key[2] = {p->index, stack}, known = pass->keys.n, place = mlz_intern_key(&pass->keys, key, sizeof key);
  if (pass->keys.n > known) {
    struct process_course *of = process_of(pass, p);
    if (place >= pass->room) {
      pass->room = pass->room ? pass->room * 2 : 256;
      pass->courses = mlz_text_realloc(pass->courses, pass->room, sizeof *pass->courses);
    }
    pass->courses[place] = (struct course){.process = p->index, .stack = stack, .first_ns = UINT64_MAX};
    if (of->n == of->room) {
      of->room = of->room ? of->room * 2 : 64;
      of->courses = mlz_text_realloc(of->courses, of->room, sizeof *of->courses);
    }
    of->courses[of->n++] = place;
  }
  return &pass->courses[place];
}

static void add_level(struct level *l, const struct mlz_totals_point *point, const struct mlz_totals_row *row) {
  struct mlz_tally t = {0};
  mlz_totals_row_tally(point, row, &t, &l->spread);
  l->count += t.alloc_count - t.free_count;
  l->bytes += t.alloc_bytes - t.free_bytes;
  l->seen += row->is[MLZ_TOTAL_ALLOCS] - row->is[MLZ_TOTAL_FREES];
  l->freed += row->is[MLZ_TOTAL_FREES];
}

/* Sums the rows of the point up by stack; what was summed up at the point before is in `before` by place. */
static void take_point(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct totals_pass *pass = context;
  struct process_course *of = process_of(pass, process);
  double *before = mlz_text_calloc(of->n + 1, sizeof *before);
  size_t known = of->n;
  for (size_t i = 0; i < known; i++) {
    before[i] = pass->courses[of->courses[i]].now.count;
    pass->courses[of->courses[i]].now = (struct level){0};
  }
  of->points++;
  for (uint32_t i = 0; i < point->n; i++) {
    const struct mlz_totals_row *row = &point->rows[i];
    if (!mlz_totals_counts(row, pass->include_mmap)) continue;
    pass->in->estimated |= row->key.weight > 1;
    add_level(&course_of(pass, process, row->key.stack)->now, point, row);
  }
  of = process_of(pass, process);
  for (size_t i = 0; i < of->n; i++) {
    struct course *c = &pass->courses[of->courses[i]];
    double then = i < known ? before[i] : 0, count = c->now.count;
    if (of->points == 1) c->first = count;
    if (!c->born && count > 0) c->born = of->points, c->freed_first = c->now.freed, c->first_ns = of->last_ns;
    if (of->points > 1 && count < then) c->falls++;
    if (count > then) {
      c->rises += of->points > 1;
      c->rose_at = of->points;
      c->last_ns = point->head.ns;
    }
    if (count > c->most) c->most = count;
  }
  of->last_ns = point->head.ns;
  free(before);
}

static void take_since(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct totals_pass *pass = context;
  for (uint32_t i = 0; i < point->n; i++)
    if (mlz_totals_counts(&point->rows[i], pass->include_mmap))
      add_level(&course_of(pass, process, point->rows[i].key.stack)->since, point, &point->rows[i]);
}

/* ---- the judge ---- */

#define RISES_LEAST 0.5 /* of the intervals between points */
#define STILL 0.75      /* of them had passed when it last rose */

static enum mlz_grade judge(const struct course *c, enum mlz_stack_kind kind, uint32_t points, char *reason, size_t size) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  uint32_t intervals = points - 1;
  if (kind == MLZ_STACK_NO_PYTHON || kind == MLZ_STACK_IMPORT) {
    snprintf(reason, size, "%s", kind == MLZ_STACK_IMPORT ? "allocated by the import machinery" : "no Python frame on the stack");
    return MLZ_GRADE_INTERPRETER;
  }
  if (kind == MLZ_STACK_MODULE_BODY) {
    snprintf(reason, size, "allocated by a module being imported");
    return MLZ_GRADE_STARTUP;
  }
  if (intervals < 2) {
    snprintf(reason, size, "too few points to tell whether it grows; --snapshot-every takes more");
    return MLZ_GRADE_CONSTANT;
  }
  if (c->rises >= RISES_LEAST * intervals && c->rises > 3 * c->falls && c->rises > 1 && c->now.count >= c->most &&
      c->rose_at > STILL * points) {
    snprintf(reason, size, "rose in %u of the %u intervals between snapshots, from %s to %s blocks", c->rises, intervals,
             mlz_units_count(a, c->first), mlz_units_count(b, c->now.count));
    return MLZ_GRADE_GROWING;
  }
  if (c->born == points) {
    snprintf(reason, size, "allocated since the last snapshot");
    return MLZ_GRADE_RECENT;
  }
  if (c->now.freed > c->freed_first) {
    snprintf(reason, size, "%s others of it were freed between snapshots", mlz_units_count(a, (double)(c->now.freed - c->freed_first)));
    return MLZ_GRADE_TURNOVER;
  }
  snprintf(reason, size, "rose in %u of the %u intervals between snapshots", c->rises, intervals);
  return MLZ_GRADE_CONSTANT;
}

static struct mlz_leak_entry *entry_for(struct mlz_leaks *out, size_t *room, uint32_t *entry_of, uint32_t stack) {
  if (!entry_of[stack]) {
    if (out->n == *room) {
      *room = *room ? *room * 2 : 256;
      out->entries = mlz_text_realloc(out->entries, *room, sizeof *out->entries);
    }
    out->entries[out->n++] =
        (struct mlz_leak_entry){.stack = stack, .stacks = 1, .same_grade = 1, .grade = MLZ_GRADE_COUNT, .first_ns = UINT64_MAX};
    entry_of[stack] = (uint32_t)out->n;
  }
  return &out->entries[entry_of[stack] - 1];
}

static void add_course(struct totals_pass *pass, const struct course *c, const uint8_t *kinds, struct mlz_leaks *out, size_t *room,
                       uint32_t *entry_of) {
  double count = c->now.count - c->since.count, bytes = c->now.bytes - c->since.bytes;
  if (!(count > 0)) return; /* of a stack that shrank since then nothing is new, as far as can be told */
  const struct mlz_process *p = pass->in->processes[c->process];
  enum mlz_stack_kind kind = (enum mlz_stack_kind)kinds[c->stack];
  if (kind == MLZ_STACK_NO_PYTHON && !p->python[0]) kind = MLZ_STACK_PROGRAM;
  char reason[120];
  enum mlz_grade grade = judge(c, kind, pass->processes[c->process].points, reason, sizeof reason);
  struct mlz_leak_entry *e = entry_for(out, room, entry_of, c->stack);
  if (grade < e->grade || (grade == e->grade && bytes > e->judged_bytes)) {
    e->grade = grade;
    e->judged_bytes = bytes;
    memcpy(e->reason, reason, sizeof reason);
  }
  e->program |= kind == MLZ_STACK_PROGRAM;
  e->processes++;
  e->seen += c->now.seen > c->since.seen ? c->now.seen - c->since.seen : 0;
  e->count += count;
  e->bytes += bytes > 0 ? bytes : 0;
  mlz_spread_join(&e->spread, &c->now.spread);
  mlz_spread_join(&out->spread, &c->now.spread);
  if (c->first_ns < e->first_ns) e->first_ns = c->first_ns;
  if (c->last_ns > e->last_ns) e->last_ns = c->last_ns;
  out->count += count;
  out->bytes += bytes > 0 ? bytes : 0;
}

void mlz_leaks_of_totals(struct mlz_input *in, const struct mlz_leak_options *options, const uint8_t *kinds, struct mlz_leaks *out) {
  struct totals_pass pass = {.in = in, .include_mmap = options->include_mmap};
  size_t room = 0;
  uint32_t *entry_of = mlz_text_calloc(mlz_trace_stacks(in->trace), sizeof *entry_of);
  mlz_totals_until(in, options->to, take_point, &pass);
  if (options->since) {
    mlz_totals_at(in, options->since, take_since, &pass);
    mlz_input_warn(in, "this trace has totals at its snapshots only: shown is by how much each stack grew since then");
  }
  for (size_t i = 0; i < pass.keys.n; i++) add_course(&pass, &pass.courses[i], kinds, out, &room, entry_of);
  for (size_t i = 0; i < pass.n_processes; i++) free(pass.processes[i].courses);
  free(pass.processes);
  free(pass.courses);
  free(entry_of);
  mlz_intern_clear(&pass.keys);
}
