/* Running totals: what the events of each process amount to so far, kept where they are encoded, so that the file says it now and then: TOTALS points of
 * kind 0, where a reader may begin (docs/format.md). Private to formats/; the appending thread's half of a writer. Budget: 5 ns an event, none of it on
 * the drain thread.
 *
 *   frame   one point of every process that has events since its last one, all behind the same GROUP.
 *
 * Memory: a row for each (stack, domain, weight) of the processes that run. */
#ifndef MLZ_FORMATS_RUNNING_H
#define MLZ_FORMATS_RUNNING_H

#include "formats/builder.h"
#include "formats/tables.h"

struct mlz_running;

struct mlz_running *mlz_running_new(const struct mlz_frame_rule *rule); /* NULL: out of memory */
struct mlz_running *mlz_running_free(struct mlz_running *r);

/* The events of a chunk that is being written. -ENOMEM: the totals are wrong from here on. */
int mlz_running_events(struct mlz_running *r, const struct mlz_builder *b);
/* `bytes` were written. */
void mlz_running_bytes(struct mlz_running *r, uint64_t bytes);
/* No more events of this process. */
void mlz_running_ended(struct mlz_running *r, uint32_t process);
/* Behind a GROUP: is a frame due? Its points, if so, and those of processes that ended, are appended to `out` as chunks that are not compressed and have
 * no checksum. 0, -ENOMEM: as above. */
int mlz_running_group(struct mlz_running *r, uint64_t now_ns, uint64_t all_peak_bytes, uint64_t all_peak_ns, struct mlz_buffer *out,
                      bool *framed);
void mlz_running_spent(struct mlz_running *r, uint64_t bytes); /* so many bytes of the file they took */

#endif
