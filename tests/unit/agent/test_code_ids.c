/* Ids by address, against a plain table; codes that come and go, other interpreters, several writers. */
#include "tracer/agent/code_ids.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *code_at(uint64_t n) { return (const char *)(uintptr_t)(0x7f0000001000 + n * 32); }

Test(code_ids, as_a_plain_table_says) {
  enum { CODES = 30000, STEPS = 600000 };
  static uint64_t value[CODES];
  uint64_t random = 1, put = 0;
  cr_assert_eq(mlz_code_ids_get(code_at(0), -1), 0);
  cr_assert_not(mlz_code_ids_remove(code_at(0)));
  for (uint64_t step = 0; step < STEPS; step++) {
    random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t n = (random >> 33) % (step < STEPS / 2 ? CODES / 20 : CODES);
    if (random >> 62) {
      cr_assert(mlz_code_ids_put(code_at(n), -1, value[n] = ++put));
    } else {
      cr_assert_eq(mlz_code_ids_remove(code_at(n)), value[n] != 0);
      value[n] = 0;
    }
    n = (random >> 17) % CODES;
    cr_assert_eq(mlz_code_ids_get(code_at(n), -1), value[n]);
  }
  for (uint64_t n = 0; n < CODES; n++) cr_assert_eq(mlz_code_ids_get(code_at(n), -1), value[n]);
  mlz_code_ids_clear();
  for (uint64_t n = 0; n < CODES; n++) cr_assert_eq(mlz_code_ids_get(code_at(n), -1), 0);
}

Test(code_ids, an_address_of_another_interpreter_has_none) {
  cr_assert(mlz_code_ids_put(code_at(1), 3, 77));
  cr_assert_eq(mlz_code_ids_get(code_at(1), 3), 77);
  cr_assert_eq(mlz_code_ids_get(code_at(1), 4), 0);
  cr_assert(mlz_code_ids_put(code_at(1), 4, 78));
  cr_assert_eq(mlz_code_ids_get(code_at(1), 3), 0);
  cr_assert_eq(mlz_code_ids_get(code_at(1), 4), 78);
}

static long pages(void) {
  long size = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  cr_assert(f && fscanf(f, "%ld", &size) == 1);
  fclose(f);
  return size;
}

Test(code_ids, codes_that_come_and_go_take_no_more_memory) {
  for (uint64_t n = 0; n < 20000; n++) {
    cr_assert(mlz_code_ids_put(code_at(n), -1, n + 1));
    cr_assert(mlz_code_ids_remove(code_at(n)));
  }
  long before = pages();
  for (uint64_t n = 0; n < 2000000; n++) {
    cr_assert(mlz_code_ids_put(code_at(n), -1, n + 1));
    cr_assert(mlz_code_ids_remove(code_at(n)));
  }
  cr_assert_leq(pages() - before, 64);
}

static void *writer(void *context) {
  uint64_t which = (uint64_t)(uintptr_t)context;
  for (uint64_t step = 0; step < 200000; step++) {
    uint64_t n = which + 4 * (step % 5000);
    cr_assert(mlz_code_ids_put(code_at(n), (int64_t)which, step + 1));
    cr_assert_eq(mlz_code_ids_get(code_at(n), (int64_t)which), step + 1);
    if (step % 3 == 0) cr_assert(mlz_code_ids_remove(code_at(n)));
    if (step % 3 == 0) cr_assert_eq(mlz_code_ids_get(code_at(n), (int64_t)which), 0);
  }
  return NULL;
}

Test(code_ids, several_interpreters_write, .timeout = 120) {
  pthread_t threads[4];
  for (uintptr_t i = 0; i < 4; i++) cr_assert_eq(pthread_create(&threads[i], NULL, writer, (void *)i), 0);
  for (int i = 0; i < 20; i++) { /* a child goes on though another thread may have held the lock */
    pid_t child = fork();
    if (child == 0) _exit(mlz_code_ids_put(code_at(1000000), -1, 5) && mlz_code_ids_get(code_at(1000000), -1) == 5 ? 0 : 1);
    int status = -1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
  }
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}
