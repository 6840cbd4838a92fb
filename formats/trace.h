/* The inside of a reader. Private to formats/. One thread, but for parallel.c, whose threads read the tables and the entries. */
#ifndef MLZ_FORMATS_TRACE_H
#define MLZ_FORMATS_TRACE_H

#include "formats/decoder.h"
#include "formats/layout.h"
#include "formats/reader.h"
#include "formats/source.h"

#include <zstd.h>

struct mlz_point { /* allocations from `alloc` (number in the process) on: at `ns` or later */
  uint64_t alloc, ns;
};

struct mlz_entry { /* one EVENTS chunk */
  uint64_t at;     /* offset of its header */
  uint32_t stored;
  bool bad; /* counted as damage already */
  uint32_t process, events, allocs;
  uint64_t group;
  uint64_t ordinal; /* events of the process in earlier chunks, lost ones too */
  uint64_t first_alloc;
  uint64_t last_ns;
  size_t points; /* first of its points; as many as up to the next entry's */
};

struct mlz_totals_entry { /* one TOTALS chunk */
  uint64_t at;
  uint32_t stored;
  bool bad;         /* counted as damage already */
  uint32_t process; /* once its head was read; 0: it was not, or it is bad */
};
struct mlz_totals_state { /* of a process, at its latest point read */
  uint32_t process, part;
  bool known;
  struct mlz_totals_row *rows;
  size_t n, room;
};

struct mlz_stack_row {
  uint64_t at; /* in stack_frames */
  uint32_t n;  /* UINT32_MAX: lost */
  bool truncated;
};

struct mlz_json_table { /* by rising id */
  json_t **rows;
  uint32_t *ids;
  size_t n, room;
};

struct mlz_module_row {
  uint32_t path, build_id; /* string ids; path UINT32_MAX: lost */
  uint32_t name;           /* string id of the path's last part; UINT32_MAX: not made yet */
};
struct mlz_symbol_row { /* what a frame by address stands for */
  uint32_t frame;
  uint32_t n;
  size_t at; /* in `targets` */
};
struct mlz_address_row { /* of a frame: what it was before its name took its place */
  uint64_t address;
  uint32_t module;
  uint32_t symbol; /* row in `symbols` + 1; 0: none */
  bool is_address;
};
/* Frames by address and what they stand for (native.c). Empty where a file has none of them. */
struct mlz_native {
  struct mlz_module_row *modules;
  size_t modules_n, modules_room;
  struct mlz_symbol_row *symbols;
  size_t symbols_n, symbols_room;
  uint32_t *targets;
  size_t targets_n, targets_room;
  struct mlz_address_row *rows; /* by frame id; NULL: no frame is one by address */
  uint32_t rows_n;
  struct mlz_stack_row *shown; /* stacks with the frames that they stand for */
  uint32_t *shown_frames;
  bool python; /* of a stack with Python frames, these alone */
};

struct mlz_trace {
  struct mlz_source source;
  struct mlz_damage damage;
  uint64_t groups;
  json_t *meta, *summary, *group_state;
  uint64_t group_ns;
  struct mlz_rss *rss;
  size_t rss_n, rss_room;

  struct mlz_entry *entries;
  size_t entries_n, entries_room, next;
  struct mlz_point *points;
  size_t points_n, points_room;
  size_t *by_alloc; /* entries by (process, first allocation) */
  size_t entry_found;

  /* Tables: row ids 0..n-1; one row more, id n, stands for lost ones. Behind it, up to `_all`, lie those that native.c makes. */
  uint64_t *string_at; /* offset in text; UINT64_MAX: lost */
  size_t strings_n, strings_room, strings_all;
  char *text;
  size_t text_n, text_room;
  struct mlz_frame *frames; /* language UINT32_MAX: lost */
  size_t frames_n, frames_room, frames_all;
  struct mlz_stack_row *stacks;
  size_t stacks_n, stacks_room;
  uint32_t *stack_frames;
  size_t stack_frames_n, stack_frames_room;
  struct mlz_json_table processes, threads;
  struct mlz_native native;

