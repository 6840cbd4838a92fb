/* memlyze-flame: a flame graph as SVG. */
#include "analyzer/flame.h"
#include "analyzer/measure.h"
#include "analyzer/names.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  int by;
  const char *at, *from, *to, *title, *diff, *root;
  bool inverted, reverse;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"by", 0, MLZ_OPT_CHOICE, MLZ_METRIC_CHOICES, "what the widths are (default alloc-bytes; live-bytes if --diff compares a trace @TIME)",
     AT(by)},
    {"at", 0, MLZ_OPT_TEXT, "TIME", "live blocks as they stood at TIME (default: end); nothing later counts", AT(at)},
    {"from", 0, MLZ_OPT_TEXT, "TIME", "only blocks allocated after TIME", AT(from)},
    {"to", 0, MLZ_OPT_TEXT, "TIME", "only what happened until TIME", AT(to)},
    {"inverted", 0, MLZ_OPT_FLAG, NULL, "icicle: the root at the top", AT(inverted)},
    {"reverse", 0, MLZ_OPT_FLAG, NULL, "begin with the allocating lines, their callers upon them", AT(reverse)},
    {"root", 0, MLZ_OPT_TEXT, "RE",
     "leave out what calls the outermost frame whose \"module.function file:line\" matches the POSIX extended regular expression",
     AT(root)},
    {"diff", 0, MLZ_OPT_TEXT, "BASE",
     "compare with BASE (old.mlyze, old.mlyze@TIME, or @TIME of the same trace): red is more than there, blue less; a stack is as wide as "
     "the larger of both",
     AT(diff)},
    {"title", 0, MLZ_OPT_TEXT, "TEXT", "the title (default: the command)", AT(title)},
    MLZ_SYMBOLS_OPTION,
    MLZ_PYTHON_OPTION,
    {NULL, 0, 0, NULL, NULL, 0},
};
static const struct mlz_tool tool = {
    .name = "flame",
    .purpose = "A flame graph of the stacks as one SVG file, on standard output.",
    .options = options,
    .has_json = false,
    .notes = "In the picture: a click zooms, Ctrl-F or / searches (a regular expression), i\n"
             "ignores case, arrows and Enter move and zoom, Escape and r go back; the address\n"
             "keeps the state. Inner frames are functions, the allocating ones are lines.\n" MLZ_TIME_NOTE,
};

/* Narrower boxes could not be seen at twice the usual width, and would make the file large. */
#define LEAST_SHARE 0.0002

static const char *const nouns[] = {"allocated", "allocated", "live", "live at the peak", "temporary"};

static void build(struct mlz_input *in, const struct settings *s, struct mlz_flame *f, const struct mlz_measure *m) {
  struct mlz_select root;
  mlz_flame_begin(f, s->reverse);
  mlz_select_begin(&root, in, s->root);
  if (s->root) f->root = &root;
  for (size_t i = 0; i < m->run.n; i++) {
    struct mlz_amount a = mlz_measure_row(m, i);
    if (a.value > 0)
      mlz_flame_add(f, in, (uint32_t)i, a.value, a.count);
    else
      f->nodes[0].count += a.count; /* blocks of no bytes: no box, but the total is that of the other tools */
  }
  f->root = NULL;
  mlz_select_clear(&root);
  mlz_flame_layout(f, LEAST_SHARE);
}

/* `match` outlives the drawing: keys of the tree are its traces' texts. */
static void build_comparison(const struct settings *s, struct mlz_flame *f, const struct mlz_match *match, const struct mlz_measure *m) {
  struct mlz_select root;
  mlz_flame_begin(f, s->reverse);
  mlz_select_begin(&root, match->in[MLZ_BEFORE], s->root);
  if (s->root) f->root = &root;
  for (int side = 0; side < MLZ_SIDES; side++)
    for (size_t i = 0; i < m[side].run.n; i++) {
      struct mlz_amount a = mlz_measure_row(&m[side], i);
      if (a.value > 0) mlz_flame_add_side(f, match, (enum mlz_side)side, (uint32_t)i, a.value);
    }
  f->root = NULL;
  mlz_select_clear(&root);
  mlz_flame_compare(f);
  mlz_flame_layout(f, LEAST_SHARE);
}

static char *subtitle_of(struct mlz_input *in, const struct settings *s, const struct mlz_flame *f, const struct mlz_measure *m) {
  char size[MLZ_UNITS_MAX], count[MLZ_UNITS_MAX], time[MLZ_UNITS_MAX];
  const struct mlz_flame_node *root = &f->nodes[0];
  bool counts = s->by == MLZ_BY_ALLOC_COUNT || s->by == MLZ_BY_TEMPORARY;
  const char *when = s->from || s->to || s->at || in->mark ? " in the window" : "";
  if (counts)
    return mlz_text_format("%s blocks %s%s%s", mlz_units_count(count, root->value), nouns[s->by], when,
                           in->estimated ? " (estimated)" : "");
  char *at =
      s->by == MLZ_BY_PEAK_BYTES ? mlz_text_format(" (%s)", mlz_units_time(time, (double)m->peak.time_ns)) : mlz_text_format("%s", when);
  char *out = mlz_text_format("%s %s%s in %s blocks%s", mlz_units_size(size, root->value), nouns[s->by], at,
                              mlz_units_count(count, root->count), in->estimated ? " (estimated)" : "");
  free(at);
  return out;
}

