/* Where the interpreter's loops are: _PyEval_EvalFrameDefault and the parts of it that lie elsewhere. */
#include "native.h"
#include "sys.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>

struct range {
  uintptr_t low, high;
};
#define LOOPS 8u
static struct range loops[LOOPS];
static _Atomic uint32_t n_loops;

static bool within(const struct range *r, uintptr_t pc) { return pc >= r->low && pc < r->high; }

bool mlz_native_loop(uintptr_t pc) {
  for (uint32_t i = 0, n = atomic_load_explicit(&n_loops, memory_order_acquire); i < n; i++)
    if (within(&loops[i], pc)) return true;
  return false;
}

static void add_loop(uintptr_t low, uintptr_t high) {
  uint32_t n = atomic_load_explicit(&n_loops, memory_order_relaxed);
  for (uint32_t i = 0; i < n; i++)
    if (loops[i].low == low && loops[i].high == high) return;
  if (n == LOOPS || high <= low) return;
  loops[n] = (struct range){low, high};
  atomic_store_explicit(&n_loops, n + 1, memory_order_release);
  atomic_fetch_add(&mlz_native_epoch.now, 1);
}

/* ---- parts that have a name ---- */

/* Compilers put what seldom runs elsewhere, under a name of its own that only the file's own symbol table has. Read piece by piece: the table of a
 * libpython has a megabyte. */
#define COLD "_PyEval_EvalFrameDefault."

static bool read_at(long fd, void *to, size_t bytes, uint64_t offset) {
  return mlz_sys6(SYS_pread64, fd, (long)to, (long)bytes, (long)offset, 0, 0) == (long)bytes;
}

static void scan_symbols(long fd, const Elf64_Shdr *symbols, const Elf64_Shdr *strings, uintptr_t bias) {
  enum { CHUNK = 128 };
  Elf64_Sym chunk[CHUNK];
  for (uint64_t i = 0; i < symbols->sh_size / sizeof(Elf64_Sym);) {
    uint64_t n = symbols->sh_size / sizeof(Elf64_Sym) - i;
    if (n > CHUNK) n = CHUNK;
    if (!read_at(fd, chunk, n * sizeof(Elf64_Sym), symbols->sh_offset + i * sizeof(Elf64_Sym))) return;
    for (uint64_t k = 0; k < n; k++) {
      char name[sizeof(COLD) - 1];
      /* Parts of functions are local, of some size, and few are as large as a part of this one. */
      if (ELF64_ST_TYPE(chunk[k].st_info) != STT_FUNC || ELF64_ST_BIND(chunk[k].st_info) != STB_LOCAL || chunk[k].st_size < 512 ||
          !read_at(fd, name, sizeof(name), strings->sh_offset + chunk[k].st_name) || memcmp(name, COLD, sizeof(name)) != 0)
        continue;
      add_loop(bias + chunk[k].st_value, bias + chunk[k].st_value + chunk[k].st_size);
    }
    i += n;
  }
}

static void find_cold(const struct mlz_native_module *m) {
  Elf64_Ehdr e;
  Elf64_Shdr s, strings;
  const char *path = m->name[0] ? m->name : "/proc/self/exe";
  long fd = mlz_sys6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) return;
  if (read_at(fd, &e, sizeof(e), 0) && e.e_shentsize == sizeof(s)) {
    for (unsigned i = 0; i < e.e_shnum && read_at(fd, &s, sizeof(s), e.e_shoff + i * sizeof(s)); i++) {
      if (s.sh_type != SHT_SYMTAB || !read_at(fd, &strings, sizeof(strings), e.e_shoff + s.sh_link * sizeof(s))) continue;
      scan_symbols(fd, &s, &strings, m->bias);
      break;
    }
  }
  mlz_sys3(SYS_close, fd, 0, 0);
}

/* ---- parts that have none any more ---- */

/* Such a part has an entry of its own in the unwind table, and is entered by jumps from the rest: to many places in it, and with the stack as the function
 * has set it up. A function that is called for another one's last (a tail call) is entered at its beginning, and before it has pushed anything. */
#define PARTS 8u
#define ENTRIES 3u /* places that are jumped to, at least */

struct part {
  uintptr_t low, high;
  uintptr_t at[ENTRIES];
  unsigned n;
};

static bool begins_inside(const uint8_t *hdr, uintptr_t low) {
  struct mlz_rule r = {.word = 0};
  mlz_cfi_rule(hdr, low, &r);
  return !(r.flags & MLZ_RULE_ODD) && (r.flags & MLZ_RULE_RBP || r.cfa != 8);
}

static void jump_to(const struct mlz_native_module *m, uintptr_t to, struct part *parts) {
  struct part *p = parts;
  while (p < parts + PARTS && p->high && !(to >= p->low && to < p->high)) p++;
  if (p == parts + PARTS) return;
  if (!p->high) {
    struct part found = {.n = 0};
    if (!mlz_cfi_range(m->hdr, to, &found.low, &found.high) || !begins_inside(m->hdr, found.low)) return;
    *p = found;
  }
  for (unsigned i = 0; i < p->n; i++)
    if (p->at[i] == to) return;
  if (p->n < ENTRIES) p->at[p->n++] = to;
}

void mlz_native_parts(const struct mlz_native_module *m, uintptr_t low, uintptr_t high, void (*found)(uintptr_t low, uintptr_t high)) {
  struct part parts[PARTS] = {{.n = 0}};
  const uint8_t *end = (const uint8_t *)high;
  for (const uint8_t *p = (const uint8_t *)low; end - p >= 5; p++) { /* wherever an instruction might begin */
    int32_t distance;
    unsigned opcode = p[0] == 0xe9 ? 1 : p[0] == 0x0f && (p[1] & 0xf0) == 0x80 ? 2 : 0;
    if (!opcode || (size_t)(end - p) < opcode + sizeof(distance)) continue;
    memcpy(&distance, p + opcode, sizeof(distance));
    uintptr_t to = (uintptr_t)p + opcode + sizeof(distance) + (uintptr_t)(intptr_t)distance;
    if (to >= m->low && to < m->high && !(to >= low && to < high)) jump_to(m, to, parts);
  }
  for (unsigned i = 0; i < PARTS; i++)
    if (parts[i].n == ENTRIES) found(parts[i].low, parts[i].high);
}

static void find_parts(const struct mlz_native_module *m) {
  for (uint32_t i = 0; i < atomic_load_explicit(&n_loops, memory_order_relaxed); i++) { /* parts of parts, too */
    struct range r = loops[i], known;
    /* The symbol may say more than there is; what the unwind table says is there. */
    if (!mlz_cfi_range(m->hdr, r.low, &known.low, &known.high) || r.low < m->low || r.high > m->high) continue;
    mlz_native_parts(m, r.low, r.high < known.high ? r.high : known.high, add_loop);
  }
}

void mlz_native_python(void) {
  struct mlz_native_module m;
  Dl_info info;
  const Elf64_Sym *symbol = NULL;
  void *loop = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
  if (!loop || !dladdr1(loop, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol) return;
  add_loop((uintptr_t)loop, (uintptr_t)loop + symbol->st_size);
  if (mlz_native_module_of((uintptr_t)loop, &m)) {
    find_cold(&m);
    find_parts(&m);
  }
}
