/* The sampling gate: one allocation in each window, at a place that no periodic program can follow. */
#include "tracer/agent/gate.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mlz_python mlz_python; /* none: the gate asks whether one has just begun */

static struct mlz_tls *fresh(double rate, uint32_t number) {
  static struct mlz_ring ring;
  static struct mlz_tls t;
  static struct mlz_thread th;
  t = (struct mlz_tls){.thread = &th, .over = UINT64_MAX};
  memset(&th, 0, offsetof(struct mlz_thread, ended));
  th.out.ring = &ring;
  th.sample_key = (uint64_t)number << 40;
  t.settings = (uint64_t)(rate * 4294967296.0) - 1;
  mlz_gate_reset(&t);
  return &t;
}

static uint64_t passed(const struct mlz_tls *t) { return atomic_load(&t->thread->out.ring->allocs_passed); }

Test(gate, rate_one_takes_everything) {
  struct mlz_tls *t = fresh(1.0, 1);
  for (int i = 1; i <= 1000; i++) cr_assert_eq(mlz_gate(t, 16), MLZ_GATE_TAKE);
  cr_assert_eq(passed(t), 0);
}

Test(gate, what_is_refused_was_passed_over) {
  struct mlz_tls *t = fresh(1.0, 1);
  for (int i = 1; i <= 10; i++) {
    mlz_gate(t, 16);
    if (i % 2) mlz_gate_refuse(t);
  }
  cr_assert_eq(passed(t), 5);
}

/* Windows of 1/R allocations, which need not be a whole number: after n allocations n R are taken, to the next whole number below or above. */
Test(gate, exactly_one_in_each_window) {
  const double rates[] = {0.5, 0.3, 0.1, 0.05, 0.01, 0.999, 1.0 / 3, 2.0 / 3, 0.55, 0.7, 1e-4};
  for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
    struct mlz_tls *t = fresh(rates[r], 7);
    double rate = ((double)mlz_settings_rate(t->settings) + 1) / 4294967296.0;
    uint64_t taken = 0;
    for (uint64_t n = 1; n <= 100000; n++) {
      taken += mlz_gate(t, 16) == MLZ_GATE_TAKE;
      cr_assert(fabs((double)taken - (double)n * rate) < 1 + 1e-6, "rate %g: %lu of %lu taken", rates[r], taken, n);
    }
  }
}

/* Whatever its place in the windows, an allocation is taken with probability R: those across a boundary, too. */
Test(gate, every_place_has_the_same_probability) {
  enum { PLACES = 40, THREADS = 50000 };
  const double rates[] = {0.5, 0.3, 0.4, 2.0 / 3, 0.7, 0.55, 0.9, 0.07};
  for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
    unsigned taken[PLACES] = {0};
    for (uint32_t thread = 1; thread <= THREADS; thread++) {
      struct mlz_tls *t = fresh(rates[r], thread);
      for (unsigned i = 0; i < PLACES; i++) taken[i] += mlz_gate(t, 16) == MLZ_GATE_TAKE;
    }
    double expected = THREADS * rates[r], slack = 4.5 * sqrt(expected * (1 - rates[r]));
    for (unsigned i = 0; i < PLACES; i++)
      cr_assert(fabs(taken[i] - expected) < slack, "rate %g, allocation %u: %u of %g", rates[r], i, taken[i], expected);
  }
}

/* A program that allocates A, B, A, B, ...: each class must be sampled near its share, whatever the period and the rate. */
Test(gate, no_alias_with_periods) {
  const unsigned periods[] = {2, 3, 4, 10};
  const double rates[] = {0.5, 0.25, 0.1, 0.05, 1.0 / 3};
  for (size_t r = 0; r < 5; r++)
    for (size_t p = 0; p < 4; p++) {
      struct mlz_tls *t = fresh(rates[r], 1);
      const unsigned n = 400000;
      unsigned hits[10] = {0};
      for (unsigned i = 0; i < n; i++) hits[i % periods[p]] += mlz_gate(t, 16) == MLZ_GATE_TAKE;
      for (unsigned k = 0; k < periods[p]; k++) {
        /* n R windows, each choosing class k with probability 1/period: 4.5 standard deviations */
        double expected = n * rates[r] / periods[p], slack = 4.5 * sqrt(expected * (1 - 1.0 / periods[p]));
        cr_assert(fabs(hits[k] - expected) < slack, "rate %g period %u class %u: %u of %g", rates[r], periods[p], k, hits[k], expected);
      }
    }
}

Test(gate, threads_choose_differently_and_repeatably) {
  static unsigned char a[10000], b[10000], c[10000];
  struct mlz_tls *t = fresh(0.1, 1);
  for (int i = 0; i < 10000; i++) a[i] = mlz_gate(t, 16) == MLZ_GATE_TAKE;
  t = fresh(0.1, 1);
  for (int i = 0; i < 10000; i++) b[i] = mlz_gate(t, 16) == MLZ_GATE_TAKE;
  t = fresh(0.1, 2);
  for (int i = 0; i < 10000; i++) c[i] = mlz_gate(t, 16) == MLZ_GATE_TAKE;
  cr_assert_arr_eq(a, b, sizeof(a));
  cr_assert_neq(memcmp(a, c, sizeof(a)), 0);
}

Test(gate, large_blocks_are_certain) {
  struct mlz_tls *t = fresh(0.01, 1);
  t->over = 1000;
  unsigned certain = 0, taken = 0;
  for (int i = 0; i < 10000; i++) {
    enum mlz_gate_answer g = mlz_gate(t, i % 4 ? 16 : 1000);
    certain += g == MLZ_GATE_CERTAIN;
    taken += g == MLZ_GATE_TAKE;
    cr_assert((i % 4 != 0) || g == MLZ_GATE_CERTAIN);
  }
  cr_assert_eq(certain, 2500);
  cr_assert(taken > 40 && taken <= 100);
  mlz_gate_publish(t);
  cr_assert_eq(passed(t), 10000 - certain - taken);
}

Test(gate, seen_is_exact_at_every_record) {
  struct mlz_tls *t = fresh(0.07, 3);
  uint64_t taken = 0;
  for (uint64_t i = 1; i <= 20000; i++)
    if (mlz_gate(t, 16) != MLZ_GATE_PASS) cr_assert_eq(passed(t) + ++taken, i);
  mlz_gate_publish(t);
  cr_assert_eq(passed(t) + taken, 20000);
}

Test(gate, a_change_of_rate_keeps_the_count) {
  struct mlz_tls *t = fresh(0.1, 1);
  uint64_t taken = 0;
  for (int i = 0; i < 777; i++) taken += mlz_gate(t, 16) != MLZ_GATE_PASS;
  t->settings = (uint64_t)(0.5 * 4294967296.0) - 1;
  mlz_gate_reset(t);
  for (int i = 0; i < 223; i++) taken += mlz_gate(t, 16) != MLZ_GATE_PASS;
  mlz_gate_publish(t);
  cr_assert_eq(passed(t) + taken, 1000);
  t->settings |= MLZ_SET_PAUSED;
  mlz_gate_reset(t);
  for (int i = 0; i < 1000; i++) cr_assert_eq(mlz_gate(t, 1 << 30), MLZ_GATE_PASS);
  mlz_gate_publish(t);
  cr_assert_eq(passed(t) + taken, 2000);
}
