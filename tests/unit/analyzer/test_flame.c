#include "analyzer/flame.h"
#include "analyzer/tally.h"

#include "fixture.h"

#include <string.h>

static void build(struct mlz_flame *f, struct mlz_input *in, bool reversed, double least) {
  struct mlz_tally_run run;
  mlz_tally_scan(&run, in, MLZ_TALLY_STACK, false, NULL, NULL);
  mlz_flame_begin(f, reversed);
  for (uint32_t i = 0; i < run.n; i++)
    if (run.rows[i].alloc_bytes > 0) mlz_flame_add(f, in, i, run.rows[i].alloc_bytes, run.rows[i].alloc_count);
  mlz_flame_layout(f, least);
  mlz_tally_clear(&run);
}

/* Parents first; children lie within their parent, side by side, largest first. */
static void check_layout(const struct mlz_flame *f) {
  double *end = mlz_text_calloc(f->n_nodes, sizeof *end), *last = mlz_text_calloc(f->n_nodes, sizeof *last);
  for (size_t i = 1; i < f->n_nodes; i++) {
    const struct mlz_flame_node *node = &f->nodes[i], *parent = &f->nodes[node->parent];
    cr_assert_lt(node->parent, i);
    cr_assert_eq(node->depth, parent->depth + 1);
    cr_assert_geq(node->x, end[node->parent] > 0 ? end[node->parent] : parent->x);
    cr_assert_leq(node->x + node->value, parent->x + parent->value + 1e-6);
    if (last[node->parent] > 0) cr_assert_leq(node->value, last[node->parent]);
    end[node->parent] = node->x + node->value;
    last[node->parent] = node->value;
  }
  free(end);
  free(last);
}

Test(flame, the_tree_holds_what_was_added) {
  const char *const scenarios[] = {"service", "names", "bulk"};
  for (size_t i = 0; i < 3; i++)
    for (int reversed = 0; reversed < 2; reversed++) {
      struct mlz_input *in = open_scenario(scenarios[i], NULL, NULL);
      struct mlz_flame f;
      build(&f, in, reversed, 0);
      check_layout(&f);
      double top = 0;
      for (size_t k = 1; k < f.n_nodes; k++)
        if (f.nodes[k].depth == 1) top += f.nodes[k].value;
      cr_assert_float_eq(top, f.nodes[0].value, 1e-6);
      mlz_flame_clear(&f);
      mlz_input_close(in);
    }
}

Test(flame, narrow_frames_are_dropped_with_what_stands_on_them) {
  struct mlz_input *in = open_scenario("bulk", NULL, NULL);
  struct mlz_flame all, some;
  build(&all, in, false, 0);
  build(&some, in, false, 0.01);
  check_layout(&some);
  cr_assert_lt(some.n_nodes, all.n_nodes);
  for (size_t i = 0; i < some.n_nodes; i++) cr_assert_geq(some.nodes[i].value, 0.01 * some.nodes[0].value);
  mlz_flame_clear(&all);
  mlz_flame_clear(&some);
  mlz_input_close(in);
}

static char *draw(const char *scenario, bool icicle, const char *title) {
  struct mlz_input *in = open_scenario(scenario, NULL, NULL);
  struct mlz_flame f;
  char *text = NULL;
  size_t size = 0;
  build(&f, in, false, 0);
  FILE *out = open_memstream(&text, &size);
  mlz_flame_draw(&f, &(struct mlz_flame_style){.title = title, .subtitle = "subtitle", .icicle = icicle, .noun = "allocated"}, out);
  fclose(out);
  cr_assert_eq(strlen(text), size);
  mlz_flame_clear(&f);
  mlz_input_close(in);
  return text;
}

Test(flame, names_are_escaped) {
  char *text = draw("names", false, "a <b> & \"c\"");
  char *picture_end = strstr(text, "<script");
  cr_assert_not_null(picture_end);
  cr_assert_null(strstr(picture_end + 1, "<script"), "no name became an element");
  cr_assert_null(strchr(text, '\033'));
  cr_assert(strstr(text, "&lt;lambda&gt;"));
  cr_assert(strstr(text, "a&quot;b&#39;c&amp;d"));
  cr_assert(strstr(text, "a &lt;b&gt; &amp; &quot;c&quot;"));
  cr_assert(strstr(text, "]]&gt;--&gt;&lt;script&gt;"));
  free(text);
}

Test(flame, the_picture_needs_nothing_else) {
  char *text = draw("service", true, "t");
  cr_assert(strstr(text, "data-icicle=\"1\""));
  char *script = strstr(text, "<script");
  for (char *at = text; (at = strstr(at, "http")) && at < script; at++)
    cr_assert_eq(strncmp(at, "http://www.w3.org/2000/svg", 26), 0, "only the namespace");
  cr_assert_null(strstr(text, "@import"));
  cr_assert_null(strstr(text, "url("));
  cr_assert_null(strstr(script, "]]>\n]]>"));
  free(text);
}

Test(flame, nothing_is_a_picture_too) {
  char *text = draw("empty", false, "t");
  cr_assert(strstr(text, "nothing to show"));
  free(text);
}
