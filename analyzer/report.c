#include "analyzer/report.h"

#include "analyzer/text.h"
#include "analyzer/totals.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void mlz_report_begin(void) {
  /* Widths of characters; nothing else of a locale (no decimal commas). */
  if (!setlocale(LC_CTYPE, "C.UTF-8")) setlocale(LC_CTYPE, "");
  signal(SIGPIPE, SIG_IGN);
}

void mlz_report_guard(const struct mlz_input *in, const struct mlz_common_options *common) {
  if (common->output && mlz_input_same_file(common->output, in->path))
    mlz_input_fail(in, "-o %s would overwrite the trace itself; choose another place with -o", common->output);
}

FILE *mlz_report_open(const struct mlz_input *in, const struct mlz_common_options *common) {
  if (!common->output) return stdout;
  mlz_report_guard(in, common);
  FILE *out = fopen(common->output, "we");
  if (out) return out;
  fprintf(stderr, "memlyze-%s: %s: cannot be written: %s; choose another place with -o\n", in->tool, common->output, strerror(errno));
  exit(2);
}

void mlz_report_close(const struct mlz_input *in, const struct mlz_common_options *common, FILE *out) {
  errno = 0;
  bool failed = fflush(out) || ferror(out);
  int reason = errno;
  if (out != stdout && fclose(out)) failed = true, reason = errno;
  if (!failed || reason == EPIPE) return;
  fprintf(stderr, "memlyze-%s: %s: could not be written: %s; make room or choose another place with -o\n", in->tool,
          common->output ? common->output : "standard output", strerror(reason ? reason : EIO));
  exit(2);
}

json_t *mlz_json_text(const char *text) {
  json_t *out = json_string(text);
  if (out) return out;
  char *clean = mlz_text_clean(text, false);
  out = json_string(clean);
  free(clean);
  return out;
}

json_t *mlz_json_number(double value) { return json_integer(llround(value)); }

json_t *mlz_json_document(const struct mlz_input *in) {
  char schema[64];
  snprintf(schema, sizeof schema, "memlyze.%s/1", in->tool);
  json_t *document = json_object();
  json_object_set_new(document, "schema", json_string(schema));
  if (in->estimated) json_object_set_new(document, "estimated", json_true());
  return document;
}

void mlz_json_add_losses(const struct mlz_input *in, json_t *document) {
  const struct mlz_damage *d = mlz_trace_damage(in->trace);
  uint64_t dropped = mlz_input_dropped(in);
  if (dropped)
    json_object_set_new(document, "lost",
                        json_pack("{s:I, s:I, s:I}", "records", (json_int_t)dropped, "allocations", (json_int_t)in->lost_allocs, "frees",
                                  (json_int_t)in->lost_frees));
  if (d->cut || d->chunks_bad || d->bytes_bad)
    json_object_set_new(document, "damage",
                        json_pack("{s:b, s:I, s:I, s:I, s:I}", "cut", d->cut, "chunks", (json_int_t)d->chunks_bad, "bytes",
                                  (json_int_t)d->bytes_bad, "events", (json_int_t)d->events_bad, "events_read",
                                  (json_int_t)in->events_read));
}

void mlz_json_print(json_t *document, FILE *out) {
  json_dumpf(document, out, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
  fputc('\n', out);
  json_decref(document);
}

struct mlz_place mlz_place_of_frame(const struct mlz_input *in, uint32_t frame) {
  struct mlz_frame f = mlz_trace_frame(in->trace, frame);
  return (struct mlz_place){mlz_trace_string(in->trace, f.function), mlz_trace_string(in->trace, f.file),
                            mlz_trace_string(in->trace, f.module), f.line,
                            f.language <= MLZ_LANG_INFERRED ? (enum mlz_language)f.language : MLZ_LANG_PYTHON};
}

struct mlz_place mlz_place_of_stack(const struct mlz_input *in, uint32_t stack) {
  uint32_t n = 0;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
  if (!n) return (struct mlz_place){"(no stack)", "", "", 0, MLZ_LANG_NATIVE};
  return mlz_place_of_frame(in, frames[0]);
}

char *mlz_place_name(const struct mlz_place *place) {
  char *clean = mlz_text_clean(place->function, true);
  if (place->language != MLZ_LANG_INFERRED) return clean;
  char *out = mlz_text_format("%s (inferred)", clean);
  free(clean);
  return out;
}

char *mlz_place_text(const struct mlz_place *place) {
  static char here[4096];
  if (!here[0] && !getcwd(here, sizeof here)) strcpy(here, "?");
  const char *file = place->file;
  size_t n = strlen(here);
  if (n > 1 && !strncmp(file, here, n) && file[n] == '/' && file[n + 1]) file += n + 1;
  char *clean = mlz_text_clean(file, true);
  char *out = place->line ? mlz_text_format("%s:%" PRIu32, clean, place->line) : mlz_text_format("%s", clean);
  free(clean);
  return out;
}

static void add_place(json_t *object, const struct mlz_place *p) {
  json_object_set_new(object, "function", mlz_json_text(p->function));
  json_object_set_new(object, "file", mlz_json_text(p->file));
  json_object_set_new(object, "line", json_integer(p->line));
  json_object_set_new(object, "language", json_string(p->language == MLZ_LANG_PYTHON ? "python" : "native"));
  if (p->language == MLZ_LANG_INFERRED) json_object_set_new(object, "inferred", json_true());
}

void mlz_json_add_site(const struct mlz_input *in, json_t *object, uint32_t stack) {
  struct mlz_place p = mlz_place_of_stack(in, stack);
  add_place(object, &p);
}

json_t *mlz_json_stack(const struct mlz_input *in, uint32_t stack) {
  uint32_t n = 0;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
  json_t *list = json_array();
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(in, frames[i]);
    json_t *frame = json_object();
    add_place(frame, &p);
    json_array_append_new(list, frame);
  }
  return list;
}

