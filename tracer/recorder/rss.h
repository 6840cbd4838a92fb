/* What the traced processes take of the machine's memory, beside what they allocate: read from /proc ten times a second while there is something to record, and
 * written with the next group. Recorder process, main thread. */
#ifndef MLZ_RECORDER_RSS_H
#define MLZ_RECORDER_RSS_H

#include "tracer/recorder/drain.h"

/* In each round. One short read for each process that lives, when it is time. */
void mlz_rss_look(struct mlz_drain *d);
/* Moves what was seen into a group's state, as the key "rss" of docs/format.md. */
void mlz_rss_tell(struct mlz_drain *d, json_t *state);

#endif
