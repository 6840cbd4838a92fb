#include "analyzer/check.h"
#include "analyzer/table.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const unit_names[] = {"bytes", "blocks", "ns"};

json_t *mlz_check_figures_json(const struct mlz_figures *runs, size_t n) {
  json_t *out = json_object();
  for (int i = 0; i < MLZ_FIGURES; i++) {
    struct mlz_series series;
    mlz_series_of(runs, n, (enum mlz_figure)i, &series);
    if (!series.n) continue;
    struct mlz_summary summary = mlz_series_summary(&series);
    json_t *list = json_array();
    for (size_t k = 0; k < series.n; k++) json_array_append_new(list, mlz_json_number(series.runs[k]));
    json_object_set_new(out, mlz_figure_name((enum mlz_figure)i),
                        json_pack("{s:o, s:o, s:o, s:s, s:o}", "median", mlz_json_number(summary.median), "mad",
                                  mlz_json_number(summary.mad), "error", mlz_json_number(series.error), "unit",
                                  unit_names[mlz_figure_unit((enum mlz_figure)i)], "runs", list));
  }
  return out;
}

json_t *mlz_check_growth_json(const struct mlz_figures *runs, size_t n) {
  struct mlz_baseline all = {.name = NULL};
  for (size_t i = 0; i < n; i++) mlz_baseline_add(&all, "", &runs[i]);
  json_t *list = json_array();
  for (uint32_t i = 0; i < all.growth.keys.n; i++) {
    size_t size;
    const char *bytes = mlz_intern_bytes(&all.growth.keys, i, &size);
    char *key = mlz_text_format("%.*s", (int)size, bytes);
    json_array_append_new(list, json_pack("{s:o, s:o}", "key", mlz_json_text(key), "bytes", mlz_json_number(all.growth.bytes[i])));
    free(key);
  }
  mlz_baseline_clear(&all);
  return list;
}

static bool has_place(const struct mlz_check *c) { return *c->place.file || *c->place.function; }

/* ---- json ---- */

static void write_json(const struct mlz_check_report *r, FILE *out) {
  json_t *document = mlz_json_document(r->runs[0].in), *list = json_array(), *traces = json_array();
  json_object_set_new(document, "ok", json_boolean(mlz_checks_ok(r->checks)));
  for (size_t i = 0; i < r->checks->n; i++) {
    const struct mlz_check *c = &r->checks->checks[i];
    json_t *row = json_object();
    json_object_set_new(row, "name", mlz_json_text(c->name));
    json_object_set_new(row, "ok", json_boolean(c->ok));
    json_object_set_new(row, "value", mlz_json_number(c->value));
    json_object_set_new(row, "limit", mlz_json_number(c->limit));
    json_object_set_new(row, "unit", json_string(unit_names[mlz_figure_unit(c->figure)]));
    if (c->error > 0) json_object_set_new(row, "error", mlz_json_number(c->error));
    if (c->unmatched) json_object_set_new(row, "unmatched", json_true());
    json_object_set_new(row, "message", mlz_json_text(c->message));
    if (has_place(c)) {
      json_object_set_new(row, "function", mlz_json_text(c->place.function));
      json_object_set_new(row, "file", mlz_json_text(c->place.file));
      json_object_set_new(row, "line", json_integer(c->place.line));
    }
    if (mlz_check_called(c))
      json_object_set_new(row, "called_from",
                          json_pack("{s:o, s:o, s:I}", "function", mlz_json_text(c->own.function), "file", mlz_json_text(c->own_path),
                                    "line", (json_int_t)c->own.line));
    json_array_append_new(list, row);
  }
  json_object_set_new(document, "checks", list);
  for (size_t i = 0; i < r->n_runs; i++) json_array_append_new(traces, mlz_json_text(r->runs[i].in->path));
  json_object_set_new(document, "traces", traces);
  if (r->baseline) json_object_set_new(document, "baseline", mlz_json_text(r->baseline->name));
  json_object_set_new(document, "figures", mlz_check_figures_json(r->runs, r->n_runs));
  json_object_set_new(document, "growing_functions", mlz_check_growth_json(r->runs, r->n_runs));
  mlz_json_add_losses(r->runs[0].in, document);
  mlz_json_print(document, out);
}

