/* Which processes still belong to a session although the recorder may not know them: one that forked and has allocated nothing since, one that
 * outlives the recorder. Looks through /proc, some milliseconds. */
#ifndef MLZ_RECORDER_SURVIVORS_H
#define MLZ_RECORDER_SURVIVORS_H

#include <stdbool.h>

bool mlz_survivors_map(const char *memfd_name);     /* does any other process map the arena? */
bool mlz_survivors_preload(const char *session_id); /* was any other process started with this session's LD_PRELOAD? */

#endif
