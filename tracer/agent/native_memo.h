/* What a thread remembers of whole stacks: from program counter, stack pointer and the words that a walk would read to the node of the stack. Included
 * by native.c only, see native.h; the allocating thread, t->busy EVENT.
 *
 * A stack is remembered as the places of all words that decide about it and a mix of what stood there: it is the same one if the mix is. Many stacks may
 * begin at one place with one stack pointer (in cc1 up to 350), so they are told apart before any is looked at: by the innermost return addresses, whose
 * places follow from the program counters (`steps`). A step that is missing makes a stack one that is not found, and never another one.
 * Budget: 20 ns for 32 frames. */
#ifndef MLZ_AGENT_NATIVE_MEMO_H
#define MLZ_AGENT_NATIVE_MEMO_H

#include <emmintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MLZ_MEMO_WORDS 84u /* code with frame pointers has two words a frame */
#define MLZ_MEMO_WAYS 8u
#define MLZ_MEMO_FIRST 5u     /* bits of the sets: 48 KB of entries, then 196, 786 KB, 3.1 MB */
#define MLZ_MEMO_LAST 11u     /* at the most */
#define MLZ_MEMO_WINDOW 4096u /* lookups after which its size is thought over */
#define MLZ_MEMO_STEPS 3u     /* return addresses in a key */
#define MLZ_MEMO_STEP_BITS 13u
#define MLZ_MEMO_STOP UINT32_MAX

struct mlz_memo_entry {
  uint64_t key;
  uint64_t mix;
  uint32_t node;
  uint16_t words;
  uint16_t needs_rbp;
  uint16_t at[MLZ_MEMO_WORDS]; /* words above sp */
};
_Static_assert(sizeof(struct mlz_memo_entry) == 192, "three cache lines, of which most stacks need two");

struct mlz_memo_step {
  uint64_t path;   /* of program counters, innermost first */
  uint32_t follow; /* words above sp: where the next return address lies; MLZ_MEMO_STOP: that does not follow from them */
};
struct mlz_memo {
  uint32_t bits, turn;
  uint32_t asked, missed;
  uint32_t
      every; /* one of so many stacks that were not found is remembered: where they are too many, the others would only push each other out */
  bool stepped; /* a step is known: what was not touched stays so */
  struct mlz_memo_step step[1u << MLZ_MEMO_STEP_BITS];
  _Alignas(64) uint32_t tags[MLZ_MEMO_WAYS << MLZ_MEMO_LAST]; /* of the keys; 0: free */
  _Alignas(64) struct mlz_memo_entry entry[MLZ_MEMO_WAYS << MLZ_MEMO_LAST];
};
/* What is to be remembered. */
struct mlz_memo_stack {
  uintptr_t pc, sp, rbp;
  uint32_t follow[MLZ_MEMO_STEPS];
  struct mlz_memo_entry entry; /* all but key and mix */
};

/* Odd numbers without a pattern (the finalizer of SplitMix64, gate.c). */
#define MLZ_FACTOR_1(x) (((x) ^ (x) >> 30) * UINT64_C(0xbf58476d1ce4e5b9))
#define MLZ_FACTOR_2(x) (((x) ^ (x) >> 27) * UINT64_C(0x94d049bb133111eb))
#define MLZ_FACTOR(i) (MLZ_FACTOR_2(MLZ_FACTOR_1((i)*UINT64_C(0x9e3779b97f4a7c15))) | 1)
#define MLZ_FACTORS(i)                                                                                                                     \
  MLZ_FACTOR(i), MLZ_FACTOR((i) + 1), MLZ_FACTOR((i) + 2), MLZ_FACTOR((i) + 3), MLZ_FACTOR((i) + 4), MLZ_FACTOR((i) + 5),                  \
      MLZ_FACTOR((i) + 6)
static const uint64_t mlz_memo_factors[MLZ_MEMO_WORDS + 1] = {
    MLZ_FACTORS(1),  MLZ_FACTORS(8),  MLZ_FACTORS(15), MLZ_FACTORS(22), MLZ_FACTORS(29), MLZ_FACTORS(36), MLZ_FACTORS(43),
    MLZ_FACTORS(50), MLZ_FACTORS(57), MLZ_FACTORS(64), MLZ_FACTORS(71), MLZ_FACTORS(78), MLZ_FACTOR(85)};
_Static_assert(MLZ_MEMO_WORDS == 12 * 7, "all of them are given");

static inline void mlz_memo_forget(struct mlz_memo *m) {
  memset(m->tags, 0, sizeof(*m->tags) * MLZ_MEMO_WAYS << m->bits);
  if (m->stepped) memset(m->step, 0, sizeof(m->step));
  m->stepped = false;
  m->asked = m->missed = 0;
}
static inline void mlz_memo_begin(struct mlz_memo *m) {
  m->bits = MLZ_MEMO_FIRST;
  m->every = 1;
}
static inline void mlz_memo_think(struct mlz_memo *m) {
  if (m->missed > MLZ_MEMO_WINDOW / 20 && m->bits < MLZ_MEMO_LAST) {
    m->bits += 2;
    mlz_memo_forget(m);
  }
  bool full = m->bits == MLZ_MEMO_LAST;
  m->every = full && m->missed > MLZ_MEMO_WINDOW / 5 * 4 ? 32 : full && m->missed > MLZ_MEMO_WINDOW / 5 ? 4 : 1;
  m->asked = m->missed = 0;
}

