/* The mailbox: how another process (`memlyze control`) asks the recorder of a session for something. It lies in the arena's first page, behind
 * struct mlz_control, at MLZ_MAILBOX_OFFSET; agents do not look at it.
 *
 * One request at a time. Who asks holds `asking` meanwhile, a robust mutex, which ends with the thread that holds it; so all fields but `state`
 * have one writer at a time:
 *   EMPTY or DONE -> POSTED   the asker, after it has written the request; then it adds one to control.wake and wakes
 *   POSTED -> TAKEN           the recorder, by compare-and-swap, at the beginning of a round. It copies the request first
 *   POSTED -> EMPTY           the asker gave up, by compare-and-swap: a request that was withdrawn is never obeyed
 *   TAKEN -> DONE             the recorder, after it has obeyed and written the answer; it wakes who waits on `state`
 * What was published in a ring before the request was posted comes before its marks in the trace; the marks come before what the changed
 * settings bring. */
#ifndef MLZ_SHM_MAILBOX_H
#define MLZ_SHM_MAILBOX_H

#include "control.h"

#define MLZ_MAILBOX_OFFSET 1024u
#define MLZ_MAILBOX_NAME_MAX 255u /* bytes of a name, without a NUL */

enum mlz_mailbox_state { MLZ_MAILBOX_EMPTY = 0, MLZ_MAILBOX_POSTED = 1, MLZ_MAILBOX_TAKEN = 2, MLZ_MAILBOX_DONE = 3 };

enum mlz_answer {
  MLZ_ANSWER_DONE = 0,
  MLZ_ANSWER_WRONG = 1,     /* a value or name that is none */
  MLZ_ANSWER_NOBODY = 2,    /* a mark, and no traced process runs that could carry it */
  MLZ_ANSWER_RINGS = 3,     /* the rings are too small for stacks so deep */
  MLZ_ANSWER_DISK = 4,      /* a mark, a snapshot or a dump that could not be written */
  MLZ_ANSWER_NO_FLIGHT = 5, /* a dump, of a session without a flight recorder */
};

/* What is asked for, all at once or (any answer but DONE and DISK) nothing of it. */
struct mlz_request {
  uint32_t pid;            /* of the process that carries the marks; the recorder's own: the command's */
  uint32_t mark_bytes;     /* 0: no mark */
  uint32_t snapshot_bytes; /* 0: no snapshot */
  uint32_t depth;          /* max_stack_depth, if `mask` has its bits */
  uint64_t mask;           /* bits of the settings word to change; of them */
  uint64_t bits;           /* PAUSED is taken from here, rate and depth from their own fields */
  double sample_rate;      /* as typed */
  uint32_t dump;           /* 1: the flight recorder's memory is written */
  uint32_t path_bytes;     /* into this file; 0: its own */
  uint64_t reserved[2];
  char mark[MLZ_MAILBOX_NAME_MAX + 1]; /* UTF-8 */
  char snapshot[MLZ_MAILBOX_NAME_MAX + 1];
  char path[1024];
};
_Static_assert(sizeof(struct mlz_request) == 1600, "layout");

struct mlz_mailbox {
  _Alignas(64) _Atomic uint32_t state; /* futex: | 31..2 number of the request | 1..0 enum mlz_mailbox_state | */
  uint32_t answer;                     /* enum mlz_answer */
  uint64_t answer_ns;                  /* when it was obeyed: the time of the marks */
  unsigned char asking[48];            /* pthread_mutex_t, process-shared and robust */
  struct mlz_request request;
};
_Static_assert(sizeof(struct mlz_mailbox) == 1664, "layout");
_Static_assert(offsetof(struct mlz_mailbox, request) == 64, "layout");
_Static_assert(sizeof(struct mlz_control) <= MLZ_MAILBOX_OFFSET && MLZ_MAILBOX_OFFSET + sizeof(struct mlz_mailbox) <= MLZ_CONTROL_BYTES,
               "the mailbox lies behind the control block and in its page");

static inline struct mlz_mailbox *mlz_arena_mailbox(struct mlz_control *c) {
  return (struct mlz_mailbox *)(void *)((uint8_t *)c + MLZ_MAILBOX_OFFSET);
}
static inline unsigned mlz_mailbox_state_of(uint32_t state) { return state & 3; }

#endif
