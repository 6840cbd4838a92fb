#include "analyzer/select.h"

#include "analyzer/text.h"

#include <inttypes.h>
#include <stdlib.h>

void mlz_select_begin(struct mlz_select *s, const struct mlz_input *in, const char *re) {
  s->any = !re;
  if (!re) return;
  int rc = regcomp(&s->re, re, REG_EXTENDED | REG_NOSUB);
  if (!rc) return;
  char why[128];
  regerror(rc, &s->re, why, sizeof why);
  mlz_input_fail(in, "'%s' is no regular expression: %s", re, why);
}

void mlz_select_clear(struct mlz_select *s) {
  if (!s->any) regfree(&s->re);
  s->any = true;
}

bool mlz_select_text(const struct mlz_select *s, const char *text) { return s->any || !regexec(&s->re, text, 0, NULL, 0); }

bool mlz_select_place(const struct mlz_select *s, const struct mlz_place *p) {
  if (s->any) return true;
  char *text = mlz_text_format("%s.%s %s:%" PRIu32, p->module, p->function, p->file, p->line);
  bool found = mlz_select_text(s, text);
  free(text);
  return found;
}

bool mlz_select_stack(const struct mlz_select *s, const struct mlz_input *in, uint32_t stack, bool any_frame) {
  struct mlz_place p = mlz_place_of_stack(in, stack);
  if (mlz_select_place(s, &p)) return true;
  if (!any_frame) return false;
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, stack, &n, &truncated);
  for (uint32_t i = 1; i < n; i++) {
    p = mlz_place_of_frame(in, frames[i]);
    if (mlz_select_place(s, &p)) return true;
  }
  return false;
}