/* ---- text and markdown ---- */

static size_t failed_of(const struct mlz_checks *c) {
  size_t n = 0;
  for (size_t i = 0; i < c->n; i++) n += !c->checks[i].ok;
  return n;
}

static void write_text(const struct mlz_check_report *r, bool color, FILE *out) {
  unsigned width = mlz_term_width(out);
  for (size_t i = 0; i < r->checks->n; i++) {
    const struct mlz_check *c = &r->checks->checks[i];
    char *name = mlz_text_clean(c->name, true), *message = mlz_text_clean(c->message, true);
    fprintf(out, "%s%-6s%s  %s\n        ", color ? mlz_term_style(c->ok ? MLZ_STYLE_GREEN : MLZ_STYLE_RED) : "", c->ok ? "ok" : "FAILED",
            color ? mlz_term_style(MLZ_STYLE_PLAIN) : "", name);
    mlz_report_wrap(out, width, 8, 8, message);
    free(name);
    free(message);
  }
  size_t failed = failed_of(r->checks);
  fprintf(out, "%zu of %zu checks failed\n", failed, r->checks->n);
}

/* A cell of a table: no bar, no line break, no HTML. */
static void put_cell(const char *text, FILE *out) {
  char *clean = mlz_text_clean(text, true);
  for (const char *p = clean; *p; p++) {
    if (strchr("|\\`*_[]", *p)) fputc('\\', out);
    if (*p == '<')
      fputs("&lt;", out);
    else if (*p == '>')
      fputs("&gt;", out);
    else if (*p == '&')
      fputs("&amp;", out);
    else
      fputc(*p, out);
  }
  free(clean);
}

static void write_markdown(const struct mlz_check_report *r, FILE *out) {
  size_t failed = failed_of(r->checks);
  fprintf(out, "### Memory: %s\n\n", failed ? "failed" : "passed");
  fputs("| | check | value | limit | |\n|---|---|---:|---:|---|\n", out);
  for (size_t i = 0; i < r->checks->n; i++) {
    const struct mlz_check *c = &r->checks->checks[i];
    char *value = mlz_figure_text(c->figure, c->value),
         *limit = c->bound ? mlz_text_format("%s", c->bound) : mlz_figure_text(c->figure, c->limit);
    fprintf(out, "| %s | ", c->ok ? "passed" : "**failed**");
    put_cell(c->name, out);
    fprintf(out, " | %s | ", value);
    put_cell(limit, out);
    fputs(" | ", out);
    put_cell(c->message, out);
    fputs(" |\n", out);
    free(value);
    free(limit);
  }
}

/* ---- JUnit ---- */

static void write_junit(const struct mlz_check_report *r, FILE *out) {
  char *trace = mlz_text_xml(r->runs[0].in->path);
  fprintf(out,
          "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"memlyze %s\" tests=\"%zu\" failures=\"%zu\" "
          "errors=\"0\">\n",
          trace, r->checks->n, failed_of(r->checks));
  for (size_t i = 0; i < r->checks->n; i++) {
    const struct mlz_check *c = &r->checks->checks[i];
    char *name = mlz_text_xml(c->name), *message = mlz_text_xml(c->message);
    fprintf(out, "<testcase classname=\"memlyze.check\" name=\"%s\"", name);
    if (c->ok)
      fprintf(out, "><system-out>%s</system-out></testcase>\n", message);
    else
      fprintf(out, "><failure message=\"%s\" type=\"limit\">%s</failure></testcase>\n", message, message);
    free(name);
    free(message);
  }
  fputs("</testsuite>\n</testsuites>\n", out);
  free(trace);
}

/* ---- GitHub: workflow commands ---- */

/* A line that the repository has, which is what an annotation needs: where the project called for it, or else where it was allocated. Its path, malloc'd,
 * is as the repository has it. NULL: no file is known. */
static char *repository_line(const struct mlz_check *c, uint32_t *line) {
  struct mlz_place p = c->place;
  if (!c->own_path && (!*p.file || *p.file == '<')) return NULL;
  *line = c->own_path ? c->own.line : p.line;
  if (!*line) *line = 1;
  p.line = 0;
  return c->own_path ? mlz_text_clean(c->own_path, true) : mlz_place_text(&p);
}

