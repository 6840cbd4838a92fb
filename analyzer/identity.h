/* What a frame and a stack are called everywhere: hashes of their content, the same in every trace of every host, so that tables of several traces join.
 * One thread while they are made, any number afterwards. docs/fleet.md says what goes in. */
#ifndef MLZ_ANALYZER_IDENTITY_H
#define MLZ_ANALYZER_IDENTITY_H

#include "formats/reader.h"

struct mlz_identity {
  int64_t *frames; /* by frame id */
  int64_t *stacks; /* by stack id */
  int64_t *calls;  /* by stack id: of functions and modules alone, neither files nor lines */
};

int mlz_identity_make(struct mlz_identity *out, const struct mlz_trace *trace); /* 0 or -ENOMEM */
void mlz_identity_clear(struct mlz_identity *identity);

#endif
