#include "tracer/recorder/options.h"

#include "shm/control.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static char err[512];

/* The options keep pointers into argv: it must outlive the caller's assertion. */
static int parse(struct mlz_options *o, char **given) {
  static char words[32][64], *argv[33];
  int argc = 0;
  for (; given[argc]; argc++) argv[argc] = strcpy(words[argc], given[argc]);
  argv[argc] = NULL;
  err[0] = 0;
  return mlz_options_parse(o, argc, argv, err, sizeof err);
}
#define PARSE(o, ...) parse(o, (char *[]){(char[]){"record"}, __VA_ARGS__, NULL})
#define W(text) ((char[]){text})

Test(options, defaults) {
  struct mlz_options o;
  cr_assert_eq(PARSE(&o, W("python"), W("app.py"), W("--quiet"), W("-o"), W("x")), MLZ_OPTIONS_RUN);
  cr_assert_str_eq(o.output, "trace.mlyze");
  cr_assert_str_eq(o.command[2], "--quiet", "options of COMMAND are COMMAND's");
  cr_assert_not(o.quiet);
  cr_assert_float_eq(o.sample_rate, 1, 0);
  cr_assert_eq(o.max_stack_depth, 10);
  cr_assert(o.track_gc && o.python && o.malloc && o.follow && !o.drop && !o.wait_all);
  cr_assert_eq(mlz_options_words(&o), 32768);
  uint64_t s = mlz_options_settings(&o);
  cr_assert_eq(mlz_settings_rate(s), UINT32_MAX);
  cr_assert_eq(mlz_settings_depth(s), 10);
  cr_assert_eq(s & (MLZ_SET_GC | MLZ_SET_PYTHON | MLZ_SET_MALLOC | MLZ_SET_DROP | MLZ_SET_PAUSED),
               MLZ_SET_GC | MLZ_SET_PYTHON | MLZ_SET_MALLOC);
}

Test(options, all_given) {
  struct mlz_options o;
  cr_assert_eq(PARSE(&o, W("-f"), W("-o"), W("t"), W("--sample-rate=0.1"), W("--sample-over"), W("1.5 KiB"), W("--max-stack-depth"), W("0"),
                     W("--no-track-gc"), W("--max-events"), W("1"), W("--on-full=drop"), W("--no-malloc"), W("--no-follow"), W("--wait"),
                     W("all"), W("-qv"), W("--"), W("prog")),
               MLZ_OPTIONS_RUN, "%s", err);
  cr_assert(o.force && o.drop && !o.malloc && !o.follow && o.wait_all && o.quiet && o.verbose && !o.track_gc);
  cr_assert_eq(o.sample_over, 1536);
  cr_assert_eq(mlz_options_words(&o), 2048, "never below 2048");
  cr_assert_eq(mlz_settings_rate(mlz_options_settings(&o)), 429496730u - 1);
}

Test(options, a_ring_holds_four_of_the_largest_messages) {
  struct mlz_options o;
  cr_assert_eq(PARSE(&o, W("--max-events=1"), W("--max-stack-depth=1024"), W("x")), MLZ_OPTIONS_RUN);
  cr_assert_geq(mlz_options_words(&o), 4 * (3 + 8 + 1024));
}

Test(options, patterns_are_kept_in_order) {
  struct mlz_options o;
  cr_assert_eq(PARSE(&o, W("--include"), W("json.*"), W("--exclude=a"), W("--include=b"), W("x")), MLZ_OPTIONS_RUN);
  cr_assert_eq(o.filter.include.n, 2);
  cr_assert_str_eq(o.filter.include.at[0], "json.*");
  cr_assert_str_eq(o.filter.include.at[1], "b");
  cr_assert_eq(o.filter.exclude.n, 1);
}

Test(options, native_stacks_are_deeper) {
  struct mlz_options o;
  if (parse(&o, (char *[]){W("record"), W("--native"), W("x"), NULL}) != MLZ_OPTIONS_RUN) {
    cr_assert_not_null(strstr(err, "x86-64"), "%s", err);
    return;
  }
  cr_assert(o.native && o.max_stack_depth == 128);
  cr_assert(mlz_options_settings(&o) & MLZ_SET_NATIVE);
  cr_assert_eq(PARSE(&o, W("--max-stack-depth=7"), W("--native"), W("x")), MLZ_OPTIONS_RUN);
  cr_assert_eq(o.max_stack_depth, 7);
  cr_assert_eq(PARSE(&o, W("x")), MLZ_OPTIONS_RUN);
  cr_assert_not(mlz_options_settings(&o) & MLZ_SET_NATIVE);
}

