#include "tracer/symbols/symbolizer.h"

#include <elfutils/libdwelf.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Functions that stay in the file whatever a linker leaves out, and jemalloc's under whatever prefix it was built with. */
static const struct {
  const char *function, *name;
  bool end; /* the symbol may end like this */
} known[] = {
    {"je_malloc", "jemalloc", false},
    {"_rjem_malloc", "jemalloc", false},
    {"_rjem_mallocx", "jemalloc", false},
    {"je_arena_init", "jemalloc", false},
    {"arena_malloc_hard", "jemalloc", true},
    {"mallctlnametomib", "jemalloc", true},
    {"mi_malloc", "mimalloc", false},
    {"_mi_malloc", "mimalloc", false},
    {"_mi_malloc_generic", "mimalloc", false},
    {"tc_malloc", "tcmalloc", false},
    {"TCMallocInternalMalloc", "tcmalloc", false},
    {"sn_malloc", "snmalloc", false},
    {"rpmalloc", "rpmalloc", false},
    {"xxmalloc", "Hoard", false},
    {"scalable_malloc", "TBB's scalable allocator", false},
    {"nedmalloc", "nedmalloc", false},
    {"dlmalloc", "dlmalloc", false},
    {"mesh_malloc", "Mesh", false},
    {"hardened_malloc", "hardened_malloc", false},
    {"malloc", "its own malloc", false}, /* said only where nothing else is */
};
enum { KNOWN = sizeof known / sizeof known[0], OWN_MALLOC = KNOWN - 1 };

/* Where the symbols are gone: what they print. Neither is in any file of Debian's or of our wheels that has not the allocator's code. */
static const struct {
  const char *name, *text, *also, *evidence;
} printed[] = {
    {"jemalloc", "<jemalloc>: ", "MALLOC_CONF", "by its text \"<jemalloc>: \""},
    {"mimalloc", "mimalloc: warning: ", "mimalloc: error: ", "by its text \"mimalloc: warning: \""},
};
enum { PRINTED = sizeof printed / sizeof printed[0], TEXT_MAX = 32, PIECE = 1 << 18 };

struct seen {
  bool of[KNOWN];
  bool exported; /* its malloc: calls of it reach ours */
  bool python;   /* the interpreter's mimalloc lies below our hooks */
  bool closures; /* libffi: its dlmalloc is for code only */
};

static void look_at_name(const char *name, struct seen *seen) {
  if (name[0] == '_' && name[1] == 'Z') return; /* C++: most of a large table */
  size_t n = strlen(name);
  for (size_t i = 0; i < KNOWN; i++) {
    size_t tail = known[i].end ? strlen(known[i].function) : n;
    if (n >= tail && strcmp(name + n - tail, known[i].function) == 0) seen->of[i] = true;
  }
  if (strcmp(name, "PyMem_SetAllocator") == 0) seen->python = true;
  if (strcmp(name, "ffi_closure_alloc") == 0) seen->closures = true;
}

static void look_at_table(Elf *elf, Elf_Scn *section, const GElf_Shdr *h, struct seen *seen) {
  Elf_Data *data = elf_getdata(section, NULL);
  size_t n = data && h->sh_entsize ? h->sh_size / h->sh_entsize : 0;
  for (size_t i = 1; i < n && i < INT32_MAX; i++) {
    GElf_Sym s;
    if (!gelf_getsym(data, (int)i, &s) || s.st_shndx == SHN_UNDEF) continue;
    if (GELF_ST_TYPE(s.st_info) != STT_FUNC && GELF_ST_TYPE(s.st_info) != STT_GNU_IFUNC) continue;
    const char *name = elf_strptr(elf, h->sh_link, s.st_name);
    if (!name) continue;
    look_at_name(name, seen);
    if (h->sh_type == SHT_DYNSYM && strcmp(name, "malloc") == 0) seen->exported = true;
  }
}

/* A program's own functions come before those of every library, ours too. */
static bool is_program(Elf *elf, const GElf_Ehdr *e) {
  if (e->e_type == ET_EXEC) return true;
  for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section)) != NULL;) {
    GElf_Shdr h;
    if (!gelf_getshdr(section, &h) || h.sh_type != SHT_DYNAMIC) continue;
    Elf_Data *data = elf_getdata(section, NULL);
    size_t n = data && h.sh_entsize ? h.sh_size / h.sh_entsize : 0;
    for (size_t i = 0; i < n && i < INT32_MAX; i++) {
      GElf_Dyn d;
      if (gelf_getdyn(data, (int)i, &d) && d.d_tag == DT_FLAGS_1 && d.d_un.d_val & DF_1_PIE) return true;
    }
  }
  return false;
}

