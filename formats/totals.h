/* Totals: what the stacks of a process amount to at its points (docs/format.md, TOTALS). Shared by the writer and the reader.
 *
 *   point  an instant of a process at which its totals are in the file.
 *   row    what is known of (stack, domain, weight). */
#ifndef MLZ_FORMATS_TOTALS_H
#define MLZ_FORMATS_TOTALS_H

#include "formats/events.h"

enum mlz_point_kind {
  MLZ_POINT_INDEX = 0,
  MLZ_POINT_SNAPSHOT = 1, /* has a name */
  MLZ_POINT_END = 2,      /* the end of the process */
  MLZ_POINT_EXIT = 3,     /* what was recorded after that is in it, too */
  MLZ_POINT_KINDS
};

enum mlz_total { /* the integers of a row: of recorded blocks, not weighted */
                 MLZ_TOTAL_ALLOCS,
                 MLZ_TOTAL_ALLOC_BYTES,
                 MLZ_TOTAL_FREES,
                 MLZ_TOTAL_FREE_BYTES,
                 MLZ_TOTAL_TEMPS,
                 MLZ_TOTAL_TEMP_BYTES,
                 MLZ_TOTAL_SIZE_MAX,
                 MLZ_TOTAL_ALLOC_SQUARES, /* sums of size * size / MLZ_TOTAL_SQUARE; 0 where the weight is 1 */
                 MLZ_TOTAL_FREE_SQUARES,
                 MLZ_TOTALS
};
#define MLZ_TOTAL_SQUARE 65536.0

struct mlz_totals_key {
  uint32_t stack;
  uint32_t domain; /* enum mlz_block_domain */
  double weight;
};
struct mlz_totals_change {
  uint32_t row;
  uint64_t by[MLZ_TOTALS]; /* differences, modulo 2^64 */
};
struct mlz_totals_row {
  struct mlz_totals_key key;
  uint64_t is[MLZ_TOTALS];
};

struct mlz_totals_head { /* what docs/format.md says of each */
  uint32_t process;
  enum mlz_point_kind point;
  uint32_t name; /* string id */
  uint64_t ns, events, allocations;
  uint64_t peak_bytes, peak_ns;
  uint64_t all_peak_bytes, all_peak_ns;
  uint64_t foreign;
  bool close;              /* the squares of the rows are in units of 1, not of MLZ_TOTAL_SQUARE; stored as differences to what is likely */
  const uint64_t *largest; /* to write it: of each row that changes its MLZ_TOTAL_SIZE_MAX */
};

#endif
