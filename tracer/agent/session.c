/* Finds the session, maps the arena, claims rings. Everything by direct system calls: this may run inside the
 * program's very first malloc, before any constructor. */
#include "agent.h"
#include "sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define SEAL_SHRINK 0x0002 /* F_SEAL_SHRINK, linux/fcntl.h */
#define GET_SEALS 1034     /* F_GET_SEALS */

static bool failed(long r) { return r < 0 && r > -4096; }

bool mlz_session_find(void) {
  char *out = mlz_agent.session;
  const size_t size = sizeof(mlz_agent.session);
  Dl_info info;
  if (!dladdr((void *)&mlz_session_open, &info) || !info.dli_fname) return false;
  const char *slash = strrchr(info.dli_fname, '/');
  if (!slash || strcmp(slash + 1, MLZ_AGENT_NAME) != 0 || (size_t)(slash - info.dli_fname) + 32 > size) return false;
  memcpy(out, info.dli_fname, (size_t)(slash - info.dli_fname));
  out[slash - info.dli_fname] = 0;
  return true;
}

long mlz_session_arena(void) {
  char path[sizeof(mlz_agent.session) + sizeof(MLZ_ARENA_NAME) + 1];
  size_t n = strlen(mlz_agent.session);
  memcpy(path, mlz_agent.session, n);
  path[n] = '/';
  memcpy(path + n + 1, MLZ_ARENA_NAME, sizeof(MLZ_ARENA_NAME));
  return mlz_sys6(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC, 0, 0, 0);
}

static void *arena_map(long fd, uint64_t offset, uint64_t bytes) {
  long m = mlz_sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (long)offset);
  if (failed(m)) return NULL;
  mlz_sys3(SYS_madvise, m, (long)bytes, MADV_DONTDUMP);
  return (void *)m;
}

