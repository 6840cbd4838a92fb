/* Two measures beside each other: what is new, gone, grew or shrank, site by site. Stacks are the same if they go through the same functions and end in
 * the same line. One thread. Memory: an entry for each site of either trace. */
#ifndef MLZ_ANALYZER_DIFF_H
#define MLZ_ANALYZER_DIFF_H

#include "analyzer/match.h"
#include "analyzer/measure.h"

enum mlz_diff_status { MLZ_DIFF_NEW, MLZ_DIFF_GONE, MLZ_DIFF_GREW, MLZ_DIFF_SHRANK, MLZ_DIFF_SAME, MLZ_DIFF_STATUSES };
const char *mlz_diff_status_name(enum mlz_diff_status status);

struct mlz_diff_site {
  struct mlz_amount amount[MLZ_SIDES];
  struct mlz_spread spread[MLZ_SIDES];
  struct mlz_spread between;           /* of what was allocated between two instants of one trace; see mlz_diff_between */
  uint32_t stack[MLZ_SIDES];           /* the one that contributes most; MLZ_INTERN_NONE: it is not in that trace */
  double weight[MLZ_SIDES];            /* what that one contributes */
  double error[MLZ_SIDES], difference; /* half the widths of the intervals: of each value, and of the difference of both */
};

struct mlz_diff {
  enum mlz_group group;
  enum mlz_metric metric;
  struct mlz_diff_site *sites; /* largest difference first */
  size_t n;
  struct mlz_diff_site total; /* of all that both traces hold */
};

/* Values are those of the two measures. `between`: NULL, or what mlz_diff_between gave. */
void mlz_diff_build(const struct mlz_match *match, const struct mlz_measure *measures, const struct mlz_tally_run *between,
                    enum mlz_group group, struct mlz_diff *out);
void mlz_diff_clear(struct mlz_diff *diff);

/* Two instants of one trace share their blocks, so only what came or went between them makes the difference uncertain. false: no two instants of one
 * sampled trace, or a metric of which that is not known; nothing to clear. */
bool mlz_diff_between(struct mlz_input *const *in, const struct mlz_measure *measures, bool include_mmap, struct mlz_tally_run *out);

static inline double mlz_diff_delta(const struct mlz_diff_site *s) { return s->amount[MLZ_AFTER].value - s->amount[MLZ_BEFORE].value; }
/* By the values alone: new where there was nothing of the metric before, gone where there is nothing after. */
enum mlz_diff_status mlz_diff_status_of(const struct mlz_diff_site *s);
/* The samples allow that there is no difference. */
static inline bool mlz_diff_is_noise(const struct mlz_diff_site *s) {
  double delta = mlz_diff_delta(s);
  return s->difference > 0 && (delta < 0 ? -delta : delta) <= s->difference;
}
/* Adds values and uncertainties (of a selection, say); mlz_diff_finish then makes the intervals. */
void mlz_diff_add(struct mlz_diff_site *into, const struct mlz_diff_site *more);
void mlz_diff_finish(struct mlz_diff_site *site, enum mlz_metric metric, bool between);

#endif
