/* Captures against libgcc's unwinder, frame by frame, on random stacks: frames of every make, calls through the C library, signals, coroutines,
 * threads, jumps. MEMLYZE_NATIVE_CHECK's second walk runs at each of them, too. */
#include "native_ring.h"

#include <alloca.h>
#include <criterion/criterion.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unwind.h>

#define DEPTH 32u
#define OFTEN __attribute__((noinline, noclone))

static __thread struct native_ring *ring;
static __thread uint32_t depth_wanted = DEPTH;
static __thread uint64_t taken, compared;

/* ---- the other opinion ---- */

struct opinion {
  uintptr_t pc[4096];
  bool exact[4096];
  size_t n;
};
static _Unwind_Reason_Code add(struct _Unwind_Context *context, void *into) {
  struct opinion *o = into;
  int before = 0;
  if (o->n == 4096) return _URC_END_OF_STACK;
  o->pc[o->n] = _Unwind_GetIPInfo(context, &before);
  o->exact[o->n++] = before;
  return _URC_NO_REASON;
}

static void fail(const struct opinion *o, size_t i, const char *what) {
  char line[4096];
  int at = snprintf(line, sizeof(line), "capture %lu, frame %zu of %zu: %s; theirs, ours:", taken, i, o->n, what);
  uint32_t node = ring->current;
  for (size_t k = 1; k < o->n && k < 40 && at < 3900; k++) {
    at += snprintf(line + at, sizeof(line) - (size_t)at, "\n %#lx%s %#lx", o->pc[k], o->exact[k] ? "!" : "",
                   node ? native_ring_address(ring, node) : 0);
    node = node ? ring->nodes[node].caller : 0;
  }
  cr_assert_fail("%s", line);
}

static __thread struct opinion opinion;

/* A capture of its caller's stack, compared with the unwinder's. */
static OFTEN void take(void) {
  const uintptr_t *frame = MLZ_NATIVE_FRAME();
  taken++;
  cr_assert(mlz_native_capture(&mlz_tls, frame, NULL));
  native_ring_read(ring);
  cr_assert_null(ring->wrong, "%s", ring->wrong);
  struct opinion *o = &opinion;
  o->n = 0;
  _Unwind_Backtrace(add, o);
  while (o->n && o->pc[o->n - 1] == 0) o->n--;
  uint32_t node = ring->current;
  for (size_t i = 1; i < o->n && i <= depth_wanted; i++) {
    if (!node) fail(o, i, "missing");
    const struct ring_node *x = &ring->nodes[node];
    if (native_ring_address(ring, node) != o->pc[i]) fail(o, i, "another address");
    /* The trampoline under a handler, and where a coroutine begins, count as exact, too. */
    bool start = i + 1 >= o->n || o->exact[i + 1];
    if (!(x->flags & MLZ_N_EXACT) != !o->exact[i] && !start) fail(o, i, "interrupted or not");
    if (x->flags & MLZ_N_CUT && x->caller == 0 && i + 1 < o->n && i < depth_wanted) fail(o, i, "cut");
    compared++;
    node = x->caller;
  }
  if (node && o->n <= depth_wanted) fail(o, o->n, "too many");
}

/* ---- frames of every make ---- */

