/* memlyze-export: a trace for other people's viewers. */
#include "analyzer/export.h"
#include "analyzer/names.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
  struct mlz_common_options common;
  int to, by, rows;
  const char *at, *from, *until;
  const char *service, *release;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"to", 0, MLZ_OPT_CHOICE, "collapsed|speedscope|pprof|dhat|massif|perfetto|csv|json|parquet", "the format", AT(to)},
    {"by", 0, MLZ_OPT_CHOICE, MLZ_METRIC_CHOICES,
     "collapsed: the value of each stack; speedscope, pprof: what is shown first; csv, json: the order (default alloc-bytes)", AT(by)},
    {"at", 0, MLZ_OPT_TEXT, "TIME", "live blocks as they stood at TIME (default: end); nothing later counts", AT(at)},
    {"from", 0, MLZ_OPT_TEXT, "TIME", "only blocks allocated after TIME", AT(from)},
    {"until", 0, MLZ_OPT_TEXT, "TIME", "only what happened until TIME (--to of the other tools)", AT(until)},
    {"rows", 0, MLZ_OPT_CHOICE, "stack|event",
     "csv: a line for each stack (default), or for each allocation and each free; parquet: event adds a table of allocations", AT(rows)},
    {"service", 0, MLZ_OPT_TEXT, "NAME", "parquet: what ran (default: the name of the program)", AT(service)},
    {"release", 0, MLZ_OPT_TEXT, "NAME", "parquet: which version of it", AT(release)},
    MLZ_SYMBOLS_OPTION,
    MLZ_PYTHON_OPTION,
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "export",
    .purpose = "A trace in the format of another program, on standard output.",
    .options = options,
    .has_json = false,
    .traces_max = MLZ_OPTION_LIST_MAX,
    .usage = "--to FORMAT [options] trace.mlyze[@MARK]",
    .notes = "memlyze export --to parquet DIR trace.mlyze...\n\n"
             "collapsed    a line for each stack: flamegraph.pl, inferno, speedscope\n"
             "speedscope   speedscope.app\n"
             "pprof        go tool pprof -http=: FILE (gzip: give -o FILE)\n"
             "dhat         valgrind's viewer, dh_view.html\n"
             "massif       ms_print, massif-visualizer: the heap's course and its stacks\n"
             "perfetto     ui.perfetto.dev, about:tracing: heap, collections, marks\n"
             "csv, json    spreadsheets, programs\n"
             "parquet      DuckDB, Spark, notebooks: a data set of many traces below DIR, by\n"
             "             date and service (docs/fleet.md; needs Python's pyarrow)\n" MLZ_TIME_NOTE,
};

/* `stacks`: --by means something. */
static const struct {
  const char *name;
  void (*write)(struct mlz_export *e);
  bool stacks;
} formats[] = {
    {"collapsed", mlz_export_collapsed, true},
    {"speedscope", mlz_export_speedscope, true},
    {"pprof", mlz_export_pprof, true},
    {"dhat", mlz_export_dhat, false},
    {"massif", mlz_export_massif, false},
    {"perfetto", mlz_export_perfetto, false},
    {"csv", mlz_export_csv, true},
    {"json", mlz_export_json, true},
    {"parquet", NULL, false},
};

static bool is_parquet(const struct settings *s) { return !formats[s->to].write; }

static void wrong(const char *message, const char *which) {
  fprintf(stderr, "memlyze-export: %s%s\n", message, which);
  exit(2);
}

static void check(const struct settings *s) {
  if (s->to < 0) wrong("no format given: write --to and one of ", options[0].argument);
  if (s->rows >= 0 && formats[s->to].write != mlz_export_csv && !is_parquet(s))
    wrong("--rows is about --to csv and parquet; leave it out with --to ", formats[s->to].name);
  if ((s->service || s->release) && !is_parquet(s))
    wrong("--service and --release are about --to parquet; leave them out with --to ", formats[s->to].name);
  if (is_parquet(s)) {
    if (s->at || s->from || s->until || s->common.process || s->common.include_mmap)
      wrong("--to parquet writes all of a trace: --at, --from, --until, --process and --include-mmap have no meaning there", "");
    if (s->common.paths.n < (s->common.output ? 1 : 2))
      wrong("name a directory and a trace: memlyze export --to parquet DIR trace.mlyze", "");
  } else if (s->common.paths.n > 1) {
    fprintf(stderr, "memlyze-export: one trace at a time: both '%s' and '%s' were given\n", s->common.paths.items[0],
            s->common.paths.items[1]);
    exit(2);
  }
  if (s->by >= 0 && (!formats[s->to].stacks || s->rows == 1))
    wrong("--by has no meaning there; leave it out with --to ", s->rows == 1 && !is_parquet(s) ? "csv --rows event" : formats[s->to].name);
  if (s->at && s->until) wrong("--at and --until both set the upper limit: give one of them", "");
  if (formats[s->to].write == mlz_export_pprof && !s->common.output && isatty(STDOUT_FILENO))
    wrong("pprof's format is not for a terminal: give -o FILE", "");
}

int main(int argc, char **argv) {
  struct settings s = {.common.look_up = mlz_names_look_up, .to = -1, .by = -1, .rows = -1};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  check(&s);
  if (is_parquet(&s)) mlz_export_parquet(&s.common, s.service, s.release, s.rows == 1);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  struct mlz_export e = {.in = in, .common = &s.common, .by = s.by < 0 ? MLZ_BY_ALLOC_BYTES : (enum mlz_metric)s.by, .events = s.rows == 1};
  mlz_window_resolve(in, s.at ? s.at : s.until, s.from, NULL, s.common.include_mmap, &e.window);
  formats[s.to].write(&e);
  bool streamed = formats[s.to].write == mlz_export_perfetto || e.events; /* the others have said already what is to be said of the trace */
  int status = streamed ? mlz_input_finish(in) : 0;
  mlz_report_close(in, &s.common, e.out);
  mlz_window_clear(&e.window);
  mlz_input_close(in);
  return status;
}
