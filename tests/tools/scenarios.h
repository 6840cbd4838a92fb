/* Small, deterministic traces, made with the writer alone: what the analyzer's tests know exactly. In the test process; one thread.
 *   service     one Python process: start-up state, a list that only grows, a churn site, a peak, a cache, collections, a mark "warm"
 *   constant    the same without the growing list
 *   processes   two Python processes and a shell; their peaks do not coincide
 *   names       function and file names that need escaping
 *   sampled     rate 0.1
 *   lost        records were lost in the middle
 *   empty       nothing was traced
 *   bulk        `events` events, for speed */
#ifndef MLZ_TESTS_SCENARIOS_H
#define MLZ_TESTS_SCENARIOS_H

#include <stdbool.h>
#include <stdint.h>

/* false: no such scenario. Ends the program with a line if the file cannot be written. */
bool mlz_scenario_write(const char *name, const char *path, uint64_t events);

#endif
