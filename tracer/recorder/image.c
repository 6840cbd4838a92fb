#include "tracer/recorder/account.h"
#include "tracer/recorder/report.h"
#include "tracer/recorder/rss.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POLL_MAX 64 /* processes looked at with one call */

void mlz_image_dead(struct mlz_image *m, enum mlz_ending ending) {
  if (m->dead) return;
  m->dead = true;
  m->ending = ending;
}

static void process_note(struct mlz_drain *d, uint32_t number, uint32_t process) {
  if (number >= d->process_of_size) {
    uint32_t size = number < 64 ? 128 : number * 2;
    uint32_t *grown = number < UINT32_MAX / 8 ? reallocarray(d->process_of, size, sizeof *grown) : NULL;
    if (!grown) return;
    memset(grown + d->process_of_size, 0, (size - d->process_of_size) * sizeof *grown);
    d->process_of = grown;
    d->process_of_size = size;
  }
  d->process_of[number] = process;
}

struct mlz_image *mlz_image_of(struct mlz_drain *d, uint32_t number, uint32_t pid) {
  for (struct mlz_image *m = d->images; m; m = m->next) {
    if (m->number == number) return m;
  }
  struct mlz_image *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  if (d->totals_only && !(m->totals = mlz_totals_new())) {
    free(m);
    return NULL;
  }
  mlz_heap_init(&m->heap);
  m->number = number;
  m->pid = pid;
  m->start_ns = d->clock_ns;
  m->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (m->pidfd < 0 && errno == ESRCH) mlz_image_dead(m, MLZ_END_EXIT);
  for (struct mlz_image *o = d->images; o; o = o->next) {
    if (o->pid == pid && o->number < number) mlz_image_dead(o, MLZ_END_EXEC); /* one image at a time lives in a process */
  }
  m->process = ++d->processes;
  process_note(d, number, m->process);
  m->next = d->images;
  d->images = m;
  mlz_image_row(d, m);
  return m;
}

void mlz_image_free(struct mlz_image *m) {
  if (m->pidfd >= 0) close(m->pidfd);
  mlz_heap_deinit(&m->heap);
  mlz_extents_deinit(&m->extents);
  mlz_totals_free(m->totals);
  free(m->shadows);
  free(m->command);
  free(m->python_version);
  free(m->python_state);
  free(m);
}

uint64_t mlz_image_allocs(const struct mlz_image *m) {
  uint64_t n = m->allocs;
  for (const struct mlz_feed *f = m->feeds; f; f = f->next) n += f->allocs;
  return n;
}

uint64_t mlz_image_frees(const struct mlz_image *m) {
  uint64_t n = m->frees;
  for (const struct mlz_feed *f = m->feeds; f; f = f->next) n += f->frees;
  return n;
}

static void poll_some(struct mlz_image **of, struct pollfd *fds, unsigned n) {
  if (poll(fds, n, 0) <= 0) return;
  for (unsigned i = 0; i < n; i++) {
    if (fds[i].revents) mlz_image_dead(of[i], MLZ_END_EXIT);
  }
}

void mlz_image_poll(struct mlz_drain *d) {
  struct mlz_image *of[POLL_MAX];
  struct pollfd fds[POLL_MAX];
  unsigned n = 0;
  for (struct mlz_image *m = d->images; m; m = m->next) {
    if (m->dead || m->pidfd < 0) continue;
    of[n] = m;
    fds[n++] = (struct pollfd){.fd = m->pidfd, .events = POLLIN};
    if (n == POLL_MAX) {
      poll_some(of, fds, n);
      n = 0;
    }
  }
  if (n) poll_some(of, fds, n);
}

unsigned mlz_image_living(const struct mlz_drain *d) {
  unsigned n = 0;
  for (const struct mlz_image *m = d->images; m; m = m->next) n += !m->dead;
  return n;
}

void mlz_image_close(struct mlz_drain *d, struct mlz_image *m, enum mlz_ending ending) {
  if (m->closed) return;
  m->closed = true;
  if (d->emit) mlz_emit_ended(d->emit, m->process);
  mlz_image_dead(m, ending);
  mlz_image_point(d, m, m->finalized ? MLZ_POINT_EXIT : MLZ_POINT_END, 0, m->last_ns);
  if (m->ending == MLZ_END_STOP && m->pid == d->watched) d->watched_left = true;
  d->live_bytes -= m->live_bytes;
  m->live_bytes = 0;
  mlz_heap_deinit(&m->heap);
  mlz_extents_deinit(&m->extents);
  if (m->pidfd >= 0) close(m->pidfd);
  m->pidfd = -1;
  mlz_image_row(d, m);
}

void mlz_image_point(struct mlz_drain *d, struct mlz_image *m, enum mlz_point_kind point, uint32_t name, uint64_t ns) {
  struct mlz_totals *t = m->totals;
  if (!t || !d->symbols.writer) return;
  struct mlz_totals_head head = {.process = m->process,
                                 .point = point,
                                 .name = name,
                                 .ns = ns,
                                 .allocations = m->next_alloc,
                                 .all_peak_bytes = d->peak_bytes,
                                 .all_peak_ns = d->peak_ns};
  mlz_totals_write(t, d->symbols.writer, &head);
  t->peak_bytes = m->live_bytes;
  t->peak_ns = ns;
}

void mlz_image_snapshot(struct mlz_drain *d, uint32_t name, uint64_t ns) {
  for (struct mlz_image *m = d->images; m; m = m->next) {
    if (!m->closed) mlz_image_point(d, m, MLZ_POINT_SNAPSHOT, name, ns);
  }
}

/* ---- rows ---- */