static bool address_space_limited(void) {
  struct rlimit limit;
  return mlz_sys6(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit, 0, 0) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

static bool arena_trusted(long fd, struct stat *st) {
  long seals = mlz_sys3(SYS_fcntl, fd, GET_SEALS, 0);
  if (failed(seals) || !(seals & SEAL_SHRINK)) return false;
  if (failed(mlz_sys3(SYS_fstat, fd, (long)st, 0))) return false;
  return st->st_uid == (uid_t)mlz_sys3(SYS_geteuid, 0, 0, 0) && (uint64_t)st->st_size >= MLZ_CONTROL_BYTES;
}

bool mlz_session_open(void) {
  mlz_agent.whole = false;
  long fd = mlz_session_arena();
  if (failed(fd)) return false;
  struct stat st;
  struct mlz_control *c = NULL;
  bool ok = false;
  if (arena_trusted(fd, &st) && (c = arena_map(fd, 0, MLZ_CONTROL_BYTES))) {
    ok = c->magic == MLZ_ARENA_MAGIC && c->abi == MLZ_ARENA_ABI && c->control_bytes >= sizeof(*c) &&
         c->arena_bytes == (uint64_t)st.st_size && !mlz_recorder_died(c);
    if (ok && !address_space_limited()) {
      struct mlz_control *whole = arena_map(fd, 0, c->arena_bytes);
      if (whole) {
        mlz_sys3(SYS_munmap, (long)c, MLZ_CONTROL_BYTES, 0);
        c = whole;
        mlz_agent.whole = true;
      }
    }
    if (!ok) mlz_sys3(SYS_munmap, (long)c, MLZ_CONTROL_BYTES, 0);
  }
  mlz_sys3(SYS_close, fd, 0, 0);
  if (ok) mlz_agent.peer.control = c;
  return ok;
}

bool mlz_session_reachable(void) {
  struct stat st;
  long fd = mlz_session_arena();
  if (failed(fd)) return fd == -EMFILE || fd == -ENFILE; /* an exec closes what is in the way */
  bool ok = arena_trusted(fd, &st);
  mlz_sys3(SYS_close, fd, 0, 0);
  return ok;
}

void mlz_session_close(void) {
  struct mlz_control *c = mlz_agent_control();
  if (c == &mlz_no_control) return; /* a fork's child of a process that was about to open or to close it */
  long bytes = mlz_agent.whole ? (long)c->arena_bytes : MLZ_CONTROL_BYTES;
  mlz_agent.peer.control = &mlz_no_control;
  mlz_sys3(SYS_munmap, (long)c, bytes, 0);
}

/* Allocates a ring's pages now: a lack of memory must be an answer here, not a SIGBUS later. */
static bool populate(struct mlz_ring *r, uint64_t bytes, uint64_t offset) {
  if (!failed(mlz_sys3(SYS_madvise, (long)r, (long)bytes, MADV_POPULATE_WRITE))) return true;
  long fd = mlz_session_arena(); /* before Linux 5.14 */
  if (failed(fd)) return false;
  long done = mlz_sys6(SYS_fallocate, fd, 0, (long)offset, (long)bytes, 0, 0);
  mlz_sys3(SYS_close, fd, 0, 0);
  return !failed(done);
}

static struct mlz_ring *ring_map(uint32_t index) {
  struct mlz_control *c = mlz_agent_control();
  uint64_t offset = c->ring_offset + (uint64_t)index * c->ring_stride;
  if (mlz_agent.whole) return mlz_arena_ring(c, index);
  long fd = mlz_session_arena();
  if (failed(fd)) return NULL;
  struct mlz_ring *r = arena_map(fd, offset, c->ring_stride);
  mlz_sys3(SYS_close, fd, 0, 0);
  return r;
}
void mlz_session_unmap(struct mlz_ring *r) {
  if (!mlz_agent.whole) mlz_sys3(SYS_munmap, (long)r, (long)mlz_agent_control()->ring_stride, 0);
}

static bool ring_try(struct mlz_ring *r, uint32_t pid) {
  uint32_t state = MLZ_RING_FREE;
  if (atomic_load_explicit(&r->state, memory_order_relaxed) != MLZ_RING_FREE) return false;
  if (!atomic_compare_exchange_strong_explicit(&r->state, &state, MLZ_RING_CLAIMED, memory_order_acq_rel, memory_order_relaxed))
    return false;
  atomic_store_explicit(&r->pid, pid, memory_order_relaxed);
  return true;
}

static void raise_high(struct mlz_control *c, uint32_t to) {
  uint32_t high = atomic_load_explicit(&c->ring_high, memory_order_relaxed);
  while (high < to && !atomic_compare_exchange_weak_explicit(&c->ring_high, &high, to, memory_order_release, memory_order_relaxed)) {}
}

struct mlz_ring *mlz_session_claim(uint32_t *index) {
  struct mlz_control *c = mlz_agent_control();
  uint32_t hint = atomic_load_explicit(&c->ring_hint, memory_order_relaxed) % c->ring_count;
  for (uint32_t k = 0; k < c->ring_count; k++) {
    uint32_t i = (hint + k) % c->ring_count;
    struct mlz_ring *r = ring_map(i);
    if (!r) break;
    /* The header's page first: reading a page that was never allocated must not fault for lack of memory. */
    if (populate(r, 4096, c->ring_offset + (uint64_t)i * c->ring_stride) && ring_try(r, mlz_agent.peer_pid)) {
      if (populate(r, c->ring_stride, c->ring_offset + (uint64_t)i * c->ring_stride)) {
        raise_high(c, i + 1);
        *index = i;
        return r;
      }
      mlz_session_unclaim(r);
      break;
    }
    mlz_session_unmap(r);
  }
  atomic_fetch_add_explicit(&c->threads_denied, 1, memory_order_relaxed);
  return NULL;
}

void mlz_session_unclaim(struct mlz_ring *r) {
  atomic_store_explicit(&r->pid, 0, memory_order_relaxed); /* else the next claim would look like ours for a moment */
  atomic_store_explicit(&r->state, MLZ_RING_FREE, memory_order_release);
  mlz_session_unmap(r);
}
