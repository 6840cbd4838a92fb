/* memlyze control: rates as they were typed, names, the list of changes, and both sides of the mailbox. */
#include "fake.h"

#include "shm/mailbox_ask.h"
#include "tracer/recorder/desk.h"
#include "tracer/recorder/marking.h"
#include "tracer/recorder/rate.h"
#include "tracer/recorder/reach.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>

static struct fake f;
static struct mlz_desk desk;

/* ---- rates ---- */

Test(rate, is_what_was_typed) {
  static const double typed[] = {1,    0.5,  0.1,   0.01,    0.001,   0.3,     0.7,    0.25,   0.125, 0.05, 0.025, 0.0625,
                                 0.75, 0.99, 0.999, 0.00001, 0.12345, 0.98765, 0.0001, 0.1234, 1e-6,  3e-7, 0.2,   0.15};
  for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++)
    cr_assert(mlz_rate_meant(mlz_rate_word(typed[i])) == typed[i], "%.17g became %.17g", typed[i], mlz_rate_meant(mlz_rate_word(typed[i])));
  cr_assert_eq(mlz_rate_word(1), UINT32_MAX);
  for (double n = 3; n < 2000; n += 1) { /* a part of a whole number has a weight of a whole number */
    double weight = 1 / mlz_rate_meant(mlz_rate_word(1 / n));
    cr_assert_float_eq(weight, n, n * 1e-15, "1/%g: %.17g", n, weight);
  }
}

Test(rate, always_stands_for_its_word) {
  for (uint64_t word = 0; word <= UINT32_MAX; word += word < 1000 ? 1 : 999983 + word / 1000) {
    double meant = mlz_rate_meant((uint32_t)word);
    cr_assert(mlz_rate_valid(meant));
    cr_assert_eq(mlz_rate_word(meant), word, "%llu: %.17g", (unsigned long long)word, meant);
  }
}

Test(rate, that_is_none) {
  static const char *const wrong[] = {"", "0", "-0.1", "1.0001", "nan", "inf", "x", "0.1x", "1e-12"};
  double rate = 7;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) cr_assert_not(mlz_rate_parse(wrong[i], &rate), "%s", wrong[i]);
  cr_assert(rate == 7);
}

/* ---- names ---- */

static const char *problem(const char *name) { return mlz_mailbox_name_problem(name, strlen(name)); }

Test(names, good_ones) {
  char longest[256];
  memset(longest, 'x', 255);
  longest[255] = 0;
  cr_assert_null(problem("warm"));
  cr_assert_null(problem("a b/c.d@e'\"\\"));
  cr_assert_null(problem("\xc3\xbc \xe2\x82\xac \xf0\x9f\x90\x8d \xf4\x8f\xbf\xbf \xc2\xa0"));
  cr_assert_null(problem(longest));
}

Test(names, bad_ones) {
  static const char *const not_utf8[] = {
      "\x80", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "a\xff", "\xe2\x82"};
  char longer[257];
  memset(longer, 'x', 256);
  longer[256] = 0;
  for (size_t i = 0; i < sizeof not_utf8 / sizeof not_utf8[0]; i++) cr_assert_str_eq(problem(not_utf8[i]), "is not UTF-8");
  cr_assert_str_eq(problem(""), "is empty");
  cr_assert_str_eq(problem(longer), "is longer than 255 bytes");
  static const char *const control[] = {"\n", "a\tb", "\x1b[1m", "\x7f", "\xc2\x85", "\xc2\x9f"};
  for (size_t i = 0; i < sizeof control / sizeof control[0]; i++) cr_assert_str_eq(problem(control[i]), "has a control character");
  cr_assert_str_eq(mlz_mailbox_name_problem("a\0b", 3), "has a control character");
}

static const char *mark_problem(const char *name) { return mlz_mailbox_mark_problem(name, strlen(name)); }

