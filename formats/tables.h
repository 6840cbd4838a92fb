/* Buffered rows of the tables, on the drain thread's side of the writer. Private to formats/. */
#ifndef MLZ_FORMATS_TABLES_H
#define MLZ_FORMATS_TABLES_H

#include "formats/totals.h"
#include "formats/writer.h"

#include <stdint.h>

struct mlz_buffer { /* grows; `data` belongs to it */
  uint8_t *data;
  size_t size, room;
};
/* Room for `more` bytes at the end; NULL: out of memory. The caller adds what it used to `size`. */
uint8_t *mlz_buffer_room(struct mlz_buffer *b, size_t more);

struct mlz_row_table {
  uint32_t first;          /* id of the first buffered row */
  uint32_t rows;           /* buffered */
  struct mlz_buffer heads; /* strings, stacks: lengths as uint32_t */
  struct mlz_buffer body;  /* strings: bytes; frames: struct mlz_frame; stacks: frame ids, innermost first */
};

struct mlz_tables {
  struct mlz_row_table strings, frames, stacks;
  struct mlz_row_table modules;         /* body: path, build id */
  struct mlz_row_table symbols;         /* heads: numbers of frames; body: the frame, then those */
  struct mlz_buffer processes, threads; /* JSON texts, one a line */
  struct mlz_buffer totals;             /* whole chunks, without checksums */
  uint32_t processes_n, threads_n;
  int error; /* sticky: a row could not be kept */
};

void mlz_tables_init(struct mlz_tables *t);
void mlz_tables_deinit(struct mlz_tables *t);
/* Appends to `out` the buffered rows as chunks that are not compressed and have no checksum, and forgets them. 0 or -ENOMEM. */
int mlz_tables_take(struct mlz_tables *t, struct mlz_buffer *out);

uint32_t mlz_tables_string(struct mlz_tables *t, const char *utf8, size_t bytes);
uint32_t mlz_tables_frame(struct mlz_tables *t, const struct mlz_frame *f);
uint32_t mlz_tables_stack(struct mlz_tables *t, const uint32_t *frames, uint32_t n, bool truncated);
uint32_t mlz_tables_module(struct mlz_tables *t, uint32_t path, uint32_t build_id);
void mlz_tables_symbol(struct mlz_tables *t, uint32_t frame, const uint32_t *frames, uint32_t n);
/* As mlz_writer_totals. */
int mlz_tables_totals(struct mlz_tables *t, const struct mlz_totals_head *h, uint32_t *part, bool base, const struct mlz_totals_key *rows,
                      uint32_t n_rows, const struct mlz_totals_change *changes, uint32_t n);
void mlz_tables_json(struct mlz_tables *t, struct mlz_buffer *text, uint32_t *rows, const json_t *object);

#endif
