/* Which file, function and line of one trace is which of the other. */
#include "analyzer/match.h"

#include "fixture.h"

#include <string.h>

static void check_path(const char *path, const char *directory, const char *wanted) {
  char *got = mlz_match_path(path, directory);
  cr_assert_str_eq(got, wanted, "%s below %s: %s", path, directory, got);
  free(got);
}

Test(match, paths_lose_what_differs_between_machines) {
  check_path("/srv/app/a.py", "/srv/app", "a.py");
  check_path("/srv/app/./x//y/../a.py", "/srv/app/", "x/a.py");
  check_path("a.py", "/srv/app", "a.py");
  check_path("./a.py", "", "a.py");
  check_path("../lib/a.py", "/srv/app", "../lib/a.py");
  check_path("../../a.py", "", "../../a.py");
  check_path("x/../../a.py", "", "../a.py");
  check_path("/../a.py", "", "/a.py");
  check_path("/srv/application/a.py", "/srv/app", "/srv/application/a.py");
  check_path("/home/u/venv/lib/python3.12/site-packages/numpy/core.py", "/home/u", "site-packages/numpy/core.py");
  check_path("/usr/lib/python3/dist-packages/yaml/reader.py", "/", "site-packages/yaml/reader.py");
  check_path("/usr/lib/python3.11/json/decoder.py", "/srv", "python3/json/decoder.py");
  check_path("/home/u/.pyenv/versions/3.13.0/lib/python3.13t/json/decoder.py", "/home/u", "python3/json/decoder.py");
  check_path("/srv/lib/python3x/a.py", "", "/srv/lib/python3x/a.py");
  check_path("<frozen importlib._bootstrap>", "/srv", "<frozen importlib._bootstrap>");
  check_path("<string>", "", "<string>");
  check_path("", "/srv", "");
  check_path("/", "/srv", "/");
}

#define NONE UINT32_MAX

/* "10 12a" : lines, with letters for what they call. */
static size_t read_lines(const char *text, struct mlz_match_line *out) {
  size_t n = 0;
  for (char *end; *text; n++) {
    out[n] = (struct mlz_match_line){.line = (uint32_t)strtoul(text, &end, 10)};
    for (text = end; *text && *text != ' '; text++) out[n].calls = out[n].calls * 31 + (unsigned char)*text;
    while (*text == ' ') text++;
  }
  return n;
}

/* `wanted`: for each line before the one after, 0 for none. */
static void check_lines(const char *what, const char *before, const char *after, const char *wanted) {
  struct mlz_match_line lines[3][16];
  uint32_t match[16];
  size_t n = read_lines(before, lines[0]), m = read_lines(after, lines[1]);
  cr_assert_eq(read_lines(wanted, lines[2]), n, "%s", what);
  mlz_match_lines(lines[0], n, lines[1], m, match);
  for (size_t i = 0; i < n; i++) {
    uint32_t got = match[i] == NONE ? 0 : lines[1][match[i]].line;
    cr_assert_eq(got, lines[2][i].line, "%s: line %u became %u instead of %u", what, lines[0][i].line, got, lines[2][i].line);
  }
}

Test(match, lines_that_moved) {
  check_lines("nothing changed", "3 5 9", "3 5 9", "3 5 9");
  check_lines("an edit above", "10 12 14", "12 14 16", "12 14 16");
  check_lines("an edit above, lines fewer", "10 12 14", "7 9 11", "7 9 11");
  check_lines("an edit within", "10 12 14", "10 12 19", "10 12 19");
  check_lines("an edit behind the first", "10 12 14", "10 15 17", "10 15 17");
  check_lines("an edit above and one within", "3 5", "5 8", "5 8");
  check_lines("an edit above and one within, more lines", "10 12 14 16", "12 14 19 21", "12 14 19 21");
  check_lines("a new line", "10 20", "10 15 20", "10 20");
  check_lines("a line is gone", "10 15 20", "10 20", "10 0 20");
  check_lines("a line is gone, others moved", "10 12 17 30", "15 22 35", "15 0 22 35");
  check_lines("one is gone, another one came", "10 12 14 20", "10 11 12 14", "10 12 14 0");
  check_lines("the only one moved", "10", "400", "400");
  check_lines("the nearest", "28", "20 30", "30");
  check_lines("as many by no shift as by another", "10 12 14", "12 14", "0 12 14");
  check_lines("none after", "10 12", "", "0 0");
  check_lines("lines that are not known", "0 12", "0 13", "0 13");
  check_lines("a line is not the unknown one", "0", "7", "0");
  check_lines("only one side has an unknown one", "3 5", "0 4 6", "4 6");
}

