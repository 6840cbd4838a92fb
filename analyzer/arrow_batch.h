/* Rows of a table as one Arrow record batch: columns that grow, and then become the property of whoever takes the batch, without a copy. Any thread, one
 * at a time. Memory that is out is remembered (`failed`) and comes out when the batch is taken, so that no row needs a check. */
#ifndef MLZ_ANALYZER_ARROW_BATCH_H
#define MLZ_ANALYZER_ARROW_BATCH_H

#include "analyzer/arrow_abi.h"

#include <stdbool.h>
#include <stddef.h>

enum mlz_arrow_kind {
  MLZ_ARROW_I64,
  MLZ_ARROW_U32,
  MLZ_ARROW_F64,
  MLZ_ARROW_BOOL,
  MLZ_ARROW_TEXT,  /* utf8 */
  MLZ_ARROW_NAMED, /* one of the names of the field: a dictionary with 8-bit places */
  MLZ_ARROW_U32S,  /* a list of U32 */
};
struct mlz_arrow_field {
  const char *name;
  enum mlz_arrow_kind kind;
  bool nullable;
  const char *const *names; /* NAMED: up to 127, ended by NULL */
};

struct mlz_arrow_column {
  uint8_t *values; /* BOOL: bits. TEXT: bytes. U32S: the items of all lists */
  size_t used, room;
  int32_t *ends; /* TEXT, U32S: offsets, one more than rows */
  size_t ends_room;
  uint8_t *valid; /* bits; NULL: there is no null */
  size_t valid_room;
  int64_t nulls;
};
#define MLZ_ARROW_COLUMNS_MAX 24
struct mlz_arrow_batch {
  const struct mlz_arrow_field *fields; /* ended by one without a name */
  size_t n_fields;
  int64_t rows; /* complete ones */
  bool failed;
  struct mlz_arrow_column columns[MLZ_ARROW_COLUMNS_MAX];
};

void mlz_arrow_begin(struct mlz_arrow_batch *b, const struct mlz_arrow_field *fields);
void mlz_arrow_clear(struct mlz_arrow_batch *b);
/* Enough rows for one batch? Keeps the 32-bit offsets far from their end. */
bool mlz_arrow_full(const struct mlz_arrow_batch *b);

/* The value of the next row in column `at`; each column once for a row, then mlz_arrow_row. */
void mlz_arrow_i64(struct mlz_arrow_batch *b, size_t at, int64_t value);
void mlz_arrow_u32(struct mlz_arrow_batch *b, size_t at, uint32_t value);
void mlz_arrow_f64(struct mlz_arrow_batch *b, size_t at, double value);
void mlz_arrow_bool(struct mlz_arrow_batch *b, size_t at, bool value);
void mlz_arrow_text(struct mlz_arrow_batch *b, size_t at, const char *text, size_t n);
void mlz_arrow_named(struct mlz_arrow_batch *b, size_t at, uint8_t place);
void mlz_arrow_u32s(struct mlz_arrow_batch *b, size_t at, const uint32_t *items, size_t n);
void mlz_arrow_null(struct mlz_arrow_batch *b, size_t at);
static inline void mlz_arrow_row(struct mlz_arrow_batch *b) { b->rows++; }

/* Room for `rows` values at once in an I64, U32, F64 or NAMED column of a batch that has no row yet; the caller writes all of them, and sets b->rows. NULL: no memory. */
void *mlz_arrow_fill(struct mlz_arrow_batch *b, size_t at, size_t rows);
/* The same of a BOOL column (*as bits*, all 0), and of which rows are there (all are; the caller clears bits and counts nulls). */
uint8_t *mlz_arrow_fill_bits(struct mlz_arrow_batch *b, size_t at, size_t rows);
uint8_t *mlz_arrow_fill_valid(struct mlz_arrow_batch *b, size_t at, size_t rows);

/* Both are 0 or a positive errno. After mlz_arrow_take the batch is empty, ready for more rows. */
int mlz_arrow_take(struct mlz_arrow_batch *b, struct ArrowArray *out);
int mlz_arrow_schema(const struct mlz_arrow_field *fields, struct ArrowSchema *out);

#endif
