/* make_large [options] FILE: writes a large trace, the same one for the same options, and prints what is in it as JSON: the truth that
 * memlyze stats, top, leaks and gc must agree with (benchmarks/traces.py compares).
 *
 * A made-up service: a code base of procedures, each a script of allocations with a fate (freed at once, at the procedure's end, with its request,
 * when a cache replaces it, never), nested calls, requests that work in an area of the code base which drifts over the run, threads that take
 * turns, collections, marks, a leak of one block in 20,000.
 *
 * It must not be kinder than real traces. Ten programs recorded with the default settings (mypy on tornado, black, a Django site, the JSON
 * loop and other programs of benchmarks/) give, for each event or chunk of 2^18 events; the last line is what the defaults make:
 *
 *                 bytes/event  classes/chunk  frees of older chunks  temporary  time steps/1000  stacks
 *   mypy                 0.46           1193                  7.2 %     10.3 %              0.5   35763
 *   Django site          0.28          10685                  2.5 %     15.0 %              0.6  114011
 *   black                0.24            833                  3.1 %     22.8 %              0.3   36443
 *   parser               0.35           1048                 16.8 %     13.4 %              0.6    4848
 *   JSON loop            0.03            180                  9.4 %      6.9 %              0.3    6072
 *   five others   0.03 - 0.07     186 - 1509            0.2 - 16 %   0 - 11 %        0.2 - 1.3   2267 - 12048
 *   this one                 0.62           2616                  5.6 %     12.5 %              0.5   30302
 */
#include "formats/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_EVENTS UINT64_C(4000000)
#define FRAME_SHARE 0.05

enum {
  STEPS = 12,  /* of a procedure, at most */
  AREAS = 120, /* parts of the code base */
  WINDOW = 4,  /* areas in use at a time */
  DEPTH = 28,  /* frames of a stack, at most */
  CALLS = 3,   /* nested procedures */
  LOCALS = STEPS + 4,
  GROUP = 4 << 20,   /* events of a group */
  LEAK_EVERY = 20000 /* allocations */
};

enum fate { TEMPORARY, LOCAL, REQUEST, CACHED, CALL };

struct site {
  uint32_t stack, frame;
  uint32_t sizes[4];
  uint8_t n_sizes, domain; /* n_sizes 0: any size, as of strings */
};
struct step {
  uint32_t site; /* CALL: procedure of the area */
  uint8_t fate, times;
};
struct procedure {
  struct step steps[STEPS];
  uint32_t n, next; /* mostly followed by */
  bool backwards;   /* how it lets go of its locals */
};

struct block {
  uint64_t alloc_no;
  uint32_t site, size;
};

struct sum {
  uint64_t allocs, alloc_bytes, frees, free_bytes, temps, temp_bytes;
};

struct thread {
  uint32_t id, procedure, area, left; /* events until its request ends */
  uint64_t latest;                    /* allocation number + 1 */
  struct block *kept;                 /* of the request */
  uint32_t n_kept, room;
};
struct process {
  uint32_t id;
  struct mlz_builder *builder;
  uint64_t allocs, events, frees;
  struct thread *threads;
  uint32_t n_threads, current;
  struct block *cache;
  uint64_t cached, oldest, since_leak, live, peak, peak_ns;
  /* by stack */
  struct sum *now;
};

struct maker {
  struct mlz_writer *writer;
  uint64_t random, now, events, wanted, next_step, next_gc, next_group, step_gap;
  uint32_t stacks_wanted, per_area, n_sites, n_procedures, leak, n_frames, n_names;
  uint64_t live_wanted;
  struct site *sites;
  struct procedure *procedures; /* per_area for each area */
  struct process *processes;
  uint32_t n_processes, n_threads;
  uint64_t live_bytes, live_blocks, half_bytes, half_blocks, gcs, gc_ns, gc_of[3], marks, snapshots;
  uint64_t gc_number;
};

