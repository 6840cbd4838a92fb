/* The record layout: what a traced thread writes into its ring and the recorder reads.
 *
 * Glossary
 *   word     8 bytes, the unit of a ring.
 *   message  a head word and, by its kind, a second word and payload words; published whole by one store of the ring's head index.
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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Two words: a message's first ones (a, b), or two payload words. */
struct mlz_two {
  uint64_t a;
  uint64_t b;
};
_Static_assert(sizeof(struct mlz_two) == 16, "two words");

/* Head word a: | 63..20 granule or value (44 bits) | 19..16 domain | 15..8 flags | 7..0 kind |. All kinds are even: an odd head word is a whole message,
 * SMALL (below). A second word b follows, but for the kinds that say "one word". */
enum mlz_kind {
  MLZ_K_NONE = 0,
  MLZ_K_ALLOC = 2,         /* granule, domain; b = size and stack difference; payload = pushed frames */
  MLZ_K_FREE = 4,          /* one word: granule, domain; flag TEMPORARY */
  MLZ_K_REALLOC_BEGIN = 6, /* like FREE, but holds only once REALLOC_END says so */
  MLZ_K_REALLOC_END = 8,   /* as ALLOC, closes this thread's REALLOC_BEGIN; flag FAILED: the old block lives on */
  MLZ_K_TIME = 10,         /* b = ns: the time of all following events of this ring */
  MLZ_K_ORDER = 12,        /* b = sequence number: the following events come after every lower sequence number */
  MLZ_K_MMAP = 14,         /* granule = address >> 4; b as ALLOC; size = length rounded up to whole pages */
  MLZ_K_MUNMAP = 16,       /* granule = address >> 4; b = length rounded up to whole pages */
  MLZ_K_STACK = 18,        /* b as ALLOC with size 0: only the stack difference, for the next GC_START */
  MLZ_K_GC_START = 20,     /* value = generation; b = ns; the stack is the ring's current one */
  MLZ_K_GC_STOP = 22,      /* value = generation; b = ns; payload: a = collected, b = uncollectable */
  MLZ_K_CODE = 24,         /* value = code id; b = bytes in the side buffer; flag MORE: further pieces follow */
  MLZ_K_MARK = 26,         /* b = ns; payload: a = bytes of the name in the side buffer, b = enum mlz_mark */
  MLZ_K_THREAD = 28,       /* b = ns: the thread's first record; payload: a = bytes of its name in the side buffer, b = thread number */
  MLZ_K_THREAD_END = 30,   /* b = ns */
  MLZ_K_IMAGE = 32,        /* b = ns: first record of an image; payload: a = parent image (0: none seen), b = enum mlz_origin;
                              second payload: a = bytes in the side buffer (command line, arguments separated by NUL), b = parent pid */
  MLZ_K_PYTHON = 34,       /* b = ns: an interpreter was found; payload: a = bytes of "version\0state" in the side buffer, b = 0 */
  MLZ_K_FINALIZE = 36,     /* b = ns: the image's end as docs/architecture.md defines it; later events are of phase finalize */
  MLZ_K_SETTINGS = 38, /* b = settings word (control.h) that the following allocations obey; payload: a = sample_over bytes or 0, b = 0 */
  MLZ_K_LOST = 40,     /* payload: a = allocations lost, b = frees lost since the last LOST of this ring; head b = ns */
  MLZ_K_NAME = 42,     /* b = ns: the thread of payload.b (of this image) has a new name; payload as THREAD */
  /* As ALLOC where of the stack at most the innermost frame has moved on, in the same code; b = | 63..32 its byte offset | 31..0 size | */
  MLZ_K_ALLOC_STEP = 44,
  /* Native stacks (docs/native.md). Each ring has a trie of its own; modules are announced in each ring that names them. */
  MLZ_K_MODULE = 46,      /* value = module number (of the image, from 1, 16 bits); b = load bias: run-time address - address in the file's
                              sense (p_vaddr); payload: a = bytes in the side buffer (struct mlz_module_header and what follows), b = 0 */
  MLZ_K_NATIVE_NODE = 48, /* a frame: value = its caller's node, 0: it is the outermost one known; flags: enum mlz_native_flag;
                              b = mlz_native_word. The ring's next node number, from 1 */
  MLZ_K_NATIVE = 50,      /* one word: value = the node that is innermost from now on, 0: no native stack; flags: MLZ_N_BARE and how many */
  MLZ_K_NATIVE_RESET = 52, /* one word: the ring's nodes are forgotten, the next one is number 1; the current node is 0 */
  /* one word, then frames: an ALLOC of little, near by, whose stack differs by little (mlz_near_word) */
  MLZ_K_ALLOC_NEAR = 54,
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
  MLZ_F_NOGIL = 1,     /* of a block's allocation or free: made without the GIL, so its place in the order is known to one number or so */
  MLZ_F_TEMPORARY = 2, /* FREE, REALLOC_BEGIN: the block is the one that the thread allocated last */
  MLZ_F_CERTAIN = 2,   /* ALLOC, REALLOC_END: size >= sample_over, recorded whatever the rate; its weight is 1 */
  MLZ_F_NOSTACK = 4,   /* no Python stack: the frame array stays as it is and the event has the empty stack */
  MLZ_F_RESET = 8,     /* the frame array is emptied before the push */
  MLZ_F_FAILED = 16,   /* REALLOC_END: out of memory, nothing happened */
  MLZ_F_MORE = 32,     /* CODE: not the last piece */
  MLZ_F_ZERO = 64,     /* REALLOC_END: realloc(p, 0) freed the block and there is no new one */
  MLZ_F_BELOW = 128,   /* with RESET: frames lie below the outermost one sent, the stack is deeper than max_stack_depth */
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
 * push frames follow, a payload word each, outermost of them first.
 * push == MLZ_PUSH_LONG: one more payload word comes first, the real number. */
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

/* Messages of one word. A block is near when its granule is at most 2^34 - 1 above the ring's base for its domain (ring.h): 256 GiB of address space,
 * one for the interpreter's blocks and one for the C library's.
 *   SMALL   | 63..30 granule less the base | 29..12 offset / 2 | 11..2 size | 1 domain: OBJ, else MEM | 0 1 |
 *           As ALLOC_STEP.
 *   NEAR    | 63..30 granule less the base | 29..26 push | 25..22 pop | 21..12 size | 11 MLZ_F_NOGIL | 10..8 domain | 7..0 kind |
 *           As ALLOC; push frames follow. */
#define MLZ_NEAR_BITS 34
#define MLZ_NEAR_SHIFT 30
#define MLZ_NEAR_FRAMES 15u
#define MLZ_SMALL_SIZE 1024u
#define MLZ_SMALL_OFFSET (1u << 19)

/* Which of a ring's bases a domain's blocks are measured from. */
static inline unsigned mlz_near_base(unsigned domain) { return domain == MLZ_D_MEM || domain == MLZ_D_OBJ ? 0 : 1; }
/* `offset` is even and below MLZ_SMALL_OFFSET, `size` below MLZ_SMALL_SIZE. */
static inline uint64_t mlz_small_word(uint64_t near, uint32_t offset, uint64_t size, bool obj) {
  return near << MLZ_NEAR_SHIFT | (uint64_t)offset << 11 | size << 2 | (uint64_t)obj << 1 | 1;
}
static inline bool mlz_word_small(uint64_t a) { return a & 1; }
static inline uint32_t mlz_small_offset(uint64_t a) { return (uint32_t)(a >> 11) & (MLZ_SMALL_OFFSET - 2); }
static inline uint32_t mlz_small_size(uint64_t a) { return (uint32_t)(a >> 2) & (MLZ_SMALL_SIZE - 1); }
static inline unsigned mlz_small_domain(uint64_t a) { return MLZ_D_MEM + (unsigned)(a >> 1 & 1); }
static inline uint64_t mlz_near_word(uint64_t near, unsigned push, unsigned pop, uint64_t size, unsigned flags, unsigned domain) {
  return near << MLZ_NEAR_SHIFT | (uint64_t)push << 26 | (uint64_t)pop << 22 | size << 12 | (uint64_t)flags << 11 | (uint64_t)domain << 8 |
         MLZ_K_ALLOC_NEAR;
}
static inline unsigned mlz_near_push(uint64_t a) { return (unsigned)(a >> 26) & 15; }
static inline unsigned mlz_near_pop(uint64_t a) { return (unsigned)(a >> 22) & 15; }
static inline uint32_t mlz_near_size(uint64_t a) { return (uint32_t)(a >> 12) & (MLZ_SMALL_SIZE - 1); }
static inline unsigned mlz_near_flags(uint64_t a) { return (unsigned)(a >> 11) & MLZ_F_NOGIL; }
static inline unsigned mlz_near_domain(uint64_t a) { return (unsigned)(a >> 8) & 7; }
_Static_assert(MLZ_D_COUNT <= 8 && MLZ_F_NOGIL == 1 && MLZ_D_OBJ == MLZ_D_MEM + 1, "they fit");
/* The block of a message that is SMALL or NEAR. */
static inline uint64_t mlz_near_granule(uint64_t a, uint64_t base) {
  return (base + (a >> MLZ_NEAR_SHIFT)) & ((UINT64_C(1) << MLZ_GRANULE_BITS) - 1);
}
/* The block of a message that may be of any kind; what is said of a word that is none is of no block. */
static inline uint64_t mlz_word_granule(uint64_t a, const uint64_t base[2]) {
  if (mlz_word_small(a)) return mlz_near_granule(a, base[0]);
  return mlz_word_kind(a) == MLZ_K_ALLOC_NEAR ? mlz_near_granule(a, base[mlz_near_base(mlz_near_domain(a))]) : mlz_word_value(a);
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
