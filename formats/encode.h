/* Turns a filled builder into the payload of an EVENTS chunk. Writer thread. Private to formats/. */
#ifndef MLZ_FORMATS_ENCODE_H
#define MLZ_FORMATS_ENCODE_H

#include "formats/builder.h"

#include <zstd.h>

struct mlz_encoder {
  ZSTD_CCtx *zstd;
  int level;
  uint32_t *values; /* a column after prediction: MLZ_CHUNK_EVENTS_MAX */
  uint64_t *wide;   /* the same for 64-bit values */
  uint8_t *raw;     /* a column's bytes before compression */
  uint8_t *out;     /* the payload */
  size_t raw_size, out_size, used;
};

int mlz_encoder_init(struct mlz_encoder *e, int level); /* -ENOMEM */
void mlz_encoder_deinit(struct mlz_encoder *e);

/* Fills *x and e->out[0..e->used). 0 or -ENOMEM. */
int mlz_encoder_events(struct mlz_encoder *e, const struct mlz_builder *b, struct mlz_extent *x);

/* A chunk of another file, as it lies there; writer.c. `x`: EVENTS only. */
int mlz_writer_append_stored(struct mlz_writer *w, const struct mlz_chunk_header *h, const uint8_t *payload, const struct mlz_extent *x);

#endif
