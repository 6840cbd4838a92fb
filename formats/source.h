/* Where a reader's bytes come from: a regular file, read piece by piece, or memory. Private to formats/.
 *
 * pread and not a mapping: a file that another process cuts short, or a failing disk, is then an error and not SIGBUS; and a trace larger
 * than the address space allows (ulimit -v) can be read. The copy costs a tenth of a nanosecond an event. Threads read the same file
 * through copies of the struct with buffers of their own. */
#ifndef MLZ_FORMATS_SOURCE_H
#define MLZ_FORMATS_SOURCE_H

#include <stddef.h>
#include <stdint.h>

struct mlz_source {
  int fd;               /* -1: memory */
  const uint8_t *bytes; /* memory only, borrowed */
  uint64_t size;
  uint8_t *buffer;
  size_t room;
};

/* On failure negative errno and one line in err. */
int mlz_source_open(struct mlz_source *s, const char *path, char *err, size_t err_size);
void mlz_source_memory(struct mlz_source *s, const uint8_t *bytes, size_t n);
void mlz_source_close(struct mlz_source *s);

/* n bytes from `at`, valid until the next call. NULL: not that many, or they cannot be read, or no memory (then *rc = -ENOMEM). */
const uint8_t *mlz_source_get(struct mlz_source *s, uint64_t at, size_t n, int *rc);

#endif
