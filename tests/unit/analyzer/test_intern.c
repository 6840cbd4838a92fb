#include "analyzer/intern.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

Test(intern, the_same_bytes_have_the_same_number) {
  struct mlz_intern in = {0};
  cr_assert_eq(mlz_intern_find(&in, "a", 1), MLZ_INTERN_NONE);
  cr_assert_eq(mlz_intern_text(&in, "a"), 0);
  cr_assert_eq(mlz_intern_text(&in, ""), 1);
  cr_assert_eq(mlz_intern_key(&in, "a\0b", 3), 2, "a NUL does not end a key");
  cr_assert_eq(mlz_intern_key(&in, "a\0c", 3), 3);
  cr_assert_eq(mlz_intern_text(&in, "a"), 0);
  cr_assert_eq(mlz_intern_key(&in, "", 0), 1);
  cr_assert_eq(mlz_intern_find(&in, "a\0b", 3), 2);
  cr_assert_eq(mlz_intern_find(&in, "b", 1), MLZ_INTERN_NONE);
  cr_assert_eq(in.n, 4);
  mlz_intern_clear(&in);
}

Test(intern, many) {
  struct mlz_intern in = {0};
  char text[32];
  for (int round = 0; round < 2; round++)
    for (uint32_t i = 0; i < 5000; i++) {
      snprintf(text, sizeof text, "key %u", i * i);
      cr_assert_eq(mlz_intern_text(&in, text), i);
    }
  cr_assert_eq(mlz_intern_find(&in, "key 1000001", 11), MLZ_INTERN_NONE);
  mlz_intern_clear(&in);
}
