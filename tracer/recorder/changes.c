#include "tracer/recorder/changes.h"

#include "tracer/recorder/rate.h"

#include <stdlib.h>

#define TYPED_MAX 1024u

void mlz_changes_init(struct mlz_changes *c, uint64_t word, double rate) {
  *c = (struct mlz_changes){.word = word};
  if (mlz_rate_valid(rate)) mlz_changes_typed(c, rate);
}

void mlz_changes_deinit(struct mlz_changes *c) {
  free(c->typed);
  free(c->list);
  *c = (struct mlz_changes){0};
}

void mlz_changes_typed(struct mlz_changes *c, double rate) {
  uint32_t word = mlz_rate_word(rate);
  for (uint32_t i = 0; i < c->n_typed; i++) {
    if (mlz_rate_word(c->typed[i]) == word) return;
  }
  double *grown = c->n_typed < TYPED_MAX ? reallocarray(c->typed, c->n_typed + 1, sizeof *grown) : NULL;
  if (!grown) return; /* mlz_rate_meant finds nearly always the same number */
  c->typed = grown;
  grown[c->n_typed++] = rate;
}

static double rate_of(const struct mlz_changes *c, uint64_t word) {
  uint32_t rate = mlz_settings_rate(word);
  for (uint32_t i = 0; i < c->n_typed; i++) {
    if (mlz_rate_word(c->typed[i]) == rate) return c->typed[i];
  }
  return mlz_rate_meant(rate);
}

double mlz_changes_weight(const struct mlz_changes *c, uint64_t word) { return 1 / rate_of(c, word); }

void mlz_changes_look(struct mlz_changes *c, uint64_t word, uint64_t ns) {
  uint64_t changed = (c->word ^ word) & MLZ_SET_CHANGEABLE;
  c->word = word;
  if (!changed) return;
  struct mlz_change *grown = c->n < MLZ_CHANGES_MAX ? reallocarray(c->list, c->n + 1, sizeof *grown) : NULL;
  if (!grown) {
    c->left_out++;
    return;
  }
  c->list = grown;
  grown[c->n++] = (struct mlz_change){.ns = ns, .word = word};
}

json_t *mlz_changes_json(const struct mlz_changes *c) {
  json_t *list = json_array();
  for (uint32_t i = 0; i < c->n; i++) {
    const struct mlz_change *change = &c->list[i];
    json_array_append_new(list, json_pack("{s:I,s:f,s:i,s:b}", "time_ns", (json_int_t)change->ns, "sample_rate", rate_of(c, change->word),
                                          "max_stack_depth", (int)mlz_settings_depth(change->word), "paused",
                                          (change->word & MLZ_SET_PAUSED) != 0));
  }
  return list;
}
