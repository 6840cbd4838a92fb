#include "analyzer/instants.h"

#include "analyzer/text.h"
#include "analyzer/totals.h"
#include "analyzer/units.h"

#include <stdlib.h>
#include <string.h>

/* ---- marks ---- */

struct reading {
  struct mlz_input *in;
  struct mlz_marks *marks;
};

static void add_mark(struct mlz_marks *m, struct mlz_mark mark) {
  if (m->n == m->room) {
    m->room = m->room ? m->room * 2 : 64;
    m->marks = mlz_text_realloc(m->marks, m->room, sizeof *m->marks);
  }
  m->marks[m->n++] = mark;
}

static void read_block(void *context, const struct mlz_block *b, struct mlz_process *p) {
  struct reading *r = context;
  struct mlz_marks *m = r->marks;
  for (uint32_t i = 0, rare = 0; rare < b->n_rares && i < b->n; i++) {
    if (b->ops[i] < MLZ_OP_RARE) continue;
    const struct mlz_rare *row = &b->rares[rare++];
    if (row->op != MLZ_OP_MARK && row->op != MLZ_OP_SNAPSHOT) continue;
    add_mark(m, (struct mlz_mark){.name = mlz_trace_string(r->in->trace, row->name),
                                  .ns = row->start_ns,
                                  .ordinal = b->ordinal + i + 1,
                                  .process = p->index,
                                  .snapshot = row->op == MLZ_OP_SNAPSHOT});
  }
}

static int compare_marks(const void *a, const void *b) {
  const struct mlz_mark *x = a, *y = b;
  if (x->ns != y->ns) return x->ns < y->ns ? -1 : 1;
  if (x->process != y->process) return x->process < y->process ? -1 : 1;
  return x->ordinal < y->ordinal ? -1 : x->ordinal > y->ordinal;
}

void mlz_marks_read(struct mlz_input *in, struct mlz_marks *marks) {
  *marks = (struct mlz_marks){0};
  struct reading r = {in, marks};
  mlz_scan_run(in, &(struct mlz_scan){.want = MLZ_WANT_MARKS_ONLY, .on_block = read_block, .context = &r});
  if (marks->n) qsort(marks->marks, marks->n, sizeof *marks->marks, compare_marks);
}

void mlz_marks_clear(struct mlz_marks *marks) {
  free(marks->marks);
  *marks = (struct mlz_marks){0};
}

/* The `number`-th of this name, from 1. */
static const struct mlz_mark *nth(const struct mlz_marks *marks, const char *name, size_t length, uint64_t number) {
  for (size_t i = 0; i < marks->n; i++) {
    const char *other = marks->marks[i].name;
    if (!strncmp(other, name, length) && !other[length] && !--number) return &marks->marks[i];
  }
  return NULL;
}

const struct mlz_mark *mlz_marks_find(const struct mlz_input *in, const struct mlz_marks *marks, const char *name, size_t *same) {
  const struct mlz_mark *found = NULL;
  bool chosen = false;
  *same = 0;
  for (size_t i = 0; i < marks->n; i++) {
    const struct mlz_mark *m = &marks->marks[i];
    if (strcmp(m->name, name)) continue;
    ++*same;
    if (chosen && !in->processes[m->process]->chosen) continue;
    found = m;
    chosen = in->processes[m->process]->chosen;
  }
  if (found) return found;
  const char *hash = strrchr(name, '#');
  size_t digits = hash ? strspn(hash + 1, "0123456789") : 0;
  if (!digits || digits > 9 || hash[1 + digits]) return NULL;
  uint64_t number = strtoull(hash + 1, NULL, 10);
  *same = 1;
  return number ? nth(marks, name, (size_t)(hash - name), number) : NULL;
}

/* The names that there are, each once, in the order of time; malloc'd. */
static char *list_names(const struct mlz_marks *marks) {
  enum { SHOWN = 20 };
  unsigned shown = 0;
  char *list = mlz_text_format("%s", "");
  for (size_t i = 0; i < marks->n; i++) {
    const char *name = marks->marks[i].name;
    size_t same = 0, earlier = 0;
    for (size_t k = 0; k < marks->n && !earlier; k++) {
      if (strcmp(marks->marks[k].name, name)) continue;
      same++;
      earlier += k < i;
    }
    if (earlier) continue;
    char *clean = mlz_text_clean(name, true), times[40] = "";
    if (same > 1) snprintf(times, sizeof times, " (%zu times)", same);
    char *longer = shown == SHOWN ? mlz_text_format("%s, ...", list) : mlz_text_format("%s%s%s%s", list, shown ? ", " : "", clean, times);
    free(clean);
    free(list);
    list = longer;
    if (shown++ == SHOWN) break;
  }
  if (*list) return list;
  free(list);
  return mlz_text_format("it has none");
}

