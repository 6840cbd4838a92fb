/* The modules of a process that runs already: finds the C library's functions as the program's calls reach them, and has those calls go to the
 * hooks, by the entries of each module's table of addresses (JUMP_SLOT, GLOB_DAT, and pointers in data). Only for a session that was started in a
 * running process: where the library was preloaded, the loader itself has done it.
 *
 * Modules that come later are found when dlopen returns; of a dlopen by name alone, which asks who its caller is, at the next dlsym or dlopen.
 * Modules that go need nothing: no address of an entry is kept. Under the GIL, not inside a hook. */
#ifndef MLZ_AGENT_MODULES_H
#define MLZ_AGENT_MODULES_H

#include <stdbool.h>

#pragma GCC visibility push(hidden)

struct mlz_redirect {
  const char *name;
  void *hook;
  void *real; /* what the program reaches without us; NULL: it has none */
};

/* The first definition in the order of loading, other than ours; NULL: none. */
void *mlz_modules_find(const char *name);

void mlz_modules_redirect(void); /* after the hooks know what they call: mlz_libc_resolve, mlz_exec_resolve */
void mlz_modules_restore(void);  /* every entry that leads to a hook leads to what lies behind it */

/* hooks_libc.c, hooks_exec.c: their tables; *n entries. resolve: has the hooks call what mlz_modules_find finds, if they do not know yet. */
struct mlz_redirect *mlz_libc_redirects(unsigned *n);
struct mlz_redirect *mlz_exec_redirects(unsigned *n);
void mlz_libc_resolve(void);
void mlz_exec_resolve(void);

#pragma GCC visibility pop
#endif
