/* Builder, encoder and decoder together: a simulated program with threads, its events written and read back, one by one. */
#include "formats/reader.h"
#include "formats/writer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct event { /* what must come back */
  uint64_t alloc_no, time_ns, size;
  double weight;
  uint32_t stack, thread;
  uint8_t op, domain;
};

struct world {
  struct mlz_writer *w;
  struct mlz_builder *b;
  int keep;
  struct event *events, *live;
  size_t n, live_n;
  uint64_t first, allocs, now;
  uint32_t thread, chunks;
  uint64_t random;
  uint32_t stacks;
};

static uint32_t noise(struct world *o, uint32_t below) {
  o->random ^= o->random << 13;
  o->random ^= o->random >> 7;
  o->random ^= o->random << 17;
  return (uint32_t)(o->random >> 20) % below;
}

static void begin(struct world *o, size_t events) {
  *o = (struct world){.random = 4711, .thread = 1, .stacks = 50};
  int fd = memfd_create("trace", MFD_CLOEXEC);
  o->keep = dup(fd);
  json_t *meta = json_object();
  cr_assert_eq(mlz_writer_new(&o->w, fd, meta, 0), 0);
  json_decref(meta);
  o->b = mlz_builder_new();
  o->events = malloc(events * sizeof o->events[0]);
  o->live = malloc(events * sizeof o->live[0]);
  cr_assert(o->b != NULL && o->events != NULL && o->live != NULL);
  for (uint32_t i = 0; i < o->stacks; i++) cr_assert_eq(mlz_writer_stack(o->w, NULL, 0, false), i + 1);
  for (int i = 1; i <= 300; i++) mlz_writer_thread(o->w, json_pack("{s:i}", "id", i));
  struct mlz_bytes rows;
  cr_assert_eq(mlz_writer_take_tables(o->w, &rows), 0);
  cr_assert_eq(mlz_writer_append_tables(o->w, &rows), 0);
  free(rows.data);
  mlz_builder_begin(o->b, 1, 0, 0);
  mlz_builder_thread(o->b, o->thread);
}

static void seal(struct world *o) {
  cr_assert_eq(mlz_writer_append_events(o->w, o->b), 0);
  o->chunks += mlz_builder_count(o->b) != 0;
  o->first = o->allocs;
  mlz_builder_begin(o->b, 1, o->first, o->now);
  mlz_builder_thread(o->b, o->thread);
}

static struct event *add(struct world *o, struct event e) {
  e.time_ns = o->now;
  e.thread = o->thread;
  o->events[o->n] = e;
  return &o->events[o->n++];
}

static void room(struct world *o) {
  if (mlz_builder_full(o->b)) seal(o);
}

static void alloc(struct world *o, uint32_t stack, uint64_t size, unsigned domain, double weight) {
  room(o);
  uint64_t no = mlz_builder_alloc(o->b, stack, size, domain, weight);
  cr_assert_eq(no, o->allocs++);
  struct event e = {.alloc_no = no, .size = size, .weight = weight, .stack = stack, .op = MLZ_OP_ALLOC, .domain = (uint8_t)domain};
  o->live[o->live_n++] = *add(o, e);
}

static void release(struct world *o, size_t at, bool temporary) {
  room(o);
  struct event e = o->live[at];
  o->live[at] = o->live[--o->live_n];
  bool old = e.alloc_no < o->first;
  mlz_builder_free_block(o->b, e.alloc_no, e.stack, e.size, e.domain, e.weight, temporary);
  e.op = old ? (temporary ? MLZ_OP_FREE_OLD_TEMP : MLZ_OP_FREE_OLD) : (temporary ? MLZ_OP_FREE_TEMP : MLZ_OP_FREE);
  add(o, e);
}

static void turn(struct world *o, uint32_t thread, uint64_t ns) {
  o->thread = thread;
  o->now += ns;
  mlz_builder_thread(o->b, thread);
  mlz_builder_time(o->b, o->now);
}

static void compare(struct world *o, unsigned want, bool with_index) {
  char path[64], err[256];
  snprintf(path, sizeof path, "/proc/self/fd/%d", o->keep);
  if (!with_index) cr_assert_eq(ftruncate(o->keep, lseek(o->keep, 0, SEEK_END) - 32), 0);
  struct mlz_trace *t = NULL;
  struct mlz_block b;
  cr_assert_eq(mlz_trace_open(&t, path, err, sizeof err), 0, "%s", err);
  size_t at = 0;
  uint32_t chunks = 0;
  while (mlz_trace_next(t, want, &b) == 1) {
    chunks++;
    for (uint32_t i = 0; i < b.n; i++, at++) {
      cr_assert_lt(at, o->n);
      const struct event *e = &o->events[at];
      cr_assert_eq(b.ops[i], e->op, "event %zu: op %u, not %u", at, b.ops[i], e->op);
      if (want & MLZ_WANT_TIME) cr_assert_eq(b.time_ns[i], e->time_ns);
      if (want & MLZ_WANT_THREAD) cr_assert_eq(b.thread[i], e->thread);
      if (e->op > MLZ_OP_FREE_OLD_TEMP) continue;
      const struct mlz_class *k = &b.classes[b.classes_of[i]];
      cr_assert(k->size == e->size && k->stack == e->stack && k->domain == e->domain && k->weight == e->weight, "event %zu: class", at);
      if (want & MLZ_WANT_ALLOC_NO)
        cr_assert_eq(b.alloc_no[i], e->alloc_no, "event %zu: allocation %lu, not %lu", at, b.alloc_no[i], e->alloc_no);
      uint64_t ns = 0;
      if (e->op == MLZ_OP_ALLOC && at % 97 == 0) {
        cr_assert(mlz_trace_alloc_time(t, 1, e->alloc_no, &ns));
        cr_assert_leq(ns, e->time_ns);
      }
    }
  }
  cr_assert_eq(at, o->n);
  cr_assert_eq(chunks, o->chunks);
  cr_assert_eq(mlz_trace_complete(t), with_index);
  mlz_trace_close(t);
}

