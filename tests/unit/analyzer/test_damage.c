/* Every tool on traces that were cut and changed, each run in a process of its own: the part that can be read with a warning, or exit 2; never
 * a signal, a hang, more than 200 MB, or an answer without a word. memlyze-verify finds each. Prints TAP.
 *
 * verify sees each of 1,000 changed places and each cut, the other tools take turns, since a day has many test runs.
 *   test_damage all   every tool sees all of them */
#include "tests/golden/sample.h"
#include "tests/tools/tool_mains.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 20, MEMORY_MB = 200, REPAIRED_EVERY = 25 };

#define GOOD "@good" /* in an argument: the whole trace; @bad: the changed one */
#define BAD "@bad"
struct tool {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *argv[8];
  bool judges; /* exit status 1 is an answer, too */
};
static const struct tool tools[] = {
    {"verify", mlz_main_verify, {"verify", "--json", BAD}, true}, /* the first: runs on each */
    {"stats", mlz_main_stats, {"stats", "--json", BAD}, false},
    {"stats (text)", mlz_main_stats, {"stats", BAD}, false},
    {"top", mlz_main_top, {"top", "--json", BAD}, false},
    {"top --by peak-bytes", mlz_main_top, {"top", "--json", "--by", "peak-bytes", BAD}, false},
    {"leaks", mlz_main_leaks, {"leaks", "--json", BAD}, false},
    {"flame", mlz_main_flame, {"flame", BAD}, false},
    {"gc", mlz_main_gc, {"gc", "--json", BAD}, false},
    {"diff", mlz_main_diff, {"diff", "--json", GOOD, BAD}, false},
    {"export", mlz_main_export, {"export", "--to=csv", "--rows=event", BAD}, false},
    {"export", mlz_main_export, {"export", "--to=speedscope", BAD}, false},
    {"annotate", mlz_main_annotate, {"annotate", "--json", BAD}, false},
    {"annotate (text)", mlz_main_annotate, {"annotate", BAD}, false},
    {"check", mlz_main_check, {"check", "--json", "--no-config", "--max-peak", "1TB", BAD}, true},
};
enum { TOOLS = sizeof tools / sizeof tools[0] };

struct answer {
  int status;
  long kilobytes;
  char *out, *err;
};

static int good_fd, bad_fd, out_fd, err_fd;
static char good_path[40], bad_path[40];
static unsigned cases, failures;

static int memory_file(const char *name, char *path) {
  int fd = memfd_create(name, 0); /* the tools open it by its path */
  if (fd < 0) abort();
  if (path != NULL) sprintf(path, "/proc/self/fd/%d", fd);
  return fd;
}

static void put(int fd, const uint8_t *bytes, size_t n) {
  if (ftruncate(fd, 0) != 0 || pwrite(fd, bytes, n, 0) != (ssize_t)n) abort();
}

static char *text_of(int fd) {
  off_t n = lseek(fd, 0, SEEK_END);
  char *text = calloc(1, (size_t)n + 1);
  if (text == NULL || pread(fd, text, (size_t)n, 0) != n || ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) abort();
  return text;
}

static void in_child(const struct tool *tool) {
  char *argv[9];
  int argc = 0;
  for (; tool->argv[argc] != NULL; argc++)
    argv[argc] = !strcmp(tool->argv[argc], GOOD)  ? good_path
                 : !strcmp(tool->argv[argc], BAD) ? bad_path
                                                  : (char *)(uintptr_t)tool->argv[argc];
  argv[argc] = NULL;
#ifndef __SANITIZE_ADDRESS__
  struct rlimit limit = {(rlim_t)(MEMORY_MB + 64) << 20, (rlim_t)(MEMORY_MB + 64) << 20};
  setrlimit(RLIMIT_AS, &limit);
#endif
  dup2(out_fd, STDOUT_FILENO);
  dup2(err_fd, STDERR_FILENO);
  alarm(SECONDS);
  exit(tool->run(argc, argv));
}

static struct answer ask(const struct tool *tool) {
  struct answer a;
  struct rusage usage;
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) in_child(tool);
  if (child < 0 || wait4(child, &a.status, 0, &usage) != child) abort();
  a.kilobytes = usage.ru_maxrss;
  a.out = text_of(out_fd);
  a.err = text_of(err_fd);
  return a;
}

static void forget(struct answer *a) {
  free(a->out);
  free(a->err);
}

/* NULL, or what is wrong with the answer about a trace that is damaged. */
static const char *fault_of(const struct tool *tool, const struct answer *a, bool repaired) {
  if (!WIFEXITED(a->status)) return WTERMSIG(a->status) == SIGALRM ? "hangs" : "dies by a signal";
  int status = WEXITSTATUS(a->status);
#ifndef __SANITIZE_ADDRESS__
  if (a->kilobytes > MEMORY_MB * 1024) return "takes more than 200 MB";
#endif
  if (status > 2 || (status == 1 && !tool->judges)) return "exit status";
  if (status == 2) return a->err[0] != 0 && strchr(a->err, '\n') != NULL ? NULL : "exit 2 without a line";
  if (a->out[0] == 0) return "says nothing";
  if (repaired) return strstr(a->err, "damaged:") || strstr(a->err, "did not finish") ? "finds a repaired trace damaged" : NULL;
  if (tool->run == mlz_main_verify) return status == 1 ? NULL : "verify finds nothing";
  return strstr(a->err, "damaged:") || strstr(a->err, "did not finish") ? NULL : "an answer without a warning";
}

