/* For --wait all: does any other process still map the arena? A fork's child is not known to the recorder before its first
 * allocation, so the processes seen in the rings are not enough. */
#ifndef MLZ_RECORDER_SURVIVORS_H
#define MLZ_RECORDER_SURVIVORS_H

#include <stdbool.h>

bool mlz_survivors_any(const char *memfd_name); /* reads /proc: some milliseconds */

#endif
