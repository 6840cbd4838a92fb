/* What decodes EVENTS chunks: the arrays of one decoded chunk, and what it takes to fill them. Private to formats/.
 *
 * A thread that decodes has a `mlz_decode_work` of its own; the trace's tables are only read meanwhile. A `mlz_decode_out` belongs to whoever decodes
 * into it or looks at its chunk. Both grow with the largest chunk seen and touch memory only as far as it is used. */
#ifndef MLZ_FORMATS_DECODER_H
#define MLZ_FORMATS_DECODER_H

#include "formats/reader.h"
#include "formats/source.h"

#include <zstd.h>

struct mlz_decode_work {
  struct mlz_source source; /* parallel.c: a view of the trace's, with a buffer of its own */
  ZSTD_DCtx *zstd;          /* made when it is first needed */
  uint8_t *column;
  size_t column_room;
  size_t room; /* of each array below; thread_ids has twice that */
  uint32_t *alloc_class, *ref, *scratch, *old_class, *thread_ids;
  uint64_t *wide, *old_ref;
};

struct mlz_decode_out {
  size_t room; /* of each array */
  struct mlz_class *classes;
  uint8_t *ops;
  uint32_t *classes_of, *thread, *run_thread, *run_events, *step_at;
  uint64_t *alloc_no, *time_ns, *step_ns;
  struct mlz_rare *rares;
};

void mlz_decode_work_close(struct mlz_decode_work *w); /* but its source */
void mlz_decode_out_close(struct mlz_decode_out *o);

#endif
