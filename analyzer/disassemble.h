/* Instructions around a call, of x86-64 and aarch64 code, by capstone. One thread. */
#ifndef MLZ_ANALYZER_DISASSEMBLE_H
#define MLZ_ANALYZER_DISASSEMBLE_H

#include "tracer/symbols/symbolizer.h"

struct mlz_instruction {
  uint64_t address;
  uint8_t bytes[16];
  unsigned size;
  char text[200];
  bool call; /* the one that the address lies in */
};
#define MLZ_INSTRUCTIONS_MAX 32u

/* `before` instructions ahead of the one that `address` lies in, that one, and `after` behind it, as far as its function goes. Returns how many, at most
 * MLZ_INSTRUCTIONS_MAX; 0: *why says in a few words why there are none. */
unsigned mlz_disassemble(struct mlz_symbol_module *m, uint64_t address, unsigned before, unsigned after,
                         struct mlz_instruction out[MLZ_INSTRUCTIONS_MAX], const char **why);

#endif
