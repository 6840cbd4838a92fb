/* Writes a .mlyze file. Runs in the recorder: one thread (the drain) fills builders and tables, any one thread
 * at a time encodes and appends; docs/format.md is the format.
 *
 * Ownership: a builder belongs to whoever sealed or fills it. Nothing here locks, and nothing need: the table calls (string, frame, stack,
 * process, thread, take_tables) touch only the drain thread's half of a writer, append_* only the other half. mlz_writer_finish
 * and mlz_writer_free touch both, so the two threads must have met before. mlz_writer_bytes may be asked from anywhere.
 * Errors: negative errno. -ENOSPC, -EIO, -EDQUOT leave the file readable up to the last whole chunk. */
#ifndef MLZ_FORMATS_WRITER_H
#define MLZ_FORMATS_WRITER_H

#include "events.h"
#include "totals.h"

#include <jansson.h>

/* ---- events of one process: filled record by record, then sealed, encoded, appended, reset ---- */

struct mlz_builder; /* columns of at most MLZ_CHUNK_EVENTS_MAX events of one process */

struct mlz_builder *mlz_builder_new(void); /* NULL: out of memory */
struct mlz_builder *mlz_builder_free(struct mlz_builder *b);

/* Empties `b` for events of `process` (process id of the PROCESS table) from time `now_ns` on. `first_alloc` is the number (from 0) of the
 * process's next recorded allocation. The thread is 0 until
 * mlz_builder_thread. */
void mlz_builder_begin(struct mlz_builder *b, uint32_t process, uint64_t first_alloc, uint64_t now_ns);
bool mlz_builder_full(const struct mlz_builder *b); /* true: seal it before the next event (room for 8 more is kept) */
uint32_t mlz_builder_count(const struct mlz_builder *b);

void mlz_builder_time(struct mlz_builder *b, uint64_t ns); /* time of the following events; never goes back (a lower value is ignored) */
void mlz_builder_thread(struct mlz_builder *b, uint32_t thread); /* thread id (THREAD table) of the following events */

/* Returns the allocation's number within its process: keep it, the free names it. */
uint64_t mlz_builder_alloc(struct mlz_builder *b, uint32_t stack, uint64_t size, unsigned domain, double weight);
/* The block that mlz_builder_alloc numbered `alloc_no`, possibly in an earlier builder; the rest as given there. weight: finite, at least 1;
 * size below 2^48. */
void mlz_builder_free_block(struct mlz_builder *b, uint64_t alloc_no, uint32_t stack, uint64_t size, unsigned domain, double weight,
                            bool temporary);
void mlz_builder_free_foreign(struct mlz_builder *b);
void mlz_builder_rare(struct mlz_builder *b, const struct mlz_rare *r); /* r->op, and the fields that it uses */

/* ---- the file ---- */

struct mlz_writer;

/* Takes `fd` (opened for writing, empty; closed by mlz_writer_free). Writes the file header at once. `meta` becomes the META
 * chunk: the keys of docs/format.md; borrowed. On failure `fd` stays the caller's. level: zstd level, 0 = default (2). */
int mlz_writer_new(struct mlz_writer **out, int fd, const json_t *meta, int level);
/* The same for a file whose allocations and frees are no events: mlz_writer_totals says what came of them. */
int mlz_writer_new_totals_only(struct mlz_writer **out, int fd, const json_t *meta, int level);
struct mlz_writer *mlz_writer_free(struct mlz_writer *w);

/* Tables. Ids are dense and handed out in order from 1 (string 0 is "", stack 0 is the empty stack). The caller interns: the same content
 * added twice gets two ids. 0 is returned, and take_tables fails, when there was no memory for a row. They are buffered and written by the next flush, always before the events that name them. */
uint32_t mlz_writer_string(struct mlz_writer *w, const char *utf8, size_t bytes);
uint32_t mlz_writer_frame(struct mlz_writer *w, const struct mlz_frame *f);
uint32_t mlz_writer_stack(struct mlz_writer *w, const uint32_t *frames, uint32_t n, bool truncated); /* innermost first */
/* A file that native frames (mlz_frame_at) lie in; string ids. Ids from 1; module 0 is no file's code. */
uint32_t mlz_writer_module(struct mlz_writer *w, uint32_t path, uint32_t build_id);
/* What a frame by address stands for: n frames (native or inferred), innermost first, at most MLZ_SYMBOL_MAX of which are kept; n 0: it is hidden. At any time
 * before the end. */
