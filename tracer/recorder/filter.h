/* Which stacks are kept, by the modules and functions on them: `--include` and `--exclude`, and never what our own package allocates while it
 * steers the recording from inside the program. Recorder process, drain thread.
 *
 *   pattern  a glob (`*`, `?`, `[abc]`, `[!abc]`) that a frame matches with its module, or with `module.qualified_name`; `X.*` matches X itself, too.
 *
 * A code object is matched once, when it is first seen; a stack is judged from its code objects once, when it is first asked for; an event looks at its
 * stack's id only. What is filtered has the stack MLZ_STACK_FILTERED: it lives in the heap, so that its free is known, and nowhere else. */
#ifndef MLZ_RECORDER_FILTER_H
#define MLZ_RECORDER_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MLZ_STACK_FILTERED UINT32_MAX /* no id of the file */

struct mlz_patterns { /* owns the list, not the texts */
  const char **at;
  unsigned n;
};
struct mlz_filter {
  struct mlz_patterns include, exclude;
};

/* What is wrong with a pattern; NULL: nothing, it is added. */
const char *mlz_patterns_add(struct mlz_patterns *p, const char *text);
void mlz_patterns_deinit(struct mlz_patterns *p);

enum mlz_filter_match { MLZ_MATCH_INCLUDE = 1, MLZ_MATCH_EXCLUDE = 2 };

static inline bool mlz_filter_any(const struct mlz_filter *f) { return f->include.n || f->exclude.n; }

/* Which patterns a frame of this code matches: bits of enum mlz_filter_match. An empty module: not known, the name alone counts. `f`: NULL where
 * there are no patterns. */
unsigned mlz_filter_code(const struct mlz_filter *f, const char *module, size_t module_bytes, const char *name, size_t name_bytes);

/* Is a stack kept? `all`: the matches of its frames together; `innermost`: of that one. Without a frame both are 0. */
static inline bool mlz_filter_keeps(const struct mlz_filter *f, unsigned all, unsigned innermost) {
  return !(innermost & MLZ_MATCH_EXCLUDE) && (!f || f->include.n == 0 || (all & MLZ_MATCH_INCLUDE));
}

#endif
