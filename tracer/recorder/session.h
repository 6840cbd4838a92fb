/* The session directory, by which an agent (and memlyze control) finds its recorder (docs/architecture.md, A session). Recorder process.
 *
 *   BASE      $TMPDIR/memlyze-UID, else /tmp/memlyze-UID, else $XDG_RUNTIME_DIR/memlyze: ours, others pass through only
 *   BASE/ID/  one session; its recorder holds a lock (flock) on it, so a later one knows which are left over
 *     libmemlyze.so -> the installed agent        arena -> /proc/PID/fd/N */
#ifndef MLZ_RECORDER_SESSION_H
#define MLZ_RECORDER_SESSION_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

struct mlz_session {
  int base, fd; /* descriptors of the two directories */
  char id[32];
  char path[256]; /* of the session's directory: no colon, no space, so LD_PRELOAD can hold it */
};

/* Makes the directory, sweeps those of dead recorders that no process names any more. Negative errno; `err` holds one line. */
int mlz_session_make(struct mlz_session *s, char *err, size_t err_size);
/* Makes both links: `agent` is an absolute path. */
int mlz_session_link(struct mlz_session *s, const char *agent, int arena_fd);
void mlz_session_remove(struct mlz_session *s);
/* Removes it, unless processes live on that name the agent's link in LD_PRELOAD: then the link stays (a later recorder sweeps it), because the
 * loader would print a warning at each of their execs. Whatever they exec finds no arena and runs untraced. */
void mlz_session_leave(struct mlz_session *s);

/* The directories that hold sessions of this user, as far as our environment tells: calls `each` with the path of every session that
 * has an arena, until it returns false. */
void mlz_session_each(bool (*each)(void *context, const char *path), void *context);

/* The agent that belongs to this program: ../lib/memlyze beside an installed one (../libexec/memlyze where pip installed it), ../agent in the build tree.
 * -ENOENT. */
int mlz_session_find_agent(char out[PATH_MAX]);

#endif