static void die(const char *what, int rc) {
  fprintf(stderr, "make_large: %s: %s\n", what, strerror(-rc));
  exit(2);
}
static void must(int rc, const char *what) {
  if (rc < 0) die(what, rc);
}
static void *zeroed(size_t n, size_t size) {
  void *p = calloc(n ? n : 1, size);
  if (p == NULL) die("memory", -ENOMEM);
  return p;
}

static uint32_t noise(struct maker *m) {
  m->random ^= m->random << 13;
  m->random ^= m->random >> 7;
  m->random ^= m->random << 17;
  return (uint32_t)(m->random >> 24);
}
static uint32_t below(struct maker *m, uint32_t n) { return (uint32_t)((uint64_t)noise(m) * n >> 32); }
static uint32_t skewed(struct maker *m, uint32_t n) {
  uint32_t a = below(m, n), b = below(m, n);
  return a < b ? a : b;
}

/* ---- the code base ---- */

static uint32_t text(struct maker *m, const char *s) { return mlz_writer_string(m->writer, s, strlen(s)); }

static uint32_t function(struct maker *m, uint32_t area, uint32_t line) {
  static const char *const words[] = {"parse", "render", "load",  "visit",  "resolve", "encode",
                                      "match", "build",  "check", "update", "find",    "merge"};
  char name[64], file[96], module[64];
  snprintf(name, sizeof name, "%s_%s_%u", words[m->n_names % 12], words[m->n_names / 12 % 12], m->n_names);
  snprintf(file, sizeof file, "/srv/app/lib/area%02u/module_%u.py", area, m->n_names % 7);
  snprintf(module, sizeof module, "app.area%02u.module_%u", area, m->n_names % 7);
  m->n_names++;
  m->n_frames++;
  return mlz_writer_frame(m->writer, &(struct mlz_frame){text(m, name), text(m, file), text(m, module), line, MLZ_LANG_PYTHON});
}

static void make_site(struct maker *m, uint32_t leaf, const uint32_t *chain, uint32_t depth) {
  uint32_t frames[DEPTH + 1] = {leaf};
  for (uint32_t i = 0; i < depth; i++) frames[i + 1] = chain[depth - 1 - i];
  struct site *s = &m->sites[m->n_sites++];
  *s = (struct site){.stack = mlz_writer_stack(m->writer, frames, depth + 1, false), .frame = leaf};
  uint32_t kind = below(m, 20);
  s->n_sizes = kind < 14 ? 1 : kind < 19 ? (uint8_t)(2 + below(m, 3)) : below(m, 3) ? 4 : 0;
  for (uint32_t i = 0; i < s->n_sizes; i++) s->sizes[i] = below(m, 8) ? 16 + 8 * skewed(m, 30) : 256 + 16 * skewed(m, 400);
  s->domain = (uint8_t)(below(m, 12) < 9 ? 2 : below(m, 3) ? 1 : below(m, 4) ? 3 : 0);
}

static void make_procedure(struct maker *m, struct procedure *p, uint32_t place, uint32_t area, const uint32_t *chain, uint32_t depth) {
  p->n = 5 + below(m, STEPS - 4);
  p->backwards = below(m, 2);
  p->next = below(m, m->per_area);
  uint32_t line = 10 + below(m, 900), fates[] = {15, 55, 66, 76};
  uint32_t leaf = function(m, area, line);
  for (uint32_t i = 0; i < p->n; i++) {
    uint32_t roll = below(m, 100), fate = TEMPORARY;
    while (fate < CALL && roll >= fates[fate]) fate++;
    p->steps[i] = (struct step){.fate = (uint8_t)fate, .times = (uint8_t)(below(m, 6) ? 1 : 2 + below(m, 5))};
    if (fate == CALL) {
      p->steps[i].site = (place + 1 + below(m, 5)) % m->per_area;
      continue;
    }
    if (below(m, 2)) leaf = function(m, area, line += 1 + below(m, 4));
    p->steps[i].site = m->n_sites;
    make_site(m, leaf, chain, depth);
  }
}

