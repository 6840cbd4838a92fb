#include "tracer/recorder/options.h"

#include "shm/control.h"
#include "tracer/recorder/option_rows.h"
#include "tracer/recorder/rate.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EVENTS_MAX (1u << 26)
#define EVERY_MIN_NS UINT64_C(10000000)
#define MAX_SIZE_LEAST (UINT64_C(1) << 20)
#define FLIGHT_LEAST_NS UINT64_C(100000000)
#define FLIGHT_SIZE (UINT64_C(256) << 20)

enum id {
  ID_OUTPUT = 'o',
  ID_FORCE = 'f',
  ID_QUIET = 'q',
  ID_VERBOSE = 'v',
  ID_HELP = 'h',
  ID_RATE = 256,
  ID_OVER,
  ID_DEPTH,
  ID_GC,
  ID_NO_GC,
  ID_EVENTS,
  ID_FULL,
  ID_NO_PYTHON,
  ID_NO_MALLOC,
  ID_FOLLOW,
  ID_NO_FOLLOW,
  ID_WAIT,
  ID_INCLUDE,
  ID_EXCLUDE,
  ID_EVERY,
  ID_ONLY,
  ID_VERSION,
  ID_NATIVE,
  ID_SERVE,
  ID_LEAVE_OUT,
  ID_MAX_SIZE,
  ID_FLIGHT,
};

static const struct mlz_option_row rows[] = {
    {ID_OUTPUT, "output", "FILE", "write the trace to FILE (default trace.mlyze); an existing FILE is kept as FILE.old"},
    {ID_FORCE, "force", NULL, "replace an existing FILE"},
    {ID_RATE, "sample-rate", "R", "trace this part of all allocations, 0 < R <= 1 (default 1.0)"},
    {ID_OVER, "sample-over", "SIZE", "always trace allocations of at least SIZE, whatever the rate"},
    {ID_DEPTH, "max-stack-depth", "N", "frames kept of each stack, innermost first, 0 to 1024 (default 10; with --native 128)"},
    {ID_GC, "track-gc", NULL, "record garbage collections (default)"},
    {ID_NO_GC, "no-track-gc", NULL, "do not"},
    {ID_EVENTS, "max-events", "N", "events that each thread's ring has room for, rounded up to a power of two (default 10000)"},
    {ID_FULL, "on-full", "block|drop", "when a ring is full: wait, or count the loss and go on (default block)"},
    {ID_NATIVE, "native", NULL, "native frames too, in one stack with the Python frames, of 128 frames unless said otherwise"},
    {ID_NO_PYTHON, "no-python", NULL, "do not trace the interpreter's allocators (raw, mem, obj)"},
    {ID_NO_MALLOC, "no-malloc", NULL, "do not trace the C library's malloc and mmap families"},
    {ID_INCLUDE, "include", "PAT",
     "record only what has a frame of this module or function on its stack: json.*, app.main; may be repeated"},
    {ID_EXCLUDE, "exclude", "PAT", "do not record what such a frame itself allocates; may be repeated, and wins over --include"},
    {ID_EVERY, "snapshot-every", "T", "take a snapshot every T, like 500ms, 30s, 5m: snapshot-N is N times T after the start"},
    {ID_ONLY, "snapshots-only", NULL, "record totals by stack at each snapshot and at the end, no events: small, however long it runs"},
    {ID_MAX_SIZE, "max-size", "SIZE",
     "keep the newest part only, so that the file never takes more than SIZE (1 MiB or more) of the disk; totals and leaks stay those of "
     "the whole run"},
    {ID_FLIGHT, "flight-recorder", "T",
     "keep the last T, like 60s or 5m, in memory (--max-size of it, default 256 MiB), and write FILE on SIGUSR2, memlyze control --dump, "
     "and at the end"},
    {ID_FOLLOW, "follow", NULL, "trace children too, into the same file (default)"},
    {ID_NO_FOLLOW, "no-follow", NULL, "do not"},
    {ID_WAIT, "wait", "command|all", "return when COMMAND exits (default), or when all traced processes have"},
    {ID_QUIET, "quiet", NULL, "no summary and no progress"},
    {ID_VERBOSE, "verbose", NULL, "say what is done"},
    {ID_HELP, "help", NULL, "this text"},
    {ID_VERSION, "version", NULL, "the version"},
    {ID_SERVE, "serve", "PID", NULL}, /* not for people: serve.h; with it: */
    {ID_LEAVE_OUT, "leave-out", "TID", NULL},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

void mlz_options_help(FILE *to) {
  fputs("usage: memlyze record [options] [--] COMMAND [ARG...]\n"
        "Runs COMMAND and records its memory into a trace, for memlyze stats, top, leaks, flame and gc.\n\noptions:\n",
        to);
  mlz_option_rows_help(rows, ROWS, to);
  fputs("\nSIZE is bytes, or like 24 MB (10^6) or 12.3 MiB (2^20).\n"
        "PAT is a glob (* ? [abc]) against a frame's module and against module.qualified_name; X.* matches X itself, too.\n"
        "The exit status is COMMAND's (128+N on signal N); 125: the recorder failed, 126: COMMAND cannot be executed, 127: it was not\n"
        "found, 2: wrong usage.\n",
        to);
}

struct unit {
  const char *name;
  double factor;
};

/* A decimal number and one of the units; no hexadecimal, no inf, no nan. */
static bool scaled(const char *text, const struct unit *units, unsigned n, uint64_t *out) {
  char *end;
  if (!(*text >= '0' && *text <= '9') && *text != '.') return false;
  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) return false;
  errno = 0;
  double value = strtod(text, &end);
  if (end == text || errno || !isfinite(value)) return false;
  while (*end == ' ') end++;
  for (unsigned i = 0; i < n; i++) {
    if (strcasecmp(end, units[i].name) != 0) continue;
    value *= units[i].factor;
    if (value >= 9e18) return false;
    *out = (uint64_t)(value + 0.5);
    return true;
  }
  return false;
}

