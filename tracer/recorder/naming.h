/* The end of a session with --native: what its native frames are called, into the file (SYMBOLS). A thread of its own looks the names up
 * (tracer/symbols), so that a large program's debug information, or a slow server, holds the end of the recording up only so long. Recorder process, main
 * thread, after the last group and before the writer is finished. */
#ifndef MLZ_RECORDER_NAMING_H
#define MLZ_RECORDER_NAMING_H

#include "tracer/recorder/allocators.h"
#include "tracer/recorder/drain.h"

/* Takes at most `bound_ns`. Returns how many frames were not looked at by then: a tool can do it later. `own` (NULL: nobody asks) gets the allocators
 * that the modules have linked in, before the names. */
uint64_t mlz_naming_run(struct mlz_drain *d, uint64_t bound_ns, struct mlz_own_allocators *own);

#endif