static inline __attribute__((always_inline)) uint64_t mlz_memo_path(uint64_t path, uintptr_t pc) {
  path = (path ^ pc) * UINT64_C(0x9e3779b97f4a7c15);
  return path ^ path >> 32;
}
static inline uint32_t mlz_memo_place(uint64_t path) { return (uint32_t)(path >> 10) & ((1u << MLZ_MEMO_STEP_BITS) - 1); }
/* `high`: the end of the memory that may be read. */
static inline __attribute__((always_inline)) uint64_t mlz_memo_key(const struct mlz_memo *m, uintptr_t pc, uintptr_t sp, uintptr_t high) {
  const uintptr_t *stack = (const uintptr_t *)sp;
  const uintptr_t room = (high - sp) / sizeof(uintptr_t);
  uint64_t path = mlz_memo_path(0, pc);
  for (unsigned i = 0; i < MLZ_MEMO_STEPS; i++) {
    const struct mlz_memo_step *s = &m->step[mlz_memo_place(path)];
    if (__builtin_expect(s->path != path, 0)) s = &m->step[mlz_memo_place(path) ^ 1];
    if (s->path != path || s->follow >= room) break;
    path = mlz_memo_path(path, stack[s->follow]);
  }
  return (path ^ sp) * UINT64_C(0xd1b54a32d192ed03);
}
static inline uint32_t mlz_memo_set(const struct mlz_memo *m, uint64_t key) { return (uint32_t)(key >> (64 - m->bits)) * MLZ_MEMO_WAYS; }
static inline uint32_t mlz_memo_tag(uint64_t key) { return (uint32_t)(key >> 16) | 1; }

static inline __attribute__((always_inline)) uint64_t mlz_memo_mix(const struct mlz_memo_entry *e, uintptr_t sp, uintptr_t rbp) {
  uint64_t h = e->needs_rbp ? rbp * mlz_memo_factors[MLZ_MEMO_WORDS] : 0;
  const uintptr_t *stack = (const uintptr_t *)sp;
#pragma GCC unroll 4
  for (uint32_t i = 0, words = e->words; i < words; i++) h += stack[e->at[i]] * mlz_memo_factors[i];
  return h;
}
/* The node of the stack; 0: it is not remembered. What lies between sp and `high` must be the thread's own stack. */
static inline __attribute__((always_inline)) uint32_t mlz_memo_find(const struct mlz_memo *m, uintptr_t pc, uintptr_t sp, uintptr_t rbp,
                                                                    uintptr_t high) {
  uint64_t key = mlz_memo_key(m, pc, sp, high);
  uint32_t set = mlz_memo_set(m, key);
  const __m128i tag = _mm_set1_epi32((int)mlz_memo_tag(key)), *tags = (const __m128i *)(const void *)&m->tags[set];
  __m128i low = _mm_cmpeq_epi32(_mm_load_si128(tags), tag), more = _mm_cmpeq_epi32(_mm_load_si128(tags + 1), tag);
  for (unsigned like = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, more), low)) & 0xff; like; like &= like - 1) {
    const struct mlz_memo_entry *e = &m->entry[set + (unsigned)__builtin_ctz(like)];
    if (e->key == key && mlz_memo_mix(e, sp, rbp) == e->mix) return e->node;
  }
  return 0;
}

/* Remembers a stack that was not found. */
static inline void mlz_memo_keep(struct mlz_memo *m, struct mlz_memo_stack *s, uintptr_t high) {
  uint64_t path = mlz_memo_path(0, s->pc);
  for (unsigned i = 0; i < MLZ_MEMO_STEPS; i++) {
    uint32_t place = mlz_memo_place(path);
    if (m->step[place].path && m->step[place].path != path) place ^= 1;
    if (m->step[place].path && m->step[place].path != path) break; /* whoever came first stays: else the keys of many stacks would change */
    m->step[place] = (struct mlz_memo_step){path, s->follow[i]};
    m->stepped = true;
    if (s->follow[i] == MLZ_MEMO_STOP) break;
    path = mlz_memo_path(path, ((const uintptr_t *)s->sp)[s->follow[i]]);
  }
  s->entry.key = mlz_memo_key(m, s->pc, s->sp, high);
  s->entry.mix = mlz_memo_mix(&s->entry, s->sp, s->rbp);
  uint32_t set = mlz_memo_set(m, s->entry.key), at = set;
  while (at < set + MLZ_MEMO_WAYS && m->tags[at]) at++;
  if (at == set + MLZ_MEMO_WAYS) at = set + m->turn++ % MLZ_MEMO_WAYS;
  m->entry[at] = s->entry;
  m->tags[at] = mlz_memo_tag(s->entry.key);
}

#endif
