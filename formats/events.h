/* The event vocabulary of a .mlyze file, shared by its writer and its reader.
 *
 * Glossary
 *   process   one program image (record.h calls it an image): a fork or an exec begins a new one.
 *   class     (stack, size, domain, weight): what one kind of block in one chunk looks like. Each chunk has its
 *             own table of classes; events name a class by its index there.
 *   group     the chunks between two GROUP chunks: one consistent cut over all processes.
 * docs/format.md is normative. */
#ifndef MLZ_FORMATS_EVENTS_H
#define MLZ_FORMATS_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MLZ_CHUNK_EVENTS_MAX (1u << 18) /* op 6 and ops 7 to 15 never reach a caller: docs/format.md */

enum mlz_op {
  MLZ_OP_ALLOC = 0,
  MLZ_OP_FREE = 1,          /* of a block allocated in this chunk */
  MLZ_OP_FREE_TEMP = 2,     /* the same, and the thread has allocated nothing since */
  MLZ_OP_FREE_OLD = 3,      /* of a block allocated in an earlier chunk: names class and allocation */
  MLZ_OP_FREE_OLD_TEMP = 4, /* the same, and the thread has allocated nothing since */
  MLZ_OP_FREE_FOREIGN = 5,  /* of a block inherited by fork, or whose allocation was lost: no class */
  MLZ_OP_RARE = 16,         /* from here: events with a row in the rare column */
  MLZ_OP_GC = 16,
  MLZ_OP_MARK = 17,
  MLZ_OP_SNAPSHOT = 18,
  MLZ_OP_FINALIZE = 19, /* the end of the process; what follows is its finalisation */
  MLZ_OP_LOST = 20,     /* records were lost here */
  MLZ_OP_THREAD_START = 21,
  MLZ_OP_THREAD_END = 22,
  MLZ_OP_COUNT
};

/* One row of the rare column. Unused fields are 0. Times: ns since the start of the trace. */
struct mlz_rare {
  uint64_t start_ns;      /* GC: its start. Others: their instant */
  uint64_t duration_ns;   /* GC */
  uint64_t collected;     /* GC; LOST: allocations lost */
  uint64_t uncollectable; /* GC; LOST: frees lost */
  uint32_t generation;    /* GC */
  uint32_t stack;         /* GC: the stack that triggered it */
  uint32_t name;          /* MARK, SNAPSHOT: string id */
  uint32_t op;            /* enum mlz_op */
};

/* The outermost layer that was called for a block: the interpreter's three, the C library's, address space. The recorder
 * asserts that it equals enum mlz_domain of shm/record.h. */
enum mlz_block_domain {
  MLZ_BLOCK_RAW = 0,
  MLZ_BLOCK_MEM = 1,
  MLZ_BLOCK_OBJ = 2,
  MLZ_BLOCK_MALLOC = 3,
  MLZ_BLOCK_MMAP = 4,
  MLZ_BLOCK_DOMAINS
};

struct mlz_class {
  uint64_t size;   /* bytes */
  double weight;   /* how many allocations of the program this one stands for: 1/rate, or 1 */
  uint32_t stack;  /* stack id; 0: the empty stack */
  uint32_t domain; /* enum mlz_block_domain */
};

enum mlz_language {
  MLZ_LANG_PYTHON = 0,
  MLZ_LANG_NATIVE = 1,
  MLZ_LANG_ADDRESS = 2,  /* in the file only: native, not resolved; the reader shows what it stands for */
  MLZ_LANG_INFERRED = 3, /* native, and not on the stack: debug information tells of it (the caller of a tail call) */
};

struct mlz_frame {
  uint32_t function; /* string ids */
  uint32_t file;
  uint32_t module;
  uint32_t line;     /* 0: not known */
  uint32_t language; /* enum mlz_language */
};

/* A native frame by its address. `address`: in the sense of the module's program headers, moved back onto the call. */
static inline struct mlz_frame mlz_frame_at(uint32_t module, uint64_t address) {
  return (struct mlz_frame){.function = module, .file = (uint32_t)(address >> 32), .line = (uint32_t)address, .language = MLZ_LANG_ADDRESS};
}

#endif
