#include "analyzer/flame.h"

#include "analyzer/text.h"
#include "analyzer/units.h"

#include "flame_script.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 1200, PAD = 10, TOP = 62, ROW = 18, BOX = 17, BOTTOM = 34 };

/* ---- colours ---- */

static uint32_t hash_of(const char *text) {
  uint32_t hash = 2166136261u;
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 16777619u;
  hash ^= hash >> 15;
  hash *= 0x2c1b3c6du;
  return hash ^ hash >> 13;
}

static double channel(double hue, double saturation, double light, double shift) {
  double k = fmod(shift + hue / 30, 12), a = saturation * (light < 0.5 ? light : 1 - light);
  double low = k - 3 < 9 - k ? k - 3 : 9 - k;
  low = low < -1 ? -1 : low > 1 ? 1 : low;
  return light - a * low;
}

/* Warm, and the same for a module in every picture: the module gives the hue, the function a shade of it. Lines that allocate are darker. */
static void module_color(const struct mlz_flame_key *key, char out[8]) {
  const char *module = *key->place.module ? key->place.module : key->place.file;
  double hue = 8 + hash_of(module) % 4000 / 100.0, saturation = 0.82, shade = hash_of(key->place.function) % 100 / 1000.0;
  double light = key->kind == MLZ_FLAME_LEAF ? 0.56 + shade : 0.69 + shade;
  if (key->kind == MLZ_FLAME_ROOT || key->kind == MLZ_FLAME_CUT || key->kind == MLZ_FLAME_NONE) saturation = 0.10, light = 0.80, hue = 40;
  if (key->kind <= MLZ_FLAME_LEAF && key->place.language != MLZ_LANG_PYTHON) hue = 170 + hash_of(module) % 3000 / 100.0, saturation = 0.35;
  int rgb[3];
  for (int i = 0; i < 3; i++) rgb[i] = (int)lround(255 * channel(hue, saturation, light, i == 0 ? 0 : i == 1 ? 8 : 4));
  snprintf(out, 8, "#%02x%02x%02x", rgb[0] & 255, rgb[1] & 255, rgb[2] & 255);
}

/* From a light grey to red or blue by the part of the width that is the difference; small ones are seen, too. */
static void change_color(const struct mlz_flame_node *node, char out[8]) {
  static const int same[] = {226, 221, 213}, grew[] = {226, 62, 44}, shrank[] = {64, 122, 214};
  double part = node->value > 0 ? (node->after - node->before) / node->value : 0, weight = pow(fmin(fabs(part), 1), 0.6);
  int rgb[3];
  for (int i = 0; i < 3; i++) rgb[i] = (int)lround(same[i] + ((part > 0 ? grew : shrank)[i] - same[i]) * weight);
  snprintf(out, 8, "#%02x%02x%02x", rgb[0] & 255, rgb[1] & 255, rgb[2] & 255);
}

/* ---- text ---- */

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash && slash[1] ? slash + 1 : path;
}

/* What stands in the box; the tooltip says the rest. */
static char *label_of(const struct mlz_flame_key *key) {
  char *text = key->kind == MLZ_FLAME_LEAF && *key->place.file
                   ? mlz_text_format("%s %s:%" PRIu32, key->place.function, base_name(key->place.file), key->place.line)
                   : mlz_text_format("%s", key->place.function);
  char *xml = mlz_text_xml(text);
  free(text);
  return xml;
}

/* "1.2 MiB before, 3.4 MiB after: +2.2 MiB" */
static char *change_text(const struct mlz_flame_node *node, const struct mlz_flame_style *style) {
  const char *(*write)(char *, double) = style->counts ? mlz_units_count : mlz_units_size;
  char before[MLZ_UNITS_MAX], after[MLZ_UNITS_MAX], change[MLZ_UNITS_MAX];
  double delta = node->after - node->before;
  return mlz_text_format("%s%s %s before, %s after: %s%s", write(before, node->before), style->counts ? " blocks" : "", style->noun,
                         write(after, node->after), delta >= 0.5 ? "+" : "", write(change, delta));
}