/* Of properties ':' and ',' too. */
static void put_escaped(const char *text, bool property, FILE *out) {
  for (; *text; text++) {
    bool escape = strchr("%\r\n", *text) || (property && strchr(":,", *text));
    if (escape)
      fprintf(out, "%%%02X", (unsigned char)*text);
    else
      fputc(*text, out);
  }
}

static void write_github(const struct mlz_check_report *r, FILE *out) {
  for (size_t i = 0; i < r->checks->n; i++) {
    const struct mlz_check *c = &r->checks->checks[i];
    char *name = mlz_text_clean(c->name, true), *message = mlz_text_clean(c->message, true);
    fputs(c->ok ? "::notice " : "::error ", out);
    uint32_t line;
    char *path = repository_line(c, &line);
    if (path) {
      fputs("file=", out);
      put_escaped(path, true, out);
      fprintf(out, ",line=%" PRIu32 ",", line);
      free(path);
    }
    fputs("title=memlyze ", out);
    put_escaped(name, true, out);
    fputs("::", out);
    put_escaped(message, false, out);
    fputc('\n', out);
    free(name);
    free(message);
  }
}

/* ---- SARIF 2.1.0 ---- */

/* A path as a URI reference: what may not stand in one is escaped. malloc'd. */
static char *uri_of(const char *path) {
  char *out = mlz_text_calloc(strlen(path) * 3 + 1, 1), *p = out;
  for (; *path; path++) {
    bool plain = (*path >= 'a' && *path <= 'z') || (*path >= 'A' && *path <= 'Z') || strchr("0123456789-._~/@+,", *path);
    if (plain)
      *p++ = *path;
    else
      p += sprintf(p, "%%%02X", (unsigned char)*path);
  }
  return out;
}

static json_t *sarif_result(const struct mlz_check *c) {
  json_t *result =
      json_pack("{s:o, s:s, s:{s:o}}", "ruleId", mlz_json_text(c->name), "level", "error", "message", "text", mlz_json_text(c->message));
  uint32_t line;
  char *path = repository_line(c, &line);
  if (path) {
    char *uri = uri_of(path);
    json_t *where = json_pack("{s:{s:{s:o}, s:{s:I}}}", "physicalLocation", "artifactLocation", "uri", json_string(uri), "region",
                              "startLine", (json_int_t)line);
    json_object_set_new(result, "locations", json_pack("[o]", where));
    free(path);
    free(uri);
  }
  return result;
}

static void write_sarif(const struct mlz_check_report *r, FILE *out) {
  json_t *rules = json_array(), *results = json_array();
  for (size_t i = 0; i < r->checks->n; i++) {
    const struct mlz_check *c = &r->checks->checks[i];
    bool known = false;
    for (size_t k = 0; k < i && !known; k++) known = !strcmp(r->checks->checks[k].name, c->name);
    if (!known)
      json_array_append_new(rules,
                            json_pack("{s:o, s:{s:o}}", "id", mlz_json_text(c->name), "shortDescription", "text", mlz_json_text(c->name)));
    if (!c->ok) json_array_append_new(results, sarif_result(c));
  }
  json_t *driver = json_pack("{s:s, s:s, s:o}", "name", "memlyze", "version", MLZ_VERSION, "rules", rules);
  json_t *document = json_pack("{s:s, s:s, s:[{s:{s:o}, s:o}]}", "$schema", "https://json.schemastore.org/sarif-2.1.0.json", "version",
                               "2.1.0", "runs", "tool", "driver", driver, "results", results);
  mlz_json_print(document, out);
}

void mlz_check_write(const struct mlz_check_report *r, enum mlz_check_format format, bool color, FILE *out) {
  switch (format) {
  case MLZ_CHECK_TEXT:
    write_text(r, color, out);
    break;
  case MLZ_CHECK_JSON:
    write_json(r, out);
    break;
  case MLZ_CHECK_MARKDOWN:
    write_markdown(r, out);
    break;
  case MLZ_CHECK_JUNIT:
    write_junit(r, out);
    break;
  case MLZ_CHECK_GITHUB:
    write_github(r, out);
    break;
  case MLZ_CHECK_SARIF:
    write_sarif(r, out);
    break;
  }
}
