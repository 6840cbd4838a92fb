/* Was this block recorded? One bit for each 16 bytes of address space, mapped in pieces as blocks turn up.
 *
 * Two maps side by side (docs/architecture.md): PLAIN for blocks reported by the mem and obj hooks, changed only by
 * the thread that holds the GIL; SHARED for all others, changed atomically once there is a second thread. PLAIN becomes
 * atomic, too, when a second interpreter with a GIL of its own may exist. A test costs 1-2 ns.
 * Memory: 1/128 of the address range that blocks were seen in, touched by pages. */
#ifndef MLZ_AGENT_MARKS_H
#define MLZ_AGENT_MARKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MLZ_MARKS_PIECE_SHIFT 28 /* 256 MiB of address space a piece */
#define MLZ_MARKS_WORDS (1u << (MLZ_MARKS_PIECE_SHIFT - 4 - 6))
#define MLZ_MARKS_PIECES (1u << (47 - MLZ_MARKS_PIECE_SHIFT))

enum mlz_marks_map { MLZ_MARKS_PLAIN = 0, MLZ_MARKS_SHARED = 1 };

struct mlz_marks_piece {
  _Atomic uint64_t map[2][MLZ_MARKS_WORDS];
};

extern struct mlz_marks_piece *_Atomic mlz_marks[MLZ_MARKS_PIECES] __attribute__((visibility("hidden")));
extern bool mlz_marks_atomic[2] __attribute__((visibility("hidden"))); /* by map: is a locked instruction needed? */

/* Maps the piece of `address`; NULL: no memory. Any thread. */
struct mlz_marks_piece *mlz_marks_make(uintptr_t address);

#define MLZ_MARKS_INLINE static inline __attribute__((always_inline))

/* `address` is a user-space one (below 2^47): every block that an allocator gave is. */
MLZ_MARKS_INLINE struct mlz_marks_piece *mlz_marks_find(uintptr_t address) {
  return atomic_load_explicit(&mlz_marks[address >> MLZ_MARKS_PIECE_SHIFT & (MLZ_MARKS_PIECES - 1)], memory_order_acquire);
}
MLZ_MARKS_INLINE uint32_t mlz_marks_word(uintptr_t address) { return (uint32_t)(address >> 10) & (MLZ_MARKS_WORDS - 1); }
/* In a word's value; compiles to one bit test. */
MLZ_MARKS_INLINE bool mlz_marks_in(uint64_t word, uintptr_t address) { return word >> (address >> 4 & 63) & 1; }
MLZ_MARKS_INLINE uint64_t mlz_marks_bit(uintptr_t address) { return UINT64_C(1) << (address >> 4 & 63); }

/* glibc 2.32 and later: false from before the second thread begins. Elsewhere the first recorded event of a second thread tells. */
extern char __libc_single_threaded __attribute__((weak));
MLZ_MARKS_INLINE bool mlz_marks_locked(enum mlz_marks_map map) {
  return mlz_marks_atomic[map] || (map == MLZ_MARKS_SHARED && &__libc_single_threaded != NULL && !__libc_single_threaded);
}

MLZ_MARKS_INLINE bool mlz_marks_test(const void *block, enum mlz_marks_map map) {
  uintptr_t a = (uintptr_t)block;
  struct mlz_marks_piece *p = mlz_marks_find(a);
  return p && (atomic_load_explicit(&p->map[map][mlz_marks_word(a)], memory_order_relaxed) & mlz_marks_bit(a));
}
/* Where no locked instruction is needed. */
MLZ_MARKS_INLINE void mlz_marks_set_plain(struct mlz_marks_piece *p, const void *block, enum mlz_marks_map map) {
  _Atomic uint64_t *w = &p->map[map][mlz_marks_word((uintptr_t)block)];
  atomic_store_explicit(w, atomic_load_explicit(w, memory_order_relaxed) | mlz_marks_bit((uintptr_t)block), memory_order_relaxed);
}
/* False: there is no memory for the mark: do not record the block. */
MLZ_MARKS_INLINE bool mlz_marks_set(const void *block, enum mlz_marks_map map) {
  struct mlz_marks_piece *p = mlz_marks_find((uintptr_t)block);
  if (__builtin_expect(!p, 0) && !(p = mlz_marks_make((uintptr_t)block))) return false;
  if (__builtin_expect(mlz_marks_locked(map), 0))
    atomic_fetch_or_explicit(&p->map[map][mlz_marks_word((uintptr_t)block)], mlz_marks_bit((uintptr_t)block), memory_order_relaxed);
  else
    mlz_marks_set_plain(p, block, map);
  return true;
}
/* Takes the mark off; false: there was none. */
MLZ_MARKS_INLINE bool mlz_marks_take(const void *block, enum mlz_marks_map map) {
  uintptr_t a = (uintptr_t)block;
  struct mlz_marks_piece *p = mlz_marks_find(a);
  if (__builtin_expect(!p, 0)) return false;
  _Atomic uint64_t *w = &p->map[map][mlz_marks_word(a)];
  uint64_t bit = mlz_marks_bit(a), old = atomic_load_explicit(w, memory_order_relaxed);
  if (!(old & bit)) return false;
  if (__builtin_expect(mlz_marks_locked(map), 0))
    atomic_fetch_and_explicit(w, ~bit, memory_order_relaxed);
  else
    atomic_store_explicit(w, old & ~bit, memory_order_relaxed);
  return true;
}

#endif
