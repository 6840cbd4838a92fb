/* What the command lines of `memlyze record` and `memlyze control` share: a table of rows makes the parser's names, the help text and the errors.
 * A row's `val` for getopt_long is MLZ_OPTION_ROW plus its place; an id below 256 is its letter, too. */
#ifndef MLZ_RECORDER_OPTION_ROWS_H
#define MLZ_RECORDER_OPTION_ROWS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define MLZ_OPTION_ROW 1000

struct mlz_option_row {
  int id;
  const char *name, *argument, *help; /* argument NULL: none; help NULL: not shown */
};

/* Fills rows + 1 entries, the last one empty. */
void mlz_option_rows_names(const struct mlz_option_row *rows, unsigned n, struct option *names);
void mlz_option_rows_help(const struct mlz_option_row *rows, unsigned n, FILE *to);
/* What getopt_long has just refused with `unknown` ('?' or ':'), in one line without newline. `program`: "memlyze record". */
void mlz_option_rows_wrong(const struct mlz_option_row *rows, unsigned n, const char *program, int unknown, char **argv, char *err,
                           size_t size);

/* A whole number from `low` to `high` in decimal digits; false: it is none. */
bool mlz_option_count(const char *text, uint64_t low, uint64_t high, uint32_t *out);

#endif
