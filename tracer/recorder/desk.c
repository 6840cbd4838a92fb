#include "tracer/recorder/desk.h"

#include "shm/mailbox_ask.h"
#include "tracer/recorder/changes.h"
#include "tracer/recorder/marking.h"
#include "tracer/recorder/options.h"
#include "tracer/recorder/rate.h"

#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void mlz_desk_init(struct mlz_desk *desk, struct mlz_control *control, uint32_t command_pid, bool flight) {
  *desk = (struct mlz_desk){.box = mlz_arena_mailbox(control), .command_pid = command_pid, .flight = flight};
}

void mlz_desk_look(struct mlz_desk *desk) {
  uint32_t state = atomic_load_explicit(&desk->box->state, memory_order_acquire);
  if (desk->taken || mlz_mailbox_state_of(state) != MLZ_MAILBOX_POSTED) return;
  desk->request = desk->box->request;
  desk->request.path[sizeof desk->request.path - 1] = 0;
  uint32_t taken = (state & ~3u) | MLZ_MAILBOX_TAKEN;
  if (!atomic_compare_exchange_strong_explicit(&desk->box->state, &state, taken, memory_order_acq_rel, memory_order_relaxed)) return;
  desk->taken = true;
  desk->number = state & ~3u;
  desk->obeyed = false;
  desk->group = 0;
}

static bool name_valid(const char *name, uint32_t bytes) {
  return bytes == 0 || (bytes <= MLZ_MAILBOX_NAME_MAX && !mlz_mailbox_mark_problem(name, bytes));
}

/* Nothing is done yet. */
static uint32_t check(const struct mlz_drain *d, const struct mlz_request *q, bool flight) {
  if ((q->mask & ~MLZ_SET_CHANGEABLE) || !name_valid(q->mark, q->mark_bytes) || !name_valid(q->snapshot, q->snapshot_bytes))
    return MLZ_ANSWER_WRONG;
  if (q->dump > 1 || q->path_bytes >= sizeof q->path || memchr(q->path, 0, q->path_bytes)) return MLZ_ANSWER_WRONG;
  if (q->dump && !flight) return MLZ_ANSWER_NO_FLIGHT;
  if ((q->mask & MLZ_SET_RATE_MASK) && !mlz_rate_valid(q->sample_rate)) return MLZ_ANSWER_WRONG;
  if (q->mask & MLZ_SET_DEPTH_MASK) {
    if (q->depth > MLZ_STACK_DEPTH_MAX) return MLZ_ANSWER_WRONG;
    if (d->control->ring_words < mlz_options_least_words(q->depth)) return MLZ_ANSWER_RINGS;
  }
  return MLZ_ANSWER_DONE;
}

static void change(struct mlz_drain *d, const struct mlz_request *q) {
  uint64_t mask = q->mask & MLZ_SET_PAUSED, bits = q->bits & MLZ_SET_PAUSED;
  if (q->mask & MLZ_SET_RATE_MASK) {
    mask |= MLZ_SET_RATE_MASK;
    bits |= mlz_rate_word(q->sample_rate);
    mlz_changes_typed(&d->changes, q->sample_rate);
  }
  if (q->mask & MLZ_SET_DEPTH_MASK) {
    mask |= MLZ_SET_DEPTH_MASK;
    bits |= (uint64_t)q->depth << MLZ_SET_DEPTH_SHIFT;
  }
  if (!mask) return;
  mlz_settings_change(d->control, mask, bits);
  mlz_changes_look(&d->changes, atomic_load_explicit(&d->control->settings, memory_order_relaxed), d->clock_ns);
}

void mlz_desk_obey(struct mlz_desk *desk, struct mlz_drain *d) {
  const struct mlz_request *q = &desk->request;
  if (!desk->taken || desk->obeyed) return;
  desk->obeyed = true;
  desk->answer_ns = d->clock_ns;
  desk->answer = check(d, q, desk->flight);
  if (desk->answer) return;
  uint32_t pid = q->pid == d->control->recorder_pid ? desk->command_pid : q->pid;
  struct mlz_feed *f = NULL;
  if ((q->mark_bytes || q->snapshot_bytes) && !(f = mlz_marking_feed(d, pid))) {
    desk->answer = MLZ_ANSWER_NOBODY;
    return;
  }
  if (q->mark_bytes) mlz_marking_add(d, f, MLZ_MARK_MARK, q->mark, q->mark_bytes, d->clock_ns);
  if (q->snapshot_bytes) mlz_marking_add(d, f, MLZ_MARK_SNAPSHOT, q->snapshot, q->snapshot_bytes, d->clock_ns);
  change(d, q);
  desk->dump_due = q->dump;
  desk->dump = q->path_bytes ? q->path : NULL;
}

void mlz_desk_answer(struct mlz_desk *desk, struct mlz_emit *emit, int dump_error) {
  if (!desk->taken) return;
  desk->dump_due = false;
  bool disk = (desk->request.mark_bytes || desk->request.snapshot_bytes || desk->request.dump) && desk->answer == MLZ_ANSWER_DONE;
  if (!desk->group) desk->group = mlz_emit_handed(emit);
  if (disk && mlz_emit_done(emit) < desk->group) return;
  desk->taken = false;
  bool failed = disk && (mlz_emit_error(emit) || (desk->request.dump && dump_error));
  desk->box->answer = failed ? MLZ_ANSWER_DISK : desk->answer;
  desk->box->answer_ns = desk->answer_ns;
  atomic_store_explicit(&desk->box->state, desk->number | MLZ_MAILBOX_DONE, memory_order_release);
  syscall(SYS_futex, &desk->box->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
