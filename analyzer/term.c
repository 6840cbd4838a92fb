#include "analyzer/term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

unsigned mlz_term_width(FILE *out) {
  const char *columns = getenv("COLUMNS");
  long n = columns ? strtol(columns, NULL, 10) : 0;
  struct winsize size;
  if (n <= 0 && !ioctl(fileno(out), TIOCGWINSZ, &size)) n = size.ws_col;
  if (n <= 0) n = 80;
  return n < 40 ? 40 : n > 1000 ? 1000 : (unsigned)n;
}

static bool is_set(const char *name) {
  const char *value = getenv(name);
  return value && *value;
}

bool mlz_term_color(FILE *out, enum mlz_color wish) {
  if (wish != MLZ_COLOR_AUTO) return wish == MLZ_COLOR_ALWAYS;
  if (is_set("NO_COLOR")) return false;
  const char *force = getenv("CLICOLOR_FORCE");
  if (force && *force && strcmp(force, "0")) return true;
  const char *term = getenv("TERM");
  return isatty(fileno(out)) && term && *term && strcmp(term, "dumb");
}

const char *mlz_term_style(enum mlz_style style) {
  static const char *const codes[] = {"\033[0m", "\033[1m", "\033[2m", "\033[31m", "\033[33m", "\033[32m", "\033[36m"};
  return codes[style];
}
