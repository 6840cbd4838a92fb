/* --filter: which frames and stacks a regular expression selects. One thread. */
#ifndef MLZ_ANALYZER_SELECT_H
#define MLZ_ANALYZER_SELECT_H

#include "analyzer/report.h"

#include <regex.h>

struct mlz_select {
  regex_t re;
  bool any; /* no filter: everything is selected */
};

/* POSIX extended; NULL selects everything. What is no regular expression ends the program with a line. */
void mlz_select_begin(struct mlz_select *s, const struct mlz_input *in, const char *re);
void mlz_select_clear(struct mlz_select *s);
bool mlz_select_text(const struct mlz_select *s, const char *text);
/* "module.function file:line" */
bool mlz_select_place(const struct mlz_select *s, const struct mlz_place *place);
/* The stack's innermost frame, or any of its frames. */
bool mlz_select_stack(const struct mlz_select *s, const struct mlz_input *in, uint32_t stack, bool any_frame);

#endif
