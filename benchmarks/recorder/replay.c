#include "benchmarks/recorder/replay.h"
#include "benchmarks/recorder/stream.h"
#include "tracer/recorder/arena.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct stream {
  const uint8_t *at, *end;
  struct stream_header header;
};

static int stream_open(struct stream *s, const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size < sizeof s->header) return -1;
  const uint8_t *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  close(fd);
  if (data == MAP_FAILED) return -1;
  memcpy(&s->header, data, sizeof s->header);
  s->at = data + sizeof s->header;
  s->end = data + st.st_size;
  return s->header.magic == STREAM_MAGIC && s->header.abi == MLZ_ARENA_ABI ? 0 : -1;
}

static void fill_wrapped(uint8_t *buffer, uint64_t size, uint64_t to, const uint8_t *from, uint64_t bytes) {
  uint64_t at = to & (size - 1), first = size - at < bytes ? size - at : bytes;
  memcpy(buffer + at, from, first);
  memcpy(buffer, from + first, bytes - first);
}

static void ring_begin(struct mlz_control *c, const struct stream_piece *p) {
  struct mlz_ring *r = mlz_arena_ring(c, p->ring);
  r->pid = (uint32_t)getpid();
  r->tid = (uint32_t)gettid();
  r->image = p->image;
  r->thread_no = p->thread_no;
  atomic_store(&r->state, MLZ_RING_LIVE);
  if (c->ring_high <= p->ring) c->ring_high = p->ring + 1;
}

/* Puts captured rounds into the rings, whole ones, until one ring holds `room` words or would overflow. false: the stream has ended. */
static bool fill(struct stream *s, struct mlz_control *c, uint32_t room) {
  uint32_t round = UINT32_MAX;
  bool enough = false;
  while (s->at < s->end) {
    struct stream_piece p;
    memcpy(&p, s->at, sizeof p);
    if (p.round != round && enough) return true;
    round = p.round;
    struct mlz_ring *r = mlz_arena_ring(c, p.ring);
    if (r->state != MLZ_RING_LIVE) ring_begin(c, &p);
    for (int i = 0; i < 2; i++) atomic_store(&r->near_base[i], p.near_base[i]);
    uint64_t head = r->head, side = r->side_head, held = head - r->tail;
    if (held + p.words > c->ring_words || side - r->side_tail + p.side_bytes > c->side_bytes) return true; /* the round is cut there */
    const uint8_t *words = s->at + sizeof p;
    fill_wrapped((uint8_t *)mlz_ring_words(r), c->ring_words * sizeof(uint64_t), head * sizeof(uint64_t), words,
                 p.words * sizeof(uint64_t));
    fill_wrapped(mlz_ring_side(r, c->ring_words), c->side_bytes, side, words + p.words * sizeof(uint64_t), p.side_bytes);
    atomic_store(&r->side_head, side + p.side_bytes);
    atomic_store(&r->head, head + p.words);
    s->at = words + p.words * sizeof(uint64_t) + p.side_bytes;
    enough |= held + p.words >= room;
  }
  return false;
}

int replay_file(const char *path, bool write, uint32_t room) {
  static struct bench b;
  struct stream s;
  if (stream_open(&s, path) < 0) {
    fprintf(stderr, "bench_drain: %s: no stream of this version; make one with capture_rings\n", path);
    return 2;
  }
  const uint8_t *data = s.at - sizeof s.header;
  if (bench_begin(&b, s.header.ring_words, s.header.settings, write) < 0) return 2;
  b.arena->control->base_ns = 0; /* the times of the stream are past */
  uint64_t taken = 0, filling = 0, started = bench_now(CLOCK_PROCESS_CPUTIME_ID);
  for (bool more = true; more;) {
    uint64_t t = bench_now(CLOCK_THREAD_CPUTIME_ID);
    more = fill(&s, b.arena->control, room);
    uint64_t u = bench_now(CLOCK_THREAD_CPUTIME_ID);
    mlz_drain_round(&b.drain);
    taken += bench_now(CLOCK_THREAD_CPUTIME_ID) - u;
    filling += u - t;
  }
  struct mlz_counters n = mlz_drain_counters(&b.drain);
  if (n.broken) fprintf(stderr, "bench_drain: %s: %llu rings broken\n", path, (unsigned long long)n.broken);
  const char *name = strrchr(path, '/');
  bench_end(&b, name ? name + 1 : path, n.allocs + n.frees, taken, started, filling);
  munmap((void *)(uintptr_t)data, (size_t)(s.end - data));
  return 0;
}
