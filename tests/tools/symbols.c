/* symbols FILE [DIRECTORY]: addresses from standard input, one a line in hexadecimal; prints each, and what tracer/symbols says of it as addr2line -i -f
 * does. With DIRECTORY the names come from there. Exit status 3: no such file, by its build id. */
#include "tracer/symbols/symbolizer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  struct mlz_symbolizer *s = mlz_symbolizer_new(argc > 2 ? argv[2] : NULL);
  int file = open(argv[1], O_RDONLY | O_CLOEXEC);
  struct mlz_symbol_module *m = s && file >= 0 ? mlz_symbolizer_module(s, argv[1], file, NULL, 0) : NULL;
  if (!m) {
    mlz_symbolizer_free(s);
    return 3;
  }
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    struct mlz_symbol found[MLZ_SYMBOLS_MAX];
    uint64_t address = strtoull(line, NULL, 16);
    unsigned n = mlz_symbolizer_lookup(m, address, found);
    printf("0x%016llx\n", (unsigned long long)address);
    if (!n) puts("\?\?\n\?\?:0");
    for (unsigned i = 0; i < n; i++) {
      if (found[i].inferred) continue; /* addr2line knows of no such thing */
      printf("%s\n%s:%u\n", found[i].function, found[i].file ? found[i].file : "\?\?", found[i].line);
    }
  }
  mlz_symbolizer_free(s);
  close(file);
  return 0;
}