void mlz_writer_symbol(struct mlz_writer *w, uint32_t frame, const uint32_t *frames, uint32_t n);
/* Processes and threads are JSON objects (docs/format.md has the keys), each with its "id"; a later object with the
 * same id replaces the earlier one: written at the start, again when something is known, again at the end. */
void mlz_writer_process(struct mlz_writer *w, json_t *process); /* takes the reference */
void mlz_writer_thread(struct mlz_writer *w, json_t *thread);   /* takes the reference */

/* A point of a process, behind the tables so far and before the events of the next group. `part`: the caller's, 0 before the process's first point.
 * `rows`: those that come up here; row numbers count them over all points. `changes`: by rising row, against the point before.
 * `base`: this point stands alone: `rows` are all rows, and the changes are against 0. -ENOMEM; -EFBIG: too many rows, the point is left out. */
int mlz_writer_totals(struct mlz_writer *w, const struct mlz_totals_head *h, uint32_t *part, bool base, const struct mlz_totals_key *rows,
                      uint32_t n_rows, const struct mlz_totals_change *changes, uint32_t n);

/* When the running totals of the processes go into the file, so that a reader may begin there (docs/format.md, TOTALS). */
struct mlz_frame_rule {
  uint64_t least_events; /* so many events between two frames at least */
  double share;          /* and not before they have grown the file by no more than this part */
  uint64_t every_bytes;  /* 0; else: after so many bytes, whatever it costs */
  uint64_t every_ns;     /* 0; else: after so much time, likewise */
};
int mlz_writer_frames(struct mlz_writer *w, const struct mlz_frame_rule *rule); /* before the first group. -ENOMEM: there will be none */
/* Writer thread, before the group of its last events is ended: the process has no more. */
void mlz_writer_process_ended(struct mlz_writer *w, uint32_t process);

/* Only the newest part is kept: now and then the file is written anew without its oldest part, of which totals remain (docs/format.md, "A beginning that was left
 * out"), and the new one takes the place of the old one. While that goes on (a few groups) both are there; together they are no larger than max_bytes. */
struct mlz_keep_rule {
  uint64_t max_bytes;
  uint64_t least_ns;                     /* 0; else: so much time is enough, as much as fits into max_bytes */
  int (*make)(void *context);            /* an empty file for reading and writing: its descriptor, or negative errno */
  int (*replace)(void *context, int fd); /* the new file takes the old one's place; the old descriptor is closed afterwards */
  void (*abandon)(void *context);        /* instead of replace: the new file is not wanted */
  void *context;
};
/* Before the first group; the file was opened for reading, too. -ENOMEM. From then on a group may end with -E2BIG: tables and totals alone need too much of
 * max_bytes. */
int mlz_writer_keep(struct mlz_writer *w, const struct mlz_keep_rule *rule);
/* Writer thread, or when it has ended: the kept part from `since_ns` on as a whole file. Takes `fd`, as mlz_writer_new does, and closes it. */
int mlz_writer_dump(struct mlz_writer *w, int fd, uint64_t since_ns, const json_t *summary);
/* Has a beginning been left out? When the writer thread has ended. */
bool mlz_writer_left_out(const struct mlz_writer *w, uint64_t *events, uint64_t *until_ns);

/* An encoded piece of the file. Made on one thread, appended on another: that is how compression leaves the drain's way. */
struct mlz_bytes {
  uint8_t *data; /* malloc; the holder frees */
  size_t size;
};
int mlz_writer_take_tables(struct mlz_writer *w,
                           struct mlz_bytes *out); /* drain thread: all buffered table rows, raw (not compressed); size 0: none */
int mlz_writer_append_tables(struct mlz_writer *w, const struct mlz_bytes *raw); /* writer thread: compresses and writes them */
int mlz_writer_append_events(struct mlz_writer *w,
                             const struct mlz_builder *b); /* writer thread: one EVENTS chunk; empty builder: nothing */
/* Ends a group: a consistent cut over all processes. `state`: losses and counters so far (docs/format.md), borrowed. */
int mlz_writer_append_group(struct mlz_writer *w, uint64_t now_ns, const json_t *state);
/* The rest of the tables, summary, index and trailer; after it the file is `complete` if summary says so. fsyncs. */
int mlz_writer_finish(struct mlz_writer *w, const json_t *summary);
uint64_t mlz_writer_bytes(const struct mlz_writer *w); /* written so far */

#endif
