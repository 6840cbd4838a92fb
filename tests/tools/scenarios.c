#include "tests/tools/scenarios.h"

#include "formats/writer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIVE_MAX (1u << 16)

struct block {
  uint64_t alloc_no, size;
  uint32_t stack;
  unsigned domain;
  double weight;
};

struct process {
  uint32_t id;
  struct mlz_builder *builder;
  uint32_t thread;
  uint64_t allocs, frees;
};

struct maker {
  struct mlz_writer *writer;
  uint64_t now;
  uint64_t random;
  uint64_t gcs, marks, allocs, frees;
};

static void must(int rc, const char *what) {
  if (rc >= 0) return;
  fprintf(stderr, "scenarios: %s: %s\n", what, strerror(-rc));
  exit(1);
}

static uint64_t next_random(struct maker *m) {
  m->random ^= m->random << 13;
  m->random ^= m->random >> 7;
  m->random ^= m->random << 17;
  return m->random;
}

static uint32_t text(struct maker *m, const char *s) { return mlz_writer_string(m->writer, s, strlen(s)); }

static uint32_t frame(struct maker *m, const char *function, const char *file, const char *module, uint32_t line) {
  struct mlz_frame f = {text(m, function), text(m, file), text(m, module), line, MLZ_LANG_PYTHON};
  return mlz_writer_frame(m->writer, &f);
}

static uint32_t stack(struct maker *m, bool truncated, const uint32_t *frames, uint32_t n) {
  return mlz_writer_stack(m->writer, frames, n, truncated);
}
#define STACK(m, ...) stack(m, false, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void on_thread(struct process *p, uint32_t thread) {
  p->thread = thread;
  mlz_builder_thread(p->builder, thread);
}

static void flush(struct maker *m, struct process *processes, size_t n) {
  struct mlz_bytes tables;
  must(mlz_writer_take_tables(m->writer, &tables), "tables");
  if (tables.size) must(mlz_writer_append_tables(m->writer, &tables), "tables");
  free(tables.data);
  for (size_t i = 0; i < n; i++) {
    must(mlz_writer_append_events(m->writer, processes[i].builder), "events");
    mlz_builder_begin(processes[i].builder, processes[i].id, processes[i].allocs, m->now);
    if (processes[i].thread) on_thread(&processes[i], processes[i].thread);
  }
  json_t *state = json_pack("{s:I}", "duration_ns", (json_int_t)m->now);
  must(mlz_writer_append_group(m->writer, m->now, state), "group");
  json_decref(state);
}

static void begin(struct maker *m, const char *path, double rate) {
  int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  must(fd < 0 ? -2 : 0, path);
  json_t *meta = json_pack("{s:[sss], s:i, s:{s:f, s:i, s:b}}", "command", "python3", "service.py", "--fast", "pid", 4711, "settings",
                           "sample_rate", rate, "max_stack_depth", 10, "track_gc", 1);
  must(mlz_writer_new(&m->writer, fd, meta, 0), "writer");
  json_decref(meta);
  m->random = 88172645463325252ull;
}

static void start(struct maker *m, struct process *p, uint32_t id) {
  *p = (struct process){.id = id, .builder = mlz_builder_new()};
  mlz_builder_begin(p->builder, id, 0, m->now);
}

static void describe(struct maker *m, uint32_t id, int pid, int parent, const char *command, const char *python, uint64_t from,
                     uint64_t to) {
  json_t *row = json_pack("{s:i, s:i, s:i, s:s, s:I, s:I}", "id", id, "pid", pid, "parent", parent, "command", command, "start_ns",
                          (json_int_t)from, "end_ns", (json_int_t)to);
  if (*python) json_object_set_new(row, "python_version", json_string(python));
  mlz_writer_process(m->writer, row);
}

static void describe_thread(struct maker *m, uint32_t id, uint32_t process, int tid, const char *name) {
  mlz_writer_thread(m->writer, json_pack("{s:i, s:i, s:i, s:s, s:i, s:i}", "id", id, "process", process, "tid", tid, "name", name,
                                         "dropped", 0, "blocked_ns", 0));
}

static struct block allocate(struct maker *m, struct process *p, uint32_t of, uint64_t size, unsigned domain, double weight) {
  if (mlz_builder_full(p->builder)) flush(m, p, 1);
  uint64_t number = mlz_builder_alloc(p->builder, of, size, domain, weight);
  p->allocs++;
  m->allocs++;
  return (struct block){number, size, of, domain, weight};
}

