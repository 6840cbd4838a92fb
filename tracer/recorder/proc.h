/* What /proc says of another process. Recorder and control; no state. */
#ifndef MLZ_RECORDER_PROC_H
#define MLZ_RECORDER_PROC_H

#include <stddef.h>
#include <stdint.h>

/* The file /proc/PID/NAME, *bytes long, with a NUL behind it; malloc'd. NULL: it cannot be read. */
char *mlz_proc_read(uint32_t pid, const char *name, size_t *bytes);

#endif
