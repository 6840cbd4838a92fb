/* Native stacks (docs/native.md): with --native each sampled allocation says which frames of the program's own code lie above it.
 *
 * Runs in the hooks of the traced program, on the allocating thread, with t->busy EVENT. No lock, no allocation, no system call once a program counter
 * has been seen; nothing here is touched by a run without --native. What a thread remembers lies in a mapping of its own, made at its first capture
 * and unmapped with it; a fork's child does not inherit it.
 * Budget: 65 ns a capture where the memo hits, 15 ns a new frame whose rule is known.
 *
 *   native_cfi.c      a module's tables -> the rule of an address
 *   native_module.c   address -> module, its number
 *   native_loops.c    where the interpreter's loops are
 *   native_rules.c    the process's table of rules
 *   native_stack.c    which memory may be read
 *   native_memo.h     whole stacks that are remembered
 *   native.c          walk, shadow stack, trie, messages */
#ifndef MLZ_AGENT_NATIVE_H
#define MLZ_AGENT_NATIVE_H

#include "agent.h"
#include "native_cfi.h"

#pragma GCC visibility push(hidden)

/* ---- hooks ---- */

/* The caller of a hook that was called with this frame pointer: [0] the caller's rbp, [1] the return address, then its stack. */
#define MLZ_NATIVE_FRAME() ((const uintptr_t *)__builtin_frame_address(0))

/* Sends what is new of the stack above the hook's frame, before the event. `tstate`: the thread's interpreter state, or NULL. False: there was no
 * room in the ring; the event must not be sent. */
bool mlz_native_capture(struct mlz_tls *t, const uintptr_t *frame, const char *tstate);

void mlz_native_start(void);                    /* once a session, before the first capture */
void mlz_native_release(struct mlz_thread *th); /* gives back what the thread remembers; of this thread, or of one that is gone */

/* ---- native_module.c ---- */

struct mlz_native_module {
  uintptr_t low, high;
  uintptr_t bias;     /* run-time address - address in the file's sense */
  const uint8_t *hdr; /* PT_GNU_EH_FRAME; NULL: it has none */
  const char *name;   /* the loader's; empty: the program */
};
#define MLZ_NATIVE_MODULES 4096u
/* False: `pc` lies in no module. */
bool mlz_native_module_of(uintptr_t pc, struct mlz_native_module *m);
/* Its number, the same for every thread of the image; 0: there are too many. */
unsigned mlz_native_module_number(const struct mlz_native_module *m);
/* Fills what MODULE carries (struct mlz_module_header and what follows) into `out`; returns the bytes. */
uint32_t mlz_native_module_text(const struct mlz_native_module *m, uint8_t *out, uint32_t size);
/* The rule of what is returned to at `ra` (for an interrupted instruction: its address + 1), from the tables themselves: 300-900 ns. */
void mlz_native_rule(uintptr_t ra, struct mlz_rule *out);

/* Raised when modules were unloaded: what was remembered of addresses is not true any more. While one is being unloaded nothing is remembered. */
struct mlz_native_epoch {
  _Atomic uint32_t now;
  _Atomic uint32_t unloading;
};
extern struct mlz_native_epoch mlz_native_epoch;

/* ---- native_loops.c ---- */

void mlz_native_python(void); /* the interpreter was found: where its loops are */
bool mlz_native_loop(uintptr_t pc);
/* Parts of the function [low, high) of module `m` that lie elsewhere and have no name. Reads its code and the module's unwind table. */
void mlz_native_parts(const struct mlz_native_module *m, uintptr_t low, uintptr_t high, void (*found)(uintptr_t low, uintptr_t high));

/* ---- native_rules.c: insert-only, any thread ---- */