/* Each area: a tree of callers below the same few outermost frames. */
static void make_code(struct maker *m) {
  m->sites = zeroed(m->stacks_wanted + (size_t)AREAS * 64 * STEPS + 1, sizeof *m->sites);
  m->per_area = m->stacks_wanted / (AREAS * 7) + 1;
  m->procedures = zeroed((size_t)m->per_area * AREAS, sizeof *m->procedures);
  uint32_t root[4], main_text = text(m, "__main__"), file = text(m, "/srv/app/service.py");
  static const char *const names[] = {"<module>", "main", "Server.run", "Server.handle"};
  for (uint32_t i = 0; i < 4; i++)
    root[i] = mlz_writer_frame(m->writer, &(struct mlz_frame){text(m, names[i]), file, main_text, 400 - 90 * i, MLZ_LANG_PYTHON});
  uint32_t remember = mlz_writer_frame(m->writer, &(struct mlz_frame){text(m, "remember"), file, main_text, 31, MLZ_LANG_PYTHON});
  m->n_frames = 5;
  for (uint32_t area = 0; area < AREAS; area++) {
    uint32_t chain[DEPTH], depth = 4;
    memcpy(chain, root, sizeof root);
    for (uint32_t i = 0; i < m->per_area; i++) {
      uint32_t keep = 4 + below(m, depth - 3), more = below(m, 5);
      for (depth = keep; more && depth < DEPTH; more--) chain[depth++] = function(m, area, 10 + below(m, 900));
      make_procedure(m, &m->procedures[(size_t)area * m->per_area + i], i, area, chain, depth);
    }
  }
  m->leak = m->n_sites;
  make_site(m, remember, root, 4);
  m->sites[m->leak].n_sizes = 1;
  m->sites[m->leak].sizes[0] = 1000;
}

/* ---- the file ---- */

static void put_tables(struct maker *m) {
  struct mlz_bytes tables;
  must(mlz_writer_take_tables(m->writer, &tables), "tables");
  if (tables.size) must(mlz_writer_append_tables(m->writer, &tables), "tables");
  free(tables.data);
}

static void seal(struct maker *m, struct process *p) {
  put_tables(m);
  must(mlz_writer_append_events(m->writer, p->builder), "events");
  mlz_builder_begin(p->builder, p->id, p->allocs, m->now);
  mlz_builder_thread(p->builder, p->threads[p->current].id);
}

static void put_group(struct maker *m, bool last) {
  for (uint32_t i = 0; i < m->n_processes; i++) {
    seal(m, &m->processes[i]);
    if (last) mlz_writer_process_ended(m->writer, m->processes[i].id);
  }
  json_t *state = json_pack("{s:I}", "duration_ns", (json_int_t)m->now);
  must(mlz_writer_append_group(m->writer, m->now, state), "group");
  json_decref(state);
}

/* ---- events ---- */

static void rare(struct maker *m, struct process *p, struct mlz_rare r) {
  mlz_builder_rare(p->builder, &r);
  p->events++;
  m->events++;
}

static void mark(struct maker *m, struct process *p, unsigned op, const char *name) {
  rare(m, p, (struct mlz_rare){.op = op, .start_ns = m->now, .name = text(m, name)});
  m->marks += op == MLZ_OP_MARK;
  m->snapshots += op == MLZ_OP_SNAPSHOT;
}

static void collect(struct maker *m, struct process *p) {
  uint64_t n = ++m->gc_number;
  uint32_t generation = n % 110 == 0 ? 2 : n % 11 == 0 ? 1 : 0;
  uint64_t ns = ((uint64_t[]){20000, 200000, 8000000})[generation] + below(m, ((uint32_t[]){200000, 1000000, 20000000})[generation]);
  rare(m, p,
       (struct mlz_rare){.op = MLZ_OP_GC,
                         .start_ns = m->now,
                         .duration_ns = ns,
                         .collected = below(m, 50),
                         .generation = generation,
                         .stack = m->sites[below(m, m->n_sites)].stack});
  m->gcs++;
  m->gc_ns += ns;
  m->gc_of[generation]++;
}

