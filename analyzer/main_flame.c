/* memlyze-flame: a flame graph as SVG. */
#include "analyzer/flame.h"
#include "analyzer/sites.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <stdlib.h>
#include <string.h>

struct settings {
  struct mlz_common_options common;
  int by;
  const char *at, *from, *to, *title;
  bool inverted, reverse;
};

#define AT(field) offsetof(struct settings, field)
static const struct mlz_option options[] = {
    {"by", 0, MLZ_OPT_CHOICE, MLZ_METRIC_CHOICES, "what the widths are (default alloc-bytes)", AT(by)},
    {"at", 0, MLZ_OPT_TEXT, "TIME", "live blocks as they stood at TIME (default: end); nothing later counts", AT(at)},
    {"from", 0, MLZ_OPT_TEXT, "TIME", "only blocks allocated after TIME", AT(from)},
    {"to", 0, MLZ_OPT_TEXT, "TIME", "only what happened until TIME", AT(to)},
    {"inverted", 0, MLZ_OPT_FLAG, NULL, "icicle: the root at the top", AT(inverted)},
    {"reverse", 0, MLZ_OPT_FLAG, NULL, "begin with the allocating lines, their callers upon them", AT(reverse)},
    {"title", 0, MLZ_OPT_TEXT, "TEXT", "the title (default: the command)", AT(title)},
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

static void build(struct mlz_input *in, const struct settings *s, struct mlz_flame *f, struct mlz_window *window, struct mlz_peak *peak) {
  struct mlz_tally_run run;
  bool mmap = s->common.include_mmap;
  const struct mlz_cut *to = window->to;
  if (s->by == MLZ_BY_PEAK_BYTES) {
    mlz_peak_find(in, mmap, window->to, peak);
    to = &peak->cut;
  }
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, mmap, window->from, to);
  mlz_flame_begin(f, s->reverse);
  for (size_t i = 0; i < run.n; i++) {
    const struct mlz_tally *t = &run.rows[i];
    bool live = s->by == MLZ_BY_LIVE_BYTES || s->by == MLZ_BY_PEAK_BYTES;
    double value = mlz_metric_of(t, mlz_tally_live_bytes(t), (enum mlz_metric)s->by);
    double count = live ? t->alloc_count - t->free_count : s->by == MLZ_BY_TEMPORARY ? t->temp_count : t->alloc_count;
    if (value > 0)
      mlz_flame_add(f, in, (uint32_t)i, value, count);
    else
      f->nodes[0].count += count; /* blocks of no bytes: no box, but the total is that of the other tools */
  }
  mlz_tally_clear(&run);
  mlz_flame_layout(f, LEAST_SHARE);
}

static char *subtitle_of(struct mlz_input *in, const struct settings *s, const struct mlz_flame *f, const struct mlz_peak *peak) {
  char size[MLZ_UNITS_MAX], count[MLZ_UNITS_MAX], time[MLZ_UNITS_MAX];
  const struct mlz_flame_node *root = &f->nodes[0];
  bool counts = s->by == MLZ_BY_ALLOC_COUNT || s->by == MLZ_BY_TEMPORARY;
  const char *when = s->from || s->to || s->at || in->mark ? " in the window" : "";
  if (counts)
    return mlz_text_format("%s blocks %s%s%s", mlz_units_count(count, root->value), nouns[s->by], when,
                           in->estimated ? " (estimated)" : "");
  char *at =
      s->by == MLZ_BY_PEAK_BYTES ? mlz_text_format(" (%s)", mlz_units_time(time, (double)peak->time_ns)) : mlz_text_format("%s", when);
  char *out = mlz_text_format("%s %s%s in %s blocks%s", mlz_units_size(size, root->value), nouns[s->by], at,
                              mlz_units_count(count, root->count), in->estimated ? " (estimated)" : "");
  free(at);
  return out;
}

int main(int argc, char **argv) {
  struct settings s = {0};
  mlz_report_begin();
  mlz_options_parse(&tool, argc, argv, &s);
  struct mlz_input *in = mlz_input_open(tool.name, &s.common);
  struct mlz_window window;
  struct mlz_flame flame;
  struct mlz_peak peak = {0};
  mlz_window_resolve(in, s.at, s.from, s.to, s.common.include_mmap, &window);
  build(in, &s, &flame, &window, &peak);
  int status = mlz_input_finish(in);
  if (!status) {
    char *command = mlz_input_command(mlz_trace_meta(in->trace));
    char *title = mlz_text_shorten(s.title    ? s.title
                                   : *command ? command
                                              : in->path,
                                   90, MLZ_SHORTEN_MIDDLE),
         *subtitle = subtitle_of(in, &s, &flame, &peak);
    struct mlz_flame_style style = {title, subtitle, s.inverted, s.by == MLZ_BY_ALLOC_COUNT || s.by == MLZ_BY_TEMPORARY, nouns[s.by]};
    FILE *out = mlz_report_open(in, &s.common);
    mlz_flame_draw(&flame, &style, out);
    mlz_report_close(in, &s.common, out);
    free(command);
    free(title);
    free(subtitle);
  }
  mlz_flame_clear(&flame);
  mlz_cut_clear(&peak.cut);
  mlz_window_clear(&window);
  mlz_input_close(in);
  return status;
}
