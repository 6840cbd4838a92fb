/* Instants as people write them, and the marks and snapshots of a trace, which give some of them a name. One thread. Reading the marks is a scan of
 * its own; memory: a few words for each of them.
 *
 * A name that was set several times means the last of them, in the chosen processes if one of those set it; NAME#1 is the first of all, NAME#2 the
 * second. The instant is exact in the process that set it, and a time in the others. */
#ifndef MLZ_ANALYZER_INSTANTS_H
#define MLZ_ANALYZER_INSTANTS_H

#include "analyzer/scan.h"

struct mlz_mark {
  const char *name; /* of the trace */
  uint64_t ns;
  uint64_t ordinal; /* events of its process up to it */
  uint32_t process; /* index */
  bool snapshot;
};
struct mlz_marks {
  struct mlz_mark *marks; /* in the order of time */
  size_t n, room;
};
void mlz_marks_read(struct mlz_input *in, struct mlz_marks *marks);
void mlz_marks_clear(struct mlz_marks *marks);
/* The one that `name` means (see above); NULL: none. `same`: how many have this very name. */
const struct mlz_mark *mlz_marks_find(const struct mlz_input *in, const struct mlz_marks *marks, const char *name, size_t *same);

/* For the help of every tool. */
#define MLZ_TIME_NOTE                                                                                                                      \
  "TIME: 1.5s, 200ms, 90%, peak, end, or the name of a mark or snapshot (the last\n"                                                       \
  "of that name; NAME#1: the first). trace.mlyze@TIME is the trace as it was then.\n"

enum mlz_when_kind { MLZ_WHEN_NONE, MLZ_WHEN_END, MLZ_WHEN_PEAK, MLZ_WHEN_TIME, MLZ_WHEN_PERCENT, MLZ_WHEN_NAME };
struct mlz_when {
  enum mlz_when_kind kind;
  uint64_t ns;
  double percent;
  const char *name;
};
/* NULL: MLZ_WHEN_NONE. Everything that is not a time is a name. */
struct mlz_when mlz_when_parse(const char *text);
/* What follows the @ of a trace's name: a mark or snapshot even if it reads like a time; a time, where none is called so. */
struct mlz_when mlz_when_parse_at(struct mlz_input *in, const char *text);
/* false: PEAK (the caller runs mlz_peak_find) and NONE, cut untouched. A name that the trace does not have ends the program with the list of those it
 * has; one that several marks have is told on stderr. */
bool mlz_when_resolve(struct mlz_input *in, const struct mlz_when *when, struct mlz_cut *cut);

#endif
