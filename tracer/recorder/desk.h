/* The recorder's side of the mailbox (shm/mailbox.h): takes a request at the beginning of a round, obeys it at the end, so that what the
 * program did before comes before it in the trace, and answers once it is done. Recorder process, main thread. */
#ifndef MLZ_RECORDER_DESK_H
#define MLZ_RECORDER_DESK_H

#include "shm/mailbox.h"
#include "tracer/recorder/drain.h"

struct mlz_desk {
  struct mlz_mailbox *box;
  uint32_t command_pid;
  uint32_t number; /* of the request under way */
  bool taken;      /* ... and whether there is one */
  bool obeyed;
  bool flight; /* there is a flight recorder */
  uint32_t answer;
  uint64_t answer_ns;
  const char *dump;           /* where a flight recorder is to be written; NULL: its own file */
  bool dump_due;              /* in this round */
  uint64_t group;             /* that must be written before the answer */
  struct mlz_request request; /* a copy: whoever can write the arena may change the original at any time */
};

void mlz_desk_init(struct mlz_desk *desk, struct mlz_control *control, uint32_t command_pid, bool flight);
/* Before the heads of a round are read. One load if nothing is asked. */
void mlz_desk_look(struct mlz_desk *desk);
/* After the round. A mark or snapshot asks for a group (drain.group_wanted). */
void mlz_desk_obey(struct mlz_desk *desk, struct mlz_drain *d);
/* After the group was handed over; again in each round until a mark's group is in the file, so that a tool finds it there. */
void mlz_desk_answer(struct mlz_desk *desk, struct mlz_emit *emit, int dump_error); /* of the last dump */

#endif