Test(names, marks_are_no_times) {
  static const char *const times[] = {"end",    "peak",    "50%", "0 %", "1.5s",  ".5s", "5.ms",
                                      "200 ns", " 3 min ", "7H",  "10m", "100us", "250%"};
  static const char *const names[] = {"start",       "stop",   "Peak", "ends", "s", "%",     "1.5", "100",
                                      "1.5 s later", "step 1", "1s2",  ".",    "h", "12e3s", "-1s"};
  for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) cr_expect_not_null(mark_problem(times[i]), "%s", times[i]);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) cr_expect_null(mark_problem(names[i]), "%s", names[i]);
  cr_assert_str_eq(mark_problem(""), "is empty");
}

/* ---- changes ---- */

Test(changes, are_listed_once) {
  struct mlz_changes c;
  uint64_t word = mlz_rate_word(0.1);
  mlz_changes_init(&c, word, 0.1);
  mlz_changes_look(&c, word, 1);
  mlz_changes_look(&c, word + (UINT64_C(1) << MLZ_SET_GENERATION_SHIFT), 2); /* nothing that shows */
  cr_assert_eq(c.n, 0);
  mlz_changes_look(&c, mlz_rate_word(0.01), 3);
  mlz_changes_look(&c, mlz_rate_word(0.01) | MLZ_SET_PAUSED, 4);
  cr_assert_eq(c.n, 2);
  json_t *list = mlz_changes_json(&c);
  cr_assert_float_eq(json_real_value(json_object_get(json_array_get(list, 0), "sample_rate")), 0.01, 0);
  cr_assert(json_is_true(json_object_get(json_array_get(list, 1), "paused")));
  json_decref(list);
  for (unsigned i = 0; i < 3000; i++) mlz_changes_look(&c, i % 2, i);
  cr_assert_eq(c.n, MLZ_CHANGES_MAX);
  cr_assert_eq(c.left_out, 3002 - MLZ_CHANGES_MAX);
  mlz_changes_deinit(&c);
}

Test(changes, the_weight_of_what_was_typed) {
  struct mlz_changes c;
  mlz_changes_init(&c, mlz_rate_word(0.1), 0.1);
  cr_assert(mlz_changes_weight(&c, mlz_rate_word(0.1)) == 10);
  cr_assert(mlz_changes_weight(&c, mlz_rate_word(0.01)) == 100);
  mlz_changes_typed(&c, 0.123456789012);
  cr_assert(mlz_changes_weight(&c, mlz_rate_word(0.123456789012)) == 1 / 0.123456789012);
  mlz_changes_deinit(&c);
}

/* ---- the desk ---- */

static void begin(void) {
  fake_begin(&f);
  mlz_desk_init(&desk, f.arena.control, (uint32_t)getpid(), false);
}

/* What main.c does in each round. */
static void step(void) {
  mlz_desk_look(&desk);
  mlz_drain_round(&f.d);
  mlz_desk_obey(&desk, &f.d);
  if (f.d.group_wanted) {
    f.d.group_wanted = false;
    mlz_image_seal(&f.d);
  }
  mlz_desk_answer(&desk, f.emit, 0);
}

static void post(const struct mlz_request *q) {
  desk.box->request = *q;
  atomic_store(&desk.box->state, (atomic_load(&desk.box->state) & ~3u) + (4 | MLZ_MAILBOX_POSTED));
}

static enum mlz_answer ask(const struct mlz_request *q) {
  post(q);
  for (int i = 0; i < 20000 && mlz_mailbox_state_of(atomic_load(&desk.box->state)) != MLZ_MAILBOX_DONE; i++) {
    step();
    usleep(100);
  }
  cr_assert_eq(mlz_mailbox_state_of(atomic_load(&desk.box->state)), MLZ_MAILBOX_DONE, "no answer");
  return (enum mlz_answer)desk.box->answer;
}

static struct mlz_request marks(const char *mark, const char *snapshot) {
  struct mlz_request q = {.pid = (uint32_t)getpid(), .mark_bytes = (uint32_t)strlen(mark), .snapshot_bytes = (uint32_t)strlen(snapshot)};
  memcpy(q.mark, mark, q.mark_bytes);
  memcpy(q.snapshot, snapshot, q.snapshot_bytes);
  return q;
}

