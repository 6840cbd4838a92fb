#include "tracer/recorder/symbols.h"

#include <criterion/criterion.h>
#include <string.h>

/* A CODE message's content: 3.10 line table, one line for each 2 bytes of code. */
static size_t code_body(uint8_t *out, const char *file, const char *name, const char *module, int32_t first_line) {
  static const uint8_t lines[] = {2, 0, 2, 1, 2, 1, 2, 0};
  struct mlz_code_header h = {.file_bytes = (uint32_t)strlen(file),
                              .name_bytes = (uint32_t)strlen(name),
                              .module_bytes = (uint32_t)strlen(module),
                              .lines_bytes = sizeof lines,
                              .first_line = first_line,
                              .lines_format = MLZ_LINES_310};
  uint8_t *at = out;
  memcpy(at, &h, sizeof h), at += sizeof h;
  memcpy(at, file, h.file_bytes), at += h.file_bytes;
  memcpy(at, name, h.name_bytes), at += h.name_bytes;
  memcpy(at, module, h.module_bytes), at += h.module_bytes;
  memcpy(at, lines, sizeof lines), at += sizeof lines;
  return (size_t)(at - out);
}

static void learn(struct mlz_symbols *s, uint32_t id, const char *name, int32_t first_line) {
  uint8_t body[512];
  cr_assert_eq(mlz_symbols_code(s, id, body, code_body(body, "app.py", name, "app", first_line)), 0);
}

static uint64_t word(const struct mlz_symbols *s, uint32_t code, uint32_t offset) {
  return (uint64_t)mlz_symbols_content(s, code) << 32 | offset;
}

Test(symbols, same_line_same_frame) {
  struct mlz_symbols s;
  cr_assert_eq(mlz_symbols_init(&s, NULL), 0);
  learn(&s, 1, "f", 10);
  learn(&s, 2, "f", 10);
  learn(&s, 3, "g", 10);
  cr_assert_eq(mlz_symbols_content(&s, 1), mlz_symbols_content(&s, 2), "equal code objects share their content");
  uint32_t f0 = mlz_symbols_frame(&s, word(&s, 1, 0)), f2 = mlz_symbols_frame(&s, word(&s, 2, 2)),
           f4 = mlz_symbols_frame(&s, word(&s, 1, 4));
  cr_assert_neq(f0, f2, "another line");
  cr_assert_eq(f4, mlz_symbols_frame(&s, word(&s, 1, 6)), "offsets 4 and 6 are one line");
  cr_assert_neq(f0, mlz_symbols_frame(&s, word(&s, 3, 0)), "another function");
  mlz_symbols_deinit(&s);
}

static uint32_t stack_of(struct mlz_symbols *s, const uint64_t *words, uint32_t n, bool truncated) {
  struct mlz_window w = {.count = n, .depth = 10, .truncated = truncated};
  uint32_t number = mlz_symbols_window(s, words, w);
  cr_assert_neq(number, 0);
  cr_assert_eq(mlz_symbols_window(s, words, w), number);
  return mlz_symbols_window_stack(s, number, words, w);
}

Test(symbols, stacks_by_line) {
  struct mlz_symbols s;
  cr_assert_eq(mlz_symbols_init(&s, NULL), 0);
  learn(&s, 1, "f", 10);
  learn(&s, 2, "g", 20);
  uint64_t a[] = {word(&s, 1, 0), word(&s, 2, 4)}, b[] = {word(&s, 1, 0), word(&s, 2, 6)}, c[] = {word(&s, 2, 4), word(&s, 1, 0)};
  uint32_t stack = stack_of(&s, a, 2, false);
  cr_assert_neq(stack, 0);
  cr_assert_eq(stack_of(&s, a, 2, false), stack);
  cr_assert_eq(stack_of(&s, b, 2, false), stack, "another offset of the same line");
  cr_assert_neq(stack_of(&s, c, 2, false), stack);
  cr_assert_neq(stack_of(&s, a, 2, true), stack, "a cut stack is another one");
  cr_assert_eq(stack_of(&s, a, 0, false), 0);
  struct mlz_window deep = {.count = 2, .depth = 11};
  cr_assert_neq(mlz_symbols_window(&s, a, deep), mlz_symbols_window(&s, a, (struct mlz_window){.count = 2, .depth = 10}),
                "other windows follow from it");
  cr_assert_eq(mlz_symbols_window_stack(&s, 0, a, deep), stack, "without a number it is right, only not remembered");
  mlz_symbols_deinit(&s);
}

Test(symbols, grows) {
  struct mlz_symbols s;
  cr_assert_eq(mlz_symbols_init(&s, NULL), 0);
  char name[32];
  for (uint32_t i = 1; i <= 20000; i++) {
    snprintf(name, sizeof name, "f%u", i);
    learn(&s, i, name, 1);
  }
  uint32_t first = 0;
  for (int round = 0; round < 2; round++) {
    for (uint32_t i = 1; i <= 20000; i++) {
      uint64_t w = word(&s, i, 0);
      uint32_t stack = stack_of(&s, &w, 1, false);
      if (i == 1 && !round) first = stack;
      if (i == 1) cr_assert_eq(stack, first);
      cr_assert_eq(stack, first + i - 1);
    }
  }
  cr_assert_eq(s.stacks_used, 20000);
  mlz_symbols_deinit(&s);
}

Test(symbols, wrong_lengths_are_refused) {
  struct mlz_symbols s;
  uint8_t body[512];
  cr_assert_eq(mlz_symbols_init(&s, NULL), 0);
  size_t n = code_body(body, "a.py", "f", "m", 1);
  cr_assert_lt(mlz_symbols_code(&s, 1, body, n - 1), 0);
  cr_assert_lt(mlz_symbols_code(&s, 1, body, 3), 0);
  cr_assert_lt(mlz_symbols_code(&s, 0, body, n), 0);
  cr_assert_lt(mlz_symbols_code(&s, UINT32_MAX, body, n), 0);
  cr_assert_eq(mlz_symbols_content(&s, 1), 0);
  cr_assert_eq(mlz_symbols_code(&s, 1, body, n), 0);
  mlz_symbols_deinit(&s);
}
