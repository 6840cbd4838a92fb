#include "tracer/recorder/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(char *err, size_t size, const char *path, const char *what) {
  int r = -errno;
  snprintf(err, size, "%s: %s: %s; choose another file with -o", path, what, strerror(-r));
  return r;
}

int mlz_output_open(struct mlz_output *o, const char *path, char *err, size_t err_size) {
  struct stat st;
  o->temporary[0] = 0;
  if (strlen(path) > sizeof o->path - 32) {
    errno = ENAMETOOLONG;
    return fail(err, err_size, path, "cannot be created");
  }
  if (!realpath(path, o->path)) snprintf(o->path, sizeof o->path, "%s", path); /* a link keeps pointing where it did */
  bool exists = stat(o->path, &st) == 0;
  if (exists && S_ISDIR(st.st_mode)) {
    errno = EISDIR;
    return fail(err, err_size, path, "cannot be written");
  }
  if (exists && !S_ISREG(st.st_mode)) {
    o->fd = open(o->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return o->fd < 0 ? fail(err, err_size, path, "cannot be written") : 0;
  }
  if (exists && access(o->path, W_OK) < 0) return fail(err, err_size, path, "cannot be replaced");
  snprintf(o->temporary, sizeof o->temporary, "%.*s.recording-%d", (int)(sizeof o->path - 32), o->path, (int)getpid());
  unlink(o->temporary); /* of a dead recorder that had our number */
  o->fd = open(o->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (o->fd >= 0) return 0;
  o->temporary[0] = 0;
  return fail(err, err_size, path, "cannot be created");
}

int mlz_output_place(struct mlz_output *o, bool force, char *err, size_t err_size) {
  if (!o->temporary[0]) return 0;
  char old[PATH_MAX + 8];
  snprintf(old, sizeof old, "%s.old", o->path);
  if (!force && rename(o->path, old) < 0 && errno != ENOENT) return fail(err, err_size, o->path, "cannot be kept as FILE.old");
  if (rename(o->temporary, o->path) < 0) return fail(err, err_size, o->path, "cannot be created");
  o->temporary[0] = 0;
  return 0;
}

void mlz_output_abandon(struct mlz_output *o) {
  if (o->temporary[0]) unlink(o->temporary);
  o->temporary[0] = 0;
}

int mlz_output_again(struct mlz_output *o) {
  snprintf(o->temporary, sizeof o->temporary, "%.*s.recording-%d", (int)(sizeof o->path - 32), o->path, (int)getpid());
  unlink(o->temporary);
  int fd = open(o->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  int r = -errno;
  if (fd < 0) o->temporary[0] = 0;
  return fd < 0 ? r : fd;
}

int mlz_output_replace(struct mlz_output *o, int fd) {
  if (rename(o->temporary, o->path) < 0) return -errno;
  o->temporary[0] = 0;
  o->fd = fd;
  return 0;
}
