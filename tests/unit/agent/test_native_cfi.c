/* Unwind rules against elfutils: every row of the tables of this machine's libraries and programs, and tables made by hand. */
#include "tracer/agent/native_cfi.h"

#include <criterion/criterion.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gelf.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- a frame's meaning, by numbers: any registers, and a memory in which every word is a mix of its address ---- */

static uint64_t memory(uint64_t at) {
  at = (at ^ at >> 31) * UINT64_C(0x9e3779b97f4a7c15);
  return at ^ at >> 29;
}
static const uint64_t RSP = UINT64_C(0x7ffd12345000), RBP = UINT64_C(0x7ffd12345678);

struct meaning {
  uint64_t cfa, ra, rbp;
  bool end;
};

/* A location or value as libdw says it; *value: it is no address. False: something that no rule can say. */
static bool evaluate(const Dwarf_Op *ops, size_t n, uint64_t pc, uint64_t cfa, uint64_t *out, bool *value) {
  uint64_t s[16];
  size_t k = 0;
  *value = false;
  for (size_t i = 0; i < n; i++) {
    uint8_t op = ops[i].atom;
    uint64_t reg = op == DW_OP_bregx ? ops[i].number : op - (uint64_t)DW_OP_breg0, off = op == DW_OP_bregx ? ops[i].number2 : ops[i].number;
    if ((op >= DW_OP_breg0 && op <= DW_OP_breg31) || op == DW_OP_bregx) {
      if (reg != 6 && reg != 7 && reg != 16) return false;
      s[k++] = (reg == 6 ? RBP : reg == 7 ? RSP : pc) + off;
    } else if (op >= DW_OP_lit0 && op <= DW_OP_lit31) {
      s[k++] = op - DW_OP_lit0;
    } else {
      switch (op) {
      case DW_OP_call_frame_cfa:
        s[k++] = cfa;
        break;
      case DW_OP_plus_uconst:
        s[k - 1] += ops[i].number;
        break;
      case DW_OP_plus:
        k--;
        s[k - 1] += s[k];
        break;
      case DW_OP_and:
        k--;
        s[k - 1] &= s[k];
        break;
      case DW_OP_ge:
        k--;
        s[k - 1] = (int64_t)s[k - 1] >= (int64_t)s[k];
        break;
      case DW_OP_shl:
        k--;
        s[k - 1] <<= s[k];
        break;
      case DW_OP_deref:
        s[k - 1] = memory(s[k - 1]);
        break;
      case DW_OP_const1u:
      case DW_OP_const1s:
      case DW_OP_consts:
      case DW_OP_constu:
        s[k++] = ops[i].number;
        break;
      case DW_OP_stack_value:
        *value = true;
        break;
      default:
        return false;
      }
    }
  }
  *out = k ? s[k - 1] : 0;
  return k >= 1; /* the frame address may lie under it */
}

static bool theirs(Dwarf_Frame *f, uint64_t pc, struct meaning *m) {
  Dwarf_Op *ops, mem[3];
  size_t n;
  bool value;
  if (dwarf_frame_register(f, 16, mem, &ops, &n) != 0) return false;
  m->end = n == 0 && ops == mem;
  if (m->end) return true;
  Dwarf_Op ra[8], *cfa;
  size_t n_ra = n, n_cfa;
  if (n > 8) return false;
  memcpy(ra, ops, n * sizeof(*ra));
  if (dwarf_frame_cfa(f, &cfa, &n_cfa) != 0 || !evaluate(cfa, n_cfa, pc, 0, &m->cfa, &value)) return false;
  if (!evaluate(ra, n_ra, pc, m->cfa, &m->ra, &value) || value) return false;
  if (dwarf_frame_register(f, 6, mem, &ops, &n) != 0) return false;
  if (n == 0) {
    m->rbp = ops == mem ? 0 : 1; /* lost, the same */
    return true;
  }
  return evaluate(ops, n, pc, m->cfa, &m->rbp, &value) && !value;
}

