#include "analyzer/sites.h"

#include "analyzer/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum mlz_tally_key mlz_group_key(enum mlz_group group) {
  switch (group) {
  case MLZ_GROUP_THREAD:
    return MLZ_TALLY_THREAD;
  case MLZ_GROUP_PROCESS:
    return MLZ_TALLY_PROCESS;
  case MLZ_GROUP_DOMAIN:
    return MLZ_TALLY_DOMAIN;
  default:
    return MLZ_TALLY_STACK;
  }
}

double mlz_tally_live_bytes(const struct mlz_tally *t) {
  double live = t->alloc_bytes - t->free_bytes;
  return live > 0.5 ? live : 0;
}

double mlz_metric_of(const struct mlz_tally *t, double peak_bytes, enum mlz_metric metric) {
  switch (metric) {
  case MLZ_BY_ALLOC_BYTES:
    return t->alloc_bytes;
  case MLZ_BY_ALLOC_COUNT:
    return t->alloc_count;
  case MLZ_BY_LIVE_BYTES:
    return mlz_tally_live_bytes(t);
  case MLZ_BY_PEAK_BYTES:
    return peak_bytes;
  case MLZ_BY_TEMPORARY:
    return t->temp_count;
  }
  return 0;
}

double mlz_metric_error(const struct mlz_spread *spread, const struct mlz_spread *peak, enum mlz_metric metric) {
  switch (metric) {
  case MLZ_BY_ALLOC_BYTES:
    return mlz_spread_alloc_bytes_error(spread);
  case MLZ_BY_ALLOC_COUNT:
    return mlz_spread_alloc_count_error(spread);
  case MLZ_BY_LIVE_BYTES:
    return mlz_spread_live_bytes_error(spread);
  case MLZ_BY_PEAK_BYTES:
    return mlz_spread_live_bytes_error(peak);
  case MLZ_BY_TEMPORARY:
    return mlz_spread_temp_count_error(spread);
  }
  return 0;
}

/* ---- grouping ---- */

struct key {
  const char *text[2]; /* by content: two ids may hold the same string */
  uint64_t number;
};

/* What a stack shows, which other stacks may show too: --python leaves frames out. */
static uint64_t shown(const struct mlz_input *in, uint32_t row) {
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(in->trace, row, &n, &truncated);
  return XXH64(frames, n * sizeof *frames, truncated);
}

static struct key key_of(struct mlz_input *in, enum mlz_group group, uint32_t row) {
  if (group == MLZ_GROUP_STACK && in->python) return (struct key){{"", ""}, shown(in, row)};
  if (group >= MLZ_GROUP_STACK) return (struct key){{"", ""}, row};
  struct mlz_place p = mlz_place_of_stack(in, row);
  switch (group) {
  case MLZ_GROUP_FILE:
    return (struct key){{p.file, ""}, 0};
  case MLZ_GROUP_MODULE:
    return (struct key){{*p.module ? p.module : p.file, ""}, 0};
  case MLZ_GROUP_FUNCTION:
    return (struct key){{p.function, p.file}, 0};
  default:
    return (struct key){{p.function, p.file}, p.line};
  }
}

static uint64_t hash_text(uint64_t hash, const char *text) {
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
  return hash * UINT64_C(0x9e3779b97f4a7c15);
}
static uint64_t hash_key(const struct key *k) {
  uint64_t hash = hash_text(hash_text(UINT64_C(0xcbf29ce484222325) ^ k->number * UINT64_C(0xff51afd7ed558ccd), k->text[0]), k->text[1]);
  return hash ^ hash >> 29;
}
static bool same_key(const struct key *a, const struct key *b) {
  return a->number == b->number && !strcmp(a->text[0], b->text[0]) && !strcmp(a->text[1], b->text[1]);
}

static void add_row(struct mlz_site *site, const struct mlz_tally_run *now, const struct mlz_tally_run *at_peak, enum mlz_metric metric,
                    uint32_t row) {
  const struct mlz_tally *t = &now->rows[row], *peak = at_peak && row < at_peak->n ? &at_peak->rows[row] : NULL;
  double peak_bytes = peak ? mlz_tally_live_bytes(peak) : 0;
  double weight = mlz_metric_of(t, peak_bytes, metric);
  site->tally.alloc_count += t->alloc_count;
  site->tally.alloc_bytes += t->alloc_bytes;
  site->tally.free_count += t->free_count;
  site->tally.free_bytes += t->free_bytes;
  site->tally.temp_count += t->temp_count;
  site->tally.temp_bytes += t->temp_bytes;
  site->peak_bytes += peak_bytes;
  if (peak) site->peak_count += peak->alloc_count - peak->free_count;
  if (weight > site->weight) site->row = row, site->weight = weight;
  if (!now->n_spreads) return;
  struct mlz_spread spread = mlz_tally_spread(now, row);
  mlz_spread_join(&site->spread, &spread);
  if (!at_peak) return;
  spread = mlz_tally_spread(at_peak, row);
  mlz_spread_join(&site->peak_spread, &spread);
}

static enum mlz_metric sort_metric;
static int compare_sites(const void *a, const void *b) {
  const struct mlz_site *x = a, *y = b;
  double mx = mlz_metric_of(&x->tally, x->peak_bytes, sort_metric), my = mlz_metric_of(&y->tally, y->peak_bytes, sort_metric);
  if (mx != my) return mx > my ? -1 : 1;
  if (x->tally.alloc_bytes != y->tally.alloc_bytes) return x->tally.alloc_bytes > y->tally.alloc_bytes ? -1 : 1;
  return x->row < y->row ? -1 : x->row > y->row;
}

