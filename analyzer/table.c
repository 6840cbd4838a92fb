#include "analyzer/table.h"

#include "analyzer/text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS_MAX = 16, GAP = 2, NOTE_MIN = 10, PATH_MIN = 14, NAME_MIN = 10 };

struct mlz_table {
  struct {
    const char *title;
    enum mlz_column_kind kind;
  } columns[COLUMNS_MAX];
  unsigned n_columns;
  char **cells;
  enum mlz_style *styles; /* by row */
  size_t n_cells, room;
};

struct mlz_table *mlz_table_new(void) {
  return mlz_text_calloc(1, sizeof(struct mlz_table));
}

struct mlz_table *mlz_table_free(struct mlz_table *t) {
  if (!t) return NULL;
  for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i]);
  free(t->cells);
  free(t->styles);
  free(t);
  return NULL;
}

void mlz_table_column(struct mlz_table *t, const char *title, enum mlz_column_kind kind) {
  if (t->n_columns == COLUMNS_MAX) return;
  t->columns[t->n_columns].title = title;
  t->columns[t->n_columns++].kind = kind;
}

static void make_room(struct mlz_table *t) {
  if (t->n_cells < t->room) return;
  t->room = t->room ? t->room * 2 : 64;
  t->cells = mlz_text_realloc(t->cells, t->room, sizeof *t->cells);
  t->styles = mlz_text_realloc(t->styles, t->room, sizeof *t->styles);
}

void mlz_table_cell(struct mlz_table *t, const char *text) {
  make_room(t);
  if (t->n_cells % t->n_columns == 0) t->styles[t->n_cells / t->n_columns] = MLZ_STYLE_PLAIN;
  t->cells[t->n_cells++] = mlz_text_clean(text, true);
}

void mlz_table_style(struct mlz_table *t, enum mlz_style style) {
  if (t->n_cells) t->styles[(t->n_cells - 1) / t->n_columns] = style;
}

size_t mlz_table_rows(const struct mlz_table *t) { return t->n_columns ? t->n_cells / t->n_columns : 0; }

/* Takes from the columns of one kind, the widest first, until `excess` is gone or all are at their least. */
static unsigned shrink(const struct mlz_table *t, unsigned *widths, enum mlz_column_kind kind, unsigned least, unsigned excess) {
  while (excess) {
    unsigned widest = COLUMNS_MAX;
    for (unsigned c = 0; c < t->n_columns; c++)
      if (t->columns[c].kind == kind && widths[c] > least && (widest == COLUMNS_MAX || widths[c] > widths[widest])) widest = c;
    if (widest == COLUMNS_MAX) break;
    widths[widest]--;
    excess--;
  }
  return excess;
}

/* Names as they are if all fits, else brief ones. */
static unsigned measure(const struct mlz_table *t, unsigned *widths, bool brief) {
  unsigned total = t->n_columns ? (t->n_columns - 1) * GAP : 0;
  for (unsigned c = 0; c < t->n_columns; c++) {
    widths[c] = mlz_text_width(t->columns[c].title);
    for (size_t i = c; i < t->n_cells; i += t->n_columns) {
      unsigned w = brief && t->columns[c].kind == MLZ_COL_NAME ? mlz_text_name_width(t->cells[i]) : mlz_text_width(t->cells[i]);
      if (w > widths[c]) widths[c] = w;
    }
    total += widths[c];
  }
  return total;
}

static void fit(const struct mlz_table *t, unsigned *widths, unsigned width) {
  unsigned total = measure(t, widths, false);
  if (total > width) total = measure(t, widths, true);
  unsigned excess = total > width ? total - width : 0;
  /* Names keep 26 columns until paths and notes have given all they can. */
  excess = shrink(t, widths, MLZ_COL_PATH, 30, excess);
  excess = shrink(t, widths, MLZ_COL_NOTE, 24, excess);
  excess = shrink(t, widths, MLZ_COL_PATH, 18, excess);
  excess = shrink(t, widths, MLZ_COL_NAME, 26, excess);
  excess = shrink(t, widths, MLZ_COL_NOTE, NOTE_MIN, excess);
  excess = shrink(t, widths, MLZ_COL_PATH, PATH_MIN, excess);
  shrink(t, widths, MLZ_COL_NAME, NAME_MIN, excess);
}

static void print_cell(const struct mlz_table *t, unsigned c, const char *text, unsigned width, bool last, FILE *out) {
  enum mlz_column_kind kind = t->columns[c].kind;
  enum mlz_shorten how = kind == MLZ_COL_PATH ? MLZ_SHORTEN_PATH : kind == MLZ_COL_NAME ? MLZ_SHORTEN_NAME : MLZ_SHORTEN_RIGHT;
  char *shown = mlz_text_shorten(text, width, how);
  unsigned pad = width - (mlz_text_width(shown) < width ? mlz_text_width(shown) : width);
  if (kind == MLZ_COL_NUMBER)
    fprintf(out, "%*s%s", (int)pad, "", shown);
  else
    fprintf(out, "%s%*s", shown, last ? 0 : (int)pad, "");
  if (!last) fprintf(out, "%*s", GAP, "");
  free(shown);
}

static void print_row(const struct mlz_table *t, const char *const *cells, const unsigned *widths, FILE *out) {
  unsigned n = t->n_columns; /* no blanks at the end of a line */
  while (n > 1 && !*cells[n - 1]) n--;
  for (unsigned c = 0; c < n; c++) print_cell(t, c, cells[c], widths[c], c + 1 == n, out);
}

void mlz_table_print(const struct mlz_table *t, FILE *out, unsigned width, bool color) {
  unsigned widths[COLUMNS_MAX] = {0};
  fit(t, widths, width);
  if (color) fputs(mlz_term_style(MLZ_STYLE_DIM), out);
  const char *titles[COLUMNS_MAX] = {NULL};
  for (unsigned c = 0; c < t->n_columns; c++) titles[c] = t->columns[c].title;
  print_row(t, titles, widths, out);
  fprintf(out, "%s\n", color ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  for (size_t row = 0; row < mlz_table_rows(t); row++) {
    bool styled = color && t->styles[row] != MLZ_STYLE_PLAIN;
    if (styled) fputs(mlz_term_style(t->styles[row]), out);
    print_row(t, (const char *const *)t->cells + row * t->n_columns, widths, out);
    fprintf(out, "%s\n", styled ? mlz_term_style(MLZ_STYLE_PLAIN) : "");
  }
}