static bool ours(const uint8_t *hdr, uintptr_t pc, struct meaning *m) {
  struct mlz_rule r = {0};
  mlz_cfi_rule(hdr, pc, &r);
  if (r.flags & MLZ_RULE_NONE) return false;
  m->end = r.flags & MLZ_RULE_END;
  if (m->end) return true;
  m->cfa = (r.flags & MLZ_RULE_RBP ? RBP : RSP) + (uint64_t)(int64_t)r.cfa;
  bool ra_rsp = r.flags & MLZ_RULE_RA_RSP;
  if (r.flags & MLZ_RULE_LOAD) m->cfa = memory(m->cfa) + (ra_rsp ? 0 : (uint64_t)(int64_t)r.add);
  m->ra = ra_rsp ? RSP + (uint64_t)(int64_t)r.add : m->cfa - 8;
  uint64_t n = (uint64_t)(int64_t)r.rbp;
  m->rbp = r.rbp_kind == MLZ_RBP_SAME  ? 1
           : r.rbp_kind == MLZ_RBP_CFA ? m->cfa + n
           : r.rbp_kind == MLZ_RBP_RBP ? RBP + n
           : r.rbp_kind == MLZ_RBP_RSP ? RSP + n
                                       : 0;
  return true;
}

/* ---- a file, mapped as the loader would ---- */

struct image {
  uint8_t *base;      /* run-time address of p_vaddr 0 */
  const uint8_t *hdr; /* PT_GNU_EH_FRAME */
};

static bool map_image(const char *path, Elf *elf, int fd, struct image *out) {
  size_t n;
  uint64_t top = 0;
  *out = (struct image){NULL, NULL};
  if (elf_getphdrnum(elf, &n) != 0) return false;
  GElf_Phdr p;
  for (size_t i = 0; i < n; i++)
    if (gelf_getphdr(elf, (int)i, &p) && p.p_type == PT_LOAD && p.p_vaddr + p.p_memsz > top) top = p.p_vaddr + p.p_memsz;
  uint8_t *at = mmap(NULL, top + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  cr_assert_neq(at, MAP_FAILED, "%s", path);
  for (size_t i = 0; i < n; i++) {
    gelf_getphdr(elf, (int)i, &p);
    if (p.p_type == PT_LOAD && p.p_filesz) {
      uint64_t shift = p.p_vaddr & 4095;
      void *m = mmap(at + p.p_vaddr - shift, p.p_filesz + shift, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)(p.p_offset - shift));
      cr_assert_neq(m, MAP_FAILED, "%s", path);
    }
    if (p.p_type == PT_GNU_EH_FRAME) out->hdr = at + p.p_vaddr;
  }
  out->base = at;
  return out->hdr != NULL;
}

/* Every row that libdw knows. Returns how many; *missing: those that have no rule here. */
static size_t compare_file(const char *path, size_t *missing) {
  size_t rows = 0;
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  elf_version(EV_CURRENT);
  Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
  Dwarf_CFI *cfi = elf ? dwarf_getcfi_elf(elf) : NULL;
  struct image im;
  if (!cfi || !map_image(path, elf, fd, &im)) goto out;
  uint32_t n;
  memcpy(&n, im.hdr + 8, 4);
  for (uint32_t i = 0; i < n; i++) {
    int32_t start;
    memcpy(&start, im.hdr + 12 + 8 * i, 4);
    uintptr_t low, high, pc = (uintptr_t)im.hdr + (uintptr_t)(intptr_t)start;
    if (!mlz_cfi_range(im.hdr, pc, &low, &high)) continue; /* an empty entry */
    while (pc < high) {
      Dwarf_Frame *f = NULL;
      Dwarf_Addr from, to, address = pc - (uintptr_t)im.base;
      bool is_signal;
      cr_assert_eq(dwarf_cfi_addrframe(cfi, address, &f), 0, "%s+%#lx: %s", path, address, dwarf_errmsg(-1));
      dwarf_frame_info(f, &from, &to, &is_signal);
      uint64_t last = to - 1 < (high - 1 - (uintptr_t)im.base) ? to - 1 : high - 1 - (uintptr_t)im.base;
      for (uint64_t a = address;; a = last) {
        struct meaning x = {0}, y = {0};
        bool they = theirs(f, a, &x), we = ours(im.hdr, (uintptr_t)im.base + a, &y);
        rows++;
        *missing += !we;
        cr_assert(!we || they, "%s+%#lx: a rule where none can be", path, a);
        if (we && they)
          cr_assert(x.end == y.end && x.cfa == y.cfa && x.ra == y.ra && x.rbp == y.rbp, "%s+%#lx: cfa %#lx %#lx ra %#lx %#lx rbp %#lx %#lx",
                    path, a, x.cfa, y.cfa, x.ra, y.ra, x.rbp, y.rbp);
        if (a == last) break;
      }
      free(f);
      pc = (uintptr_t)im.base + last + 1;
    }
  }
out:
  if (cfi) dwarf_cfi_end(cfi);
  if (elf) elf_end(elf);
  close(fd);
  return rows;
}

