#include "tracer/recorder/keeping.h"

#include "tracer/recorder/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAME_EVENTS UINT64_C(4000000) /* a tool reads so many in less than 0.1 s */
#define FRAME_SHARE 0.05
#define FRAMES_KEPT 32 /* parts of what is kept that may be left out at a time */

static int memory(void) {
  int fd = memfd_create("memlyze-flight", MFD_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

int mlz_keeping_open(struct mlz_keeping *k, const struct mlz_options *o, struct mlz_output *output, char *err, size_t size) {
  *k = (struct mlz_keeping){.options = o, .output = output};
  int e = mlz_output_open(output, o->output, err, size);
  if (e < 0 || !o->max_size) return e < 0 ? e : output->fd;
  if (!output->temporary[0]) {
    snprintf(err, size, "%s: is no regular file, which --max-size and --flight-recorder need; choose another one with -o", o->output);
    close(output->fd);
    return -EINVAL;
  }
  if (!o->flight_ns) return output->fd;
  close(output->fd); /* it can be made: that is all for now */
  mlz_output_abandon(output);
  if ((output->fd = memory()) < 0) snprintf(err, size, "cannot make memory for the flight recorder: %s", strerror(-output->fd));
  return output->fd;
}

/* ---- the files of the writer thread ---- */

static int make_file(void *context) { return mlz_output_again(((struct mlz_keeping *)context)->output); }
static int replace_file(void *context, int fd) { return mlz_output_replace(((struct mlz_keeping *)context)->output, fd); }
static void abandon_file(void *context) { mlz_output_abandon(((struct mlz_keeping *)context)->output); }

static int make_memory(void *context) {
  (void)context;
  return memory();
}
static int replace_memory(void *context, int fd) {
  ((struct mlz_keeping *)context)->output->fd = fd;
  return 0;
}
static void abandon_memory(void *context) { (void)context; }

/* MEMLYZE_FRAME_EVENTS is for tests: frames after so many events, whatever they cost. */
static struct mlz_frame_rule frame_rule(const struct mlz_options *o) {
  const char *text = getenv("MEMLYZE_FRAME_EVENTS");
  struct mlz_frame_rule rule = {.least_events = FRAME_EVENTS, .share = FRAME_SHARE};
  if (text) rule = (struct mlz_frame_rule){.least_events = strtoull(text, NULL, 10), .share = 1e9};
  rule.every_bytes = o->max_size / FRAMES_KEPT;
  rule.every_ns = o->flight_ns / 8;
  return rule;
}

int mlz_keeping_begin(struct mlz_keeping *k, struct mlz_writer *writer) {
  const struct mlz_options *o = k->options;
  k->writer = writer;
  struct mlz_frame_rule frames = frame_rule(o);
  int e = o->snapshots_only ? 0 : mlz_writer_frames(writer, &frames);
  if (!o->max_size) return 0; /* without memory for it the tools read more */
  struct mlz_keep_rule keep = {.max_bytes = o->max_size,
                               .least_ns = o->flight_ns,
                               .make = o->flight_ns ? make_memory : make_file,
                               .replace = o->flight_ns ? replace_memory : replace_file,
                               .abandon = o->flight_ns ? abandon_memory : abandon_file,
                               .context = k};
  return e < 0 ? e : mlz_writer_keep(writer, &keep);
}

/* ---- dumps ---- */

static int dump(struct mlz_keeping *k, const char *path, const json_t *summary, uint64_t *bytes) {
  struct mlz_output to;
  char err[PATH_MAX + 256];
  bool own = strcmp(path, k->options->output) == 0;
  int e = mlz_output_open(&to, path, err, sizeof err);
  if (e >= 0) {
    int copy = fcntl(to.fd, F_DUPFD_CLOEXEC, 0); /* the writer closes its own */
    e = mlz_writer_dump(k->writer, to.fd, k->since_ns, summary);
    struct stat st;
    if (bytes && copy >= 0 && fstat(copy, &st) == 0) *bytes = (uint64_t)st.st_size;
    if (copy >= 0) close(copy);
    if (e == 0) e = mlz_output_place(&to, k->options->force || (own && k->placed), err, sizeof err);
    if (e < 0) {
      mlz_output_abandon(&to);
      snprintf(err, sizeof err, "%s: cannot be written: %s", path, strerror(-e));
    }
  }
  if (e < 0) fprintf(stderr, "memlyze-record: %s\n", err);
  if (e == 0 && !k->options->quiet) fprintf(stderr, "memlyze: the flight recorder was written into %s\n", path);
  k->placed |= e == 0 && own;
  return e < 0 ? e : 0;
}

/* Writer thread. */
static void dump_now(void *context) {
  struct mlz_keeping *k = context;
  int e = dump(k, k->path, k->state, NULL);
  json_decref(k->state);
  k->state = NULL;
  atomic_store(&k->error, e);
}

static uint64_t begin_of(const struct mlz_keeping *k, uint64_t now_ns) {
  return now_ns > k->options->flight_ns ? now_ns - k->options->flight_ns : 0;
}

void mlz_keeping_ask(struct mlz_keeping *k, struct mlz_drain *d, const char *path) {
  if (k->asked) return;
  snprintf(k->path, sizeof k->path, "%s", path ? path : k->options->output);
  k->since_ns = begin_of(k, d->now_ns);
  k->state = mlz_report_state(d);
  k->asked = true;
  d->group_wanted = true;
  mlz_emit_after(d->emit, dump_now, k);
}

int mlz_keeping_end(struct mlz_keeping *k, const struct mlz_drain *d, const json_t *summary, uint64_t *bytes) {
  struct mlz_bytes rows = {0};
  k->since_ns = begin_of(k, d->now_ns);
  if (mlz_writer_take_tables(k->writer, &rows) == 0)
    mlz_writer_append_tables(k->writer, &rows); /* the names of native frames; else it goes without */
  free(rows.data);
  return dump(k, k->options->output, summary, bytes);
}
