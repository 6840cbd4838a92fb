#include "analyzer/check.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- limits ---- */

bool mlz_limit_parse_value(enum mlz_figure figure, const char *text, double *value) {
  uint64_t number;
  while (*text == ' ') text++;
  bool good = mlz_figure_unit(figure) == MLZ_UNIT_NS ? mlz_units_parse_duration(text, &number) : mlz_units_parse_size(text, &number);
  if (good) *value = (double)number;
  return good;
}

/* A limit of 64 MB is 61.0 MiB, which nobody has written. malloc'd. */
static char *bound_text(enum mlz_figure figure, const char *typed, double value) {
  char *text = mlz_figure_text(figure, value);
  while (*typed == ' ') typed++;
  size_t n = strlen(typed);
  while (n && typed[n - 1] == ' ') n--;
  size_t number = strspn(typed, "0123456789. "), shown = strspn(text, "0123456789.,- ");
  if (number >= n) return text; /* no unit was written */
  bool same = n - number == strlen(text + shown) && !strncasecmp(typed + number, text + shown, n - number);
  char *out = same ? mlz_text_format("%.*s", (int)n, typed) : mlz_text_format("%.*s (%s)", (int)n, typed, text);
  free(text);
  return out;
}

bool mlz_limit_parse(const char *text, struct mlz_limit *out, char *err, size_t err_size) {
  const char *op = strchr(text, '<');
  if (!op) {
    snprintf(err, err_size, "'%.100s' is no limit; write it as 'metric<=VALUE' or 'PATTERN:metric<=VALUE'", text);
    return false;
  }
  const char *metric = op, *end = op;
  while (metric > text && metric[-1] != ':') metric--;
  while (end > metric && end[-1] == ' ') end--;
  while (metric < end && *metric == ' ') metric++;
  int figure = mlz_figure_find(metric, (size_t)(end - metric));
  if (figure < 0) {
    snprintf(err, err_size, "'%.*s' is no metric; there are peak, live_at_end, leaked, growing, allocs, allocated, temporary, gc_pause_p99",
             (int)(end - metric), metric);
    return false;
  }
  struct mlz_limit limit = {.figure = (enum mlz_figure)figure, .less = op[1] != '='};
  const char *value = op + 1 + !limit.less;
  if (!mlz_limit_parse_value(limit.figure, value, &limit.value)) {
    snprintf(err, err_size, "'%.100s' is no %s", value,
             mlz_figure_unit(limit.figure) == MLZ_UNIT_NS       ? "duration; write it as 10ms"
             : mlz_figure_unit(limit.figure) == MLZ_UNIT_BLOCKS ? "number"
                                                                : "size; write it as 24 MB or 12.3 MiB");
    return false;
  }
  const char *colon = metric;
  while (colon > text && *colon != ':') colon--;
  if (colon > text) limit.pattern = mlz_text_format("%.*s", (int)(colon - text), text);
  if (limit.pattern && limit.figure == MLZ_FIGURE_GC_P99) {
    snprintf(err, err_size, "gc_pause_p99 is of the whole program: it takes no pattern");
    free(limit.pattern);
    return false;
  }
  limit.text = mlz_text_format("%s", text);
  limit.bound = bound_text(limit.figure, value, limit.value);
  *out = limit;
  return true;
}

/* ---- series ---- */

void mlz_series_add(struct mlz_series *s, struct mlz_value value) {
  if (!value.known || s->n == MLZ_RUNS_MAX) return;
  s->runs[s->n++] = value.value;
  if (value.error > s->error) s->error = value.error;
}

