#include "analyzer/options.h"

#include "analyzer/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COMMON(field) offsetof(struct mlz_common_options, field)

static const struct mlz_option common_options[] = {
    {"process", 0, MLZ_OPT_TEXT, "PID|all", "which process; default: those that ran Python, or all if none did", COMMON(process)},
    {"include-mmap", 0, MLZ_OPT_FLAG, NULL, "count memory reserved by mmap as well (it is not part of heap totals)", COMMON(include_mmap)},
    {"jobs", 'j', MLZ_OPT_COUNT, "N", "read with N threads (default: one for each CPU, at most 8)", COMMON(jobs)},
    {"output", 'o', MLZ_OPT_TEXT, "FILE", "write there instead of standard output", COMMON(output)},
    {"color", 0, MLZ_OPT_CHOICE, "auto|always|never", "colour (default auto; NO_COLOR and CLICOLOR_FORCE are obeyed)", COMMON(color)},
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_option json_option = {"json",      0, MLZ_OPT_FLAG, NULL, "one JSON document: sizes in bytes, times in ns",
                                              COMMON(json)};

static const struct mlz_option *nth(const struct mlz_tool *tool, size_t i) {
  size_t n = 0;
  for (; tool->options[n].name; n++)
    if (n == i) return &tool->options[n];
  i -= n;
  if (tool->has_json) {
    if (!i) return &json_option;
    i--;
  }
  if (tool->whole_file) i += 3; /* the first three say how its events are counted */
  return common_options[i].name ? &common_options[i] : NULL;
}

/* A long name may be shortened as far as it stays unique. */
static const struct mlz_option *find_long(const struct mlz_tool *tool, const char *name, size_t length) {
  const struct mlz_option *o, *found = NULL;
  unsigned matches = 0;
  for (size_t i = 0; (o = nth(tool, i)); i++) {
    if (strncmp(o->name, name, length)) continue;
    if (!o->name[length]) return o;
    found = o;
    matches++;
  }
  return matches == 1 ? found : NULL;
}

static const struct mlz_option *find_letter(const struct mlz_tool *tool, char letter) {
  const struct mlz_option *o;
  for (size_t i = 0; (o = nth(tool, i)); i++)
    if (o->letter == letter && letter) return o;
  return NULL;
}

static int choice(const char *choices, const char *value) {
  size_t length = strlen(value);
  for (int i = 0;; i++) {
    const char *end = strchrnul(choices, '|');
    if ((size_t)(end - choices) == length && !strncmp(choices, value, length)) return i;
    if (!*end) return -1;
    choices = end + 1;
  }
}

static bool read_count(const char *value, uint64_t *out) {
  if (!*value || strspn(value, "0123456789") != strlen(value)) return false;
  errno = 0;
  *out = strtoull(value, NULL, 10);
  return !errno;
}

static bool add_item(struct mlz_option_list *list, const char *value) {
  if (list->n == MLZ_OPTION_LIST_MAX) return false;
  list->items[list->n++] = value;
  return true;
}

static int store(const struct mlz_option *o, const char *value, void *settings, char *err, size_t err_size) {
  void *field = (char *)settings + o->offset;
  switch (o->kind) {
  case MLZ_OPT_FLAG:
    *(bool *)field = true;
    return 0;
  case MLZ_OPT_TEXT:
    *(const char **)field = value;
    return 0;
  case MLZ_OPT_COUNT:
    if (read_count(value, field)) return 0;
    break;
  case MLZ_OPT_SIZE:
    if (mlz_units_parse_size(value, field)) return 0;
    break;
  case MLZ_OPT_LIST:
    if (add_item(field, value)) return 0;
    snprintf(err, err_size, "--%s: at most %d of them", o->name, MLZ_OPTION_LIST_MAX);
    return -1;
  case MLZ_OPT_CHOICE: {
    int i = choice(o->argument, value);
    if (i >= 0) {
      *(int *)field = i;
      return 0;
    }
  }
  }
  snprintf(err, err_size, "--%s: '%s' is not %s%s", o->name, value,
           o->kind == MLZ_OPT_COUNT  ? "a number"
           : o->kind == MLZ_OPT_SIZE ? "a size; write it as 24 MB or 12.3 MiB"
                                     : "one of ",
           o->kind == MLZ_OPT_CHOICE ? o->argument : "");
  return -1;
}

/* One word that begins with '-'. Returns 0, 1 (help), 2 (version) or -1; *i moves on if the value was a word of its own. */
static int read_option(const struct mlz_tool *tool, int argc, char **argv, int *i, void *settings, char *err, size_t err_size) {
  const char *word = argv[*i], *value = NULL;
  const struct mlz_option *o;
  bool is_long = word[1] == '-';
  if (is_long) {
    const char *equals = strchrnul(word, '=');
    if (!strcmp(word, "--help")) return 1;
    if (!strcmp(word, "--version")) return 2;
    o = find_long(tool, word + 2, (size_t)(equals - word - 2));
    if (*equals) value = equals + 1;
  } else {
    if (!strcmp(word, "-h")) return 1;
    o = find_letter(tool, word[1]);
    if (word[2]) value = word + 2;
  }
  if (!o) {
    snprintf(err, err_size, "unknown option %s; memlyze-%s --help lists the options", word, tool->name);
    return -1;
  }
  if (o->kind == MLZ_OPT_FLAG && value) {
    snprintf(err, err_size, "--%s takes no value", o->name);
    return -1;
  }
  if (o->kind != MLZ_OPT_FLAG && !value) {
    if (*i + 1 >= argc) {
      snprintf(err, err_size, "--%s needs a value: %s", o->name, o->argument);
      return -1;
    }
    value = argv[++*i];
  }
  return store(o, value, settings, err, err_size);
}

int mlz_options_read(const struct mlz_tool *tool, int argc, char **argv, void *settings, char *err, size_t err_size) {
  struct mlz_common_options *common = settings;
  bool only_files = false;
  for (int i = 1; i < argc; i++) {
    if (!only_files && !strcmp(argv[i], "--")) {
      only_files = true;
    } else if (!only_files && argv[i][0] == '-' && argv[i][1]) {
      int rc = read_option(tool, argc, argv, &i, settings, err, err_size);
      if (rc) return rc;
    } else if (common->paths.n && common->paths.n >= tool->traces_max) {
      if (tool->traces_max > 1)
        snprintf(err, err_size, "at most %zu traces: '%s' is one more", tool->traces_max, argv[i]);
      else
        snprintf(err, err_size, "one trace at a time: both '%s' and '%s' were given", common->path, argv[i]);
      return -1;
    } else {
      add_item(&common->paths, argv[i]);
    }
    common->path = common->paths.items[0];
  }
  if (common->paths.n && common->paths.n >= tool->traces) return 0;
  snprintf(err, err_size, "%s; usage: memlyze %s %s", common->paths.n ? "one more trace is needed" : "no trace given", tool->name,
           tool->usage ? tool->usage : "[options] trace.mlyze");
  return -1;
}

enum { HELP_COLUMN = 28, HELP_WIDTH = 80 };

/* Words from column HELP_COLUMN on; a line break in the text is kept. Pieces of a list end with '|'. */
static void print_words(const char *text, char end_of_word, FILE *out) {
  unsigned column = HELP_COLUMN;
  while (*text) {
    size_t n = strcspn(text, end_of_word == '|' ? "|" : " \n");
    if (end_of_word == '|' && text[n]) n++;
    if (column > HELP_COLUMN && column + n > HELP_WIDTH) column = HELP_COLUMN, fprintf(out, "\n%*s", HELP_COLUMN, "");
    fprintf(out, "%.*s", (int)n, text);
    column += (unsigned)n;
    text += n;
    if (*text == '\n') {
      column = HELP_COLUMN, fprintf(out, "\n%*s", HELP_COLUMN, "");
      text++;
    } else if (*text == ' ') {
      if (column + 1 + strcspn(text + 1, " \n") <= HELP_WIDTH)
        fputc(' ', out), column++;
      else
        column = HELP_COLUMN, fprintf(out, "\n%*s", HELP_COLUMN, "");
      text++;
    }
  }
  fputc('\n', out);
}

static void print_option(const struct mlz_option *o, FILE *out) {
  char left[80];
  int n = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name) : snprintf(left, sizeof left, "  --%s", o->name);
  /* Long choices stand below, so that the second column stays where it is. */
  bool below = o->kind == MLZ_OPT_CHOICE && strlen(o->argument) > 24;
  if (o->argument) n += snprintf(left + n, sizeof left - (size_t)n, " %s", below ? "WHAT" : o->argument);
  if (n > HELP_COLUMN - 2)
    fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
  else
    fprintf(out, "%-*s", HELP_COLUMN, left);
  print_words(o->help, ' ', out);
  if (!below) return;
  fprintf(out, "%*s", HELP_COLUMN, "");
  print_words(o->argument, '|', out);
}

