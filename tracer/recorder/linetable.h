/* Line numbers out of CPython's line tables, all three encodings. Pure; any thread. */
#ifndef MLZ_RECORDER_LINETABLE_H
#define MLZ_RECORDER_LINETABLE_H

#include "shm/record.h"

/* Where the last look into a table ended: a module's code is one long table that is asked for offset after offset. All zero at first. */
struct mlz_line_cursor {
  int64_t address, line; /* before the entry at `at` */
  uint32_t at;
};

/* Line of the instruction at byte `offset`; 0: the table gives it no line. A negative offset (a frame that has not run
 * an instruction yet) has the code's first line. The table is not trusted: whatever it holds, nothing beyond it is read. */
uint32_t mlz_linetable_line(unsigned format, const uint8_t *table, uint32_t bytes, int32_t first_line, int32_t offset,
                            struct mlz_line_cursor *c);

#endif