static __thread uint64_t seed;
static uint64_t random_below(uint64_t n) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (seed >> 33) % n;
}
static volatile char sink;
static void use(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

static void go(unsigned depth);

static OFTEN void plain(unsigned depth) {
  go(depth);
  sink++;
}
static OFTEN void twice(unsigned depth) { /* the same callee at the same place, from two calls */
  take();
  go(depth);
  take();
  sink++;
}
static OFTEN void large(unsigned depth) { /* beyond 64 KB */
  char b[70000];
  use(b);
  go(depth);
  use(b);
}
static OFTEN void variable(unsigned depth) {
  char *b = alloca(16 + random_below(300));
  use(b);
  go(depth);
  use(b);
}
static OFTEN void realigned(unsigned depth) {
  _Alignas(128) char b[256];
  char *c = alloca(1 + random_below(200));
  use(b);
  use(c);
  go(depth);
  use(b);
}
static OFTEN __attribute__((optimize("no-omit-frame-pointer"))) void with_rbp(unsigned depth) {
  char b[40];
  use(b);
  go(depth);
  use(b);
}
static OFTEN void many_registers(unsigned depth) { /* rbp holds anything */
  uint64_t a = random_below(99), b = a * 3, c = b ^ 5, d = c + a, e = d * b, f = e - c;
  go(depth);
  __asm__ volatile("" : : "r"(a), "r"(b), "r"(c), "r"(d), "r"(e), "r"(f));
  take();
  __asm__ volatile("" : : "r"(a), "r"(b), "r"(c), "r"(d), "r"(e), "r"(f));
}
static __thread unsigned callback_depth;
static OFTEN int callback(const void *a, const void *b) {
  unsigned depth = callback_depth;
  if (depth) {
    callback_depth = 0;
    go(depth);
  }
  return *(const int *)a - *(const int *)b;
}
static OFTEN void sorts(unsigned depth) {
  int numbers[] = {3, 1, 2, 7, 5};
  callback_depth = depth;
  qsort(numbers, 5, sizeof(int), callback);
  callback_depth = 0;
}
static OFTEN void jumps(unsigned depth) {
  jmp_buf here;
  if (setjmp(here) == 0) {
    go(depth);
    longjmp(here, 1);
  }
  take();
}
static void (*const makes[])(unsigned) = {plain, twice, large, variable, realigned, with_rbp, many_registers, sorts, jumps};

static void go(unsigned depth) {
  if (depth == 0 || random_below(8) == 0) take();
  if (depth) makes[random_below(sizeof(makes) / sizeof(makes[0]))](depth - 1);
  __asm__ volatile("");
}

static uint64_t mismatches(void) { return atomic_load(&mlz_no_control.native_mismatches); }

static void begin(uint32_t depth) {
  if (!mlz_agent.native) mlz_native_start();
  mlz_agent.native_check = true;
  depth_wanted = depth;
  ring = native_ring_open(depth);
}
static void end(void) {
  cr_assert_eq(mismatches(), 0, "%lu of %lu captures", mismatches(), taken);
  cr_assert_gt(compared, 0);
  native_ring_close(ring);
}

Test(native_walk, random_stacks) {
  begin(DEPTH);
  for (unsigned i = 0; i < 3000; i++) {
    seed = i / 3; /* each thrice: new, remembered, known */
    go((unsigned)random_below(24));
  }
  cr_assert_gt(taken, 20000);
  end();
}

Test(native_walk, every_depth_of_window) {
  for (uint32_t depth = 1; depth < 70; depth += depth < 6 ? 1 : 13) {
    begin(depth);
    for (unsigned i = 0; i < 200; i++) {
      seed = i / 2;
      go((unsigned)random_below(60));
    }
    end();
  }
}

/* The check counts what is wrong: here the return address lies about itself. */
Test(native_walk, the_second_walk_sees_differences) {
  begin(DEPTH);
  take();
  cr_assert_eq(mismatches(), 0);
  uintptr_t false_frame[8] = {0};
  const uintptr_t *real = MLZ_NATIVE_FRAME();
  memcpy(false_frame, real, 2 * sizeof(uintptr_t));
  /* In the trie there is something else than on the stack: */
  struct mlz_native_module m;
  cr_assert(mlz_native_module_of((uintptr_t)take, &m));
  struct mlz_rule r;
  mlz_native_rule(real[1], &r);
  r.word++;
  atomic_fetch_add(&mlz_native_epoch.now, 1);
  mlz_rules_put(real[1], atomic_load(&mlz_native_epoch.now), &r);
  cr_assert(mlz_native_capture(&mlz_tls, real, NULL));
  cr_assert_eq(mismatches(), 1);
}

/* ---- deep recursion ---- */

static OFTEN void recursion(unsigned depth, unsigned every) {
  if (depth % every == 0) take();
  if (depth) recursion(depth - 1, every);
  if (depth % (every + 3) == 0) take();
}

Test(native_walk, deep_recursion) {
  begin(DEPTH);
  recursion(6000, 7);
  recursion(100, 1);
  recursion(3000, 11);
  end();
}

Test(native_walk, a_full_trie_begins_again) {
  begin(DEPTH);
  mlz_agent.whole = false; /* address space is scarce: a small one */
  for (unsigned i = 0; i < 4000 && !ring->resets; i++) {
    seed = i;
    recursion(1 + i % 90, 5);
    go(50);
  }
  cr_assert_gt(ring->resets, 0, "%u nodes", ring->n_nodes);
  for (seed = 1; seed < 100; seed++) go(20);
  end();
}

/* ---- signals ---- */

static OFTEN void handler(int number) {
  (void)number;
  take();
  go(3);
}
static void install(int flags) {
  struct sigaction a = {.sa_handler = handler, .sa_flags = flags};
  sigaction(SIGUSR1, &a, NULL);
}
static OFTEN void interrupted(unsigned depth) {
  char b[100];
  use(b);
  if (depth)
    interrupted(depth - 1);
  else
    raise(SIGUSR1);
  use(b);
}

Test(native_walk, signal_handlers) {
  begin(DEPTH);
  install(0);
  for (unsigned i = 0; i < 200; i++) {
    seed = i / 4;
    interrupted(i % 20);
  }
  end();
}

Test(native_walk, signal_handlers_on_a_stack_of_their_own) {
  begin(DEPTH);
  stack_t s = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};
  sigaltstack(&s, NULL);
  install(SA_ONSTACK);
  for (unsigned i = 0; i < 200; i++) {
    seed = i / 4;
    interrupted(i % 20);
    go(4);
  }
  end();
}

/* At any instruction: a timer. */
static volatile sig_atomic_t ticks;
static OFTEN void on_tick(int number) {
  (void)number;
  ticks++;
  cr_assert(mlz_native_capture(&mlz_tls, MLZ_NATIVE_FRAME(), NULL));
  native_ring_read(ring);
}
static OFTEN unsigned work(unsigned n) { return n < 2 ? n : work(n - 1) + work(n - 2) + (unsigned)random_below(2); }

