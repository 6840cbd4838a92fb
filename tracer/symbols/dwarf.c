/* Functions, inlined functions and lines by DWARF. */
#include "tracer/symbols/module.h"

#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

#define INLINED_MAX 63u
#define INFERRED_MAX 8u

static int range_order(const void *a, const void *b) {
  const struct mlz_symbol_range *x = a, *y = b;
  return x->low < y->low ? -1 : x->low > y->low;
}
static int function_order(const void *a, const void *b) {
  const struct mlz_symbol_function *x = a, *y = b;
  return x->low < y->low ? -1 : x->low > y->low;
}

/* Ranges that begin at 0 or at the end of all addresses are those of code that the linker left out. */
static bool real(uint64_t low, uint64_t high) { return low != 0 && low < high && low < UINT64_MAX - 1; }

static void add_unit(struct mlz_symbol_module *m, const Dwarf_Die *lines, const Dwarf_Die *dies) {
  if (!mlz_symbol_grow(&m->units, &m->units_room, m->units_n + 1, sizeof *m->units)) return;
  m->units[m->units_n] = (struct mlz_symbol_unit){.lines = *lines, .dies = *dies};
  Dwarf_Addr base = 0, low, high;
  Dwarf_Die die = *lines;
  size_t before = m->ranges_n;
  for (ptrdiff_t at = 0; (at = dwarf_ranges(&die, at, &base, &low, &high)) > 0;) {
    if (!real(low, high)) continue;
    if (!mlz_symbol_grow(&m->ranges, &m->ranges_room, m->ranges_n + 1, sizeof *m->ranges)) break;
    m->ranges[m->ranges_n++] = (struct mlz_symbol_range){.low = low, .high = high, .unit = (uint32_t)m->units_n};
  }
  if (m->ranges_n > before) m->units_n++;
}

void mlz_symbol_dwarf_begin(struct mlz_symbol_module *m) {
  Dwarf *dwarf = dwfl_module_getdwarf(m->mod, &m->bias);
  if (!dwarf) return;
  Dwarf_CU *cu = NULL;
  Dwarf_Half version;
  uint8_t type;
  Dwarf_Die die, split;
  while (dwarf_get_units(dwarf, cu, &cu, &version, &type, &die, &split) == 0) {
    if (type == DW_UT_compile) add_unit(m, &die, &die);
    if (type == DW_UT_skeleton) add_unit(m, &die, split.addr ? &split : &die);
  }
  if (m->ranges_n) qsort(m->ranges, m->ranges_n, sizeof *m->ranges, range_order);
}

void mlz_symbol_dwarf_end(struct mlz_symbol_module *m) {
  for (size_t i = 0; i < m->units_n; i++) free(m->units[i].functions);
  free(m->units);
  free(m->ranges);
}

static struct mlz_symbol_unit *unit_at(struct mlz_symbol_module *m, uint64_t pc) {
  size_t behind = mlz_symbol_behind(m->ranges, m->ranges_n, sizeof *m->ranges, pc);
  for (size_t i = behind; i > 0 && behind - i < 4; i--) { /* a unit may lie within the range of another one that says too much */
    if (pc < m->ranges[i - 1].high) return &m->units[m->ranges[i - 1].unit];
  }
  return NULL;
}

/* ---- the functions of a unit ---- */

static Dwarf_Off origin_of(Dwarf_Die *die) {
  Dwarf_Attribute attribute;
  Dwarf_Die origin;
  return dwarf_attr(die, DW_AT_abstract_origin, &attribute) && dwarf_formref_die(&attribute, &origin) ? dwarf_dieoffset(&origin) : 0;
}

static void add_function(struct mlz_symbol_unit *u, Dwarf_Die *die) {
  Dwarf_Addr base = 0, low, high;
  for (ptrdiff_t at = 0; (at = dwarf_ranges(die, at, &base, &low, &high)) > 0;) {
    if (!real(low, high)) continue;
    if (!mlz_symbol_grow(&u->functions, &u->functions_room, u->functions_n + 1, sizeof *u->functions)) return;
    u->functions[u->functions_n++] =
        (struct mlz_symbol_function){.low = low, .high = high, .die = dwarf_dieoffset(die), .origin = origin_of(die)};
  }
}

/* Functions stand in their unit, in namespaces and classes, and in each other. */
static void find_functions(struct mlz_symbol_unit *u, Dwarf_Die *parent, unsigned depth) {
  Dwarf_Die child;
  if (depth == 32 || dwarf_child(parent, &child) != 0) return;
  do {
    switch (dwarf_tag(&child)) {
    case DW_TAG_subprogram:
      add_function(u, &child);
      if (dwarf_tag(parent) != DW_TAG_subprogram) find_functions(u, &child, depth + 1);
      break;
    case DW_TAG_namespace:
    case DW_TAG_module:
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type: /* Rust: methods of enums */
    case DW_TAG_variant_part:
      if (dwarf_tag(parent) != DW_TAG_subprogram) find_functions(u, &child, depth + 1);
      break;
    default:
      break;
    }
  } while (dwarf_siblingof(&child, &child) == 0);
}

