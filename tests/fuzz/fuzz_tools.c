/* libFuzzer target: any bytes as a trace, and the whole pass of each tool over it, in this process; once as they are and once with all checksums
 * put right. MLZ_FUZZ_TOOL is the tool's name; the mains are built as tests/tools/tool_mains.h says. What a tool asks of the file
 * system comes from memory: its mlz_trace_open and mlz_survey_file are these here (ld --wrap), and its exit() comes back.
 * Also a plain program that runs the files it is given (-DMLZ_FUZZ_REPLAY). */
#include "tests/fuzz/mend.h"
#include "tests/tools/tool_mains.h"

#include "formats/survey.h"
#include "formats/trace.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int __wrap_mlz_trace_open(struct mlz_trace **out, const char *path, char *err, size_t err_size);
struct mlz_trace *__real_mlz_trace_close(struct mlz_trace *t);
struct mlz_trace *__wrap_mlz_trace_close(struct mlz_trace *t);
int __wrap_mlz_survey_file(struct mlz_survey *s, const char *path, char *err, size_t err_size);
void __real_exit(int status) __attribute__((noreturn));
void __wrap_exit(int status) __attribute__((noreturn));

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; } /* a tool that gives up leaves it to exit */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#define TOOL_MAIN JOIN(mlz_main_, MLZ_FUZZ_TOOL)

static const uint8_t *bytes;
static size_t bytes_n;
static jmp_buf back;
static bool inside;
static struct mlz_trace *opened[8]; /* what a tool that gave up left */

int __wrap_mlz_trace_open(struct mlz_trace **out, const char *path, char *err, size_t err_size) {
  (void)path;
  int rc = mlz_trace_open_memory(out, bytes, bytes_n, err, err_size);
  if (rc < 0 && err[0] == 0) abort();
  for (size_t i = 0; rc == 0 && i < sizeof opened / sizeof opened[0]; i++)
    if (opened[i] == NULL) {
      opened[i] = *out;
      break;
    }
  return rc;
}

struct mlz_trace *__wrap_mlz_trace_close(struct mlz_trace *t) {
  for (size_t i = 0; i < sizeof opened / sizeof opened[0]; i++)
    if (opened[i] == t) opened[i] = NULL;
  return __real_mlz_trace_close(t);
}

/* What is sound in it must make a whole trace. */
static void repair(const struct mlz_survey *s) {
  char err[256] = "";
  struct mlz_repair r;
  struct mlz_survey again;
  int fd = memfd_create("repaired", MFD_CLOEXEC), copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0 || copy < 0) abort();
  if (mlz_repair_memory(bytes, bytes_n, s, fd, &r, err, sizeof err) != 0) abort();
  off_t n = lseek(copy, 0, SEEK_END);
  uint8_t *written = malloc((size_t)n);
  if (written == NULL || pread(copy, written, (size_t)n, 0) != n) abort();
  if (mlz_survey_memory(&again, written, (size_t)n, err, sizeof err) != 0 || again.faults_n != 0 || again.events != s->events) abort();
  mlz_survey_clear(&again);
  free(written);
  close(copy);
}

int __wrap_mlz_survey_file(struct mlz_survey *s, const char *path, char *err, size_t err_size) {
  (void)path;
  int rc = mlz_survey_memory(s, bytes, bytes_n, err, err_size);
  if (rc < 0 && err[0] == 0) abort();
  if (rc == 0) repair(s);
  return rc;
}

void __wrap_exit(int status) {
  if (!inside) __real_exit(status);
  longjmp(back, 1 + (status & 0xff));
}

static int status_of(int argc, char **argv) {
  int jumped = setjmp(back);
  return jumped == 0 ? TOOL_MAIN(argc, argv) : jumped - 1;
}

static void run(int argc, char **argv) {
  inside = true;
  int status = status_of(argc, argv);
  inside = false;
  for (size_t i = 0; i < sizeof opened / sizeof opened[0]; i++)
    if (opened[i] != NULL) opened[i] = __wrap_mlz_trace_close(opened[i]);
  if (status < 0 || status > 2) abort();
}

static bool is(const char *name) { return strcmp(name, TEXT(MLZ_FUZZ_TOOL)) == 0; }

/* As text and as JSON; in each format. */
static void run_all(void) {
  static char name[] = TEXT(MLZ_FUZZ_TOOL), json[] = "--json", output[] = "--output=/dev/null", trace[] = "trace.mlyze";
  static char no_config[] = "--no-config", peak[] = "--max-peak=1";
  static char formats[][24] = {"--to=collapsed", "--to=speedscope", "--to=pprof", "--to=dhat",
                               "--to=massif",    "--to=perfetto",   "--to=csv",   "--to=json"};
  unsigned n = is("export") ? sizeof formats / sizeof formats[0] : is("flame") ? 1 : 2;
  for (unsigned to = 0; to < n; to++) {
    bool as_json = to == 1 && !is("export");
    char *argv[8] = {name, output, trace};
    int argc = 3;
    if (as_json) argv[argc++] = json;
    if (is("diff")) argv[argc++] = trace;
    if (is("export")) argv[argc++] = formats[to];
    if (is("check")) argv[argc++] = no_config, argv[argc++] = peak;
    run(argc, argv);
  }
}

static void read_as(const uint8_t *data, size_t n) {
  bytes = data;
  bytes_n = n;
  run_all();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  fuzz_both(data, n, read_as);
  return 0;
}

#ifdef MLZ_FUZZ_REPLAY
#include "tests/fuzz/replay.h"
#endif