static void release(struct maker *m, struct process *p, const struct block *b, bool temporary) {
  if (mlz_builder_full(p->builder)) flush(m, p, 1);
  mlz_builder_free_block(p->builder, b->alloc_no, b->stack, b->size, b->domain, b->weight, temporary);
  p->frees++;
  m->frees++;
}

static void rare(struct maker *m, struct process *p, unsigned op, const char *name) {
  struct mlz_rare r = {.op = op, .start_ns = m->now, .name = name ? text(m, name) : 0};
  mlz_builder_rare(p->builder, &r);
  m->marks += op == MLZ_OP_MARK;
}

static void collect(struct maker *m, struct process *p, uint32_t of, unsigned generation, uint64_t ns) {
  struct mlz_rare r = {
      .op = MLZ_OP_GC, .start_ns = m->now, .duration_ns = ns, .collected = ns / 1000, .generation = generation, .stack = of};
  mlz_builder_rare(p->builder, &r);
  m->gcs++;
}

static void tick(struct maker *m, struct process *p, uint64_t ns) {
  m->now += ns;
  mlz_builder_time(p->builder, m->now);
}

static void finish(struct maker *m, const char *cause) {
  json_t *summary = json_pack("{s:b, s:I, s:i}", "complete", 1, "duration_ns", (json_int_t)m->now, "largest_time_gap_ns", 2000000);
  if (cause) json_object_set_new(summary, "untraced_cause", json_string(cause));
  must(mlz_writer_finish(m->writer, summary), "finish");
  json_decref(summary);
  mlz_writer_free(m->writer);
}

/* ---- one service ---- */

struct service {
  uint32_t import, module, main, leak, churn, churn2, cache, peak, list, native;
};

static struct service service_stacks(struct maker *m) {
  const char *app = "/srv/app/service.py";
  uint32_t top = frame(m, "<module>", app, "__main__", 80), run = frame(m, "run", app, "__main__", 70);
  uint32_t handle = frame(m, "Server.handle", "/srv/app/framework/server.py", "framework.server", 120);
  uint32_t importer = frame(m, "_call_with_frames_removed", "<frozen importlib._bootstrap>", "importlib._bootstrap", 241);
  uint32_t loader = frame(m, "exec_module", "<frozen importlib._bootstrap_external>", "importlib._bootstrap_external", 940);
  return (struct service){
      .import = STACK(m, loader, importer, top),
      .module = STACK(m, frame(m, "<module>", "/usr/lib/python3.11/json/decoder.py", "json.decoder", 12), importer, loader, top),
      .main = STACK(m, frame(m, "load_config", app, "__main__", 12), top),
      .leak = STACK(m, frame(m, "remember", app, "__main__", 31), handle, run, top),
      .churn = STACK(m, frame(m, "JSONDecoder.raw_decode", "/usr/lib/python3.11/json/decoder.py", "json.decoder", 353),
                     frame(m, "loads", "/usr/lib/python3.11/json/__init__.py", "json", 346), handle, run, top),
      .churn2 =
          STACK(m, frame(m, "<listcomp>", "/srv/app/framework/middleware/authentication/session_tokens.py", "framework.middleware", 55),
                handle, run, top),
      .cache = STACK(m, frame(m, "TemplateCache.get", "/srv/app/templates.py", "templates", 44),
                     frame(m, "render", "/srv/app/templates.py", "templates", 71), handle, run, top),
      .peak = STACK(m, frame(m, "build_report", "/srv/app/report.py", "report", 9), run, top),
      .list = STACK(m, frame(m, "append_history", app, "__main__", 37), handle, run, top),
      .native = STACK(m, frame(m, "read", "/usr/lib/python3.11/socket.py", "socket", 706), handle, run, top),
  };
}

static void service_startup(struct maker *m, struct process *p, const struct service *s) {
  on_thread(p, 1);
  for (unsigned i = 0; i < 20000; i++) { /* the interpreter and imports: a third stays */
    struct block b = allocate(m, p, i % 5 ? s->import : 0, 32 + next_random(m) % 20 * 16, 2, 1);
    if (i % 3) release(m, p, &b, true);
    if (i % 100 == 0) tick(m, p, 100000);
  }
  for (unsigned i = 0; i < 3000; i++) allocate(m, p, i % 2 ? s->main : s->module, 64, 2, 1);
}

