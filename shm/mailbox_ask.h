/* Asking a recorder through its mailbox: `memlyze control` from outside, and a traced program for itself (tracer/agent/api.h). Any process, any
 * thread that is not inside a hook. Allocates nothing and prints nothing; uses the C library, and changes errno. */
#ifndef MLZ_SHM_MAILBOX_ASK_H
#define MLZ_SHM_MAILBOX_ASK_H

#include "mailbox.h"

/* What is wrong with the name of a mark or snapshot: a text that follows "the name "; NULL: nothing. UTF-8, no control characters, not empty. */
const char *mlz_mailbox_name_problem(const char *name, size_t bytes);

/* Hands the request over and waits until the recorder has obeyed: 0, and when that was. Negative errno, and one line in `err`: nothing was done.
 * -ETIMEDOUT: the recorder does not answer; -ESRCH: it has ended, or nobody is there whose mark it could be; -EINVAL, -ENOSPC, -EIO: as it says.
 * `fd`: a descriptor of the arena's file that nobody else uses: it is locked meanwhile. `go_on`, if given, is asked many times a second; where it
 * says no, the request is withdrawn: -ECANCELED. */
int mlz_mailbox_ask(int fd, struct mlz_control *control, const struct mlz_request *request, bool (*go_on)(void), uint64_t *ns, char *err,
                    size_t err_size);

#endif
