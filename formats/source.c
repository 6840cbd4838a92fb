#include "formats/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int mlz_source_open(struct mlz_source *s, const char *path, char *err, size_t err_size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not make us wait */
  if (fd < 0) {
    int e = errno;
    const char *what = e == ENOENT   ? "no such file; record one with: memlyze record COMMAND"
                       : e == EACCES ? "permission denied; traces are readable by their owner only"
                                     : strerror(e);
    snprintf(err, err_size, "cannot open: %s", what);
    return -e;
  }
  struct stat st;
  const char *what = NULL;
  if (fstat(fd, &st) != 0) {
    int e = errno;
    snprintf(err, err_size, "cannot look at the file: %s", strerror(e));
    close(fd);
    return -e;
  }
  if (S_ISDIR(st.st_mode))
    what = "is a directory; name a trace file";
  else if (S_ISFIFO(st.st_mode))
    what = "is a pipe; a trace is read at many places, so save it to a file first";
  else if (!S_ISREG(st.st_mode))
    what = "is not a regular file; name a trace file";
  if (what != NULL) {
    snprintf(err, err_size, "%s", what);
    close(fd);
    return -EINVAL;
  }
  *s = (struct mlz_source){.fd = fd, .size = (uint64_t)st.st_size};
  return 0;
}

void mlz_source_memory(struct mlz_source *s, const uint8_t *bytes, size_t n) {
  *s = (struct mlz_source){.fd = -1, .bytes = bytes, .size = n};
}

void mlz_source_close(struct mlz_source *s) {
  if (s->fd >= 0) close(s->fd);
  free(s->buffer);
  *s = (struct mlz_source){.fd = -1};
}

const uint8_t *mlz_source_get(struct mlz_source *s, uint64_t at, size_t n, int *rc) {
  if (at > s->size || n > s->size - at) return NULL;
  if (s->fd < 0) return s->bytes + at;
  if (s->room < n) {
    size_t room = s->room * 2 > n ? s->room * 2 : n;
    uint8_t *buffer = realloc(s->buffer, room);
    if (buffer == NULL) {
      *rc = -ENOMEM;
      return NULL;
    }
    s->buffer = buffer;
    s->room = room;
  }
  for (size_t done = 0; done < n;) {
    ssize_t got = pread(s->fd, s->buffer + done, n - done, (off_t)(at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return NULL;
    done += (size_t)got;
  }
  return s->buffer;
}
