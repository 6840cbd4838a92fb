/* The marks: set, test and clear in both maps, neighbours, far addresses, threads. */
#include "tracer/agent/marks.h"

#include <criterion/criterion.h>
#include <pthread.h>

Test(marks, set_test_clear) {
  const void *a = (const void *)(uintptr_t)0x7f0012345670, *b = (const void *)(uintptr_t)0x7f0012345680;
  for (int map = 0; map < 2; map++) {
    cr_assert_not(mlz_marks_test(a, map));
    cr_assert(mlz_marks_set(a, map));
    cr_assert(mlz_marks_test(a, map));
    cr_assert_not(mlz_marks_test(b, map));
    cr_assert_eq(mlz_marks_test(a, !map), map == 1, "the maps are apart");
  }
  cr_assert(mlz_marks_take(a, 0));
  cr_assert_not(mlz_marks_take(a, 0));
  cr_assert_not(mlz_marks_test(a, 0));
  cr_assert(mlz_marks_test(a, 1));
}

Test(marks, borders) {
  const uintptr_t at[] = {16, 0xfffffff0, 0x100000000, 0x7ffffffffff0, ((uintptr_t)1 << 28) - 16, (uintptr_t)1 << 28};
  for (size_t i = 0; i < 6; i++) cr_assert(mlz_marks_set((void *)at[i], 0));
  for (size_t i = 0; i < 6; i++) cr_assert(mlz_marks_test((void *)at[i], 0));
  cr_assert_not(mlz_marks_test((void *)(uintptr_t)0x555500000000, 0), "a piece that was never made");
}

/* Two threads own alternate bits of the same words: none may get lost. */
static void *alternate(void *arg) {
  uintptr_t first = (uintptr_t)arg;
  for (int round = 0; round < 50; round++) {
    for (uintptr_t a = 0; a < 65536; a += 32) mlz_marks_set((void *)(0x600000000000 + first + a), MLZ_MARKS_SHARED);
    for (uintptr_t a = 0; a < 65536; a += 32)
      if (!mlz_marks_test((void *)(0x600000000000 + first + a), MLZ_MARKS_SHARED)) return (void *)1;
    for (uintptr_t a = 0; a < 65536; a += 32) mlz_marks_take((void *)(0x600000000000 + first + a), MLZ_MARKS_SHARED);
  }
  return NULL;
}
Test(marks, threads_share_words) {
  pthread_t t[2];
  mlz_marks_atomic[MLZ_MARKS_SHARED] = true;
  for (uintptr_t i = 0; i < 2; i++) pthread_create(&t[i], NULL, alternate, (void *)(i * 16));
  for (int i = 0; i < 2; i++) {
    void *bad;
    pthread_join(t[i], &bad);
    cr_assert_null(bad);
  }
}
