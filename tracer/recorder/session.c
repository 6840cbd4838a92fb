#include "tracer/recorder/session.h"

#include "shm/control.h"
#include "tracer/recorder/survivors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everybody may pass through, by a name that nobody can list: a program that becomes another user (su, a server that drops its
 * rights) must still find the library, or the loader would write into its stderr. The arena stays closed to it: /proc/PID/fd asks
 * for the recorder's own user. */
#define PASSABLE 0711

/* A directory that only we can change, made if need be. A link that somebody planted in its place is not followed. */
static int own_directory(int at, const char *path) {
  if (mkdirat(at, path, PASSABLE) < 0 && errno != EEXIST) return -errno;
  int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct stat st;
  int r = fstat(fd, &st) < 0 ? -errno : st.st_uid != geteuid() ? -EPERM : 0;
  if (r == 0 && (st.st_mode & 07777) != PASSABLE && fchmod(fd, PASSABLE) < 0) r = -errno;
  if (r == 0) return fd;
  close(fd);
  return r;
}

/* A directory that LD_PRELOAD can name: the variable's, if it has one. */
static const char *directory_of(const char *variable, const char *otherwise) {
  const char *dir = getenv(variable);
  return dir && dir[0] == '/' && !strpbrk(dir, ": \t\n") && strlen(dir) < 120 ? dir : otherwise;
}

/* Where sessions lie below `parent`. */
static void user_base(char *path, size_t size, const char *parent) { snprintf(path, size, "%s/memlyze-%u", parent, (unsigned)geteuid()); }

/* $TMPDIR or /tmp, which every user can pass; $XDG_RUNTIME_DIR, which only its owner can, where somebody else took our name there. */
static int open_base(char *path, size_t size, char *err, size_t err_size) {
  user_base(path, size, directory_of("TMPDIR", "/tmp"));
  int fd = own_directory(AT_FDCWD, path);
  if (fd >= 0) return fd;
  snprintf(err, err_size, "%s: %s; it must be a directory of your own: choose its parent with TMPDIR", path,
           fd == -EPERM ? "belongs to another user" : strerror(-fd));
  const char *runtime = directory_of("XDG_RUNTIME_DIR", NULL);
  struct stat st; /* sudo keeps the variable of another user */
  if (!runtime || stat(runtime, &st) < 0 || st.st_uid != geteuid()) return fd;
  snprintf(path, size, "%s/memlyze", runtime);
  int other = own_directory(AT_FDCWD, path);
  return other >= 0 ? other : fd;
}

/* false: that was enough. */
static bool each_in(const char *base, bool (*each)(void *context, const char *path), void *context) {
  DIR *dir = opendir(base);
  bool more = true;
  for (struct dirent *e; dir && more && (e = readdir(dir));) {
    char path[PATH_MAX];
    if (e->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s", base, e->d_name) >= (int)sizeof path) continue;
    more = each(context, path);
  }
  if (dir) closedir(dir);
  return more;
}

void mlz_session_each(bool (*each)(void *context, const char *path), void *context) {
  char base[200], otherwise[64];
  user_base(base, sizeof base, directory_of("TMPDIR", "/tmp"));
  user_base(otherwise, sizeof otherwise, "/tmp");
  if (!each_in(base, each, context)) return;
  if (strcmp(base, otherwise) != 0 && !each_in(otherwise, each, context)) return;
  const char *runtime = directory_of("XDG_RUNTIME_DIR", NULL);
  if (!runtime) return;
  snprintf(base, sizeof base, "%s/memlyze", runtime);
  each_in(base, each, context);
}

static void empty_and_remove(int base, const char *id, int fd) {
  unlinkat(fd, MLZ_AGENT_NAME, 0);
  unlinkat(fd, MLZ_ARENA_NAME, 0);
  unlinkat(base, id, AT_REMOVEDIR);
}

/* Whoever gets the lock of a session has outlived its recorder. */
static void sweep(int base) {
  int copy = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = copy < 0 ? NULL : fdopendir(copy);
  if (!dir) {
    if (copy >= 0) close(copy);
    return;
  }
  for (struct dirent *e; (e = readdir(dir));) {
    if (e->d_name[0] == '.') continue;
    int fd = openat(base, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && !mlz_survivors_preload(e->d_name)) empty_and_remove(base, e->d_name, fd);
    close(fd);
  }
  closedir(dir);
}

/* -EAGAIN: a sweeping recorder was faster than our lock. */
static int make_once(struct mlz_session *s) {
  uint64_t random;
  if (getrandom(&random, sizeof random, 0) != sizeof random) return -EIO;
  snprintf(s->id, sizeof s->id, "%016llx", (unsigned long long)random);
  if (mkdirat(s->base, s->id, PASSABLE) < 0) return errno == EEXIST ? -EAGAIN : -errno;
  s->fd = openat(s->base, s->id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (s->fd < 0) return errno == ENOENT ? -EAGAIN : -errno;
  struct stat st;
  if (flock(s->fd, LOCK_EX | LOCK_NB) == 0 && fchmod(s->fd, PASSABLE) == 0 && fstat(s->fd, &st) == 0 && st.st_nlink > 0) return 0;
  close(s->fd);
  return -EAGAIN;
}

int mlz_session_make(struct mlz_session *s, char *err, size_t err_size) {
  char base[200];
  s->base = open_base(base, sizeof base, err, err_size);
  if (s->base < 0) return s->base;
  sweep(s->base);
  int r = -EAGAIN;
  for (int i = 0; i < 16 && r == -EAGAIN; i++) r = make_once(s);
  if (r < 0) {
    snprintf(err, err_size, "%s: cannot make a session directory: %s", base, strerror(-r));
    close(s->base);
    return r;
  }
  snprintf(s->path, sizeof s->path, "%s/%s", base, s->id);
  return 0;
}

int mlz_session_link(struct mlz_session *s, const char *agent, int arena_fd) {
  char arena[64];
  snprintf(arena, sizeof arena, "/proc/%d/fd/%d", (int)getpid(), arena_fd);
  if (symlinkat(agent, s->fd, MLZ_AGENT_NAME) < 0 || symlinkat(arena, s->fd, MLZ_ARENA_NAME) < 0) return -errno;
  return 0;
}

void mlz_session_remove(struct mlz_session *s) {
  empty_and_remove(s->base, s->id, s->fd);
  close(s->fd);
  close(s->base);
}

void mlz_session_leave(struct mlz_session *s) {
  if (!mlz_survivors_preload(s->id)) {
    mlz_session_remove(s);
    return;
  }
  unlinkat(s->fd, MLZ_ARENA_NAME, 0);
  close(s->fd);
  close(s->base);
}

int mlz_session_find_agent(char out[PATH_MAX]) {
  static const char *const places[] = {"/../lib/memlyze/" MLZ_AGENT_NAME, "/../libexec/memlyze/" MLZ_AGENT_NAME,
                                       "/../agent/" MLZ_AGENT_NAME};
  char exe[PATH_MAX], path[PATH_MAX + 64];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (n < 0) return -errno;
  exe[n] = 0;
  char *slash = strrchr(exe, '/');
  if (!slash) return -ENOENT;
  *slash = 0;
  for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
    snprintf(path, sizeof path, "%s%s", exe, places[i]);
    if (realpath(path, out)) return 0;
  }
  return -ENOENT;
}