Test(options, a_program_to_serve_stands_for_the_command) {
  struct mlz_options o;
  cr_assert_eq(PARSE(&o, W("--serve=4711"), W("-o"), W("t")), MLZ_OPTIONS_RUN, "%s", err);
  cr_assert_eq(o.serve, 4711);
  cr_assert(o.quiet);
  cr_assert_eq(PARSE(&o, W("--serve=4711"), W("prog")), -EINVAL);
  cr_assert_eq(PARSE(&o, W("--serve=0")), -EINVAL);
  cr_assert_eq(PARSE(&o, W("--serve=4711"), W("--sample-rate=2")), -EINVAL);
  cr_assert_eq(o.serve, 4711, "who must be told so");
}

Test(options, wrong_ones_say_why) {
  struct mlz_options o;
  static const char *const bad[][2] = {
      {"--sample-rate=0", "sample-rate"},
      {"--sample-rate=1.01", "sample-rate"},
      {"--sample-rate=nan", "sample-rate"},
      {"--sample-rate=x", "sample-rate"},
      {"--max-stack-depth=1025", "1024"},
      {"--max-stack-depth=-1", "1024"},
      {"--max-events=0", "max-events"},
      {"--max-events=1e9", "max-events"},
      {"--on-full=wait", "block or drop"},
      {"--wait=some", "command or all"},
      {"--sample-over=12 parsecs", "size"},
      {"--native=1", "takes no value"},
      {"--include=", "--include is an empty"},
      {"--exclude=a\nb", "control character"},
      {"--flight-recorder=1ms", "100 ms"},
      {"--max-size=1MB", "1 MiB"},
      {"--nonsense", "--nonsense"},
      {"-x", "-x"},
      {"--output", "needs a value"},
      {"--quiet=1", "takes no value"},
  };
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char option[64];
    strcpy(option, bad[i][0]);
    cr_assert_eq(parse(&o, (char *[]){W("record"), option, NULL}), -EINVAL, "%s", option);
    cr_assert_not_null(strstr(err, bad[i][1]), "%s: %s", option, err);
    cr_assert_null(strchr(err, '\n'));
  }
  cr_assert_eq(PARSE(&o, W("--include=x"), W("--max-stack-depth=0"), W("x")), -EINVAL);
  cr_assert_eq(PARSE(&o, W("--quiet")), -EINVAL, "no COMMAND");
  cr_assert_eq(PARSE(&o, W("--no-python"), W("--no-malloc"), W("x")), -EINVAL);
  cr_assert_eq(PARSE(&o, W("--help")), MLZ_OPTIONS_HELP);
  cr_assert_eq(PARSE(&o, W("--version")), MLZ_OPTIONS_VERSION);
}

Test(options, durations) {
  uint64_t ns = 0;
  cr_assert(mlz_options_duration("500ms", &ns) && ns == 500000000);
  cr_assert(mlz_options_duration("1.5 s", &ns) && ns == 1500000000);
  cr_assert(mlz_options_duration("5m", &ns) && ns == 300000000000);
  cr_assert(mlz_options_duration("2min", &ns) && ns == 120000000000);
  cr_assert(mlz_options_duration("1h", &ns) && ns == 3600000000000);
  cr_assert_not(mlz_options_duration("5", &ns));
  cr_assert_not(mlz_options_duration("-1s", &ns));
  cr_assert_not(mlz_options_duration("nans", &ns));
  cr_assert_not(mlz_options_duration("10000000h", &ns));
  struct mlz_options o;
  cr_assert_eq(PARSE(&o, W("--snapshot-every=9ms"), W("x")), -EINVAL);
  cr_assert_eq(PARSE(&o, W("--snapshot-every"), W("10ms"), W("x")), MLZ_OPTIONS_RUN);
  cr_assert_eq(o.snapshot_every_ns, 10000000);
}

Test(options, sizes) {
  uint64_t n;
  cr_assert(mlz_options_size("24 MB", &n) && n == 24000000);
  cr_assert(mlz_options_size("12.3 MiB", &n) && n == 12897485);
  cr_assert(mlz_options_size("4096", &n) && n == 4096);
  cr_assert(mlz_options_size("1kb", &n) && n == 1000);
  cr_assert_not(mlz_options_size("", &n));
  cr_assert_not(mlz_options_size("-1", &n));
  cr_assert_not(mlz_options_size("MB", &n));
  cr_assert_not(mlz_options_size("1 MBit", &n));
  cr_assert_not(mlz_options_size("0x10", &n));
  cr_assert_not(mlz_options_size("1e40", &n));
  cr_assert_not(mlz_options_size("inf", &n));
}
