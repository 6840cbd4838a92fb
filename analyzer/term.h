/* What the output is: its width, whether it shows colour. Main thread of a tool. */
#ifndef MLZ_ANALYZER_TERM_H
#define MLZ_ANALYZER_TERM_H

#include <stdbool.h>
#include <stdio.h>

enum mlz_color { MLZ_COLOR_AUTO, MLZ_COLOR_ALWAYS, MLZ_COLOR_NEVER };

/* COLUMNS, else the terminal behind `out`, else 80; never below 40. */
unsigned mlz_term_width(FILE *out);
/* --color, then NO_COLOR, then CLICOLOR_FORCE, then: a terminal that is not TERM=dumb. */
bool mlz_term_color(FILE *out, enum mlz_color wish);

enum mlz_style { MLZ_STYLE_PLAIN, MLZ_STYLE_BOLD, MLZ_STYLE_DIM, MLZ_STYLE_RED, MLZ_STYLE_YELLOW, MLZ_STYLE_GREEN, MLZ_STYLE_CYAN };
/* The escape sequence that begins a style; MLZ_STYLE_PLAIN ends any. */
const char *mlz_term_style(enum mlz_style style);

#endif