/* ---- the window ---- */

void mlz_report_wrap(FILE *out, unsigned width, unsigned column, unsigned indent, const char *text) {
  bool begun = false; /* a word stands on this line */
  while (*text) {
    size_t length = strcspn(text, " ");
    char *word = mlz_text_format("%.*s", (int)length, text);
    unsigned columns = mlz_text_width(word);
    if (begun && column + 1 + columns > width) {
      fprintf(out, "\n%*s", (int)indent, "");
      column = indent;
      begun = false;
    }
    fprintf(out, "%s%s", begun ? " " : "", word);
    column += begun + columns;
    begun = true;
    free(word);
    text += length;
    text += *text == ' ';
  }
  fputc('\n', out);
}

bool mlz_report_has_stack(const struct mlz_input *in, uint32_t stack) {
  uint32_t n;
  bool truncated;
  mlz_trace_stack(in->trace, stack, &n, &truncated);
  return n;
}

void mlz_report_no_stacks(const struct mlz_input *in, FILE *out) {
  bool python = false;
  for (size_t i = 0; i < in->n_processes; i++) python |= in->processes[i]->chosen && *in->processes[i]->python;
  bool none = !mlz_input_uint(json_object_get(mlz_trace_meta(in->trace), "settings"), "max_stack_depth", 1);
  bool refused = mlz_input_uint(json_object_get(mlz_trace_summary(in->trace), "counters"), "images_refused", 0);
  fputc('\n', out);
  mlz_report_wrap(out, mlz_term_width(out), 0, 0,
                  none      ? "No block has a stack: it was recorded with --max-stack-depth 0."
                  : refused ? "No block has a stack: the interpreter is of a kind whose frames are not known."
                  : python  ? "No block has a stack: no Python frame was running when they were allocated."
                            : "No block has a stack: a native program ran no Python; its own frames are recorded with record --native.");
}

static const struct mlz_cut *resolve(struct mlz_input *in, struct mlz_when when, bool include_mmap, struct mlz_cut *cut, uint64_t *ns) {
  *ns = UINT64_MAX;
  if (when.kind == MLZ_WHEN_NONE) return NULL;
  if (when.kind == MLZ_WHEN_PEAK) {
    if (in->totals_only)
      mlz_totals_refuse(in, "the peak", "only its bytes and its time are known; name a snapshot (memlyze stats lists them)");
    struct mlz_peak peak;
    mlz_peak_find(in, include_mmap, NULL, &peak);
    *cut = peak.cut;
    *ns = peak.time_ns;
    return cut;
  }
  mlz_when_resolve(in, &when, cut);
  if (cut->all.mode == MLZ_CUT_TIME) *ns = cut->all.value;
  return cut;
}

void mlz_window_resolve(struct mlz_input *in, const char *at, const char *from, const char *to, bool include_mmap,
                        struct mlz_window *window) {
  *window = (struct mlz_window){0};
  if (at && to) mlz_input_fail(in, "--at and --to both set the upper limit: give one of them");
  if (!at) at = to;
  if (at && in->mark) mlz_input_fail(in, "@%s and --at or --to both set the upper limit: give one of them", in->mark);
  struct mlz_when until = in->mark ? mlz_when_parse_at(in, in->mark) : mlz_when_parse(at), since = mlz_when_parse(from);
  uint64_t from_ns, to_ns;
  window->to = resolve(in, until, include_mmap, &window->to_cut, &to_ns);
  window->from = resolve(in, since, include_mmap, &window->from_cut, &from_ns);
  if (window->from && window->to && from_ns != UINT64_MAX && from_ns > to_ns)
    mlz_input_fail(in, "--from lies after the upper limit: nothing is between them");
}

void mlz_window_clear(struct mlz_window *window) {
  mlz_cut_clear(&window->from_cut);
  mlz_cut_clear(&window->to_cut);
}
