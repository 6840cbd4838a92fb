/* Asking a recorder through its mailbox: `memlyze control` from outside, and a traced program for itself (tracer/agent/api.h). Any process, any
 * thread that is not inside a hook. Allocates nothing and prints nothing; uses the C library, and changes errno. */
#ifndef MLZ_SHM_MAILBOX_ASK_H
#define MLZ_SHM_MAILBOX_ASK_H

#include "mailbox.h"

/* What is wrong with a name: a text that follows "the name "; NULL: nothing. UTF-8, no control characters, not empty. */
const char *mlz_mailbox_name_problem(const char *name, size_t bytes);
/* The same of a mark or snapshot: not what the tools take for a time (peak, end, 50%, 1.5s). */
const char *mlz_mailbox_mark_problem(const char *name, size_t bytes);

/* Hands the request over and waits until the recorder has obeyed: 0, and when that was. Negative errno, and one line in `err`: nothing was done.
 * -ETIMEDOUT: the recorder does not answer; -ESRCH: it has ended, or nobody is there whose mark it could be; -EINVAL, -ENOSPC, -EIO: as it says.
 * Needs the mapping alone: a process that is another user's by now, or has another root, may go on asking. `go_on`, if given, is asked many times a
 * second; where it says no, the request is withdrawn: -ECANCELED. */
int mlz_mailbox_ask(struct mlz_control *control, const struct mlz_request *request, bool (*go_on)(void), uint64_t *ns, char *err,
                    size_t err_size);

#endif