/* Before each event: whatever else is due. */
static void due(struct maker *m, struct process *p) {
  if (mlz_builder_full(p->builder)) seal(m, p);
  if (m->events < m->next_step) return;
  m->now += 60 * m->step_gap + below(m, 200000);
  m->step_gap = 1000 + below(m, 2000);
  m->next_step = m->events + m->step_gap;
  mlz_builder_time(p->builder, m->now);
  if (m->events >= m->next_gc) {
    collect(m, p);
    m->next_gc = m->events + 5000 + below(m, 20000);
  }
}

static struct block allocate(struct maker *m, struct process *p, uint32_t site) {
  due(m, p);
  const struct site *s = &m->sites[site];
  uint32_t size =
      s->n_sizes ? s->sizes[s->n_sizes == 1 || below(m, 6) ? 0 : below(m, s->n_sizes)] : 48 + 8 * skewed(m, skewed(m, 40) ? 24 : 400);
  struct block b = {mlz_builder_alloc(p->builder, s->stack, size, s->domain, 1.0), site, size};
  struct sum *sum = &p->now[site];
  p->allocs++;
  p->events++;
  m->events++;
  sum->allocs++;
  sum->alloc_bytes += size;
  m->live_bytes += size;
  m->live_blocks++;
  p->live += size;
  if (p->live > p->peak) p->peak = p->live, p->peak_ns = m->now;
  p->threads[p->current].latest = b.alloc_no + 1;
  return b;
}

static void release(struct maker *m, struct process *p, const struct block *b) {
  due(m, p);
  const struct site *s = &m->sites[b->site];
  struct sum *sum = &p->now[b->site];
  bool temporary = p->threads[p->current].latest == b->alloc_no + 1;
  mlz_builder_free_block(p->builder, b->alloc_no, s->stack, b->size, s->domain, 1.0, temporary);
  p->events++;
  p->frees++;
  m->events++;
  sum->frees++;
  sum->free_bytes += b->size;
  sum->temps += temporary;
  sum->temp_bytes += temporary ? b->size : 0;
  m->live_bytes -= b->size;
  m->live_blocks--;
  p->live -= b->size;
}

static void keep_for_request(struct thread *t, struct block b) {
  if (t->n_kept == t->room) {
    t->room = t->room ? t->room * 2 : 1024;
    t->kept = realloc(t->kept, t->room * sizeof *t->kept);
    if (t->kept == NULL) die("memory", -ENOMEM);
  }
  t->kept[t->n_kept++] = b;
}

static void put_in_cache(struct maker *m, struct process *p, struct block b) {
  uint64_t room = m->live_wanted / m->n_processes;
  if (p->cached < room) {
    p->cache[p->cached++] = b;
    return;
  }
  /* Mostly the oldest goes, but anything may. */
  uint64_t at = below(m, 5) ? p->oldest++ % room : below(m, (uint32_t)room);
  release(m, p, &p->cache[at]);
  p->cache[at] = b;
}

static void run_procedure(struct maker *m, struct process *p, struct thread *t, uint32_t place, uint32_t calls) {
  const struct procedure *proc = &m->procedures[(size_t)t->area * m->per_area + place];
  struct block locals[LOCALS];
  uint32_t n = 0;
  for (uint32_t i = 0; i < proc->n; i++) {
    const struct step *s = &proc->steps[i];
    uint32_t times = s->times == 1 || below(m, 8) ? s->times : 1 + below(m, s->times);
    if (s->fate == CALL) {
      if (calls < CALLS) run_procedure(m, p, t, s->site, calls + 1);
      continue;
    }
    if (below(m, 80) == 0) continue; /* a branch not taken */
    while (times--) {
      struct block b = allocate(m, p, s->site);
      uint32_t fate = below(m, 100) ? s->fate : LOCAL;
      if (fate == TEMPORARY)
        release(m, p, &b);
      else if (fate == REQUEST)
        keep_for_request(t, b);
      else if (fate == CACHED)
        put_in_cache(m, p, b);
      else if (n < LOCALS)
        locals[n++] = b;
      else
        release(m, p, &b);
    }
  }
  for (uint32_t i = 0; i < n; i++) release(m, p, &locals[proc->backwards ? n - 1 - i : i]);
  if (++p->since_leak >= LEAK_EVERY / 12) {
    allocate(m, p, m->leak);
    p->since_leak = 0;
  }
}

