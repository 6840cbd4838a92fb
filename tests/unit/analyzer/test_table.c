#include "analyzer/table.h"
#include "analyzer/text.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static char *print(const struct mlz_table *t, unsigned width, bool color) {
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  mlz_table_print(t, out, width, color);
  fclose(out);
  return text;
}

static struct mlz_table *sample(void) {
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "size", MLZ_COL_NUMBER);
  mlz_table_column(t, "function", MLZ_COL_NAME);
  mlz_table_column(t, "where", MLZ_COL_PATH);
  mlz_table_cell(t, "12.3 MiB");
  mlz_table_cell(t, "Handler.dispatch");
  mlz_table_cell(t, "/srv/application/with/a/very/long/path/to/some/package/handlers.py:120");
  mlz_table_cell(t, "1 B");
  mlz_table_cell(t, "f");
  mlz_table_cell(t, "x.py:1");
  return t;
}

static unsigned widest(const char *text) {
  unsigned most = 0, n = 0;
  for (; *text; text++) {
    n = *text == '\n' ? 0 : n + 1;
    if (n > most) most = n;
  }
  return most;
}

Test(table, wide_enough_nothing_is_shortened) {
  struct mlz_table *t = sample();
  char *text = print(t, 200, false);
  cr_assert_str_eq(text, "    size  function          where\n"
                         "12.3 MiB  Handler.dispatch  /srv/application/with/a/very/long/path/to/some/package/handlers.py:120\n"
                         "     1 B  f                 x.py:1\n");
  free(text);
  mlz_table_free(t);
}

Test(table, paths_give_way_before_names) {
  struct mlz_table *t = sample();
  char *text = print(t, 60, false);
  cr_assert_leq(widest(text), 60);
  cr_assert(strstr(text, "Handler.dispatch"), "%s", text);
  cr_assert(strstr(text, "/package/handlers.py:120"), "%s", text);
  free(text);
  text = print(t, 40, false);
  cr_assert_leq(widest(text), 40);
  cr_assert(strstr(text, "12.3 MiB"), "numbers are never cut: %s", text);
  free(text);
  mlz_table_free(t);
}

Test(table, every_width_is_obeyed) {
  struct mlz_table *t = sample();
  for (unsigned width = 40; width < 120; width++) {
    char *text = print(t, width, false);
    cr_assert_leq(widest(text), width);
    free(text);
  }
  mlz_table_free(t);
}

Test(table, colour_only_on_request) {
  struct mlz_table *t = sample();
  mlz_table_style(t, MLZ_STYLE_RED);
  char *plain = print(t, 80, false), *colored = print(t, 80, true);
  cr_assert_not(strchr(plain, '\033'));
  cr_assert(strstr(colored, "\033[31m     1 B"), "%s", colored);
  free(plain);
  free(colored);
  mlz_table_free(t);
}

Test(table, no_blanks_at_the_end_of_a_line) {
  struct mlz_table *t = mlz_table_new();
  mlz_table_column(t, "name", MLZ_COL_NAME);
  mlz_table_column(t, "why", MLZ_COL_NOTE);
  mlz_table_column(t, "", MLZ_COL_WORD);
  const char *const cells[] = {"long name", "", "", "f", "because", "###"};
  for (size_t i = 0; i < 6; i++) mlz_table_cell(t, cells[i]);
  char *text = print(t, 80, false);
  cr_assert_str_eq(text, "name       why\nlong name\nf          because  ###\n");
  free(text);
  mlz_table_free(t);
}
