#include "tracer/recorder/report.h"

#include "tracer/recorder/arena.h"
#include "tracer/recorder/native.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PROGRESS_NS UINT64_C(250000000)

static void set(json_t *j, const char *key, uint64_t n) { json_object_set_new(j, key, json_integer((json_int_t)n)); }

static uint64_t load(const _Atomic uint64_t *p) { return atomic_load_explicit(p, memory_order_relaxed); }

static uint64_t written(const struct mlz_drain *d, const struct mlz_counters *t) {
  return (d->totals_only ? 0 : t->allocs + t->frees) + t->gcs + t->marks + t->snapshots;
}

static uint64_t cpu_ns(void) {
  struct rusage u;
  if (getrusage(RUSAGE_SELF, &u) < 0) return 0;
  return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000 + (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

json_t *mlz_report_state(const struct mlz_drain *d) {
  struct mlz_counters t = mlz_drain_counters(d);
  const struct mlz_control *c = d->control;
  const struct {
    const char *key;
    uint64_t n;
  } counters[] = {
      {"allocations_seen", t.seen},
      {"allocations_traced", t.allocs - t.pieces},
      {"events_written", written(d, &t)},
      {"events_dropped", t.dropped_alloc + t.dropped_free},
      {"allocs_dropped", t.dropped_alloc},
      {"frees_dropped", t.dropped_free},
      {"free_foreign", t.frees_foreign},
      {"free_inferred", t.frees_inferred},
      {"map_pieces", t.pieces},
      {"allocations_filtered", t.filtered - t.filtered_pieces},
      {"frees_filtered", t.frees_filtered},
      {"threads_denied", load(&c->threads_denied)},
      {"unaligned", load(&c->unaligned)},
      {"unmarked", load(&c->unmarked)},
      {"images_refused", load(&c->images_refused)},
      {"gc_missed", load(&c->gc_missed)},
      {"execs_untraced", load(&c->execs_untraced)},
      {"native_mismatches", load(&c->native_mismatches)},
      {"nested", t.nested},
      {"waits", t.blocked_count},
      {"rings_broken", t.broken},
  };
  json_t *j = json_object(), *list = json_object();
  json_object_set_new(j, "complete", json_false());
  set(j, "duration_ns", d->now_ns);
  for (unsigned i = 0; i < sizeof counters / sizeof counters[0]; i++) set(list, counters[i].key, counters[i].n);
  if (d->native) set(list, "native_uneven", d->native->uneven);
  json_object_set_new(j, "counters", list);
  set(j, "events_dropped", t.dropped_alloc + t.dropped_free);
  set(j, "blocked_ns", t.blocked_ns);
  set(j, "peak_bytes", d->peak_bytes);
  set(j, "peak_ns", d->peak_ns);
  set(j, "live_bytes", d->live_bytes);
  set(j, "largest_time_gap_ns", d->gap_ns);
  set(j, "recorder_cpu_ns", cpu_ns());
  if (d->emit) set(j, "bytes_written", mlz_emit_bytes(d->emit));
  if (d->changes.n) json_object_set_new(j, "rate_changes", mlz_changes_json(&d->changes));
  if (d->changes.left_out) set(j, "rate_changes_left_out", d->changes.left_out);
  return j;
}

json_t *mlz_report_summary(const struct mlz_drain *d, const struct mlz_outcome *o) {
  json_t *j = mlz_report_state(d);
  set(j, "duration_ns", o->duration_ns);
  set(j, "exit_status", (uint64_t)o->status);
  json_object_set_new(j, "complete", json_boolean(o->complete));
  set(j, "processes_cut", o->cut);
  if (o->unnamed) set(j, "frames_unnamed", o->unnamed);
  if (o->untraced) json_object_set_new(j, "untraced_cause", json_string(o->untraced));
  if (o->own.n) {
    char *first = mlz_allocators_text(&o->own.at[0]);
    json_t *text = first ? json_string(first) : NULL;
    if (text) json_object_set_new(j, "own_allocator", text);
    free(first);
    json_object_set_new(j, "own_allocators", mlz_allocators_json(&o->own));
  }
  return j;
}

static const char *size_text(char *out, size_t n, uint64_t bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  unsigned u = 0;
  for (; value >= 1024 && u < 4; u++) value /= 1024;
  snprintf(out, n, u ? "%.1f %s" : "%.0f %s", value, units[u]);
  return out;
}

static const char *time_text(char *out, size_t n, uint64_t ns) {
  if (ns == 0) {
    snprintf(out, n, "0 s");
  } else if (ns < 1000000) {
    snprintf(out, n, "%.1f us", (double)ns / 1e3);
  } else if (ns < 1000000000) {
    snprintf(out, n, "%.1f ms", (double)ns / 1e6);
  } else {
    snprintf(out, n, "%.3f s", (double)ns / 1e9);
  }
  return out;
}

static void print_losses(const struct mlz_drain *d, const struct mlz_counters *t) {
  const struct mlz_control *c = d->control;
  const struct {
    uint64_t n;
    const char *what;
  } rows[] = {
      {t->dropped_alloc + t->dropped_free,
       "records were lost because a ring was full: totals are too low by them (--max-events N makes rings larger)"},
      {load(&c->threads_denied), "threads ran untraced: no ring, or no memory for one"},
      {load(&c->images_refused), "interpreters are of a kind that is not known: traced without Python stacks"},
      {load(&c->unaligned), "blocks are not 16-byte aligned and were not traced"},
      {load(&c->unmarked), "blocks could not be marked for lack of address space and were not traced"},
      {load(&c->native_mismatches), "native stacks differed from a second walk without caches (MEMLYZE_NATIVE_CHECK)"},
      {d->native && getenv("MEMLYZE_NATIVE_CHECK") ? d->native->uneven : 0,
       "merged stacks hold loops of the interpreter without Python frames, or frames without a loop (MEMLYZE_NATIVE_CHECK)"},
      {load(&c->gc_missed), "garbage collections ran unseen: the program changed gc.callbacks"},
      {load(&c->execs_untraced),
       "program starts were not followed: their environment lacks our LD_PRELOAD (env -i, env={}), or they ran as another user"},
      {t->nested, "calls inside a signal handler were not traced"},
      {t->frees_inferred, "frees were not seen: their blocks end where their address is allocated again"},
      {t->broken, "rings held what is no record (memory overwritten by the program?) and were given up"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].n) fprintf(stderr, "memlyze: warning: %" PRIu64 " %s\n", rows[i].n, rows[i].what);
  }
}

void mlz_report_print(const struct mlz_drain *d, const struct mlz_outcome *o, const char *file) {
  struct mlz_counters t = mlz_drain_counters(d);
  char a[32], b[32];
  fprintf(stderr, "memlyze: %s\n", file);
  fprintf(stderr, "  allocations_seen    %" PRIu64 "\n", t.seen);
  fprintf(stderr, "  allocations_traced  %" PRIu64 "\n", t.allocs - t.pieces);
  if (d->symbols.filter) fprintf(stderr, "  allocations_filtered %" PRIu64 "\n", t.filtered - t.filtered_pieces);
  fprintf(stderr, "  events_written      %" PRIu64 "\n", written(d, &t));
  fprintf(stderr, "  events_dropped      %" PRIu64 "\n", t.dropped_alloc + t.dropped_free);
  fprintf(stderr, "  blocked             %s\n", time_text(a, sizeof a, t.blocked_ns));
  fprintf(stderr, "  bytes_written       %" PRIu64 " (%s)\n", o->bytes_written, size_text(a, sizeof a, o->bytes_written));
  fprintf(stderr, "  peak                %s at %s\n", size_text(a, sizeof a, d->peak_bytes), time_text(b, sizeof b, d->peak_ns));
  fprintf(stderr, "  duration            %s\n", time_text(a, sizeof a, o->duration_ns));
  fprintf(stderr, "  recorder CPU        %s\n", time_text(a, sizeof a, cpu_ns()));
  if (t.filtered && t.allocs == 0)
    fputs("memlyze: warning: there were allocations, but all of them were filtered out: no stack is what --include and --exclude ask for\n",
          stderr);
  print_losses(d, &t);
  if (o->unnamed)
    fprintf(stderr,
            "memlyze: warning: looking up names took too long: %" PRIu64
            " native frames stay module+offset (--symbols of the tools finds the rest)\n",
            o->unnamed);
  if (o->cut)
    fprintf(stderr, "memlyze: warning: %u process%s still running and cut in the trace (--wait all waits for them)\n", o->cut,
            o->cut == 1 ? " was" : "es were");
}

void mlz_report_progress(const struct mlz_drain *d, uint64_t bytes_written, uint64_t *last) {
  uint64_t now = mlz_arena_clock(d->control);
  if (*last && now - *last < PROGRESS_NS) return;
  *last = now;
  struct mlz_counters t = mlz_drain_counters(d);
  char a[32], b[32];
  fprintf(stderr, "\r\033[Kmemlyze: %" PRIu64 " events, %s live, %s written", written(d, &t), size_text(a, sizeof a, d->live_bytes),
          size_text(b, sizeof b, bytes_written));
  fflush(stderr);
}

void mlz_report_progress_erase(const uint64_t *last) {
  if (*last) fputs("\r\033[K", stderr);
}
