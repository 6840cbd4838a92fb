#include "tracer/recorder/arena.h"

#include "shm/mailbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RINGS 1024u
#define RINGS_MIN 4u
#define SIDE_BYTES (64u << 10)
#define ARENA_BYTES_MAX (UINT64_C(64) << 30) /* virtual; pages exist only where a ring was claimed */

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(((struct mlz_control *)0)->recorder_mutex), "the mutex fits its line");
_Static_assert(sizeof(pthread_mutex_t) <= sizeof(((struct mlz_mailbox *)0)->asking), "the mutex fits its place");

/* glibc keeps the futex in the mutex's first word, which mlz_recorder_died reads. */
static int mutexes_make(struct mlz_control *c) {
  pthread_mutexattr_t attr;
  pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)c->recorder_mutex;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  int r = pthread_mutex_init((pthread_mutex_t *)(void *)mlz_arena_mailbox(c)->asking, &attr);
  if (r == 0) r = pthread_mutex_init(mutex, &attr);
  if (r == 0) r = pthread_mutex_lock(mutex);
  pthread_mutexattr_destroy(&attr);
  return -r;
}

static void control_fill(struct mlz_control *c, uint64_t bytes, uint64_t stride, uint32_t rings, uint32_t words) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  c->abi = MLZ_ARENA_ABI;
  c->control_bytes = sizeof *c;
  c->arena_bytes = bytes;
  c->ring_offset = MLZ_CONTROL_BYTES;
  c->ring_stride = stride;
  c->ring_count = rings;
  c->ring_words = words;
  c->side_bytes = SIDE_BYTES;
  c->recorder_pid = (uint32_t)getpid();
  c->base_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
  atomic_store(&c->image_next, 1);
  atomic_store(&c->code_next, 1);
  atomic_store(&c->order_next, 1);
}

/* Sized for `rings`; -ENOMEM where the address space does not allow it (ulimit -v), -EFBIG where ulimit -f does not. */
static int arena_try(struct mlz_arena *a, uint64_t stride, uint32_t rings, uint32_t words) {
  uint64_t bytes = MLZ_CONTROL_BYTES + stride * rings;
  if (ftruncate(a->fd, (off_t)bytes) < 0) return -errno;
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a->fd, 0);
  if (at == MAP_FAILED) return -errno;
  a->control = at;
  control_fill(a->control, bytes, stride, rings, words);
  return 0;
}

int mlz_arena_make(struct mlz_arena *a, const char *name, uint32_t words, uint64_t settings, uint64_t sample_over, bool follow) {
  a->control = NULL;
  a->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (a->fd < 0) return -errno;
  uint64_t stride = (sizeof(struct mlz_ring) + (uint64_t)words * sizeof(uint64_t) + SIDE_BYTES + 4095) & ~UINT64_C(4095);
  int r = -ENOMEM;
  for (uint32_t rings = RINGS; (r == -ENOMEM || r == -EFBIG) && rings >= RINGS_MIN; rings /= 2) {
    if (stride * rings <= ARENA_BYTES_MAX || rings == RINGS_MIN) r = arena_try(a, stride, rings, words);
  }
  if (r == 0) r = mutexes_make(a->control);
  if (r == 0) {
    atomic_store(&a->control->sample_over, sample_over);
    a->control->follow = follow;
    atomic_store(&a->control->settings, settings);
    a->control->magic = MLZ_ARENA_MAGIC;
    if (fcntl(a->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) r = -errno;
  }
  if (r < 0) mlz_arena_unmake(a);
  return r;
}

void mlz_arena_unmake(struct mlz_arena *a) {
  if (a->control) {
    pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)a->control->recorder_mutex;
    if (*(const uint32_t *)(const void *)mutex) pthread_mutex_unlock(mutex); /* held: it is in this thread's list of robust mutexes */
    munmap(a->control, a->control->arena_bytes);
  }
  close(a->fd);
  a->control = NULL;
}

uint64_t mlz_arena_clock(const struct mlz_control *c) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec - c->base_ns;
}
