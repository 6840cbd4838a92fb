/* Reads all Arrow tables of a trace as a consumer does, and holds what comes against the interface's rules: for tests and the fuzz target. */
#ifndef MLZ_TESTS_ARROW_DRAIN_H
#define MLZ_TESTS_ARROW_DRAIN_H

#include "analyzer/arrow.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARROW_MUST(what)                                                                                                                   \
  do {                                                                                                                                     \
    if (!(what)) {                                                                                                                         \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                                           \
      abort();                                                                                                                             \
    }                                                                                                                                      \
  } while (0)

static inline bool arrow_bit(const void *bits, int64_t at) { return ((const uint8_t *)bits)[at / 8] >> (at % 8) & 1; }

static inline void arrow_check_array(const struct ArrowSchema *s, const struct ArrowArray *a) {
  int64_t nulls = 0;
  ARROW_MUST(a->release && s->release && a->length >= 0 && a->offset == 0 && a->n_children == s->n_children);
  if (a->buffers[0])
    for (int64_t i = 0; i < a->length; i++) nulls += !arrow_bit(a->buffers[0], i);
  ARROW_MUST(nulls == a->null_count && (!nulls || (s->flags & ARROW_FLAG_NULLABLE)));
  if (!strcmp(s->format, "+s")) {
    ARROW_MUST(a->n_buffers == 1);
    for (int64_t i = 0; i < a->n_children; i++) {
      ARROW_MUST(a->children[i]->length == a->length);
      arrow_check_array(s->children[i], a->children[i]);
    }
  } else if (!strcmp(s->format, "u") || !strcmp(s->format, "+l")) {
    const int32_t *ends = a->buffers[1];
    bool list = *s->format == '+';
    ARROW_MUST(a->n_buffers == (list ? 2 : 3) && ends && ends[0] == 0);
    for (int64_t i = 0; i < a->length; i++) ARROW_MUST(ends[i] <= ends[i + 1]);
    if (list) {
      ARROW_MUST(a->n_children == 1 && ends[a->length] == a->children[0]->length);
      arrow_check_array(s->children[0], a->children[0]);
    }
  } else {
    ARROW_MUST(a->n_buffers == 2 && a->buffers[1]);
    if (s->dictionary) {
      ARROW_MUST(a->dictionary && !strcmp(s->format, "c"));
      for (int64_t i = 0; i < a->length; i++)
        ARROW_MUST(((const int8_t *)a->buffers[1])[i] >= 0 && ((const int8_t *)a->buffers[1])[i] < a->dictionary->length);
      arrow_check_array(s->dictionary, a->dictionary);
    }
  }
}

/* Rows of a table; -1: an error, which had a text. */
static inline int64_t arrow_drain(struct memlyze_read *r, int table) {
  struct ArrowArrayStream stream;
  struct ArrowSchema schema;
  char err[256] = "";
  int64_t rows = 0;
  if (memlyze_read_stream(r, table, &stream, err, sizeof err)) {
    ARROW_MUST(err[0]);
    return -1;
  }
  ARROW_MUST(stream.get_schema(&stream, &schema) == 0);
  for (;;) {
    struct ArrowArray batch;
    if (stream.get_next(&stream, &batch)) {
      ARROW_MUST(stream.get_last_error(&stream));
      rows = -1;
      break;
    }
    if (!batch.release) break;
    arrow_check_array(&schema, &batch);
    ARROW_MUST(batch.length > 0);
    rows += batch.length;
    if (batch.n_children > 1 && rows % 2) { /* a consumer may keep one column and let go of the others */
      struct ArrowArray kept = *batch.children[1];
      batch.children[1]->release = NULL;
      batch.release(&batch);
      ARROW_MUST(!batch.release && kept.length > 0);
      kept.release(&kept);
    } else {
      batch.release(&batch);
    }
  }
  schema.release(&schema);
  stream.release(&stream);
  ARROW_MUST(!stream.release && !schema.release);
  return rows;
}

/* All tables; the rows of each. false: the file cannot be opened. */
static inline bool arrow_drain_all(const char *path, int64_t rows[MEMLYZE_TABLES]) {
  struct memlyze_read *r;
  char err[256] = "";
  if (memlyze_read_open(&r, path, err, sizeof err)) {
    ARROW_MUST(err[0] && !strchr(err, '\n'));
    return false;
  }
  for (int table = 0; table < MEMLYZE_TABLES; table++) {
    uint64_t known;
    rows[table] = arrow_drain(r, table);
    if (rows[table] >= 0 && table != MEMLYZE_TOTALS)
      ARROW_MUST(memlyze_read_rows(r, table, &known, err, sizeof err) == 0 && known == (uint64_t)rows[table]);
  }
  char *json = memlyze_read_json(r);
  ARROW_MUST(json && *json == '{');
  memlyze_read_free(json);
  memlyze_read_close(r);
  return true;
}

#endif
