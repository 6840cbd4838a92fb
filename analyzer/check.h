/* Figures of traces held against limits and baselines. check_figures.c measures a trace, check_limits.c reads what is asked for, check_judge.c judges,
 * check_write.c tells it in the formats of CI systems. One thread.
 *
 * Each side may be several runs of one program: their median counts, and how far they lie apart (the median of the distances from it, MAD) says
 * how much of a difference is noise. */
#ifndef MLZ_ANALYZER_CHECK_H
#define MLZ_ANALYZER_CHECK_H

#include "analyzer/intern.h"
#include "analyzer/leaks.h"
#include "analyzer/report.h"
#include "analyzer/sites.h"
#include "analyzer/suppress.h"

/* ---- figures ---- */

enum mlz_figure {
  MLZ_FIGURE_PEAK,
  MLZ_FIGURE_LIVE,    /* at the end */
  MLZ_FIGURE_LEAKED,  /* of it, what the program itself left, suppressed leaks excepted: not what imports and the interpreter keep */
  MLZ_FIGURE_GROWING, /* of it, what grew */
  MLZ_FIGURE_ALLOCS,
  MLZ_FIGURE_ALLOCATED, /* bytes */
  MLZ_FIGURE_TEMPORARY,
  MLZ_FIGURE_GC_P99, /* ns */
  MLZ_FIGURES
};
enum mlz_figure_unit { MLZ_UNIT_BYTES, MLZ_UNIT_BLOCKS, MLZ_UNIT_NS };

const char *mlz_figure_name(enum mlz_figure figure); /* "peak", as in limits and JSON */
enum mlz_figure_unit mlz_figure_unit(enum mlz_figure figure);
/* By name or by what the metric is called elsewhere (peak-bytes, alloc_count); -1: none. */
int mlz_figure_find(const char *name, size_t length);
char *mlz_figure_text(enum mlz_figure figure, double value); /* with its unit; malloc'd */

struct mlz_value {
  bool known;
  double value, error; /* half the width of the interval; 0: exact */
};

/* One trace, measured. Rows stay for limits on parts of the program, and to say which lines make most of a figure. */
struct mlz_figures {
  struct mlz_input *in;
  struct mlz_window window;
  struct mlz_peak peak;
  struct mlz_tally_run now, at_peak;
  struct mlz_leaks leaks; /* those that are not suppressed */
  struct mlz_value values[MLZ_FIGURES];
};
/* `suppressions` may be NULL. */
void mlz_figures_measure(struct mlz_input *in, bool include_mmap, const struct mlz_suppressions *suppressions, struct mlz_figures *out);
void mlz_figures_clear(struct mlz_figures *f); /* not the input */
/* Of the stacks whose innermost frame `pattern` matches (mlz_pattern_matches). Not known: MLZ_FIGURE_GC_P99. */
struct mlz_value mlz_figures_of(const struct mlz_figures *f, enum mlz_figure figure, const char *pattern);
/* The line that makes most of it, as its stack that adds most. false: none is known. */
bool mlz_figures_worst(const struct mlz_figures *f, enum mlz_figure figure, const char *pattern, uint32_t *stack, double *value);
/* The frame of a stack nearest to its end that lies in the project: below the directory where the trace was recorded or, if none does, below the
 * current one; no package of an environment there. *path: malloc'd, relative to the current directory if it lies there, else to the other.
 * false: none. */
bool mlz_figures_own(const struct mlz_figures *f, uint32_t stack, struct mlz_place *place, char **path);
/* A glob over module, module.function ("X.*" is X, too), or with a slash or a ".py" at its end over the file or the end of its path. NULL: all. */
bool mlz_pattern_matches(const char *pattern, const struct mlz_place *place);
bool mlz_figures_matched(const struct mlz_figures *f, const char *pattern); /* is it of any stack at all? Not known: true */

/* ---- sides ---- */

enum { MLZ_RUNS_MAX = MLZ_OPTION_LIST_MAX };
struct mlz_series {
  double runs[MLZ_RUNS_MAX];
  size_t n;     /* 0: not known */
  double error; /* the largest of the runs' */
};
/* At most MLZ_RUNS_MAX are kept. */
void mlz_series_add(struct mlz_series *s, struct mlz_value value);
struct mlz_summary {
  double median, mad;
};
struct mlz_summary mlz_series_summary(const struct mlz_series *s);

