#include "formats/layout.h"

#include "formats/events.h"

#include <xxhash.h>

uint64_t mlz_get_varint_slow(struct mlz_cursor *c) {
  uint64_t v = 0;
  for (unsigned shift = 0; !c->bad && shift < 64; shift += 7) {
    if (c->p >= c->end) break;
    uint8_t byte = *c->p++;
    if (shift == 63 && byte > 1) break;
    v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return v;
  }
  c->bad = true;
  return 0;
}

uint64_t mlz_header_checksum(const void *header, size_t n) { return XXH64(header, n - sizeof(uint64_t), 0); }

uint64_t mlz_chunk_checksum(const struct mlz_chunk_header *h, const void *payload) {
  struct mlz_chunk_header clean = *h;
  clean.checksum = 0;
  uint64_t seed = XXH64(&clean, sizeof clean, 0);
  return XXH64(payload, h->stored, seed);
}

uint8_t *mlz_extent_put(uint8_t *p, const struct mlz_extent *x) {
  p = mlz_put_varint(p, x->process);
  p = mlz_put_varint(p, x->events);
  p = mlz_put_varint(p, x->allocs);
  p = mlz_put_varint(p, x->frees);
  p = mlz_put_varint(p, x->first_alloc);
  p = mlz_put_varint(p, x->first_ns);
  p = mlz_put_varint(p, x->last_ns - x->first_ns);
  p = mlz_put_varint(p, x->points);
  uint32_t alloc = 0;
  uint64_t ns = x->first_ns;
  for (uint32_t i = 0; i < x->points; i++) {
    p = mlz_put_varint(p, x->point_alloc[i] - alloc);
    p = mlz_put_varint(p, x->point_ns[i] - ns);
    alloc = x->point_alloc[i];
    ns = x->point_ns[i];
  }
  return p;
}

bool mlz_extent_get(struct mlz_cursor *c, struct mlz_extent *x) {
  uint64_t process = mlz_get_varint(c), events = mlz_get_varint(c), allocs = mlz_get_varint(c), frees = mlz_get_varint(c);
  uint64_t first_alloc = mlz_get_varint(c), first_ns = mlz_get_varint(c), span = mlz_get_varint(c), points = mlz_get_varint(c);
  if (c->bad || process > UINT32_MAX || events > MLZ_CHUNK_EVENTS_MAX || allocs > events || frees > events - allocs ||
      points > MLZ_POINTS_MAX || first_alloc > INT64_MAX || first_ns > INT64_MAX || span > INT64_MAX - first_ns)
    return false;
  x->process = (uint32_t)process;
  x->events = (uint32_t)events;
  x->allocs = (uint32_t)allocs;
  x->frees = (uint32_t)frees;
  x->first_alloc = first_alloc;
  x->first_ns = first_ns;
  x->last_ns = first_ns + span;
  x->points = (uint32_t)points;
  uint64_t alloc = 0, ns = first_ns;
  for (uint32_t i = 0; i < x->points; i++) {
    uint64_t step_alloc = mlz_get_varint(c), step_ns = mlz_get_varint(c);
    if (c->bad || step_alloc > allocs - alloc || step_ns > x->last_ns - ns) return false;
    alloc += step_alloc;
    ns += step_ns;
    x->point_alloc[i] = (uint32_t)alloc;
    x->point_ns[i] = ns;
  }
  return true;
}
