/* The exec family, watched only: a program that is started without our LD_PRELOAD, or as a user who may not open the arena, goes on untraced,
 * and the reports must say so.
 *
 * May run in a vfork's child, on its parent's memory: nothing but atomic counters in the arena is touched. */
#include "modules.h"

#include "agent.h"

#include <dlfcn.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

extern char **environ;

/* Does the environment load this very session's agent? */
static bool carries_agent(char *const envp[]) {
  static const char name[] = "LD_PRELOAD=";
  for (char *const *e = envp; e && *e; e++) {
    if (strncmp(*e, name, sizeof(name) - 1) == 0 && strstr(*e, mlz_agent.session)) return true;
  }
  return false;
}

/* Adds to the count, in the session of that number (0: whichever there is); returns its number, 0: none. */
static uint32_t count(uint64_t one, uint32_t session) {
  mlz_agent_inside(1); /* another thread may end the session at any time */
  uint32_t now = atomic_load(&mlz_agent.attach) == MLZ_AGENT_ON ? mlz_agent.session_number : 0;
  if (now && session && now != session) now = 0;
  if (now) atomic_fetch_add_explicit(&mlz_agent_control()->execs_untraced, one, memory_order_relaxed);
  mlz_agent_inside(-1);
  return now;
}

/* Counts an exec that leaves us; taken back when it fails. */
static uint32_t leaves(char *const envp[]) {
  if (atomic_load_explicit(&mlz_agent.attach, memory_order_relaxed) != MLZ_AGENT_ON) return 0;
  if (carries_agent(envp) && mlz_session_reachable()) return 0;
  return count(1, 0);
}
static void stayed(uint32_t left) {
  if (left) count((uint64_t)-1, left);
}

#define FAMILY(X) X(execve) X(fexecve) X(execv) X(execvp) X(execvpe) X(posix_spawn) X(posix_spawnp)
#define MEMBER(name) __typeof__(&name) name;
static struct { FAMILY(MEMBER) } next;
#define NEXT(name) (next.name ? next.name : (__typeof__(&name))dlsym(RTLD_NEXT, #name))

void mlz_process_resolve_exec(void) {
#define FIND(name) next.name = (__typeof__(&name))dlsym(RTLD_NEXT, #name);
  FAMILY(FIND)
#undef FIND
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[]) {
  uint32_t left = leaves(envp);
  int r = NEXT(execve)(path, argv, envp);
  stayed(left);
  return r;
}
EXPORT int fexecve(int fd, char *const argv[], char *const envp[]) {
  uint32_t left = leaves(envp);
  int r = NEXT(fexecve)(fd, argv, envp);
  stayed(left);
  return r;
}
EXPORT int execv(const char *path, char *const argv[]) {
  uint32_t left = leaves(environ);
  int r = NEXT(execv)(path, argv);
  stayed(left);
  return r;
}
EXPORT int execvp(const char *file, char *const argv[]) {
  uint32_t left = leaves(environ);
  int r = NEXT(execvp)(file, argv);
  stayed(left);
  return r;
}
EXPORT int execvpe(const char *file, char *const argv[], char *const envp[]) {
  uint32_t left = leaves(envp);
  int r = NEXT(execvpe)(file, argv, envp);
  stayed(left);
  return r;
}
EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                       char *const argv[], char *const envp[]) {
  uint32_t left = leaves(envp);
  int r = NEXT(posix_spawn)(pid, path, actions, attributes, argv, envp);
  if (r != 0) stayed(left);
  return r;
}
EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                        char *const argv[], char *const envp[]) {
  uint32_t left = leaves(envp);
  int r = NEXT(posix_spawnp)(pid, file, actions, attributes, argv, envp);
  if (r != 0) stayed(left);
  return r;
}

/* ---- a process that runs already ---- */

#define HERE(name) extern __typeof__(name) here_##name __attribute__((alias(#name), visibility("hidden"), copy(name)));
FAMILY(HERE)
#define ROW(name) {#name, (void *)here_##name, NULL},
static struct mlz_redirect redirects[] = {FAMILY(ROW)};

struct mlz_redirect *mlz_exec_redirects(unsigned *n) {
  *n = sizeof(redirects) / sizeof(redirects[0]);
  return redirects;
}

void mlz_exec_resolve(void) {
#define FIND(name)                                                                                                                         \
  if (!next.name) next.name = (__typeof__(&name))mlz_modules_find(#name);
  FAMILY(FIND)
#undef FIND
}
