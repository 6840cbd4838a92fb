/* --to parquet: the Python package writes it (tracer/python/memlyze/_parquet.py), since pyarrow is what writes Parquet. This program becomes that one. */
#include "analyzer/export.h"

#include "analyzer/text.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The words behind it are those of main in _parquet.py. */
static const char program[] =
    "import sys\n"
    "try:\n"
    "    from memlyze._parquet import main\n"
    "except ImportError as error:\n"
    "    sys.exit(print('memlyze-export: %s has no memlyze (%s); reinstall it, or set PYTHONPATH' % (sys.executable, error), "
    "file=sys.stderr) or 2)\n"
    "sys.exit(main(sys.argv[1:]))\n";

/* DIR/bin/memlyze-export: with `make install` the package is in DIR/share/memlyze/python; with pip it is the package of DIR/bin/python3. */
static char *installed_in(void) {
  char exe[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  exe[n > 0 ? n : 0] = 0;
  char *slash = strrchr(exe, '/');
  if (slash) *slash = 0;
  return mlz_text_format("%s", slash ? exe : ".");
}

static void show_package(const char *bin) {
  const char *before = getenv("PYTHONPATH");
  char *package = mlz_text_format("%s/../share/memlyze/python", bin);
  if (!access(package, F_OK)) {
    char *path = mlz_text_format("%s%s%s", package, before && *before ? ":" : "", before ? before : "");
    setenv("PYTHONPATH", path, 1);
    free(path);
  }
  free(package);
}

void mlz_export_parquet(const struct mlz_common_options *common, const char *service, const char *release, bool events) {
  const struct mlz_option_list *paths = &common->paths;
  size_t first = common->output ? 0 : 1, n = 0;
  const char *directory = common->output ? common->output : paths->items[0], *given = getenv("MEMLYZE_PYTHON");
  char *bin = installed_in(), *beside = mlz_text_format("%s/python3", bin);
  const char *python = given && *given ? given : !access(beside, X_OK) ? beside : "python3";
  char **words = mlz_text_calloc(paths->n + 9, sizeof *words);
  const char *head[] = {python, "-c", program, directory, service ? service : "", release ? release : "", events ? "event" : "stack"};
  for (size_t i = 0; i < sizeof head / sizeof head[0]; i++) words[n++] = mlz_text_format("%s", head[i]);
  for (size_t i = first; i < paths->n; i++) words[n++] = mlz_text_format("%s", paths->items[i]);
  show_package(bin);
  fflush(NULL);
  execvp(python, words);
  fprintf(stderr,
          "memlyze-export: Parquet is written by Python and its pyarrow, and %s cannot be run: %s; name another in MEMLYZE_PYTHON\n",
          python, strerror(errno));
  for (size_t i = 0; i < n; i++) free(words[i]);
  free(words);
  free(beside);
  free(bin);
  exit(2);
}