/* What each function holds of MLZ_FIGURE_GROWING; the key is "FILE FUNCTION", with the file as mlz_match_path gives it. */
struct mlz_growth {
  struct mlz_intern keys;
  double *bytes; /* by key */
};
void mlz_growth_of(const struct mlz_figures *f, struct mlz_growth *out);
void mlz_growth_clear(struct mlz_growth *g);
/* Of the stacks that end in the function with that key the one with most of it. false: none. */
bool mlz_growth_stack(const struct mlz_figures *f, const char *key, size_t size, uint32_t *stack);

/* A baseline: the figures of earlier traces. */
struct mlz_baseline {
  char *name; /* the files */
  struct mlz_series series[MLZ_FIGURES];
  struct mlz_growth growth; /* of each function the most in any of them */
};
void mlz_baseline_clear(struct mlz_baseline *b);
/* Adds what a JSON document of `check` says. false: err says why. */
bool mlz_baseline_read(struct mlz_baseline *b, const char *path, char *err, size_t err_size);
void mlz_baseline_add(struct mlz_baseline *b, const char *path, const struct mlz_figures *f);
/* Is the file a trace, by its magic? */
bool mlz_baseline_is_trace(const char *path);

/* ---- limits ---- */

struct mlz_limit {
  char *pattern; /* NULL: of all */
  enum mlz_figure figure;
  bool less; /* "<", not "<=" */
  double value;
  char *text;  /* as it was written */
  char *bound; /* the value as it was written, and as figures are if that looks like another number: "64 MB (61.0 MiB)" */
};
/* "PATTERN:metric<=VALUE" or "metric<=VALUE". false: err says why. */
bool mlz_limit_parse(const char *text, struct mlz_limit *out, char *err, size_t err_size);
bool mlz_limit_parse_value(enum mlz_figure figure, const char *text, double *value);

/* ---- verdict ---- */

struct mlz_check {
  char *name;
  bool ok;
  enum mlz_figure figure;
  double value, limit, error;
  bool unmatched; /* of a limit with a pattern: no allocation of any trace has that code innermost */
  char *message;  /* one line, without the name */
  char *bound;    /* the limit as text; NULL: as figures are */
  /* The line that makes most of it; "" and 0: not known. */
  struct mlz_place place;
  /* The line of the project that it was called from, or is itself (mlz_figures_own). NULL: none. */
  char *own_path;
  struct mlz_place own;
};
struct mlz_checks {
  struct mlz_check *checks;
  size_t n;
};

struct mlz_check_rules {
  struct mlz_limit *limits;
  size_t n_limits;
  bool losses_allowed;
  const struct mlz_baseline *baseline; /* NULL: none */
  const struct mlz_figures *before;    /* a trace of the baseline, to say where it grew; NULL: none */
  double tolerance;                    /* a share: 0.05 */
  double least[3];                     /* by unit: smaller differences are none */
};
void mlz_check_judge(const struct mlz_figures *runs, size_t n, const struct mlz_check_rules *rules, struct mlz_checks *out);
/* Takes the message. */
void mlz_checks_add(struct mlz_checks *checks, struct mlz_check check);
bool mlz_checks_ok(const struct mlz_checks *checks);
void mlz_checks_clear(struct mlz_checks *checks);
/* Is there a line of the project that called for it, and is another than the one that allocates? */
bool mlz_check_called(const struct mlz_check *check);
void mlz_series_of(const struct mlz_figures *runs, size_t n, enum mlz_figure figure, struct mlz_series *out);

/* ---- formats ---- */

enum mlz_check_format { MLZ_CHECK_TEXT, MLZ_CHECK_JSON, MLZ_CHECK_MARKDOWN, MLZ_CHECK_JUNIT, MLZ_CHECK_GITHUB, MLZ_CHECK_SARIF };
#define MLZ_CHECK_FORMATS "text|json|markdown|junit|github|sarif"

struct mlz_check_report {
  const struct mlz_figures *runs;
  size_t n_runs;
  const struct mlz_checks *checks;
  const struct mlz_baseline *baseline;
};
void mlz_check_write(const struct mlz_check_report *report, enum mlz_check_format format, bool color, FILE *out);
/* {"peak": {"median", "mad", "error", "unit", "runs": []}, ...} */
json_t *mlz_check_figures_json(const struct mlz_figures *runs, size_t n);
/* [{"key", "bytes"}]: of each function the most that it holds in any run. */
json_t *mlz_check_growth_json(const struct mlz_figures *runs, size_t n);

#endif