static char *place_text(const struct mlz_input *in) {
  return in->mark ? mlz_text_format("%s at %s", in->path, in->mark) : mlz_text_format("%s", in->path);
}

/* "live: 1.2 MiB in old.mlyze, 3.4 MiB in new.mlyze, +2.2 MiB; red grew, blue shrank" */
static char *comparison_subtitle(struct mlz_input *const *in, const struct settings *s, const struct mlz_flame *f) {
  const struct mlz_flame_node *root = &f->nodes[0];
  const char *(*write)(char *, double) = mlz_metric_counts((enum mlz_metric)s->by) ? mlz_units_count : mlz_units_size;
  char before[MLZ_UNITS_MAX], after[MLZ_UNITS_MAX], change[MLZ_UNITS_MAX];
  double delta = root->after - root->before;
  char *was = place_text(in[MLZ_BEFORE]), *is = place_text(in[MLZ_AFTER]);
  char *short_was = mlz_text_shorten(was, 30, MLZ_SHORTEN_PATH), *short_is = mlz_text_shorten(is, 30, MLZ_SHORTEN_PATH);
  char *out = mlz_text_format("%s: %s in %s, %s in %s: %s%s%s; red: more, blue: less", nouns[s->by], write(before, root->before), short_was,
                              write(after, root->after), short_is, delta >= 0.5 ? "+" : "", write(change, delta),
                              in[MLZ_BEFORE]->estimated || in[MLZ_AFTER]->estimated ? " (estimated)" : "");
  free(was);
  free(is);
  free(short_was);
  free(short_is);
  return out;
}

static void draw(struct mlz_input *in, const struct settings *s, const struct mlz_flame *flame, const char *subtitle) {
  char *command = mlz_input_command(mlz_trace_meta(in->trace));
  char *title = mlz_text_shorten(s->title ? s->title : *command ? command : in->path, 90, MLZ_SHORTEN_MIDDLE);
  struct mlz_flame_style style = {.title = title,
                                  .subtitle = subtitle,
                                  .icicle = s->inverted,
                                  .counts = mlz_metric_counts((enum mlz_metric)s->by),
                                  .compares = s->diff,
                                  .noun = nouns[s->by]};
  FILE *out = mlz_report_open(in, &s->common);
  mlz_flame_draw(flame, &style, out);
  mlz_report_close(in, &s->common, out);
  free(command);
  free(title);
}

static int flame_of_one(struct mlz_input *in, struct settings *s) {
  struct mlz_measure measure;
  struct mlz_flame flame;
  if (s->by < 0) s->by = MLZ_BY_ALLOC_BYTES;
  mlz_measure_take(in, (enum mlz_metric)s->by, s->common.include_mmap, s->at, s->from, s->to, &measure);
  build(in, s, &flame, &measure);
  int status = mlz_input_finish(in);
  if (!status) {
    char *subtitle = subtitle_of(in, s, &flame, &measure);
    draw(in, s, &flame, subtitle);
    free(subtitle);
  }
  mlz_flame_clear(&flame);
  mlz_measure_clear(&measure);
  return status;
}

static int flame_of_two(struct mlz_input *after, struct settings *s) {
  struct mlz_common_options common = s->common;
  char *same = s->diff[0] == '@' && s->diff[1] ? mlz_text_format("%s%s", after->path, s->diff) : NULL;
  common.path = same ? same : s->diff;
  common.quiet = mlz_input_is_trace(after, common.path);
  struct mlz_input *in[MLZ_SIDES] = {mlz_input_open(tool.name, &common), after};
  free(same);
  if (s->by < 0) s->by = in[MLZ_BEFORE]->mark || after->mark ? MLZ_BY_LIVE_BYTES : MLZ_BY_ALLOC_BYTES;
  struct mlz_measure measures[MLZ_SIDES];
  struct mlz_match match;
  struct mlz_flame flame;
  for (int side = 0; side < MLZ_SIDES; side++)
    mlz_measure_take(in[side], (enum mlz_metric)s->by, common.include_mmap, s->at, s->from, s->to, &measures[side]);
  mlz_match_build(in[MLZ_BEFORE], after, &match);
  build_comparison(s, &flame, &match, measures);
  int status = mlz_input_finish(in[MLZ_BEFORE]), second = mlz_input_finish(after);
  if (second) status = second;
  if (!status) {
    char *subtitle = comparison_subtitle(in, s, &flame);
    mlz_report_guard(in[MLZ_BEFORE], &s->common);
    draw(after, s, &flame, subtitle);
    free(subtitle);
  }
  mlz_flame_clear(&flame);
  mlz_match_clear(&match);
  for (int side = 0; side < MLZ_SIDES; side++) mlz_measure_clear(&measures[side]);
  mlz_input_close(in[MLZ_BEFORE]);
  return status;
}

int main(int argc, char **argv) {
  struct settings s = {.common.look_up = mlz_names_look_up, .by = -1};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  int status = s.diff ? flame_of_two(in, &s) : flame_of_one(in, &s);
  mlz_input_close(in);
  return status;
}
