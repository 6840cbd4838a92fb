/* memlyze control's side of a session: finds the arena of a traced process or recorder, and leaves requests in its mailbox (shm/mailbox.h).
 * Runs in a process of its own, as the user whose session it is. */
#ifndef MLZ_RECORDER_REACH_H
#define MLZ_RECORDER_REACH_H

#include "shm/mailbox.h"

#include <stddef.h>

struct mlz_reach {
  int fd;                      /* of the arena's file, which is locked during a request */
  struct mlz_control *control; /* its first page */
};

/* Negative errno; `err` holds one line: why `pid` has no session that we may change. */
int mlz_reach_open(struct mlz_reach *r, uint32_t pid, char *err, size_t err_size);
void mlz_reach_close(struct mlz_reach *r);

/* Hands the request over and waits until the recorder has obeyed: 0, and when that was. Negative errno, and one line in `err`: nothing was
 * done. -ETIMEDOUT: the recorder does not answer. */
int mlz_reach_ask(struct mlz_reach *r, const struct mlz_request *request, uint64_t *ns, char *err, size_t err_size);

#endif
