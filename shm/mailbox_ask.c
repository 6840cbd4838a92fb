#include "mailbox_ask.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SILENT_NS UINT64_C(3000000000) /* a recorder that lives looks at its mailbox many times in it */
#define BUSY_NS UINT64_C(30000000000)  /* others ask too, or the disk is slow */
#define SLICE_NS 50000000

/* The bytes of the character at `p`, 0: none (Unicode 15, table 3-7: no overlong forms, no surrogates). */
static unsigned character(const unsigned char *p, size_t left, uint32_t *out) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  unsigned n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
  if (n == 0 || n > left) return 0;
  uint32_t c = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
  for (unsigned i = 1; i < n; i++) {
    if (p[i] >> 6 != 2) return 0;
    c = c << 6 | (p[i] & 0x3f);
  }
  if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
  *out = c;
  return n;
}

const char *mlz_mailbox_name_problem(const char *name, size_t bytes) {
  if (bytes == 0) return "is empty";
  if (bytes > MLZ_MAILBOX_NAME_MAX) return "is longer than 255 bytes";
  for (size_t i = 0; i < bytes;) {
    uint32_t c;
    unsigned n = character((const unsigned char *)name + i, bytes - i, &c);
    if (n == 0) return "is not UTF-8";
    if (c < 0x20 || (c >= 0x7f && c < 0xa0)) return "has a control character";
    i += n;
  }
  return NULL;
}

static bool digit(char c) { return c >= '0' && c <= '9'; }
static bool space(char c) { return c == ' '; }

/* As analyzer/instants.h reads a TIME: peak, end, 50%, 1.5s. */
static bool is_time(const char *name, size_t bytes) {
  static const char *const words[] = {"end", "peak"}, *const units[] = {"%", "ns", "us", "ms", "s", "m", "min", "h"};
  const char *p = name, *end = name + bytes;
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    if (strlen(words[i]) == bytes && memcmp(words[i], name, bytes) == 0) return true;
  }
  while (p < end && space(*p)) p++;
  while (p < end && space(end[-1])) end--;
  size_t digits = 0;
  for (; p < end && digit(*p); p++) digits++;
  if (p < end && *p == '.') p++;
  for (; p < end && digit(*p); p++) digits++;
  while (p < end && space(*p)) p++;
  for (size_t i = 0; digits && i < sizeof units / sizeof units[0]; i++) {
    if (strlen(units[i]) == (size_t)(end - p) && strncasecmp(units[i], p, (size_t)(end - p)) == 0) return true;
  }
  return false;
}

const char *mlz_mailbox_mark_problem(const char *name, size_t bytes) {
  const char *problem = mlz_mailbox_name_problem(name, bytes);
  if (problem || !is_time(name, bytes)) return problem;
  return "is what the tools call a time, like peak, end, 50% or 1.5s; choose another";
}

struct asking {
  struct mlz_control *control;
  bool (*go_on)(void);
  char *err;
  size_t size;
};

static uint64_t clock_of(const struct asking *a) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec - a->control->base_ns;
}

static void pause_2ms(void) { clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL); }

static bool recorder_gone(const struct asking *a) {
  return mlz_recorder_died(a->control) || (kill((pid_t)a->control->recorder_pid, 0) < 0 && errno == ESRCH);
}

static int gone(const struct asking *a) {
  snprintf(a->err, a->size, "the recorder (process %u) has ended; nothing was changed", a->control->recorder_pid);
  return -ESRCH;
}

static int silent(const struct asking *a) {
  snprintf(a->err, a->size, "the recorder (process %u) does not answer, it may be stopped (kill -CONT %u); nothing was changed",
           a->control->recorder_pid, a->control->recorder_pid);
  return -ETIMEDOUT;
}

static bool cancelled(const struct asking *a) { return a->go_on && !a->go_on(); }
static int cancel(const struct asking *a) {
  snprintf(a->err, a->size, "the recording was stopped meanwhile");
  return -ECANCELED;
}

static pthread_mutex_t *asking_of(const struct asking *a) { return (pthread_mutex_t *)(void *)mlz_arena_mailbox(a->control)->asking; }

/* One asker at a time; the lock goes with its holder. */
static int lock(const struct asking *a) {
  int e;
  for (uint64_t began = clock_of(a); (e = pthread_mutex_trylock(asking_of(a))) != 0;) {
    if (e == EOWNERDEAD) {
      pthread_mutex_consistent(asking_of(a));
      return 0;
    }
    if (e != EBUSY) {
      snprintf(a->err, a->size, "the session cannot be locked: %s", strerror(e));
      return -e;
    }
    if (recorder_gone(a)) return gone(a);
    if (cancelled(a)) return cancel(a);
    if (clock_of(a) - began > BUSY_NS) {
      snprintf(a->err, a->size, "another process has held the session's mailbox for 30 s; nothing was changed");
      return -ETIMEDOUT;
    }
    pause_2ms();
  }
  return 0;
}

