/* Everything in a trace as text, one thing a line. tests/mlyze_decode.py prints the same from the same file. */
#ifndef MLZ_TESTS_DUMP_TRACE_H
#define MLZ_TESTS_DUMP_TRACE_H

#include "formats/reader.h"

#include <stdio.h>

void dump_trace(struct mlz_trace *t, FILE *out); /* reads all chunks */
char *dump_trace_text(struct mlz_trace *t);      /* the same, malloc'ed; NULL: out of memory */

#endif