static void end_request(struct maker *m, struct process *p, struct thread *t) {
  for (uint32_t i = 0; i < t->n_kept; i++) release(m, p, &t->kept[i]);
  t->n_kept = 0;
}

static void begin_request(struct maker *m, struct thread *t) {
  uint64_t laps = m->wanted / 80000000 + 1, base = (uint64_t)((double)m->events / (double)m->wanted * (double)(laps * AREAS));
  t->area = (uint32_t)((base + skewed(m, WINDOW)) % AREAS);
  t->left = 500 + below(m, 20000);
  t->procedure = below(m, m->per_area);
}

/* A thread goes on for a while. */
static void turn(struct maker *m, struct process *p) {
  p->current = below(m, p->n_threads);
  struct thread *t = &p->threads[p->current];
  mlz_builder_time(p->builder, m->now);
  mlz_builder_thread(p->builder, t->id);
  uint64_t until = m->events + 200 + below(m, 1200);
  while (m->events < until) {
    if (!t->left) begin_request(m, t);
    uint64_t before = m->events;
    run_procedure(m, p, t, t->procedure, 0);
    t->procedure = below(m, 28) ? m->procedures[(size_t)t->area * m->per_area + t->procedure].next : skewed(m, m->per_area);
    uint64_t took = m->events - before;
    t->left = t->left > took ? t->left - (uint32_t)took : 0;
    if (!t->left) end_request(m, p, t);
  }
}

static void run(struct maker *m) {
  static const char *const names[] = {"start", "warm", "half", "late"};
  uint32_t next_mark = 0;
  uint64_t until = 0;
  struct process *p = &m->processes[0];
  while (m->events < m->wanted) {
    if (m->n_processes > 1 && m->events >= until) {
      p = &m->processes[below(m, m->n_processes)];
      until = m->events + 20000 + below(m, 100000);
    }
    turn(m, p);
    if (next_mark < 4 && m->events >= m->wanted / 4 * next_mark) {
      p = &m->processes[0];
      mlz_builder_time(p->builder, m->now += 1000);
      mark(m, p, next_mark == 3 ? MLZ_OP_SNAPSHOT : MLZ_OP_MARK, names[next_mark]);
      if (next_mark++ == 2) m->half_bytes = m->live_bytes, m->half_blocks = m->live_blocks;
      m->now += 1000; /* what comes next is later, in every process */
    }
    if (m->events >= m->next_group) {
      put_group(m, false);
      m->next_group = m->events + GROUP;
    }
  }
}

/* ---- the begin and the end ---- */

static void begin(struct maker *m, const char *path, uint64_t seed) {
  int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  if (fd < 0) die(path, -errno);
  json_t *meta = json_pack("{s:s, s:[ss], s:i, s:{s:f, s:i, s:b}}", "version", "make_large", "command", "python3", "service.py", "pid",
                           1000, "settings", "sample_rate", 1.0, "max_stack_depth", DEPTH, "track_gc", 1);
  must(mlz_writer_new(&m->writer, fd, meta, 0), "writer");
  /* As the recorder does it (tracer/recorder/keeping.c). */
  must(mlz_writer_frames(m->writer, &(struct mlz_frame_rule){.least_events = FRAME_EVENTS, .share = FRAME_SHARE}), "frames");
  json_decref(meta);
  m->random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
  make_code(m);
  m->processes = zeroed(m->n_processes, sizeof *m->processes);
  for (uint32_t i = 0, id = 1; i < m->n_processes; i++) {
    struct process *p = &m->processes[i];
    *p = (struct process){.id = i + 1, .builder = mlz_builder_new(), .n_threads = m->n_threads};
    if (p->builder == NULL) die("memory", -ENOMEM);
    p->threads = zeroed(p->n_threads, sizeof *p->threads);
    p->cache = zeroed(m->live_wanted / m->n_processes, sizeof *p->cache);
    p->now = zeroed(m->n_sites, sizeof *p->now);
    for (uint32_t k = 0; k < p->n_threads; k++, id++) {
      p->threads[k].id = id;
      mlz_writer_thread(m->writer, json_pack("{s:i, s:i, s:i, s:o, s:b}", "id", id, "process", p->id, "tid", 1000 + id, "name",
                                             json_sprintf("worker-%u", k), "main", k == 0));
    }
    mlz_writer_process(m->writer, json_pack("{s:i, s:i, s:i, s:[ss], s:s, s:I}", "id", p->id, "pid", 1000 + i, "parent", 1, "command",
                                            "python3", "service.py", "python_version", "3.11.7", "start_ns", (json_int_t)0));
    mlz_builder_begin(p->builder, p->id, 0, 0);
    mlz_builder_thread(p->builder, p->threads[0].id);
  }
}

