/* What the file format costs: ns an event to append (drain thread), to compress and write (writer thread), to decode; bytes an event.
 *
 *   bench_format [EVENTS [LEVEL [STREAM]]]
 *
 * STREAM is a file of recorded events (struct step, as below) to use instead of the made-up patterns. */
#include "formats/reader.h"
#include "formats/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct step {
  uint64_t alloc; /* FREE: which allocation */
  uint32_t stack, size;
  uint8_t free, temp;
};

static uint32_t noise(void) {
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

struct stream {
  struct step *steps;
  size_t n, room;
  uint64_t allocs;
  uint64_t *live;
  size_t live_n;
  struct step *of; /* allocation -> its step */
};

static void put_alloc(struct stream *s, uint32_t stack, uint32_t size) {
  if (s->n >= s->room) return;
  s->of[s->allocs] = s->steps[s->n++] = (struct step){.alloc = s->allocs, .stack = stack, .size = size};
  s->live[s->live_n++] = s->allocs++;
}

static void put_free(struct stream *s, size_t live) {
  if (s->n >= s->room || live >= s->live_n) return;
  struct step step = s->of[s->live[live]];
  step.free = 1;
  step.temp = s->live[live] + 1 == s->allocs;
  s->steps[s->n++] = step;
  memmove(&s->live[live], &s->live[live + 1], (s->live_n - live - 1) * sizeof s->live[0]);
  s->live_n--;
}

static uint32_t skewed(uint32_t n) {
  uint32_t a = noise() % n, b = noise() % n, c = noise() % n;
  return a < b ? (a < c ? a : c) : (b < c ? b : c);
}

static void churn(struct stream *s) {
  while (s->n < s->room) {
    uint32_t k = skewed(60);
    put_alloc(s, k + 1, 32 + 16 * (k % 9));
    put_free(s, s->live_n - 1);
  }
}

static void loop(struct stream *s) {
  while (s->n < s->room) {
    for (uint32_t k = 0; k < 24; k++) {
      put_alloc(s, k + 1, 32 + 16 * (k % 5));
      if (k % 3 == 2) put_free(s, s->live_n - 2);
    }
    while (s->live_n > 0 && s->n < s->room) put_free(s, s->live_n - 1);
  }
}

static void queue(struct stream *s) {
  while (s->n < s->room) {
    put_alloc(s, 1 + noise() % 4, 64);
    if (s->live_n > 1000) put_free(s, 0);
  }
}

static void tree(struct stream *s) {
  while (s->n < s->room) {
    for (uint32_t i = 0; i < 30000; i++) put_alloc(s, 1 + skewed(7), 48 + 8 * (noise() % 3));
    while (s->live_n > 0 && s->n < s->room) put_free(s, s->n % 64 == 0 && s->live_n > 1 ? s->live_n - 2 : s->live_n - 1);
    if (s->n + 1 >= s->room) break;
  }
}

static void scattered(struct stream *s) {
  while (s->n < s->room) {
    put_alloc(s, 1 + skewed(300), 16 + 16 * skewed(20));
    if (s->live_n > 4000) put_free(s, noise() % s->live_n);
  }
}

static void mixed(struct stream *s) {
  while (s->n < s->room) {
    uint32_t k = skewed(400);
    put_alloc(s, 1 + k, 16 + 16 * (k % 11) + (k % 50 == 0 ? noise() % 1000 : 0));
    if (noise() % 8 != 0)
      put_free(s, s->live_n - 1);
    else if (s->live_n > 2000)
      put_free(s, noise() % 4 ? s->live_n - 1 - noise() % 8 : noise() % s->live_n);
  }
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what, int rc) {
  fprintf(stderr, "bench_format: %s: %s\n", what, strerror(-rc));
  exit(2);
}

static void fill(struct mlz_builder *b, const struct step *s, size_t n, uint64_t *now) {
  for (size_t i = 0; i < n; i++) {
    if (i % 5000 == 0) mlz_builder_time(b, *now += 1000000);
    if (s[i].free)
      mlz_builder_free_block(b, s[i].alloc, s[i].stack, s[i].size, 2, 1.0, s[i].temp);
    else
      mlz_builder_alloc(b, s[i].stack, s[i].size, 2, 1.0);
  }
}

static double decode(const char *path, unsigned want, uint64_t *check) {
  char err[256];
  struct mlz_trace *t;
  struct mlz_block b;
  double start = seconds();
  int rc = mlz_trace_open(&t, path, err, sizeof err);
  if (rc != 0) die(err, rc);
  while ((rc = mlz_trace_next(t, want, &b)) == 1)
    for (uint32_t i = 0; i < b.n; i++)
      *check += b.classes[b.classes_of[i]].size * (1 + b.ops[i]) + (want & MLZ_WANT_ALLOC_NO ? b.alloc_no[i] : 0);
  mlz_trace_close(t);
  return seconds() - start;
}

static uint64_t expected(const struct step *s, size_t n, bool numbers) {
  uint64_t check = 0;
  for (size_t i = 0; i < n; i++) check += s[i].alloc * numbers;
  return check;
}

static void measure(const char *name, const struct step *s, size_t n, int level) {
  char path[] = "/tmp/bench_format.XXXXXX";
  struct mlz_writer *w;
  struct mlz_builder *b = mlz_builder_new();
  json_t *meta = json_object();
  int fd = mkstemp(path), rc = b == NULL ? -ENOMEM : mlz_writer_new(&w, fd, meta, level);
  if (rc != 0) die("writer", rc);
  uint64_t now = 0, first = 0, before = mlz_writer_bytes(w);
  double append = 0, encode = 0, at = seconds();
  for (int i = 0; i < 500; i++) mlz_writer_stack(w, NULL, 0, false);
  for (size_t i = 0; i < n;) {
    size_t piece = n - i < MLZ_CHUNK_EVENTS_MAX - 8 ? n - i : MLZ_CHUNK_EVENTS_MAX - 8;
    at = seconds();
    mlz_builder_begin(b, 1, first, now);
    mlz_builder_thread(b, 1);
    fill(b, s + i, piece, &now);
    append += seconds() - at;
    for (size_t k = i; k < i + piece; k++) first += !s[k].free;
    at = seconds();
    rc = mlz_writer_append_events(w, b);
    encode += seconds() - at;
    if (rc != 0) die("append", rc);
    i += piece;
  }
  double bytes = (double)(mlz_writer_bytes(w) - before);
  rc = mlz_writer_finish(w, meta);
  if (rc != 0) die("finish", rc);
  mlz_writer_free(w);
  mlz_builder_free(b);
  json_decref(meta);
  uint64_t few = 0, all = 0;
  double fast = decode(path, 0, &few), slow = decode(path, MLZ_WANT_ALL, &all);
  if (all - few != expected(s, n, true)) {
    fprintf(stderr, "bench_format: %s: what was read is not what was written\n", name);
    exit(1);
  }
  double e = (double)n;
  printf("%-10s %10zu %8.2f %8.2f %8.1f %8.1f %8.4f\n", name, n, append / e * 1e9, encode / e * 1e9, e / fast / 1e6, e / slow / 1e6,
         bytes / e);
  unlink(path);
}

static void pattern(const char *name, void (*make)(struct stream *), size_t n, int level) {
  struct stream s = {.room = n};
  s.steps = malloc(n * sizeof s.steps[0]);
  s.of = malloc(n * sizeof s.of[0]);
  s.live = malloc(n * sizeof s.live[0]);
  if (s.steps == NULL || s.of == NULL || s.live == NULL) die("memory", -ENOMEM);
  make(&s);
  measure(name, s.steps, s.n, level);
  free(s.steps);
  free(s.of);
  free(s.live);
}

static void recorded(const char *path, size_t n, int level) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct step *s = malloc(n * sizeof *s);
  if (fd < 0 || s == NULL) die(path, -errno);
  size_t have = 0;
  ssize_t got;
  while (have < n * sizeof *s && (got = read(fd, (char *)s + have, n * sizeof *s - have)) > 0) have += (size_t)got;
  close(fd);
  const char *slash = strrchr(path, '/');
  measure(slash == NULL ? path : slash + 1, s, have / sizeof *s, level);
  free(s);
}

int main(int argc, char **argv) {
  size_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000000;
  int level = argc > 2 ? atoi(argv[2]) : 0;
  printf("%-10s %10s %8s %8s %8s %8s %8s\n", "pattern", "events", "append", "encode", "ops", "all", "bytes");
  printf("%-10s %10s %8s %8s %8s %8s %8s\n", "", "", "ns/ev", "ns/ev", "Mev/s", "Mev/s", "/event");
  if (argc > 3) {
    for (int i = 3; i < argc; i++) recorded(argv[i], n, level);
    return 0;
  }
  pattern("churn", churn, n, level);
  pattern("loop", loop, n, level);
  pattern("queue", queue, n, level);
  pattern("tree", tree, n, level);
  pattern("scattered", scattered, n, level);
  pattern("mixed", mixed, n, level);
  return 0;
}
