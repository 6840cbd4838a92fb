/* memlyze-check: limits and baselines for CI. */
#include "analyzer/check.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
  struct mlz_common_options common;
  const char *max_peak, *max_leaked, *max_growing, *max_allocs;
  struct mlz_option_list limits, baselines;
  const char *tolerance, *suppress, *config, *save;
  uint64_t min_change, min_change_count;
  bool allow_losses, no_config;
  int format;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"max-peak", 0, MLZ_OPT_TEXT, "SIZE", "fail if more was live at the peak", AT(max_peak)},
    {"max-leaked", 0, MLZ_OPT_TEXT, "SIZE",
     "fail if more than that was not freed by the end, apart from what imported modules and the interpreter keep", AT(max_leaked)},
    {"max-growing", 0, MLZ_OPT_TEXT, "SIZE", "fail if more than that is held by stacks that grew (see memlyze leaks)", AT(max_growing)},
    {"max-allocs", 0, MLZ_OPT_TEXT, "N", "fail if there were more allocations", AT(max_allocs)},
    {"limit", 0, MLZ_OPT_LIST, "'[PAT:]METRIC<=VALUE'",
     "fail if a metric is more than that, of all or of the code that matches; may be given again", AT(limits)},
    {"baseline", 0, MLZ_OPT_LIST, "FILE",
     "fail if a figure is worse than in FILE, a trace or what --save-baseline wrote; given again: several runs", AT(baselines)},
    {"tolerance", 0, MLZ_OPT_TEXT, "N%", "how much worse than the baseline is no failure (default 5%)", AT(tolerance)},
    {"min-change", 0, MLZ_OPT_SIZE, "SIZE", "differences below it are none (default 4 KiB)", AT(min_change)},
    {"min-change-count", 0, MLZ_OPT_COUNT, "N", "the same for numbers of blocks (default 100)", AT(min_change_count)},
    {"save-baseline", 0, MLZ_OPT_TEXT, "FILE", "write the figures there, for --baseline", AT(save)},
    {"suppress", 0, MLZ_OPT_TEXT, "FILE", "leave leaks out that match a line leak:PATTERN of FILE, as memlyze leaks does", AT(suppress)},
    {"config", 0, MLZ_OPT_TEXT, "FILE", "read limits from there (default: memlyze.json, if there is one)", AT(config)},
    {"no-config", 0, MLZ_OPT_FLAG, NULL, "do not read memlyze.json", AT(no_config)},
    {"allow-losses", 0, MLZ_OPT_FLAG, NULL, "a trace that lost records or is damaged is no failure by itself", AT(allow_losses)},
    {"format", 0, MLZ_OPT_CHOICE, MLZ_CHECK_FORMATS, "how to tell it (default text)", AT(format)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "check",
    .purpose = "Holds traces against limits and baselines; for CI.",
    .options = options,
    .has_json = true,
    .traces = 1,
    .traces_max = MLZ_RUNS_MAX,
    .usage = "[options] trace.mlyze[@TIME] [another run ...]",
    .exit_status = "0 all is within its limits; 1 something is not; 2 wrong usage or an\nunreadable trace",
    .notes = "METRIC: peak, live_at_end, leaked, growing, allocs, allocated, temporary,\n"
             "gc_pause_p99; or the names that memlyze top has for them (alloc-count, ...).\n"
             "PAT: a glob over the module or module.function that allocates, or over its file\n"
             "if it has a slash or ends with .py; a peak is that of the whole program.\n"
             "  memlyze check trace.mlyze --max-peak '24 MB' --max-leaked 100kB\n"
             "  memlyze check trace.mlyze --limit 'myapp.parser:alloc-count<=120000'\n"
             "  memlyze check trace.mlyze --save-baseline base.json\n"
             "  memlyze check trace.mlyze --baseline base.json --tolerance 3%\n"
             "Of several runs the median counts; three times their median distance from it\n"
             "(of both sides) is noise and no failure, as is the error of a sampled trace.\n"
             "memlyze.json: {\"max_peak\": \"24 MB\", \"max_leaked\": ..., \"max_growing\": ...,\n"
             "\"max_allocs\": ..., \"limits\": [...], \"baseline\": [...], \"tolerance\": \"5%\",\n"
             "\"min_change\": ..., \"min_change_count\": ..., \"suppress\": ...}\n",
};