/* Number of the request. What an asker that was killed has left behind is withdrawn, or on its way: then it is waited for. */
static int post(const struct asking *a, const struct mlz_request *request, uint32_t *number) {
  struct mlz_mailbox *box = mlz_arena_mailbox(a->control);
  uint32_t state = atomic_load_explicit(&box->state, memory_order_acquire);
  if (mlz_mailbox_state_of(state) == MLZ_MAILBOX_POSTED) atomic_compare_exchange_strong(&box->state, &state, state & ~3u);
  for (uint64_t began = clock_of(a); mlz_mailbox_state_of(state = atomic_load(&box->state)) == MLZ_MAILBOX_TAKEN;) {
    if (recorder_gone(a)) return gone(a);
    if (cancelled(a)) return cancel(a);
    if (clock_of(a) - began > BUSY_NS) return silent(a);
    pause_2ms();
  }
  box->request = *request;
  *number = (state & ~3u) + 4;
  atomic_store_explicit(&box->state, *number | MLZ_MAILBOX_POSTED, memory_order_release);
  atomic_fetch_add(&a->control->wake, 1);
  syscall(SYS_futex, &a->control->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
  return 0;
}

/* Waits for the answer as long as the recorder makes progress. */
static int wait_done(const struct asking *a, uint32_t number) {
  struct mlz_mailbox *box = mlz_arena_mailbox(a->control);
  uint64_t beat = atomic_load(&a->control->heartbeat), since = clock_of(a), began = since;
  for (uint32_t state; (state = atomic_load_explicit(&box->state, memory_order_acquire)) != (number | MLZ_MAILBOX_DONE);) {
    struct timespec slice = {.tv_nsec = SLICE_NS};
    syscall(SYS_futex, &box->state, FUTEX_WAIT, state, &slice, NULL, 0);
    if (recorder_gone(a)) {
      if (atomic_load(&box->state) == (number | MLZ_MAILBOX_DONE)) return 0;
      return gone(a);
    }
    uint64_t now = clock_of(a), next = atomic_load(&a->control->heartbeat);
    if (next != beat) beat = next, since = now;
    bool posted = mlz_mailbox_state_of(state) == MLZ_MAILBOX_POSTED, late = cancelled(a);
    if (!late && now - since < (posted ? SILENT_NS : BUSY_NS) && now - began < BUSY_NS) continue;
    if (posted && !atomic_compare_exchange_strong(&box->state, &state, number)) continue; /* taken just now */
    return late ? cancel(a) : silent(a);
  }
  return 0;
}

static int answer(const struct asking *a, const struct mlz_request *request) {
  switch ((enum mlz_answer)mlz_arena_mailbox(a->control)->answer) {
  case MLZ_ANSWER_DONE:
    return 0;
  case MLZ_ANSWER_NOBODY:
    snprintf(a->err, a->size, "no traced process runs in this session that a mark could belong to; nothing was changed");
    return -ESRCH;
  case MLZ_ANSWER_RINGS:
    snprintf(a->err, a->size, "the session's rings (%u words) are too small for stacks of %u frames; record with a larger --max-events",
             a->control->ring_words, request->depth);
    return -ENOSPC;
  case MLZ_ANSWER_DISK:
    snprintf(a->err, a->size, "the recorder cannot write the trace (a full disk?); the mark or dump may be lost");
    return -EIO;
  case MLZ_ANSWER_NO_FLIGHT:
    snprintf(a->err, a->size,
             "this session has no flight recorder to dump (record --flight-recorder T); its trace is being written already");
    return -EINVAL;
  case MLZ_ANSWER_WRONG:
    break;
  }
  snprintf(a->err, a->size, "the recorder refused the request; nothing was changed");
  return -EINVAL;
}

int mlz_mailbox_ask(struct mlz_control *control, const struct mlz_request *request, bool (*go_on)(void), uint64_t *ns, char *err,
                    size_t err_size) {
  const struct asking a = {.control = control, .go_on = go_on, .err = err, .size = err_size};
  uint32_t number;
  int e = recorder_gone(&a) ? gone(&a) : lock(&a);
  if (e < 0) return e;
  e = post(&a, request, &number);
  if (e == 0) e = wait_done(&a, number);
  if (e == 0) e = answer(&a, request);
  if (e == 0) *ns = mlz_arena_mailbox(control)->answer_ns;
  pthread_mutex_unlock(asking_of(&a));
  return e;
}
