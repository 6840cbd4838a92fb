/* TOTALS chunks: encoded at once, on the drain thread; compressed with the tables. */
#include "formats/layout.h"
#include "formats/tables.h"
#include "formats/totals.h"

#include <errno.h>
#include <stdlib.h>

static bool put(struct mlz_buffer *out, uint64_t v) {
  uint8_t *p = mlz_buffer_room(out, MLZ_VARINT_MAX);
  if (p == NULL) return false;
  out->size = (size_t)(mlz_put_varint(p, v) - out->data);
  return true;
}

static bool put_head(struct mlz_buffer *out, const struct mlz_totals_head *h, uint32_t part, unsigned flags) {
  const uint64_t fields[] = {h->process,     part,          flags,      h->point,          h->name,        h->ns,     h->events,
                             h->allocations, h->peak_bytes, h->peak_ns, h->all_peak_bytes, h->all_peak_ns, h->foreign};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
    if (!put(out, fields[i])) return false;
  return true;
}

/* The place of the weight in the list, which grows by it if it is new. UINT32_MAX: out of memory. */
static uint32_t weight_place(struct mlz_buffer *list, double weight) {
  uint32_t n = (uint32_t)(list->size / sizeof weight);
  for (uint32_t i = n; i-- > 0;) /* neighbours have the same one */
    if (memcmp(list->data + i * sizeof weight, &weight, sizeof weight) == 0) return i;
  uint8_t *p = mlz_buffer_room(list, sizeof weight);
  if (p == NULL) return UINT32_MAX;
  memcpy(p, &weight, sizeof weight);
  list->size += sizeof weight;
  return n;
}

static bool put_new(struct mlz_buffer *out, const struct mlz_totals_key *rows, uint32_t n) {
  struct mlz_buffer weights = {0}, kinds = {0};
  bool ok = true;
  for (uint32_t i = 0; i < n && ok; i++) {
    uint32_t place = weight_place(&weights, rows[i].weight);
    ok = place != UINT32_MAX && put(&kinds, (uint64_t)place * 8 + rows[i].domain);
  }
  ok = ok && put(out, weights.size / sizeof(double));
  uint8_t *p = ok ? mlz_buffer_room(out, weights.size + kinds.size + MLZ_VARINT_MAX) : NULL;
  if (p != NULL && weights.size != 0) memcpy(p, weights.data, weights.size);
  if (p != NULL) out->size += weights.size;
  ok = p != NULL && put(out, n);
  uint32_t previous = 0;
  for (uint32_t i = 0; i < n && ok; previous = rows[i++].stack) ok = put(out, mlz_zigzag((int64_t)rows[i].stack - previous));
  p = ok ? mlz_buffer_room(out, kinds.size + 1) : NULL;
  if (p != NULL && kinds.size != 0) memcpy(p, kinds.data, kinds.size);
  if (p != NULL) out->size += kinds.size;
  free(weights.data);
  free(kinds.data);
  return p != NULL;
}

/* Most blocks of a row have one size, and nearly all that are allocated are freed. */
static uint64_t difference(const uint64_t *by, unsigned field, uint64_t size) {
  switch (field) {
  case MLZ_TOTAL_ALLOC_BYTES:
    return by[field] - by[MLZ_TOTAL_ALLOCS] * size;
  case MLZ_TOTAL_FREES:
    return by[MLZ_TOTAL_ALLOCS] - by[field];
  case MLZ_TOTAL_FREE_BYTES:
    return by[MLZ_TOTAL_ALLOC_BYTES] - by[field] - (by[MLZ_TOTAL_ALLOCS] - by[MLZ_TOTAL_FREES]) * size;
  case MLZ_TOTAL_TEMP_BYTES:
    return by[field] - by[MLZ_TOTAL_TEMPS] * size;
  default:
    return by[field];
  }
}

static bool put_changes(struct mlz_buffer *out, const struct mlz_totals_change *changes, uint32_t n, const uint64_t *largest) {
  bool ok = put(out, n);
  uint32_t next = 0;
  for (uint32_t i = 0; i < n && ok; next = changes[i++].row + 1) ok = put(out, changes[i].row - next);
  for (unsigned field = 0; field < MLZ_TOTALS; field++)
    for (uint32_t i = 0; i < n && ok; i++)
      ok = put(out, mlz_zigzag((int64_t)(largest == NULL ? changes[i].by[field] : difference(changes[i].by, field, largest[i]))));
  return ok;
}

int mlz_tables_totals(struct mlz_tables *t, const struct mlz_totals_head *h, uint32_t *part, bool base, const struct mlz_totals_key *rows,
                      uint32_t n_rows, const struct mlz_totals_change *changes, uint32_t n) {
  struct mlz_buffer *out = &t->totals;
  uint32_t at = 0;
  if (n_rows > MLZ_TOTALS_NEW_MAX) {
    ++*part; /* what follows tells nothing either */
    return -EFBIG;
  }
  do {
    uint32_t some = n - at < MLZ_TABLE_ROWS_MAX ? n - at : MLZ_TABLE_ROWS_MAX;
    struct mlz_chunk_header c = {.magic = MLZ_CHUNK_MAGIC, .kind = MLZ_C_TOTALS, .count = some};
    size_t begin = out->size;
    unsigned flags = (base && at == 0 ? MLZ_TOTALS_BASE : 0u) | (at + some < n ? MLZ_TOTALS_MORE : 0u) | (h->close ? MLZ_TOTALS_CLOSE : 0u);
    bool ok = mlz_buffer_room(out, sizeof c) != NULL;
    if (ok) out->size += sizeof c;
    ok = ok && put_head(out, h, (*part)++, flags) && put_new(out, rows, at == 0 ? n_rows : 0) &&
         put_changes(out, changes + at, some, h->close ? h->largest + at : NULL);
    size_t bytes = ok ? out->size - begin - sizeof c : 0;
    if (!ok || bytes > MLZ_CHUNK_RAW_MAX) { /* what follows it tells nothing up to the next base */
      out->size = begin;
      return ok ? -EFBIG : (t->error = -ENOMEM);
    }
    c.stored = c.raw = (uint32_t)bytes;
    memcpy(out->data + begin, &c, sizeof c);
    at += some;
  } while (at < n);
  return 0;
}