Test(native_walk, interrupted_anywhere) {
  begin(DEPTH);
  struct sigaction a = {.sa_handler = on_tick};
  sigaction(SIGALRM, &a, NULL);
  ualarm(200, 200);
  while (ticks < 300) use(&(unsigned){work(16)});
  ualarm(0, 0);
  compared = 1;
  end();
}

/* ---- coroutines ---- */

static ucontext_t main_context, routine_context[2];
static void routine(void) {
  for (unsigned i = 0;; i++) {
    take();
    go(1 + i % 9);
    swapcontext(&routine_context[1], &main_context);
  }
}

static void coroutine_on(void *stack, size_t bytes) {
  getcontext(&routine_context[1]);
  routine_context[1].uc_stack.ss_sp = stack;
  routine_context[1].uc_stack.ss_size = bytes;
  routine_context[1].uc_link = NULL;
  makecontext(&routine_context[1], routine, 0);
  for (unsigned i = 0; i < 60; i++) {
    seed = i;
    swapcontext(&main_context, &routine_context[1]);
    go(i % 7);
  }
}

Test(native_walk, coroutines) {
  enum { BYTES = 4 << 20 };
  begin(DEPTH);
  void *block = malloc(BYTES);
  coroutine_on(block, BYTES);
  free(block);
  char *mapped = mmap(NULL, BYTES + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(mapped + 4096, BYTES, PROT_READ | PROT_WRITE);
  coroutine_on(mapped + 4096, BYTES);
  end();
}

/* ---- threads ---- */

static void *thread(void *arg) {
  begin(DEPTH);
  for (unsigned i = 0; i < 60; i++) {
    seed = (uintptr_t)arg + i / 2;
    go((unsigned)random_below(20));
  }
  end();
  return NULL;
}

Test(native_walk, threads) {
  mlz_native_start();
  for (uintptr_t round = 0; round < 8; round++) {
    pthread_t t[8];
    for (uintptr_t i = 0; i < 8; i++) cr_assert_eq(pthread_create(&t[i], NULL, thread, (void *)(round * 8 + i)), 0);
    for (unsigned i = 0; i < 8; i++) pthread_join(t[i], NULL);
  }
}

/* ---- stacks that are none ---- */

static uintptr_t words[512];

Test(native_walk, a_corrupted_stack_ends_the_walk) {
  begin(DEPTH);
  const uintptr_t *real = MLZ_NATIVE_FRAME();
  for (unsigned i = 0; i < 20000; i++) {
    seed = i;
    /* A frame of ours in static memory, in garbage of a few kinds: small numbers, addresses of code, of the stack, of nothing. */
    for (unsigned k = 0; k < 512; k++) {
      uintptr_t kinds[] = {random_below(4096),
                           (uintptr_t)take + random_below(4000),
                           (uintptr_t)&words[random_below(512)],
                           (uintptr_t)real + 8 * random_below(1000),
                           (uintptr_t)random_below(UINT64_C(1) << 31) << 17,
                           (uintptr_t)qsort + random_below(500)};
      words[k] = kinds[random_below(6)];
    }
    cr_assert(mlz_native_capture(&mlz_tls, &words[random_below(400)], NULL));
    native_ring_read(ring);
    cr_assert_null(ring->wrong, "%s", ring->wrong);
  }
  /* The same on the thread's own stack. */
  uintptr_t garbage[600];
  for (unsigned i = 0; i < 20000; i++) {
    seed = i;
    for (unsigned k = 0; k < 600; k++) {
      uintptr_t kinds[] = {(uintptr_t)take + random_below(4000), (uintptr_t)&garbage[random_below(600)],
                           (uintptr_t)qsort + random_below(500), (uintptr_t)real + 8 * random_below(1 << 16)};
      garbage[k] = kinds[random_below(4)];
    }
    use(garbage);
    cr_assert(mlz_native_capture(&mlz_tls, &garbage[random_below(300)], NULL));
    native_ring_read(ring);
  }
  take();
  end();
}

Test(native_walk, the_kernel_s_own_code_has_rules) {
  struct mlz_native_module m;
  mlz_native_start();
  unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
  if (!vdso) return;
  cr_assert(mlz_native_module_of(vdso + 64, &m));
  cr_assert_not_null(m.hdr);
}

Test(native_walk, no_room_leaves_the_trie_as_the_recorder_knows_it) {
  begin(DEPTH);
  take();
  /* Nobody reads. Captures that do not fit say so; those that follow make sense again. */
  mlz_tls.settings |= MLZ_SET_DROP;
  unsigned refused = 0;
  for (unsigned i = 0; i < 3000; i++) {
    uintptr_t stack[4] = {0, (uintptr_t)take + 1 + i % 2000, 0, 0};
    refused += !mlz_native_capture(&mlz_tls, stack, NULL);
  }
  cr_assert_gt(refused, 0);
  native_ring_read(ring);
  for (unsigned i = 0; i < 300; i++) {
    seed = i;
    go(10);
  }
  end();
}