bool mlz_options_duration(const char *text, uint64_t *ns) {
  static const struct unit units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}};
  uint64_t value;
  if (!scaled(text, units, sizeof units / sizeof units[0], &value) || value > UINT64_C(366) * 86400 * 1000000000) return false;
  *ns = value;
  return true;
}

bool mlz_options_size(const char *text, uint64_t *bytes) {
  static const struct unit units[] = {{"", 1},
                                      {"B", 1},
                                      {"kB", 1e3},
                                      {"KB", 1e3},
                                      {"MB", 1e6},
                                      {"GB", 1e9},
                                      {"TB", 1e12},
                                      {"KiB", 1024},
                                      {"MiB", 1024 * 1024},
                                      {"GiB", 1024 * 1048576.0},
                                      {"TiB", 1048576.0 * 1048576}};
  return scaled(text, units, sizeof units / sizeof units[0], bytes);
}

static bool word_of(const char *text, const char *no, const char *yes, bool *out) {
  *out = strcmp(text, yes) == 0;
  return *out || strcmp(text, no) == 0;
}

/* What is wrong with the value; NULL: nothing. */
static const char *take(struct mlz_options *o, int id, const char *value) {
  switch (id) {
  case ID_OUTPUT:
    o->output = value;
    return *value ? NULL : "needs a file name";
  case ID_FORCE:
    o->force = true;
    return NULL;
  case ID_RATE:
    return mlz_rate_parse(value, &o->sample_rate) ? NULL : "must be a number above 0 and at most 1";
  case ID_OVER:
    return mlz_options_size(value, &o->sample_over) && o->sample_over ? NULL : "must be a size above 0, like 4096, 64 KiB or 1.5 MB";
  case ID_DEPTH:
    return mlz_option_count(value, 0, MLZ_STACK_DEPTH_MAX, &o->max_stack_depth) ? NULL : "must be a whole number from 0 to 1024";
  case ID_GC:
    o->track_gc = true;
    return NULL;
  case ID_NO_GC:
    o->track_gc = false;
    return NULL;
  case ID_EVENTS:
    return mlz_option_count(value, 1, EVENTS_MAX, &o->max_events) ? NULL : "must be a whole number from 1 to 67108864";
  case ID_FULL:
    return word_of(value, "block", "drop", &o->drop) ? NULL : "must be block or drop";
  case ID_NATIVE:
#if !defined(__x86_64__)
    return "works on x86-64 only; record without it";
#endif
    o->native = true;
    return NULL;
  case ID_NO_PYTHON:
    o->python = false;
    return NULL;
  case ID_NO_MALLOC:
    o->malloc = false;
    return NULL;
  case ID_FOLLOW:
    o->follow = true;
    return NULL;
  case ID_NO_FOLLOW:
    o->follow = false;
    return NULL;
  case ID_WAIT:
    return word_of(value, "command", "all", &o->wait_all) ? NULL : "must be command or all";
  case ID_INCLUDE:
    return mlz_patterns_add(&o->filter.include, value);
  case ID_EXCLUDE:
    return mlz_patterns_add(&o->filter.exclude, value);
  case ID_ONLY:
    o->snapshots_only = true;
    return NULL;
  case ID_EVERY:
    return mlz_options_duration(value, &o->snapshot_every_ns) && o->snapshot_every_ns >= EVERY_MIN_NS
               ? NULL
               : "must be a time of 10 ms to a year, like 500ms, 30s, 5m or 1h";
  case ID_MAX_SIZE:
    return mlz_options_size(value, &o->max_size) && o->max_size >= MAX_SIZE_LEAST ? NULL
                                                                                  : "must be a size of at least 1 MiB, like 64 MiB or 2GB";
  case ID_FLIGHT:
    return mlz_options_duration(value, &o->flight_ns) && o->flight_ns >= FLIGHT_LEAST_NS
               ? NULL
               : "must be a time of 100 ms to a year, like 60s or 5m";
  case ID_QUIET:
    o->quiet = true;
    return NULL;
  case ID_VERBOSE:
    o->verbose = true;
    return NULL;
  case ID_SERVE:
    return mlz_option_count(value, 1, INT32_MAX, &o->serve) ? NULL : "must be the number of a process";
  case ID_LEAVE_OUT:
    if (o->left_out_n == MLZ_OPTIONS_LEFT_OUT) return "is one thread too many";
    return mlz_option_count(value, 1, INT32_MAX, &o->left_out[o->left_out_n]) ? (o->left_out_n++, NULL) : "must be the number of a thread";
  default:
    return "is not known";
  }
}