static void __attribute__((format(printf, 2, 3), noreturn)) fail(const char *what, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "memlyze-check: %s: ", what);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(2);
}

/* ---- the limits file ---- */

static const char *config_path = "memlyze.json";

static json_t *read_config(const struct settings *s) {
  if (s->config) config_path = s->config;
  if (s->no_config || (!s->config && access(config_path, F_OK))) return NULL;
  json_error_t why;
  json_t *config = json_load_file(config_path, JSON_REJECT_DUPLICATES, &why);
  if (!config) fail(config_path, "%s (line %d)", why.text, why.line);
  if (!json_is_object(config)) fail(config_path, "an object is wanted, as memlyze check --help shows");
  static const char *const keys[] = {"max_peak",  "max_leaked", "max_growing", "max_allocs",       "limits",      "baseline",
                                     "tolerance", "min_change", "suppress",    "min_change_count", "allow_losses"};
  const char *key;
  json_t *value;
  json_object_foreach(config, key, value) {
    bool known = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) known |= !strcmp(keys[i], key);
    if (!known) fail(config_path, "'%s' is not known; memlyze check --help lists the keys", key);
  }
  return config;
}

/* A text or a number as the text that the option would have; the config keeps it. NULL: not there. */
static const char *config_text(json_t *config, const char *key) {
  json_t *value = json_object_get(config, key);
  if (json_is_string(value)) return json_string_value(value);
  if (!json_is_number(value)) {
    if (value) fail(config_path, "'%s' is neither a text nor a number", key);
    return NULL;
  }
  char text[64];
  snprintf(text, sizeof text, "%.0f", json_number_value(value));
  json_object_set_new(config, key, json_string(text));
  return json_string_value(json_object_get(config, key));
}

static void config_list(json_t *config, const char *key, struct mlz_option_list *list) {
  json_t *value = json_object_get(config, key), *item;
  if (!value || list->n) return; /* the command line counts */
  size_t i;
  if (json_is_string(value)) list->items[list->n++] = json_string_value(value);
  json_array_foreach(value, i, item) {
    if (!json_is_string(item) || list->n == MLZ_OPTION_LIST_MAX)
      fail(config_path, "'%s' is no list of at most %d texts", key, MLZ_OPTION_LIST_MAX);
    list->items[list->n++] = json_string_value(item);
  }
}