  uint64_t features;
  struct mlz_totals_entry *totals;
  size_t totals_n, totals_room, totals_next;
  struct mlz_totals_state *totals_states; /* by rising process */
  size_t totals_states_n, totals_states_room;
  struct mlz_totals_mark *totals_marks;
  size_t totals_marks_n, totals_marks_room;
  bool totals_marked;
  uint32_t *totals_changed;
  size_t totals_changed_room;

  ZSTD_DCtx *zstd;
  uint8_t *payload; /* a decompressed table chunk */
  size_t payload_room;

  struct mlz_decode_work work; /* of mlz_trace_next; its source is not used */
  struct mlz_decode_out out;
};

/* Makes room for `need` elements. *array is a pointer to some element type. false: out of memory. */
bool mlz_grow(void *array, size_t *room, size_t need, size_t element);

/* A table chunk's decompressed payload into the tables. 0, -EBADMSG: its content is wrong (of JSON the good objects
 * were kept, of others nothing), -ENOMEM. */
int mlz_tables_load(struct mlz_trace *t, unsigned kind, uint64_t count, const uint8_t *p, size_t n);
int mlz_tables_begin(struct mlz_trace *t); /* the rows with id 0 */
int mlz_tables_end(struct mlz_trace *t);   /* the rows for lost ids */
void mlz_tables_close(struct mlz_trace *t);
/* native.c. load: as mlz_tables_load, of MODULES and SYMBOLS. begin: before the ids of frames are looked at as strings; end: behind the lost rows. */
int mlz_native_load_modules(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c);
int mlz_native_load_symbols(struct mlz_trace *t, uint64_t count, struct mlz_cursor *c);
int mlz_native_begin(struct mlz_trace *t);
int mlz_native_end(struct mlz_trace *t);
void mlz_native_close(struct mlz_trace *t);
bool mlz_tables_first_ok(const struct mlz_trace *t, size_t have, uint64_t first, uint64_t count);
int mlz_tables_add_string(struct mlz_trace *t, const char *text, size_t n, uint32_t *id); /* behind the lost row */
int mlz_tables_add_frame(struct mlz_trace *t, struct mlz_frame frame, uint32_t *id);
uint32_t mlz_tables_known_thread(const struct mlz_trace *t, uint64_t id); /* id, or 0 if there is no such thread */
int mlz_tables_know_process(struct mlz_trace *t, uint32_t id);            /* makes a row if there is none */

/* Decodes an EVENTS payload. 0, -EBADMSG, -ENOMEM. *x is what the payload says it covers. Reads the tables, so it may run on several threads. */
int mlz_decode_events(const struct mlz_trace *t, struct mlz_decode_work *w, struct mlz_decode_out *o, const uint8_t *p, size_t n,
                      unsigned want, struct mlz_extent *x, struct mlz_block *b);
/* The next chunk of events for `w`, whose source it is read from; as mlz_trace_next, but nothing is counted. 0: it is damaged. */
int mlz_trace_entry(const struct mlz_trace *t, const struct mlz_entry *e, struct mlz_source *source, struct mlz_decode_work *w,
                    struct mlz_decode_out *o, unsigned want, struct mlz_block *b);
struct mlz_ahead mlz_trace_entry_ahead(const struct mlz_trace *t, size_t i);
void mlz_trace_entry_bad(struct mlz_trace *t, struct mlz_entry *e); /* counts it, once */
void mlz_totals_close(struct mlz_trace *t);
/* The chunk at `at`, decompressed: *payload has h->raw bytes until the next read. 1. 0: it is not sound, or of another kind. Negative errno. */
int mlz_trace_chunk(struct mlz_trace *t, uint64_t at, unsigned kind, struct mlz_chunk_header *h, const uint8_t **payload);

int mlz_trace_open_memory(struct mlz_trace **out, const uint8_t *bytes, size_t n, char *err, size_t err_size);

#endif
