/* memlyze-verify: is this file whole; what is damaged, what is lost with it; writes what can be saved. */
#include "formats/layout.h"
#include "formats/survey.h"

#include "analyzer/report.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
  struct mlz_common_options common;
  const char *repair;
  uint64_t n;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"repair", 0, MLZ_OPT_TEXT, "OUT", "write what can be saved into the new file OUT", AT(repair)},
    {"number", 'n', MLZ_OPT_COUNT, "N", "tell N damaged places (default 20; 0: all; with --json: all)", AT(n)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "verify",
    .purpose = "Reads all of a trace and says whether it is whole, or what is damaged and lost.",
    .options = options,
    .has_json = true,
    .whole_file = true,
    .usage = "[options] trace.mlyze",
    .exit_status = "0 the trace is whole; 1 it is damaged (repaired or not); 2 wrong\nusage, or nothing of it can be read",
    .notes = "Every chunk is checked against its checksum, decoded, and compared with the\n"
             "index. A repaired trace is whole; each tool says of it that it was repaired.\n"
             "The given trace is never changed, and OUT must not exist.\n",
};

static const char *const chunk_names[] = {"",      "META",    "STRINGS", "FRAMES", "STACKS", "PROCESS", "THREAD", "EVENTS",
                                          "GROUP", "SUMMARY", "INDEX",   "END",    "TOTALS", "MODULES", "SYMBOLS"};
static const char *const fault_names[MLZ_FAULT_KINDS] = {"header", "bytes", "content", "index", "tail", "cut", "appended", "missing"};

static const char *chunk_name(unsigned kind) { return kind < sizeof chunk_names / sizeof *chunk_names ? chunk_names[kind] : ""; }

/* ---- what is wrong, in words ---- */

static char *what_is_wrong(const struct mlz_fault *f) {
  const char *name = chunk_name(f->chunk);
  const char *article = *name && strchr("EI", *name) ? "an" : "a";
  switch (f->kind) {
  case MLZ_FAULT_HEADER:
    return mlz_text_format("the file's header was changed: its checksum does not hold");
  case MLZ_FAULT_BYTES:
    if (f->listed) return mlz_text_format("%s %s chunk was changed: its checksum does not hold", article, *name ? name : "unknown");
    if (*name) return mlz_text_format("%s %s chunk, by its header, was changed: its checksum does not hold", article, name);
    return mlz_text_format("no sound chunk begins here");
  case MLZ_FAULT_CONTENT:
    return mlz_text_format("the checksum of %s %s chunk holds, but it makes no sense: a faulty program wrote it", article, name);
  case MLZ_FAULT_INDEX:
    return mlz_text_format("the index does not say what the chunks say");
  case MLZ_FAULT_TAIL:
    return *name ? mlz_text_format("the file ends within %s %s chunk, by its header", article, name)
                 : mlz_text_format("the last bytes are no chunk");
  case MLZ_FAULT_CUT:
    return mlz_text_format("the end of the file is missing: its recorder was killed or the disk full, or it was cut");
  case MLZ_FAULT_APPENDED:
    return mlz_text_format("bytes behind the end of the trace do not belong to it");
  default:
    return mlz_text_format("there is no %s chunk", name);
  }
}

static char *span_text(const struct mlz_fault *f) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  if (f->to_ns == UINT64_MAX) return mlz_text_format("after %s", mlz_units_time(a, (double)f->from_ns));
  return mlz_text_format("between %s and %s", mlz_units_time(a, (double)f->from_ns), mlz_units_time(b, (double)f->to_ns));
}

/* "" if nothing that was recorded is lost with it. */
static char *what_is_lost(const struct mlz_fault *f) {
  char a[MLZ_UNITS_MAX];
  char *span = span_text(f), *text = NULL;
  bool nothing = f->kind == MLZ_FAULT_HEADER || f->kind == MLZ_FAULT_INDEX || f->kind == MLZ_FAULT_APPENDED;
  if (nothing || f->chunk == MLZ_C_INDEX || f->chunk == MLZ_C_END) {
    text = mlz_text_format("%s", "");
  } else if (f->chunk == MLZ_C_EVENTS && f->counted) {
    char *of = f->process ? mlz_text_format(" of process %" PRIu32, f->process) : mlz_text_format("%s", "");
    text = mlz_text_format("%s events%s, recorded %s", mlz_units_count(a, (double)f->count), of, span);
    free(of);
  } else if (f->chunk >= MLZ_C_STRINGS && f->chunk <= MLZ_C_STACKS) {
    char *n = f->counted ? mlz_text_format("%s ", mlz_units_count(a, (double)f->count)) : mlz_text_format("%s", "");
    text = mlz_text_format("%s%s, which read <lost>", n,
                           f->chunk == MLZ_C_STRINGS  ? "names"
                           : f->chunk == MLZ_C_FRAMES ? "frames"
                                                      : "stacks");
    free(n);
  } else if (f->chunk == MLZ_C_MODULES || f->chunk == MLZ_C_SYMBOLS) {
    text =
        mlz_text_format(f->chunk == MLZ_C_MODULES ? "which files native frames lie in, which read <lost>"
                                                  : "names of native frames, which read as module and address (--symbols may find them)");
  } else if (f->chunk == MLZ_C_PROCESS || f->chunk == MLZ_C_THREAD) {
    text = mlz_text_format("what was known of some %s", f->chunk == MLZ_C_PROCESS ? "processes" : "threads");
  } else if (f->chunk == MLZ_C_TOTALS) {
    text = mlz_text_format("totals taken %s, and those that lean on them", span);
  } else if (f->chunk == MLZ_C_META) {
    text = mlz_text_format("the command and its settings");
  } else if (f->chunk == MLZ_C_GROUP || f->chunk == MLZ_C_SUMMARY) {
    text = mlz_text_format("the recorder's counters");
  } else {
    text = mlz_text_format("whatever was recorded %s", span);
  }
  free(span);
  return text;
}

