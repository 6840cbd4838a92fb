/* The inside of a writer. Private to formats/: writer.c, keep.c. */
#ifndef MLZ_FORMATS_WRITING_H
#define MLZ_FORMATS_WRITING_H

#include "formats/encode.h"
#include "formats/layout.h"
#include "formats/running.h"
#include "formats/tables.h"

#include <stdatomic.h>

struct mlz_placed { /* a chunk of the file */
  uint64_t at;
  uint32_t stored, kind;
};

/* Two sides that share nothing: `tables` is the drain thread's, all the rest the appending thread's. */
struct mlz_writer {
  struct mlz_tables tables;

  _Alignas(64) int fd;
  int level;
  int error; /* sticky: after a failed write nothing more is written, so that the file stays whole up to there */
  _Atomic uint64_t bytes;
  struct mlz_encoder encoder;
  struct mlz_buffer packed;
  struct mlz_buffer index; /* rows, ready to store */
  uint64_t index_rows;
  struct mlz_running *running; /* NULL: no frames */
  struct mlz_keep *keep;       /* NULL: all is kept */
  struct mlz_placed *placed;   /* the chunks, where `listed` */
  size_t placed_n, placed_room;
  bool listed;
};

int mlz_writer_begin(struct mlz_writer **out, int fd, const json_t *meta, int level, uint64_t features);

/* keep.c. After a GROUP, the frame behind it if there was one, and all that belongs to them. */
int mlz_keep_group(struct mlz_writer *w, uint64_t now_ns, bool framed);
struct mlz_keep *mlz_keep_free(struct mlz_keep *k);

#endif