static void finish(struct world *o) {
  seal(o);
  json_t *summary = json_pack("{s:b}", "complete", 1);
  cr_assert_eq(mlz_writer_finish(o->w, summary), 0);
  json_decref(summary);
  mlz_writer_free(o->w);
  mlz_builder_free(o->b);
  for (unsigned want = 0; want <= MLZ_WANT_ALL; want++) compare(o, want, true);
  compare(o, MLZ_WANT_ALL, false);
  free(o->events);
  free(o->live);
  close(o->keep);
}

Test(builder, a_program_with_threads_comes_back_event_by_event) {
  struct world o;
  begin(&o, 400000);
  while (o.n < 60000) {
    uint32_t what = noise(&o, 100);
    if (what < 45 || o.live_n == 0)
      alloc(&o, noise(&o, o.stacks + 1), what < 3 ? (UINT64_C(1) << 47) + noise(&o, 1000) : 16 * noise(&o, 200), noise(&o, 5),
            what % 9 == 0 ? 1.0 : 1.0 / 0.3);
    else if (what < 70)
      release(&o, o.live_n - 1, what < 60);
    else if (what < 90)
      release(&o, noise(&o, (uint32_t)o.live_n), noise(&o, 20) == 0);
    else if (what < 95)
      turn(&o, 1 + noise(&o, 300), noise(&o, 3) * 1000);
    else if (noise(&o, 400) == 0)
      seal(&o);
  }
  cr_assert_gt(o.chunks, 3u);
  finish(&o);
}

Test(builder, a_chunk_holds_what_full_allows_and_the_border_loses_nothing) {
  struct world o;
  begin(&o, 700000);
  while (o.n < 600000) {
    alloc(&o, o.n % 7, 64, 2, 1.0);
    if (o.live_n > 5000) release(&o, 0, false);
  }
  cr_assert_eq(o.chunks, 2u);
  finish(&o);
}

Test(builder, each_event_another_class_thread_and_time) {
  struct world o;
  begin(&o, 300000);
  for (uint32_t i = 0; i < 270000; i++) {
    turn(&o, 1 + i % 300, i);
    alloc(&o, i % 51, i, i % 5, 1.0);
  }
  cr_assert_eq(o.chunks, 1u);
  finish(&o);
}

Test(builder, time_never_goes_back) {
  struct world o;
  begin(&o, 10);
  o.now = 500;
  mlz_builder_time(o.b, 500);
  alloc(&o, 1, 1, 0, 1.0);
  mlz_builder_time(o.b, 400);
  alloc(&o, 1, 1, 0, 1.0);
  finish(&o);
}

Test(builder, rare_rows_fill_a_chunk_before_they_overflow) {
  struct mlz_builder *b = mlz_builder_new();
  struct mlz_rare r = {.op = MLZ_OP_GC, .start_ns = 1};
  uint32_t n = 0;
  for (; !mlz_builder_full(b) && n < 100000; n++) mlz_builder_rare(b, &r);
  cr_assert(n > 1000 && n < 100000);
  cr_assert_eq(mlz_builder_count(b), n);
  mlz_builder_begin(b, 1, 0, 0);
  for (n = 0; !mlz_builder_full(b) && n < 100000; n++) /* each another weight */
    mlz_builder_alloc(b, 1, 1, 1, 1.0 + n);
  cr_assert(n > 100 && n < 1000);
  mlz_builder_free(b);
}

Test(builder, values_beyond_the_format_cost_no_chunk) {
  struct world o;
  begin(&o, 10);
  mlz_builder_alloc(o.b, 1, UINT64_MAX, 77, 0.0 / 0.0);
  char path[64], err[256];
  snprintf(path, sizeof path, "/proc/self/fd/%d", o.keep);
  seal(&o);
  struct mlz_trace *t;
  struct mlz_block b;
  cr_assert_eq(mlz_trace_open(&t, path, err, sizeof err), 0);
  cr_assert_eq(mlz_trace_next(t, 0, &b), 1);
  cr_assert(b.classes[0].size == (UINT64_C(1) << 48) - 1 && b.classes[0].weight == 1 && b.classes[0].domain == 0);
  mlz_trace_close(t);
  mlz_writer_free(o.w);
  mlz_builder_free(o.b);
  free(o.events);
  free(o.live);
  close(o.keep);
}
