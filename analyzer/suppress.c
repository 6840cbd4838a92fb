#include "analyzer/suppress.h"

#include "analyzer/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct mlz_suppressions {
  char **patterns;
  size_t n;
};

/* Does `pattern` match a beginning of `text` (all of it, if anchored)? */
static bool match_here(const char *pattern, const char *text) {
  const char *star = NULL, *retry = NULL;
  for (;;) {
    if (*pattern == '*') {
      star = ++pattern;
      retry = text;
    } else if (!*pattern || (*pattern == '$' && !pattern[1] && !*text)) {
      return true;
    } else if (*text && *pattern == *text) {
      pattern++, text++;
    } else if (star && *retry) {
      pattern = star;
      text = ++retry;
    } else {
      return false;
    }
  }
}

bool mlz_suppress_match(const char *pattern, const char *text) {
  if (*pattern == '^') return match_here(pattern + 1, text);
  for (;; text++) {
    if (match_here(pattern, text)) return true;
    if (!*text) return false;
  }
}

static bool read_line(struct mlz_suppressions *s, char *line, unsigned number, char *err, size_t err_size) {
  while (isspace((unsigned char)*line)) line++;
  size_t length = strlen(line);
  while (length && isspace((unsigned char)line[length - 1])) line[--length] = 0;
  if (!*line || *line == '#') return true;
  if (strncmp(line, "leak:", 5) || !line[5]) {
    snprintf(err, err_size, "line %u: '%.60s' is not of the form leak:pattern", number, line);
    return false;
  }
  s->patterns = mlz_text_realloc(s->patterns, s->n + 1, sizeof *s->patterns);
  s->patterns[s->n++] = mlz_text_format("%s", line + 5);
  return true;
}

struct mlz_suppressions *mlz_suppress_read(const char *path, char *err, size_t err_size) {
  FILE *file = fopen(path, "re");
  if (!file) {
    snprintf(err, err_size, "%s; --suppress takes a file of lines leak:PATTERN", strerror(errno));
    return NULL;
  }
  struct mlz_suppressions *s = mlz_text_calloc(1, sizeof *s);
  char *line = NULL;
  size_t room = 0;
  bool good = true;
  for (unsigned number = 1; good && getline(&line, &room, file) >= 0; number++) good = read_line(s, line, number, err, err_size);
  if (good && ferror(file)) {
    snprintf(err, err_size, "%s", strerror(errno));
    good = false;
  }
  free(line);
  fclose(file);
  return good ? s : mlz_suppress_free(s);
}

struct mlz_suppressions *mlz_suppress_free(struct mlz_suppressions *s) {
  if (!s) return NULL;
  for (size_t i = 0; i < s->n; i++) free(s->patterns[i]);
  free(s->patterns);
  free(s);
  return NULL;
}

static bool matches_place(const struct mlz_suppressions *s, const struct mlz_place *p) {
  char *full = mlz_text_format("%s.%s", p->module, p->function);
  bool found = false;
  for (size_t i = 0; i < s->n && !found; i++)
    found = mlz_suppress_match(s->patterns[i], p->function) || mlz_suppress_match(s->patterns[i], full) ||
            mlz_suppress_match(s->patterns[i], p->file);
  free(full);
  return found;
}

bool mlz_suppress_stack(const struct mlz_suppressions *s, const struct mlz_input *in, uint32_t stack) {
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
  for (uint32_t i = 0; i < n; i++) {
    struct mlz_place p = mlz_place_of_frame(in, frames[i]);
    if (matches_place(s, &p)) return true;
  }
  return false;
}
