/* make_trace SCENARIO FILE [EVENTS]: writes one of scenarios.h's traces, to look at or to measure with (bulk: 10 million events unless told). */
#include "tests/tools/scenarios.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  if (argc < 3) {
    fputs("usage: make_trace "
          "service|constant|processes|names|sampled|lost|empty|histories|children|append|handover|marks|version1|version2|bulk FILE "
          "[EVENTS]\n",
          stderr);
    return 2;
  }
  if (mlz_scenario_write(argv[1], argv[2], argc > 3 ? strtoull(argv[3], NULL, 10) : 10000000)) return 0;
  fprintf(stderr, "make_trace: no scenario '%s'\n", argv[1]);
  return 2;
}
