/* native_life WHAT [DIRECTORY]: what may happen to a program's stacks, modules and threads. Each prints how many blocks it allocated at known
 * places; tests/integration/test_native_capture.py looks for them. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define APART static __attribute__((noipa))

extern char **environ;

__attribute__((noipa)) void *life_leaf(size_t n);
__attribute__((noipa)) void *life_leaf(size_t n) { /* called by assembler below */
  void *p = malloc(n);
  __asm__ volatile("" : : "r"(p) : "memory");
  return p;
}
APART void life_one(unsigned n) {
  free(life_leaf(n));
  __asm__ volatile("");
}
APART void life_two(unsigned n) {
  life_one(n);
  life_one(n + 1);
}
APART void life_deep(unsigned depth) {
  char room[64];
  __asm__ volatile("" : : "r"(room) : "memory");
  if (depth % 16 == 0) life_one(depth + 16);
  if (depth) life_deep(depth - 1);
  __asm__ volatile("" : : "r"(room) : "memory");
}

static void *some(void *arg) {
  for (unsigned i = 0; i < 50; i++) life_two(16 + (unsigned)(uintptr_t)arg);
  return NULL;
}
static int threads(void) {
  for (unsigned round = 0; round < 20; round++) {
    pthread_t t[10];
    for (uintptr_t i = 0; i < 10; i++)
      if (pthread_create(&t[i], NULL, some, (void *)i) != 0) return 1;
    for (unsigned i = 0; i < 10; i++) pthread_join(t[i], NULL);
  }
  return 200 * 50 * 2;
}

static volatile int stop;
static void *busy(void *arg) {
  while (!stop) life_two(32);
  return arg;
}
/* Forks while others are inside malloc; every child allocates and ends. */
static int forks(void) {
  pthread_t t[3];
  for (unsigned i = 0; i < 3; i++) pthread_create(&t[i], NULL, busy, NULL);
  for (unsigned i = 0; i < 20; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      life_deep(40);
      for (unsigned k = 0; k < 20; k++) life_two(64);
      _exit(0);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0) return -1;
    pid = vfork();
    if (pid == 0) _exit(0);
    waitpid(pid, &status, 0);
    char *arguments[] = {"true", NULL};
    if (posix_spawnp(&pid, "true", NULL, NULL, arguments, environ) == 0) waitpid(pid, &status, 0);
  }
  stop = 1;
  for (unsigned i = 0; i < 3; i++) pthread_join(t[i], NULL);
  return 20 * 40;
}

static void on_signal(int number) {
  (void)number;
  life_two(48);
}
APART void life_raise(unsigned depth) {
  char room[200];
  __asm__ volatile("" : : "r"(room) : "memory");
  if (depth)
    life_raise(depth - 1);
  else
    raise(SIGUSR1);
  __asm__ volatile("" : : "r"(room) : "memory");
}
static int signals(void) {
  stack_t s = {.ss_sp = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};
  sigaltstack(&s, NULL);
  for (int flags = 0; flags < 2; flags++) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = flags ? SA_ONSTACK : 0};
    sigaction(SIGUSR1, &a, NULL);
    for (unsigned i = 0; i < 100; i++) life_raise(i % 10);
  }
  return 400;
}

static ucontext_t back, there;
static void routine(void) {
  for (;;) {
    life_two(80);
    swapcontext(&there, &back);
  }
}
static int contexts(void) {
  for (volatile unsigned round = 0; round < 20; round++) {
    size_t bytes = 65536u << round % 3;
    char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = bytes;
    makecontext(&there, routine, 0);
    for (unsigned i = 0; i < 10; i++) {
      swapcontext(&back, &there);
      life_one(90);
    }
    munmap(stack, bytes);
  }
  return 600;
}

static int jumps(void) {
  static jmp_buf here;
  for (volatile unsigned i = 0; i < 300; i++) {
    if (setjmp(here) == 0) {
      life_deep(i % 50);
      longjmp(here, 1);
    }
    life_two(16);
  }
  return 600;
}

/* Two modules by turns, likely at the same address. */
static int modules(const char *directory) {
  for (unsigned i = 0; i < 60; i++) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/native_module_%c.so", directory, "ab"[i % 2]);
    void *m = dlopen(path, RTLD_NOW);
    if (!m) return -1;
    void (*f)(void (*)(unsigned)) = (void (*)(void (*)(unsigned)))dlsym(m, "module_entry");
    f(life_two);
    dlclose(m);
  }
  return 120;
}

/* Functions whose tables say that the caller's frame is found by rbp, which they have put to other use: life_added by an addition, life_loaded by a
 * load from there. */
void *life_added(size_t n, uintptr_t rbp);
void *life_loaded(size_t n, uintptr_t rbp);
__asm__(".text\n"
        ".type life_added,@function\n"
        "life_added:\n.cfi_startproc\npush %rbp\n.cfi_def_cfa 6,16\n.cfi_offset 6,-16\n"
        "mov %rsi,%rbp\ncall life_leaf\npop %rbp\n.cfi_def_cfa 7,8\nret\n.cfi_endproc\n.size life_added,.-life_added\n"
        ".type life_loaded,@function\n"
        "life_loaded:\n.cfi_startproc\npush %rbp\n.cfi_escape 0x0f,3,0x76,0x78,6\n.cfi_escape 0x10,6,2,0x76,0\n"
        "mov %rsi,%rbp\ncall life_leaf\npop %rbp\n.cfi_def_cfa 7,8\nret\n.cfi_endproc\n.size life_loaded,.-life_loaded\n");

static int wrong_frames(void) {
  uintptr_t here = (uintptr_t)__builtin_frame_address(0);
  uintptr_t rbps[] = {0,
                      8,
                      1,
                      here,
                      here + 4096,
                      here - 4096,
                      here - (9u << 20),
                      here - (20u << 20),
                      here - (90u << 20),
                      (uintptr_t)1 << 47,
                      UINTPTR_MAX - 7,
                      (uintptr_t)&rbps};
  enum { N = sizeof rbps / sizeof rbps[0] };
  for (unsigned round = 0; round < 3; round++)
    for (unsigned i = 0; i < N; i++) {
      free(life_added(16, rbps[i]));
      free(life_loaded(16, rbps[i]));
    }
  return 3 * N * 2;
}

static int moved(const char *path) {
  void *m = dlopen(path, RTLD_NOW);
  if (!m) return -1;
  void (*f)(void (*)(unsigned)) = (void (*)(void (*)(unsigned)))dlsym(m, "module_entry");
  f(life_two);
  return 2;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  int n = strcmp(what, "threads") == 0    ? threads()
          : strcmp(what, "forks") == 0    ? forks()
          : strcmp(what, "signals") == 0  ? signals()
          : strcmp(what, "contexts") == 0 ? contexts()
          : strcmp(what, "jumps") == 0    ? jumps()
          : strcmp(what, "modules") == 0  ? modules(argc > 2 ? argv[2] : ".")
          : strcmp(what, "wrong") == 0    ? wrong_frames()
          : strcmp(what, "moved") == 0    ? moved(argc > 2 ? argv[2] : "")
          : strcmp(what, "deep") == 0     ? (life_deep(20000), 1251)
                                          : -1;
  printf("%d\n", n);
  return n < 0;
}