static bool is_constant(const GElf_Shdr *h) {
  return h->sh_type == SHT_PROGBITS && h->sh_flags & SHF_ALLOC && !(h->sh_flags & (SHF_WRITE | SHF_EXECINSTR));
}

/* Which of the texts do the file's constants hold? Read piece by piece: a library may have 100 MB of them. */
static void look_for(Elf *elf, int file, const char *const *texts, bool *held, size_t n_texts) {
  char *piece = malloc(PIECE);
  for (Elf_Scn *section = NULL; piece && (section = elf_nextscn(elf, section)) != NULL;) {
    GElf_Shdr h;
    if (!gelf_getshdr(section, &h) || !is_constant(&h)) continue;
    size_t kept = 0;
    for (uint64_t at = 0; at < h.sh_size;) {
      size_t want = h.sh_size - at < PIECE - kept ? (size_t)(h.sh_size - at) : PIECE - kept;
      ssize_t got = pread(file, piece + kept, want, (off_t)(h.sh_offset + at));
      if (got <= 0) break;
      size_t have = kept + (size_t)got;
      for (size_t i = 0; i < n_texts; i++) held[i] = held[i] || memmem(piece, have, texts[i], strlen(texts[i]));
      kept = have < TEXT_MAX ? have : TEXT_MAX;
      memmove(piece, piece + have - kept, kept);
      at += (uint64_t)got;
    }
  }
  free(piece);
}

static unsigned by_text(Elf *elf, int file, struct mlz_symbol_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]) {
  const char *texts[PRINTED], *also[PRINTED];
  bool held[PRINTED] = {false}, too[PRINTED] = {false}, any = false;
  unsigned n = 0;
  for (size_t i = 0; i < PRINTED; i++) texts[i] = printed[i].text, also[i] = printed[i].also;
  look_for(elf, file, texts, held, PRINTED);
  for (size_t i = 0; i < PRINTED; i++) any |= held[i];
  if (any) look_for(elf, file, also, too, PRINTED);
  for (size_t i = 0; i < PRINTED; i++)
    if (held[i] && too[i]) out[n++] = (struct mlz_symbol_allocator){printed[i].name, printed[i].evidence};
  return n;
}

static unsigned by_name(const struct seen *seen, struct mlz_symbol_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]) {
  unsigned n = 0;
  for (size_t i = 0; i < KNOWN && n < MLZ_SYMBOL_ALLOCATORS_MAX; i++) {
    bool said = n && strcmp(out[n - 1].name, known[i].name) == 0; /* those of one name follow each other */
    if (seen->of[i] && !said && !(i == OWN_MALLOC && n)) out[n++] = (struct mlz_symbol_allocator){known[i].name, known[i].function};
  }
  return n;
}

static bool same_build(Elf *elf, const uint8_t *build_id, size_t n) {
  const void *bits;
  ssize_t has = dwelf_elf_gnu_build_id(elf, &bits);
  return n == 0 || (has == (ssize_t)n && memcmp(bits, build_id, n) == 0);
}

static unsigned look_into(Elf *elf, int file, bool *program, struct mlz_symbol_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]) {
  struct seen seen = {.exported = false};
  GElf_Ehdr e;
  if (!gelf_getehdr(elf, &e)) return 0;
  *program = is_program(elf, &e);
  for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section)) != NULL;) {
    GElf_Shdr h;
    if (gelf_getshdr(section, &h) && (h.sh_type == SHT_SYMTAB || h.sh_type == SHT_DYNSYM)) look_at_table(elf, section, &h, &seen);
  }
  if (seen.python || (seen.exported && !*program)) return 0;
  for (size_t i = 0; seen.closures && i < KNOWN; i++)
    if (strcmp(known[i].function, "dlmalloc") == 0) seen.of[i] = false;
  unsigned n = by_name(&seen, out);
  return n ? n : by_text(elf, file, out);
}

unsigned mlz_symbol_allocators(int file, const uint8_t *build_id, size_t n, bool *program,
                               struct mlz_symbol_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]) {
  Elf *elf = elf_version(EV_CURRENT) != EV_NONE ? elf_begin(file, ELF_C_READ, NULL) : NULL;
  *program = false;
  if (!elf) return 0;
  unsigned found = elf_kind(elf) == ELF_K_ELF && same_build(elf, build_id, n) ? look_into(elf, file, program, out) : 0;
  elf_end(elf);
  return found;
}
