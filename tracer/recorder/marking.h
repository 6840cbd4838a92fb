/* Marks that come from outside the traced program: their place in the trace. Their names: shm/mailbox_ask.h. */
#ifndef MLZ_RECORDER_MARKING_H
#define MLZ_RECORDER_MARKING_H

#include "tracer/recorder/drain.h"

/* The ring whose thread carries a mark: the oldest one of the process, or of the oldest process that runs. NULL: no process has a ring. */
struct mlz_feed *mlz_marking_feed(const struct mlz_drain *d, uint32_t pid);
/* As a MARK record of that thread would: behind all of its events that were read so far. */
void mlz_marking_add(struct mlz_drain *d, struct mlz_feed *f, enum mlz_mark kind, const char *name, size_t bytes, uint64_t ns);

/* After a round: the snapshot "snapshot-N" once N * drain.every_ns have passed since the start of the trace. One that nobody was there for, because
 * no process ran or the recorder was stopped, is left out; the others keep their numbers. */
void mlz_marking_periodic(struct mlz_drain *d);

#endif