/* `rounds` requests: what each keeps, replaces and throws away. */
static void service_run(struct maker *m, struct process *p, const struct service *s, unsigned rounds, bool leaks) {
  enum { CACHE = 200, HELD = 300 };
  struct block cache[CACHE], history = {0}, *held = calloc(HELD, sizeof *held);
  for (unsigned i = 0; i < rounds; i++) {
    on_thread(p, 1 + i % 3);
    for (unsigned k = 0; k < 40; k++) {
      struct block b = allocate(m, p, s->churn, 48 + next_random(m) % 8 * 16, 2, 1), c = allocate(m, p, s->churn2, 120, 1, 1);
      release(m, p, &c, true);
      release(m, p, &b, false);
    }
    if (leaks) allocate(m, p, s->leak, 1000, 2, 1);
    if (leaks && i % 50 == 0) {
      struct block old = history;
      if (old.size) release(m, p, &old, true);
      history = allocate(m, p, s->list, 64 + i * 8, 2, 1);
    }
    if (i >= CACHE) release(m, p, &cache[i % CACHE], false);
    cache[i % CACHE] = allocate(m, p, s->cache, 4096, 3, 1);
    if (i == rounds / 2)
      for (unsigned k = 0; k < HELD; k++) held[k] = allocate(m, p, s->peak, 65536, 3, 1);
    if (i == rounds / 2 + 20)
      for (unsigned k = 0; k < HELD; k++) release(m, p, &held[k], false);
    if (i % 20 == 0)
      collect(m, p, s->churn, i % 400 == 0 ? 2 : i % 100 == 0 ? 1 : 0, 30000 + next_random(m) % 50000 * (i % 400 == 0 ? 40 : 1));
    if (i == rounds / 4) rare(m, p, MLZ_OP_MARK, "warm");
    tick(m, p, 800000 + next_random(m) % 400000);
  }
  if (history.size) release(m, p, &history, true), allocate(m, p, s->list, history.size * 2, 2, 1);
  free(held);
}

