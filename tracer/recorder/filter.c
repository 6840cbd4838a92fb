#include "tracer/recorder/filter.h"

#include "shm/mailbox_ask.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 10240u /* the agent sends names of 1024 characters at most, of four bytes at most */

const char *mlz_patterns_add(struct mlz_patterns *p, const char *text) {
  const char *problem = mlz_mailbox_name_problem(text, strlen(text));
  if (problem) return *text ? problem : "is an empty pattern; give a module or function, like json.* or app.main";
  const char **grown = reallocarray(p->at, p->n + 1, sizeof *grown);
  if (!grown) return "does not fit into memory";
  p->at = grown;
  p->at[p->n++] = text;
  return NULL;
}

void mlz_patterns_deinit(struct mlz_patterns *p) {
  free(p->at);
  *p = (struct mlz_patterns){0};
}

/* FNM_NOESCAPE: a backslash is itself, as in Python's fnmatch. */
static bool glob(const char *pattern, const char *text) { return fnmatch(pattern, text, FNM_NOESCAPE) == 0; }

static bool matches(const char *pattern, const char *module, const char *qualified) {
  if ((*module && glob(pattern, module)) || glob(pattern, qualified)) return true;
  size_t n = strlen(pattern);
  if (n < 3 || strcmp(pattern + n - 2, ".*") != 0) return false;
  char itself[256]; /* a pattern is no longer than 255 bytes */
  snprintf(itself, sizeof itself, "%.*s", (int)(n - 2), pattern);
  return (*module && glob(itself, module)) || glob(itself, qualified);
}

static bool any(const struct mlz_patterns *p, const char *module, const char *qualified) {
  for (unsigned i = 0; i < p->n; i++) {
    if (matches(p->at[i], module, qualified)) return true;
  }
  return false;
}

/* The modules of the package that steer a recording (tracer/python), not those that read traces: what these hold is the program's. */
static bool own(const char *module, size_t bytes) {
  static const char *const ours[] = {"_agent", "_jupyter", "_places", "_stats", "_tracer", "_units", "pytest_plugin"};
  static const char package[] = "memlyze.";
  const size_t n = sizeof package - 1;
  if (bytes <= n || memcmp(module, package, n) != 0) return false;
  for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
    if (strlen(ours[i]) == bytes - n && memcmp(ours[i], module + n, bytes - n) == 0) return true;
  }
  return false;
}

unsigned mlz_filter_code(const struct mlz_filter *f, const char *module, size_t module_bytes, const char *name, size_t name_bytes) {
  if (own(module, module_bytes)) return MLZ_MATCH_EXCLUDE;
  if (!f || module_bytes + name_bytes + 2 > TEXT_MAX) return 0;
  char of[TEXT_MAX], qualified[TEXT_MAX];
  snprintf(of, sizeof of, "%.*s", (int)module_bytes, module);
  snprintf(qualified, sizeof qualified, "%.*s%s%.*s", (int)module_bytes, module, module_bytes ? "." : "", (int)name_bytes, name);
  return (any(&f->include, of, qualified) ? MLZ_MATCH_INCLUDE : 0u) | (any(&f->exclude, of, qualified) ? MLZ_MATCH_EXCLUDE : 0u);
}
