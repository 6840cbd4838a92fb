/* The inside of libmemlyze-read.so. A trace is held once for its tables, which nothing changes after the opening; each walk over its events opens it
 * anew (another thread may be at another place). The survey, one walk, is made once, under the lock, and nothing changes it afterwards. */
#ifndef MLZ_ANALYZER_ARROW_TRACE_H
#define MLZ_ANALYZER_ARROW_TRACE_H

#include "analyzer/arrow.h"
#include "analyzer/arrow_batch.h"
#include "analyzer/identity.h"
#include "formats/reader.h"

#include <pthread.h>
#include <stdatomic.h>

#define MLZ_NOWHERE UINT32_MAX

struct mlz_read_place { /* of an event of a process: chunks are numbered over all processes, as they are read */
  uint32_t chunk, event;
};
static inline bool mlz_read_after(struct mlz_read_place end, uint32_t chunk, uint32_t event) {
  return end.chunk != MLZ_NOWHERE && (chunk > end.chunk || (chunk == end.chunk && event > end.event));
}

struct mlz_read_chunk {
  uint64_t first_alloc;
  uint64_t ordinal; /* number of its first event in the process */
  uint32_t process; /* place in the table of processes */
  uint32_t allocs;
  uint32_t events;
  uint32_t old; /* of its allocations so many are freed in later chunks */
};
struct mlz_read_process {
  uint32_t id;
  uint32_t *chunks; /* those with allocations, in order */
  size_t n_chunks, room_chunks, hit;
  struct mlz_read_place end; /* its FINALIZE */
  struct mlz_read_place peak;
  double heap, heap_peak;
};
struct mlz_read_rare {
  struct mlz_rare rare;
  uint32_t process, thread; /* ids */
};

struct memlyze_read {
  atomic_uint users; /* the holder, and each stream */
  int fd;            /* of the file; -1: it could not be held */
  char *path;
  struct mlz_trace *trace;
  bool has_uuid;
  uint8_t uuid[16];

  pthread_mutex_t lock; /* of all below */
  bool identified, surveyed;
  struct mlz_identity identity;
  struct mlz_damage damage;
  struct mlz_read_chunk *chunks;
  size_t n_chunks, room_chunks;
  struct mlz_read_process *processes; /* by rising id */
  size_t n_processes;
  struct mlz_read_rare *rares; /* marks, snapshots, collections */
  size_t n_rares, room_rares;
  uint64_t allocations, marks, collections;
  uint64_t lost; /* records, as LOST events say */
};

struct mlz_read_stream {
  struct memlyze_read *read;
  const struct mlz_arrow_field *fields;
  struct mlz_arrow_batch batch;
  int (*fill)(struct mlz_read_stream *s); /* some more rows into the batch, none at the end. 0, or an errno with a line in `error` */
  void (*close)(struct mlz_read_stream *s);
  void *state; /* of `fill`; released by `close` */
  char error[256];
  uint64_t at; /* tables: the next row */
};

/* For tables whose rows are all in memory. */
struct mlz_read_table {
  const struct mlz_arrow_field *fields;
  bool events; /* needs the survey */
  bool stacks; /* needs the identities */
  uint64_t (*rows)(struct memlyze_read *r);
  void (*row)(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i); /* may leave the row out */
};
extern const struct mlz_read_table mlz_read_tables[MEMLYZE_TABLES]; /* ALLOCATIONS and TOTALS: without `row` */

bool mlz_read_room(void *array, size_t *room, size_t need, size_t element);                     /* as mlz_grow in formats/ */
int mlz_read_again(struct memlyze_read *r, struct mlz_trace **out, char *err, size_t err_size); /* the file for one more walk */
int mlz_read_fail(char *err, size_t err_size, int number, const char *text);                    /* returns `number` */
/* Both: 0 or an errno. The lock is held. */
int mlz_read_survey(struct memlyze_read *r, char *err, size_t err_size);
void mlz_read_survey_clear(struct memlyze_read *r);
struct mlz_read_process *mlz_read_process_of(struct memlyze_read *r, uint32_t id); /* NULL: none */
/* The chunk with allocation `alloc_no` of the process; MLZ_NOWHERE: it was lost. *hit: where the last answer was. */
uint32_t mlz_read_chunk_of(const struct memlyze_read *r, const struct mlz_read_process *p, uint64_t alloc_no, size_t *hit);
/* Passes over the next chunk without reading it. 1: it was the survey's chunk `at`; 0: one that cannot be read; -1: there is none. */
int mlz_read_skip(const struct memlyze_read *r, struct mlz_trace *trace, size_t at);
/* Is this block the survey's chunk `at`? */
bool mlz_read_same_chunk(const struct memlyze_read *r, size_t at, const struct mlz_block *b);

int mlz_read_allocations_open(struct mlz_read_stream *s);
int mlz_read_totals_open(struct mlz_read_stream *s);
uint64_t mlz_read_number(const json_t *object, const char *key, bool *there);

#endif
