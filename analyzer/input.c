#include "analyzer/input.h"

#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t mlz_input_uint(const json_t *object, const char *key, uint64_t otherwise) {
  const json_t *v = json_object_get(object, key);
  if (json_is_real(v)) return json_real_value(v) < 0 ? otherwise : (uint64_t)json_real_value(v);
  return json_is_integer(v) && json_integer_value(v) >= 0 ? (uint64_t)json_integer_value(v) : otherwise;
}

const char *mlz_input_text(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

static char *join(char *line, const char *word) {
  bool plain = *word && !strpbrk(word, " \t\n\"'\\$&|;<>()*?");
  char *clean = mlz_text_clean(word, true);
  char *out = mlz_text_format("%s%s%s%s%s", line ? line : "", line ? " " : "", plain ? "" : "'", clean, plain ? "" : "'");
  free(clean);
  free(line);
  return out;
}

char *mlz_input_command(const json_t *object) {
  const json_t *command = json_object_get(object, "command");
  if (!json_is_array(command)) return mlz_text_clean(mlz_input_text(object, "command"), true);
  char *line = NULL;
  size_t i;
  json_t *word;
  json_array_foreach(command, i, word) line = join(line, json_string_value(word) ? json_string_value(word) : "?");
  return line ? line : mlz_text_format("%s", "");
}

static void __attribute__((format(printf, 2, 0))) say(const struct mlz_input *in, const char *format, va_list args) {
  fprintf(stderr, "memlyze-%s: %s: ", in->tool, in->path);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
}

void mlz_input_fail(const struct mlz_input *in, const char *format, ...) {
  va_list args;
  va_start(args, format);
  say(in, format, args);
  va_end(args);
  exit(2);
}

void mlz_input_warn(const struct mlz_input *in, const char *format, ...) {
  va_list args;
  va_start(args, format);
  say(in, format, args);
  va_end(args);
}

static struct mlz_process *add_process(struct mlz_input *in, uint32_t id) {
  struct mlz_process *p = mlz_text_calloc(1, sizeof *p);
  p->id = id;
  p->index = (uint32_t)in->n_processes;
  p->python = "";
  in->processes = mlz_text_realloc(in->processes, in->n_processes + 1, sizeof *in->processes);
  in->processes[in->n_processes++] = p;
  return p;
}

/* Ids are handed out from 1 without gaps, so the place is nearly always where the id says. */
struct mlz_process *mlz_input_process(struct mlz_input *in, uint32_t id) {
  if (id - 1 < in->n_processes && in->processes[id - 1]->id == id) return in->processes[id - 1];
  for (size_t i = 0; i < in->n_processes; i++)
    if (in->processes[i]->id == id) return in->processes[i];
  struct mlz_process *p = add_process(in, id);
  p->command = mlz_text_format("%s", "");
  p->chosen = in->n_chosen == in->n_processes - 1; /* all were chosen: so is this one */
  in->n_chosen += p->chosen;
  return p;
}

static void read_processes(struct mlz_input *in) {
  size_t n = mlz_trace_processes(in->trace);
  bool whole = mlz_trace_complete(in->trace); /* else the row may be older than its end */
  for (size_t i = 0; i < n; i++) {
    const json_t *row = mlz_trace_process(in->trace, i);
    struct mlz_process *p = add_process(in, (uint32_t)mlz_input_uint(row, "id", i + 1));
    p->pid = (int64_t)mlz_input_uint(row, "pid", 0);
    p->parent = (int64_t)mlz_input_uint(row, "parent", 0);
    p->command = mlz_input_command(row);
    p->python = mlz_input_text(row, "python_version");
    p->start_ns = mlz_input_uint(row, "start_ns", 0);
    p->end_ns = mlz_input_uint(row, "end_ns", 0);
    p->finalize_ns = mlz_input_uint(row, "finalize_ns", whole ? UINT64_MAX : 0);
  }
  n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++) {
    uint64_t id = mlz_input_uint(mlz_trace_thread(in->trace, i), "id", 0);
    if (id < UINT32_MAX && id >= in->n_threads) in->n_threads = (size_t)id + 1;
  }
}

