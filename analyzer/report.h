/* What the tools' mains share: the output file, JSON with clean strings, the window that --at, --from, --to and @MARK ask for, frames as text. */
#ifndef MLZ_ANALYZER_REPORT_H
#define MLZ_ANALYZER_REPORT_H

#include "analyzer/input.h"
#include "analyzer/instants.h"
#include "analyzer/peak.h"

/* First thing in every main: character set, SIGPIPE. */
void mlz_report_begin(void);
/* standard output, or common->output. Exits 2 with a line when it cannot be opened. */
FILE *mlz_report_open(const struct mlz_input *in, const struct mlz_common_options *common);
/* Closes it; exits 2 with a line if anything could not be written (a full disk). A closed pipe is no error. */
void mlz_report_close(const struct mlz_input *in, const struct mlz_common_options *common, FILE *out);

/* Ends the program if common->output is this trace; mlz_report_open asks it about its own. */
void mlz_report_guard(const struct mlz_input *in, const struct mlz_common_options *common);

/* Strings of a trace may be any bytes; JSON's may not. */
json_t *mlz_json_text(const char *text);
json_t *mlz_json_number(double value); /* rounded to an integer */
/* {"schema": "memlyze.TOOL/1"}, and "estimated": true below rate 1. */
json_t *mlz_json_document(const struct mlz_input *in);
/* "lost": {...}, "damage": {...} where there is any. After the scans. */
void mlz_json_add_losses(const struct mlz_input *in, json_t *document);
void mlz_json_print(json_t *document, FILE *out); /* takes the reference */
json_t *mlz_json_stack(const struct mlz_input *in, uint32_t stack);
/* Adds function, file, line, language of the stack's innermost frame. */
void mlz_json_add_site(const struct mlz_input *in, json_t *object, uint32_t stack);

struct mlz_place {
  const char *function, *file, *module; /* raw bytes of the trace */
  uint32_t line;
  enum mlz_language language;
};
struct mlz_place mlz_place_of_frame(const struct mlz_input *in, uint32_t frame);
struct mlz_place mlz_place_of_stack(const struct mlz_input *in, uint32_t stack); /* innermost frame; "(no stack)" for the empty one */
char *mlz_place_name(const struct mlz_place *place); /* the function, clean, malloc'd; one that was told by debug information says so */
char *mlz_place_text(const struct mlz_place *place); /* "file:line", clean, malloc'd; the current directory is left out */

/* A paragraph of clean text that fits `width` columns where its words do; lines after the first begin at `indent`. `column`: where the cursor
 * stands. Ends with a newline. */
void mlz_report_wrap(FILE *out, unsigned width, unsigned column, unsigned indent, const char *text);
bool mlz_report_has_stack(const struct mlz_input *in, uint32_t stack);
/* Why no block has one. */
void mlz_report_no_stacks(const struct mlz_input *in, FILE *out);

struct mlz_window {
  const struct mlz_cut *from, *to; /* NULL: unlimited */
  struct mlz_cut from_cut, to_cut;
};
/* Texts may be NULL. --at and --to are two names of the upper limit; both given, or an empty window, is an error. */
void mlz_window_resolve(struct mlz_input *in, const char *at, const char *from, const char *to, bool include_mmap,
                        struct mlz_window *window);
void mlz_window_clear(struct mlz_window *window);

#endif
