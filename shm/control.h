/* The arena: one memfd for each session, made and sized by the recorder, sealed against shrinking.
 *
 *   offset 0            struct mlz_control
 *   ring_offset         ring_count regions of ring_stride bytes, each: struct mlz_ring, words, side buffer
 *
 * The recorder publishes the arena as `<session>/arena`, a link to its own descriptor, beside the agent's link
 * `<session>/libmemlyze.so` that LD_PRELOAD names. An agent finds the session by the directory of the path it was
 * loaded from, opens and maps the arena, and closes the descriptor again. No handshake: a claim is one
 * compare-and-swap, so a stopped recorder cannot hold up a new thread or process. */
#ifndef MLZ_SHM_CONTROL_H
#define MLZ_SHM_CONTROL_H

#include "ring.h"

#define MLZ_ARENA_MAGIC UINT64_C(0x314e455241595a4c) /* "LZYAREN1", little-endian */
#define MLZ_ARENA_ABI 5u
#define MLZ_ARENA_NAME "arena"
#define MLZ_AGENT_NAME "libmemlyze.so"
#define MLZ_CONTROL_BYTES 4096u

/* The clock word: time of the trace and whatever else should send the next event of every thread into its slow path. Hooks compare it
 * with what they last saw, in one load.
 *   63..8   ns since base_ns, as published: it only rises
 *   7..1    changed whenever the settings are
 *   0       the recorder sleeps for long: read a real clock and wake it
 * Whoever changes it does so by compare-and-swap, so no change is lost. */
#define MLZ_CLOCK_ASLEEP UINT64_C(1)
#define MLZ_CLOCK_SETTINGS UINT64_C(0xfe)
#define MLZ_CLOCK_SHIFT 8

/* The settings word: everything the hook decides by.
 *   31..0   rate: round(R * 2^32) - 1, so 0xffffffff is 1.0
 *   42..32  max_stack_depth (0..1024)
 *   43      track_gc      44 python allocators      45 malloc and mmap family
 *   46      on_full: 0 block, 1 drop                47 native
 *   48      paused: record nothing new (frees of recorded blocks still)
 *   63..56  generation, changed with every store, so that a change back is seen too */
#define MLZ_SET_DEPTH_SHIFT 32
#define MLZ_SET_GC (UINT64_C(1) << 43)
#define MLZ_SET_PYTHON (UINT64_C(1) << 44)
#define MLZ_SET_MALLOC (UINT64_C(1) << 45)
#define MLZ_SET_DROP (UINT64_C(1) << 46)
#define MLZ_SET_NATIVE (UINT64_C(1) << 47)
#define MLZ_SET_PAUSED (UINT64_C(1) << 48)
#define MLZ_SET_GENERATION_SHIFT 56
#define MLZ_SET_RATE_MASK UINT64_C(0xffffffff)
#define MLZ_SET_DEPTH_MASK (UINT64_C(0x7ff) << MLZ_SET_DEPTH_SHIFT)
#define MLZ_SET_CHANGEABLE (MLZ_SET_RATE_MASK | MLZ_SET_DEPTH_MASK | MLZ_SET_PAUSED) /* while a session runs */
static inline uint32_t mlz_settings_rate(uint64_t s) { return (uint32_t)s; }
static inline unsigned mlz_settings_depth(uint64_t s) { return (unsigned)(s >> MLZ_SET_DEPTH_SHIFT & 0x7ff); }

struct mlz_control {
  /* Line 0: constant once published. */
  _Alignas(64) uint64_t magic;
  uint32_t abi;
  uint32_t control_bytes; /* sizeof this struct: a smaller agent-side size is an older contract */
  uint64_t arena_bytes;
  uint64_t ring_offset;
  uint64_t ring_stride;
  uint32_t ring_count;
  uint32_t ring_words; /* a power of two */
  uint32_t side_bytes; /* a power of two */
  uint32_t recorder_pid;
  uint64_t base_ns; /* CLOCK_MONOTONIC at the start of the trace; every ns in a ring is CLOCK_MONOTONIC less this */

  /* Line 1: settings, rarely written. */
  _Alignas(64) _Atomic uint64_t settings;
  _Atomic uint64_t sample_over; /* bytes; 0: off. Stored before the settings word whose generation announces it */
  uint64_t follow;              /* 0: only the first image and what its exec chain becomes is traced */
  uint64_t reserved1[5];

  /* Line 2: the clock word. Hooks copy it; the recorder (and whoever reads a real clock) raises it. */
  _Alignas(64) _Atomic uint64_t clock;
  uint64_t reserved2[7];

  /* Line 3: waking the recorder. */
  _Alignas(64) _Atomic uint32_t wake; /* futex: a producer adds one and wakes */
  _Atomic uint32_t sleeping;          /* 1 while the recorder sleeps on it */
  _Atomic uint64_t heartbeat;         /* drain rounds so far */
  uint64_t reserved3[6];