static struct sum total_of(const struct maker *m, uint32_t frame, uint32_t first) {
  struct sum s = {0};
  for (uint32_t i = first; i < m->n_sites; i++) {
    if (frame != UINT32_MAX && m->sites[i].frame != frame) continue;
    for (uint32_t k = 0; k < m->n_processes; k++) {
      const struct sum *now = &m->processes[k].now[i];
      s.allocs += now->allocs;
      s.alloc_bytes += now->alloc_bytes;
      s.frees += now->frees;
      s.free_bytes += now->free_bytes;
      s.temps += now->temps;
      s.temp_bytes += now->temp_bytes;
    }
  }
  return s;
}

static void print_truth(const struct maker *m, const char *path) {
  struct sum all = total_of(m, UINT32_MAX, 0), leak = total_of(m, m->sites[m->leak].frame, m->leak);
  json_t *truth = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "events", (json_int_t)m->events, "bytes",
                            (json_int_t)mlz_writer_bytes(m->writer), "alloc_count", (json_int_t)all.allocs, "alloc_bytes",
                            (json_int_t)all.alloc_bytes, "free_count", (json_int_t)all.frees, "free_bytes", (json_int_t)all.free_bytes,
                            "temporary_count", (json_int_t)all.temps, "temporary_bytes", (json_int_t)all.temp_bytes);
  json_object_set_new(truth, "live_bytes", json_integer((json_int_t)m->live_bytes));
  json_object_set_new(truth, "live_count", json_integer((json_int_t)m->live_blocks));
  json_object_set_new(truth, "half_live_bytes", json_integer((json_int_t)m->half_bytes));
  json_object_set_new(truth, "half_live_count", json_integer((json_int_t)m->half_blocks));
  json_object_set_new(truth, "leak_function", json_string("remember"));
  json_object_set_new(truth, "leak_count", json_integer((json_int_t)leak.allocs));
  json_object_set_new(truth, "leak_bytes", json_integer((json_int_t)leak.alloc_bytes));
  json_object_set_new(truth, "gc_count", json_integer((json_int_t)m->gcs));
  json_object_set_new(truth, "gc_ns", json_integer((json_int_t)m->gc_ns));
  for (unsigned g = 0; g < 3; g++) {
    char key[32];
    snprintf(key, sizeof key, "gc_count_%u", g);
    json_object_set_new(truth, key, json_integer((json_int_t)m->gc_of[g]));
  }
  json_object_set_new(truth, "marks", json_integer((json_int_t)m->marks));
  json_object_set_new(truth, "snapshots", json_integer((json_int_t)m->snapshots));
  json_object_set_new(truth, "stacks", json_integer((json_int_t)m->n_sites));
  json_object_set_new(truth, "processes", json_integer((json_int_t)m->n_processes));
  json_object_set_new(truth, "threads", json_integer((json_int_t)(m->n_threads * m->n_processes)));
  json_object_set_new(truth, "duration_ns", json_integer((json_int_t)m->now));
  if (m->n_processes == 1) { /* of several, only as precise as the published time */
    json_object_set_new(truth, "peak_bytes", json_integer((json_int_t)m->processes[0].peak));
    json_object_set_new(truth, "peak_ns", json_integer((json_int_t)m->processes[0].peak_ns));
  }
  json_object_set_new(truth, "file", json_string(path));
  json_dumpf(truth, stdout, JSON_INDENT(2));
  putchar('\n');
  json_decref(truth);
}

