/* From what the traced program sends (code ids, instruction offsets) to what the file names (strings, frames, stacks).
 * Recorder process, drain thread only.
 *
 *   code id   handed out by the agent, a new one for each code object, never reused in a session.
 *   content   what a code object says: names, first line, line table. Code objects with equal content share a content id, so
 *             that a program that compiles the same text again and again does not make the recorder grow.
 *   word      a frame as the stacks hold it: content id << 32 | offset, in which bit 31 (MLZ_FRAME_INLINED) is a mark.
 *
 * Lines are computed when a stack is seen for the first time; the line tables stay here and are not in the file. */
#ifndef MLZ_RECORDER_SYMBOLS_H
#define MLZ_RECORDER_SYMBOLS_H

#include "formats/writer.h"
#include "shm/record.h"
#include "tracer/recorder/filter.h"
#include "tracer/recorder/intern.h"
#include "tracer/recorder/paths.h"

struct mlz_content; /* decoded content of a code object */

struct mlz_window { /* what paths.h calls one, without its frame words */
  uint32_t count, depth;
  bool truncated;
};
struct mlz_window_slot {
  uint64_t hash; /* 0: empty */
  const uint32_t *frames;
  uint32_t kind; /* count, depth, truncated */
  uint32_t number;
};

struct mlz_recent_frame { /* of `places`; frame 0: empty */
  uint64_t word;
  uint32_t frame;
};
#define MLZ_RECENT_FRAMES 1024u

struct mlz_symbols {
  struct mlz_writer *writer;       /* NULL in tests: ids are counted all the same */
  const struct mlz_filter *filter; /* NULL: every stack is kept but for those of our own package */
  bool marked;                     /* frame words may carry MLZ_FRAME_INLINED: --native */
  uint32_t no_stack;               /* what an event without a stack has: 0, or MLZ_STACK_FILTERED */
  uint32_t strings_used, frames_used, stacks_used;
  struct mlz_intern strings; /* bytes -> string id */
  struct mlz_intern frames;  /* struct mlz_frame -> frame id */
  struct mlz_intern stacks;  /* frame ids, preceded by the truncated flag -> stack id */
  struct mlz_intern bodies;  /* CODE content -> content id */
  struct mlz_intern places;  /* frame word -> frame id */
  struct mlz_recent_frame *recent;
  uint32_t *content_of; /* code id -> content id; 0: not known */
  uint32_t content_of_size;
  struct mlz_content *contents; /* by content id; 0 is the unknown code */
  uint32_t contents_used, contents_size;
  struct mlz_paths paths; /* the hot way to a window */
  struct mlz_window_slot *windows;
  size_t windows_capacity, windows_count;
  uint32_t *stack_of; /* window's number -> stack id; 0: not asked for yet */
  uint32_t stack_of_size;
  uint32_t *piece; /* storage for the windows' frames */
  size_t piece_used, piece_size;
  void *pieces;
};

int mlz_symbols_init(struct mlz_symbols *s, struct mlz_writer *writer); /* -ENOMEM */
void mlz_symbols_deinit(struct mlz_symbols *s);
/* Before the first code is learned; borrowed. */
void mlz_symbols_set_filter(struct mlz_symbols *s, const struct mlz_filter *filter);

uint32_t mlz_symbols_string(struct mlz_symbols *s, const char *utf8, size_t bytes); /* 0 if memory is out */

/* Learns code `id` from a CODE message's joined pieces (struct mlz_code_header and what follows). -EINVAL: the lengths do not fit
 * together; the code stays unknown. A code that is known already is left as it is. */
int mlz_symbols_code(struct mlz_symbols *s, uint32_t id, const uint8_t *data, size_t bytes);

static inline uint32_t mlz_symbols_content(const struct mlz_symbols *s, uint32_t code_id) {
  return code_id < s->content_of_size ? s->content_of[code_id] : 0;
}

/* Frame id of a frame word (content id << 32 | offset). */
uint32_t mlz_symbols_frame(struct mlz_symbols *s, uint64_t word);

/* Frame id of any frame; *added: it is new. 0: out of memory. */
uint32_t mlz_symbols_frame_id(struct mlz_symbols *s, const struct mlz_frame *f, bool *added);
/* Id of the stack of these frames, innermost first; n at most MLZ_STACK_DEPTH_MAX. 0: out of memory. */
uint32_t mlz_symbols_stack_id(struct mlz_symbols *s, const uint32_t *frames, uint32_t n, bool truncated);
/* Does the filter keep a stack with these Python frames? */
bool mlz_symbols_kept(const struct mlz_symbols *s, const uint64_t *words, uint32_t n);

/* Number of a window of frame words, outermost first; 0 if memory is out. */
uint32_t mlz_symbols_window(struct mlz_symbols *s, const uint64_t *words, struct mlz_window w);
/* Stack id of the window, which has this number, or 0. MLZ_STACK_FILTERED: its blocks are not wanted, and it is not in the file. */
uint32_t mlz_symbols_window_stack(struct mlz_symbols *s, uint32_t number, const uint64_t *words, struct mlz_window w);
/* The same whatever the filter says: a collection is recorded with the stack that triggered it. */
uint32_t mlz_symbols_any_stack(struct mlz_symbols *s, const uint64_t *words, struct mlz_window w);

#endif