/* ---- the report ---- */

static json_t *fault_json(const struct mlz_fault *f) {
  char *wrong = what_is_wrong(f), *lost = what_is_lost(f);
  json_t *row = json_pack("{s:s, s:I, s:I, s:s, s:s}", "what", fault_names[f->kind], "offset", (json_int_t)f->at, "bytes",
                          (json_int_t)f->bytes, "message", wrong, "lost", lost);
  json_object_set_new(row, "chunk", f->chunk ? json_string(chunk_name(f->chunk)) : json_null());
  json_object_set_new(row, "count", f->counted ? json_integer((json_int_t)f->count) : json_null());
  json_object_set_new(row, "process", f->process ? json_integer(f->process) : json_null());
  json_object_set_new(row, "from_ns", *lost ? json_integer((json_int_t)f->from_ns) : json_null());
  json_object_set_new(row, "to_ns", *lost && f->to_ns != UINT64_MAX ? json_integer((json_int_t)f->to_ns) : json_null());
  free(wrong);
  free(lost);
  return row;
}

static void print_json(const struct mlz_input *in, const struct settings *s, const struct mlz_survey *v, const struct mlz_repair *r,
                       FILE *out) {
  json_t *document = mlz_json_document(in), *faults = json_array();
  for (size_t i = 0; i < v->faults_n; i++) json_array_append_new(faults, fault_json(&v->faults[i]));
  json_object_set_new(document, "ok", json_boolean(!v->faults_n));
  json_object_set_new(document, "bytes", json_pack("{s:I, s:I}", "file", (json_int_t)v->bytes, "damaged", (json_int_t)v->bytes_bad));
  json_object_set_new(document, "chunks",
                      json_pack("{s:I, s:I, s:I}", "sound", (json_int_t)v->chunks_sound, "damaged", (json_int_t)v->chunks_bad, "unknown",
                                (json_int_t)v->chunks[0]));
  json_object_set_new(document, "events",
                      json_pack("{s:I, s:I, s:I, s:I, s:b}", "read", (json_int_t)v->events, "allocs", (json_int_t)v->allocs, "frees",
                                (json_int_t)v->frees, "lost", (json_int_t)v->events_lost, "lost_known", v->events_lost_known));
  json_object_set_new(document, "from_ns", json_integer((json_int_t)v->first_ns));
  json_object_set_new(document, "to_ns", json_integer((json_int_t)v->last_ns));
  json_object_set_new(document, "damage", faults);
  json_object_set_new(document, "damage_more", json_integer((json_int_t)v->faults_more));
  json_t *before = json_object_get(v->summary, "repaired");
  if (before) json_object_set(document, "repaired_before", before);
  if (s->repair)
    json_object_set_new(document, "repair",
                        json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "output", mlz_json_text(s->repair), "bytes", (json_int_t)r->bytes,
                                  "events", (json_int_t)r->events, "frees_of_lost_blocks", (json_int_t)r->foreign, "rows_filled",
                                  (json_int_t)r->rows_filled, "totals_left_out", (json_int_t)r->totals_left_out));
  mlz_json_print(document, out);
}

static void print_fault(const struct mlz_fault *f, FILE *out) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  char *wrong = what_is_wrong(f), *lost = what_is_lost(f);
  fprintf(out, "  at %s", mlz_units_count(a, (double)f->at));
  if (f->bytes) fprintf(out, ", %s bytes", mlz_units_count(b, (double)f->bytes));
  fprintf(out, ": %s%s%s\n", wrong, *lost ? "; lost: " : "", lost);
  free(wrong);
  free(lost);
}

