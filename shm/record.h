/* The record layout: what a traced thread writes into its ring and the recorder reads.
 *
 * Glossary
 *   slot     16 bytes, the unit of a ring.
 *   message  one head slot and its payload slots; published whole by one store of the ring's head index.
 *   granule  address >> 4. Every traced block is 16-byte aligned, so a granule names a block.
 *   window   the innermost `max_stack_depth` frames of a stack.
 *   image    one program image: a new number after every fork and every exec.
 *
 * Both sides hold, for each ring, the same array of frames (root first). An event carries the difference
 * between the thread's stack now and at the previous event of the same ring: pop so many innermost frames,
 * push so many. A stack that has not changed costs nothing, and nothing is hashed in the traced program.
 *
 * This header is the whole wire contract together with ring.h and control.h; sizes are asserted below. */
#ifndef MLZ_SHM_RECORD_H
#define MLZ_SHM_RECORD_H

#include <stddef.h>
#include <stdint.h>

struct mlz_slot {
  uint64_t a;
  uint64_t b;
};
_Static_assert(sizeof(struct mlz_slot) == 16, "a slot is 16 bytes");

/* Head slot, word a: | 63..20 granule or value (44 bits) | 19..16 domain | 15..8 flags | 7..0 kind | */
enum mlz_kind {
  MLZ_K_NONE = 0,
  MLZ_K_ALLOC = 1,         /* granule, domain; b = size and stack difference; payload = pushed frames */
  MLZ_K_FREE = 2,          /* granule, domain; b = address of the block that the thread allocated last, 0 where it was not recorded: the
                              freed block is temporary if that is the same one */
  MLZ_K_REALLOC_BEGIN = 3, /* granule, domain, b as FREE: like FREE, but holds only once REALLOC_END says so */
  MLZ_K_REALLOC_END = 4,   /* as ALLOC, closes this thread's REALLOC_BEGIN; flag FAILED: the old block lives on */
  MLZ_K_TIME = 5,          /* b = ns: the time of all following events of this ring */
  MLZ_K_ORDER = 6,         /* b = sequence number: the following events come after every lower sequence number */
  MLZ_K_MMAP = 7,          /* granule = address >> 4; b as ALLOC; size = length rounded up to whole pages */
  MLZ_K_MUNMAP = 8,        /* granule = address >> 4; b = length rounded up to whole pages */
  MLZ_K_STACK = 9,         /* b as ALLOC with size 0: only the stack difference, for the next GC_START */
  MLZ_K_GC_START = 10,     /* value = generation; b = ns; the stack is the ring's current one */
  MLZ_K_GC_STOP = 11,      /* value = generation; b = ns; payload slot: a = collected, b = uncollectable */
  MLZ_K_CODE = 12,         /* value = code id; b = bytes in the side buffer; flag MORE: further pieces follow */
  MLZ_K_MARK = 13,         /* b = ns; payload slot: a = bytes of the name in the side buffer, b = enum mlz_mark */
  MLZ_K_THREAD = 14,       /* b = ns: the thread's first record; payload: a = bytes of its name in the side buffer, b = thread number */
  MLZ_K_THREAD_END = 15,   /* b = ns */
  MLZ_K_IMAGE = 16,        /* b = ns: first record of an image; payload: a = parent image (0: none seen), b = enum mlz_origin;
                              second payload: a = bytes in the side buffer (command line, arguments separated by NUL), b = parent pid */
  MLZ_K_PYTHON = 17,       /* b = ns: an interpreter was found; payload: a = bytes of "version\0state" in the side buffer, b = 0 */
  MLZ_K_FINALIZE = 18,     /* b = ns: the image's end as docs/architecture.md defines it; later events are of phase finalize */
  MLZ_K_SETTINGS = 19, /* b = settings word (control.h) that the following allocations obey; payload: a = sample_over bytes or 0, b = 0 */
  MLZ_K_LOST = 20,     /* payload: a = allocations lost, b = frees lost since the last LOST of this ring; head b = ns */
  MLZ_K_NAME = 21,     /* b = ns: the thread of payload.b (of this image) has a new name; payload as THREAD */
  /* As ALLOC where of the stack at most the innermost frame has moved on, in the same code; b = | 63..32 its byte offset | 31..0 size | */
  MLZ_K_ALLOC_STEP = 22,
  /* Native stacks (docs/native.md). Each ring has a trie of its own; modules are announced in each ring that names them. */
  MLZ_K_MODULE = 23,       /* value = module number (of the image, from 1, 16 bits); b = load bias: run-time address - address in the file's
                              sense (p_vaddr); payload: a = bytes in the side buffer (struct mlz_module_header and what follows), b = 0 */
  MLZ_K_NATIVE_NODE = 24,  /* a frame: value = its caller's node, 0: it is the outermost one known; flags: enum mlz_native_flag;
                              b = mlz_native_word. The ring's next node number, from 1 */
  MLZ_K_NATIVE = 25,       /* value = the node that is innermost from now on, 0: no native stack; flags: MLZ_N_BARE or 0; b = 0 */
  MLZ_K_NATIVE_RESET = 26, /* the ring's nodes are forgotten, the next one is number 1; the current node is 0 */
  MLZ_K_COUNT
};