  /* Line 4: numbers handed out. */
  _Alignas(64) _Atomic uint32_t image_next; /* first image is 1 */
  _Atomic uint32_t code_next;               /* first code id is 1; unique in the session, so a fork needs no translation */
  _Atomic uint64_t order_next;              /* first sequence number is 1 */
  _Atomic uint32_t ring_high;               /* no ring at or above this number was ever claimed */
  _Atomic uint32_t ring_hint;               /* where to look first for a free ring */
  uint64_t reserved4[4];

  /* Line 5: what could not be traced; every report shows it. */
  _Alignas(64) _Atomic uint64_t threads_denied; /* no ring left, or no memory for it */
  _Atomic uint64_t unaligned;                   /* blocks not 16-byte aligned */
  _Atomic uint64_t unmarked;                    /* blocks whose mark could not be stored (no address space) */
  _Atomic uint64_t images_refused;              /* interpreters that the agent does not know: traced without stacks */
  _Atomic uint64_t gc_missed;                   /* collections that passed without the callback being called */
  _Atomic uint64_t execs_untraced;              /* programs started without our LD_PRELOAD (a cleared environment), or as another user */
  _Atomic uint64_t native_mismatches;           /* MEMLYZE_NATIVE_CHECK: captures that a walk without caches finds to be wrong */
  uint64_t reserved5;

  /* Line 6: a robust, process-shared mutex that the recorder holds as long as it lives. Its first word is a
   * futex in which the kernel sets FUTEX_OWNER_DIED (bit 30) when the recorder dies: one load tells. */
  _Alignas(64) unsigned char recorder_mutex[64];
};
_Static_assert(sizeof(struct mlz_control) == 448, "control block layout");
_Static_assert(sizeof(struct mlz_control) <= MLZ_CONTROL_BYTES, "control block fits its page");
_Static_assert(offsetof(struct mlz_control, settings) == 64, "layout");
_Static_assert(offsetof(struct mlz_control, clock) == 128, "layout");
_Static_assert(offsetof(struct mlz_control, recorder_mutex) == 384, "layout");

static inline struct mlz_ring *mlz_arena_ring(struct mlz_control *c, uint32_t i) {
  return (struct mlz_ring *)((uint8_t *)c + c->ring_offset + (uint64_t)i * c->ring_stride);
}
static inline uint64_t mlz_clock_ns(uint64_t word) { return word >> MLZ_CLOCK_SHIFT; }
/* Raises the published time to `ns` and says that somebody is awake; *asleep: nobody was, and who said so now must wake the recorder. Returns the
 * time that is published then. */
static inline uint64_t mlz_clock_raise(struct mlz_control *c, uint64_t ns, bool *asleep) {
  uint64_t seen = atomic_load_explicit(&c->clock, memory_order_relaxed), next;
  do {
    uint64_t now = mlz_clock_ns(seen) > ns ? mlz_clock_ns(seen) : ns;
    next = now << MLZ_CLOCK_SHIFT | (seen & MLZ_CLOCK_SETTINGS);
  } while (next != seen && !atomic_compare_exchange_weak_explicit(&c->clock, &seen, next, memory_order_relaxed, memory_order_relaxed));
  *asleep = seen & MLZ_CLOCK_ASLEEP;
  return mlz_clock_ns(next);
}
/* The recorder's, before it sleeps for long. */
static inline void mlz_clock_sleep(struct mlz_control *c) { atomic_fetch_or_explicit(&c->clock, MLZ_CLOCK_ASLEEP, memory_order_relaxed); }
/* Replaces the bits `mask` of the settings by those of `bits`; any process, at any time. The threads obey from their next allocation on. */
static inline void mlz_settings_change(struct mlz_control *c, uint64_t mask, uint64_t bits) {
  uint64_t seen = atomic_load_explicit(&c->settings, memory_order_relaxed), next;
  const uint64_t generation = UINT64_C(1) << MLZ_SET_GENERATION_SHIFT;
  do next = ((seen & ~mask) | (bits & mask)) + generation;
  while (!atomic_compare_exchange_weak_explicit(&c->settings, &seen, next, memory_order_release, memory_order_relaxed));
  uint64_t clock = atomic_load_explicit(&c->clock, memory_order_relaxed);
  while (!atomic_compare_exchange_weak_explicit(&c->clock, &clock, (clock & ~MLZ_CLOCK_SETTINGS) | ((clock + 2) & MLZ_CLOCK_SETTINGS),
                                                memory_order_release, memory_order_relaxed)) {}
}
static inline bool mlz_recorder_died(const struct mlz_control *c) {
  return (atomic_load_explicit((const _Atomic uint32_t *)(const void *)c->recorder_mutex, memory_order_relaxed) & 0x40000000u) != 0;
}

#endif
