/* Starts the recorder of memlyze_start() from inside the program, so that the program does not notice: it is no child that wait() could find, no
 * SIGCHLD comes, no descriptor is shared. Any thread, not inside a hook. Keeps errno. */
#ifndef MLZ_AGENT_LAUNCH_H
#define MLZ_AGENT_LAUNCH_H

#pragma GCC visibility push(hidden)

struct mlz_launched {
  int status;  /* from its descriptor 3 */
  int answers; /* from its descriptor 4; both close-on-exec */
};

/* `argv`: argv[0] is the program's path. Negative errno: nothing runs and nothing is open. */
int mlz_launch_recorder(const char *const argv[], const char *const envp[], struct mlz_launched *out);

#pragma GCC visibility pop
#endif
