/* Unwind rules of x86-64 code, read from a module's .eh_frame as the loader mapped it (LSB Core 5.0, chapter 10.6; DWARF 5, 6.4).
 *
 * Pure: reads the tables and nothing else, any thread, no allocation. A rule says how to get from a frame to its caller's with the registers
 * rsp and rbp alone. What needs more than that (other registers, values that are computed from what was loaded twice) has no rule: the walk ends
 * there. Of the tables of Debian 12's libc, libpython, git and cc1 that is less than one row in two thousand (tests/unit/agent/test_native_cfi.c). */
#ifndef MLZ_AGENT_NATIVE_CFI_H
#define MLZ_AGENT_NATIVE_CFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum mlz_rule_flag {
  MLZ_RULE_NONE = 1,    /* nothing is known: the walk ends here, and the stack is cut */
  MLZ_RULE_END = 2,     /* the outermost frame */
  MLZ_RULE_RBP = 4,     /* the base is rbp, else rsp */
  MLZ_RULE_LOAD = 8,    /* CFA = *(base + cfa) + add, else base + cfa */
  MLZ_RULE_RA_RSP = 16, /* the return address lies at rsp + add, else at CFA - 8 */
  MLZ_RULE_SIGNAL = 32, /* a signal interrupted the caller: its address is that of an instruction, not a return address */
  MLZ_RULE_EVAL = 64,   /* a loop of the interpreter (native_loops.c) */
  MLZ_RULE_OURS = 128,  /* of this library: never shown */
  MLZ_RULE_START =
      512, /* what is returned to is the beginning of a function that was never called: its name is that of the address itself */
  MLZ_RULE_FREE = 256, /* in no module: must not be remembered, something may be loaded there */
};
#define MLZ_RULE_ODD (MLZ_RULE_NONE | MLZ_RULE_END | MLZ_RULE_LOAD | MLZ_RULE_RA_RSP | MLZ_RULE_SIGNAL)

enum mlz_rule_rbp {
  MLZ_RBP_SAME = 0, /* the caller's rbp is this one */
  MLZ_RBP_CFA = 1,  /* it lies at CFA + rbp */
  MLZ_RBP_RBP = 2,  /* at rbp + rbp */
  MLZ_RBP_RSP = 3,  /* at rsp + rbp */
  MLZ_RBP_LOST = 4, /* nobody knows */
};

struct mlz_rule {
  uint64_t word; /* mlz_native_word of the address, as a return address */
  int32_t cfa;   /* CFA: the stack pointer of the caller, once this frame has returned */
  int32_t rbp;
  int32_t add;
  uint8_t rbp_kind; /* enum mlz_rule_rbp */
  uint8_t spare;
  uint16_t flags; /* enum mlz_rule_flag */
};
/* The same as three words, so that who looks a rule up has it in registers. */
struct mlz_rule_words {
  uint64_t word, cfa_rbp, rest;
};
_Static_assert(sizeof(struct mlz_rule) == 24 && offsetof(struct mlz_rule, cfa) == 8 && offsetof(struct mlz_rule, rbp) == 12 &&
                   offsetof(struct mlz_rule, add) == 16 && offsetof(struct mlz_rule, rbp_kind) == 20 &&
                   offsetof(struct mlz_rule, flags) == 22,
               "as the functions below take it apart");
static inline intptr_t mlz_rule_cfa(struct mlz_rule_words w) { return (int32_t)w.cfa_rbp; }
static inline intptr_t mlz_rule_rbp(struct mlz_rule_words w) { return (int32_t)(w.cfa_rbp >> 32); }
static inline intptr_t mlz_rule_add(struct mlz_rule_words w) { return (int32_t)w.rest; }
static inline unsigned mlz_rule_rbp_kind(struct mlz_rule_words w) { return (uint8_t)(w.rest >> 32); }
static inline unsigned mlz_rule_flags(struct mlz_rule_words w) { return (unsigned)(w.rest >> 48); }

/* The rule of the instruction at `pc`, from the table `hdr` (PT_GNU_EH_FRAME, mapped). Sets all but `word`; flags NONE where there is none. */
void mlz_cfi_rule(const uint8_t *hdr, uintptr_t pc, struct mlz_rule *out);
/* The range of code that the table's entry for `pc` covers; false: there is none. */
bool mlz_cfi_range(const uint8_t *hdr, uintptr_t pc, uintptr_t *low, uintptr_t *high);

#pragma GCC visibility pop
#endif
