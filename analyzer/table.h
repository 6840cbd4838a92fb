/* A text table that fits the terminal: numbers at the right, names kept whole as long as possible, paths shortened first. */
#ifndef MLZ_ANALYZER_TABLE_H
#define MLZ_ANALYZER_TABLE_H

#include "analyzer/term.h"

#include <stddef.h>

enum mlz_column_kind {
  MLZ_COL_NUMBER, /* right-aligned, never shortened */
  MLZ_COL_WORD,   /* left-aligned, never shortened */
  MLZ_COL_NAME,   /* shortened in the middle, after paths */
  MLZ_COL_PATH,   /* shortened at the left, first */
  MLZ_COL_NOTE,   /* shortened at the right, before anything else */
};

struct mlz_table;
struct mlz_table *mlz_table_new(void);
struct mlz_table *mlz_table_free(struct mlz_table *t);
void mlz_table_column(struct mlz_table *t, const char *title, enum mlz_column_kind kind);
/* Cells in the order of columns; text is cleaned and copied. A row is complete when every column has its cell. */
void mlz_table_cell(struct mlz_table *t, const char *text);
void mlz_table_style(struct mlz_table *t, enum mlz_style style); /* of the row that the next cell begins or continues */
size_t mlz_table_rows(const struct mlz_table *t);
/* `width` columns at most, if the numbers allow it. */
void mlz_table_print(const struct mlz_table *t, FILE *out, unsigned width, bool color);

#endif
