/* How many events a second the drain takes. Only its rounds are timed. Prints a line for each run, without and with the builders and the writer thread.
 *   bench_drain                             synthetic programs in one ring of this process
 *   bench_drain [-c|-w] [-r ROOM] FILE...   streams of real programs (capture_rings); -c: counted only, -w: written only;
 *                                           -r: words that a round holds at least (4096); -o TRACE: keeps what the last run wrote */
#include "benchmarks/recorder/replay.h"
#include "tracer/recorder/arena.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORDS 16384u
#define BASE UINT64_C(0x7f0000000)
#define EVENTS 10000000u

uint64_t bench_now(int clock) {
  struct timespec t;
  clock_gettime((clockid_t)clock, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct program {
  struct mlz_ring *ring;
  uint64_t head, seed, events;
  uint64_t live[1u << 20]; /* granules of live blocks; 0: none */
  unsigned spread;         /* blocks that may be live at once */
  unsigned changes;        /* of 256 allocations, so many have another stack than the one before */
};

static uint64_t random_next(struct program *p) {
  p->seed ^= p->seed << 13;
  p->seed ^= p->seed >> 7;
  return p->seed ^= p->seed << 17;
}

static void put(struct program *p, uint64_t a) { mlz_ring_words(p->ring)[p->head++ & (WORDS - 1)] = a; }
static void put_two(struct program *p, uint64_t a, uint64_t b) {
  put(p, a);
  put(p, b);
}

/* Blocks of 32 to 80 bytes in a pool of 80-byte cells, freed in random order; a stack of ten frames whose inner ones change:
 * 4096 different stacks. */
static void step(struct program *p) {
  uint64_t r = random_next(p);
  unsigned i = (unsigned)(r % p->spread);
  p->events++;
  if (p->live[i]) {
    put(p, mlz_head_word(MLZ_K_FREE, 0, MLZ_D_OBJ, p->live[i]));
    p->live[i] = 0;
    return;
  }
  p->live[i] = BASE + (uint64_t)i * 5;
  unsigned push = (r >> 32 & 255) < p->changes ? 1 + (unsigned)(r >> 40 & 1) : 0;
  put(p, mlz_near_word(p->live[i] - BASE, push, push, 32 + (r >> 57 & 3) * 16, 0, MLZ_D_OBJ));
  if (push == 1) put(p, MLZ_FRAME(1 + (r >> 53 & 31), (r >> 58 & 7) * 2));
  if (push == 2) put_two(p, MLZ_FRAME(1 + (r >> 53 & 15), 2), MLZ_FRAME(1 + (r >> 57 & 31), (r >> 62) * 2));
}

static void begin(struct program *p, struct mlz_control *c) {
  p->ring = mlz_arena_ring(c, 0);
  p->ring->pid = (uint32_t)getpid();
  p->ring->tid = (uint32_t)gettid();
  p->ring->image = 1;
  atomic_store(&p->ring->near_base[0], BASE);
  uint8_t body[128];
  memset(body, 'x', sizeof body);
  struct mlz_code_header h = {.file_bytes = 20, .name_bytes = 10, .module_bytes = 10, .lines_bytes = 64, .lines_format = MLZ_LINES_310};
  for (unsigned id = 1; id <= 33; id++) {
    h.first_line = (int32_t)id * 100;
    memcpy(body, &h, sizeof h);
    for (unsigned i = 0; i < 64; i++) body[sizeof h + 40 + i] = i & 1 ? 1 : 2;
    uint8_t *side = mlz_ring_side(p->ring, WORDS) + (id - 1) * 128;
    memcpy(side, body, 128);
    put_two(p, mlz_head_word(MLZ_K_CODE, 0, 0, id), 128);
  }
  atomic_store(&p->ring->side_head, 33 * 128);
  put_two(p, mlz_head_word(MLZ_K_STACK, MLZ_F_RESET, 0, 0), mlz_size_word(0, 0, 10));
  for (uint32_t i = 0; i < 5; i++) put_two(p, MLZ_FRAME(1 + i, 4), MLZ_FRAME(6 + i, 8));
  atomic_store(&p->ring->state, MLZ_RING_LIVE);
  c->ring_high = 1;
}

static const char *bench_output;

int bench_begin(struct bench *b, uint32_t words, uint64_t settings, bool write) {
  static struct mlz_arena arena;
  *b = (struct bench){.arena = &arena};
  if (mlz_arena_make(&arena, "bench", words, settings, 0, true) < 0) return -1;
  if (write) {
    char path[] = "/tmp/bench-drain-XXXXXX";
    int fd = bench_output ? open(bench_output, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : mkstemp(path);
    if (!bench_output) unlink(path);
    json_t *meta = json_object();
    if (fd < 0 || mlz_writer_new(&b->writer, fd, meta, 0) < 0 || mlz_emit_new(&b->emit, b->writer) < 0) return -1;
    json_decref(meta);
  }
  return mlz_drain_init(&b->drain, arena.control, b->writer, b->emit, 1);
}

void bench_end(struct bench *b, const char *name, uint64_t events, uint64_t taken_ns, uint64_t started_ns, uint64_t filling_ns) {
  if (b->emit) {
    mlz_image_seal(&b->drain);
    mlz_emit_join(b->emit);
    json_t *summary = json_pack("{s:b}", "complete", 1);
    if (mlz_writer_finish(b->writer, summary) < 0) fprintf(stderr, "bench_drain: writing failed\n");
    json_decref(summary);
  }
  uint64_t all = bench_now(CLOCK_PROCESS_CPUTIME_ID) - started_ns - filling_ns;
  double n = (double)events;
  printf("%-34s %s  %9.3f M events  drain thread %5.1f ns/event (%5.1f M/s), all threads %5.1f ns/event", name,
         b->emit ? "written" : "counted", n / 1e6, (double)taken_ns / n, 1e3 * n / (double)taken_ns, (double)all / n);
  if (b->emit) printf(", %.3f bytes/event", (double)mlz_emit_bytes(b->emit) / n);
  puts("");
  fflush(stdout);
  mlz_emit_free(b->emit);
  mlz_drain_deinit(&b->drain);
  mlz_writer_free(b->writer);
  mlz_arena_unmake(b->arena);
}

static int run(const char *name, unsigned spread, unsigned changes, bool write) {
  static struct bench b;
  struct program *p = calloc(1, sizeof *p);
  if (!p || bench_begin(&b, WORDS, UINT64_C(0xffffffff) | UINT64_C(10) << MLZ_SET_DEPTH_SHIFT, write) < 0) return 2;
  p->seed = 88172645463325252u;
  p->spread = spread;
  p->changes = changes;
  begin(p, b.arena->control);
  uint64_t taken = 0, filling = 0, started = bench_now(CLOCK_PROCESS_CPUTIME_ID);
  while (p->events < EVENTS) {
    uint64_t t = bench_now(CLOCK_THREAD_CPUTIME_ID);
    while (p->head + 4 < atomic_load(&p->ring->tail) + WORDS / 4) step(p);
    atomic_store(&p->ring->head, p->head);
    uint64_t u = bench_now(CLOCK_THREAD_CPUTIME_ID);
    mlz_drain_round(&b.drain);
    taken += bench_now(CLOCK_THREAD_CPUTIME_ID) - u;
    filling += u - t;
  }
  bench_end(&b, name, p->events, taken, started, filling);
  free(p);
  return 0;
}

static int synthetic(void) {
  for (int write = 0; write < 2; write++) {
    if (run("1 k blocks live, same stack", 1u << 10, 0, write) || run("1 k blocks live, 30% other stacks", 1u << 10, 77, write) ||
        run("64 k blocks live, 30% other stacks", 1u << 16, 77, write) || run("1 M blocks live, 90% other stacks", 1u << 20, 230, write))
      return 2;
  }
  return 0;
}

int main(int argc, char **argv) {
  unsigned runs = 3, room = WORDS / 4;
  for (int c; (c = getopt(argc, argv, "cwr:o:")) >= 0;) {
    if (c == 'c') runs = 1;
    if (c == 'w') runs = 2;
    if (c == 'r') room = (unsigned)atoi(optarg);
    if (c == 'o') bench_output = optarg;
    if (c == '?') return 2;
  }
  if (optind == argc) return synthetic();
  for (int write = 0; write < 2; write++) {
    for (int i = optind; i < argc && runs >> write & 1; i++) {
      if (replay_file(argv[i], write, room) != 0) return 2;
    }
  }
  return 0;
}