/* Text of the traced program in JSON: what is not UTF-8 must not lose the row. */
static json_t *text_json(const char *text, size_t bytes) {
  json_t *j = json_stringn(text, bytes);
  if (j) return j;
  char *clean = malloc(bytes ? bytes : 1);
  if (!clean) return json_string("?");
  for (size_t i = 0; i < bytes; i++) clean[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
  j = json_stringn(clean, bytes);
  free(clean);
  return j ? j : json_string("?");
}

static json_t *command_json(const struct mlz_image *m) {
  json_t *list = json_array();
  for (size_t at = 0; at < m->command_bytes;) {
    size_t n = strnlen(m->command + at, m->command_bytes - at);
    json_array_append_new(list, text_json(m->command + at, n));
    at += n + 1;
  }
  return list;
}

static json_t *number(uint64_t n) { return json_integer((json_int_t)n); }

void mlz_image_row(struct mlz_drain *d, struct mlz_image *m) {
  static const char *const endings[] = {"", "exit", "killed", "exec", "cut", "stop"};
  if (!d->symbols.writer) return;
  json_t *j = json_object();
  json_object_set_new(j, "id", number(m->process));
  json_object_set_new(j, "pid", number(m->pid));
  json_object_set_new(j, "parent", number(m->parent_pid));
  uint32_t parent = m->parent_image < d->process_of_size ? d->process_of[m->parent_image] : 0;
  json_object_set_new(j, "parent_process", number(parent));
  json_object_set_new(j, "origin", json_string(m->origin == MLZ_ORIGIN_FORK ? "fork" : "exec"));
  json_object_set_new(j, "command", command_json(m));
  if (m->python_version) {
    json_object_set_new(j, "python_version", text_json(m->python_version, strlen(m->python_version)));
    json_object_set_new(j, "python_state",
                        text_json(m->python_state ? m->python_state : "", m->python_state ? strlen(m->python_state) : 0));
  }
  json_object_set_new(j, "start_ns", number(m->start_ns));
  if (m->finalized) json_object_set_new(j, "finalize_ns", number(m->finalize_ns));
  if (m->closed) {
    json_object_set_new(j, "end_ns", number(m->last_ns));
    json_object_set_new(j, "end", json_string(endings[m->ending]));
  }
  uint64_t blocks = m->totals ? 0 : mlz_image_allocs(m) + mlz_image_frees(m);
  json_object_set_new(j, "events", number(blocks + m->gcs + m->marks));
  json_object_set_new(j, "allocs_seen", number(m->seen));
  mlz_writer_process(d->symbols.writer, j);
}

static uint64_t thread_lost(const struct mlz_feed *f) {
  return atomic_load_explicit(&f->ring->dropped_alloc, memory_order_relaxed) +
         atomic_load_explicit(&f->ring->dropped_free, memory_order_relaxed);
}

void mlz_image_thread_row(struct mlz_drain *d, struct mlz_feed *f) {
  if (!d->symbols.writer) return;
  const struct mlz_ring *r = f->ring;
  json_t *j = json_object();
  json_object_set_new(j, "id", number(f->thread));
  json_object_set_new(j, "process", number(f->image->process));
  json_object_set_new(j, "tid", number(r->tid));
  json_object_set_new(j, "main", json_boolean(r->tid == f->image->pid));
  json_object_set_new(j, "name", text_json(f->name ? f->name : "", f->name ? strlen(f->name) : 0));
  json_object_set_new(j, "start_ns", number(f->start_ns));
  if (f->end_ns) json_object_set_new(j, "end_ns", number(f->end_ns));
  json_object_set_new(j, "events", number(f->image->totals ? f->others : mlz_feed_events(f)));
  json_object_set_new(j, "allocs_seen", number(mlz_feed_seen(f)));
  f->lost_told = thread_lost(f);
  json_object_set_new(j, "dropped", number(f->lost_told));
  json_object_set_new(j, "blocked_ns", number(atomic_load_explicit(&r->blocked_ns, memory_order_relaxed)));
  json_object_set_new(j, "nested", number(atomic_load_explicit(&r->nested, memory_order_relaxed)));
  mlz_writer_thread(d->symbols.writer, j);
}

/* ---- groups ---- */

/* Thousands of processes may come and go: what has ended and is in the file is forgotten. */
static void forget_closed(struct mlz_drain *d) {
  for (struct mlz_image **at = &d->images; *at;) {
    struct mlz_image *m = *at;
    if (!m->closed || m->n_feeds || m->builder) {
      at = &m->next;
      continue;
    }
    *at = m->next;
    d->total.allocs += m->allocs;
    d->total.frees += m->frees;
    mlz_image_free(m);
  }
}

/* Threads that have lost records since their last row: a recorder that is killed later has told it. */
static void tell_losses(struct mlz_drain *d) {
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    struct mlz_feed *f = d->feeds[i];
    if (f && thread_lost(f) != f->lost_told) mlz_image_thread_row(d, f);
  }
}

void mlz_image_seal(struct mlz_drain *d) {
  if (!d->emit) return;
  tell_losses(d);
  unsigned n = 0, size = 0;
  for (struct mlz_image *m = d->images; m; m = m->next) size += m->builder != NULL;
  struct mlz_builder **builders = calloc(size + 1, sizeof(struct mlz_builder *));
  for (struct mlz_image *m = d->images; m; m = m->next) {
    if (!m->builder) continue;
    if (builders) {
      builders[n++] = m->builder;
    } else {
      mlz_builder_free(m->builder);
    }
    m->builder = NULL;
    m->room = 0;
  }
  json_t *state = mlz_report_state(d);
  mlz_rss_tell(d, state);
  mlz_emit_group(d->emit, builders, n, d->now_ns, state);
  free(builders);
  forget_closed(d);
}
