/* The Arrow C data interface and C stream interface, as https://arrow.apache.org/docs/format/CDataInterface.html and CStreamInterface.html lay them
 * down: the structs and the names are theirs, shared with whoever reads what we hand out (pyarrow, polars, DuckDB). */
#ifndef MLZ_ANALYZER_ARROW_ABI_H
#define MLZ_ANALYZER_ARROW_ABI_H

#include <stdint.h>

#define ARROW_FLAG_NULLABLE 2

struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *); /* NULL: released, or moved elsewhere */
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};

struct ArrowArrayStream {
  int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out); /* 0, or a positive errno */
  int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);    /* the same; at the end *out is released */
  const char *(*get_last_error)(struct ArrowArrayStream *);
  void (*release)(struct ArrowArrayStream *);
  void *private_data;
};

#endif