static char *title_of(const struct mlz_flame_key *key, const struct mlz_flame_node *node, double total,
                      const struct mlz_flame_style *style) {
  char size[MLZ_UNITS_MAX], count[MLZ_UNITS_MAX], share[MLZ_UNITS_MAX];
  char *where = *key->place.file ? key->place.line ? mlz_text_format(" (%s:%" PRIu32 ")", key->place.file, key->place.line)
                                                   : mlz_text_format(" (%s)", key->place.file)
                                 : mlz_text_format("%s", "");
  /* A line break parts the name from the figures; one within the name would be mistaken for it. */
  char *name = mlz_text_format("%s%s", key->place.function, where), *clean = mlz_text_xml(name);
  char *change = style->compares ? change_text(node, style) : NULL;
  mlz_units_percent(share, node->value, total);
  char *out = change          ? mlz_text_format("%s\n%s", clean, change)
              : style->counts ? mlz_text_format("%s\n%s blocks %s, %s", clean, mlz_units_count(count, node->value), style->noun, share)
                              : mlz_text_format("%s\n%s %s in %s blocks, %s", clean, mlz_units_size(size, node->value), style->noun,
                                                mlz_units_count(count, node->count), share);
  free(where);
  free(name);
  free(clean);
  free(change);
  return out;
}

/* ---- drawing ---- */

static void draw_head(const struct mlz_flame_style *style, unsigned height, FILE *out) {
  char *title = mlz_text_xml(style->title), *subtitle = mlz_text_xml(style->subtitle);
  fprintf(out,
          "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n"
          "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"%d\" height=\"%u\" viewBox=\"0 0 %d %u\" data-icicle=\"%d\" "
          "role=\"img\" aria-label=\"%s\">\n",
          WIDTH, height, WIDTH, height, style->icicle, title);
  fputs("<style>\n"
        "text { font-family: 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace; font-size: 12px; fill: #1b1b1b; }\n"
        "#title { font-family: 'DejaVu Sans', Verdana, Helvetica, sans-serif; font-size: 17px; text-anchor: middle; font-weight: bold; }\n"
        "#subtitle { font-family: 'DejaVu Sans', Verdana, Helvetica, sans-serif; text-anchor: middle; fill: #6b6256; }\n"
        "#background, .bar { fill: #fffbf4; }\n"
        "#frames rect { stroke: #fffbf4; stroke-width: 1px; }\n"
        "#frames > svg.thin rect { stroke: none; }\n"
        "#frames text { pointer-events: none; }\n"
        ".button { fill: #8a5a2b; opacity: 0; }\n"
        ".live .button { opacity: 1; cursor: pointer; }\n"
        ".button:hover { text-decoration: underline; }\n"
        ".live .button.hidden, .hidden { display: none; }\n"
        "#search, #case, #matched { text-anchor: end; }\n"
        "#case.on { font-weight: bold; fill: #b00060; }\n"
        "#matched { fill: #b00060; }\n"
        ".live #frames > svg { cursor: pointer; }\n"
        "#frames > svg:hover rect { stroke: #3a2a10; }\n"
        "#frames > svg.focus rect { stroke: #0b57d0; stroke-width: 2px; }\n"
        "#frames > svg.above { opacity: 0.55; }\n"
        ".searching #frames > svg rect { fill-opacity: 0.45; }\n"
        "#frames > svg.hit rect { fill: #d44ad8; fill-opacity: 1; }\n"
        "#box rect { fill: #ffffff; stroke: #b00060; }\n"
        "#probe { visibility: hidden; }\n"
        "@media (prefers-color-scheme: dark) {\n"
        "  .live #background, .live .bar { fill: #1e1d1b; }\n"
        "  .live #title, .live #details { fill: #ece7df; }\n"
        "  .live #subtitle { fill: #a49c90; }\n"
        "  .live .button { fill: #e0a566; }\n"
        "  .live #matched, .live #case.on { fill: #ff7ac0; }\n"
        "  .live #frames rect { stroke: #1e1d1b; }\n"
        "}\n"
        "</style>\n",
        out);
  fprintf(out,
          "<rect id=\"background\" width=\"100%%\" height=\"100%%\"/>\n"
          "<text id=\"title\" x=\"%d\" y=\"25\">%s</text>\n"
          "<text id=\"subtitle\" x=\"%d\" y=\"45\">%s</text>\n"
          "<text id=\"reset\" class=\"button hidden\" x=\"%d\" y=\"25\">Reset zoom</text>\n"
          "<text id=\"search\" class=\"button\" x=\"%d\" y=\"25\">Search<title>Search with a regular expression (Ctrl-F)</title></text>\n"
          "<text id=\"case\" class=\"button\" x=\"%d\" y=\"25\">Aa<title>Ignore case (i)</title></text>\n"
          "<text id=\"probe\" x=\"0\" y=\"0\">abcdefghijklmnopqrstuvwxyz</text>\n",
          WIDTH / 2, title, WIDTH / 2, subtitle, PAD, WIDTH - PAD, WIDTH - PAD - 62);
  free(title);
  free(subtitle);
}

