/* Race test of a ring (docs/concurrency.md, rules 1-7): the agent's own producer (tracer/agent/ring_producer.c) against a reader
 * written from the rules, with deaths and stops at random instants. No Criterion: it is built under TSan too.
 *
 *   ring_stress run     two processes, block and drop mixed; every published message arrives whole and in order
 *   ring_stress kill    the producer is killed (SIGKILL) again and again; all below `head` is whole, nothing published is missing
 *   ring_stress stop    the reader is stopped and continued, last killed; the producer comes to its end in time
 *   ring_stress threads producer and reader are threads of one process (for TSan)
 *
 * A second argument is the seed; it is printed, so that a failing run can be repeated as far as timing allows. */
#include "tracer/agent/ring_producer.h"
#include "tracer/agent/sys.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 64u /* small, so that it is full most of the time */
#define SIDE 256u
#define PAYLOAD_MAX 9u
#define RUN_NS UINT64_C(2500000000)

/* Beside the ring: what the two sides did, for the checks at the end. */
struct tally {
  _Atomic uint64_t attempts, published, dropped, last_published; /* producer's; published: raised after the message was */
  _Atomic uint64_t received, late;                               /* reader's; late: found by a time-out of its sleep */
  _Atomic uint32_t producer_done, reader_failed;
};

struct stage {
  struct mlz_control *control;
  struct mlz_ring *ring;
  struct tally *tally;
};

struct reader {
  struct stage *stage;
  uint64_t pos, side_pos, last;
};

static uint64_t random_state;
static uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}
static uint64_t random_next(void) { return mix(random_state += UINT64_C(0x9e3779b97f4a7c15)); }

#define CHECK(condition, ...)                                                                                                              \
  do {                                                                                                                                     \
    if (!(condition)) {                                                                                                                    \
      fprintf(stderr, "ring_stress: " __VA_ARGS__);                                                                                        \
      fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__);                                                                                   \
      exit(1);                                                                                                                             \
    }                                                                                                                                      \
  } while (0)

/* What attempt `n` looks like: both sides know. */
static uint32_t payload_of(uint64_t n) { return (uint32_t)(mix(n) % PAYLOAD_MAX); }
static uint32_t side_of(uint64_t n) { return mix(n + 1) % 8 ? 0 : (uint32_t)(1 + mix(n + 2) % (SIDE / 2)); }
static enum mlz_room mode_of(uint64_t n) { return side_of(n) || mix(n + 3) % 4 ? MLZ_ROOM_BLOCK : MLZ_ROOM_DROP; }

static void stage_init(struct stage *s) {
  size_t bytes = MLZ_CONTROL_BYTES + sizeof(struct mlz_ring) + WORDS * sizeof(uint64_t) + SIDE + 4096;
  int fd = memfd_create("ring_stress", MFD_CLOEXEC);
  CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "memfd: %s", strerror(errno));
  void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(map != MAP_FAILED, "mmap: %s", strerror(errno));
  close(fd);
  struct mlz_control *c = map;
  c->magic = MLZ_ARENA_MAGIC;
  c->abi = MLZ_ARENA_ABI;
  c->ring_offset = MLZ_CONTROL_BYTES;
  c->ring_stride = bytes - MLZ_CONTROL_BYTES;
  c->ring_count = 1;
  c->ring_words = WORDS;
  c->side_bytes = SIDE;
  c->base_ns = mlz_sys_monotonic();
  s->control = c;
  s->ring = mlz_arena_ring(c, 0);
  s->tally = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(s->tally != MAP_FAILED, "mmap: %s", strerror(errno));
}

static void stage_reset(struct stage *s) {
  memset(s->ring, 0, sizeof *s->ring);
  memset(s->tally, 0, sizeof *s->tally);
  memset(s->control->recorder_mutex, 0, sizeof s->control->recorder_mutex);
  atomic_store(&s->control->sleeping, 0);
}

/* ---- producer ---- */