/* What the command line leaves open. */
static void apply_config(json_t *config, struct settings *s) {
  if (!config) return;
  const struct {
    const char *key, **field;
  } texts[] = {{"max_peak", &s->max_peak},     {"max_leaked", &s->max_leaked}, {"max_growing", &s->max_growing},
               {"max_allocs", &s->max_allocs}, {"tolerance", &s->tolerance},   {"suppress", &s->suppress}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (!*texts[i].field) *texts[i].field = config_text(config, texts[i].key);
  config_list(config, "limits", &s->limits);
  config_list(config, "baseline", &s->baselines);
  const char *change = config_text(config, "min_change"), *count = config_text(config, "min_change_count");
  if (change && s->min_change == UINT64_MAX && !mlz_units_parse_size(change, &s->min_change))
    fail(config_path, "min_change: '%s' is not a size", change);
  if (count && s->min_change_count == UINT64_MAX && !mlz_units_parse_size(count, &s->min_change_count))
    fail(config_path, "min_change_count: '%s' is not a number", count);
  s->allow_losses |= json_is_true(json_object_get(config, "allow_losses"));
}

/* ---- rules ---- */

static void add_limit(struct mlz_check_rules *rules, const char *option, const char *text) {
  char err[256];
  struct mlz_limit limit;
  if (!mlz_limit_parse(text, &limit, err, sizeof err)) fail(option, "%s", err);
  rules->limits = mlz_text_realloc(rules->limits, rules->n_limits + 1, sizeof *rules->limits);
  rules->limits[rules->n_limits++] = limit;
}

static void add_most(struct mlz_check_rules *rules, const char *option, const char *figure, const char *value) {
  if (!value) return;
  char *text = mlz_text_format("%s<=%s", figure, value);
  add_limit(rules, option, text);
  free(text);
}

static double read_tolerance(const char *text) {
  if (!text) return 0.05;
  char *end;
  double value = strtod(text, &end);
  if (end == text || strspn(text, "0123456789.") != (size_t)(end - text) || (strcmp(end, "%") && strcmp(end, " %")) || !isfinite(value))
    fail("--tolerance", "'%s' is no share; write it as 5%%", text);
  return value / 100;
}

static void make_rules(const struct settings *s, struct mlz_check_rules *rules) {
  *rules = (struct mlz_check_rules){.tolerance = read_tolerance(s->tolerance), .losses_allowed = s->allow_losses};
  add_most(rules, "--max-peak", "peak", s->max_peak);
  add_most(rules, "--max-leaked", "leaked", s->max_leaked);
  add_most(rules, "--max-growing", "growing", s->max_growing);
  add_most(rules, "--max-allocs", "allocs", s->max_allocs);
  for (size_t i = 0; i < s->limits.n; i++) add_limit(rules, "--limit", s->limits.items[i]);
  rules->least[MLZ_UNIT_BYTES] = s->min_change == UINT64_MAX ? 4096 : (double)s->min_change;
  rules->least[MLZ_UNIT_BLOCKS] = s->min_change_count == UINT64_MAX ? 100 : (double)s->min_change_count;
  rules->least[MLZ_UNIT_NS] = 5e6; /* a pause that grows by less may be the machine's doing */
  if (!rules->n_limits && !s->baselines.n && !s->save)
    fail("nothing to check", "give a limit (--max-peak, --max-leaked, --limit, ...), a --baseline, or a memlyze.json");
}

/* ---- traces ---- */

static struct mlz_input *open_trace(const struct settings *s, const char *path) {
  struct mlz_common_options common = s->common;
  common.path = path;
  return mlz_input_open(tool.name, &common);
}

/* An empty trace would pass every limit. */
static void measure(const struct settings *s, struct mlz_input *in, const struct mlz_suppressions *suppressions, struct mlz_figures *out) {
  mlz_figures_measure(in, s->common.include_mmap, suppressions, out);
  if (mlz_input_finish(in)) exit(2);
  if (!in->events_read && !in->points_read) mlz_input_fail(in, "an empty trace passes no check: record it again");
}

/* `first`: the first that is a trace; its input is NULL if there is none. */
static void read_baselines(const struct settings *s, const struct mlz_suppressions *suppressions, struct mlz_baseline *b,
                           struct mlz_figures *first) {
  for (size_t i = 0; i < s->baselines.n; i++) {
    const char *path = s->baselines.items[i];
    char err[300];
    const char *at = strrchr(path, '@');
    char *file = at ? mlz_text_format("%.*s", (int)(at - path), path) : NULL;
    if (mlz_baseline_is_trace(path) || (file && access(path, F_OK) && mlz_baseline_is_trace(file))) {
      struct mlz_input *in = open_trace(s, path);
      struct mlz_figures figures;
      measure(s, in, suppressions, &figures);
      mlz_baseline_add(b, path, &figures);
      if (!first->in) {
        *first = figures;
      } else {
        mlz_figures_clear(&figures);
        mlz_input_close(in);
      }
    } else if (!mlz_baseline_read(b, path, err, sizeof err)) {
      fail(path, "%s", err);
    }
    free(file);
  }
}

static void save(const struct settings *s, const struct mlz_figures *runs, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (mlz_input_same_file(s->save, runs[i].in->path)) fail(s->save, "--save-baseline would overwrite the trace itself");
  json_t *document = json_pack("{s:s, s:o, s:o}", "schema", "memlyze.check/1", "figures", mlz_check_figures_json(runs, n),
                               "growing_functions", mlz_check_growth_json(runs, n));
  FILE *file = fopen(s->save, "we");
  if (!file) fail(s->save, "cannot be written: %s", strerror(errno));
  mlz_json_print(document, file);
  if (fclose(file)) fail(s->save, "could not be written: %s", strerror(errno));
}

/* On stderr, whatever the format on stdout is. `failures`: those too, else only what limits nothing. */
static void tell(const struct mlz_figures *run, const struct mlz_checks *checks, bool failures) {
  for (size_t i = 0; i < checks->n; i++) {
    const struct mlz_check *c = &checks->checks[i];
    if (c->ok ? !c->unmatched : !failures) continue;
    char *name = mlz_text_clean(c->name, true), *message = mlz_text_clean(c->message, true);
    mlz_input_warn(run->in, "%s: %s", name, message);
    free(name);
    free(message);
  }
}

int main(int argc, char **argv) {
  struct settings s = {.format = -1, .min_change = UINT64_MAX, .min_change_count = UINT64_MAX};
  struct mlz_check_rules rules;
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  json_t *config = read_config(&s);
  apply_config(config, &s);
  make_rules(&s, &rules);
  char err[200];
  struct mlz_suppressions *suppressions = s.suppress ? mlz_suppress_read(s.suppress, err, sizeof err) : NULL;
  if (s.suppress && !suppressions) fail(s.suppress, "%s", err);
  struct mlz_baseline baseline = {.name = NULL};
  struct mlz_figures before = {.in = NULL};
  read_baselines(&s, suppressions, &baseline, &before);
  if (baseline.name) rules.baseline = &baseline;
  if (before.in) rules.before = &before;
  size_t n = s.common.paths.n;
  struct mlz_figures *runs = mlz_text_calloc(n, sizeof *runs);
  for (size_t i = 0; i < n; i++) measure(&s, open_trace(&s, s.common.paths.items[i]), suppressions, &runs[i]);
  if (s.save) save(&s, runs, n);
  struct mlz_checks checks = {0};
  mlz_check_judge(runs, n, &rules, &checks);
  for (size_t i = 1; i < n; i++) mlz_report_guard(runs[i].in, &s.common);
  enum mlz_check_format format = s.format >= 0 ? (enum mlz_check_format)s.format : s.common.json ? MLZ_CHECK_JSON : MLZ_CHECK_TEXT;
  FILE *out = mlz_report_open(runs[0].in, &s.common);
  if (checks.n || format != MLZ_CHECK_TEXT)
    mlz_check_write(&(struct mlz_check_report){runs, n, &checks, rules.baseline}, format,
                    mlz_term_color(out, (enum mlz_color)s.common.color), out);
  mlz_report_close(runs[0].in, &s.common, out);
  bool ok = mlz_checks_ok(&checks);
  tell(&runs[0], &checks, format != MLZ_CHECK_TEXT || s.common.output);
  mlz_checks_clear(&checks);
  for (size_t i = 0; i < rules.n_limits; i++) {
    free(rules.limits[i].pattern);
    free(rules.limits[i].text);
    free(rules.limits[i].bound);
  }
  free(rules.limits);
  for (size_t i = 0; i < n; i++) {
    mlz_figures_clear(&runs[i]);
    mlz_input_close(runs[i].in);
  }
  free(runs);
  mlz_baseline_clear(&baseline);
  if (before.in) mlz_figures_clear(&before);
  mlz_input_close(before.in);
  mlz_suppress_free(suppressions);
  json_decref(config);
  return ok ? 0 : 1;
}
