/* memlyze control: changes a running session, from outside. */
#include "shm/mailbox_ask.h"
#include "tracer/recorder/option_rows.h"
#include "tracer/recorder/rate.h"
#include "tracer/recorder/reach.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRONG 2

enum id {
  ID_PID = 'p',
  ID_QUIET = 'q',
  ID_HELP = 'h',
  ID_RATE = 256,
  ID_DEPTH,
  ID_PAUSE,
  ID_RESUME,
  ID_MARK,
  ID_SNAPSHOT,
  ID_DUMP,
  ID_VERSION
};

static const struct mlz_option_row rows[] = {
    {ID_PID, "pid", "P", "the traced process, any one of the session, or its recorder"},
    {ID_RATE, "sample-rate", "R", "from now on trace this part of all allocations, 0 < R <= 1"},
    {ID_DEPTH, "max-stack-depth", "N", "from now on keep N frames of each stack, 0 to 1024"},
    {ID_PAUSE, "pause", NULL, "record no more allocations (but the frees of recorded blocks)"},
    {ID_RESUME, "resume", NULL, "record them again"},
    {ID_MARK, "mark", "NAME", "name this instant, for --at, --from, --since and trace.mlyze@NAME"},
    {ID_SNAPSHOT, "snapshot", "NAME", "the same, as a point at which the heap is looked at or compared"},
    {ID_DUMP, "dump", NULL, "write what a flight recorder holds into FILE (default: its own), and go on recording"},
    {ID_QUIET, "quiet", NULL, "do not say what was done"},
    {ID_HELP, "help", NULL, "this text"},
    {ID_VERSION, "version", NULL, "the version"},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

struct wish {
  uint32_t pid;
  bool quiet;
  struct mlz_request request;
};

static void help(FILE *to) {
  fputs("usage: memlyze control --pid P [--sample-rate R] [--mark NAME] [--snapshot NAME] [--dump [FILE]] [options]\n"
        "Changes a session of memlyze record while it runs, without a restart: all of its processes obey from their next allocation on.\n\n"
        "options:\n",
        to);
  mlz_option_rows_help(rows, ROWS, to);
  fputs("\nReturns once the recorder has obeyed; marks and snapshots are in the trace file then. They come before the changes.\n"
        "The exit status is 0; 2: wrong usage, no such session, or a recorder that does not answer. Then nothing was changed.\n",
        to);
}

static int fail(const char *text) {
  fprintf(stderr, "memlyze-control: %s\n", text);
  return WRONG;
}

static const char *take_name(const char *name, char *into, uint32_t *bytes) {
  const char *problem = mlz_mailbox_mark_problem(name, strlen(name));
  if (problem) return problem;
  *bytes = (uint32_t)strlen(name);
  memcpy(into, name, *bytes);
  return NULL;
}

/* What is wrong with the value; NULL: nothing. */
static const char *take(struct wish *w, int id, const char *value) {
  struct mlz_request *q = &w->request;
  switch (id) {
  case ID_PID:
    return mlz_option_count(value, 1, INT32_MAX, &w->pid) ? NULL : "must be the number of a process";
  case ID_RATE:
    q->mask |= MLZ_SET_RATE_MASK;
    return mlz_rate_parse(value, &q->sample_rate) ? NULL : "must be a number above 0 and at most 1";
  case ID_DEPTH:
    q->mask |= MLZ_SET_DEPTH_MASK;
    return mlz_option_count(value, 0, MLZ_STACK_DEPTH_MAX, &q->depth) ? NULL : "must be a whole number from 0 to 1024";
  case ID_PAUSE:
    q->mask |= MLZ_SET_PAUSED;
    q->bits |= MLZ_SET_PAUSED;
    return NULL;
  case ID_RESUME:
    q->mask |= MLZ_SET_PAUSED;
    q->bits &= ~MLZ_SET_PAUSED;
    return NULL;
  case ID_MARK:
    return take_name(value, q->mark, &q->mark_bytes);
  case ID_SNAPSHOT:
    return take_name(value, q->snapshot, &q->snapshot_bytes);
  case ID_DUMP:
    q->dump = 1;
    return NULL;
  default:
    w->quiet = true;
    return NULL;
  }
}

/* The recorder may run in another directory. */
static const char *take_path(struct mlz_request *q, const char *path) {
  char directory[sizeof q->path] = "";
  if (path[0] != '/' && !getcwd(directory, sizeof directory)) return "the path of this directory is too long for the recorder";
  int n = snprintf(q->path, sizeof q->path, "%s%s%s", directory, directory[0] ? "/" : "", path);
  if (n <= 0 || n >= (int)sizeof q->path || !path[0]) return "--dump FILE: the path is empty or too long (1023 bytes)";
  q->path_bytes = (uint32_t)n;
  return NULL;
}

enum outcome { RUN, DONE, BAD };

static enum outcome parse(struct wish *w, int argc, char **argv) {
  struct option names[ROWS + 1];
  mlz_option_rows_names(rows, ROWS, names);
  opterr = 0;
  for (int c; (c = getopt_long(argc, argv, ":p:qh", names, NULL)) != -1;) {
    if (c == '?' || c == ':') {
      char err[512];
      mlz_option_rows_wrong(rows, ROWS, "memlyze control", c, argv, err, sizeof err);
      fail(err);
      return BAD;
    }
    int id = c >= MLZ_OPTION_ROW ? rows[c - MLZ_OPTION_ROW].id : c;
    if (id == ID_HELP) {
      help(stdout);
      return DONE;
    }
    if (id == ID_VERSION) {
      puts("memlyze-control " MLZ_VERSION);
      return DONE;
    }
    const char *name = c >= MLZ_OPTION_ROW ? rows[c - MLZ_OPTION_ROW].name : "pid", *problem = take(w, id, optarg);
    if (!problem) continue;
    bool named = id == ID_MARK || id == ID_SNAPSHOT; /* the name may be what must not reach a terminal */
    fprintf(stderr, "memlyze-control: --%s%s%s %s\n", name, named ? ":" : " ", named ? " the name" : optarg, problem);
    return BAD;
  }
  struct mlz_request *q = &w->request;
  const char *missing = NULL;
  if (q->dump && optind + 1 == argc) missing = take_path(q, argv[optind++]);
  if (optind < argc)
    missing = "takes options only, and FILE with --dump; memlyze control --help lists them";
  else if (!w->pid)
    missing = "which session? --pid P names a traced process or its recorder";
  else if (!q->mask && !q->mark_bytes && !q->snapshot_bytes && !q->dump)
    missing = "nothing to do: give --sample-rate, --mark, --snapshot or --dump";
  if (!missing) return RUN;
  fail(missing);
  return BAD;
}

static void report(const struct wish *w, uint64_t ns) {
  const struct mlz_request *q = &w->request;
  double s = (double)ns / 1e9;
  if (q->mark_bytes) printf("mark '%s' at %.6f s\n", q->mark, s);
  if (q->dump) printf("dumped %s%sup to %.6f s\n", q->path_bytes ? q->path : "", q->path_bytes ? ": " : "", s);
  if (q->snapshot_bytes) printf("snapshot '%s' at %.6f s\n", q->snapshot, s);
  if (q->mask & MLZ_SET_RATE_MASK) printf("sample rate %.10g from %.6f s on\n", q->sample_rate, s);
  if (q->mask & MLZ_SET_DEPTH_MASK) printf("max stack depth %" PRIu32 " from %.6f s on\n", q->depth, s);
  if (q->mask & MLZ_SET_PAUSED) printf("%s from %.6f s on\n", q->bits & MLZ_SET_PAUSED ? "paused" : "recording", s);
}

int main(int argc, char **argv) {
  struct wish w = {0};
  struct mlz_reach session;
  char err[512];
  enum outcome outcome = parse(&w, argc, argv);
  if (outcome != RUN) return outcome == DONE ? 0 : WRONG;
  w.request.pid = w.pid;
  if (mlz_reach_open(&session, w.pid, err, sizeof err) < 0) return fail(err);
  uint64_t ns = 0;
  int e = mlz_reach_ask(&session, &w.request, &ns, err, sizeof err);
  mlz_reach_close(&session);
  if (e < 0) return fail(err);
  if (!w.quiet) report(&w, ns);
  return 0;
}
