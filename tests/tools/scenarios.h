/* Small, deterministic traces, made with the writer alone: what the analyzer's tests know exactly. In the test process; one thread.
 *   service     one Python process: start-up state, a list that only grows, a churn site, a peak, a cache, collections, a mark "warm"
 *   constant    the same without the growing list
 *   processes   two Python processes and a shell; their peaks do not coincide
 *   names       function and file names that need escaping
 *   sampled     rate 0.1
 *   lost        records were lost in the middle
 *   empty       nothing was traced
 *   histories   `events` / 20 requests; blocks that are kept for good, in a cache, in a queue, until a buffer is full, until a full collection
 *   children    a parent and 40 short children that each build the same list
 *   append      start-up, then a list to which `events` blocks are added at once, in one chunk; its buffer is reallocated on the same line;
 *               killed. Beside it a buffer of 50 blocks that is filled and emptied
 *   handover    four threads, one after the other, add to one list by callers of their own; and four that fill the same cache anew
 *   marks       two Python processes that keep 100 bytes each millisecond and set a mark "warm" at 1 and 3 ms (parent), 2 and 4 ms (child);
 *               the parent a snapshot "last" at 5 ms
 *   version1, version2  one program, edited and moved: lines of "serve" are 4 further down and allocate otherwise, "old" is gone, "new" came
 *   bulk        `events` events, for speed */
#ifndef MLZ_TESTS_SCENARIOS_H
#define MLZ_TESTS_SCENARIOS_H

#include <stdbool.h>
#include <stdint.h>

/* false: no such scenario. Ends the program with a line if the file cannot be written. */
bool mlz_scenario_write(const char *name, const char *path, uint64_t events);

#endif