enum mlz_domain { /* the outermost layer that was called */
                  MLZ_D_RAW = 0,
                  MLZ_D_MEM = 1,
                  MLZ_D_OBJ = 2,
                  MLZ_D_MALLOC = 3,
                  MLZ_D_MMAP = 4,
                  MLZ_D_COUNT
};

enum mlz_record_flag {
  MLZ_F_NOGIL = 1,   /* of a block's allocation or free: made without the GIL, so its place in the order is known to one number or so */
  MLZ_F_CERTAIN = 2, /* ALLOC, REALLOC_END: size >= sample_over, recorded whatever the rate; its weight is 1 */
  MLZ_F_NOSTACK = 4, /* no Python stack: the frame array stays as it is and the event has the empty stack */
  MLZ_F_RESET = 8,   /* the frame array is emptied before the push */
  MLZ_F_FAILED = 16, /* REALLOC_END: out of memory, nothing happened */
  MLZ_F_MORE = 32,   /* CODE: not the last piece */
  MLZ_F_ZERO = 64,   /* REALLOC_END: realloc(p, 0) freed the block and there is no new one */
  MLZ_F_BELOW = 128, /* with RESET: frames lie below the outermost one sent, the stack is deeper than max_stack_depth */
};

enum mlz_native_flag {
  MLZ_N_EXACT = 1, /* NODE: the address is that of the instruction (a frame interrupted by a signal), not a return address */
  MLZ_N_CUT = 2,   /* NODE with caller 0: there are frames further out; the walk could not go on, or went as far as it may */
  MLZ_N_EVAL = 4,  /* NODE: a loop of the interpreter */
  MLZ_N_BARE = 8,  /* NATIVE: the innermost loop runs no frame, not yet or not any more; bits 7..4: nor do so many further ones */
};
#define MLZ_N_BARE_SHIFT 4
#define MLZ_N_BARE_MAX 16u

/* Word b of NATIVE_NODE: | 63..48 module number, 0: none is known there | 47..0 return address less the module's bias (module 0: as it is) | */
#define MLZ_NATIVE_OFFSET_BITS 48
#define MLZ_NATIVE_MODULES_MAX 65535u
#define MLZ_NATIVE_DEPTH_MAX 4096u /* nodes of a stack */
static inline uint64_t mlz_native_word(unsigned module, uint64_t offset) {
  return (uint64_t)module << MLZ_NATIVE_OFFSET_BITS | (offset & ((UINT64_C(1) << MLZ_NATIVE_OFFSET_BITS) - 1));
}
static inline unsigned mlz_native_module(uint64_t w) { return (unsigned)(w >> MLZ_NATIVE_OFFSET_BITS); }
static inline uint64_t mlz_native_offset(uint64_t w) { return w & ((UINT64_C(1) << MLZ_NATIVE_OFFSET_BITS) - 1); }

/* What MODULE carries in the side buffer: this header, then the path and the build id without terminators. */
struct mlz_module_header {
  uint64_t low, high; /* run-time addresses that belong to the module */
  uint32_t path_bytes;
  uint32_t build_id_bytes; /* of NT_GNU_BUILD_ID, binary; 0: it has none */
};
_Static_assert(sizeof(struct mlz_module_header) == 24, "fixed layout");

enum mlz_origin { MLZ_ORIGIN_EXEC = 0, MLZ_ORIGIN_FORK = 1 };
enum mlz_mark { MLZ_MARK_MARK = 0, MLZ_MARK_SNAPSHOT = 1 };

/* Word b of ALLOC, REALLOC_END, MMAP, STACK: | 63..56 push | 55..48 pop | 47..0 size |
 * push frames follow, two in each payload slot, outermost of them first: slot.a, slot.b, slot.a, ...
 * push == MLZ_PUSH_LONG: one more payload slot comes first, whose a is the real number. */
