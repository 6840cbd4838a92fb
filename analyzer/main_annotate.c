/* memlyze-annotate: source lines with what they allocated, and the code around native calls. */
#include "analyzer/annotate.h"
#include "analyzer/disassemble.h"
#include "analyzer/names.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  int by;
  uint64_t n, context, calls;
  const char *at, *from, *to, *function, *file, *source;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"function", 0, MLZ_OPT_TEXT, "NAME", "only this function: its name, or the last part of it", AT(function)},
    {"file", 0, MLZ_OPT_TEXT, "FILE", "only this source file: its path, or the end of it; all of its lines", AT(file)},
    {"by", 0, MLZ_OPT_CHOICE, MLZ_METRIC_CHOICES, "what to sort by (default alloc-bytes)", AT(by)},
    {"number", 'n', MLZ_OPT_COUNT, "N", "show N files (default 5; 0: all; with --json: all)", AT(n)},
    {"context", 'C', MLZ_OPT_COUNT, "N", "lines of source around each that allocated (default 3)", AT(context)},
    {"calls", 0, MLZ_OPT_COUNT, "N", "show the code of N native calls of each file (default 2; 0: none)", AT(calls)},
    {"source", 0, MLZ_OPT_TEXT, "DIR", "where the source is, if not where it was recorded", AT(source)},
    MLZ_SYMBOLS_OPTION,
    {"at", 0, MLZ_OPT_TEXT, "TIME", "live blocks as they stood at TIME (default: end); nothing later counts", AT(at)},
    {"from", 0, MLZ_OPT_TEXT, "TIME", "only blocks allocated after TIME", AT(from)},
    {"to", 0, MLZ_OPT_TEXT, "TIME", "only what happened until TIME", AT(to)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "annotate",
    .purpose = "Source lines with what they allocated, and the code around native calls.",
    .options = options,
    .has_json = true,
    .notes = "A line counts for what it allocated itself; a Python line for what native code\n"
             "allocated that it called, too. '>' marks the call in a function's code (x86-64\n"
             "and aarch64).\n" MLZ_TIME_NOTE,
};

#define NAMELESS_MAX 20u /* functions of a file without lines */

struct view {
  struct mlz_input *in;
  const struct settings *s;
  struct mlz_symbolizer *symbolizer; /* NULL until the first native call */
  FILE *out;
  unsigned width;
  bool color;
};

/* ---- figures ---- */

static double count_of(const struct settings *s, const struct mlz_figures *f) {
  switch ((enum mlz_metric)s->by) {
  case MLZ_BY_LIVE_BYTES:
    return f->tally.alloc_count - f->tally.free_count;
  case MLZ_BY_PEAK_BYTES:
    return f->peak_count;
  case MLZ_BY_TEMPORARY:
    return f->tally.temp_count;
  default:
    return f->tally.alloc_count;
  }
}

static double bytes_of(const struct settings *s, const struct mlz_figures *f) {
  switch ((enum mlz_metric)s->by) {
  case MLZ_BY_LIVE_BYTES:
    return mlz_tally_live_bytes(&f->tally);
  case MLZ_BY_PEAK_BYTES:
    return f->peak_bytes;
  case MLZ_BY_TEMPORARY:
    return f->tally.temp_bytes;
  default:
    return f->tally.alloc_bytes;
  }
}

static void add_figures(const struct mlz_input *in, const struct mlz_figures *f, json_t *row) {
  json_object_set_new(row, "alloc_count", mlz_json_number(f->tally.alloc_count));
  json_object_set_new(row, "alloc_bytes", mlz_json_number(f->tally.alloc_bytes));
  json_object_set_new(row, "live_count", mlz_json_number(f->tally.alloc_count - f->tally.free_count));
  json_object_set_new(row, "live_bytes", mlz_json_number(f->tally.alloc_bytes - f->tally.free_bytes));
  json_object_set_new(row, "peak_bytes", in->totals_only ? json_null() : mlz_json_number(f->peak_bytes));
  json_object_set_new(row, "temporary_count", mlz_json_number(f->tally.temp_count));
}