void mlz_options_help(const struct mlz_tool *tool, FILE *out) {
  fprintf(out, "usage: memlyze %s %s\n\n%s\n\noptions:\n", tool->name, tool->usage ? tool->usage : "[options] trace.mlyze[@MARK]",
          tool->purpose);
  const struct mlz_option *o;
  for (size_t i = 0; (o = nth(tool, i)); i++) print_option(o, out);
  fprintf(out, "%-28s%s\n%-28s%s\n", "  -h, --help", "this text", "  --version", "the version");
  if (tool->notes) fprintf(out, "\n%s", tool->notes);
  fprintf(out, "\nexit status: %s\n", tool->exit_status ? tool->exit_status : "0 done; 2 wrong usage or an unreadable trace");
}

void mlz_options_parse(const struct mlz_tool *tool, int argc, char **argv, void *settings) {
  char err[512];
  switch (mlz_options_read(tool, argc, argv, settings, err, sizeof err)) {
  case 0:
    return;
  case 1:
    mlz_options_help(tool, stdout);
    exit(fflush(stdout) ? 2 : 0);
  case 2:
    printf("memlyze-%s %s\n", tool->name, MLZ_VERSION);
    exit(fflush(stdout) ? 2 : 0);
  default:
    fprintf(stderr, "memlyze-%s: %s\n", tool->name, err);
    exit(2);
  }
}
