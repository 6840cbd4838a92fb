#include "analyzer/suppress.h"

#include "fixture.h"

#include <stdio.h>
#include <string.h>

Test(suppress, patterns_match_as_leak_sanitizer_does) {
  cr_assert(mlz_suppress_match("foo", "a.foo.b"));
  cr_assert(mlz_suppress_match("^foo", "foobar"));
  cr_assert_not(mlz_suppress_match("^foo", "xfoo"));
  cr_assert(mlz_suppress_match("foo$", "xfoo"));
  cr_assert_not(mlz_suppress_match("foo$", "foox"));
  cr_assert(mlz_suppress_match("a*c", "xxabbbcyy"));
  cr_assert(mlz_suppress_match("^a*c$", "abcabc"));
  cr_assert_not(mlz_suppress_match("^a*c$", "abcab"));
  cr_assert(mlz_suppress_match("*", ""));
  cr_assert_not(mlz_suppress_match("foo", ""));
}

static struct mlz_suppressions *read_text(const char *text, char *err) {
  char path[] = "/tmp/mlz-suppress-XXXXXX";
  int fd = mkstemp(path);
  cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  struct mlz_suppressions *s = mlz_suppress_read(path, err, 200);
  unlink(path);
  return s;
}

Test(suppress, files_are_read) {
  char err[200];
  struct mlz_input *in = open_scenario("service", NULL, NULL);
  struct mlz_suppressions *s = read_text("# known\n\n leak:templates.TemplateCache \nleak:nowhere\n", err);
  cr_assert_not_null(s);
  unsigned hidden = 0;
  for (uint32_t i = 0; i < mlz_trace_stacks(in->trace); i++) hidden += mlz_suppress_stack(s, in, i);
  cr_assert_eq(hidden, 1);
  mlz_suppress_free(s);
  mlz_input_close(in);
}

Test(suppress, a_wrong_line_is_named) {
  char err[200];
  cr_assert_null(read_text("leak:a\nrace:b\n", err));
  cr_assert(strstr(err, "line 2"), "%s", err);
  cr_assert_null(read_text("leak:\n", err));
  cr_assert_null(mlz_suppress_read("/nonexistent/file", err, sizeof err));
}
