#include "tracer/recorder/reach.h"

#include "tracer/recorder/arena.h"
#include "tracer/recorder/session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SILENT_NS UINT64_C(3000000000) /* a recorder that lives looks at its mailbox many times in it */
#define BUSY_NS UINT64_C(30000000000)  /* others ask too, or the disk is slow */
#define SLICE_NS 50000000

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

/* The file /proc/PID/NAME, with a NUL behind it; malloc'd. NULL: it cannot be read. */
static char *read_proc(uint32_t pid, const char *name, size_t *bytes) {
  char path[64], *text = NULL;
  snprintf(path, sizeof path, "/proc/%u/%s", pid, name);
  FILE *file = fopen(path, "re");
  size_t size = 0, n = 0;
  for (size_t got = 1; file && got; n += got) {
    char *grown = realloc(text, size = n + 65536 + 1);
    if (!grown) break;
    text = grown;
    got = fread(text + n, 1, 65536, file);
  }
  if (file) fclose(file);
  if (text) text[n] = 0;
  *bytes = n;
  return text;
}

/* The session that the process's own LD_PRELOAD names: it may lie below another TMPDIR than ours. Copies its path; false: none. */
static bool preloaded_session(uint32_t pid, char path[PATH_MAX]) {
  size_t bytes;
  char *env = read_proc(pid, "environ", &bytes);
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

/* ---- asking ---- */

static bool recorder_gone(const struct mlz_reach *r) {
  return mlz_recorder_died(r->control) || (kill((pid_t)r->control->recorder_pid, 0) < 0 && errno == ESRCH);
}

static int gone(const struct mlz_reach *r, char *err, size_t size) {
  snprintf(err, size, "the recorder (process %u) has ended; nothing was changed", r->control->recorder_pid);
  return -ESRCH;
}

static int silent(const struct mlz_reach *r, char *err, size_t size) {
  snprintf(err, size, "the recorder (process %u) does not answer, it may be stopped (kill -CONT %u); nothing was changed",
           r->control->recorder_pid, r->control->recorder_pid);
  return -ETIMEDOUT;
}

/* One asker at a time; the lock goes with its holder. */
static int lock(const struct mlz_reach *r, char *err, size_t size) {
  for (uint64_t began = mlz_arena_clock(r->control); flock(r->fd, LOCK_EX | LOCK_NB) < 0;) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      int e = errno;
      snprintf(err, size, "the session cannot be locked: %s", strerror(e));
      return -e;
    }
    if (recorder_gone(r)) return gone(r, err, size);
    if (mlz_arena_clock(r->control) - began > BUSY_NS) {
      snprintf(err, size, "another memlyze control has held the session for 30 s; nothing was changed");
      return -ETIMEDOUT;
    }
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  return 0;
}

/* Number of the request. What a control that was killed has left behind is withdrawn, or on its way: then it is waited for. */
static int post(struct mlz_reach *r, const struct mlz_request *request, uint32_t *number, char *err, size_t size) {
  struct mlz_mailbox *box = mlz_arena_mailbox(r->control);
  uint32_t state = atomic_load_explicit(&box->state, memory_order_acquire);
  if (mlz_mailbox_state_of(state) == MLZ_MAILBOX_POSTED) atomic_compare_exchange_strong(&box->state, &state, state & ~3u);
  for (uint64_t began = mlz_arena_clock(r->control); mlz_mailbox_state_of(state = atomic_load(&box->state)) == MLZ_MAILBOX_TAKEN;) {
    if (recorder_gone(r)) return gone(r, err, size);
    if (mlz_arena_clock(r->control) - began > BUSY_NS) return silent(r, err, size);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  box->request = *request;
  *number = (state & ~3u) + 4;
  atomic_store_explicit(&box->state, *number | MLZ_MAILBOX_POSTED, memory_order_release);
  atomic_fetch_add(&r->control->wake, 1);
  syscall(SYS_futex, &r->control->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
  return 0;
}

/* Waits for the answer as long as the recorder makes progress. */
static int wait_done(struct mlz_reach *r, uint32_t number, char *err, size_t size) {
  struct mlz_mailbox *box = mlz_arena_mailbox(r->control);
  uint64_t beat = atomic_load(&r->control->heartbeat), since = mlz_arena_clock(r->control), began = since;
  for (uint32_t state; (state = atomic_load_explicit(&box->state, memory_order_acquire)) != (number | MLZ_MAILBOX_DONE);) {
    struct timespec slice = {.tv_nsec = SLICE_NS};
    syscall(SYS_futex, &box->state, FUTEX_WAIT, state, &slice, NULL, 0);
    if (recorder_gone(r)) {
      if (atomic_load(&box->state) == (number | MLZ_MAILBOX_DONE)) return 0;
      return gone(r, err, size);
    }
    uint64_t now = mlz_arena_clock(r->control), next = atomic_load(&r->control->heartbeat);
    if (next != beat) beat = next, since = now;
    bool posted = mlz_mailbox_state_of(state) == MLZ_MAILBOX_POSTED;
    if (now - since < (posted ? SILENT_NS : BUSY_NS) && now - began < BUSY_NS) continue;
    if (posted && !atomic_compare_exchange_strong(&box->state, &state, number)) continue; /* taken just now */
    return silent(r, err, size);
  }
  return 0;
}

static int answer(const struct mlz_reach *r, const struct mlz_request *request, char *err, size_t size) {
  switch ((enum mlz_answer)mlz_arena_mailbox(r->control)->answer) {
  case MLZ_ANSWER_DONE:
    return 0;
  case MLZ_ANSWER_NOBODY:
    snprintf(err, size, "no traced process runs in this session that a mark could belong to; nothing was changed");
    return -ESRCH;
  case MLZ_ANSWER_RINGS:
    snprintf(err, size, "the session's rings (%u records) are too small for stacks of %u frames; record with a larger --max-events",
             r->control->ring_slots, request->depth);
    return -ENOSPC;
  case MLZ_ANSWER_DISK:
    snprintf(err, size, "the recorder cannot write the trace (a full disk?); the mark may be lost");
    return -EIO;
  case MLZ_ANSWER_WRONG:
    break;
  }
  snprintf(err, size, "the recorder refused the request; nothing was changed");
  return -EINVAL;
}

int mlz_reach_ask(struct mlz_reach *r, const struct mlz_request *request, uint64_t *ns, char *err, size_t err_size) {
  uint32_t number;
  int e = recorder_gone(r) ? gone(r, err, err_size) : lock(r, err, err_size);
  if (e < 0) return e;
  e = post(r, request, &number, err, err_size);
  if (e == 0) e = wait_done(r, number, err, err_size);
  if (e == 0) e = answer(r, request, err, err_size);
  if (e == 0) *ns = mlz_arena_mailbox(r->control)->answer_ns;
  flock(r->fd, LOCK_UN);
  return e;
}
