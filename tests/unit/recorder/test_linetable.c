#include "linetable_samples.h"
#include "tracer/recorder/linetable.h"

#include <criterion/criterion.h>
#include <stdlib.h>

struct sample {
  unsigned format;
  const uint8_t *table;
  uint32_t bytes;
  const uint16_t *lines;
  uint32_t n;
};
#define SAMPLE(version, format)                                                                                                            \
  { format, table_##version, sizeof table_##version, lines_##version, sizeof lines_##version / sizeof(uint16_t) }

static const struct sample samples[] = {
    SAMPLE(38, MLZ_LINES_LNOTAB), SAMPLE(39, MLZ_LINES_LNOTAB), SAMPLE(310, MLZ_LINES_310),
    SAMPLE(311, MLZ_LINES_311),   SAMPLE(312, MLZ_LINES_311),   SAMPLE(313, MLZ_LINES_311),
};

Test(linetable, every_offset_as_the_interpreter_says) {
  for (unsigned s = 0; s < sizeof samples / sizeof samples[0]; s++) {
    const struct sample *x = &samples[s];
    for (uint32_t i = 0; i < x->n; i++) {
      struct mlz_line_cursor c = {0};
      uint32_t line = mlz_linetable_line(x->format, x->table, x->bytes, 2, (int32_t)i * 2, &c);
      cr_assert_eq(line, x->lines[i], "sample %u offset %u: %u, not %u", s, i * 2, line, x->lines[i]);
    }
    struct mlz_line_cursor c = {0}; /* in any order, each look from where the last one ended */
    unsigned seed = 3;
    for (uint32_t n = 0; n < 20 * x->n; n++) {
      uint32_t i = n < 2 * x->n ? n / 2 : (uint32_t)rand_r(&seed) % x->n;
      uint32_t line = mlz_linetable_line(x->format, x->table, x->bytes, 2, (int32_t)i * 2, &c);
      cr_assert_eq(line, x->lines[i], "sample %u offset %u: %u, not %u", s, i * 2, line, x->lines[i]);
    }
  }
}

Test(linetable, before_the_first_instruction) {
  struct mlz_line_cursor c = {0};
  cr_assert_eq(mlz_linetable_line(MLZ_LINES_311, table_311, sizeof table_311, 17, -1, &c), 17);
  cr_assert_eq(mlz_linetable_line(MLZ_LINES_LNOTAB, NULL, 0, 17, 4, &c), 17);
  cr_assert_eq(mlz_linetable_line(99, table_311, sizeof table_311, 17, 4, &c), 17);
}

/* A table cut anywhere, or random bytes, must not be read beyond its end (run under ASan: each copy is a block of its own). */
Test(linetable, cut_and_random_tables) {
  unsigned seed = 7;
  for (unsigned s = 0; s < sizeof samples / sizeof samples[0]; s++) {
    for (uint32_t n = 0; n < samples[s].bytes; n++) {
      uint8_t *copy = malloc(n ? n : 1);
      for (uint32_t i = 0; i < n; i++) copy[i] = n % 3 ? samples[s].table[i] : (uint8_t)rand_r(&seed);
      struct mlz_line_cursor c = {0};
      for (int32_t offset = 0; offset < 600; offset += 37) {
        uint32_t line = mlz_linetable_line(samples[s].format, copy, n, 2, offset, &c);
        cr_assert_leq(line, INT32_MAX);
      }
      free(copy);
    }
  }
}