/* ---- instants ---- */

struct mlz_when mlz_when_parse(const char *text) {
  struct mlz_when when = {MLZ_WHEN_NONE, 0, 0, text};
  if (!text) return when;
  if (!strcmp(text, "end"))
    when.kind = MLZ_WHEN_END;
  else if (!strcmp(text, "peak"))
    when.kind = MLZ_WHEN_PEAK;
  else if (mlz_units_parse_percent(text, &when.percent))
    when.kind = MLZ_WHEN_PERCENT;
  else if (mlz_units_parse_duration(text, &when.ns))
    when.kind = MLZ_WHEN_TIME;
  else
    when.kind = MLZ_WHEN_NAME;
  return when;
}

struct mlz_when mlz_when_parse_at(struct mlz_input *in, const char *text) {
  struct mlz_when when = mlz_when_parse(text);
  if (when.kind == MLZ_WHEN_NONE || when.kind == MLZ_WHEN_NAME) return when;
  struct mlz_marks marks;
  size_t same;
  mlz_marks_read(in, &marks);
  if (mlz_marks_find(in, &marks, text, &same)) when.kind = MLZ_WHEN_NAME;
  mlz_marks_clear(&marks);
  return when;
}

static void resolve_name(struct mlz_input *in, const char *name, struct mlz_cut *cut) {
  struct mlz_marks marks;
  size_t same;
  mlz_marks_read(in, &marks);
  const struct mlz_mark *mark = mlz_marks_find(in, &marks, name, &same);
  if (!mark) {
    char *clean = mlz_text_clean(name, true);
    mlz_input_fail(in, "'%s' is neither a time (like 1.5s, 200ms, 90%%, peak, end) nor a mark or snapshot of this trace; its names: %s",
                   clean, list_names(&marks));
  }
  if (same > 1) {
    char *clean = mlz_text_clean(name, true), time[MLZ_UNITS_MAX];
    mlz_input_warn(in, "'%s' was set %zu times; the last is meant, at %s (%s#1 is the first)", clean, same,
                   mlz_units_time(time, (double)mark->ns), clean);
    free(clean);
  }
  cut->n_limits = in->n_processes;
  cut->limits = mlz_text_calloc(in->n_processes, sizeof *cut->limits);
  cut->all = (struct mlz_cut_limit){MLZ_CUT_TIME, mark->ns};
  for (size_t i = 0; i < cut->n_limits; i++) cut->limits[i] = cut->all;
  cut->limits[mark->process] = (struct mlz_cut_limit){MLZ_CUT_ORDINAL, mark->ordinal};
  mlz_marks_clear(&marks);
}

static bool resolve(struct mlz_input *in, const struct mlz_when *when, struct mlz_cut *cut) {
  switch (when->kind) {
  case MLZ_WHEN_NONE:
  case MLZ_WHEN_PEAK:
    return false;
  case MLZ_WHEN_END:
    cut->all = (struct mlz_cut_limit){MLZ_CUT_END, 0};
    return true;
  case MLZ_WHEN_TIME:
    cut->all = (struct mlz_cut_limit){MLZ_CUT_TIME, when->ns};
    return true;
  case MLZ_WHEN_PERCENT:
    cut->all = (struct mlz_cut_limit){MLZ_CUT_TIME, (uint64_t)((double)mlz_input_duration(in) * when->percent / 100)};
    return true;
  case MLZ_WHEN_NAME:
    resolve_name(in, when->name, cut);
    return true;
  }
  return false;
}

bool mlz_when_resolve(struct mlz_input *in, const struct mlz_when *when, struct mlz_cut *cut) {
  if (!resolve(in, when, cut)) return false;
  if (in->totals_only) mlz_totals_check(in, when, cut);
  if (in->left_out && cut->all.mode == MLZ_CUT_TIME && cut->all.value < in->left_out_ns) {
    char asked[MLZ_UNITS_MAX], begin[MLZ_UNITS_MAX];
    mlz_input_fail(in, "%s lies in the beginning that was left out (record --max-size or --flight-recorder); name a time from %s on",
                   mlz_units_time(asked, (double)cut->all.value), mlz_units_time(begin, (double)in->left_out_ns));
  }
  return true;
}