static bool produce_one(struct mlz_producer *p, uint64_t n) {
  uint32_t payload = payload_of(n), side = side_of(n);
  uint8_t bytes[SIDE];
  if (side) {
    for (uint32_t i = 0; i < side; i++) bytes[i] = (uint8_t)mix(n * 131 + i);
    side = mlz_producer_side(p, bytes, side);
    if (!side) return false;
  }
  /* As event.c does when the clock word says so. */
  if (atomic_load_explicit(&p->peer->control->clock, memory_order_relaxed) & MLZ_CLOCK_ASLEEP) mlz_peer_clock(p->peer);
  if (n % 3 && 2 + payload <= MLZ_QUICK && mlz_producer_quick(p)) {
    p->cursor[0] = mlz_head_word(MLZ_K_MARK, 0, 0, n);
    p->cursor[1] = (uint64_t)side << 32 | payload;
    for (uint32_t i = 0; i < payload; i++) p->cursor[2 + i] = mix(n ^ i);
    mlz_producer_advance(p, 2 + payload);
    mlz_producer_side_keep(p);
    return true;
  }
  if (!mlz_producer_room(p, 2 + payload, mode_of(n))) {
    mlz_producer_side_undo(p);
    return false;
  }
  *mlz_producer_word(p, 0) = mlz_head_word(MLZ_K_MARK, 0, 0, n);
  *mlz_producer_word(p, 1) = (uint64_t)side << 32 | payload;
  for (uint32_t i = 0; i < payload; i++) *mlz_producer_word(p, 2 + i) = mix(n ^ i);
  mlz_producer_publish(p, 2 + payload);
  mlz_producer_side_keep(p);
  return true;
}

static void produce(struct stage *s, uint64_t limit_ns) {
  static struct mlz_peer peer;
  memset(&peer, 0, sizeof peer);
  peer.control = s->control;
  struct mlz_producer p;
  mlz_producer_init(&p, &peer, s->ring);
  uint64_t end = mlz_sys_monotonic() + limit_ns;
  for (uint64_t n = 1; n % 64 || mlz_sys_monotonic() < end; n++) {
    atomic_store_explicit(&s->tally->attempts, n, memory_order_relaxed);
    if (produce_one(&p, n)) {
      atomic_fetch_add_explicit(&s->tally->published, 1, memory_order_relaxed);
      atomic_store_explicit(&s->tally->last_published, n, memory_order_relaxed);
    } else {
      atomic_fetch_add_explicit(&s->tally->dropped, 1, memory_order_relaxed);
    }
    if (n % 4096 == 0) usleep(mix(n) % 400); /* now and then nothing to do: the reader falls asleep */
  }
  atomic_store_explicit(&s->tally->producer_done, 1, memory_order_release);
  mlz_peer_wake(&peer);
}

/* ---- reader ---- */

static void release(struct reader *r) {
  struct mlz_ring *ring = r->stage->ring;
  atomic_store_explicit(&ring->side_tail, r->side_pos, memory_order_release);
  atomic_store_explicit(&ring->tail, r->pos, memory_order_release);
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_load_explicit(&ring->waiting, memory_order_relaxed)) {
    atomic_fetch_add_explicit(&ring->room_futex, 1, memory_order_relaxed);
    mlz_sys_futex_wake(&ring->room_futex);
  }
}

static void read_one(struct reader *r, uint64_t head) {
  const uint64_t *words = mlz_ring_words(r->stage->ring), first = words[r->pos % WORDS], second = words[(r->pos + 1) % WORDS];
  const uint8_t *side = mlz_ring_side(r->stage->ring, WORDS);
  uint64_t n = mlz_word_value(first);
  CHECK(mlz_word_kind(first) == MLZ_K_MARK, "word %ju is no head of a message", (uintmax_t)r->pos);
  CHECK(n > r->last, "message %ju after %ju", (uintmax_t)n, (uintmax_t)r->last);
  uint32_t payload = (uint32_t)second, bytes = (uint32_t)(second >> 32);
  CHECK(payload == payload_of(n) && bytes == side_of(n), "message %ju is not what was sent", (uintmax_t)n);
  CHECK(r->pos + 2 + payload <= head, "message %ju is only half published", (uintmax_t)n);
  for (uint32_t i = 0; i < payload; i++)
    CHECK(words[(r->pos + 2 + i) % WORDS] == mix(n ^ i), "message %ju is torn at word %u", (uintmax_t)n, i);
  for (uint32_t i = 0; i < bytes; i++)
    CHECK(side[(r->side_pos + i) % SIDE] == (uint8_t)mix(n * 131 + i), "message %ju: side byte %u is wrong", (uintmax_t)n, i);
  r->last = n;
  r->pos += 2 + payload;
  r->side_pos += bytes;
  atomic_fetch_add_explicit(&r->stage->tally->received, 1, memory_order_relaxed);
}

