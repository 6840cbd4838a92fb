/* The walk over all chunks that a survey and a repair share. Private to formats/. */
#ifndef MLZ_FORMATS_WALK_H
#define MLZ_FORMATS_WALK_H

#include "formats/survey.h"
#include "formats/trace.h"

struct mlz_walk_chunk { /* a sound one, decoded; valid during the call */
  const struct mlz_chunk_header *h;
  const uint8_t *stored, *raw; /* payload as it lies there, and decompressed */
  uint64_t first, have;        /* STRINGS, FRAMES, STACKS: id of its first row; first id that had no row before it */
  const struct mlz_extent *extent;
  const struct mlz_block *block; /* EVENTS, all of it */
  bool told;                     /* TOTALS: it, and all that it leans on, was read; else nobody has looked at its rows */
};
/* Called for each sound chunk, in the order of the file. Not 0: the walk ends with it. */
typedef int (*mlz_walk_take)(void *arg, const struct mlz_walk_chunk *c);

/* Takes over the source. `s` is zero. */
int mlz_walk_file(struct mlz_source *source, struct mlz_survey *s, mlz_walk_take take, void *arg, char *err, size_t err_size);

/* The chunk at `at`: 1 if its checksum holds, 0, or negative errno. *payload is valid until the next read. */
int mlz_trace_read(struct mlz_trace *t, uint64_t at, struct mlz_chunk_header *h, const uint8_t **payload);
int mlz_trace_unpack(struct mlz_trace *t, const struct mlz_chunk_header *h, const uint8_t **payload); /* 0, -EBADMSG, -ENOMEM */
int64_t mlz_trace_find(struct mlz_trace *t, uint64_t from); /* the next offset at which a sound chunk begins, or the file's end */
int mlz_trace_header(struct mlz_trace *t, uint64_t *first, char *err, size_t err_size); /* counts a wrong checksum as a bad chunk */
int mlz_trace_object(json_t **slot, const uint8_t *p, size_t n); /* a payload that is one JSON object replaces *slot's. 0, -EBADMSG */
/* One TOTALS chunk. 1: it completes a point. 0: it does not. -EBADMSG, -ENOMEM. out->known, if it was no error: it tells something. */
int mlz_totals_part(struct mlz_trace *t, const uint8_t *p, size_t n, uint64_t count, struct mlz_totals_point *out);

#endif