Test(desk, a_mark_stands_behind_what_was_published_before_it) {
  begin();
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 100, 64);
  mlz_drain_round(&f.d);
  fake_alloc(x, 200, 32);
  struct mlz_request q = marks("here", "there");
  cr_assert_eq(ask(&q), MLZ_ANSWER_DONE);
  cr_assert_gt(desk.box->answer_ns, 0);
  fake_free(x, 200);
  cr_assert_eq(mlz_drain_counters(&f.d).marks, 1);
  cr_assert_eq(mlz_drain_counters(&f.d).snapshots, 1);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(fake_events(t, 1), "+64 +32 !17 !18 -32");
  struct mlz_block b;
  mlz_trace_rewind(t);
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert_eq(b.n_rares, 2);
  cr_assert_str_eq(mlz_trace_string(t, b.rares[0].name), "here");
  cr_assert_str_eq(mlz_trace_string(t, b.rares[1].name), "there");
  cr_assert_eq(b.rares[0].start_ns, b.rares[1].start_ns);
  mlz_trace_close(t);
}

Test(desk, it_is_in_the_file_when_the_answer_comes) {
  begin();
  fake_alloc(fake_ring(&f, 0, 1), 100, 64);
  struct mlz_request q = marks("", "now");
  cr_assert_eq(ask(&q), MLZ_ANSWER_DONE);
  struct mlz_trace *t;
  char err[200];
  cr_assert_eq(mlz_trace_open(&t, f.path, err, sizeof err), 0);
  cr_assert_str_eq(fake_events(t, 1), "+64 !18");
  mlz_trace_close(t);
  mlz_trace_close(fake_end(&f));
}

Test(desk, many_marks_fill_no_builder) {
  begin();
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 100, 64);
  mlz_drain_round(&f.d);
  struct mlz_feed *feed = mlz_marking_feed(&f.d, (uint32_t)getpid());
  for (unsigned i = 0; i < 10000; i++) mlz_marking_add(&f.d, feed, MLZ_MARK_MARK, "m", 1, i);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  unsigned seen = 0;
  mlz_trace_rewind(t);
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) seen += b.n_rares;
  cr_assert_eq(seen, 10000);
  mlz_trace_close(t);
}

Test(desk, settings_change) {
  begin();
  fake_alloc(fake_ring(&f, 0, 1), 100, 64);
  uint64_t before = atomic_load(&f.arena.control->settings), clock = atomic_load(&f.arena.control->clock) & MLZ_CLOCK_SETTINGS;
  struct mlz_request q = {
      .mask = MLZ_SET_RATE_MASK | MLZ_SET_DEPTH_MASK | MLZ_SET_PAUSED, .bits = MLZ_SET_PAUSED, .sample_rate = 0.1, .depth = 7};
  cr_assert_eq(ask(&q), MLZ_ANSWER_DONE);
  uint64_t now = atomic_load(&f.arena.control->settings);
  cr_assert_eq(mlz_settings_rate(now), mlz_rate_word(0.1));
  cr_assert_eq(mlz_settings_depth(now), 7);
  cr_assert(now & MLZ_SET_PAUSED);
  cr_assert_eq(now >> MLZ_SET_GENERATION_SHIFT, ((before >> MLZ_SET_GENERATION_SHIFT) + 1) & 0xff);
  cr_assert_neq(atomic_load(&f.arena.control->clock) & MLZ_CLOCK_SETTINGS, clock, "the threads look");
  cr_assert_eq(f.d.changes.n, 1);
  cr_assert_eq(f.d.changes.list[0].ns, desk.box->answer_ns);
  mlz_trace_close(fake_end(&f));
}

