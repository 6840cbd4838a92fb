#include "tracer/recorder/option_rows.h"

#include <errno.h>
#include <stdlib.h>

void mlz_option_rows_names(const struct mlz_option_row *rows, unsigned n, struct option *names) {
  for (unsigned i = 0; i < n; i++) {
    int has = rows[i].argument ? required_argument : no_argument;
    names[i] = (struct option){.name = rows[i].name, .has_arg = has, .val = MLZ_OPTION_ROW + (int)i};
  }
  names[n] = (struct option){0};
}

void mlz_option_rows_help(const struct mlz_option_row *rows, unsigned n, FILE *to) {
  for (unsigned i = 0; i < n; i++) {
    if (!rows[i].help) continue;
    char left[64], letter[8] = "    ";
    if (rows[i].id < 256) snprintf(letter, sizeof letter, "-%c, ", rows[i].id);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, rows[i].name, rows[i].argument ? " " : "", rows[i].argument ? rows[i].argument : "");
    fprintf(to, "  %-27s %s\n", left, rows[i].help);
  }
}

void mlz_option_rows_wrong(const struct mlz_option_row *rows, unsigned n, const char *program, int unknown, char **argv, char *err,
                           size_t size) {
  if (optopt >= MLZ_OPTION_ROW && optopt < MLZ_OPTION_ROW + (int)n) {
    const struct mlz_option_row *row = &rows[optopt - MLZ_OPTION_ROW];
    snprintf(err, size, row->argument ? "--%s needs a value" : "--%s takes no value", row->name);
  } else if (unknown == ':') {
    snprintf(err, size, "-%c needs a value", optopt);
  } else if (optopt) {
    snprintf(err, size, "unknown option -%c; %s --help lists the options", optopt, program);
  } else {
    snprintf(err, size, "unknown or ambiguous option %s; %s --help lists the options", argv[optind - 1], program);
  }
}

bool mlz_option_count(const char *text, uint64_t low, uint64_t high, uint32_t *out) {
  char *end;
  errno = 0;
  if (*text < '0' || *text > '9') return false;
  unsigned long long n = strtoull(text, &end, 10);
  if (*end || errno || n < low || n > high) return false;
  *out = (uint32_t)n;
  return true;
}
