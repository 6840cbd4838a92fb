#include "analyzer/units.h"

#include <criterion/criterion.h>

static uint64_t size(const char *text) {
  uint64_t bytes = 12345;
  return mlz_units_parse_size(text, &bytes) ? bytes : UINT64_MAX;
}
static uint64_t duration(const char *text) {
  uint64_t ns = 12345;
  return mlz_units_parse_duration(text, &ns) ? ns : UINT64_MAX;
}

Test(units, sizes_are_read) {
  cr_assert_eq(size("0"), 0);
  cr_assert_eq(size("4096"), 4096);
  cr_assert_eq(size("24 MB"), 24000000);
  cr_assert_eq(size("12.3 MiB"), 12897485);
  cr_assert_eq(size("1k"), 1000);
  cr_assert_eq(size("1Ki"), 1024);
  cr_assert_eq(size(" 2gib "), UINT64_C(2) << 30);
  cr_assert_eq(size(".5kb"), 500);
}

Test(units, what_is_no_size_is_refused) {
  const char *const wrong[] = {"", "MB", "1 XB", "-1", "1.2.3", "0x10", "inf", "nan", "1e3", "99999999999999 TiB", "1 MB x"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) cr_assert_eq(size(wrong[i]), UINT64_MAX, "'%s'", wrong[i]);
  uint64_t untouched = 7;
  cr_assert_not(mlz_units_parse_size("x", &untouched));
  cr_assert_eq(untouched, 7);
}

Test(units, times_are_read) {
  cr_assert_eq(duration("1.5s"), UINT64_C(1500000000));
  cr_assert_eq(duration("200ms"), 200000000);
  cr_assert_eq(duration("3us"), 3000);
  cr_assert_eq(duration("7ns"), 7);
  cr_assert_eq(duration("2min"), UINT64_C(120000000000));
  cr_assert_eq(duration("1h"), UINT64_C(3600000000000));
  cr_assert_eq(duration("5"), UINT64_MAX, "a bare number is no time");
  cr_assert_eq(duration("warm"), UINT64_MAX);
}

Test(units, percentages_are_read) {
  double percent = -1;
  cr_assert(mlz_units_parse_percent("90%", &percent));
  cr_assert_float_eq(percent, 90, 1e-9);
  cr_assert_not(mlz_units_parse_percent("101%", &percent));
  cr_assert_not(mlz_units_parse_percent("90", &percent));
}

Test(units, sizes_are_written) {
  char out[MLZ_UNITS_MAX];
  cr_assert_str_eq(mlz_units_size(out, 0), "0 B");
  cr_assert_str_eq(mlz_units_size(out, 812), "812 B");
  cr_assert_str_eq(mlz_units_size(out, 1024), "1.00 KiB");
  cr_assert_str_eq(mlz_units_size(out, 12.3 * 1048576), "12.3 MiB");
  cr_assert_str_eq(mlz_units_size(out, 123.0 * 1048576), "123 MiB");
  cr_assert_str_eq(mlz_units_size(out, 1023.9 * 1048576), "1.00 GiB", "never four digits");
  cr_assert_str_eq(mlz_units_size(out, -2048), "-2.00 KiB");
  cr_assert_str_eq(mlz_units_round(strcpy(out, "10.0 ms")), "10 ms");
  cr_assert_str_eq(mlz_units_round(strcpy(out, "1.50 s")), "1.50 s");
}

Test(units, counts_and_times_are_written) {
  char out[MLZ_UNITS_MAX];
  cr_assert_str_eq(mlz_units_count(out, 0), "0");
  cr_assert_str_eq(mlz_units_count(out, 999), "999");
  cr_assert_str_eq(mlz_units_count(out, 1234567), "1,234,567");
  cr_assert_str_eq(mlz_units_count(out, -1234), "-1,234");
  cr_assert_str_eq(mlz_units_time(out, 0), "0");
  cr_assert_str_eq(mlz_units_time(out, 850), "850 ns");
  cr_assert_str_eq(mlz_units_time(out, 12.34e6), "12.3 ms");
  cr_assert_str_eq(mlz_units_time(out, 4.21e9), "4.21 s");
  cr_assert_str_eq(mlz_units_time(out, 200e9), "3 min 20 s");
  cr_assert_str_eq(mlz_units_time(out, 7500e9), "2 h 5 min");
  cr_assert_str_eq(mlz_units_percent(out, 1, 0), "");
  cr_assert_str_eq(mlz_units_percent(out, 1, 3), "33.3%");
}
