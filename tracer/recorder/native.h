/* Native stacks (docs/native.md): the nodes that rings send become one trie of the session, and a node and the Python frames beside it one stack.
 * Recorder process, drain thread only. Made for a session with --native only: without it nothing here is called.
 *
 *   module  a file of code: path and build id. Images and rings that name the same one share a row of the file.
 *   node    a native frame and its caller's node. Equal ones of all rings are one: numbers from 1, 0 is the empty stack.
 *   pair    node, window (paths.h), bare: what a stack is made from. Its stack is looked up, and merged when the pair is new.
 *
 * Budget: an unchanged pair costs the one comparison that an unchanged Python stack costs, a known one 10 ns. */
#ifndef MLZ_RECORDER_NATIVE_H
#define MLZ_RECORDER_NATIVE_H

#include "tracer/recorder/drain.h"

struct mlz_module {
  uint32_t row; /* of MODULES */
  const char *path;
  const uint8_t *build_id;
  unsigned build_id_bytes;
  int file; /* the file as the program saw it when it was announced; -1: its path must do */
};
struct mlz_node {
  uint64_t address; /* moved back onto the call */
  uint32_t module;  /* 0: none */
  uint32_t caller;
  uint32_t frame; /* id in the file; 0: not asked for yet */
  uint16_t depth;
  uint8_t flags; /* enum mlz_native_flag */
};
struct mlz_named { /* a frame of the file that is a native address */
  uint32_t frame;
  uint32_t module;
  uint64_t address;
};
struct mlz_pair {
  uint64_t key; /* 0: empty */
  uint32_t stack;
};
#define MLZ_PAIRS_RECENT 4096u

struct mlz_native {
  struct mlz_module *modules; /* [0]: none */
  uint32_t modules_n, modules_room, files_open;
  struct mlz_intern module_ids; /* path and build id -> module */
  struct mlz_node *nodes;       /* [0]: none */
  uint32_t nodes_n, nodes_room;
  uint32_t *node_slots; /* open addressing, numbers of nodes */
  uint32_t node_mask;
  struct mlz_named *named;
  uint32_t named_n, named_room;
  struct mlz_pair *recent, *pairs;
  uint32_t pairs_mask, pairs_n;
  uint64_t uneven; /* stacks whose loops of the interpreter and Python frames do not answer each other */
};

struct mlz_native *mlz_native_new(struct mlz_symbols *s); /* NULL: out of memory */
struct mlz_native *mlz_native_free(struct mlz_native *n);

/* The file at the absolute path, as the process sees it (pid 0: as we do). -1: none, or no plain file, which is never opened. */
int mlz_native_open_file(uint32_t pid, const char *path);
/* What MODULE carries in the side buffer. Returns the module's number; 0: it makes no sense, or memory is out. */
uint32_t mlz_native_module_of(struct mlz_native *n, struct mlz_symbols *s, uint32_t pid, const uint8_t *data, size_t bytes);
/* The node of the frame; 0: memory is out, or the stack is too deep. */
uint32_t mlz_native_node_of(struct mlz_native *n, uint32_t caller, uint32_t module, uint64_t address, unsigned flags);

struct mlz_merged {
  uint32_t node; /* 0: a Python frame */
  uint64_t word; /* of the Python frame */
};
struct mlz_python_frames {
  const uint64_t *words; /* outermost first; NULL: a thread without Python, loops of the interpreter stand for themselves */
  uint32_t count;
  bool below; /* more lie below words[0] */
};
/* One stack, innermost first, of at most `depth` frames into `out`. *truncated: there were frames further out. */
uint32_t mlz_native_merge(const struct mlz_native *n, uint32_t node, uint32_t bare, struct mlz_python_frames python, uint32_t depth,
                          struct mlz_merged *out, bool *truncated);

/* Stack id of the feed's present pair, or MLZ_STACK_FILTERED. */
uint32_t mlz_native_stack(struct mlz_drain *d, struct mlz_feed *f);
uint32_t mlz_native_alone(struct mlz_drain *d, struct mlz_feed *f); /* of an event without a Python stack */
/* Of a collection, whatever the filter says: its Python frames. The native node is that of the allocation before. */
uint32_t mlz_native_python_stack(struct mlz_drain *d, const struct mlz_feed *f);

/* Messages; false: it is none. */
bool mlz_native_take_module(struct mlz_drain *d, struct mlz_feed *f, uint64_t value, const uint8_t *data, size_t bytes);
bool mlz_native_take_node(struct mlz_drain *d, struct mlz_feed *f, uint64_t caller, unsigned flags, uint64_t word);
void mlz_native_reset(struct mlz_feed *f);
void mlz_native_forget(struct mlz_feed *f); /* the feed goes */

static inline bool mlz_native_set(struct mlz_feed *f, uint64_t node, unsigned flags) {
  if (__builtin_expect(node > f->nodes_n, 0)) return false;
  f->native = node ? f->nodes[node] : 0;
  f->bare = flags & MLZ_N_BARE ? 1 + (flags >> MLZ_N_BARE_SHIFT & 15) : 0;
  f->stack = f->alone = 0;
  return true;
}

#endif