int mlz_options_parse(struct mlz_options *o, int argc, char **argv, char *err, size_t err_size) {
  *o = (struct mlz_options){.output = "trace.mlyze",
                            .sample_rate = 1,
                            .max_stack_depth = UINT32_MAX,
                            .track_gc = true,
                            .max_events = 10000,
                            .python = true,
                            .malloc = true,
                            .follow = true};
  struct option names[ROWS + 1];
  mlz_option_rows_names(rows, ROWS, names);
  optind = 0; /* glibc: begin anew */
  opterr = 0;
  for (int c; (c = getopt_long(argc, argv, "+:o:fqvh", names, NULL)) != -1;) {
    if (c == '?' || c == ':') {
      mlz_option_rows_wrong(rows, ROWS, "memlyze record", c, argv, err, err_size);
      return -EINVAL;
    }
    int id = c >= MLZ_OPTION_ROW ? rows[c - MLZ_OPTION_ROW].id : c;
    if (id == ID_HELP) return MLZ_OPTIONS_HELP;
    if (id == ID_VERSION) return MLZ_OPTIONS_VERSION;
    const char *problem = take(o, id, optarg);
    if (!problem) continue;
    if (c >= MLZ_OPTION_ROW) {
      snprintf(err, err_size, "--%s%s%s %s", rows[c - MLZ_OPTION_ROW].name, optarg && *optarg ? " " : "", optarg ? optarg : "", problem);
    } else {
      snprintf(err, err_size, "-%c %s", c, problem);
    }
    for (char *p = err; *p; p++) {
      if ((unsigned char)*p < 0x20) *p = '?'; /* one line, whatever was typed */
    }
    return -EINVAL;
  }
  if (o->max_stack_depth == UINT32_MAX) o->max_stack_depth = o->native ? 128 : 10;
  if (!o->python && !o->malloc) {
    snprintf(err, err_size, "--no-python and --no-malloc together leave nothing to trace; drop one of them");
    return -EINVAL;
  }
  if (mlz_filter_any(&o->filter) && o->max_stack_depth == 0) {
    snprintf(err, err_size, "--include and --exclude look at the stacks, of which --max-stack-depth 0 keeps nothing; drop one of them");
    return -EINVAL;
  }
  if (o->snapshots_only && (o->max_size || o->flight_ns)) {
    snprintf(err, err_size,
             "--snapshots-only records no events: there is nothing for --max-size and --flight-recorder to leave out; drop one of them");
    return -EINVAL;
  }
  if (o->flight_ns && !o->max_size) o->max_size = FLIGHT_SIZE;
  if (o->serve) {
    o->quiet = true;
    if (optind == argc) return MLZ_OPTIONS_RUN;
    snprintf(err, err_size, "--serve takes no COMMAND");
    return -EINVAL;
  }
  if (optind >= argc) {
    snprintf(err, err_size, "no COMMAND given; try: memlyze record python3 app.py");
    return -EINVAL;
  }
  o->command = argv + optind;
  return MLZ_OPTIONS_RUN;
}

uint32_t mlz_options_least_words(uint32_t max_stack_depth) { return 4 * (3 + 8 + max_stack_depth); }

uint32_t mlz_options_words(const struct mlz_options *o) {
  uint32_t least = mlz_options_least_words(o->max_stack_depth), words = 2048;
  while (words < least || words < 2 * (uint64_t)o->max_events) words *= 2;
  return words;
}

uint64_t mlz_options_settings(const struct mlz_options *o) {
  uint64_t word = mlz_rate_word(o->sample_rate);
  word |= (uint64_t)o->max_stack_depth << MLZ_SET_DEPTH_SHIFT;
  if (o->track_gc) word |= MLZ_SET_GC;
  if (o->python) word |= MLZ_SET_PYTHON;
  if (o->malloc) word |= MLZ_SET_MALLOC;
  if (o->native) word |= MLZ_SET_NATIVE;
  if (o->drop) word |= MLZ_SET_DROP;
  return word | UINT64_C(1) << MLZ_SET_GENERATION_SHIFT;
}
