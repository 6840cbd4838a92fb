/* make_fleet DIR N: writes N small traces, DIR/00000.mlyze and on, of four services on 18 hosts over 14 days, and on standard output a JSON line for each:
 * what is in it, for tests to sum up in their own way.
 *   worker    keeps twice as much from the eighth day on
 *   api       on hosts 0 to 6 a cache that is never emptied
 *   billing   its release 1.5 (from the eighth day on) makes three times as many reports, four lines further down in another folder */
#include "formats/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DAYS = 14, HOSTS = 18, SERVICES = 4 };
static const char *const services[SERVICES] = {"api", "worker", "billing", "search"};

struct fleet {
  struct mlz_writer *w;
  struct mlz_builder *b;
  const char *service;
  unsigned day, host;
  bool first; /* of the line's sites */
  uint32_t main_frame;
};

static void die(const char *what, int rc) {
  fprintf(stderr, "make_fleet: %s: %s\n", what, strerror(-rc));
  exit(2);
}

static uint32_t frame(struct fleet *f, const char *function, const char *file, const char *module, uint32_t line) {
  struct mlz_frame row = {.function = mlz_writer_string(f->w, function, strlen(function)),
                          .file = mlz_writer_string(f->w, file, strlen(file)),
                          .module = mlz_writer_string(f->w, module, strlen(module)),
                          .line = line};
  return mlz_writer_frame(f->w, &row);
}

/* `n` blocks at a site, of which `keep` stay. */
static void allocate(struct fleet *f, const char *function, const char *file, uint32_t line, uint32_t n, uint32_t keep, uint64_t size) {
  uint32_t stack = mlz_writer_stack(f->w, (uint32_t[]){frame(f, function, file, "app", line), f->main_frame}, 2, false);
  for (uint32_t i = 0; i < n; i++) {
    uint64_t block = mlz_builder_alloc(f->b, stack, size, 2, 1.0);
    mlz_builder_time(f->b, 1000000 + 1000 * (uint64_t)i);
    if (i >= keep) mlz_builder_free_block(f->b, block, stack, size, 2, 1.0, true);
  }
  printf("%s[\"%s\", %" PRIu32 ", %" PRIu32 ", %" PRIu64 "]", f->first ? "" : ", ", function, n, keep, size);
  f->first = false;
}

static void fill(struct fleet *f) {
  bool later = f->day >= DAYS / 2;
  f->main_frame = frame(f, "main", "/srv/app/main.py", "__main__", 7);
  allocate(f, "serve", "/srv/app/serve.py", 20, 40 + f->host, 2, 512);
  if (!strcmp(f->service, "worker")) allocate(f, "queue", "/srv/app/queue.py", 31, 30, later ? 20 : 10, 2048);
  if (!strcmp(f->service, "api")) allocate(f, "remember", "/srv/app/cache.py", 12, 25, f->host < 7 ? 25 : 0, 4096);
  if (!strcmp(f->service, "billing"))
    allocate(f, "report", later ? "/srv/app-1.5/report.py" : "/srv/app-1.4/report.py", later ? 16 : 12, later ? 30 : 10, 1, 1024);
  if (!strcmp(f->service, "search")) allocate(f, "index", "/srv/app/index.py", 9, 15 + f->day % 3, 5, 8192);
}

static int write_all(struct fleet *f, const char *path, unsigned number) {
  static const char *const settings = "{\"sample_rate\": 1.0, \"max_stack_depth\": 10}";
  char host[16], script[32];
  struct mlz_bytes rows;
  uint64_t start = UINT64_C(1793577600) + 86400 * (uint64_t)f->day + number % 86400; /* from 2026-11-02 on */
  snprintf(host, sizeof host, "host-%02u", f->host);
  snprintf(script, sizeof script, "/srv/%s.py", f->service);
  json_t *meta = json_pack("{s:s, s:[s, s], s:i, s:s, s:I, s:o}", "version", "1", "command", "python3", script, "pid", 100, "host", host,
                           "start", (json_int_t)(start * 1000000000), "settings", json_loads(settings, 0, NULL));
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  int rc = fd < 0 ? -errno : mlz_writer_new(&f->w, fd, meta, 0);
  json_decref(meta);
  if (rc) return rc;
  mlz_writer_process(f->w, json_pack("{s:i, s:i, s:i, s:s, s:[s, s], s:s, s:i, s:I, s:s}", "id", 1, "pid", 100, "parent", 1, "origin",
                                     "exec", "command", "python3", script, "python_version", "3.11.2", "start_ns", 0, "end_ns",
                                     (json_int_t)2000000, "end", "exit"));
  mlz_writer_thread(f->w, json_pack("{s:i, s:i, s:i, s:s, s:b}", "id", 1, "process", 1, "tid", 100, "name", "MainThread", "main", 1));
  mlz_builder_begin(f->b, 1, 0, 0);
  mlz_builder_thread(f->b, 1);
  printf("{\"service\": \"%s\", \"host\": \"%s\", \"day\": %u, \"release\": \"%s\", \"sites\": [", f->service, host, f->day,
         f->day < DAYS / 2 ? "1.4" : "1.5");
  f->first = true;
  fill(f);
  puts("]}");
  mlz_builder_rare(f->b, &(struct mlz_rare){.op = MLZ_OP_FINALIZE, .start_ns = 2000000});
  json_t *summary = json_pack("{s:b, s:i, s:i}", "complete", 1, "duration_ns", 2000000, "exit_status", 0);
  if ((rc = mlz_writer_take_tables(f->w, &rows)) == 0) {
    rc = mlz_writer_append_tables(f->w, &rows);
    free(rows.data);
  }
  if (rc == 0) rc = mlz_writer_append_events(f->w, f->b);
  if (rc == 0) rc = mlz_writer_append_group(f->w, 2000000, summary);
  if (rc == 0) rc = mlz_writer_finish(f->w, summary);
  json_decref(summary);
  mlz_writer_free(f->w);
  return rc;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fputs("usage: make_fleet DIR N\n", stderr);
    return 2;
  }
  struct fleet f = {.b = mlz_builder_new()};
  if (!f.b) die(argv[1], -ENOMEM);
  unsigned n = (unsigned)strtoul(argv[2], NULL, 10);
  for (unsigned i = 0; i < n; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%05u.mlyze", argv[1], i);
    f.day = i % DAYS;
    f.service = services[i / DAYS % SERVICES];
    f.host = i / (DAYS * SERVICES) % HOSTS;
    int rc = write_all(&f, path, i);
    if (rc) die(path, rc);
  }
  mlz_builder_free(f.b);
  return fflush(stdout) ? 2 : 0;
}
