/* Prints a .mlyze file as text, for comparison with tests/mlyze_decode.py. */
#include "dump_trace.h"

int main(int argc, char **argv) {
  char err[256];
  struct mlz_trace *t;
  if (argc != 2) {
    fprintf(stderr, "usage: dump FILE\n");
    return 2;
  }
  if (mlz_trace_open(&t, argv[1], err, sizeof err) != 0) {
    fprintf(stderr, "dump: %s: %s\n", argv[1], err);
    return 2;
  }
  dump_trace(t, stdout);
  mlz_trace_close(t);
  return 0;
}