static int compare_numbers(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(double *values, size_t n) {
  if (!n) return 0;
  qsort(values, n, sizeof *values, compare_numbers);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

struct mlz_summary mlz_series_summary(const struct mlz_series *s) {
  double values[MLZ_RUNS_MAX];
  memcpy(values, s->runs, s->n * sizeof *values);
  struct mlz_summary out = {.median = median(values, s->n)};
  for (size_t i = 0; i < s->n; i++) values[i] = fabs(s->runs[i] - out.median);
  out.mad = median(values, s->n);
  return out;
}

void mlz_series_of(const struct mlz_figures *runs, size_t n, enum mlz_figure figure, struct mlz_series *out) {
  *out = (struct mlz_series){.n = 0};
  for (size_t i = 0; i < n; i++) mlz_series_add(out, runs[i].values[figure]);
}

/* ---- baselines ---- */

static void add_name(struct mlz_baseline *b, const char *path) {
  char *longer = mlz_text_format("%s%s%s", b->name ? b->name : "", b->name ? ", " : "", path);
  free(b->name);
  b->name = longer;
}

static void add_growth(struct mlz_growth *g, const void *key, size_t size, double bytes) {
  uint32_t known = g->keys.n, number = mlz_intern_key(&g->keys, key, size);
  if (number == known) {
    g->bytes = mlz_text_realloc(g->bytes, (size_t)known + 1, sizeof *g->bytes);
    g->bytes[number] = 0;
  }
  if (bytes > g->bytes[number]) g->bytes[number] = bytes;
}

void mlz_baseline_clear(struct mlz_baseline *b) {
  free(b->name);
  b->name = NULL;
  mlz_growth_clear(&b->growth);
}

void mlz_baseline_add(struct mlz_baseline *b, const char *path, const struct mlz_figures *f) {
  add_name(b, path);
  struct mlz_growth growth;
  mlz_growth_of(f, &growth);
  for (uint32_t i = 0; i < growth.keys.n; i++) {
    size_t size;
    const void *key = mlz_intern_bytes(&growth.keys, i, &size);
    add_growth(&b->growth, key, size, growth.bytes[i]);
  }
  mlz_growth_clear(&growth);
  for (int i = 0; i < MLZ_FIGURES; i++) mlz_series_add(&b->series[i], f->values[i]);
}

bool mlz_baseline_is_trace(const char *path) {
  static const unsigned char magic[] = {0x4d, 0x4c, 0x59, 0x5a, 0x45};
  unsigned char head[sizeof magic];
  FILE *file = fopen(path, "re");
  if (!file) return false;
  bool found = fread(head, 1, sizeof head, file) == sizeof head && !memcmp(head, magic, sizeof magic);
  fclose(file);
  return found;
}

bool mlz_baseline_read(struct mlz_baseline *b, const char *path, char *err, size_t err_size) {
  FILE *file = fopen(path, "re");
  if (!file) {
    snprintf(err, err_size, "%s; memlyze check --save-baseline writes one", strerror(errno));
    return false;
  }
  json_error_t why;
  json_t *document = json_loadf(file, JSON_REJECT_DUPLICATES, &why);
  fclose(file);
  if (!document) {
    snprintf(err, err_size, "neither a trace nor JSON (line %d: %.100s); memlyze check --save-baseline writes a baseline", why.line,
             why.text);
    return false;
  }
  const char *schema = mlz_input_text(document, "schema");
  const json_t *figures = json_object_get(document, "figures");
  size_t found = 0;
  for (int i = 0; i < MLZ_FIGURES && !strcmp(schema, "memlyze.check/1"); i++) {
    const json_t *figure = json_object_get(figures, mlz_figure_name((enum mlz_figure)i)), *run;
    size_t k;
    double error = json_number_value(json_object_get(figure, "error"));
    json_array_foreach(json_object_get(figure, "runs"), k, run) {
      if (!json_is_number(run) || !(json_number_value(run) >= 0)) continue;
      mlz_series_add(&b->series[i], (struct mlz_value){true, json_number_value(run), error > 0 ? error : 0});
      found++;
    }
  }
  const json_t *row;
  size_t i;
  json_array_foreach(json_object_get(document, "growing_functions"), i, row) {
    const char *key = mlz_input_text(row, "key");
    add_growth(&b->growth, key, strlen(key), json_number_value(json_object_get(row, "bytes")));
  }
  json_decref(document);
  if (!found) snprintf(err, err_size, "no baseline: it has no figures of memlyze check; memlyze check --save-baseline writes one");
  if (found) add_name(b, path);
  return found;
}
