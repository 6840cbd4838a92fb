#include "tracer/symbols/module.h"

#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct mlz_symbolizer {
  char *directory; /* absolute; NULL: none */
  char *paths;     /* where libdwfl looks for debug files */
  Dwfl_Callbacks callbacks;
  struct mlz_symbol_module *modules;
};

size_t mlz_symbol_behind(const void *array, size_t n, size_t element, uint64_t address) {
  size_t low = 0, high = n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    uint64_t begins;
    memcpy(&begins, (const char *)array + middle * element, sizeof begins);
    if (begins <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

bool mlz_symbol_grow(void *array, size_t *room, size_t need, size_t element) {
  if (need <= *room) return true;
  size_t n = *room ? *room * 2 : 64;
  void *p;
  memcpy(&p, array, sizeof p);
  p = reallocarray(p, n, element);
  if (!p) return false;
  memcpy(array, &p, sizeof p);
  *room = n;
  return true;
}

struct mlz_symbolizer *mlz_symbolizer_new(const char *directory) {
  struct mlz_symbolizer *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  if (directory) s->directory = realpath(directory, NULL);
  int n = s->directory ? asprintf(&s->paths, ":.debug:%s:/usr/lib/debug", s->directory) : asprintf(&s->paths, ":.debug:/usr/lib/debug");
  if (n < 0) {
    free(s->directory);
    free(s);
    return NULL;
  }
  s->callbacks =
      (Dwfl_Callbacks){.find_elf = dwfl_build_id_find_elf, .find_debuginfo = dwfl_standard_find_debuginfo, .debuginfo_path = &s->paths};
  return s;
}

static void module_free(struct mlz_symbol_module *m) {
  mlz_symbol_dwarf_end(m);
  if (m->dwfl) dwfl_end(m->dwfl);
  for (struct mlz_symbol_text *t = m->texts, *next; t; t = next) {
    next = t->next;
    free(t);
  }
  free(m->entries);
  free(m->key);
  free(m);
}

struct mlz_symbolizer *mlz_symbolizer_free(struct mlz_symbolizer *s) {
  if (!s) return NULL;
  for (struct mlz_symbol_module *m = s->modules, *next; m; m = next) {
    next = m->next;
    module_free(m);
  }
  free(s->directory);
  free(s->paths);
  free(s);
  return NULL;
}

/* ---- finding the file ---- */

static void forget(struct mlz_symbol_module *m) {
  if (m->dwfl) dwfl_end(m->dwfl);
  m->dwfl = NULL;
  m->mod = NULL;
}

/* Does the file have this build id (none: any, or none)? */
static bool same_build(Dwfl_Module *mod, const uint8_t *build_id, size_t n, bool any) {
  const unsigned char *bits;
  GElf_Addr at;
  int has = dwfl_module_build_id(mod, &bits, &at);
  if (n == 0) return any || has <= 0;
  return has > 0 && (size_t)has == n && memcmp(bits, build_id, n) == 0;
}

/* Takes the descriptor. */
static bool use(struct mlz_symbolizer *s, struct mlz_symbol_module *m, const char *path, int fd, const uint8_t *build_id, size_t n,
                bool any) {
  if (fd < 0) return false;
  m->dwfl = dwfl_begin(&s->callbacks);
  if (m->dwfl) {
    dwfl_report_begin(m->dwfl);
    m->mod = dwfl_report_elf(m->dwfl, path, path, fd, 0, true);
    dwfl_report_end(m->dwfl, NULL, NULL);
  }
  if (!m->mod) {
    close(fd);
    forget(m);
    return false;
  }
  GElf_Addr bias;
  if (dwfl_module_getelf(m->mod, &bias) && same_build(m->mod, build_id, n, any)) return true;
  forget(m);
  return false;
}

static int open_plain(const char *path) {
  struct stat st;
  if (stat(path, &st) < 0 || !S_ISREG(st.st_mode)) return -1; /* no pipe, no device is opened */
  return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static bool use_named(struct mlz_symbolizer *s, struct mlz_symbol_module *m, const uint8_t *build_id, size_t n, const char *path) {
  return use(s, m, path, open_plain(path), build_id, n, false);
}

static bool use_in(struct mlz_symbolizer *s, struct mlz_symbol_module *m, const char *directory, const char *path, const uint8_t *build_id,
                   size_t n) {
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *const names[] = {path, base, base, ""};
  const char *const ends[] = {"", "", ".debug", ""};
  char file[PATH_MAX];
  for (unsigned i = 0; i < 3; i++) {
    if (snprintf(file, sizeof file, "%s/%s%s", directory, names[i], ends[i]) < (int)sizeof file && use_named(s, m, build_id, n, file))
      return true;
  }
  if (n < 2) return false;
  char hex[2 * 64 + 1] = "";
  for (size_t i = 1; i < n && i < 64; i++) snprintf(hex + 2 * (i - 1), 3, "%02x", build_id[i]);
  for (unsigned i = 2; i < 4; i++) {
    if (snprintf(file, sizeof file, "%s/.build-id/%02x/%s%s", directory, build_id[0], hex, ends[i]) < (int)sizeof file &&
        use_named(s, m, build_id, n, file))
      return true;
  }
  return false;
}

/* By its build id alone: where distributions put such files, or at a server. */
static bool use_build(struct mlz_symbolizer *s, struct mlz_symbol_module *m, const char *path, const uint8_t *build_id, size_t n) {
  if (n < 2) return false;
  if (use_in(s, m, "/usr/lib/debug", path, build_id, n)) return true;
  if (!getenv("DEBUGINFOD_URLS")) return false;
  Dwfl *dwfl = dwfl_begin(&s->callbacks);
  if (!dwfl) return false;
  dwfl_report_begin(dwfl);
  Dwfl_Module *mod = dwfl_report_module(dwfl, path, 1, 2);
  char *name = NULL;
  Elf *elf = NULL;
  int fd = -1;
  if (mod && dwfl_module_report_build_id(mod, build_id, n, 0) == 0) fd = dwfl_build_id_find_elf(mod, NULL, path, 1, &name, &elf);
  dwfl_report_end(dwfl, NULL, NULL);
  if (elf) elf_end(elf);
  bool found = use(s, m, path, fd, build_id, n, false);
  free(name);
  dwfl_end(dwfl);
  return found;
}

struct mlz_symbol_module *mlz_symbolizer_module(struct mlz_symbolizer *s, const char *path, int file, const uint8_t *build_id, size_t n) {
  size_t path_bytes = strlen(path) + 1;
  for (struct mlz_symbol_module *m = s->modules; m; m = m->next) {
    if (m->key_bytes == path_bytes + n && memcmp(m->key, path, path_bytes) == 0 &&
        (n == 0 || memcmp(m->key + path_bytes, build_id, n) == 0))
      return m->found ? m : NULL;
  }
  struct mlz_symbol_module *m = calloc(1, sizeof *m);
  char *key = m ? malloc(path_bytes + n) : NULL;
  if (!key) {
    free(m);
    return NULL;
  }
  memcpy(key, path, path_bytes);
  if (n) memcpy(key + path_bytes, build_id, n);
  m->key = key;
  m->key_bytes = path_bytes + n;
  m->next = s->modules;
  s->modules = m;
  char here[64];
  snprintf(here, sizeof here, "/proc/self/fd/%d", file); /* a descriptor with a place of its own */
  m->found = (file >= 0 && use(s, m, path, open(here, O_RDONLY | O_CLOEXEC), build_id, n, true)) ||
             (s->directory && use_in(s, m, s->directory, path, build_id, n)) || (path[0] == '/' && use_named(s, m, build_id, n, path)) ||
             use_build(s, m, path, build_id, n);
  return m->found ? m : NULL;
}

/* ---- names ---- */

const char *mlz_symbol_keep(struct mlz_symbol_module *m, char *text) {
  struct mlz_symbol_text *t = text ? malloc(sizeof *t + strlen(text) + 1) : NULL;
  if (t) {
    strcpy(t->text, text);
    t->next = m->texts;
    m->texts = t;
  }
  free(text);
  return t ? t->text : NULL;
}

const char *mlz_symbol_shown(struct mlz_symbol_module *m, const char *name) {
  char *plain = mlz_symbol_demangle(name);
  const char *kept = plain ? mlz_symbol_keep(m, plain) : NULL;
  return kept ? kept : name;
}

/* ---- the symbol table ---- */

static int entry_order(const void *a, const void *b) {
  const struct mlz_symbol_entry *x = a, *y = b;
  if (x->low != y->low) return x->low < y->low ? -1 : 1;
  return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static void read_symbols(struct mlz_symbol_module *m) {
  int n = dwfl_module_getsymtab(m->mod);
  for (int i = 1; i < n; i++) {
    GElf_Sym sym;
    GElf_Addr at;
    GElf_Word section;
    const char *name = dwfl_module_getsym_info(m->mod, i, &sym, &at, &section, NULL, NULL);
    unsigned type = GELF_ST_TYPE(sym.st_info), bind = GELF_ST_BIND(sym.st_info);
    if (!name || !*name || sym.st_shndx == SHN_UNDEF || section == SHN_ABS) continue;
    if (type != STT_FUNC && type != STT_GNU_IFUNC && !(type == STT_NOTYPE && sym.st_size)) continue;
    unsigned underscores = (unsigned)strspn(name, "_");
    if (!mlz_symbol_grow(&m->entries, &m->entries_room, m->entries_n + 1, sizeof *m->entries)) break;
    m->entries[m->entries_n++] =
        (struct mlz_symbol_entry){.low = at,
                                  .size = sym.st_size,
                                  .name = name,
                                  .rank = (bind == STB_LOCAL ? 32u : 0u) + (type == STT_NOTYPE ? 16u : 0u) + underscores};
  }
  if (m->entries_n) qsort(m->entries, m->entries_n, sizeof *m->entries, entry_order);
}

static void look(struct mlz_symbol_module *m) {
  if (m->looked) return;
  m->looked = true;
  mlz_symbol_dwarf_begin(m);
  read_symbols(m);
}

static const struct mlz_symbol_entry *entry_at(const struct mlz_symbol_module *m, uint64_t address) {
  size_t behind = mlz_symbol_behind(m->entries, m->entries_n, sizeof *m->entries, address);
  const struct mlz_symbol_entry *found = NULL;
  for (size_t i = behind; i > 0 && behind - i < 16; i--) {
    const struct mlz_symbol_entry *e = &m->entries[i - 1];
    if (found && e->low != found->low) break; /* of equal ones the first */
    if (address - e->low < e->size || (e->size == 0 && i == behind && e->low == address)) found = e;
  }
  return found;
}

unsigned mlz_symbolizer_lookup(struct mlz_symbol_module *m, uint64_t address, struct mlz_symbol out[MLZ_SYMBOLS_MAX]) {
  look(m);
  bool plain = false;
  unsigned n = mlz_symbol_dwarf_lookup(m, address, out, &plain);
  const struct mlz_symbol_entry *e = n == 0 || plain ? entry_at(m, address) : NULL;
  if (n && e && (strncmp(e->name, "_Z", 2) == 0 || strncmp(e->name, "_R", 2) == 0)) out[n - 1].function = mlz_symbol_shown(m, e->name);
  if (n) return n;
  if (!e) return 0;
  out[0] = (struct mlz_symbol){.function = mlz_symbol_shown(m, e->name)};
  return 1;
}

int mlz_symbolizer_visible(struct mlz_symbol_module *m, uint64_t address, struct mlz_symbol out[MLZ_SYMBOLS_MAX]) {
  unsigned n = mlz_symbolizer_lookup(m, address, out), hidden = 0;
  if (n == 0) return -1;
  while (hidden < n && mlz_symbol_hidden(out[hidden].function)) hidden++;
  memmove(out, out + hidden, (n - hidden) * sizeof *out);
  return (int)(n - hidden);
}

/* ---- code ---- */

bool mlz_symbolizer_range(struct mlz_symbol_module *m, uint64_t address, uint64_t *low, uint64_t *high) {
  look(m);
  const struct mlz_symbol_entry *e = entry_at(m, address);
  if (e && e->size) {
    *low = e->low;
    *high = e->low + e->size;
    return true;
  }
  return mlz_symbol_dwarf_range(m, address, low, high);
}

size_t mlz_symbolizer_code(struct mlz_symbol_module *m, uint64_t address, uint8_t *out, size_t n) {
  GElf_Addr bias;
  Elf *elf = dwfl_module_getelf(m->mod, &bias);
  size_t segments;
  if (!elf || elf_getphdrnum(elf, &segments) != 0) return 0;
  address -= bias;
  for (size_t i = 0; i < segments; i++) {
    GElf_Phdr p;
    if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_LOAD || address < p.p_vaddr || address - p.p_vaddr >= p.p_filesz) continue;
    uint64_t there = p.p_filesz - (address - p.p_vaddr);
    size_t some = there < n ? (size_t)there : n;
    Elf_Data *data = elf_getdata_rawchunk(elf, (int64_t)(p.p_offset + (address - p.p_vaddr)), some, ELF_T_BYTE);
    if (!data || data->d_size < some) return 0;
    memcpy(out, data->d_buf, some);
    return some;
  }
  return 0;
}

unsigned mlz_symbolizer_machine(const struct mlz_symbol_module *m) {
  GElf_Addr bias;
  GElf_Ehdr header;
  Elf *elf = dwfl_module_getelf(m->mod, &bias);
  return elf && gelf_getehdr(elf, &header) ? header.e_machine : 0;
}
