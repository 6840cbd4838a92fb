/* What /proc says of another process. Recorder and control; no state. */
#ifndef MLZ_RECORDER_PROC_H
#define MLZ_RECORDER_PROC_H

#include <stddef.h>
#include <stdint.h>

/* The file /proc/PID/NAME, *bytes long, with a NUL behind it; malloc'd. NULL: it cannot be read. */
char *mlz_proc_read(uint32_t pid, const char *name, size_t *bytes);

/* The process's environment, as mlz_proc_read gives it: of one that is in the middle of execve, that which it will have. */
char *mlz_proc_environ(uint32_t pid, size_t *bytes);

#endif