static void choose_pid(struct mlz_input *in, const char *text) {
  char *end;
  long long pid = strtoll(text, &end, 10);
  if (!*text || *end) mlz_input_fail(in, "--process: '%s' is neither a process id nor 'all'", text);
  for (size_t i = 0; i < in->n_processes; i++) in->n_chosen += in->processes[i]->chosen = in->processes[i]->pid == pid;
  if (in->n_chosen) return;
  char *list = mlz_text_format("%s", "");
  for (size_t i = 0; i < in->n_processes && i < 20; i++) {
    char *longer = mlz_text_format("%s%s%" PRId64, list, i ? ", " : "", in->processes[i]->pid);
    free(list);
    list = longer;
  }
  mlz_input_fail(in, "no process %lld in this trace; it has %s%s", pid, list, in->n_processes > 20 ? ", ..." : "");
}

static void choose(struct mlz_input *in, const char *wish) {
  if (wish && strcmp(wish, "all")) {
    choose_pid(in, wish);
    return;
  }
  size_t with_python = 0;
  for (size_t i = 0; i < in->n_processes; i++) with_python += in->processes[i]->python[0] != 0;
  for (size_t i = 0; i < in->n_processes; i++)
    in->n_chosen += in->processes[i]->chosen = wish || !with_python || in->processes[i]->python[0];
  size_t left_out = in->n_processes - in->n_chosen;
  if (left_out && !in->quiet)
    fprintf(stderr, "memlyze-%s: without %zu process%s that ran no Python (--process all)\n", in->tool, left_out,
            left_out == 1 ? "" : "es");
}

static bool is_sampled(const json_t *object) {
  const json_t *rate = json_object_get(object, "sample_rate");
  return json_is_number(rate) && json_number_value(rate) < 1;
}

static void read_meta(struct mlz_input *in) {
  const json_t *meta = mlz_trace_meta(in->trace), *summary = mlz_trace_summary(in->trace);
  const json_t *rate = json_object_get(json_object_get(meta, "settings"), "sample_rate");
  if (!rate) rate = json_object_get(meta, "sample_rate");
  in->totals_only = mlz_trace_totals_only(in->trace);
  in->sample_rate = json_is_number(rate) ? json_number_value(rate) : 1;
  in->estimated = in->sample_rate < 1 || is_sampled(meta);
  const json_t *changes = json_object_get(summary, "rate_changes"), *change;
  size_t i;
  if (json_array_size(changes)) in->rate_changes = changes;
  json_array_foreach(changes, i, change) in->estimated |= is_sampled(change);
  in->duration_ns = mlz_input_uint(summary, "duration_ns", 0);
  in->gap_ns = mlz_input_uint(summary, "largest_time_gap_ns", 0);
}

static bool is_file(const char *path, size_t length) {
  char *text = mlz_text_format("%.*s", (int)length, path);
  bool found = !access(text, F_OK);
  free(text);
  return found;
}

/* trace.mlyze@NAME, unless a file of that very name exists. Both may hold an @, and the name a slash: the longest file that exists is the trace.
 * malloc'd; *mark NULL: none. */
static char *split_path(const char *given, char **mark) {
  const char *last = strrchr(given, '@'), *at = NULL;
  for (const char *p = strchr(given, '@'); p; p = strchr(p + 1, '@'))
    if (p > given && p[1] && is_file(given, (size_t)(p - given))) at = p;
  if (!at && last && last > given && last[1] && !strchr(last, '/')) at = last;
  bool whole = !at || !access(given, F_OK);
  *mark = whole ? NULL : mlz_text_format("%s", at + 1);
  return whole ? mlz_text_format("%s", given) : mlz_text_format("%.*s", (int)(at - given), given);
}