static void draw_node(const struct mlz_flame *f, const struct mlz_flame_style *style, uint32_t i, FILE *out) {
  const struct mlz_flame_node *node = &f->nodes[i];
  const struct mlz_flame_key *key = &f->keys[node->key];
  double total = f->nodes[0].value;
  unsigned row = style->icicle ? node->depth : f->depth - node->depth;
  char color[8], *label = label_of(key), *title = title_of(key, node, total, style);
  if (style->compares)
    change_color(node, color);
  else
    module_color(key, color);
  fprintf(out,
          "<svg x=\"%.4f%%\" y=\"%u\" width=\"%.4f%%\" height=\"%d\"%s data-x=\"%.10g\" data-w=\"%.10g\" data-d=\"%u\" data-p=\"%u\">"
          "<title>%s</title><rect width=\"100%%\" height=\"%d\" rx=\"2\" fill=\"%s\"/><text x=\"4\" y=\"13\">%s</text></svg>\n",
          100 * node->x / total, row * ROW, 100 * node->value / total, BOX,
          node->value / total * (WIDTH - 2 * PAD) < 3 ? " class=\"thin\"" : "", node->x / total, node->value / total, node->depth,
          node->parent, title, BOX, color, label);
  free(label);
  free(title);
}

static void draw_tail(const struct mlz_flame_style *style, bool reversed, unsigned height, FILE *out) {
  fprintf(out,
          "</svg>\n"
          "<text id=\"details\" x=\"%d\" y=\"%u\">The wider, the more %s%s; callers stand %s.</text>\n"
          "<text id=\"matched\" x=\"%d\" y=\"45\"></text>\n"
          "<g id=\"box\" class=\"hidden\"><rect x=\"%d\" y=\"8\" width=\"480\" height=\"26\" rx=\"3\"/><text id=\"query\" x=\"%d\" "
          "y=\"25\"></text></g>\n"
          "<script type=\"text/ecmascript\"><![CDATA[\n",
          PAD, height - 12, style->counts ? "blocks" : "memory", style->compares ? " before or after, whichever is more" : "",
          style->icicle != reversed ? "above" : "below", WIDTH - PAD, PAD, PAD + 8);
  fputs(flame_script, out);
  fputs("]]></script>\n</svg>\n", out);
}

void mlz_flame_draw(const struct mlz_flame *f, const struct mlz_flame_style *style, FILE *out) {
  unsigned height = TOP + (f->depth + 1) * ROW + BOTTOM;
  draw_head(style, height, out);
  fprintf(out, "<svg id=\"frames\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%u\" data-total=\"%.0f\">\n", PAD, TOP, WIDTH - 2 * PAD,
          (f->depth + 1) * ROW, f->nodes[0].value);
  if (f->nodes[0].value > 0)
    for (size_t i = 0; i < f->n_nodes; i++) draw_node(f, style, (uint32_t)i, out);
  else
    fputs("<svg x=\"0%\" y=\"0\" width=\"100%\" height=\"17\" data-x=\"0\" data-w=\"1\" data-d=\"0\" data-p=\"0\"><title>nothing</title>"
          "<rect width=\"100%\" height=\"17\" rx=\"2\" fill=\"#d5d0c8\"/><text x=\"4\" y=\"13\">nothing to show</text></svg>\n",
          out);
  draw_tail(style, f->reversed, height, out);
}