static bool function_at(struct mlz_symbol_unit *u, uint64_t pc, Dwarf_Die *die, struct mlz_symbol_function *at) {
  if (!u->searched) {
    u->searched = true;
    find_functions(u, &u->dies, 0);
    if (u->functions_n) qsort(u->functions, u->functions_n, sizeof *u->functions, function_order);
  }
  size_t behind = mlz_symbol_behind(u->functions, u->functions_n, sizeof *u->functions, pc);
  for (size_t i = behind; i > 0 && behind - i < 4; i--) {
    if (pc >= u->functions[i - 1].high) continue;
    *at = u->functions[i - 1];
    return dwarf_offdie(dwarf_cu_getdwarf(u->dies.cu), at->die, die) != NULL;
  }
  return false;
}

/* ---- one address ---- */

static const char *name_of(struct mlz_symbol_module *m, Dwarf_Die *die, bool *plain) {
  Dwarf_Attribute attribute;
  const char *name = NULL;
  if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute) || dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attribute))
    name = dwarf_formstring(&attribute);
  *plain = !name;
  if (name) return mlz_symbol_shown(m, name);
  return dwarf_attr_integrate(die, DW_AT_name, &attribute) ? dwarf_formstring(&attribute) : NULL;
}

static bool number_of(Dwarf_Die *die, unsigned name, Dwarf_Word *out) {
  Dwarf_Attribute attribute;
  return dwarf_attr(die, name, &attribute) && dwarf_formudata(&attribute, out) == 0;
}

/* Where the inlined function is called. */
static void call_of(struct mlz_symbol_unit *u, Dwarf_Die *inlined, struct mlz_symbol *out) {
  Dwarf_Word file, line;
  Dwarf_Files *files;
  size_t n;
  if (number_of(inlined, DW_AT_call_line, &line)) out->line = (uint32_t)line;
  if (number_of(inlined, DW_AT_call_file, &file) && dwarf_getsrcfiles(&u->lines, &files, &n) == 0 && file < n)
    out->file = dwarf_filesrc(files, file, NULL, NULL);
}

/* The functions inlined around the address, the outermost first; returns how many. */
static unsigned inlined_at(Dwarf_Die *die, uint64_t pc, Dwarf_Die *out) {
  unsigned n = 0;
  Dwarf_Die parent = *die, child;
  for (unsigned depth = 0; depth < 512 && dwarf_child(&parent, &child) == 0; depth++) {
    bool deeper = false;
    do {
      int tag = dwarf_tag(&child);
      if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_lexical_block && tag != DW_TAG_try_block && tag != DW_TAG_catch_block) continue;
      if (dwarf_haspc(&child, pc) != 1) continue;
      if (tag == DW_TAG_inlined_subroutine) {
        if (n == INLINED_MAX) return n;
        out[n++] = child;
      }
      deeper = true;
    } while (!deeper && dwarf_siblingof(&child, &child) == 0);
    if (!deeper) break;
    parent = child;
  }
  return n;
}

/* ---- tail calls ---- */

struct calls { /* of a function, as its debug information lists them */
  uint64_t pc; /* the one that is looked for */
  bool found;
  Dwarf_Die site; /* if found */
  unsigned tails, others;
  Dwarf_Die tail; /* the last of them */
};

static bool flag_of(Dwarf_Die *die, unsigned name) {
  Dwarf_Attribute attribute;
  bool value;
  return dwarf_attr(die, name, &attribute) && dwarf_formflag(&attribute, &value) == 0 && value;
}

static bool address_of(Dwarf_Die *die, unsigned name, Dwarf_Addr *out) {
  Dwarf_Attribute attribute;
  return dwarf_attr(die, name, &attribute) && dwarf_formaddr(&attribute, out) == 0;
}

static void look_at_calls(Dwarf_Die *parent, struct calls *c, unsigned depth) {
  Dwarf_Die child;
  if (depth == 64 || dwarf_child(parent, &child) != 0) return;
  do {
    int tag = dwarf_tag(&child);
    if (tag == DW_TAG_lexical_block || tag == DW_TAG_inlined_subroutine) look_at_calls(&child, c, depth + 1);
    if (tag != DW_TAG_call_site) continue;
    Dwarf_Addr behind;
    if (address_of(&child, DW_AT_call_return_pc, &behind) && behind == c->pc + 1) {
      c->found = true;
      c->site = child;
    }
    if (flag_of(&child, DW_AT_call_tail_call)) {
      c->tails++;
      c->tail = child;
    } else {
      c->others++;
    }
  } while (dwarf_siblingof(&child, &child) == 0);
}