/* ---- native calls ---- */

/* NULL: the file is not there. */
static struct mlz_symbol_module *module_of(struct view *v, const struct mlz_native_frame *f) {
  if (!v->symbolizer) v->symbolizer = mlz_symbolizer_new(v->s->common.symbols);
  return v->symbolizer ? mlz_names_module(v->symbolizer, f) : NULL;
}

static unsigned code_of(struct view *v, const struct mlz_native_frame *f, struct mlz_instruction *out, const char **why) {
  struct mlz_symbol_module *m = module_of(v, f);
  *why = "the file is not there, or is another build; --symbols DIR names a place";
  if (!*f->path) *why = "the code belongs to no file";
  return m ? mlz_disassemble(m, f->address, 8, 3, out, why) : 0;
}

static json_t *call_json(struct view *v, const struct mlz_call *call) {
  struct mlz_native_frame f;
  struct mlz_instruction code[MLZ_INSTRUCTIONS_MAX];
  const char *why;
  if (!mlz_trace_native(v->in->trace, call->frame, &f)) return json_null();
  unsigned n = code_of(v, &f, code, &why);
  json_t *row = json_object(), *list = json_array();
  json_object_set_new(row, "module", mlz_json_text(f.path));
  json_object_set_new(row, "build_id", mlz_json_text(f.build_id));
  json_object_set_new(row, "address", json_integer((json_int_t)(f.address & INT64_MAX)));
  add_figures(v->in, &call->figures, row);
  for (unsigned i = 0; i < n; i++) {
    char bytes[2 * sizeof code[i].bytes + 1] = "";
    for (unsigned k = 0; k < code[i].size; k++) snprintf(bytes + 2 * k, 3, "%02x", code[i].bytes[k]);
    json_array_append_new(list, json_pack("{s:I, s:s, s:s, s:b}", "address", (json_int_t)(code[i].address & INT64_MAX), "bytes", bytes,
                                          "text", code[i].text, "call", code[i].call));
  }
  json_object_set_new(row, "instructions", list);
  if (!n) json_object_set_new(row, "missing", json_string(why));
  return row;
}

