/* From full builders to the file: a second thread compresses and writes, so that the drain never waits for a disk
 * unless a bounded number of groups is under way. The two threads hand work over by wait-free queues (liburcu wfcqueue).
 *
 * Ownership: builders and table bytes go to the writer thread with a group and come back empty. An error of the disk is
 * remembered; from then on groups are thrown away, so that the traced program runs on. */
#ifndef MLZ_RECORDER_EMIT_H
#define MLZ_RECORDER_EMIT_H

#include "formats/writer.h"

struct mlz_emit;

int mlz_emit_new(struct mlz_emit **out, struct mlz_writer *w); /* starts the thread */
struct mlz_emit *mlz_emit_free(struct mlz_emit *e);            /* after mlz_emit_join */

/* An empty builder; waits for the writer thread if too many are under way. NULL: out of memory. */
struct mlz_builder *mlz_emit_builder(struct mlz_emit *e);

/* Processes of which the next group holds the last events. */
void mlz_emit_ended(struct mlz_emit *e, uint32_t process);
/* Hands over one group: builders (ownership moves) and all table rows so far. `state` (reference taken) is the state of the counters.
 * When memory is out the group is lost and mlz_emit_error says so. */
void mlz_emit_group(struct mlz_emit *e, struct mlz_builder **builders, unsigned n, uint64_t now_ns, json_t *state);

/* Called by the writer thread when the next group is written, before it counts as done. */
void mlz_emit_after(struct mlz_emit *e, void (*run)(void *context), void *context);

/* Waits until all groups are written and ends the thread. */
void mlz_emit_join(struct mlz_emit *e);
int mlz_emit_error(struct mlz_emit *e);       /* 0, or the negative errno of the first failure */
uint64_t mlz_emit_bytes(struct mlz_emit *e);  /* written so far; any time */
uint64_t mlz_emit_events(struct mlz_emit *e); /* events in groups that were written whole */
/* Groups handed over (drain thread only), and how many of them are written or failed (any time). */
uint64_t mlz_emit_handed(const struct mlz_emit *e);
uint64_t mlz_emit_done(struct mlz_emit *e);

#endif
