/* capture_rings AGENT FILE COMMAND [ARG...]: runs COMMAND traced and writes what its threads put into their rings to FILE, undecoded, for bench_drain. */
#include "benchmarks/recorder/stream.h"
#include "tracer/recorder/arena.h"
#include "tracer/recorder/launch.h"
#include "tracer/recorder/session.h"

#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WORDS 16384u
#define DEPTH UINT64_C(10)

static int fail(const char *what) {
  fprintf(stderr, "capture_rings: %s\n", what);
  return 2;
}

static void write_wrapped(FILE *out, const uint8_t *buffer, uint64_t size, uint64_t from, uint64_t bytes) {
  uint64_t at = from & (size - 1), first = size - at < bytes ? size - at : bytes;
  fwrite(buffer + at, 1, first, out);
  fwrite(buffer, 1, bytes - first, out);
}

static void give_room(struct mlz_ring *r, uint64_t head, uint64_t side) {
  atomic_store_explicit(&r->side_tail, side, memory_order_release);
  atomic_store_explicit(&r->tail, head, memory_order_release);
  atomic_thread_fence(memory_order_seq_cst);
  if (!atomic_load_explicit(&r->waiting, memory_order_relaxed)) return;
  atomic_fetch_add(&r->room_futex, 1);
  syscall(SYS_futex, &r->room_futex, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Rings are never released: there are enough for a benchmark. Returns the words taken. */
static uint64_t take_round(FILE *out, struct mlz_control *c, uint32_t round) {
  uint64_t taken = 0;
  uint32_t high = atomic_load(&c->ring_high);
  bool asleep;
  mlz_clock_raise(c, mlz_arena_clock(c), &asleep);
  for (uint32_t i = 0; i < high; i++) {
    struct mlz_ring *r = mlz_arena_ring(c, i);
    if (atomic_load_explicit(&r->state, memory_order_acquire) != MLZ_RING_LIVE) continue;
    uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire), side = atomic_load_explicit(&r->side_head, memory_order_relaxed);
    uint64_t tail = atomic_load(&r->tail), side_tail = atomic_load(&r->side_tail);
    if (head == tail) continue;
    struct stream_piece p = {i, r->image, r->thread_no, round, head - tail, side - side_tail, {r->near_base[0], r->near_base[1]}};
    fwrite(&p, sizeof p, 1, out);
    write_wrapped(out, (const uint8_t *)mlz_ring_words(r), WORDS * sizeof(uint64_t), tail * sizeof(uint64_t), p.words * sizeof(uint64_t));
    write_wrapped(out, mlz_ring_side(r, WORDS), c->side_bytes, side_tail, p.side_bytes);
    give_room(r, head, side);
    taken += p.words;
  }
  return taken;
}

static int capture(const char *agent, FILE *out, char **command, struct mlz_session *s, struct mlz_arena *a) {
  char preload[512];
  struct mlz_launch l;
  int error;
  uint64_t settings = UINT64_C(0xffffffff) | DEPTH << MLZ_SET_DEPTH_SHIFT | MLZ_SET_GC | MLZ_SET_PYTHON | MLZ_SET_MALLOC;
  if (mlz_arena_make(a, "memlyze-capture", WORDS, settings, 0, false) < 0) return fail("no shared memory");
  mlz_launch_wakes(a->control);
  snprintf(preload, sizeof preload, "%s/%s", s->path, MLZ_AGENT_NAME);
  if (mlz_session_link(s, agent, a->fd) < 0 || mlz_launch_fork(&l, command, preload) < 0) return fail("cannot start a process");
  if (mlz_launch_run(&l, &error) != 0) return fail("COMMAND cannot be run");
  struct stream_header h = {
      .magic = STREAM_MAGIC, .settings = settings, .abi = MLZ_ARENA_ABI, .ring_words = WORDS, .side_bytes = a->control->side_bytes};
  fwrite(&h, sizeof h, 1, out);
  uint64_t words = 0;
  for (uint32_t round = 0;; round++) {
    bool last = l.exited;
    words += take_round(out, a->control, round);
    if (last) break;
    mlz_launch_poll(&l);
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
  }
  fprintf(stderr, "capture_rings: %llu words, status %d\n", (unsigned long long)words, l.status);
  return l.status;
}

int main(int argc, char **argv) {
  struct mlz_session s;
  struct mlz_arena a;
  char err[512];
  if (argc < 4) return fail("usage: capture_rings AGENT FILE COMMAND [ARG...]");
  char *agent = realpath(argv[1], NULL);
  FILE *out = fopen(argv[2], "wbe");
  if (!agent || !out) return fail("AGENT is not there, or FILE cannot be written");
  mlz_launch_signals(false);
  if (mlz_session_make(&s, err, sizeof err) < 0) return fail(err);
  int status = capture(agent, out, argv + 3, &s, &a);
  mlz_session_remove(&s);
  free(agent);
  return fclose(out) == 0 ? status : fail("FILE: writing failed");
}