static unsigned said;
/* verify sees every place, each other tool one of `share`. A sanitized process takes 20 times as long to fork, so only one place of
 * STRIDE is tried there. */
static unsigned share = 3;
#ifdef __SANITIZE_ADDRESS__
enum { STRIDE = 11 };
#else
enum { STRIDE = 1 };
#endif
static bool ask_all(const char *what, size_t at, unsigned turn, bool repaired) {
  bool ok = true;
  for (unsigned i = 0; i < TOOLS; i++) {
    if (i != 0 && (i + turn) % share != 0) continue;
    struct answer a = ask(&tools[i]);
    const char *fault = fault_of(&tools[i], &a, repaired);
    if (repaired && i == 0 && fault == NULL && WEXITSTATUS(a.status) != 0) fault = "verify finds the repaired trace damaged";
    if (fault != NULL && said++ < 20)
      printf("# %s %zu: %s: %s (status %#x): %.300s\n", what, at, tools[i].name, fault, (unsigned)a.status, a.err);
    ok &= fault == NULL;
    forget(&a);
  }
  return ok;
}

/* What --repair makes of the trace takes its place; false: nothing of it can be read. */
static bool repair(void) {
  char path[] = "/tmp/memlyze-test-XXXXXX";
  if (mkdtemp(path) == NULL) abort();
  char file[sizeof path + 4];
  sprintf(file, "%s/r", path);
  struct tool with = {"verify --repair", mlz_main_verify, {"verify", "--json", "--repair", file, BAD}, true};
  struct answer a = ask(&with);
  bool written = WIFEXITED(a.status) && WEXITSTATUS(a.status) == 1;
  if (!written && !(WIFEXITED(a.status) && WEXITSTATUS(a.status) == 2 && strstr(a.err, "; ") != NULL)) {
    printf("# repair: status %#x: %s\n", (unsigned)a.status, a.err);
    failures++;
  }
  forget(&a);
  int fd = written ? open(file, O_RDONLY) : -1;
  if (fd >= 0) {
    uint8_t bytes[1 << 16];
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n <= 0 || n == (ssize_t)sizeof bytes) abort();
    put(bad_fd, bytes, (size_t)n);
    close(fd);
  }
  unlink(file);
  rmdir(path);
  return written;
}

static void verdict(bool ok, const char *name, const char *trace) {
  printf("%sok %u - %s: %s\n", ok ? "" : "not ", ++cases, trace, name);
  failures += !ok;
  fflush(stdout);
}

static uint64_t next_random(uint64_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return *seed;
}

/* Where the last chunk of a kind begins. */
static size_t last_chunk(const uint8_t *bytes, size_t n, unsigned kind) {
  size_t found = 0;
  for (size_t at = 64; at < n; at += sample_chunk_size(bytes + at))
    if (sample_chunk_kind(bytes + at) == kind) found = at;
  return found;
}

static void cut_everywhere(const char *trace, const uint8_t *bytes, size_t n, size_t from) {
  bool ok = true, mended = true;
  for (size_t cut = from; cut < n; cut += STRIDE) {
    put(bad_fd, bytes, cut);
    ok &= ask_all("cut at", cut, (unsigned)cut, false);
    if (cut % REPAIRED_EVERY == 0 && repair()) mended &= ask_all("repaired, cut at", cut, (unsigned)(cut / REPAIRED_EVERY), true);
  }
  verdict(ok, "cut at every byte of its last chunks", trace);
  verdict(mended, "cut and repaired", trace);
}

static void change_places(const char *trace, uint8_t *bytes, size_t n, unsigned places) {
  uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);
  bool ok = true, mended = true;
  for (unsigned i = 0; i < places; i += STRIDE) {
    size_t at = n * i / places;
    uint8_t bits = (uint8_t)(1 + next_random(&seed) % 255);
    bytes[at] ^= bits;
    put(bad_fd, bytes, n);
    bytes[at] ^= bits;
    ok &= ask_all("changed at", at, i, false);
    if (i % REPAIRED_EVERY == 0 && repair()) mended &= ask_all("repaired, changed at", at, i / REPAIRED_EVERY, true);
  }
  verdict(ok, "changed in many places", trace);
  verdict(mended, "changed and repaired", trace);
}

static void try_trace(const char *name, uint8_t *bytes, size_t n, size_t from, unsigned places) {
  put(good_fd, bytes, n);
  cut_everywhere(name, bytes, n, from);
  change_places(name, bytes, n, places);
  free(bytes);
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "all")) share = 1;
  size_t n;
  setenv("NO_COLOR", "1", 1);
  good_fd = memory_file("good", good_path);
  bad_fd = memory_file("bad", bad_path);
  out_fd = memory_file("out", NULL);
  err_fd = memory_file("err", NULL);
  printf("1..8\n");
  uint8_t *bytes = sample_bytes(1, &n);
  if (bytes == NULL) return 1;
  try_trace("one of everything", bytes, n, last_chunk(bytes, n, 7), 1000);
  bytes = sample_totals(&n);
  if (bytes == NULL) return 1;
  try_trace("totals", bytes, n, last_chunk(bytes, n, 12), 200);
  return failures != 0;
}