Test(match, lines_that_call_the_same) {
  check_lines("calls say which moved", "3a 4b", "4a 9b", "4 9");
  check_lines("and which is gone", "10a 20b 30c", "15b 25c", "0 15 25");
  check_lines("and which is new", "10a 20b", "10x 14a 24b", "14 24");
  check_lines("a line that calls something else now", "10a 20b 30c", "10a 20x 30c", "10 20 30");
}

/* Whatever the lines: in order, each to one. */
Test(match, lines_never_cross) {
  static struct mlz_match_line lines[2][700];
  uint32_t match[700];
  uint64_t random = 88172645463325252ull;
  for (int round = 0; round < 300; round++) {
    size_t n[2];
    for (int side = 0; side < 2; side++) {
      uint32_t line = 0;
      n[side] = 1 + (size_t)(random >> 7) % (round % 50 == 49 ? 600 : 20); /* many: the simple way */
      for (size_t i = 0; i < n[side]; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        lines[side][i] = (struct mlz_match_line){line += 1 + (uint32_t)random % 4, random >> 20 & 1};
      }
    }
    mlz_match_lines(lines[0], n[0], lines[1], n[1], match);
    uint32_t next = 0;
    size_t pairs = 0;
    for (size_t i = 0; i < n[0]; i++) {
      if (match[i] == NONE) continue;
      cr_assert_lt(match[i], n[1]);
      cr_assert_geq(match[i], next);
      next = match[i] + 1;
      pairs++;
    }
    cr_assert_geq(pairs, 1);
  }
}

Test(match, a_trace_is_the_same_as_itself) {
  struct mlz_input *a = open_scenario("service", NULL, NULL), *b = open_scenario("service", NULL, NULL);
  struct mlz_match match;
  mlz_match_build(a, b, &match);
  for (uint32_t i = 0; i < mlz_trace_frames(a->trace); i++) {
    uint32_t index = mlz_match_of(&match, MLZ_BEFORE, i);
    cr_assert_eq(index, mlz_match_of(&match, MLZ_AFTER, i));
    cr_assert_eq(match.frames[index].frame[MLZ_BEFORE], match.frames[index].frame[MLZ_AFTER]);
    struct mlz_place p = mlz_place_of_frame(a, i), q = mlz_match_place(&match, index), f = mlz_match_function_place(&match, index);
    cr_assert(!strcmp(p.function, q.function) && !strcmp(p.file, q.file) && p.line == q.line);
    cr_assert(!strcmp(p.function, f.function) && !strcmp(p.file, f.file) && !f.line);
  }
  mlz_match_clear(&match);
  mlz_input_close(a);
  mlz_input_close(b);
}

static uint32_t frame_of(struct mlz_input *in, const char *function, uint32_t line) {
  for (uint32_t i = 0; i < mlz_trace_frames(in->trace); i++) {
    struct mlz_place p = mlz_place_of_frame(in, i);
    if (!strcmp(p.function, function) && p.line == line) return i;
  }
  cr_assert_fail("no frame %s:%u", function, line);
  return 0;
}

Test(match, an_edited_program_in_another_place) {
  struct mlz_input *a = open_scenario("version1", NULL, NULL), *b = open_scenario("version2", NULL, NULL);
  struct mlz_match match;
  mlz_match_build(a, b, &match);
  const struct {
    const char *function;
    uint32_t before, after;
  } same[] = {{"<module>", 40, 44}, {"serve", 20, 24}, {"serve", 22, 26}, {"parse", 5, 5}, {"loads", 299, 346}};
  for (size_t i = 0; i < sizeof same / sizeof *same; i++)
    cr_assert_eq(mlz_match_of(&match, MLZ_BEFORE, frame_of(a, same[i].function, same[i].before)),
                 mlz_match_of(&match, MLZ_AFTER, frame_of(b, same[i].function, same[i].after)), "%s", same[i].function);
  uint32_t old = mlz_match_of(&match, MLZ_BEFORE, frame_of(a, "old", 30)), new = mlz_match_of(&match, MLZ_AFTER, frame_of(b, "new", 36));
  cr_assert_neq(old, new);
  cr_assert_eq(match.frames[old].frame[MLZ_AFTER], MLZ_INTERN_NONE);
  cr_assert_eq(match.frames[new].frame[MLZ_BEFORE], MLZ_INTERN_NONE);
  cr_assert_eq(match.frames[old].file, match.frames[new].file, "both are of the main program");
  cr_assert_str_eq(mlz_match_place(&match, old).file, "/old/app.py");
  mlz_match_clear(&match);
  mlz_input_close(a);
  mlz_input_close(b);
}
