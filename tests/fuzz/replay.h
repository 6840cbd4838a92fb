/* The main of a fuzz target that runs the files it is given, without libFuzzer: the corpus as a test, in TAP. */
#ifndef MLZ_TESTS_FUZZ_REPLAY_H
#define MLZ_TESTS_FUZZ_REPLAY_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  printf("1..%d\n", argc - 1);
  for (int i = 1; i < argc; i++) {
    FILE *f = fopen(argv[i], "rb");
    static uint8_t input[1 << 20];
    size_t n = f == NULL ? 0 : fread(input, 1, sizeof input, f);
    if (f != NULL) {
      LLVMFuzzerTestOneInput(input, n);
      fclose(f);
    }
    const char *slash = strrchr(argv[i], '/');
    printf("%s %d - %s\n", f == NULL ? "not ok" : "ok", i, slash == NULL ? argv[i] : slash + 1);
  }
  return 0;
}

#endif
