#include "tracer/recorder/reach.h"

#include "shm/mailbox_ask.h"
#include "tracer/recorder/proc.h"
#include "tracer/recorder/session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- finding it ---- */

struct search {
  uint32_t pid;
  struct mlz_reach *reach;
  bool named; /* the process itself names the session that is looked at */
  bool found, other_version;
};

static bool has_process(const struct mlz_reach *r, uint32_t pid) {
  const struct mlz_control *c = r->control;
  uint32_t high = atomic_load_explicit(&c->ring_high, memory_order_acquire);
  if (c->recorder_pid == pid) return true;
  for (uint32_t i = 0; i < high && i < c->ring_count; i++) {
    struct mlz_ring ring;
    if (pread(r->fd, &ring, sizeof ring, (off_t)(c->ring_offset + i * c->ring_stride)) != sizeof ring) break;
    if (atomic_load(&ring.state) == MLZ_RING_LIVE && atomic_load(&ring.pid) == pid) return true;
  }
  return false;
}

/* Ours, and an arena as far as its first page tells. What the agent checks before it believes one (tracer/agent/session.c). */
static bool is_arena(struct search *s) {
  struct mlz_reach *r = s->reach;
  struct stat st;
  int seals = fcntl(r->fd, F_GET_SEALS);
  if (fstat(r->fd, &st) < 0 || st.st_uid != geteuid() || seals < 0 || !(seals & F_SEAL_SHRINK) || st.st_size < MLZ_CONTROL_BYTES)
    return false;
  void *at = mmap(NULL, MLZ_CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
  if (at == MAP_FAILED) return false;
  r->control = at;
  const struct mlz_control *c = at;
  bool known = c->abi == MLZ_ARENA_ABI && c->control_bytes >= sizeof *c && c->ring_offset == MLZ_CONTROL_BYTES &&
               c->arena_bytes == (uint64_t)st.st_size && c->ring_stride >= sizeof(struct mlz_ring) &&
               c->ring_count <= (c->arena_bytes - c->ring_offset) / c->ring_stride;
  if (s->named && c->magic == MLZ_ARENA_MAGIC && !known) s->other_version = true;
  return c->magic == MLZ_ARENA_MAGIC && known;
}

static bool try_arena(struct search *s, const char *path) {
  struct mlz_reach *r = s->reach;
  r->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (r->fd < 0) return true;
  s->found = is_arena(s) && has_process(r, s->pid);
  if (!s->found) mlz_reach_close(r);
  return !s->found;
}

static bool try_session(void *context, const char *session) {
  char path[PATH_MAX];
  if (snprintf(path, sizeof path, "%s/" MLZ_ARENA_NAME, session) >= (int)sizeof path) return true;
  return try_arena(context, path);
}

/* The session that the process's own LD_PRELOAD names: it may lie below another TMPDIR than ours. Copies its path; false: none. */
static bool preloaded_session(uint32_t pid, char path[PATH_MAX]) {
  size_t bytes;
  char *env = mlz_proc_environ(pid, &bytes);
  bool found = false;
  for (char *word = env; env && word < env + bytes && !found; word += strlen(word) + 1) {
    if (strncmp(word, "LD_PRELOAD=", 11) != 0) continue;
    for (char *at = word + 11; *at && !found; at += strspn(at, ": ")) {
      size_t n = strcspn(at, ": "), tail = strlen("/" MLZ_AGENT_NAME);
      found = n > tail && n < PATH_MAX && !strncmp(at + n - tail, "/" MLZ_AGENT_NAME, tail);
      if (found) snprintf(path, PATH_MAX, "%.*s", (int)(n - tail), at);
      at += n;
    }
  }
  free(env);
  return found;
}

/* A recorder holds its arena among its descriptors, wherever its session lies. */
static void try_recorder(struct search *s) {
  for (int fd = 3; fd < 64 && !s->found; fd++) {
    char link[64], target[64];
    snprintf(link, sizeof link, "/proc/%u/fd/%d", s->pid, fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n > 0 && !strncmp(target, "/memfd:memlyze-", 15)) try_arena(s, link);
  }
}

/* Why not? */
static int explain(const struct search *s, bool preloaded, char *err, size_t size) {
  char path[64];
  struct stat st;
  snprintf(path, sizeof path, "/proc/%u", s->pid);
  if (stat(path, &st) < 0) {
    snprintf(err, size, "no process %u runs", s->pid);
  } else if (st.st_uid != geteuid()) {
    snprintf(err, size, "process %u belongs to another user; only the user whose session it is can change it", s->pid);
  } else if (s->other_version) {
    snprintf(err, size, "process %u: the session that runs there is of another version of memlyze", s->pid);
  } else if (preloaded) {
    snprintf(err, size, "process %u: its recorder has ended, and it runs on untraced", s->pid);
  } else {
    snprintf(err, size, "process %u is not traced: no running session of yours has it; give the pid of a program under memlyze record",
             s->pid);
  }
  return -ESRCH;
}

int mlz_reach_open(struct mlz_reach *r, uint32_t pid, char *err, size_t err_size) {
  struct search s = {.pid = pid, .reach = r, .named = true};
  char path[PATH_MAX];
  *r = (struct mlz_reach){.fd = -1};
  bool preloaded = preloaded_session(pid, path);
  if (preloaded) try_session(&s, path);
  if (!s.found) try_recorder(&s);
  s.named = false;
  if (!s.found) mlz_session_each(try_session, &s);
  return s.found ? 0 : explain(&s, preloaded, err, err_size);
}

void mlz_reach_close(struct mlz_reach *r) {
  if (r->control) munmap(r->control, MLZ_CONTROL_BYTES);
  if (r->fd >= 0) close(r->fd);
  *r = (struct mlz_reach){.fd = -1};
}

int mlz_reach_ask(struct mlz_reach *r, const struct mlz_request *request, uint64_t *ns, char *err, size_t err_size) {
  return mlz_mailbox_ask(r->control, request, NULL, ns, err, err_size);
}
