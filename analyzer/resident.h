/* Resident memory, as the system counts it: what the recorder saw of it ten times a second while it recorded. One thread. */
#ifndef MLZ_ANALYZER_RESIDENT_H
#define MLZ_ANALYZER_RESIDENT_H

#include "analyzer/input.h"

/* Whose memory that was; NULL: of a process that no table names. */
const struct mlz_process *mlz_resident_process(const struct mlz_input *in, const struct mlz_rss *seen);
/* The most that the chosen processes had together at one of those times. false: nothing was seen. */
bool mlz_resident_peak(struct mlz_input *in, uint64_t *bytes, uint64_t *ns);

#endif
