/* The bytes of a .mlyze file: fixed headers, kinds, column ids, and the integer coding that all of them use.
 * Private to formats/. docs/format.md says the same in words and is normative; both change together. */
#ifndef MLZ_FORMATS_LAYOUT_H
#define MLZ_FORMATS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structs below are read and written as they lie in memory");

#define MLZ_FILE_MAGIC "MLYZE\r\n\x1a" /* a transfer in text mode changes the line end, and TYPE stops at the last byte */
#define MLZ_FILE_VERSION 1u
#define MLZ_FEATURE_TOTALS_ONLY UINT64_C(1) /* allocations and frees are no events: the TOTALS chunks stand for them */
#define MLZ_FEATURE_LEFT_OUT UINT64_C(2)    /* the beginning is not there, the first TOTALS chunks stand for it */
#define MLZ_FEATURES_KNOWN (MLZ_FEATURE_TOTALS_ONLY | MLZ_FEATURE_LEFT_OUT)
#define MLZ_FEATURES_REQUIRED UINT64_C(0xffffffff) /* unknown bits in this half: refuse; in the other half: ignore */

struct mlz_file_header {
  uint8_t magic[8];
  uint16_t version;
  uint16_t oldest_reader;
  uint32_t header_bytes;
  uint64_t features;
  uint64_t created_ns; /* CLOCK_REALTIME */
  uint8_t uuid[16];
  uint64_t reserved;
  uint64_t checksum; /* of all header bytes before it */
};
_Static_assert(sizeof(struct mlz_file_header) == 64, "stored");
_Static_assert(offsetof(struct mlz_file_header, checksum) == 56, "stored");

#define MLZ_CHUNK_MAGIC 0x434c4df7u /* bytes f7 'M' 'L' 'C' */
#define MLZ_CHUNK_ZSTD 1u           /* flag: the payload is one zstd frame */
#define MLZ_CHUNK_RAW_MAX (64u << 20)

struct mlz_chunk_header {
  uint32_t magic;
  uint16_t kind; /* enum mlz_chunk_kind */
  uint16_t flags;
  uint32_t stored; /* payload bytes in the file */
  uint32_t raw;    /* payload bytes once decompressed */
  uint64_t count;  /* meaning depends on the kind */
  uint64_t checksum;
};
_Static_assert(sizeof(struct mlz_chunk_header) == 32, "stored");
_Static_assert(offsetof(struct mlz_chunk_header, checksum) == 24, "stored");

enum mlz_chunk_kind {
  MLZ_C_META = 1,    /* count 1 */
  MLZ_C_STRINGS = 2, /* count: rows */
  MLZ_C_FRAMES = 3,
  MLZ_C_STACKS = 4,
  MLZ_C_PROCESS = 5, /* count: objects */
  MLZ_C_THREAD = 6,
  MLZ_C_EVENTS = 7,   /* count: events */
  MLZ_C_GROUP = 8,    /* count: ns since the start */
  MLZ_C_SUMMARY = 9,  /* count 1 */
  MLZ_C_INDEX = 10,   /* count: chunks listed */
  MLZ_C_END = 11,     /* count: offset of the INDEX chunk, 0: there is none; no payload */
  MLZ_C_TOTALS = 12,  /* count: rows that changed */
  MLZ_C_MODULES = 13, /* count: rows */
  MLZ_C_SYMBOLS = 14,
  MLZ_C_LAST = MLZ_C_SYMBOLS
};

#define MLZ_TOTALS_NEW_MAX (1u << 22) /* rows that one point may define */
enum mlz_totals_flag { MLZ_TOTALS_BASE = 1, MLZ_TOTALS_MORE = 2, MLZ_TOTALS_CLOSE = 4, MLZ_TOTALS_FLAGS = 7 };

/* EVENTS: op bytes that only exist in the file. The reader shows it as MLZ_OP_FREE_TEMP. */
#define MLZ_FILE_OP_FREE_TEMP_REF 6u