bool mlz_input_same_file(const char *a, const char *b) {
  struct stat x, y;
  return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool mlz_input_is_trace(const struct mlz_input *in, const char *given) {
  char *mark, *path = split_path(given, &mark);
  bool same = mlz_input_same_file(in->path, path);
  free(path);
  free(mark);
  return same;
}

/* What the points at the file's begin stand for. */
static void read_left_out(struct mlz_input *in) {
  const struct mlz_totals_mark *marks;
  size_t n;
  in->left_out = mlz_trace_left_out(in->trace);
  if (!in->left_out) return;
  if (mlz_trace_totals_marks(in->trace, &marks, &n) < 0) mlz_input_fail(in, "out of memory while reading");
  for (size_t i = 0; i < n && marks[i].at <= mlz_trace_first_at(in->trace); i++) {
    const struct mlz_totals_head *h = &marks[i].head;
    bool next = i + 1 < n && marks[i + 1].head.process == h->process && h->point == MLZ_POINT_END; /* it is in that one */
    if (!next) in->left_out_events += h->events;
    if (h->ns > in->left_out_ns) in->left_out_ns = h->ns;
    if (h->point == MLZ_POINT_END) mlz_input_process(in, h->process)->ended_before = true;
  }
}

struct mlz_input *mlz_input_open(const char *tool, const struct mlz_common_options *common) {
  struct mlz_input *in = mlz_text_calloc(1, sizeof *in);
  in->tool = tool;
  in->quiet = common->quiet;
  in->python = common->python;
  in->jobs = common->jobs < UINT_MAX ? (unsigned)common->jobs : UINT_MAX;
  in->path = split_path(common->path, &in->mark);
  size_t length = strlen(in->path);
  if (length > 1 && in->path[length - 1] == '@' && access(in->path, F_OK))
    mlz_input_fail(in, "no name behind the @; give a mark, a snapshot or a time, like %.*s@end", (int)(length - 1), in->path);
  char err[512] = "cannot be read";
  int rc = mlz_trace_open(&in->trace, in->path, err, sizeof err);
  if (rc < 0) mlz_input_fail(in, "%s", err);
  if (common->symbols) common->look_up(in, common->symbols);
  if (common->python && mlz_trace_python_frames(in->trace) < 0) mlz_input_fail(in, "out of memory; free some or raise the limit");
  read_meta(in);
  read_processes(in);
  choose(in, common->process);
  read_left_out(in);
  return in;
}

struct mlz_input *mlz_input_close(struct mlz_input *in) {
  if (!in) return NULL;
  for (size_t i = 0; i < in->n_processes; i++) {
    free(in->processes[i]->command);
    free(in->processes[i]);
  }
  free(in->processes);
  mlz_trace_close(in->trace);
  free(in->path);
  free(in->mark);
  free(in);
  return NULL;
}

uint64_t mlz_input_duration(struct mlz_input *in) {
  if (in->duration_ns) return in->duration_ns;
  struct mlz_block block;
  mlz_trace_rewind(in->trace);
  while (mlz_trace_next(in->trace, 0, &block) > 0)
    if (block.last_ns > in->duration_ns) in->duration_ns = block.last_ns;
  return in->duration_ns;
}

uint64_t mlz_input_thread_dropped(const json_t *thread) {
  const json_t *parts = json_object_get(thread, "dropped");
  if (json_is_object(parts)) return mlz_input_uint(parts, "allocs", 0) + mlz_input_uint(parts, "frees", 0);
  return mlz_input_uint(thread, "dropped", 0);
}

uint64_t mlz_input_dropped(const struct mlz_input *in) {
  uint64_t lost = in->lost_allocs + in->lost_frees, counted = 0;
  size_t n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++) {
    const json_t *row = mlz_trace_thread(in->trace, i);
    uint64_t id = mlz_input_uint(row, "process", 0);
    for (size_t k = 0; k < in->n_processes; k++)
      if (in->processes[k]->id == id && in->processes[k]->chosen) counted += mlz_input_thread_dropped(row);
  }
  return counted > lost ? counted : lost;
}

static void warn_damage(const struct mlz_input *in, const struct mlz_damage *d) {
  if (d->cut)
    mlz_input_warn(in, "the recorder did not finish this trace (killed, or the disk was full); it is read up to its last whole chunk");
  if (d->chunks_bad || d->bytes_bad)
    mlz_input_warn(in,
                   "damaged: %" PRIu64 " bytes could not be read (whole chunks: %" PRIu64 "%s%.0" PRIu64
                   "); the figures are those of the %" PRIu64 " events that could",
                   d->bytes_bad, d->chunks_bad, d->events_bad ? "; with at least this many events: " : "", d->events_bad, in->events_read);
}

static void warn_filtered(const struct mlz_input *in) {
  const json_t *counters = json_object_get(mlz_trace_summary(in->trace), "counters");
  uint64_t n = mlz_input_uint(counters, "allocations_filtered", 0);
  if (n && !mlz_input_uint(counters, "allocations_traced", 1))
    mlz_input_warn(
        in, "this trace holds no allocation: all %" PRIu64 " of them were filtered out; look at record's --include and --exclude", n);
}

static void warn_empty(const struct mlz_input *in) {
  const json_t *summary = mlz_trace_summary(in->trace);
  const char *cause = mlz_input_text(summary, "untraced_cause");
  if (!*cause) cause = mlz_input_text(mlz_trace_meta(in->trace), "untraced_cause");
  char *clean = mlz_text_clean(cause, true);
  mlz_input_warn(in, "this trace is empty: nothing was traced%s%s",
                 *clean ? "; likely cause: " : " (a static or setuid program, or one started with an emptied environment?)", clean);
  free(clean);
}

