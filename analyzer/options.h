/* One table of options for each tool: it parses the command line and it makes the help text. Options may stand anywhere;
 * "--" ends them; "--name=value" and "--name value", "-n5" and "-n 5" are the same. */
#ifndef MLZ_ANALYZER_OPTIONS_H
#define MLZ_ANALYZER_OPTIONS_H

#include "analyzer/term.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mlz_option_kind {
  MLZ_OPT_FLAG,   /* bool: true when given */
  MLZ_OPT_TEXT,   /* const char * */
  MLZ_OPT_COUNT,  /* uint64_t */
  MLZ_OPT_SIZE,   /* uint64_t, as mlz_units_parse_size */
  MLZ_OPT_CHOICE, /* int: place in `choices`, which is separated by '|' */
  MLZ_OPT_LIST,   /* struct mlz_option_list: a text each time it is given */
};

struct mlz_option {
  const char *name; /* without "--"; NULL ends the table */
  char letter;      /* 0: none */
  enum mlz_option_kind kind;
  const char *argument; /* as help shows it; CHOICE: the choices */
  const char *help;     /* lines separated by '\n' */
  size_t offset;        /* of the value in the tool's settings */
};

enum { MLZ_OPTION_LIST_MAX = 64 };
struct mlz_option_list {
  const char *items[MLZ_OPTION_LIST_MAX];
  size_t n;
};

struct mlz_input;
/* What every tool has. The first member of each tool's settings. */
struct mlz_common_options {
  const char *path;             /* the trace, or the first of them */
  struct mlz_option_list paths; /* all of them */
  const char *output;
  const char *process;
  const char *symbols;                                          /* a directory; of tools that show frames: */
  void (*look_up)(struct mlz_input *in, const char *directory); /* mlz_names_look_up, so that the others do without its libraries */
  int color;                                                    /* enum mlz_color */
  uint64_t jobs;                                                /* 0: not given */
  bool json;
  bool include_mmap;
  bool python; /* of tools that show frames */
  bool quiet;  /* no option: what is said of this trace was said before */
};

/* A row of the table of a tool that shows frames. */
#define MLZ_SYMBOLS_OPTION                                                                                                                 \
  {                                                                                                                                        \
    "symbols", 0, MLZ_OPT_TEXT, "DIR",                                                                                                     \
        "look up native frames that have no name or line yet; DIR holds .build-id/, or files of the modules' names",                       \
        offsetof(struct mlz_common_options, symbols)                                                                                       \
  }

#define MLZ_PYTHON_OPTION                                                                                                                  \
  {                                                                                                                                        \
    "python", 0, MLZ_OPT_FLAG, NULL, "of a stack with Python frames show these alone (of traces of record --native)",                      \
        offsetof(struct mlz_common_options, python)                                                                                        \
  }

struct mlz_tool {
  const char *name;    /* "top" */
  const char *purpose; /* one line */
  const struct mlz_option *options;
  const char *notes; /* printed below the options; may be NULL */
  bool has_json;
  bool whole_file; /* it reports on the file: no choice of processes or domains */
  /* 0 and NULL: one trace, and what is said of most tools */
  size_t traces, traces_max; /* how many are taken: at least, at most */
  const char *usage;         /* what follows "memlyze TOOL" */
  const char *exit_status;
};

/* Fills *settings (starting with struct mlz_common_options, preset by the caller with the defaults). Prints help or version and exits 0;
 * on wrong usage prints one line to stderr and exits 2. */
void mlz_options_parse(const struct mlz_tool *tool, int argc, char **argv, void *settings);

/* The same without exiting: 0 done, 1 help wanted, 2 version wanted, -1 wrong (`err` says what). */
int mlz_options_read(const struct mlz_tool *tool, int argc, char **argv, void *settings, char *err, size_t err_size);
void mlz_options_help(const struct mlz_tool *tool, FILE *out);

#endif
