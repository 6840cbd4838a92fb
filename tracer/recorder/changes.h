/* How the settings were changed while a session ran: for the weights of what was recorded since, and for every report. Recorder process,
 * main thread. */
#ifndef MLZ_RECORDER_CHANGES_H
#define MLZ_RECORDER_CHANGES_H

#include "shm/control.h"

#include <jansson.h>

struct mlz_change {
  uint64_t ns;
  uint64_t word; /* the settings from then on */
};

struct mlz_changes {
  uint64_t word; /* as last seen */
  double *typed; /* rates as they were typed, where somebody told us */
  uint32_t n_typed;
  struct mlz_change *list;
  uint32_t n, left_out; /* more than MLZ_CHANGES_MAX are counted only */
};
#define MLZ_CHANGES_MAX 1000u

void mlz_changes_init(struct mlz_changes *c, uint64_t word, double rate);
void mlz_changes_deinit(struct mlz_changes *c);
/* `rate` will be in the settings word. */
void mlz_changes_typed(struct mlz_changes *c, double rate);
/* The settings are `word` now, whoever changed them. */
void mlz_changes_look(struct mlz_changes *c, uint64_t word, uint64_t ns);
/* 1 / rate, of the rate as it was typed. */
double mlz_changes_weight(const struct mlz_changes *c, uint64_t word);
json_t *mlz_changes_json(const struct mlz_changes *c); /* new reference: `rate_changes` of docs/format.md */

#endif