/* At least so many rows; at most one in `few` (and a handful of the loader's lazy binding) without a rule. */
static void compare_glob(const char *pattern, size_t least, size_t few) {
  glob_t g;
  if (glob(pattern, 0, NULL, &g) != 0) return; /* not on this machine */
  for (size_t i = 0; i < g.gl_pathc && i < 2; i++) {
    size_t missing = 0, rows = compare_file(g.gl_pathv[i], &missing);
    cr_assert_geq(rows, least, "%s: %zu rows", g.gl_pathv[i], rows);
    fprintf(stderr, "# %s: %zu rows, %zu without a rule\n", g.gl_pathv[i], rows, missing);
    cr_assert_leq(missing, rows / few + 24, "%s: %zu of %zu rows have no rule", g.gl_pathv[i], missing, rows);
  }
  globfree(&g);
}

Test(native_cfi, libc) { compare_glob("/lib/x86_64-linux-gnu/libc.so.6", 10000, 5000); }
Test(native_cfi, loader) { compare_glob("/lib64/ld-linux-x86-64.so.2", 500, 5000); }
Test(native_cfi, cpp_library) { compare_glob("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 10000, 5000); }
/* Leaf functions written by hand, with bases that no call preserves: they call nobody. */
Test(native_cfi, crypto) { compare_glob("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", 10000, 80); }
Test(native_cfi, fortran) { compare_glob("/usr/lib/x86_64-linux-gnu/libgfortran.so.5", 1000, 5000); }
Test(native_cfi, git) { compare_glob("/usr/bin/git", 10000, 5000); }
Test(native_cfi, python) { compare_glob("/usr/bin/python3.*[0-9]", 10000, 5000); }
Test(native_cfi, compiler) { compare_glob("/usr/lib/gcc/x86_64-linux-gnu/*/cc1", 100000, 5000); }

/* ---- by hand: one entry with every operation that a compiler may write ---- */

static uint8_t table[512];
static size_t used;
static void put(const void *bytes, size_t n) {
  memcpy(table + used, bytes, n);
  used += n;
}
static void put32(uint32_t v) { put(&v, 4); }

/* A table of one entry, for the code [0x1000, 0x2000) behind the table's own start, with this program. */
static const uint8_t *make(const char *augmentation, const uint8_t *program, size_t n) {
  static const uint8_t initial[] = {0x0c, 7, 8, 0x90, 1};
  memset(table, 0, sizeof(table));
  used = 64; /* the header's place */
  size_t cie = used;
  put32(0);
  put32(0);
  put("\1", 1);
  put(augmentation, strlen(augmentation) + 1);
  put("\1\x78\x10\1\x1b", 5); /* alignments 1 and -8, column 16, one byte of augmentation: pc-relative */
  put(initial, sizeof(initial));
  uint32_t length = (uint32_t)(used - cie - 4);
  memcpy(table + cie, &length, 4);
  size_t fde = used;
  put32(0);
  put32((uint32_t)(used - cie));
  put32((uint32_t)(0x1000 - used));
  put32(0x1000);
  put("\0", 1);
  put(program, n);
  length = (uint32_t)(used - fde - 4);
  memcpy(table + fde, &length, 4);
  put32(0);
  uint8_t header[12] = {1, 0x1b, 0x03, 0x3b};
  uint32_t frames = (uint32_t)(cie - 4), count = 1, row[2] = {0x1000, (uint32_t)fde};
  memcpy(header + 4, &frames, 4);
  memcpy(header + 8, &count, 4);
  memcpy(table, header, 12);
  memcpy(table + 12, row, 8);
  return table;
}
static struct mlz_rule at(const uint8_t *hdr, uintptr_t offset) {
  struct mlz_rule r = {.word = 7};
  mlz_cfi_rule(hdr, (uintptr_t)hdr + offset, &r);
  cr_assert_eq(r.word, 7);
  return r;
}
#define MAKE(...) make("zR", (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

Test(native_cfi, rows_follow_the_program_counter) {
  const uint8_t *t = MAKE(0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 0x40, 0x0a, 0xc6, 0x0c, 7, 8, 0x41, 0x0b);
  struct mlz_rule r = at(t, 0x1000);
  cr_assert(r.flags == 0 && r.cfa == 8 && r.rbp_kind == MLZ_RBP_SAME);
  r = at(t, 0x1001);
  cr_assert(r.flags == 0 && r.cfa == 16 && r.rbp_kind == MLZ_RBP_CFA && r.rbp == -16);
  r = at(t, 0x1004);
  cr_assert(r.flags == MLZ_RULE_RBP && r.cfa == 16 && r.rbp_kind == MLZ_RBP_CFA && r.rbp == -16);
  r = at(t, 0x1044);
  cr_assert(r.flags == 0 && r.cfa == 8 && r.rbp_kind == MLZ_RBP_SAME, "restored");
  r = at(t, 0x1045);
  cr_assert(r.flags == MLZ_RULE_RBP && r.cfa == 16, "restore_state");
  cr_assert(at(t, 0xfff).flags == MLZ_RULE_NONE);
  cr_assert(at(t, 0x2000).flags == MLZ_RULE_NONE);
}

Test(native_cfi, large_frames_and_long_advances) {
  const uint8_t *t = MAKE(0x03, 0x00, 0x02, 0x0e, 0x80, 0x80, 0x40, 0x04, 0x00, 0x04, 0, 0, 0x13, 0x70);
  cr_assert_eq(at(t, 0x11ff).cfa, 8);
  cr_assert_eq(at(t, 0x1200).cfa, 1 << 20);
  cr_assert_eq(at(t, 0x1600).cfa, 128, "factored and signed");
}

Test(native_cfi, expressions) {
  /* PLT: rsp + 8 + ((rip & 15) >= 11) * 8 */
  const uint8_t *t = MAKE(0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22);
  uintptr_t low = -(uintptr_t)t & 15;
  cr_assert_eq(at(t, 0x1000 + low + 10).cfa, 8);
  cr_assert_eq(at(t, 0x1000 + low + 11).cfa, 16);
  /* a realigned stack: CFA = *(rbp - 8), rbp at rbp + 0 */
  t = MAKE(0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0);
  struct mlz_rule r = at(t, 0x1000);
  cr_assert(r.flags == (MLZ_RULE_RBP | MLZ_RULE_LOAD) && r.cfa == -8 && r.add == 0 && r.rbp_kind == MLZ_RBP_RBP && r.rbp == 0);
  /* by hand in libcrypto: CFA = *(rsp + 120) + 8 */
  t = MAKE(0x0f, 6, 0x77, 0xf8, 0, 0x06, 0x23, 8);
  r = at(t, 0x1000);
  cr_assert(r.flags == MLZ_RULE_LOAD && r.cfa == 120 && r.add == 8);
  /* another register; two loads; a stack that is empty: no rule */
  cr_assert_eq(MAKE(0x0d, 3)[0], 1);
  cr_assert(at(t = MAKE(0x0d, 3), 0x1000).flags == MLZ_RULE_NONE);
  cr_assert(at(t = MAKE(0x0f, 4, 0x76, 0, 0x06, 0x06), 0x1000).flags == MLZ_RULE_NONE);
  cr_assert(at(t = MAKE(0x0f, 1, 0x22), 0x1000).flags == MLZ_RULE_NONE);
}

Test(native_cfi, ends_and_signals) {
  cr_assert(at(MAKE(0x07, 16), 0x1000).flags == MLZ_RULE_END);
  cr_assert(at(MAKE(0x0b), 0x1000).flags == MLZ_RULE_NONE, "nothing to restore");
  cr_assert(at(MAKE(0x3d), 0x1000).flags == MLZ_RULE_NONE, "an operation that nobody knows");
  cr_assert(at(MAKE(0x0e), 0x1000).flags == MLZ_RULE_NONE, "cut short");
  static const uint8_t frame[] = {0x0f, 4, 0x77, 0xa0, 1, 0x06, 0x10, 16, 3, 0x77, 0xa8, 1, 0x10, 6, 3, 0x77, 0xf8, 0};
  struct mlz_rule r = at(make("zRS", frame, sizeof(frame)), 0x1000);
  cr_assert(r.flags == (MLZ_RULE_SIGNAL | MLZ_RULE_LOAD | MLZ_RULE_RA_RSP) && r.cfa == 160 && r.add == 168);
  cr_assert(r.rbp_kind == MLZ_RBP_RSP && r.rbp == 120);
}
