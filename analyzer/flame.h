/* The flame graph: stacks merged into a tree, and the tree drawn as one SVG file that needs nothing else: no network, no fonts, and no script to be
 * read as a picture. flame.js, carried inside, adds zoom, search and the keyboard. One thread.
 *
 * A frame inside a stack is a function; the innermost one, which allocates, is a line. */
#ifndef MLZ_ANALYZER_FLAME_H
#define MLZ_ANALYZER_FLAME_H

#include "analyzer/match.h"
#include "analyzer/report.h"
#include "analyzer/select.h"

struct mlz_flame_node {
  uint32_t key;    /* of the frame: struct mlz_flame.keys */
  uint32_t parent; /* node 0 is the root, its own parent */
  uint32_t depth;  /* root 0 */
  uint32_t n_children;
  double value, count;   /* with everything above it */
  double before, after;  /* of a comparison: the same; value is what is drawn */
  double own[MLZ_SIDES]; /* of a comparison: of the stacks that end here */
  double x;              /* where it begins, in the units of value */
};

enum mlz_flame_kind { MLZ_FLAME_FRAME, MLZ_FLAME_LEAF, MLZ_FLAME_ROOT, MLZ_FLAME_CUT, MLZ_FLAME_NONE };
struct mlz_flame_key {
  struct mlz_place place;
  enum mlz_flame_kind kind; /* CUT: frames beyond --max-stack-depth; NONE: no stack */
};

struct mlz_flame {
  struct mlz_flame_node *nodes; /* after mlz_flame_layout: parents before children, siblings largest first */
  size_t n_nodes, room_nodes;
  struct mlz_flame_key *keys;
  size_t n_keys, room_keys;
  uint32_t *node_table, *key_table; /* open addressing: place + 1 */
  size_t node_table_size, key_table_size;
  uint32_t depth; /* highest */
  bool reversed;
  const struct mlz_select
      *root; /* what calls the outermost frame that it selects is left out; NULL: nothing is. Set after mlz_flame_begin() */
};

void mlz_flame_begin(struct mlz_flame *f, bool reversed);
/* reversed: the allocating frame is the root's child, its callers stand upon it. */
void mlz_flame_add(struct mlz_flame *f, const struct mlz_input *in, uint32_t stack, double value, double count);
/* The same for a comparison: frames of both traces that `match` brought together are one. */
void mlz_flame_add_side(struct mlz_flame *f, const struct mlz_match *match, enum mlz_side side, uint32_t stack, double value);
/* After all was added, before the layout: a stack is as wide as the larger of both, so that what is gone is seen beside what is new. */
void mlz_flame_compare(struct mlz_flame *f);
/* Sorts, places, and drops what is narrower than `least` (a share of the total). */
void mlz_flame_layout(struct mlz_flame *f, double least);
void mlz_flame_clear(struct mlz_flame *f);

struct mlz_flame_style {
  const char *title, *subtitle;
  bool icicle;      /* root at the top */
  bool counts;      /* values are blocks, not bytes */
  bool compares;    /* red for what grew, blue for what shrank */
  const char *noun; /* "allocated" */
};
void mlz_flame_draw(const struct mlz_flame *f, const struct mlz_flame_style *style, FILE *out);

#endif
