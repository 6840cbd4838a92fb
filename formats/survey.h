/* Reads every byte of a .mlyze file and says what is whole and what is not; and writes what is whole as a new file. For memlyze-verify; one thread.
 *
 * The reader (reader.h) goes by the index and stops at nothing; this walks all chunks from the header on, decodes each, and holds the index
 * against them. Memory: the tables, one chunk and the index. */
#ifndef MLZ_FORMATS_SURVEY_H
#define MLZ_FORMATS_SURVEY_H

#include "events.h"

#include <jansson.h>

enum mlz_fault_kind {
  MLZ_FAULT_HEADER,   /* the file header's checksum does not hold */
  MLZ_FAULT_BYTES,    /* no chunk begins here whose checksum holds */
  MLZ_FAULT_CONTENT,  /* a chunk's checksum holds, but it makes no sense */
  MLZ_FAULT_INDEX,    /* the index does not say what the chunks say, or is not where END says it is */
  MLZ_FAULT_TAIL,     /* the last bytes are the beginning of a chunk, or no chunk */
  MLZ_FAULT_CUT,      /* there is no END */
  MLZ_FAULT_APPENDED, /* bytes behind END */
  MLZ_FAULT_MISSING,  /* the file has no such chunk (META, SUMMARY) */
  MLZ_FAULT_KINDS
};

struct mlz_fault {
  enum mlz_fault_kind kind;
  uint64_t at, bytes;
  unsigned chunk; /* enum mlz_chunk_kind; 0: not known */
  bool listed;    /* the index says so; else the damaged header itself does, and may be wrong */
  bool counted;
  uint64_t count;          /* if counted: events, rows or objects */
  uint32_t process;        /* EVENTS and listed: its process id; else 0 */
  uint64_t from_ns, to_ns; /* what was lost was recorded between them; to_ns UINT64_MAX: not known */
};

#define MLZ_SURVEY_KINDS 16u
#define MLZ_SURVEY_FAULTS_MAX 100000u
struct mlz_survey {
  uint64_t bytes, bytes_bad;
  uint64_t chunks[MLZ_SURVEY_KINDS]; /* sound ones by kind; 0: of unknown kinds */
  uint64_t chunks_sound, chunks_bad;
  uint64_t events, allocs, frees;   /* of sound chunks */
  uint64_t events_lost;             /* as far as it is known */
  bool events_lost_known;           /* no lost part could have held more */
  uint64_t strings, frames, stacks; /* known rows, id 0 among them */
  uint64_t processes, threads;
  uint64_t first_ns, last_ns;
  bool left_out; /* the beginning was: TOTALS chunks before the first event stand for it */
  bool totals_only, totals_lost;
  json_t *meta, *summary, *group; /* NULL: none was sound; group: the last one */
  uint64_t group_ns;
  struct mlz_fault *faults; /* in the order in which they were found */
  size_t faults_n, faults_room;
  uint64_t faults_more; /* beyond MLZ_SURVEY_FAULTS_MAX */
};

/* 0: *s says it, mlz_survey_clear frees it. Negative errno: unreadable, with one line without newline and without the file's name in err. */
int mlz_survey_file(struct mlz_survey *s, const char *path, char *err, size_t err_size);
int mlz_survey_memory(struct mlz_survey *s, const uint8_t *bytes, size_t n, char *err, size_t err_size);
void mlz_survey_clear(struct mlz_survey *s);

struct mlz_repair {
  uint64_t events;          /* written */
  uint64_t foreign;         /* frees whose allocation was lost: they have become frees of unknown blocks */
  uint64_t rows_filled;     /* rows of tables that were lost and now read "<lost>" */
  uint64_t totals_left_out; /* TOTALS chunks that lean on something lost */
  uint64_t bytes;
};

/* Writes what is sound in `path`, surveyed as `s`, into `fd` (empty, opened for writing; closed by this). The new file is whole; its
 * SUMMARY has "repaired" if anything was lost. 0, or negative errno with a line in err. */
int mlz_repair_file(const char *path, const struct mlz_survey *s, int fd, struct mlz_repair *out, char *err, size_t err_size);
int mlz_repair_memory(const uint8_t *bytes, size_t n, const struct mlz_survey *s, int fd, struct mlz_repair *out, char *err,
                      size_t err_size);

#endif