static void print_text(const struct mlz_input *in, const struct settings *s, const struct mlz_survey *v, const struct mlz_repair *r,
                       FILE *out) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX], c[MLZ_UNITS_MAX];
  bool color = mlz_term_color(out, (enum mlz_color)s->common.color);
  char *path = mlz_text_clean(in->path, true);
  fprintf(out, "%s: %s%s%s\n", path, color ? mlz_term_style(v->faults_n ? MLZ_STYLE_RED : MLZ_STYLE_GREEN) : "",
          v->faults_n ? "damaged" : "whole", color ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  free(path);
  fprintf(out, "  sound: %s chunks, %s events", mlz_units_count(a, (double)v->chunks_sound), mlz_units_count(b, (double)v->events));
  if (v->events) fprintf(out, " from %s to %s", mlz_units_time(a, (double)v->first_ns), mlz_units_time(b, (double)v->last_ns));
  fprintf(out, "; %s bytes in all\n", mlz_units_count(a, (double)v->bytes));
  if (v->chunks[0]) fprintf(out, "  %s chunks are of kinds that this version does not know\n", mlz_units_count(a, (double)v->chunks[0]));
  if (v->faults_n)
    fprintf(out, "  damaged: %s bytes; lost: %s%s\n", mlz_units_count(a, (double)v->bytes_bad), mlz_units_count(c, (double)v->events_lost),
            v->events_lost_known ? " events" : " events that are known of, and perhaps more");
  if (json_object_get(v->summary, "repaired")) fputs("  it was repaired before\n", out);
  uint64_t limit = s->n == UINT64_MAX ? 20 : s->n ? s->n : UINT64_MAX;
  for (size_t i = 0; i < v->faults_n && i < limit; i++) print_fault(&v->faults[i], out);
  if (v->faults_n > limit || v->faults_more)
    fprintf(out, "  %s more places (-n 0 shows all)\n",
            mlz_units_count(a, (double)(v->faults_more + (v->faults_n > limit ? v->faults_n - limit : 0))));
  if (!s->repair) {
    if (v->faults_n) fputs("  memlyze verify --repair OUT writes what is sound into a new trace\n", out);
    return;
  }
  char *written = mlz_text_clean(s->repair, true);
  fprintf(out, "%s: written: %s events, %s bytes\n", written, mlz_units_count(a, (double)r->events), mlz_units_count(b, (double)r->bytes));
  free(written);
  if (r->foreign) fprintf(out, "  %s frees are of blocks whose allocation was lost\n", mlz_units_count(a, (double)r->foreign));
  if (r->rows_filled) fprintf(out, "  %s names, frames and stacks read <lost>\n", mlz_units_count(a, (double)r->rows_filled));
  if (r->totals_left_out)
    fprintf(out, "  %s pieces of totals lean on what was lost and are left out\n", mlz_units_count(a, (double)r->totals_left_out));
}

/* ---- repairing ---- */

static void __attribute__((format(printf, 2, 3), noreturn)) fail_output(const struct settings *s, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "memlyze-verify: %s: ", s->repair);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(2);
}

/* The new file is read again: what is claimed of it must be true of what lies on the disk. */
static void repair(const struct mlz_input *in, const struct settings *s, const struct mlz_survey *v, struct mlz_repair *r) {
  char err[512];
  int fd = open(s->repair, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 && errno == EEXIST) fail_output(s, "exists already, and no file is overwritten; choose another name");
  if (fd < 0) fail_output(s, "cannot be written: %s; choose another place", strerror(errno));
  int rc = mlz_repair_file(in->path, v, fd, r, err, sizeof err);
  struct mlz_survey again;
  if (rc == 0 && (rc = mlz_survey_file(&again, s->repair, err, sizeof err)) == 0) {
    if (again.faults_n || again.events != v->events) {
      rc = -EIO;
      snprintf(err, sizeof err, "it does not read back as it was written; check the disk");
    }
    mlz_survey_clear(&again);
  }
  if (rc == 0) return;
  unlink(s->repair);
  fail_output(s, "could not be written: %s", err);
}

int main(int argc, char **argv) {
  struct settings s = {.n = UINT64_MAX};
  char err[512];
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  char *path = mlz_text_format("%s", s.common.path);
  struct mlz_input in = {.tool = tool.name, .path = path};
  struct mlz_survey survey;
  struct mlz_repair repaired = {0};
  if (s.repair && mlz_input_same_file(s.repair, path))
    mlz_input_fail(&in, "--repair would overwrite the trace itself; choose another name");
  int rc = mlz_survey_file(&survey, path, err, sizeof err);
  if (rc) mlz_input_fail(&in, "%s", err);
  if (s.repair) repair(&in, &s, &survey, &repaired);
  int status = survey.faults_n ? 1 : 0;
  FILE *out = mlz_report_open(&in, &s.common);
  if (s.common.json)
    print_json(&in, &s, &survey, &repaired, out);
  else
    print_text(&in, &s, &survey, &repaired, out);
  mlz_report_close(&in, &s.common, out);
  mlz_survey_clear(&survey);
  free(path);
  return status;
}