#define MLZ_RULES_EPOCHS 0x7fffu /* later epochs are not remembered */
#define MLZ_RULES_PROBES 8u
/* key: | 63 being filled | 62..48 epoch | 47..0 address |, 0: free. A slot whose epoch has passed may be filled anew. */
struct mlz_rules_slot {
  _Atomic uint64_t key;
  _Atomic uint64_t words[3];
};
struct mlz_rules_table {
  uint32_t bits;
  _Atomic uint32_t used;
  uint64_t unused[3];
  struct mlz_rules_slot slots[];
};
extern struct mlz_rules_table *_Atomic mlz_rules; /* NULL: nothing yet */

static inline uint64_t mlz_rules_key(uintptr_t ra, uint32_t epoch) { return (ra & ((UINT64_C(1) << 48) - 1)) | (uint64_t)epoch << 48; }
static inline struct mlz_rules_slot *mlz_rules_slot(struct mlz_rules_table *t, uintptr_t ra, unsigned probe) {
  uint64_t place = ((ra * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - t->bits)) + probe;
  return &t->slots[place & ((UINT64_C(1) << t->bits) - 1)];
}
/* False: not there. `epoch` below MLZ_RULES_EPOCHS. */
static inline __attribute__((always_inline)) bool mlz_rules_get(uintptr_t ra, uint32_t epoch, struct mlz_rule_words *out) {
  struct mlz_rules_table *t = atomic_load_explicit(&mlz_rules, memory_order_acquire);
  if (MLZ_UNLIKELY(!t)) return false;
  uint64_t key = mlz_rules_key(ra, epoch);
  for (unsigned i = 0; i < MLZ_RULES_PROBES; i++) {
    struct mlz_rules_slot *s = mlz_rules_slot(t, ra, i);
    uint64_t k = atomic_load_explicit(&s->key, memory_order_acquire);
    if (MLZ_UNLIKELY(k == 0)) return false;
    if (MLZ_UNLIKELY(k != key)) continue;
    out->word = atomic_load_explicit(&s->words[0], memory_order_relaxed);
    out->cfa_rbp = atomic_load_explicit(&s->words[1], memory_order_relaxed);
    out->rest = atomic_load_explicit(&s->words[2], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return MLZ_LIKELY(atomic_load_explicit(&s->key, memory_order_relaxed) == key); /* else it is being filled anew */
  }
  return false;
}
void mlz_rules_put(uintptr_t ra, uint32_t epoch, const struct mlz_rule *rule);

/* ---- native_stack.c ---- */

/* Memory that a walk may read: [low, high), each word at its address + shift. The thread's own stack is read where it lies, from the stack pointer on; any other
 * one (coroutines, signal stacks), and what nobody has pushed, through the kernel, into a copy, since nobody says where it ends. */
struct mlz_native_view {
  uintptr_t low, high;
  intptr_t shift;
};
struct mlz_native_home {
  uintptr_t low, high; /* the thread's own stack, from where it may grow to, up to its end; 0, 0: not known */
  uint32_t tries;
  uint32_t copies; /* views of other stacks so far */
};
#define MLZ_NATIVE_COPY 4096u
/* Looks for the thread's own stack: once, where `sp` lies on it. `scratch` has MLZ_NATIVE_COPY bytes. */
void mlz_native_home_find(struct mlz_native_home *h, uintptr_t sp, uintptr_t self, uint8_t *scratch);
#define MLZ_NATIVE_RED 128u /* bytes below a stack pointer that belong to its function */
/* What a walk that is at `sp`, on the thread's own stack, may read of it where it lies. */
static inline struct mlz_native_view mlz_native_home_view(const struct mlz_native_home *h, uintptr_t sp) {
  uintptr_t low = sp - MLZ_NATIVE_RED;
  return (struct mlz_native_view){low > h->low ? low : h->low, h->high, 0};
}
/* A view that holds the word at `at`, for a walk that is at `sp`; false: it cannot be read. */
bool mlz_native_view(struct mlz_native_home *h, uintptr_t sp, uintptr_t at, struct mlz_native_view *v, uint8_t *copy);

#pragma GCC visibility pop
#endif
