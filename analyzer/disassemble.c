#include "analyzer/disassemble.h"

#include <capstone/capstone.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE_MAX (1u << 20) /* of a function: what is further away from its beginning is not decoded from there */
#define BACK 96u            /* bytes ahead of the address where no function is known */

static bool open_engine(unsigned machine, csh *engine) {
  if (machine == EM_X86_64) return cs_open(CS_ARCH_X86, CS_MODE_64, engine) == CS_ERR_OK;
  if (machine == EM_AARCH64) return cs_open(CS_ARCH_ARM64, CS_MODE_ARM, engine) == CS_ERR_OK;
  return false;
}

struct decoded {
  struct mlz_instruction *at;
  size_t n, room;
  size_t call; /* n: not met */
};

static bool keep(struct decoded *d, const cs_insn *insn) {
  if (d->n == d->room) {
    size_t room = d->room ? d->room * 2 : 64;
    struct mlz_instruction *grown = reallocarray(d->at, room, sizeof *grown);
    if (!grown) return false;
    d->at = grown;
    d->room = room;
  }
  struct mlz_instruction *x = &d->at[d->n++];
  *x = (struct mlz_instruction){.address = insn->address, .size = insn->size <= sizeof x->bytes ? insn->size : (unsigned)sizeof x->bytes};
  memcpy(x->bytes, insn->bytes, x->size);
  snprintf(x->text, sizeof x->text, "%s%s%s", insn->mnemonic, *insn->op_str ? " " : "", insn->op_str);
  return true;
}

/* From `low` on, until `after` instructions behind the one that holds the address. true: one of them does. */
static bool decode(csh engine, const uint8_t *code, size_t bytes, uint64_t low, uint64_t address, unsigned after, struct decoded *d) {
  cs_insn *insn = cs_malloc(engine);
  bool found = false;
  d->n = d->call = 0;
  while (insn && bytes && (!found || d->n <= d->call + after) && cs_disasm_iter(engine, &code, &bytes, &low, insn)) {
    if (!keep(d, insn)) break;
    if (insn->address <= address && address - insn->address < insn->size) {
      found = d->at[d->n - 1].call = true;
      d->call = d->n - 1;
    }
    if (!found && insn->address > address) break;
  }
  if (insn) cs_free(insn, 1);
  return found;
}

/* Without a function: the first place ahead from which decoding comes by the address, some instructions on. An instruction that ends right behind the
 * address is a call's. */
static bool decode_back(csh engine, const uint8_t *code, size_t bytes, uint64_t low, uint64_t address, unsigned before, unsigned after,
                        struct decoded *d) {
  for (size_t skip = 0; skip < bytes && low + skip <= address; skip++) {
    if (!decode(engine, code + skip, bytes - skip, low + skip, address, after, d)) continue;
    const struct mlz_instruction *x = &d->at[d->call];
    bool ends_there = x->address + x->size == address + 1 || x->address == address;
    if (ends_there && (d->call >= before || address - low - skip <= 16)) return true;
  }
  return false;
}

unsigned mlz_disassemble(struct mlz_symbol_module *m, uint64_t address, unsigned before, unsigned after,
                         struct mlz_instruction out[MLZ_INSTRUCTIONS_MAX], const char **why) {
  csh engine;
  unsigned machine = mlz_symbolizer_machine(m), n = 0;
  *why = "code of this kind of machine is not disassembled";
  if (!open_engine(machine, &engine)) return 0;
  uint64_t low = address > BACK ? address - BACK : 0, high = address + BACK;
  bool known = mlz_symbolizer_range(m, address, &low, &high) && address - low < CODE_MAX;
  if (!known) {
    low = address > BACK ? address - BACK : 0;
    high = address + BACK;
    if (machine == EM_AARCH64) low &= ~UINT64_C(3);
    uint8_t byte;
    while (low < address && !mlz_symbolizer_code(m, low, &byte, 1)) low += machine == EM_AARCH64 ? 4 : 1; /* the code begins here */
  }
  size_t want = high - low < CODE_MAX + BACK ? (size_t)(high - low) : CODE_MAX + BACK;
  uint8_t *code = malloc(want);
  size_t bytes = code ? mlz_symbolizer_code(m, low, code, want) : 0;
  struct decoded d = {0};
  *why = "the file holds no code there";
  if (bytes) {
    *why = "what lies there is no instruction";
    bool found = known || machine == EM_AARCH64 ? decode(engine, code, bytes, low, address, after, &d)
                                                : decode_back(engine, code, bytes, low, address, before, after, &d);
    size_t first = found && d.call > before ? d.call - before : 0;
    for (size_t i = first; found && i < d.n && n < MLZ_INSTRUCTIONS_MAX; i++) out[n++] = d.at[i];
  }
  free(d.at);
  free(code);
  cs_close(&engine);
  return n;
}
