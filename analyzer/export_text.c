/* The output, texts, and the formats that are little more: collapsed stacks and speedscope. */
#include "analyzer/export.h"

#include "analyzer/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

FILE *mlz_export_open(struct mlz_export *e, bool scanned) {
  int status = scanned ? mlz_input_finish(e->in) : 0;
  if (status) exit(status);
  return e->out = mlz_report_open(e->in, e->common);
}

void mlz_export_quoted(FILE *out, const char *text) {
  char *clean = mlz_text_clean(text, false);
  putc('"', out);
  for (const char *p = clean; *p; p++) {
    if (*p == '"' || *p == '\\')
      fprintf(out, "\\%c", *p);
    else if ((unsigned char)*p < 0x20)
      fprintf(out, "\\u%04x", (unsigned)*p);
    else
      putc(*p, out);
  }
  putc('"', out);
  free(clean);
}

void mlz_export_field(FILE *out, const char *text) {
  char *clean = mlz_text_clean(text, true);
  bool quoted = strpbrk(clean, ",\"");
  if (quoted) putc('"', out);
  for (const char *p = clean; *p; p++) {
    if (*p == '"') putc('"', out);
    putc(*p, out);
  }
  if (quoted) putc('"', out);
  free(clean);
}

char *mlz_export_frame_text(const struct mlz_place *place, bool whole) {
  char *where = NULL, *function = mlz_text_clean(place->function, true);
  if (whole && *place->file) {
    char *file = mlz_text_clean(place->file, true);
    where = place->line ? mlz_text_format("%s:%u", file, place->line) : mlz_text_format("%s", file);
    free(file);
  } else {
    where = mlz_place_text(place);
  }
  char *text = *where ? mlz_text_format("%s (%s)", function, where) : mlz_text_format("%s", function);
  free(where);
  free(function);
  return text;
}

char *mlz_export_note(const struct mlz_export *e) {
  const struct mlz_damage *d = mlz_trace_damage(e->in->trace);
  return mlz_text_format("memlyze %s%s%s%s", MLZ_VERSION, e->in->estimated ? "; estimated from a sample" : "",
                         mlz_input_dropped(e->in) ? "; records were lost while recording" : "",
                         d->cut || d->chunks_bad || d->bytes_bad ? "; the trace is damaged" : "");
}

/* ---- collapsed stacks ---- */

static char *collapsed_frame(const struct mlz_place *place) {
  char *text = mlz_export_frame_text(place, false);
  for (char *p = text; (p = strchr(p, ';'));) *p = ',';
  return text;
}

void mlz_export_collapsed(struct mlz_export *e) {
  struct mlz_export_rows r;
  mlz_export_rows_take(e, &r);
  FILE *out = mlz_export_open(e, true);
  char **names = mlz_text_calloc(r.stacks.place_keys.n + 1, sizeof *names);
  for (uint32_t i = 0; i < r.stacks.place_keys.n; i++) names[i] = collapsed_frame(&r.stacks.places[i]);
  for (size_t i = 0; i < r.n; i++) {
    uint32_t n;
    const uint32_t *frames = mlz_export_stack_frames(&r.stacks, r.rows[i].stack, &n);
    long long value = llround(mlz_export_value(&r.rows[i], e->by));
    if (value <= 0) continue;
    while (n--) fprintf(out, "%s%s", names[frames[n]], n ? ";" : "");
    fprintf(out, " %lld\n", value);
  }
  for (uint32_t i = 0; i < r.stacks.place_keys.n; i++) free(names[i]);
  free(names);
  mlz_export_rows_clear(&r);
}

/* ---- speedscope ---- */

static void speedscope_profile(FILE *out, const struct mlz_export_rows *r, enum mlz_metric metric) {
  static const char *const names[] = {"allocated", "allocations", "live", "live at the peak", "temporary allocations"};
  double total = 0;
  fprintf(out, "{\"type\":\"sampled\",\"name\":\"%s\",\"unit\":\"%s\",\"startValue\":0,\"samples\":[", names[metric],
          mlz_metric_counts(metric) ? "none" : "bytes");
  const char *comma = "";
  for (size_t i = 0; i < r->n; i++) {
    uint32_t n;
    const uint32_t *frames = mlz_export_stack_frames(&r->stacks, r->rows[i].stack, &n);
    if (llround(mlz_export_value(&r->rows[i], metric)) <= 0) continue;
    fprintf(out, "%s\n[", comma);
    while (n--) fprintf(out, "%u%s", frames[n], n ? "," : "");
    fputs("]", out);
    comma = ",";
  }
  fputs("],\n\"weights\":[", out);
  comma = "";
  for (size_t i = 0; i < r->n; i++) {
    long long value = llround(mlz_export_value(&r->rows[i], metric));
    if (value <= 0) continue;
    fprintf(out, "%s%lld", comma, value);
    total += (double)value;
    comma = ",";
  }
  fprintf(out, "],\"endValue\":%lld}", llround(total));
}

void mlz_export_speedscope(struct mlz_export *e) {
  struct mlz_export_rows r;
  mlz_export_rows_take(e, &r);
  FILE *out = mlz_export_open(e, true);
  char *command = mlz_input_command(mlz_trace_meta(e->in->trace)), *note = mlz_export_note(e);
  unsigned active = (unsigned)e->by;
  if (!r.has_peak && active > MLZ_BY_PEAK_BYTES) active--;
  fputs("{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\"exporter\":", out);
  mlz_export_quoted(out, note);
  fputs(",\"name\":", out);
  mlz_export_quoted(out, command);
  fprintf(out, ",\"activeProfileIndex\":%u,\n\"shared\":{\"frames\":[", active);
  for (uint32_t i = 0; i < r.stacks.place_keys.n; i++) {
    const struct mlz_place *p = &r.stacks.places[i];
    fputs(i ? ",\n{\"name\":" : "\n{\"name\":", out);
    mlz_export_quoted(out, p->function);
    if (*p->file) fputs(",\"file\":", out), mlz_export_quoted(out, p->file);
    if (p->line) fprintf(out, ",\"line\":%u", p->line);
    fputs("}", out);
  }
  fputs("]},\n\"profiles\":[", out);
  for (int metric = MLZ_BY_ALLOC_BYTES; metric <= MLZ_BY_TEMPORARY; metric++) {
    if (metric == MLZ_BY_PEAK_BYTES && !r.has_peak) continue;
    fputs(metric ? ",\n" : "\n", out);
    speedscope_profile(out, &r, (enum mlz_metric)metric);
  }
  fputs("]}\n", out);
  free(command);
  free(note);
  mlz_export_rows_clear(&r);
}