/* Reads all that is published; gives room back at random places. True: there was something. */
static bool read_all(struct reader *r) {
  uint64_t head = atomic_load_explicit(&r->stage->ring->head, memory_order_acquire);
  if (head == r->pos) return false;
  CHECK(head > r->pos && head - r->pos <= WORDS, "head %ju, read up to %ju", (uintmax_t)head, (uintmax_t)r->pos);
  while (r->pos != head) {
    read_one(r, head);
    if (random_next() % 8 == 0) release(r);
  }
  release(r);
  return true;
}

static void sleep_until_woken(struct reader *r) {
  struct mlz_control *c = r->stage->control;
  const struct timespec longest = {.tv_nsec = 50000000};
  uint32_t ticket = atomic_load_explicit(&c->wake, memory_order_relaxed);
  atomic_store_explicit(&c->sleeping, 1, memory_order_relaxed);
  mlz_clock_sleep(c);
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_load_explicit(&r->stage->ring->head, memory_order_relaxed) == r->pos &&
      mlz_sys_futex_wait(&c->wake, ticket, &longest) == -ETIMEDOUT &&
      atomic_load_explicit(&r->stage->ring->head, memory_order_relaxed) != r->pos)
    atomic_fetch_add_explicit(&r->stage->tally->late, 1, memory_order_relaxed);
  atomic_store_explicit(&c->sleeping, 0, memory_order_relaxed);
}

static void read_until_done(struct reader *r) {
  for (unsigned idle = 0;;) {
    bool done = atomic_load_explicit(&r->stage->tally->producer_done, memory_order_acquire);
    if (read_all(r)) {
      idle = 0;
    } else if (done) {
      break;
    } else if (++idle > 20) {
      sleep_until_woken(r);
      idle = 0;
    }
    if (random_next() % 512 == 0) usleep((useconds_t)(random_next() % 300)); /* so that the ring fills up */
  }
}

/* The reader as a process of its own holds the robust mutex, whose owner's death the kernel marks. */
static void hold_recorder_mutex(struct stage *s) {
  pthread_mutexattr_t attr;
  pthread_mutex_t *m = (pthread_mutex_t *)(void *)s->control->recorder_mutex;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  CHECK(pthread_mutex_init(m, &attr) == 0 && pthread_mutex_lock(m) == 0, "recorder mutex");
}

/* ---- the four runs ---- */

static pid_t start(struct stage *s, void (*body)(struct stage *)) {
  pid_t pid = fork();
  CHECK(pid >= 0, "fork: %s", strerror(errno));
  if (pid == 0) {
    body(s);
    _exit(0);
  }
  return pid;
}
static void produce_body(struct stage *s) { produce(s, RUN_NS); }
static void read_body(struct stage *s) {
  struct reader r = {.stage = s};
  hold_recorder_mutex(s);
  read_until_done(&r);
}

static void check_all_arrived(struct stage *s) {
  struct tally *t = s->tally;
  uint64_t attempts = t->attempts, published = t->published, dropped = t->dropped, received = t->received;
  CHECK(attempts == published + dropped, "%ju attempts, %ju published, %ju dropped", (uintmax_t)attempts, (uintmax_t)published,
        (uintmax_t)dropped);
  CHECK(received == published, "%ju published, %ju received", (uintmax_t)published, (uintmax_t)received);
  CHECK(published > 10000, "only %ju messages: no stress", (uintmax_t)published);
  printf("# %ju published, %ju dropped, %ju found late, blocked %ju times\n", (uintmax_t)published, (uintmax_t)dropped, (uintmax_t)t->late,
         (uintmax_t)s->ring->blocked_count);
}

static void run_processes(struct stage *s) {
  pid_t pid = start(s, produce_body);
  struct reader r = {.stage = s};
  hold_recorder_mutex(s);
  read_until_done(&r);
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && status == 0, "producer ended with %d", status);
  check_all_arrived(s);
}

