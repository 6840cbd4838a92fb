/* --symbols: names for native frames that have none in the trace, or no line. Once, when the trace is opened; one thread. */
#ifndef MLZ_ANALYZER_NAMES_H
#define MLZ_ANALYZER_NAMES_H

#include "analyzer/input.h"
#include "tracer/symbols/symbolizer.h"

/* Ends the program with a line if the directory cannot be read. What is found in none of the places stays as it is. */
void mlz_names_look_up(struct mlz_input *in, const char *directory);
/* The file of code that a native frame lies in. NULL: it is not there. */
struct mlz_symbol_module *mlz_names_module(struct mlz_symbolizer *s, const struct mlz_native_frame *frame);

#endif