static void print_call(struct view *v, const struct mlz_line *line, const struct mlz_call *call) {
  struct mlz_native_frame f;
  struct mlz_instruction code[MLZ_INSTRUCTIONS_MAX];
  const char *why;
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  if (!mlz_trace_native(v->in->trace, call->frame, &f)) return;
  unsigned n = code_of(v, &f, code, &why);
  char *name = mlz_text_clean(line->function, true), *path = mlz_text_clean(f.path, true);
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
  fprintf(v->out, "\n  %s in %s blocks by %s", mlz_units_size(a, bytes_of(v->s, &call->figures)),
          mlz_units_count(b, count_of(v->s, &call->figures)), name);
  if (line->line) fprintf(v->out, ":%" PRIu32, line->line);
  if (f.resolved) fprintf(v->out, ", %s+0x%" PRIx64, *base ? base : "code", f.address);
  fputc('\n', v->out);
  for (unsigned i = 0; i < n; i++) {
    bool mark = code[i].call && v->color;
    fprintf(v->out, "%s    %c %10" PRIx64 "  %s%s\n", mark ? mlz_term_style(MLZ_STYLE_BOLD) : "", code[i].call ? '>' : ' ', code[i].address,
            code[i].text, mark ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  }
  if (!n) fprintf(v->out, "    (no code: %s: %s)\n", *path ? path : base, why);
  free(name);
  free(path);
}

struct chosen_call {
  const struct mlz_line *line;
  const struct mlz_call *call;
};

/* The file's largest calls, as many as are wanted. */
static void print_calls(struct view *v, const struct mlz_source_file *f) {
  struct chosen_call chosen[32];
  size_t want = v->s->calls < 32 ? (size_t)v->s->calls : 32, n = 0;
  for (size_t i = 0; i < f->n; i++) {
    for (size_t k = 0; k < f->lines[i].n_calls; k++) {
      const struct mlz_call *call = &f->lines[i].calls[k];
      if (!(call->figures.value > 0)) continue;
      size_t at = n < want ? n : want;
      while (at > 0 && chosen[at - 1].call->figures.value < call->figures.value) at--;
      if (at >= want) continue;
      size_t last = n < want ? n++ : want - 1;
      memmove(chosen + at + 1, chosen + at, (last - at) * sizeof *chosen);
      chosen[at] = (struct chosen_call){&f->lines[i], call};
    }
  }
  for (size_t i = 0; i < n; i++) print_call(v, chosen[i].line, chosen[i].call);
}

/* ---- source ---- */

static void print_figures(struct view *v, const struct mlz_figures *f) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  if (f)
    fprintf(v->out, "%s%10s %9s%s", v->color ? mlz_term_style(MLZ_STYLE_BOLD) : "", mlz_units_size(a, bytes_of(v->s, f)),
            mlz_units_count(b, count_of(v->s, f)), v->color ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  else
    fprintf(v->out, "%20s", "");
}

static void print_source_line(struct view *v, uint32_t number, const char *text, const struct mlz_figures *f) {
  char digits[16] = "?";
  if (number) snprintf(digits, sizeof digits, "%" PRIu32, number);
  print_figures(v, f);
  char *expanded = mlz_text_format("%s", ""), *clean;
  for (const char *p = text; *p;) { /* tabs are eight columns */
    size_t n = strcspn(p, "\t");
    char *more = mlz_text_format("%s%.*s%s", expanded, (int)n, p, p[n] ? "        " : "");
    free(expanded);
    expanded = more;
    p += n + (p[n] != 0);
  }
  clean = mlz_text_clean(expanded, true);
  char *fits = mlz_text_shorten(clean, v->width > 60 ? v->width - 30 : 30, MLZ_SHORTEN_RIGHT);
  fprintf(v->out, " %7s  %s\n", digits, fits);
  free(fits);
  free(clean);
  free(expanded);
}

/* The lines of one number together, from the i-th on: what ran there differs, as with templates. Returns the next number's. */
static size_t same_line(const struct mlz_source_file *f, size_t i, struct mlz_figures *sum) {
  const struct mlz_line *first = &f->lines[i];
  *sum = (struct mlz_figures){0};
  for (; i < f->n && f->lines[i].line == first->line && (first->line || &f->lines[i] == first); i++)
    mlz_figures_add(sum, &f->lines[i].figures);
  return i;
}

static void print_lines(struct view *v, const struct mlz_source_file *f, const struct mlz_source_text *source) {
  bool whole = v->s->file != NULL && source->n;
  uint64_t context = whole ? source->n : v->s->context, printed = 0; /* the last line that was */
  struct mlz_figures sum;
  size_t nameless = 0;
  bool gap = false;
  for (size_t i = 0, next; i < f->n; i = next) {
    uint32_t line = f->lines[i].line;
    next = same_line(f, i, &sum);
    if (!(sum.value > 0)) continue;
    if (!line && !v->s->file && ++nameless > NAMELESS_MAX) continue;
    if (!source->n || !line || line > source->n) { /* no source: what ran there */
      print_source_line(v, line, f->lines[i].function, &sum);
      continue;
    }
    uint64_t from = line > context ? line - context : 1;
    if (from <= printed) from = printed + 1;
    if (gap && from > printed + 1) fprintf(v->out, "%29s\n", "...");
    for (uint64_t k = from; k < line; k++) print_source_line(v, (uint32_t)k, source->lines[k - 1], NULL);
    print_source_line(v, line, source->lines[line - 1], &sum);
    printed = line;
    gap = true;
    uint64_t until = line + context, following = 0;
    for (size_t k = next; k < f->n && !following; k++)
      if (f->lines[k].figures.value > 0) following = f->lines[k].line;
    if (following && until >= following) until = following - 1;
    for (; printed < until && printed < source->n;) {
      printed++;
      print_source_line(v, (uint32_t)printed, source->lines[printed - 1], NULL);
    }
  }
  if (nameless > NAMELESS_MAX) fprintf(v->out, "%29s  %zu more (--file shows all)\n", "...", nameless - NAMELESS_MAX);
}

static void print_file(struct view *v, const struct mlz_source_file *f) {
  char a[MLZ_UNITS_MAX], b[MLZ_UNITS_MAX];
  struct mlz_source_text source;
  mlz_source_find(v->in, f->path, v->s->source, &source);
  char *path = mlz_text_clean(*f->path ? f->path : "(no file)", true);
  fprintf(v->out, "\n%s%s%s: %s in %s blocks\n", v->color ? mlz_term_style(MLZ_STYLE_CYAN) : "", path,
          v->color ? mlz_term_style(MLZ_STYLE_PLAIN) : "", mlz_units_size(a, bytes_of(v->s, &f->figures)),
          mlz_units_count(b, count_of(v->s, &f->figures)));
  bool code = true, lines = false; /* a module, whose lines are not known */
  for (size_t i = 0; i < f->n; i++) {
    lines |= f->lines[i].line != 0;
    code &= f->lines[i].language != MLZ_LANG_PYTHON;
  }
  if (source.path && strcmp(source.path, f->path)) fprintf(v->out, "(source: %s)\n", source.path);
  if (source.later) fprintf(v->out, "(this file was changed after the recording began: lines may be others)\n");
  if (!source.path && lines && *f->path != '<') fprintf(v->out, "(no source there; --source DIR names a place)\n");
  if (!lines && code && *f->path) fprintf(v->out, "(no lines are known: the file has no debug information; --symbols DIR names a place)\n");
  if (!lines) mlz_source_clear(&source);
  print_lines(v, f, &source);
  mlz_source_clear(&source);
  free(path);
  print_calls(v, f);
}

static void print_text(struct view *v, const struct mlz_annotation *a) {
  static const char *const verbs[] = {"allocated", "allocated", "live", "live at the peak", "temporary"};
  char size[MLZ_UNITS_MAX], count[MLZ_UNITS_MAX];
  const struct settings *s = v->s;
  fprintf(v->out, "%s in %s blocks %s%s\n", mlz_units_size(size, bytes_of(s, &a->total)), mlz_units_count(count, count_of(s, &a->total)),
          verbs[s->by], v->in->estimated ? " (estimated from a sample)" : "");
  uint64_t limit = s->n == UINT64_MAX ? 5 : s->n ? s->n : UINT64_MAX;
  size_t shown = 0, with_value = 0;
  for (size_t i = 0; i < a->n; i++) {
    if (!(a->files[i].figures.value > 0)) break;
    with_value++;
    if (shown >= limit) continue;
    shown++;
    print_file(v, &a->files[i]);
  }
  if (shown < with_value) fprintf(v->out, "\n%zu more files (-n 0 shows all)\n", with_value - shown);
  if (!shown && !s->function && !s->file) fputs("Nothing to show.\n", v->out);
}

/* On stderr, whatever the format: a mistyped name looks like one of which there is nothing. */
static void warn_unmatched(struct view *v, const struct mlz_annotation *a) {
  const struct settings *s = v->s;
  for (size_t i = 0; i < a->n; i++)
    if (a->files[i].figures.value > 0) return;
  if (!s->function && !s->file) return;
  char *function = mlz_text_clean(s->function ? s->function : "", true), *file = mlz_text_clean(s->file ? s->file : "", true);
  mlz_input_warn(v->in, "there is nothing to show of%s%s%s%s%s; memlyze top --group %s shows the names that there are",
                 s->function ? " the function " : "", function, s->function && s->file ? " in" : "", s->file ? " the file " : "", file,
                 s->function ? "function" : "file");
  free(function);
  free(file);
}

/* ---- JSON ---- */

static json_t *file_json(struct view *v, const struct mlz_source_file *f) {
  struct mlz_source_text source;
  mlz_source_find(v->in, f->path, v->s->source, &source);
  json_t *row = json_object(), *list = json_array();
  json_object_set_new(row, "file", mlz_json_text(f->path));
  json_object_set_new(row, "source", source.path ? mlz_json_text(source.path) : json_null());
  json_object_set_new(row, "source_changed", json_boolean(source.later));
  add_figures(v->in, &f->figures, row);
  for (size_t i = 0; i < f->n; i++) {
    const struct mlz_line *l = &f->lines[i];
    json_t *line = json_object(), *calls = json_array();
    bool text = source.path && l->line && l->line <= source.n;
    json_object_set_new(line, "line", json_integer(l->line));
    json_object_set_new(line, "function", mlz_json_text(l->function));
    json_object_set_new(line, "language", json_string(l->language == MLZ_LANG_PYTHON ? "python" : "native"));
    json_object_set_new(line, "text", text ? mlz_json_text(source.lines[l->line - 1]) : json_null());
    add_figures(v->in, &l->figures, line);
    for (size_t k = 0; k < l->n_calls && k < v->s->calls; k++) json_array_append_new(calls, call_json(v, &l->calls[k]));
    json_object_set_new(line, "calls", calls);
    json_array_append_new(list, line);
  }
  json_object_set_new(row, "lines", list);
  mlz_source_clear(&source);
  return row;
}

static void print_json(struct view *v, const struct mlz_annotation *a) {
  static const char *const metrics[] = {"alloc-bytes", "alloc-count", "live-bytes", "peak-bytes", "temporary"};
  json_t *document = mlz_json_document(v->in), *list = json_array();
  json_object_set_new(document, "by", json_string(metrics[v->s->by]));
  json_object_set_new(
      document, "total",
      json_pack("{s:o, s:o}", "count", mlz_json_number(count_of(v->s, &a->total)), "bytes", mlz_json_number(bytes_of(v->s, &a->total))));
  json_object_set_new(document, "files_total", json_integer((json_int_t)a->n));
  uint64_t limit = v->s->n == UINT64_MAX || !v->s->n ? UINT64_MAX : v->s->n;
  for (size_t i = 0; i < a->n && i < limit; i++) json_array_append_new(list, file_json(v, &a->files[i]));
  json_object_set_new(document, "files", list);
  mlz_json_add_losses(v->in, document);
  mlz_json_print(document, v->out);
}

/* ---- main ---- */

static void annotate(struct mlz_input *in, const struct settings *s, struct mlz_annotation *out) {
  struct mlz_window window;
  struct mlz_tally_run now, at_peak;
  struct mlz_peak peak = {0};
  bool mmap = s->common.include_mmap, has_peak = (s->common.json && !in->totals_only) || s->by == MLZ_BY_PEAK_BYTES;
  mlz_window_resolve(in, s->at, s->from, s->to, mmap, &window);
  if (has_peak) {
    mlz_peak_find(in, mmap, window.to, &peak);
    mlz_tally_scan(&at_peak, in, MLZ_TALLY_STACK, mmap, window.from, &peak.cut);
  }
  mlz_tally_scan(&now, in, MLZ_TALLY_STACK, mmap, window.from, window.to);
  struct mlz_annotate_wish wish = {.by = (enum mlz_metric)s->by, .function = s->function, .file = s->file};
  mlz_annotate(in, &wish, &now, has_peak ? &at_peak : NULL, out);
  mlz_tally_clear(&now);
  if (has_peak) mlz_tally_clear(&at_peak);
  mlz_cut_clear(&peak.cut);
  mlz_window_clear(&window);
}

int main(int argc, char **argv) {
  struct settings s = {.common.look_up = mlz_names_look_up, .n = UINT64_MAX, .context = 3, .calls = 2};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  struct mlz_annotation a;
  annotate(in, &s, &a);
  int status = mlz_input_finish(in);
  if (!status) {
    struct view v = {.in = in, .s = &s, .out = mlz_report_open(in, &s.common)};
    v.width = mlz_term_width(v.out);
    v.color = mlz_term_color(v.out, (enum mlz_color)s.common.color);
    if (s.common.json)
      print_json(&v, &a);
    else
      print_text(&v, &a);
    warn_unmatched(&v, &a);
    mlz_symbolizer_free(v.symbolizer);
    mlz_report_close(in, &s.common, v.out);
  }
  mlz_annotation_clear(&a);
  mlz_input_close(in);
  return status;
}
