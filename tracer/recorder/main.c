/* memlyze record: makes the arena and the session, starts COMMAND, drains until it has ended, finishes the file. */
#include "tracer/recorder/arena.h"
#include "tracer/recorder/desk.h"
#include "tracer/recorder/drain.h"
#include "tracer/recorder/keeping.h"
#include "tracer/recorder/launch.h"
#include "tracer/recorder/naming.h"
#include "tracer/recorder/native.h"
#include "tracer/recorder/options.h"
#include "tracer/recorder/output.h"
#include "tracer/recorder/report.h"
#include "tracer/recorder/serve.h"
#include "tracer/recorder/session.h"
#include "tracer/recorder/survivors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define GROUP_NS UINT64_C(1000000000)
#define GROUP_TOTALS_NS UINT64_C(60000000000) /* between snapshots there is little to write but how the counters stand */
#define NAMES_NS UINT64_C(10000000000)        /* what looking up the names of native frames may take at the end */
#define FAILED 125                            /* the recorder's own failure, as env, timeout and nohup have it */

struct recording {
  struct mlz_options options;
  struct mlz_output output;
  struct mlz_keeping keeping;
  struct mlz_session session;
  struct mlz_arena arena;
  struct mlz_launch launch;
  struct mlz_serve serve;
  struct mlz_writer *writer;
  struct mlz_emit *emit;
  struct mlz_drain drain;
  struct mlz_desk desk;
  uint64_t group_ns, group_slots, progress_ns;
  bool progress;
  char memfd[48];
};

static bool serving; /* somebody hears us on another descriptor */

static int fail(const char *text) {
  if (serving) mlz_serve_say("error", text);
  fprintf(stderr, "memlyze-record: %s\n", text);
  return FAILED;
}

static json_t *patterns_json(const struct mlz_patterns *p) {
  json_t *list = json_array();
  for (unsigned i = 0; i < p->n; i++) json_array_append_new(list, json_string(p->at[i]));
  return list;
}

static json_t *settings_json(const struct mlz_options *o) {
  return json_pack("{s:f,s:I,s:i,s:b,s:I,s:I,s:s,s:b,s:b,s:b,s:b,s:o,s:o,s:I,s:b,s:I,s:I,s:s}", "sample_rate", o->sample_rate,
                   "sample_over", (json_int_t)o->sample_over, "max_stack_depth", (int)o->max_stack_depth, "track_gc", o->track_gc,
                   "max_events", (json_int_t)o->max_events, "ring_records", (json_int_t)(mlz_options_words(o) / 2), "on_full",
                   o->drop ? "drop" : "block", "native", o->native, "python", o->python, "malloc", o->malloc, "follow", o->follow,
                   "include", patterns_json(&o->filter.include), "exclude", patterns_json(&o->filter.exclude), "snapshot_every_ns",
                   (json_int_t)o->snapshot_every_ns, "snapshots_only", o->snapshots_only, "max_size", (json_int_t)o->max_size,
                   "flight_recorder_ns", (json_int_t)o->flight_ns, "wait", o->wait_all ? "all" : "command");
}

static json_t *text_json(const char *text) {
  json_t *j = json_string(text);
  return j ? j : json_string("?"); /* not UTF-8 */
}

static json_t *meta_json(const struct recording *r) {
  const struct mlz_options *o = &r->options;
  char host[256] = "", directory[4096] = "";
  struct timespec now;
  gethostname(host, sizeof host - 1);
  if (!getcwd(directory, sizeof directory)) directory[0] = 0;
  clock_gettime(CLOCK_REALTIME, &now);
  json_int_t start = (json_int_t)now.tv_sec * 1000000000 + now.tv_nsec - (json_int_t)mlz_arena_clock(r->arena.control);
  json_t *meta = json_object(), *command = json_array();
  for (char **word = o->command; *word; word++) json_array_append_new(command, text_json(*word));
  json_object_set_new(meta, "version", json_string(MLZ_VERSION));
  json_object_set_new(meta, "command", command);
  json_object_set_new(meta, "pid", json_integer(r->launch.pid));
  if (o->serve) json_object_set_new(meta, "started", json_true());
  json_object_set_new(meta, "host", text_json(host));
  json_object_set_new(meta, "directory", text_json(directory));
  json_object_set_new(meta, "start", json_integer(start));
  json_object_set_new(meta, "sample_rate", json_real(o->sample_rate));
  json_object_set_new(meta, "max_stack_depth", json_integer(o->max_stack_depth));
  json_object_set_new(meta, "settings", settings_json(o));
  return meta;
}