#define MLZ_PUSH_LONG 255u
#define MLZ_POP_MAX 255u
#define MLZ_SIZE_BITS 48
#define MLZ_SIZE_MASK ((UINT64_C(1) << MLZ_SIZE_BITS) - 1)
#define MLZ_GRANULE_SHIFT 4
#define MLZ_GRANULE_BITS 44

/* A frame word: | 63..32 code id | 31..0 byte offset of the instruction in the code |. Code id 0: not known. Offset UINT32_MAX: not begun.
 * With native stacks, bit 31 of any other offset (MLZ_FRAME_INLINED) says that the frame runs in its caller's loop of the interpreter, and bit 30
 * (MLZ_FRAME_IDLE), of a frame with a loop of its own, that outside of this one lie loops that run nothing: bits 29..23 of them. */
#define MLZ_FRAME_INLINED UINT32_C(0x80000000)
#define MLZ_FRAME_IDLE UINT32_C(0x40000000)
#define MLZ_FRAME_IDLE_SHIFT 23
#define MLZ_FRAME_IDLE_MAX 127u
#define MLZ_FRAME(code_id, offset) ((uint64_t)(code_id) << 32 | (uint32_t)(offset))
#define MLZ_FRAME_CODE(w) ((uint32_t)((w) >> 32))
#define MLZ_FRAME_OFFSET(w) ((uint32_t)(w))
#define MLZ_STACK_DEPTH_MAX 1024u
static inline int mlz_frame_inlined(uint64_t w) { return MLZ_FRAME_OFFSET(w) != UINT32_MAX && (w & MLZ_FRAME_INLINED); }
static inline unsigned mlz_frame_idle(uint64_t w) {
  return !(w & MLZ_FRAME_INLINED) && w & MLZ_FRAME_IDLE ? (unsigned)(w >> MLZ_FRAME_IDLE_SHIFT) & MLZ_FRAME_IDLE_MAX : 0;
}
/* The same without those marks. */
static inline uint64_t mlz_frame_unmarked(uint64_t w) {
  if (mlz_frame_inlined(w)) return w & ~(uint64_t)MLZ_FRAME_INLINED;
  return mlz_frame_idle(w) ? w & ~(uint64_t)(MLZ_FRAME_IDLE | MLZ_FRAME_IDLE_MAX << MLZ_FRAME_IDLE_SHIFT) : w;
}

static inline uint64_t mlz_head_word(unsigned kind, unsigned flags, unsigned domain, uint64_t value) {
  return value << 20 | (uint64_t)domain << 16 | (uint64_t)flags << 8 | kind;
}
static inline unsigned mlz_word_kind(uint64_t a) { return (unsigned)(a & 0xff); }
static inline unsigned mlz_word_flags(uint64_t a) { return (unsigned)(a >> 8 & 0xff); }
static inline unsigned mlz_word_domain(uint64_t a) { return (unsigned)(a >> 16 & 0xf); }
static inline uint64_t mlz_word_value(uint64_t a) { return a >> 20; }
/* Word b of ALLOC_STEP. */
static inline uint64_t mlz_step_word(uint32_t size, uint32_t offset) { return (uint64_t)offset << 32 | size; }
static inline uint64_t mlz_size_word(uint64_t size, unsigned pop, unsigned push) {
  return (size & MLZ_SIZE_MASK) | (uint64_t)pop << 48 | (uint64_t)push << 56;
}

/* What a CODE message carries in the side buffer (all pieces joined): this header, then the four byte
 * strings without terminators: file name, qualified name (before 3.11 the plain name), module, line table. */
enum mlz_linetable {
  MLZ_LINES_LNOTAB = 0, /* <= 3.9: (u8 address step, s8 line step), CPython 3.9 Objects/lnotab_notes.txt */
  MLZ_LINES_310 = 1,    /* 3.10: (u8 end step, s8 line step, -128 no line), PEP 626 */
  MLZ_LINES_311 = 2,    /* >= 3.11: location table, CPython 3.11 Objects/locations.md */
};
struct mlz_code_header {
  uint32_t file_bytes; /* UTF-8, as are the name and the module */
  uint32_t name_bytes;
  uint32_t module_bytes; /* `__name__` of the frame's globals when the code was first seen; 0: not known */
  uint32_t lines_bytes;
  int32_t first_line;
  uint32_t lines_format; /* enum mlz_linetable */
};
_Static_assert(sizeof(struct mlz_code_header) == 24, "fixed layout");

#endif
