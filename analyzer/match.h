/* Frames of two traces brought together: which line of the one is which line of the other, though the file lies elsewhere and lines have moved. One
 * thread. Memory: a few words for each frame and function of both.
 *
 * Files are the same if their paths are, once what differs between machines is left out (mlz_match_path); of the others those of the same module and
 * base name, the one with the longest common tail first; last the main programs of both, whatever they are called.
 * Functions are the same if their file and qualified name are.
 * Lines of a function keep their order. They are brought together so that few are left alone, that few move otherwise than those before them (an edit
 * above moves all by the same number), and that they call the same functions (match.c has the costs). So a line is new or gone only if there is none
 * in its place. */
#ifndef MLZ_ANALYZER_MATCH_H
#define MLZ_ANALYZER_MATCH_H

#include "analyzer/intern.h"
#include "analyzer/report.h"

enum mlz_side { MLZ_BEFORE, MLZ_AFTER, MLZ_SIDES };

/* A line of either trace or of both. */
struct mlz_match_frame {
  uint32_t frame[MLZ_SIDES]; /* frame ids; MLZ_INTERN_NONE: not in that trace */
  uint32_t function, file;   /* numbers */
};

struct mlz_match {
  struct mlz_input *in[MLZ_SIDES];
  struct mlz_match_frame *frames;
  uint32_t n;
  uint32_t *of[MLZ_SIDES];     /* by frame id: index into frames */
  struct mlz_intern functions; /* their numbers */
  uint32_t *function_frame;    /* by function: one of its frames, of the trace after if it is there */
  uint32_t n_files;
  size_t room;
};

void mlz_match_build(struct mlz_input *before, struct mlz_input *after, struct mlz_match *out);
void mlz_match_clear(struct mlz_match *match);
/* As the trace after has it, or else the one before. */
struct mlz_place mlz_match_place(const struct mlz_match *match, uint32_t index);
/* A function of both traces has one file and name, whatever its lines. */
struct mlz_place mlz_match_function_place(const struct mlz_match *match, uint32_t index);
static inline uint32_t mlz_match_of(const struct mlz_match *match, enum mlz_side side, uint32_t frame) { return match->of[side][frame]; }

/* ---- the parts ---- */

/* malloc'd: without "." and "..", below `directory` (where the command was started; "": not known) relative to it, packages from site-packages on,
 * the standard library without its place and version. */
char *mlz_match_path(const char *path, const char *directory);
struct mlz_match_line {
  uint32_t line;
  uint64_t calls; /* the same number for the same functions called */
};
/* Lines of one function, ascending, each once. match[i]: index into `after` of the line that before[i] is, or UINT32_MAX. */
void mlz_match_lines(const struct mlz_match_line *before, size_t n, const struct mlz_match_line *after, size_t m, uint32_t *match);

#endif