/* Whoever can write the arena may have written anything. */
Test(desk, what_is_no_request_changes_nothing) {
  begin();
  fake_alloc(fake_ring(&f, 0, 1), 100, 64);
  uint64_t before = atomic_load(&f.arena.control->settings);
  struct mlz_request wrong[] = {
      {.mask = MLZ_SET_DROP},
      {.mask = MLZ_SET_RATE_MASK, .sample_rate = 1.5},
      {.mask = MLZ_SET_RATE_MASK, .sample_rate = NAN},
      {.mask = MLZ_SET_RATE_MASK, .sample_rate = 0},
      {.mask = MLZ_SET_DEPTH_MASK, .depth = 1025},
      {.mask = MLZ_SET_PAUSED, .bits = MLZ_SET_PAUSED, .mark_bytes = 256},
      {.mask = MLZ_SET_PAUSED, .bits = MLZ_SET_PAUSED, .mark_bytes = UINT32_MAX},
      {.mask = MLZ_SET_PAUSED, .bits = MLZ_SET_PAUSED, .snapshot_bytes = 1, .snapshot = "\n"},
      {.mask = MLZ_SET_RATE_MASK, .sample_rate = 0.5, .mark_bytes = 1, .mark = "\xff"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) cr_assert_eq(ask(&wrong[i]), MLZ_ANSWER_WRONG, "request %zu", i);
  struct mlz_request deep = {.mask = MLZ_SET_DEPTH_MASK, .depth = 1024}; /* the rings of the test have 1024 slots */
  cr_assert_eq(ask(&deep), MLZ_ANSWER_RINGS);
  cr_assert_eq(atomic_load(&f.arena.control->settings), before);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(fake_events(t, 1), "+64");
  mlz_trace_close(t);
}

Test(desk, a_mark_needs_a_process) {
  begin();
  struct mlz_request q = marks("lonely", "");
  q.mask = MLZ_SET_PAUSED;
  q.bits = MLZ_SET_PAUSED;
  cr_assert_eq(ask(&q), MLZ_ANSWER_NOBODY);
  cr_assert_not(atomic_load(&f.arena.control->settings) & MLZ_SET_PAUSED, "nothing of it");
  mlz_trace_close(fake_end(&f));
}

Test(desk, a_request_that_was_withdrawn_is_not_obeyed) {
  begin();
  fake_alloc(fake_ring(&f, 0, 1), 100, 64);
  struct mlz_request q = marks("never", "");
  post(&q);
  uint32_t state = atomic_load(&desk.box->state);
  atomic_store(&desk.box->state, state & ~3u);
  for (int i = 0; i < 5; i++) step();
  cr_assert_eq(atomic_load(&desk.box->state), state & ~3u);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(fake_events(t, 1), "+64");
  mlz_trace_close(t);
}

/* ---- from the other side ---- */

static void *serve(void *stop) {
  while (!atomic_load((_Atomic bool *)stop)) {
    step();
    usleep(200);
  }
  return NULL;
}

Test(reach, asks_the_recorder_that_is_us) {
  begin();
  fake_alloc(fake_ring(&f, 0, 1), 100, 64);
  mlz_drain_round(&f.d);
  struct mlz_reach r;
  char err[512] = "";
  cr_assert_eq(mlz_reach_open(&r, (uint32_t)getpid(), err, sizeof err), 0, "%s", err);
  _Atomic bool stop = false;
  pthread_t thread;
  cr_assert_eq(pthread_create(&thread, NULL, serve, &stop), 0);
  uint64_t ns = 0;
  for (unsigned i = 0; i < 50; i++) {
    struct mlz_request q = marks("again", "");
    cr_assert_eq(mlz_reach_ask(&r, &q, &ns, err, sizeof err), 0, "%s", err);
  }
  struct mlz_request q = {.mask = MLZ_SET_DROP};
  cr_assert_eq(mlz_reach_ask(&r, &q, &ns, err, sizeof err), -EINVAL);
  cr_assert_str_eq(err, "the recorder refused the request; nothing was changed");
  atomic_store(&stop, true);
  pthread_join(thread, NULL);
  mlz_reach_close(&r);
  cr_assert_eq(mlz_drain_counters(&f.d).marks, 50);
  mlz_trace_close(fake_end(&f));
}

Test(reach, nobody_is_there) {
  struct mlz_reach r;
  char err[512];
  cr_assert_eq(mlz_reach_open(&r, (uint32_t)getpid(), err, sizeof err), -ESRCH);
  cr_assert(strstr(err, "is not traced"), "%s", err);
  cr_assert_eq(mlz_reach_open(&r, 0x7ffffff0, err, sizeof err), -ESRCH);
  cr_assert_str_eq(err, "no process 2147483632 runs");
}
