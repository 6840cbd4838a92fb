/* libmemlyze-read.so: a trace as Arrow tables, for the Python package (tracer/python/memlyze/_read.py, through ctypes) and for whoever else can load a
 * library. In the reader's process; never exits it, never prints. Any thread: a `struct memlyze_read` may be used by several at once, a stream by one at a
 * time. A stream keeps what it needs of the trace, so the trace may be closed before it.
 *
 * Errors of functions: 0 or a positive errno, and one line in err, without the file's name. EINVAL: not a trace, or one that has no such table. */
#ifndef MLZ_ANALYZER_ARROW_H
#define MLZ_ANALYZER_ARROW_H

#include "analyzer/arrow_abi.h"

#include <stddef.h>
#include <stdint.h>

#define MEMLYZE_READ_VERSION 1 /* another number: another interface */

enum memlyze_table {
  MEMLYZE_ALLOCATIONS,
  MEMLYZE_STACKS,
  MEMLYZE_FRAMES,
  MEMLYZE_THREADS,
  MEMLYZE_PROCESSES,
  MEMLYZE_MARKS,
  MEMLYZE_COLLECTIONS,
  MEMLYZE_TOTALS,
  MEMLYZE_TABLES
};

struct memlyze_read;

int memlyze_read_version(void);
int memlyze_read_open(struct memlyze_read **out, const char *path, char *err, size_t err_size);
void memlyze_read_close(struct memlyze_read *r);

/* One JSON object, to be given back to memlyze_read_free: "uuid" (null: the header is damaged), "totals_only", "left_out" (the events of the beginning: record --max-size), "complete", "meta", "summary", and
 * "damage" {"cut", "chunks", "bytes", "events" (not readable), "lost" (records, by the recorder)}: what is known of it so far, which is all once the events were read (memlyze_read_survey). NULL: no memory. */
char *memlyze_read_json(struct memlyze_read *r);
void memlyze_read_free(char *text);

/* Reads all events once, if that was not done. What is about events (allocations, marks, collections, totals) does it by itself. */
int memlyze_read_survey(struct memlyze_read *r, char *err, size_t err_size);

int memlyze_read_rows(struct memlyze_read *r, int table, uint64_t *rows, char *err, size_t err_size);
int memlyze_read_schema(int table, struct ArrowSchema *out);
/* Several streams of one table are independent. Memory of one: the tables, one chunk, and 48 MB at most for what is known of later frees. */
int memlyze_read_stream(struct memlyze_read *r, int table, struct ArrowArrayStream *out, char *err, size_t err_size);

/* For PyCapsules: where Python has these two functions; then structs made by memlyze_read_new_* (NULL: no memory) belong to a capsule of that name,
 * whose destructor is memlyze_read_capsule_*. */
void memlyze_read_python(int (*is_valid)(void *, const char *), void *(*get_pointer)(void *, const char *));
extern const char *const memlyze_read_name_stream, *const memlyze_read_name_schema; /* the names: capsules keep the pointers */
struct ArrowArrayStream *memlyze_read_new_stream(void);
struct ArrowSchema *memlyze_read_new_schema(void);
void memlyze_read_drop_stream(struct ArrowArrayStream *stream);
void memlyze_read_drop_schema(struct ArrowSchema *schema);
void memlyze_read_capsule_stream(void *capsule);
void memlyze_read_capsule_schema(void *capsule);

#endif