static void make_service(struct maker *m, const char *path, bool leaks) {
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  struct service s = service_stacks(m);
  service_startup(m, &p, &s);
  service_run(m, &p, &s, 3000, leaks);
  rare(m, &p, MLZ_OP_FINALIZE, NULL);
  uint64_t end = m->now;
  for (unsigned i = 0; i < 1000; i++) {
    struct block b = allocate(m, &p, s.import, 64, 2, 1);
    release(m, &p, &b, true);
  }
  tick(m, &p, 3000000);
  describe(m, 1, 4711, 4700, "python3 service.py --fast", "3.11.2", 0, end);
  describe_thread(m, 1, 1, 4711, "MainThread");
  describe_thread(m, 2, 1, 4712, "worker-1");
  describe_thread(m, 3, 1, 4713, "worker-2");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

/* Process 1 holds 1000 bytes from 1 to 5 ms, process 2 2000 from 3 to 4 ms, and ends at 6 ms with 500: together 3000 at 3 ms.
 * Process 3, a shell, holds 10 all the time. Alone, process 1 reaches 1500 at 8 ms. */
static void make_processes(struct maker *m, const char *path) {
  struct process p[3];
  begin(m, path, 1.0);
  uint32_t a = STACK(m, frame(m, "parent", "/srv/app/parent.py", "__main__", 3)),
           b = STACK(m, frame(m, "child", "/srv/app/child.py", "__main__", 4));
  for (uint32_t i = 0; i < 3; i++) start(m, &p[i], i + 1), on_thread(&p[i], i + 1);
  for (unsigned i = 0; i < 3; i++) mlz_builder_time(p[i].builder, 1000000);
  m->now = 1000000;
  struct block first = allocate(m, &p[0], a, 1000, 2, 1);
  allocate(m, &p[2], 0, 10, 3, 1);
  mlz_builder_time(p[1].builder, 3000000);
  struct block second = allocate(m, &p[1], b, 2000, 2, 1);
  mlz_builder_time(p[1].builder, 4000000);
  release(m, &p[1], &second, false);
  mlz_builder_time(p[0].builder, 5000000);
  release(m, &p[0], &first, false);
  mlz_builder_time(p[1].builder, 6000000);
  allocate(m, &p[1], b, 500, 2, 1);
  m->now = 6000000;
  rare(m, &p[1], MLZ_OP_FINALIZE, NULL);
  flush(m, p, 3);
  m->now = 8000000;
  mlz_builder_time(p[0].builder, m->now);
  allocate(m, &p[0], a, 1500, 2, 1);
  describe(m, 1, 100, 99, "python3 parent.py", "3.12.1", 0, 9000000);
  describe(m, 2, 101, 100, "python3 child.py", "3.12.1", 2000000, 6000000);
  describe(m, 3, 99, 1, "sh run.sh", "", 0, 9000000);
  for (uint32_t i = 0; i < 3; i++) describe_thread(m, i + 1, i + 1, i == 2 ? 99 : 100 + (int)i, "MainThread");
  flush(m, p, 3);
  m->now = 9000000;
  finish(m, NULL);
  for (unsigned i = 0; i < 3; i++) mlz_builder_free(p[i].builder);
}

static void make_names(struct maker *m, const char *path) {
  static const char *const names[] = {"<lambda>",
                                      "a\"b'c&d",
                                      "tab\there\033[31m",
                                      "caf\xc3\xa9_\xe6\x97\xa5\xe6\x9c\xac",
                                      "bad\xff\xfe"
                                      "bytes",
                                      "]]>--><script>alert(1)</script>"};
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  on_thread(&p, 1);
  uint32_t top = frame(m, "<module>", "/srv/a & b/<main>.py", "__main__", 1);
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    uint32_t s = STACK(m, frame(m, names[i], names[i], "__main__", 10 + i), top);
    for (unsigned k = 0; k < 10 + i; k++) allocate(m, &p, s, 100 * (i + 1), 2, 1);
  }
  tick(m, &p, 1000000);
  describe(m, 1, 1, 0, "python3 \033[1mnames.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "thr\033ead");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

/* 1000 allocations at weight 10, 400 of them freed, and 5 large ones at weight 1. */
static void make_sampled(struct maker *m, const char *path) {
  struct process p;
  begin(m, path, 0.1);
  start(m, &p, 1);
  on_thread(&p, 1);
  uint32_t s = STACK(m, frame(m, "f", "/srv/f.py", "__main__", 2));
  for (unsigned i = 0; i < 1000; i++) {
    struct block b = allocate(m, &p, s, 100, 2, 10);
    if (i % 5 < 2) release(m, &p, &b, true);
    if (i % 200 == 0) allocate(m, &p, s, 1000000, 2, 1);
    tick(m, &p, 10000);
  }
  describe(m, 1, 1, 0, "python3 f.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

/* A window of live blocks, each round frees a random one; 2000 stacks, 20 sizes, 4 threads. */
static void make_bulk(struct maker *m, const char *path, uint64_t events) {
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  static uint32_t stacks[2000];
  char name[32];
  for (unsigned i = 0; i < 2000; i++) {
    snprintf(name, sizeof name, "function_%u", i / 4);
    uint32_t leaf = frame(m, name, i % 7 ? "/srv/app/work.py" : "/srv/app/other.py", "work", i);
    stacks[i] =
        STACK(m, leaf, frame(m, "call", "/srv/app/main.py", "__main__", i % 50), frame(m, "<module>", "/srv/app/main.py", "__main__", 3));
  }
  struct block *live = calloc(LIVE_MAX, sizeof *live);
  for (uint64_t i = 0; i < events; i += 2) {
    uint64_t r = next_random(m);
    if (i % 512 == 0) on_thread(&p, 1 + r % 4);
    uint32_t of = (uint32_t)(r >> 8) % 2000;
    of = stacks[of * of / 2000]; /* some stacks are busier */
    if (r % 10 < 6) {            /* short-lived */
      struct block b = allocate(m, &p, of, 16 + (r >> 40) % 20 * 16, 2, 1);
      release(m, &p, &b, r % 10 < 4);
    } else {
      struct block *b = &live[(r >> 20) % (r % 10 < 9 ? 256 : LIVE_MAX)];
      if (b->size) release(m, &p, b, false);
      *b = allocate(m, &p, of, 16 + (r >> 40) % 20 * 16, 2, 1);
    }
    if (i % 1024 == 0) tick(m, &p, 50000);
  }
  rare(m, &p, MLZ_OP_FINALIZE, NULL);
  describe(m, 1, 1, 0, "python3 bulk.py", "3.11.2", 0, m->now);
  for (uint32_t i = 1; i <= 4; i++) describe_thread(m, i, 1, (int)i, "worker");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
  free(live);
}

/* 100 blocks, then lost records, then 100 more; the first 50 are freed. */
static void make_lost(struct maker *m, const char *path) {
  struct process p;
  struct block blocks[100];
  begin(m, path, 1.0);
  start(m, &p, 1);
  on_thread(&p, 1);
  uint32_t before = STACK(m, frame(m, "before", "/srv/f.py", "__main__", 2)),
           after = STACK(m, frame(m, "after", "/srv/f.py", "__main__", 5));
  for (unsigned i = 0; i < 100; i++) blocks[i] = allocate(m, &p, before, 100, 2, 1);
  for (unsigned i = 0; i < 50; i++) release(m, &p, &blocks[i], false);
  struct mlz_rare lost = {.op = MLZ_OP_LOST, .start_ns = m->now, .collected = 7, .uncollectable = 3};
  mlz_builder_rare(p.builder, &lost);
  tick(m, &p, 1000000);
  for (unsigned i = 0; i < 100; i++) allocate(m, &p, after, 100, 2, 1);
  describe(m, 1, 1, 0, "python3 f.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

/* Each function in /srv/h.py keeps blocks in its own way while `rounds` requests come and go. */
static void make_histories(struct maker *m, const char *path, unsigned rounds) {
  enum { CACHE = 300, QUEUE = 100, FILL = 170, BASE = 1000, IN_FLIGHT = 3 };
  const char *const names[] = {"grow", "slow", "cache", "queue", "fill", "flight", "base", "churn"};
  uint32_t of[8];
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  on_thread(&p, 1);
  for (uint32_t i = 0; i < 8; i++) of[i] = STACK(m, frame(m, names[i], "/srv/h.py", "__main__", i + 1));
  struct block cache[CACHE] = {{0}}, queue[QUEUE] = {{0}}, fill[FILL], flight[IN_FLIGHT];
  for (unsigned i = 0; i < BASE; i++) allocate(m, &p, of[6], 100, 2, 1);
  for (unsigned i = 0; i < rounds; i++) {
    for (unsigned k = 0; k < IN_FLIGHT; k++) flight[k] = allocate(m, &p, of[5], 100, 2, 1);
    allocate(m, &p, of[0], 100, 2, 1);
    struct block slow = allocate(m, &p, of[1], 100, 2, 1);
    if (i % (rounds / 40) != 13) release(m, &p, &slow, true);
    struct block *put = &cache[next_random(m) % CACHE];
    if (put->size) release(m, &p, put, false);
    *put = allocate(m, &p, of[2], 100, 2, 1);
    if (i >= QUEUE) release(m, &p, &queue[i % QUEUE], false);
    queue[i % QUEUE] = allocate(m, &p, of[3], 100, 2, 1);
    fill[i % FILL] = allocate(m, &p, of[4], 100, 2, 1);
    for (unsigned k = 0; k < FILL && i % FILL == FILL - 1; k++) release(m, &p, &fill[k], false);
    if (i % (rounds / 500) == 0) allocate(m, &p, of[6], 100, 2, 1);
    for (unsigned k = 0; k < 5; k++) {
      struct block b = allocate(m, &p, of[7], 100, 2, 1);
      release(m, &p, &b, true);
    }
    bool old = i % (rounds / 20) == rounds / 40;
    if (old) collect(m, &p, of[7], 1, 30000);
    for (unsigned k = 0; k < IN_FLIGHT && !old; k++) release(m, &p, &flight[k], false);
    tick(m, &p, 100000);
  }
  rare(m, &p, MLZ_OP_FINALIZE, NULL);
  describe(m, 1, 1, 0, "python3 h.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

/* A parent and 40 children one after the other; each child keeps 1000 blocks of one line until it ends, the parent one for each child. */
static void make_children(struct maker *m, const char *path) {
  enum { CHILDREN = 40 };
  struct process parent, child;
  begin(m, path, 1.0);
  start(m, &parent, 1);
  on_thread(&parent, 1);
  uint32_t kept = STACK(m, frame(m, "parent", "/srv/p.py", "__main__", 2)), built = STACK(m, frame(m, "child", "/srv/p.py", "__main__", 5));
  for (uint32_t i = 0; i < CHILDREN; i++) {
    uint64_t begun = m->now;
    start(m, &child, i + 2);
    on_thread(&child, i + 2);
    for (unsigned k = 0; k < 1000; k++) {
      allocate(m, &child, built, 100, 2, 1);
      if (k % 10 == 0) tick(m, &child, 100000);
    }
    describe(m, i + 2, (int)i + 2, 1, "python3 p.py", "3.11.2", begun, m->now);
    describe_thread(m, i + 2, i + 2, (int)i + 2, "MainThread");
    flush(m, &child, 1);
    mlz_builder_free(child.builder);
    tick(m, &parent, 1);
    allocate(m, &parent, kept, 100, 2, 1);
  }
  describe(m, 1, 1, 0, "python3 p.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  flush(m, &parent, 1);
  finish(m, NULL);
  mlz_builder_free(parent.builder);
}

/* The list's buffer is moved as CPython does it: by an eighth more each time. No MLZ_OP_FINALIZE. */
static void make_append(struct maker *m, const char *path, uint64_t appends) {
  enum { START_UP = 20000, FILL = 50 };
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  on_thread(&p, 1);
  uint32_t imported = STACK(m, frame(m, "<module>", "/usr/lib/python3/json.py", "json", 1));
  uint32_t append = STACK(m, frame(m, "<module>", "/srv/a.py", "__main__", 3)),
           fill = STACK(m, frame(m, "fill", "/srv/a.py", "__main__", 9));
  for (unsigned i = 0; i < START_UP; i++) allocate(m, &p, imported, 60, 1, 1);
  struct block buffer = {0}, filled[FILL];
  for (uint64_t i = 0, room = 0; i < appends; i++) {
    allocate(m, &p, append, 1033, 1, 1);
    if (i == room) {
      if (buffer.size) release(m, &p, &buffer, false);
      room += (room >> 3) + 8;
      buffer = allocate(m, &p, append, room * 8, 1, 1);
    }
    filled[i % FILL] = allocate(m, &p, fill, 100, 1, 1);
    for (unsigned k = 0; k < FILL && i % FILL == FILL - 1; k++) release(m, &p, &filled[k], false);
    tick(m, &p, 1000000);
  }
  describe(m, 1, 1, 0, "python3 a.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

static void make_handover(struct maker *m, const char *path) {
  enum { THREADS = 4, REQUESTS = 2000, CACHE = 300 };
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  on_thread(&p, 1);
  struct block cache[CACHE] = {{0}};
  uint32_t remember = frame(m, "remember", "/srv/t.py", "__main__", 5), cached = frame(m, "cached", "/srv/t.py", "__main__", 8);
  for (uint32_t thread = 1; thread <= THREADS; thread++) {
    uint32_t worker = frame(m, "worker", "/srv/t.py", "__main__", 10 + thread);
    uint32_t adds = STACK(m, remember, worker), caches = STACK(m, cached, worker);
    on_thread(&p, thread);
    for (unsigned i = 0; i < REQUESTS; i++) {
      allocate(m, &p, adds, 1000, 1, 1);
      struct block *put = &cache[i % CACHE];
      if (put->size) release(m, &p, put, false);
      *put = allocate(m, &p, caches, 1000, 1, 1);
      tick(m, &p, 100000);
    }
    describe_thread(m, thread, 1, (int)thread, "worker");
  }
  rare(m, &p, MLZ_OP_FINALIZE, NULL);
  describe(m, 1, 1, 0, "python3 t.py", "3.11.2", 0, m->now);
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

static void make_marks(struct maker *m, const char *path) {
  struct process p[2];
  begin(m, path, 1.0);
  uint32_t of[2] = {STACK(m, frame(m, "parent", "/srv/m.py", "__main__", 3)), STACK(m, frame(m, "child", "/srv/m.py", "__main__", 9))};
  for (uint32_t i = 0; i < 2; i++) {
    start(m, &p[i], i + 1);
    on_thread(&p[i], i + 1);
  }
  for (unsigned ms = 1; ms <= 6; ms++) {
    m->now = ms * 1000000;
    for (unsigned i = 0; i < 2; i++) {
      mlz_builder_time(p[i].builder, m->now);
      allocate(m, &p[i], of[i], 100, 1, 1);
    }
    if (ms <= 4) rare(m, &p[(ms + 1) % 2], MLZ_OP_MARK, "warm");
    if (ms == 5) rare(m, &p[0], MLZ_OP_SNAPSHOT, "last");
    if (ms == 3) flush(m, p, 2);
  }
  describe(m, 1, 1, 0, "python3 m.py", "3.11.2", 0, m->now);
  describe(m, 2, 2, 1, "python3 m.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  describe_thread(m, 2, 2, 2, "MainThread");
  flush(m, p, 2);
  finish(m, NULL);
  for (unsigned i = 0; i < 2; i++) mlz_builder_free(p[i].builder);
}

/* `bytes` in blocks of 100 (or one smaller one); version 1 frees what serve allocates at once. */
static void allocate_bytes(struct maker *m, struct process *p, uint32_t of, unsigned bytes, bool temporary) {
  for (unsigned left = bytes; left;) {
    unsigned size = left < 100 ? left : 100;
    struct block b = allocate(m, p, of, size, 1, 1);
    if (temporary) release(m, p, &b, true);
    left -= size;
  }
}

static void make_version(struct maker *m, const char *path, bool second) {
  struct process p;
  begin(m, path, 1.0);
  start(m, &p, 1);
  on_thread(&p, 1);
  const char *app = second ? "/new/app.py" : "/old/app.py", *parser = second ? "/new/pkg/parser.py" : "/old/pkg/parser.py";
  const char *json = second ? "/opt/lib/python3.12/json/__init__.py" : "/usr/lib/python3.8/json/__init__.py";
  uint32_t shift = second ? 4 : 0, top = frame(m, "<module>", app, "__main__", 40 + shift);
  uint32_t first = frame(m, "serve", app, "__main__", 20 + shift), other = frame(m, "serve", app, "__main__", 22 + shift);
  uint32_t parse = frame(m, "parse", parser, "pkg.parser", 5), loads = frame(m, "loads", json, "json", second ? 346 : 299);
  uint32_t edited = second ? frame(m, "new", app, "__main__", 36) : frame(m, "old", app, "__main__", 30);
  allocate_bytes(m, &p, STACK(m, first, top), second ? 5000 : 1000, !second);
  allocate_bytes(m, &p, STACK(m, other, top), second ? 1500 : 2000, false);
  allocate_bytes(m, &p, STACK(m, parse, first, top), 300, false);
  allocate_bytes(m, &p, STACK(m, loads, parse, first, top), 70, false);
  allocate_bytes(m, &p, STACK(m, edited, top), second ? 700 : 900, false);
  tick(m, &p, 1000000);
  describe(m, 1, 1, 0, "python3 app.py", "3.11.2", 0, m->now);
  describe_thread(m, 1, 1, 1, "MainThread");
  flush(m, &p, 1);
  finish(m, NULL);
  mlz_builder_free(p.builder);
}

bool mlz_scenario_write(const char *name, const char *path, uint64_t events) {
  struct maker m = {0};
  if (!strcmp(name, "service") || !strcmp(name, "constant")) {
    make_service(&m, path, *name == 's');
  } else if (!strcmp(name, "processes")) {
    make_processes(&m, path);
  } else if (!strcmp(name, "names")) {
    make_names(&m, path);
  } else if (!strcmp(name, "sampled")) {
    make_sampled(&m, path);
  } else if (!strcmp(name, "lost")) {
    make_lost(&m, path);
  } else if (!strcmp(name, "empty")) {
    begin(&m, path, 1.0);
    finish(&m, "the program is statically linked");
  } else if (!strcmp(name, "histories")) {
    make_histories(&m, path, (unsigned)(events / 20));
  } else if (!strcmp(name, "children")) {
    make_children(&m, path);
  } else if (!strcmp(name, "append")) {
    make_append(&m, path, events);
  } else if (!strcmp(name, "handover")) {
    make_handover(&m, path);
  } else if (!strcmp(name, "marks")) {
    make_marks(&m, path);
  } else if (!strcmp(name, "version1") || !strcmp(name, "version2")) {
    make_version(&m, path, name[7] == '2');
  } else if (!strcmp(name, "bulk")) {
    make_bulk(&m, path, events);
  } else {
    return false;
  }
  return true;
}