static void finish(struct maker *m, const char *path, bool quiet) {
  for (uint32_t i = 0; i < m->n_processes; i++) {
    struct process *p = &m->processes[i];
    mlz_writer_process(m->writer, json_pack("{s:i, s:i, s:i, s:[ss], s:s, s:I, s:I, s:s}", "id", p->id, "pid", 1000 + i, "parent", 1,
                                            "command", "python3", "service.py", "python_version", "3.11.7", "start_ns", (json_int_t)0,
                                            "end_ns", (json_int_t)m->now, "end", "exit"));
  }
  put_group(m, true);
  uint64_t allocs = 0;
  for (uint32_t i = 0; i < m->n_processes; i++) allocs += m->processes[i].allocs;
  json_t *summary = json_pack("{s:b, s:I, s:I, s:i, s:{s:I, s:I}}", "complete", 1, "duration_ns", (json_int_t)m->now, "largest_time_gap_ns",
                              (json_int_t)2000000, "exit_status", 0, "counters", "allocations_seen", (json_int_t)allocs,
                              "allocations_traced", (json_int_t)allocs);
  must(mlz_writer_finish(m->writer, summary), "finish");
  json_decref(summary);
  if (!quiet) print_truth(m, path);
}

static void usage(FILE *out) {
  fputs("usage: make_large [options] FILE\n\n"
        "Writes a trace and prints what is in it as JSON.\n\n"
        "  --events N     (default 300000000)\n"
        "  --stacks N     about so many distinct ones (default 32000)\n"
        "  --live N       blocks that live long, at a time (default 500000)\n"
        "  --threads N    of each process (default 4)\n"
        "  --processes N  (default 1)\n"
        "  --seed N       (default 1)\n"
        "  --quiet        prints nothing\n",
        out);
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"events", 1, NULL, 'e'},  {"stacks", 1, NULL, 's'},    {"live", 1, NULL, 'l'},
                                          {"threads", 1, NULL, 't'}, {"processes", 1, NULL, 'p'}, {"seed", 1, NULL, 'S'},
                                          {"quiet", 0, NULL, 'q'},   {"help", 0, NULL, 'h'},      {0}};
  uint64_t value[128] = {['e'] = 300000000, ['s'] = 32000, ['l'] = 500000, ['t'] = 4, ['p'] = 1, ['S'] = 1};
  for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
    if (c == 'h' || c == '?') {
      usage(c == 'h' ? stdout : stderr);
      return c == 'h' ? 0 : 2;
    }
    if (c == 'q') {
      value[c] = 1;
      continue;
    }
    char *end;
    value[c] = strtoull(optarg, &end, 10);
    if (*end || !value[c] || (c != 'e' && value[c] > 100000000) || ((c == 't' || c == 'p') && value[c] > 1000)) {
      fprintf(stderr, "make_large: '%s' is no sensible number; --help has the options\n", optarg);
      return 2;
    }
  }
  if (optind + 1 != argc) {
    usage(stderr);
    return 2;
  }
  struct maker m = {.wanted = value['e'],
                    .stacks_wanted = (uint32_t)value['s'],
                    .live_wanted = value['l'] < value['p'] ? value['p'] : value['l'],
                    .n_threads = (uint32_t)value['t'],
                    .n_processes = (uint32_t)value['p'],
                    .next_gc = 5000,
                    .next_group = GROUP};
  begin(&m, argv[optind], value['S']);
  run(&m);
  finish(&m, argv[optind], value['q'] != 0);
  for (uint32_t i = 0; i < m.n_processes; i++) {
    struct process *p = &m.processes[i];
    for (uint32_t k = 0; k < p->n_threads; k++) free(p->threads[k].kept);
    free(p->threads);
    free(p->cache);
    free(p->now);
    mlz_builder_free(p->builder);
  }
  free(m.processes);
  free(m.procedures);
  free(m.sites);
  mlz_writer_free(m.writer);
  return 0;
}