/* The code of the function that a call names, if it is of this unit. */
static bool called_by(struct mlz_symbol_unit *u, Dwarf_Die *site, Dwarf_Die *function) {
  Dwarf_Attribute attribute;
  Dwarf_Die origin;
  if (!dwarf_attr(site, DW_AT_call_origin, &attribute) || !dwarf_formref_die(&attribute, &origin)) return false;
  Dwarf_Off offset = dwarf_dieoffset(&origin);
  for (size_t i = 0; i < u->functions_n; i++) {
    if (u->functions[i].die != offset && u->functions[i].origin != offset) continue;
    return dwarf_offdie(dwarf_cu_getdwarf(u->dies.cu), u->functions[i].die, function) != NULL;
  }
  return false;
}

/* What was called at the address and is not on the stack: functions that call others as the last thing they do only, so that whatever was called
 * from there came through them. Innermost first; returns how many. */
static unsigned passed_through(struct mlz_symbol_module *m, struct mlz_symbol_unit *u, Dwarf_Die *function, uint64_t pc,
                               struct mlz_symbol *out, unsigned room) {
  struct calls c = {.pc = pc};
  Dwarf_Die callee;
  unsigned n = 0;
  look_at_calls(function, &c, 0);
  if (!c.found || flag_of(&c.site, DW_AT_call_tail_call)) return 0;
  for (Dwarf_Die site = c.site; n < room && called_by(u, &site, &callee); n++) {
    bool all = flag_of(&callee, DW_AT_call_all_calls) || flag_of(&callee, DW_AT_call_all_source_calls), plain;
    struct calls inside = {.pc = 0};
    look_at_calls(&callee, &inside, 0);
    if (!all || !inside.tails || inside.others) break;
    Dwarf_Addr at;
    struct mlz_symbol here = {.function = name_of(m, &callee, &plain), .inferred = true};
    if (!here.function) break;
    bool one = inside.tails == 1, known = one && address_of(&inside.tail, DW_AT_call_pc, &at);
    if (one && !known && (known = address_of(&inside.tail, DW_AT_call_return_pc, &at))) at--;
    Dwarf_Line *line = known ? dwarf_getsrc_die(&u->lines, at) : NULL;
    int number;
    if (line && dwarf_lineno(line, &number) == 0 && number > 0) {
      here.line = (uint32_t)number;
      here.file = dwarf_linesrc(line, NULL, NULL);
    }
    memmove(out + 1, out, n * sizeof *out);
    out[0] = here;
    if (!one) return n + 1; /* what it called is not known */
    site = inside.tail;
  }
  return n;
}

unsigned mlz_symbol_dwarf_lookup(struct mlz_symbol_module *m, uint64_t address, struct mlz_symbol *out, bool *plain) {
  uint64_t pc = address - m->bias;
  struct mlz_symbol_unit *u = unit_at(m, pc);
  struct mlz_symbol_function at;
  Dwarf_Die function, chain[1 + INLINED_MAX];
  if (!u || !function_at(u, pc, &function, &at)) return 0;
  chain[0] = function;
  unsigned n = 1 + inlined_at(&function, pc, chain + 1);
  struct mlz_symbol here = {0};
  Dwarf_Line *line = dwarf_getsrc_die(&u->lines, pc);
  int number;
  if (line && dwarf_lineno(line, &number) == 0 && number > 0) {
    here.line = (uint32_t)number;
    here.file = dwarf_linesrc(line, NULL, NULL);
  }
  unsigned inferred = passed_through(m, u, &function, pc, out, MLZ_SYMBOLS_MAX - n < INFERRED_MAX ? MLZ_SYMBOLS_MAX - n : INFERRED_MAX);
  out += inferred;
  for (unsigned i = 0; i < n; i++) {
    Dwarf_Die *die = &chain[n - 1 - i];
    here.function = name_of(m, die, plain);
    if (!here.function) {
      if (i == n - 1) return 0; /* the symbol table may know */
      here.function = "(no name)";
    }
    out[i] = here;
    here = (struct mlz_symbol){0};
    call_of(u, die, &here);
  }
  return inferred + n;
}

bool mlz_symbol_dwarf_range(struct mlz_symbol_module *m, uint64_t address, uint64_t *low, uint64_t *high) {
  struct mlz_symbol_unit *u = unit_at(m, address - m->bias);
  struct mlz_symbol_function at;
  Dwarf_Die die;
  if (!u || !function_at(u, address - m->bias, &die, &at)) return false;
  *low = at.low + m->bias;
  *high = at.high + m->bias;
  return true;
}