enum mlz_column {
  MLZ_COL_OPS = 1,         /* a byte for each event */
  MLZ_COL_CLASS_STACK = 2, /* the class table */
  MLZ_COL_CLASS_SIZE = 3,
  MLZ_COL_CLASS_KIND = 4,   /* weight index * 8 + domain */
  MLZ_COL_WEIGHTS = 5,      /* bits of IEEE doubles */
  MLZ_COL_ALLOC_CLASS = 6,  /* for each ALLOC */
  MLZ_COL_FREE_REF = 7,     /* for each FREE and FREE_TEMP_REF: the in-chunk number of the allocation */
  MLZ_COL_OLD_CLASS = 8,    /* for each FREE_OLD and FREE_OLD_TEMP */
  MLZ_COL_OLD_REF = 9,      /* the same: first_alloc - 1 - allocation */
  MLZ_COL_THREADS = 10,     /* the chunk's thread ids, in order of appearance */
  MLZ_COL_RUN_THREAD = 11,  /* runs: index into THREADS */
  MLZ_COL_RUN_EVENTS = 12,  /* runs: events */
  MLZ_COL_STEP_EVENTS = 13, /* time steps: events since the previous step */
  MLZ_COL_STEP_NS = 14,     /* time steps: ns since the previous step */
  MLZ_COL_RARE = 15,        /* MLZ_RARE_FIELDS integers for each rare event */
  MLZ_COL_COUNT
};
#define MLZ_COL_REQUIRED 0x80u /* id bit: a reader that does not know the column must pass over the chunk */
#define MLZ_RARE_FIELDS 7u

enum mlz_form { MLZ_FORM_VARINT = 0, MLZ_FORM_PLANES_MAX = 4 }; /* 1..4: that many byte planes */
enum mlz_packing { MLZ_PACK_NONE = 0, MLZ_PACK_ZSTD = 1 };
enum mlz_predictor {
  MLZ_PRED_NONE = 0,
  MLZ_PRED_DELTA = 1,    /* zigzag difference to the previous value */
  MLZ_PRED_DISTANCE = 2, /* FREE_REF only: allocations since, in this chunk */
};

#define MLZ_WEIGHTS_MAX 256u
#define MLZ_RARES_MAX 4096u
#define MLZ_POINTS_MAX 64u /* (allocation, time) pairs of one EVENTS chunk */
#define MLZ_STRING_MAX (1u << 20)
#define MLZ_TABLE_ROWS_MAX (1u << 18)  /* rows of one table chunk */
#define MLZ_STACK_MAX 4096u            /* frames of one stack */
#define MLZ_SYMBOL_MAX 256u            /* frames that one native frame may stand for */
#define MLZ_STACK_CHUNK_MAX (1u << 21) /* frames of one STACKS chunk, shared ones counted each time */

static inline uint64_t mlz_zigzag(int64_t v) { return (uint64_t)v << 1 ^ (uint64_t)(v >> 63); }
static inline uint64_t mlz_unzigzag(uint64_t v) { return v >> 1 ^ (0 - (v & 1)); } /* two's complement, so that sums may wrap */

#define MLZ_VARINT_MAX 10
static inline uint8_t *mlz_put_varint(uint8_t *p, uint64_t v) {
  while (v >= 0x80) {
    *p++ = (uint8_t)(v | 0x80);
    v >>= 7;
  }
  *p++ = (uint8_t)v;
  return p;
}

/* A bounded piece of input. After a read beyond its end, or of an overlong integer, `bad` is set and all reads give 0. */
struct mlz_cursor {
  const uint8_t *p, *end;
  bool bad;
};
uint64_t mlz_get_varint_slow(struct mlz_cursor *c);
static inline uint64_t mlz_get_varint(struct mlz_cursor *c) {
  if (__builtin_expect(c->p < c->end && *c->p < 0x80, 1)) return *c->p++;
  return mlz_get_varint_slow(c);
}
static inline const uint8_t *mlz_get_bytes(struct mlz_cursor *c, uint64_t n) {
  if (c->bad || n > (uint64_t)(c->end - c->p)) {
    c->bad = true;
    return NULL;
  }
  const uint8_t *p = c->p;
  c->p += n;
  return p;
}

uint64_t mlz_header_checksum(const void *header, size_t n); /* of all but the last 8 of its n bytes */
/* Of the payload, seeded with that of the header whose own checksum counts as 0. `payload` may be NULL if h->stored is 0. */
uint64_t mlz_chunk_checksum(const struct mlz_chunk_header *h, const void *payload);

/* What an EVENTS chunk covers: the start of its payload, and its row in the index. */
struct mlz_extent {
  uint32_t process;
  uint32_t events, allocs, frees;
  uint64_t first_alloc;
  uint64_t first_ns, last_ns;
  uint32_t points;                      /* allocation point_alloc[i] and those after it were recorded at point_ns[i] or later */
  uint32_t point_alloc[MLZ_POINTS_MAX]; /* numbers within the chunk, rising */
  uint64_t point_ns[MLZ_POINTS_MAX];
};
#define MLZ_EXTENT_MAX_BYTES (MLZ_VARINT_MAX * (8 + 2 * MLZ_POINTS_MAX))
uint8_t *mlz_extent_put(uint8_t *p, const struct mlz_extent *x);
bool mlz_extent_get(struct mlz_cursor *c, struct mlz_extent *x); /* false: nonsense; x is undefined then */

#endif