void mlz_sites_build(struct mlz_input *in, enum mlz_group group, enum mlz_metric metric, const struct mlz_tally_run *now,
                     const struct mlz_tally_run *peak, struct mlz_sites *out) {
  const struct mlz_tally *rows = now->rows;
  size_t n = now->n, table_size = 64;
  while (table_size < n * 2) table_size *= 2;
  uint32_t *table = mlz_text_calloc(table_size, sizeof *table);
  struct key *keys = NULL;
  size_t room = 0;
  *out = (struct mlz_sites){.group = group};
  for (size_t row = 0; row < n; row++) {
    if (!(rows[row].alloc_count > 0) && !(rows[row].free_count > 0)) continue;
    struct key key = key_of(in, group, (uint32_t)row);
    uint64_t at = hash_key(&key);
    while (table[at & (table_size - 1)] && !same_key(&keys[table[at & (table_size - 1)] - 1], &key)) at++;
    uint32_t *slot = &table[at & (table_size - 1)];
    if (!*slot) {
      if (out->n == room) {
        room = room ? room * 2 : 256;
        out->sites = mlz_text_realloc(out->sites, room, sizeof *out->sites);
        keys = mlz_text_realloc(keys, room, sizeof *keys);
      }
      keys[out->n] = key;
      out->sites[out->n++] = (struct mlz_site){.row = (uint32_t)row, .weight = 0};
      *slot = (uint32_t)out->n;
    }
    add_row(&out->sites[*slot - 1], now, peak, metric, (uint32_t)row);
  }
  for (size_t i = 0; i < out->n; i++) {
    struct mlz_site *site = &out->sites[i];
    if (group == MLZ_GROUP_DOMAIN && site->row == MLZ_BLOCK_MMAP) continue;
    mlz_spread_floor(&site->spread, &now->total_spread);
    if (peak) mlz_spread_floor(&site->peak_spread, &now->total_spread);
  }
  free(keys);
  free(table);
  sort_metric = metric;
  if (out->n) qsort(out->sites, out->n, sizeof *out->sites, compare_sites);
}

void mlz_sites_clear(struct mlz_sites *sites) {
  free(sites->sites);
  *sites = (struct mlz_sites){0};
}

/* ---- names ---- */

static const char *const domains[] = {"raw", "mem", "obj", "malloc", "mmap"};
static const char *const domain_notes[] = {"Python's raw domain (PyMem_RawMalloc)", "Python's mem domain (PyMem_Malloc)",
                                           "Python's object domain (PyObject_Malloc)", "the C library's malloc family",
                                           "address space reserved by mmap"};

static const json_t *thread_row(const struct mlz_input *in, uint32_t id) {
  size_t n = mlz_trace_threads(in->trace);
  for (size_t i = 0; i < n; i++)
    if (mlz_input_uint(mlz_trace_thread(in->trace, i), "id", UINT64_MAX) == id) return mlz_trace_thread(in->trace, i);
  return NULL;
}

void mlz_site_label(struct mlz_input *in, enum mlz_group group, const struct mlz_site *site, char **name, char **where) {
  struct mlz_place p;
  switch (group) {
  case MLZ_GROUP_THREAD: {
    const json_t *row = thread_row(in, site->row);
    *name = mlz_text_clean(*mlz_input_text(row, "name") ? mlz_input_text(row, "name") : "(no name)", true);
    *where = mlz_text_format("tid %" PRIu64, mlz_input_uint(row, "tid", 0));
    return;
  }
  case MLZ_GROUP_PROCESS:
    *name = mlz_text_format("%" PRId64, in->processes[site->row]->pid);
    *where = mlz_text_format("%s", in->processes[site->row]->command);
    return;
  case MLZ_GROUP_DOMAIN:
    *name = mlz_text_format("%s", domains[site->row]);
    *where = mlz_text_format("%s", domain_notes[site->row]);
    return;
  default:
    break;
  }
  p = mlz_place_of_stack(in, site->row);
  if (group == MLZ_GROUP_FUNCTION || group == MLZ_GROUP_FILE || group == MLZ_GROUP_MODULE) p.line = 0;
  *where = mlz_place_text(&p);
  *name = group == MLZ_GROUP_MODULE ? mlz_text_clean(*p.module ? p.module : "(no module)", true) : mlz_place_name(&p);
  if (group != MLZ_GROUP_FILE) return;
  free(*name);
  *name = **where ? *where : mlz_text_format("(no stack)");
  if (**where) *where = mlz_text_format("%s", "");
}

void mlz_site_add_json(struct mlz_input *in, enum mlz_group group, const struct mlz_site *site, json_t *object) {
  if (group == MLZ_GROUP_THREAD) {
    const json_t *row = thread_row(in, site->row);
    json_object_set_new(object, "name", mlz_json_text(mlz_input_text(row, "name")));
    json_object_set_new(object, "tid", json_integer((json_int_t)mlz_input_uint(row, "tid", 0)));
    return;
  }
  if (group == MLZ_GROUP_PROCESS) {
    json_object_set_new(object, "pid", json_integer(in->processes[site->row]->pid));
    json_object_set_new(object, "command", mlz_json_text(in->processes[site->row]->command));
    return;
  }
  if (group == MLZ_GROUP_DOMAIN) {
    json_object_set_new(object, "name", json_string(domains[site->row]));
    return;
  }
  mlz_json_add_site(in, object, site->row);
  if (group == MLZ_GROUP_FILE || group == MLZ_GROUP_MODULE || group == MLZ_GROUP_FUNCTION)
    json_object_set_new(object, "line", json_integer(0));
  if (group == MLZ_GROUP_FILE || group == MLZ_GROUP_MODULE) json_object_set_new(object, "function", json_string(""));
  if (group == MLZ_GROUP_MODULE) json_object_set_new(object, "module", mlz_json_text(mlz_place_of_stack(in, site->row).module));
}
