#include "tracer/symbols/symbolizer.h"

#include <gelf.h>
#include <string.h>

static const struct {
  const char *function, *name;
} known[] = {
    {"je_malloc", "jemalloc"},     {"_rjem_malloc", "jemalloc"},
    {"_rjem_mallocx", "jemalloc"}, {"je_arena_init", "jemalloc"},
    {"mi_malloc", "mimalloc"},     {"_mi_malloc", "mimalloc"},
    {"tc_malloc", "tcmalloc"},     {"TCMallocInternalMalloc", "tcmalloc"},
    {"sn_malloc", "snmalloc"},     {"rpmalloc", "rpmalloc"},
    {"xxmalloc", "Hoard"},         {"scalable_malloc", "TBB's scalable allocator"},
    {"nedmalloc", "nedmalloc"},    {"dlmalloc", "dlmalloc"},
    {"mesh_malloc", "Mesh"},       {"hardened_malloc", "hardened_malloc"},
    {"malloc", "its own malloc"},
};
enum { KNOWN = sizeof known / sizeof known[0] };

static size_t index_of(const char *function) {
  size_t i = 0;
  while (i < KNOWN && strcmp(function, known[i].function) != 0) i++;
  return i;
}

/* The first of the list that the table defines; KNOWN: none. *python: it is the interpreter, whose mimalloc lies below our hooks. */
static size_t look_at(Elf *elf, Elf_Scn *section, const GElf_Shdr *h, size_t best, bool *python) {
  Elf_Data *data = elf_getdata(section, NULL);
  size_t n = data && h->sh_entsize ? h->sh_size / h->sh_entsize : 0;
  for (size_t i = 1; i < n && i < INT32_MAX; i++) {
    GElf_Sym s;
    if (!gelf_getsym(data, (int)i, &s) || s.st_shndx == SHN_UNDEF) continue;
    if (GELF_ST_TYPE(s.st_info) != STT_FUNC && GELF_ST_TYPE(s.st_info) != STT_GNU_IFUNC) continue;
    const char *name = elf_strptr(elf, h->sh_link, s.st_name);
    size_t at = name ? index_of(name) : KNOWN;
    if (at < best) best = at;
    if (name && strcmp(name, "PyMem_SetAllocator") == 0) *python = true;
  }
  return best;
}

const char *mlz_symbol_allocator(int file, const char **function) {
  if (elf_version(EV_CURRENT) == EV_NONE) return NULL;
  Elf *elf = elf_begin(file, ELF_C_READ, NULL);
  if (!elf) return NULL;
  size_t best = KNOWN;
  bool python = false;
  for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section)) != NULL;) {
    GElf_Shdr h;
    if (gelf_getshdr(section, &h) && (h.sh_type == SHT_SYMTAB || h.sh_type == SHT_DYNSYM)) best = look_at(elf, section, &h, best, &python);
  }
  elf_end(elf);
  if (best == KNOWN || python) return NULL;
  *function = known[best].function;
  return known[best].name;
}
