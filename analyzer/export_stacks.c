#include "analyzer/export.h"

#include "analyzer/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void mlz_export_stacks_begin(struct mlz_export_stacks *s, struct mlz_input *in) {
  *s = (struct mlz_export_stacks){.in = in};
  s->of_frame = mlz_text_calloc(mlz_trace_frames(in->trace), sizeof *s->of_frame);
  s->of_stack = mlz_text_calloc(mlz_trace_stacks(in->trace), sizeof *s->of_stack);
}

void mlz_export_stacks_clear(struct mlz_export_stacks *s) {
  mlz_intern_clear(&s->place_keys);
  mlz_intern_clear(&s->stack_keys);
  free(s->places);
  free(s->of_frame);
  free(s->of_stack);
  free(s->path);
  *s = (struct mlz_export_stacks){0};
}

/* What a viewer shows of a frame makes it: not its module, nor its language. */
static uint32_t number_of_place(struct mlz_export_stacks *s, const struct mlz_place *p) {
  char *key = mlz_text_format("%s\n%s\n%" PRIu32, p->function, p->file, p->line);
  uint32_t known = s->place_keys.n, number = mlz_intern_text(&s->place_keys, key);
  free(key);
  if (number < known) return number;
  if (number >= s->room_places) {
    s->room_places = s->room_places ? s->room_places * 2 : 256;
    s->places = mlz_text_realloc(s->places, s->room_places, sizeof *s->places);
  }
  s->places[number] = *p;
  return number;
}

static uint32_t number_of_frame(struct mlz_export_stacks *s, uint32_t frame) {
  if (!s->of_frame[frame]) {
    struct mlz_place place = mlz_place_of_frame(s->in, frame);
    s->of_frame[frame] = number_of_place(s, &place) + 1;
  }
  return s->of_frame[frame] - 1;
}

uint32_t mlz_export_stack_number(struct mlz_export_stacks *s, uint32_t stack) {
  static const struct mlz_place cut = {"(outer frames not recorded)", "", "", 0, MLZ_LANG_PYTHON};
  static const struct mlz_place none = {"(no stack)", "", "", 0, MLZ_LANG_NATIVE};
  if (s->of_stack[stack]) return s->of_stack[stack] - 1;
  uint32_t n = 0, depth = 0;
  bool truncated = false;
  const uint32_t *frames = mlz_trace_stack(s->in->trace, stack, &n, &truncated);
  if ((size_t)n + 1 > s->room_path) {
    s->room_path = ((size_t)n + 1) * 2;
    s->path = mlz_text_realloc(s->path, s->room_path, sizeof *s->path);
  }
  for (; depth < n; depth++) s->path[depth] = number_of_frame(s, frames[depth]);
  if (!n || truncated) s->path[depth++] = number_of_place(s, n ? &cut : &none);
  uint32_t number = mlz_intern_key(&s->stack_keys, s->path, depth * sizeof *s->path);
  s->of_stack[stack] = number + 1;
  return number;
}

const uint32_t *mlz_export_stack_frames(const struct mlz_export_stacks *s, uint32_t number, uint32_t *n) {
  size_t size;
  const void *frames = mlz_intern_bytes(&s->stack_keys, number, &size); /* every key is made of whole numbers, so they are aligned */
  *n = (uint32_t)(size / sizeof(uint32_t));
  return frames;
}

/* ---- rows ---- */

static void add_site(struct mlz_export_rows *r, uint32_t *row_of, const struct mlz_site *site) {
  uint32_t number = mlz_export_stack_number(&r->stacks, site->row);
  if (!row_of[number]) {
    r->rows[r->n].stack = number;
    row_of[number] = (uint32_t)++r->n;
  }
  struct mlz_export_row *row = &r->rows[row_of[number] - 1];
  const struct mlz_tally *t = &site->tally;
  row->tally.alloc_count += t->alloc_count;
  row->tally.alloc_bytes += t->alloc_bytes;
  row->tally.free_count += t->free_count;
  row->tally.free_bytes += t->free_bytes;
  row->tally.temp_count += t->temp_count;
  row->tally.temp_bytes += t->temp_bytes;
  row->peak_bytes += site->peak_bytes;
  row->peak_count += site->peak_count;
}

void mlz_export_rows_take(struct mlz_export *e, struct mlz_export_rows *out) {
  struct mlz_tally_run now, at_peak = {0};
  struct mlz_sites sites;
  bool mmap = e->common->include_mmap;
  *out = (struct mlz_export_rows){.has_peak = !e->in->totals_only || e->by == MLZ_BY_PEAK_BYTES};
  mlz_peak_find(e->in, mmap, e->window.to, &out->peak);
  if (out->has_peak) mlz_tally_scan(&at_peak, e->in, MLZ_TALLY_STACK, mmap, e->window.from, &out->peak.cut);
  mlz_tally_scan(&now, e->in, MLZ_TALLY_STACK, mmap, e->window.from, e->window.to);
  mlz_sites_build(e->in, MLZ_GROUP_STACK, e->by, &now, out->has_peak ? &at_peak : NULL, &sites);
  mlz_export_stacks_begin(&out->stacks, e->in);
  out->total = now.total;
  out->rows = mlz_text_calloc(sites.n + 1, sizeof *out->rows);
  uint32_t n = mlz_trace_stacks(e->in->trace), *row_of = mlz_text_calloc(n, sizeof *row_of);
  for (uint32_t i = 0; e->all_stacks && i < n; i++) mlz_export_stack_number(&out->stacks, i);
  for (size_t i = 0; i < sites.n; i++) add_site(out, row_of, &sites.sites[i]);
  free(row_of);
  mlz_sites_clear(&sites);
  mlz_tally_clear(&now);
  mlz_tally_clear(&at_peak);
}

void mlz_export_rows_clear(struct mlz_export_rows *r) {
  mlz_export_stacks_clear(&r->stacks);
  mlz_cut_clear(&r->peak.cut);
  free(r->rows);
  *r = (struct mlz_export_rows){0};
}

double mlz_export_value(const struct mlz_export_row *row, enum mlz_metric metric) {
  double value = mlz_metric_of(&row->tally, row->peak_bytes, metric);
  return value > 0 ? value : 0;
}