static void run_kill(struct stage *s) {
  uint64_t end = mlz_sys_monotonic() + RUN_NS, kills = 0, received = 0;
  while (mlz_sys_monotonic() < end || kills < 20) {
    stage_reset(s);
    pid_t pid = start(s, produce_body);
    struct reader r = {.stage = s};
    uint64_t until = mlz_sys_monotonic() + random_next() % 8000000;
    if (random_next() % 4 == 0) usleep((useconds_t)(random_next() % 8000)); /* killed while it waits for room */
    while (mlz_sys_monotonic() < until) read_all(&r);
    CHECK(kill(pid, SIGKILL) == 0, "kill: %s", strerror(errno));
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "producer ended with %d", status);
    read_all(&r);
    uint64_t published = s->tally->published;
    CHECK(s->tally->received == published || s->tally->received == published + 1, "%ju published, %ju received", (uintmax_t)published,
          (uintmax_t)s->tally->received); /* + 1: killed after it had published, before it counted */
    CHECK(r.last >= s->tally->last_published, "message %ju was published, %ju is the last one read", (uintmax_t)s->tally->last_published,
          (uintmax_t)r.last);
    received += s->tally->received;
    kills++;
  }
  CHECK(received > 10000, "only %ju messages: no stress", (uintmax_t)received);
  printf("# %ju kills, %ju messages\n", (uintmax_t)kills, (uintmax_t)received);
}

static void run_stop(struct stage *s) {
  uint64_t end = mlz_sys_monotonic() + RUN_NS;
  pid_t reader = start(s, read_body);
  while (s->control->recorder_mutex[0] == 0) usleep(100);
  pid_t producer = start(s, produce_body);
  unsigned stops = 0;
  int status;
  for (; mlz_sys_monotonic() < end - RUN_NS / 4; stops++) {
    usleep((useconds_t)(random_next() % 20000));
    CHECK(kill(reader, SIGSTOP) == 0, "kill: %s", strerror(errno));
    usleep((useconds_t)(stops == 3 ? 1300000 : random_next() % 20000)); /* once long enough to be given up */
    CHECK(kill(reader, SIGCONT) == 0, "kill: %s", strerror(errno));
  }
  CHECK(waitpid(reader, &status, WNOHANG) == 0, "the reader ended early with %d", status);
  kill(reader, SIGKILL);
  CHECK(waitpid(reader, &status, 0) == reader && WIFSIGNALED(status), "reader ended with %d", status);
  CHECK(mlz_recorder_died(s->control), "the death of the mutex's owner is not marked");
  CHECK(waitpid(producer, &status, 0) == producer && status == 0, "producer ended with %d", status);
  uint64_t over = mlz_sys_monotonic() - end;
  CHECK((int64_t)over < INT64_C(1000000000), "the producer ended %ju ms late", (uintmax_t)(over / 1000000));
  struct tally *t = s->tally;
  CHECK(t->attempts == t->published + t->dropped, "%ju attempts, %ju published, %ju dropped", (uintmax_t)t->attempts,
        (uintmax_t)t->published, (uintmax_t)t->dropped);
  CHECK(s->ring->head - s->ring->tail <= WORDS, "%ju words unread in a ring of %u", (uintmax_t)(s->ring->head - s->ring->tail), WORDS);
  CHECK(t->received > 10000 && t->dropped > 1000, "%ju received, %ju dropped: no stress", (uintmax_t)t->received, (uintmax_t)t->dropped);
  printf("# %u stops, %ju received, %ju dropped\n", stops, (uintmax_t)t->received, (uintmax_t)t->dropped);
}

static void *produce_thread(void *s) {
  produce(s, RUN_NS);
  return NULL;
}
static void run_threads(struct stage *s) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, produce_thread, s) == 0, "pthread_create");
  struct reader r = {.stage = s};
  read_until_done(&r);
  pthread_join(thread, NULL);
  check_all_arrived(s);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(struct stage *);
  } runs[] = {{"run", run_processes}, {"kill", run_kill}, {"stop", run_stop}, {"threads", run_threads}};
  random_state = argc > 2 ? strtoull(argv[2], NULL, 0) : mlz_sys_monotonic();
  setvbuf(stdout, NULL, _IONBF, 0);
  printf("# seed %ju\n", (uintmax_t)random_state);
  alarm(60); /* nothing here may hang */
  for (size_t i = 0; argc > 1 && i < sizeof runs / sizeof *runs; i++) {
    if (strcmp(argv[1], runs[i].name) != 0) continue;
    struct stage s;
    stage_init(&s);
    runs[i].run(&s);
    return 0;
  }
  fprintf(stderr, "usage: ring_stress run|kill|stop|threads [SEED]\n");
  return 2;
}