/* What the agent could not trace, as the recorder counted it. */
static void warn_untraced(const struct mlz_input *in) {
  const struct {
    const char *key, *what;
  } kinds[] = {
      {"threads_denied", "threads ran untraced (no ring or no memory for one)"},
      {"images_refused", "interpreters of a kind that is not known were traced without Python stacks"},
      {"unaligned", "blocks that are not 16-byte aligned were not traced"},
      {"unmarked", "blocks could not be marked for lack of address space and were not traced"},
      {"gc_missed", "garbage collections ran unseen"},
      {"execs_untraced",
       json_is_true(json_object_get(mlz_trace_meta(in->trace), "started"))
           ? "programs that this one started (subprocess, spawn) are not in the trace: memlyze.start() does not follow them, "
             "memlyze record does"
           : "program starts were not followed: their environment lacked the recorder's LD_PRELOAD, or they ran as "
             "another user"},
      {"free_inferred", "frees were not seen: their blocks end where their address was allocated again"},
  };
  const json_t *losses = json_object_get(mlz_trace_summary(in->trace), "counters");
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    uint64_t n = mlz_input_uint(losses, kinds[i].key, 0);
    if (n) mlz_input_warn(in, "%" PRIu64 " %s", n, kinds[i].what);
  }
}

static void warn_repaired(const struct mlz_input *in) {
  const json_t *repaired = json_object_get(mlz_trace_summary(in->trace), "repaired");
  if (!repaired) return;
  uint64_t events = mlz_input_uint(repaired, "events_lost", 0), bytes = mlz_input_uint(repaired, "bytes_lost", 0);
  bool known = json_is_true(json_object_get(repaired, "events_lost_known")), cut = json_is_true(json_object_get(repaired, "cut"));
  mlz_input_warn(in,
                 "this trace was repaired%s: %" PRIu64 " bytes were lost, with %s%" PRIu64
                 " events; the figures are those of the rest, and what was freed in a lost part looks kept",
                 cut ? " (its recorder had not finished it)" : "", bytes, known ? "" : "at least ", events);
}

static void warn_left_out(const struct mlz_input *in) {
  char time[MLZ_UNITS_MAX];
  if (!in->left_out) return;
  mlz_input_warn(in,
                 "the beginning was left out (record --max-size or --flight-recorder): %" PRIu64
                 " events, until %s; totals and leaks are those of the whole run, single events those since then",
                 in->left_out_events, mlz_units_time(time, (double)in->left_out_ns));
}

static void warn_allocator(const struct mlz_input *in, const char *text) {
  char *clean = mlz_text_clean(text, true);
  if (*clean) mlz_input_warn(in, "%s", clean);
  free(clean);
}

static void warn_allocators(const struct mlz_input *in) {
  const json_t *summary = mlz_trace_summary(in->trace), *list = json_object_get(summary, "own_allocators"), *row;
  size_t i;
  if (!json_is_array(list)) warn_allocator(in, mlz_input_text(summary, "own_allocator")); /* an older trace */
  json_array_foreach(list, i, row) {
    bool program = json_is_true(json_object_get(row, "program"));
    char *text = mlz_text_format("%s has %s linked in (%s): what it gives is not traced%s", mlz_input_text(row, "module"),
                                 mlz_input_text(row, "allocator"), mlz_input_text(row, "known_by"),
                                 program ? "; link it as a shared library to see it" : "");
    warn_allocator(in, text);
    free(text);
  }
}

int mlz_input_finish(struct mlz_input *in) {
  const struct mlz_damage *damage = mlz_trace_damage(in->trace);
  bool damaged = damage->cut || damage->chunks_bad || damage->bytes_bad;
  bool nothing = !in->events_read && !in->points_read;
  if (in->quiet) return nothing && damaged ? 2 : 0;
  if (damaged) warn_damage(in, damage);
  warn_repaired(in);
  warn_left_out(in);
  if (nothing && damaged) {
    mlz_input_warn(in, "no event could be read");
    return 2;
  }
  if (nothing || *mlz_input_text(mlz_trace_summary(in->trace), "untraced_cause")) warn_empty(in);
  warn_filtered(in);
  uint64_t dropped = mlz_input_dropped(in);
  if (dropped)
    mlz_input_warn(
        in,
        "%" PRIu64
        " records were lost while recording (a full ring); totals are too low by them and results that span the loss may be wrong",
        dropped);
  warn_untraced(in);
  warn_allocators(in);
  return 0;
}
