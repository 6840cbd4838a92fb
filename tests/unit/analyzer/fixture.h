/* A scenario's trace, opened as the tools open it, in a file of its own that is gone afterwards. */
#ifndef MLZ_TESTS_ANALYZER_FIXTURE_H
#define MLZ_TESTS_ANALYZER_FIXTURE_H

#include "analyzer/input.h"
#include "analyzer/text.h"
#include "tests/tools/scenarios.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

static inline struct mlz_input *open_sized_scenario(const char *name, const char *process, const char *mark, uint64_t events) {
  char path[] = "/tmp/mlz-analyzer-XXXXXX";
  int fd = mkstemp(path);
  cr_assert_geq(fd, 0);
  close(fd);
  cr_assert(mlz_scenario_write(name, path, events));
  char *given = mlz_text_format("%s%s%s", path, mark ? "@" : "", mark ? mark : "");
  struct mlz_common_options common = {.path = given, .process = process};
  struct mlz_input *in = mlz_input_open("test", &common);
  unlink(path);
  free(given);
  return in;
}

static inline struct mlz_input *open_scenario(const char *name, const char *process, const char *mark) {
  return open_sized_scenario(name, process, mark, 100000);
}

#endif
