/* The inside of a symbolizer. Private to tracer/symbols/. */
#ifndef MLZ_SYMBOLS_MODULE_H
#define MLZ_SYMBOLS_MODULE_H

#include "tracer/symbols/symbolizer.h"

#include <elfutils/libdwfl.h>

struct mlz_symbol_function { /* a function's piece of code in a unit */
  uint64_t low, high;
  Dwarf_Off die;
  Dwarf_Off origin; /* the abstract function that it is an instance of; 0: none */
};
struct mlz_symbol_unit {
  Dwarf_Die lines;                       /* the unit that has ranges and lines */
  Dwarf_Die dies;                        /* the one that has functions: another one where debug information is split */
  struct mlz_symbol_function *functions; /* by rising low; NULL until asked for */
  size_t functions_n, functions_room;
  bool searched;
};
struct mlz_symbol_range {
  uint64_t low, high;
  uint32_t unit;
};
struct mlz_symbol_entry { /* of the symbol table */
  uint64_t low, size;
  const char *name;
  unsigned rank; /* the lowest of those at one address is its name */
};
struct mlz_symbol_text {
  struct mlz_symbol_text *next;
  char text[];
};
struct mlz_symbol_module {
  struct mlz_symbol_module *next;
  char *key; /* path and build id */
  size_t key_bytes;
  bool found;
  Dwfl *dwfl;
  Dwfl_Module *mod;
  Dwarf_Addr bias; /* address here - bias = address in the DWARF */
  bool looked;     /* for DWARF and symbols */
  struct mlz_symbol_unit *units;
  size_t units_n, units_room;
  struct mlz_symbol_range *ranges; /* by rising low */
  size_t ranges_n, ranges_room;
  struct mlz_symbol_entry *entries; /* by rising low */
  size_t entries_n, entries_room;
  struct mlz_symbol_text *texts;
};

/* Of an array by rising uint64_t `low`, each element's first member: the first that begins behind the address. */
size_t mlz_symbol_behind(const void *array, size_t n, size_t element, uint64_t address);
bool mlz_symbol_grow(void *array, size_t *room, size_t need, size_t element);
const char *mlz_symbol_keep(struct mlz_symbol_module *m, char *text); /* takes it; NULL: out of memory */
/* dwarf.c */
void mlz_symbol_dwarf_begin(struct mlz_symbol_module *m);
/* *plain: the outermost function's name is not the one that a linker knows: without its namespace. */
unsigned mlz_symbol_dwarf_lookup(struct mlz_symbol_module *m, uint64_t address, struct mlz_symbol *out, bool *plain);
bool mlz_symbol_dwarf_range(struct mlz_symbol_module *m, uint64_t address, uint64_t *low, uint64_t *high);
void mlz_symbol_dwarf_end(struct mlz_symbol_module *m);
const char *mlz_symbol_shown(struct mlz_symbol_module *m, const char *name); /* demangled, if it is mangled */

#endif
