/* Sites: stacks (or threads, processes, domains) brought together as --group asks. Memory: one entry for each site. */
#ifndef MLZ_ANALYZER_SITES_H
#define MLZ_ANALYZER_SITES_H

#include "analyzer/report.h"
#include "analyzer/tally.h"

enum mlz_group {
  MLZ_GROUP_LINE,
  MLZ_GROUP_FUNCTION,
  MLZ_GROUP_FILE,
  MLZ_GROUP_MODULE,
  MLZ_GROUP_STACK,
  MLZ_GROUP_THREAD,
  MLZ_GROUP_PROCESS,
  MLZ_GROUP_DOMAIN
};
#define MLZ_GROUP_CHOICES "line|function|file|module|stack|thread|process|domain"
enum mlz_metric { MLZ_BY_ALLOC_BYTES, MLZ_BY_ALLOC_COUNT, MLZ_BY_LIVE_BYTES, MLZ_BY_PEAK_BYTES, MLZ_BY_TEMPORARY };
#define MLZ_METRIC_CHOICES "alloc-bytes|alloc-count|live-bytes|peak-bytes|temporary"

enum mlz_tally_key mlz_group_key(enum mlz_group group);

struct mlz_site {
  struct mlz_tally tally;
  double peak_bytes, peak_count;
  struct mlz_spread spread, peak_spread;
  uint32_t row;  /* of the tally: the one that contributes most; a stack id for all groups that have stacks */
  double weight; /* what that one contributes to the metric */
};

struct mlz_sites {
  enum mlz_group group;
  struct mlz_site *sites; /* largest first */
  size_t n;
};

double mlz_tally_live_bytes(const struct mlz_tally *t); /* never below 0 for keys that free what others allocated */
double mlz_metric_of(const struct mlz_tally *tally, double peak_bytes, enum mlz_metric metric);

/* `now` and `peak` (NULL: not asked for) have mlz_group_key(group) as their key; peak holds the live blocks at the peak. */
void mlz_sites_build(struct mlz_input *in, enum mlz_group group, enum mlz_metric metric, const struct mlz_tally_run *now,
                     const struct mlz_tally_run *peak, struct mlz_sites *out);
/* Half the width of the interval around what the metric says (spread.h). */
double mlz_metric_error(const struct mlz_spread *spread, const struct mlz_spread *peak, enum mlz_metric metric);
void mlz_sites_clear(struct mlz_sites *sites);

/* The two columns that name a site; malloc'd, clean. `where` may be "". */
void mlz_site_label(struct mlz_input *in, enum mlz_group group, const struct mlz_site *site, char **name, char **where);
/* Adds the keys that name it (function, file, line, language, stack; or name, tid, pid). */
void mlz_site_add_json(struct mlz_input *in, enum mlz_group group, const struct mlz_site *site, json_t *object);

#endif
