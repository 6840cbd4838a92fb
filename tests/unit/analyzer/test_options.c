#include "analyzer/options.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  uint64_t n, size;
  int by;
  bool all;
  const char *at;
};
#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"number", 'n', MLZ_OPT_COUNT, "N", "show N", AT(n)},
    {"min-size", 0, MLZ_OPT_SIZE, "SIZE", "least", AT(size)},
    {"by", 0, MLZ_OPT_CHOICE, "bytes|count|peak", "what", AT(by)},
    {"all", 'a', MLZ_OPT_FLAG, NULL, "all", AT(all)},
    {"at", 0, MLZ_OPT_TEXT, "TIME", "when", AT(at)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {.name = "top", .purpose = "Who.", .options = options, .has_json = true};

static char err[512];
static int parse(struct settings *s, const char *line) {
  static char copy[512];
  char *argv[32] = {(char[]){"memlyze-top"}};
  int argc = 1;
  strcpy(copy, line);
  for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
  *s = (struct settings){.n = 20};
  err[0] = 0;
  return mlz_options_read(&tool, argc, argv, s, err, sizeof err);
}

Test(options, may_stand_anywhere) {
  struct settings s;
  const char *const lines[] = {"t.mlyze -n 5 --by=peak --json", "-n5 --by peak t.mlyze --json", "--json --number 5 --by peak -- t.mlyze",
                               "--js --num=5 --by peak t.mlyze"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    cr_assert_eq(parse(&s, lines[i]), 0, "%s: %s", lines[i], err);
    cr_assert_eq(s.n, 5);
    cr_assert_eq(s.by, 2);
    cr_assert(s.common.json);
    cr_assert_str_eq(s.common.path, "t.mlyze");
  }
}

Test(options, defaults_stay) {
  struct settings s;
  cr_assert_eq(parse(&s, "t.mlyze"), 0);
  cr_assert_eq(s.n, 20);
  cr_assert_not(s.all);
  cr_assert_null(s.at);
}

Test(options, sizes_are_understood) {
  struct settings s;
  cr_assert_eq(parse(&s, "t.mlyze --min-size 12KiB -a"), 0);
  cr_assert_eq(s.size, 12288);
  cr_assert(s.all);
}

Test(options, wrong_usage_is_named) {
  struct settings s;
  const struct {
    const char *line, *said;
  } cases[] = {
      {"", "no trace"},
      {"a b", "one trace"},
      {"t --diff x", "unknown option --diff"},
      {"t -z", "unknown option -z"},
      {"t --by nothing", "bytes|count|peak"},
      {"t -n five", "a number"},
      {"t -n -1", "a number"},
      {"t -n 99999999999999999999999", "a number"},
      {"t --min-size big", "a size"},
      {"t --all=1", "takes no value"},
      {"t --at", "needs a value"},
      {"t --a 1", "unknown option --a"}, /* --all or --at */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_assert_eq(parse(&s, cases[i].line), -1, "%s", cases[i].line);
    cr_assert(strstr(err, cases[i].said), "'%s' says '%s'", cases[i].line, err);
    cr_assert_null(strchr(err, '\n'));
  }
}

Test(options, help_lists_every_option_in_80_columns) {
  struct settings s;
  cr_assert_eq(parse(&s, "--help"), 1);
  cr_assert_eq(parse(&s, "t --version"), 2);
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  mlz_options_help(&tool, out);
  fclose(out);
  const char *const names[] = {"-n, --number N", "--min-size SIZE",   "--by bytes|count|peak", "-a, --all", "--at TIME",
                               "--json",         "--process PID|all", "-o, --output FILE",     "--color"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) cr_assert(strstr(text, names[i]), "%s in\n%s", names[i], text);
  for (const char *line = text; *line; line = strchr(line, '\n') + 1) cr_assert_leq(strcspn(line, "\n"), 80, "%s", line);
  free(text);
}