/* The memfd counts against RLIMIT_FSIZE, which is meant for files on a disk. */
static int make_arena(struct recording *r) {
  const struct mlz_options *o = &r->options;
  struct rlimit limit, high;
  bool limited = getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  if (limited) {
    high = (struct rlimit){.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    if (setrlimit(RLIMIT_FSIZE, &high) < 0) {
      high = (struct rlimit){.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
      setrlimit(RLIMIT_FSIZE, &high);
    }
  }
  int e = mlz_arena_make(&r->arena, r->memfd, mlz_options_words(o), mlz_options_settings(o), o->sample_over, o->follow);
  if (limited) setrlimit(RLIMIT_FSIZE, &limit);
  return e;
}

/* The output file, with META in it: COMMAND's process exists, but does not run yet. */
static int open_file(struct recording *r, char *err, size_t size) {
  int e = mlz_keeping_open(&r->keeping, &r->options, &r->output, err, size);
  if (e < 0) return e;
  json_t *meta = meta_json(r);
  e = (r->options.snapshots_only ? mlz_writer_new_totals_only : mlz_writer_new)(&r->writer, r->output.fd, meta, 0);
  json_decref(meta);
  if (e == 0) e = mlz_keeping_begin(&r->keeping, r->writer);
  if (e < 0) {
    snprintf(err, size, "%s: cannot be written: %s; choose another file with -o", r->options.output, strerror(-e));
    mlz_output_abandon(&r->output);
  }
  return e;
}

static int prepare_session(struct recording *r, const char *agent, char *err, size_t size) {
  char preload[PATH_MAX];
  snprintf(r->memfd, sizeof r->memfd, "memlyze-%s", r->session.id);
  snprintf(preload, sizeof preload, "%s/%s", r->session.path, MLZ_AGENT_NAME);
  int e = make_arena(r);
  if (e < 0) {
    snprintf(err, size, "cannot make the shared memory: %s; smaller rings (--max-events 1000) or a higher ulimit %s may help", strerror(-e),
             e == -EFBIG ? "-f" : "-v");
    return e;
  }
  mlz_launch_wakes(r->arena.control);
  if ((e = mlz_session_link(&r->session, agent, r->arena.fd)) < 0) {
    snprintf(err, size, "%s: cannot make a link: %s", r->session.path, strerror(-e));
  } else if (!r->serve.pid && (e = mlz_launch_fork(&r->launch, r->options.command, preload)) < 0) {
    snprintf(err, size, "cannot start a process: %s", strerror(-e));
  } else if ((e = open_file(r, err, size)) < 0) {
    if (!r->serve.pid) mlz_launch_cancel(&r->launch);
  }
  return e;
}

/* Everything that can fail before COMMAND runs. 0 or an exit status. */
static int prepare(struct recording *r) {
  char err[PATH_MAX + 256], agent[PATH_MAX];
  if (mlz_session_find_agent(agent) < 0) return fail("libmemlyze.so was not found beside this program (../lib/memlyze); reinstall memlyze");
  if (mlz_session_make(&r->session, err, sizeof err) < 0) return fail(err);
  if (prepare_session(r, agent, err, sizeof err) == 0) return 0;
  mlz_session_remove(&r->session);
  return fail(err);
}

static int start(struct recording *r) {
  char err[PATH_MAX + 256];
  int error = 0;
  if (r->options.verbose) {
    fprintf(stderr, "memlyze: session %s, %u rings of %u words\n", r->session.path, r->arena.control->ring_count,
            r->arena.control->ring_words);
  }
  int status = mlz_launch_run(&r->launch, &error);
  if (status == 0) return 0;
  const char *command = r->options.command[0], *suffix = strrchr(command, '.');
  bool script = suffix && !strcmp(suffix, ".py") && !access(command, F_OK); /* without its interpreter */
  snprintf(err, sizeof err, "%s: %s; nothing was recorded%s%s", command, status == 127 ? "command not found" : strerror(error),
           script ? "; try: memlyze record python3 " : "", script ? command : "");
  fail(err);
  return status;
}

static void seal(struct recording *r) {
  r->group_ns = r->drain.now_ns;
  r->group_slots = r->drain.words_total;
  r->drain.group_wanted = false;
  mlz_image_seal(&r->drain);
}

/* For --wait all: nothing that we know of runs, and nothing that we do not know of. */
static bool all_gone(struct recording *r, unsigned idle) {
  return idle > 0 && mlz_image_living(&r->drain) == 0 && !mlz_survivors_map(r->memfd);
}

/* By a signal, or from memlyze control, whose answer waits for it. */
static bool dump_wanted(struct recording *r) {
  if (!r->options.flight_ns) return false;
  bool signalled = mlz_launch_dump_asked();
  return signalled || r->desk.dump_due;
}

static void drain_until_end(struct recording *r) {
  struct mlz_drain *d = &r->drain;
  for (unsigned idle = 0;;) {
    bool stop = !r->serve.pid && mlz_launch_poll(&r->launch);
    mlz_desk_look(&r->desk);
    idle = mlz_drain_round(d) || r->desk.taken ? 0 : idle + 1;
    mlz_desk_obey(&r->desk, d);
    bool due = d->now_ns - r->group_ns >= (d->totals_only ? GROUP_TOTALS_NS : GROUP_NS) &&
               d->words_total != r->group_slots; /* an idle program's file does not grow */
    if (dump_wanted(r)) mlz_keeping_ask(&r->keeping, d, r->desk.dump);
    if (d->group_wanted || due) seal(r);
    r->keeping.asked = false;
    mlz_desk_answer(&r->desk, r->emit, atomic_load(&r->keeping.error));
    if (r->progress) mlz_report_progress(d, mlz_emit_bytes(r->emit), &r->progress_ns);
    if (r->serve.pid) r->launch.exited = mlz_serve_over(&r->serve, d);
    if (r->launch.exited && (!r->options.wait_all || all_gone(r, idle))) return;
    if (stop) {
      mlz_launch_stop_self();
      d->words_taken = 0; /* the gap is ours, not one of a busy program */
    } else {
      mlz_drain_sleep(d, idle);
    }
  }
}

/* Those that live on stop recording; what they have published until now is in the trace. Returns how many they are. */
static unsigned drain_rest(struct recording *r) {
  struct mlz_drain *d = &r->drain;
  mlz_settings_change(r->arena.control, MLZ_SET_PAUSED, MLZ_SET_PAUSED);
  d->changes.word = atomic_load(&r->arena.control->settings); /* no change that a report should show */
  for (int i = 0; i < 3; i++) { /* who is dead is seen in the first, drained in the second; the third takes what began in between */
    mlz_image_poll(d);
    mlz_drain_round(d);
  }
  unsigned cut = 0;
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    if (d->feeds[i]) mlz_image_thread_row(d, d->feeds[i]);
  }
  for (struct mlz_image *m = d->images; m; m = m->next) {
    for (const struct mlz_feed *f = m->feeds; f; f = f->next) {
      m->seen += mlz_feed_seen(f);
      if (f->ns > m->last_ns) m->last_ns = f->ns;
    }
    cut += !m->dead;
    if (m->pid == (uint32_t)r->launch.pid && m->ending == MLZ_END_EXIT) m->ending = r->launch.killed ? MLZ_END_KILLED : MLZ_END_EXIT;
    mlz_image_close(d, m, MLZ_END_CUT);
  }
  return cut;
}

static void say_failed(const struct recording *r, int e, char *text, size_t size) {
  bool flight = r->options.flight_ns != 0, outgrown = e == -E2BIG;
  snprintf(text, size, "%s: %s: %s; %s, what came later is lost%s", r->options.output, flight ? "recording ended" : "writing failed",
           outgrown ? "names, stacks and totals alone need too much of --max-size" : strerror(-e),
           flight ? "what had been recorded is written" : "the trace is readable up to the last whole part",
           outgrown ? "; choose a larger one" : "");
}

/* 0, or why the file is not whole: negative errno, and in words. */
static int finish(struct recording *r, char *err, size_t size) {
  struct mlz_drain *d = &r->drain;
  struct mlz_outcome o = {.status = r->launch.status};
  o.cut = drain_rest(r);
  o.duration_ns = mlz_arena_clock(d->control);
  if (d->first_ring == 0 && !r->serve.pid) o.untraced = mlz_launch_untraced_cause(r->options.command[0], r->arena.control);
  if (!r->serve.pid && r->options.malloc) mlz_launch_own_allocators(r->options.command[0], &o.own);
  seal(r);
  mlz_emit_join(r->emit);
  if (d->native) o.unnamed = mlz_naming_run(d, NAMES_NS, r->options.malloc ? &o.own : NULL);
  o.error = mlz_emit_error(r->emit);
  o.complete = o.error == 0;
  json_t *summary = mlz_report_summary(d, &o);
  uint64_t left_out, until;
  if (!r->options.flight_ns && mlz_writer_left_out(r->writer, &left_out, &until))
    json_object_set_new(summary, "left_out", json_pack("{s:I,s:I}", "events", (json_int_t)left_out, "until_ns", (json_int_t)until));
  o.bytes_written = mlz_writer_bytes(r->writer);
  int dumped = r->options.flight_ns ? mlz_keeping_end(&r->keeping, d, summary, &o.bytes_written) : 0;
  if (!r->options.flight_ns && o.error == 0) o.error = mlz_writer_finish(r->writer, summary);
  json_decref(summary);
  if (!r->options.flight_ns) o.bytes_written = mlz_writer_bytes(r->writer);
  if (r->progress) mlz_report_progress_erase(&r->progress_ns);
  if (o.untraced) fprintf(stderr, "memlyze: warning: nothing was traced: %s\n", o.untraced);
  for (unsigned i = 0; i < o.own.n; i++) {
    char *text = mlz_allocators_text(&o.own.at[i]);
    if (text) fprintf(stderr, "memlyze: warning: %s\n", text);
    free(text);
  }
  if (o.error < 0) {
    say_failed(r, o.error, err, size);
    fprintf(stderr, "memlyze-record: %s\n", err);
  }
  if (dumped < 0) snprintf(err, size, "%s: cannot be written: %s", r->options.output, strerror(-dumped)); /* it has been said */
  if (!r->options.quiet && dumped == 0) mlz_report_print(d, &o, r->options.output);
  mlz_allocators_free(&o.own);
  return dumped < 0 ? dumped : o.error;
}

/* Once COMMAND runs, or, where there is a program to serve, before it is told that we are there. */
static int begin(struct recording *r) {
  char err[PATH_MAX + 256];
  if (!r->options.flight_ns && mlz_output_place(&r->output, r->options.force, err, sizeof err) < 0) {
    fail(err); /* it goes on under the temporary name */
    if (serving) mlz_output_abandon(&r->output);
    if (serving) return FAILED;
  }
  int e = mlz_emit_new(&r->emit, r->writer);
  if (e == 0) e = mlz_drain_init(&r->drain, r->arena.control, r->writer, r->emit, r->options.sample_rate);
  if (e < 0) return fail(serving ? "out of memory" : "out of memory; COMMAND runs on untraced");
  if (r->options.native && !(r->drain.native = mlz_native_new(&r->drain.symbols)))
    return fail(serving ? "out of memory" : "out of memory; COMMAND runs on untraced");
  r->drain.every_ns = r->options.snapshot_every_ns;
  r->drain.totals_only = r->options.snapshots_only;
  mlz_symbols_set_filter(&r->drain.symbols, &r->options.filter);
  mlz_desk_init(&r->desk, r->arena.control, (uint32_t)r->launch.pid, r->options.flight_ns != 0);
  r->drain.watched = r->serve.pid;
  r->drain.left_out = r->options.left_out;
  r->drain.left_out_n = r->options.left_out_n;
  if (serving) mlz_serve_say("ready", r->session.path);
  return 0;
}

static void end(struct recording *r) {
  mlz_emit_free(r->emit);
  mlz_drain_deinit(&r->drain);
  mlz_writer_free(r->writer);
}

static int serve(struct recording *r) {
  char err[PATH_MAX + 256];
  serving = true;
  if (mlz_serve_begin(&r->serve, r->options.serve, err, sizeof err) < 0) return fail(err);
  r->options.command = r->serve.command;
  r->launch.pid = (pid_t)r->serve.pid;
  int status = prepare(r);
  if (status) return status;
  status = begin(r);
  if (status == 0) drain_until_end(r);
  mlz_session_remove(&r->session);
  if (status) return status;
  int e = finish(r, err, sizeof err);
  /* By its name another recording may replace it at any time; a flight recorder's own file is its memory. */
  int file = r->options.flight_ns ? open(r->options.output, O_RDONLY) : dup(r->output.fd);
  end(r);
  mlz_serve_answer(file, e < 0 ? err : NULL);
}

static int record(struct recording *r) {
  mlz_launch_signals(r->options.flight_ns != 0);
  int status = prepare(r);
  if (status) return status;
  status = start(r);
  if (status) {
    mlz_output_abandon(&r->output);
    mlz_session_remove(&r->session);
    return status;
  }
  status = begin(r);
  if (status) {
    mlz_session_remove(&r->session);
    return status;
  }
  r->progress = !r->options.quiet && isatty(2);
  drain_until_end(r);
  mlz_session_leave(&r->session);
  char err[PATH_MAX + 256];
  finish(r, err, sizeof err);
  end(r);
  return r->launch.status;
}

int main(int argc, char **argv) {
  static struct recording r;
  char err[512];
  if (mlz_launch_guard_descriptors() < 0) return FAILED;
  int outcome = mlz_options_parse(&r.options, argc, argv, err, sizeof err);
  if (outcome < 0) {
    if (r.options.serve) mlz_serve_say("wrong", err);
    fprintf(stderr, "memlyze-record: %s\n", err);
    return 2;
  }
  if (outcome == MLZ_OPTIONS_HELP) {
    mlz_options_help(stdout);
    return 0;
  }
  if (outcome == MLZ_OPTIONS_VERSION) {
    puts("memlyze-record " MLZ_VERSION);
    return 0;
  }
  return r.options.serve ? serve(&r) : record(&r);
}
