#include "native.h"

#include "sys.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))

struct mlz_native_epoch mlz_native_epoch;

/* ---- where is it? ---- */

/* glibc 2.35 and later: <dlfcn.h>, struct dl_find_object. No lock, safe in a signal handler. */
struct found {
  unsigned long long flags;
  void *low, *high;
  struct link_map *map;
  void *hdr;
  unsigned long long reserved[7];
};
static int (*find_object)(void *, struct found *);

struct search {
  uintptr_t pc;
  struct mlz_native_module *out;
};
static int search_one(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  struct search *s = context;
  struct mlz_native_module m = {.low = UINTPTR_MAX, .bias = info->dlpi_addr, .name = info->dlpi_name};
  bool holds = false;
  for (unsigned i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *p = &info->dlpi_phdr[i];
    uintptr_t low = m.bias + p->p_vaddr, high = low + p->p_memsz;
    if (p->p_type == PT_GNU_EH_FRAME) m.hdr = (const uint8_t *)low;
    if (p->p_type != PT_LOAD) continue;
    holds |= s->pc >= low && s->pc < high;
    if (low < m.low) m.low = low;
    if (high > m.high) m.high = high;
  }
  if (holds) *s->out = m;
  return holds;
}

bool mlz_native_module_of(uintptr_t pc, struct mlz_native_module *m) {
  if (find_object) {
    struct found f;
    if (find_object((void *)pc, &f) != 0) return false;
    *m = (struct mlz_native_module){(uintptr_t)f.low, (uintptr_t)f.high, f.map->l_addr, f.hdr, f.map->l_name ? f.map->l_name : ""};
    return true;
  }
  struct search s = {pc, m};
  return dl_iterate_phdr(search_one, &s) != 0;
}

/* ---- who is it? ---- */

#define FIRST_PAGE 4096u

/* Whether a few bytes can be read, by the kernel's word: a program that was moved about in its file (BOLT, patchelf) may have its headers anywhere, and between
 * two segments of a module lies nothing. */
static bool readable(uintptr_t at, size_t bytes) {
  uint8_t ends[2];
  struct iovec local = {ends, 2}, remote[2] = {{(void *)at, 1}, {(void *)(at + bytes - 1), 1}};
  return bytes != 0 && bytes <= FIRST_PAGE && mlz_sys6(SYS_process_vm_readv, mlz_agent.pid, (long)&local, 1, (long)remote, 2, 0) == 2;
}

static bool loaded(const struct mlz_native_module *m, const ElfW(Phdr) * p, unsigned n, uintptr_t at, uintptr_t end) {
  for (; n; n--, p++) {
    uintptr_t low = m->bias + p->p_vaddr;
    if (p->p_type == PT_LOAD && p->p_flags & PF_R && at >= low && end <= low + p->p_filesz) return true;
  }
  return false;
}

/* The bytes of NT_GNU_BUILD_ID; NULL: it has none. The ELF header lies at the module's beginning, as every linker puts it. */
static const uint8_t *build_id(const struct mlz_native_module *m, uint32_t *bytes) {
  const ElfW(Ehdr) *e = (const ElfW(Ehdr) *)m->low;
  size_t headers = e->e_phnum * sizeof(ElfW(Phdr));
  if (m->high - m->low < sizeof(*e) || memcmp(e->e_ident, ELFMAG, SELFMAG) != 0 || e->e_phentsize != sizeof(ElfW(Phdr)) ||
      e->e_phoff > m->high - m->low || headers > m->high - m->low - e->e_phoff)
    return NULL;
  const ElfW(Phdr) *first = (const ElfW(Phdr) *)(m->low + e->e_phoff), *p = first;
  bool usual = e->e_phoff + headers <= FIRST_PAGE;
  if (!usual && ((e->e_phoff & 7) || !readable((uintptr_t)first, headers))) return NULL;
  for (unsigned i = 0; i < e->e_phnum; i++, p++) {
    uintptr_t at = m->bias + p->p_vaddr, end = at + p->p_filesz;
    if (p->p_type != PT_NOTE || at < m->low || end > m->high || end < at) continue;
    if (!(usual && loaded(m, first, e->e_phnum, at, end)) && !readable(at, end - at)) continue;
    while (at < end && end - at >= sizeof(ElfW(Nhdr))) {
      const ElfW(Nhdr) *n = (const ElfW(Nhdr) *)at;
      uintptr_t desc = at + sizeof(*n) + ((n->n_namesz + UINT64_C(3)) & ~UINT64_C(3));
      if (desc > end || n->n_descsz > end - desc) break;
      if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 && memcmp(n + 1, "GNU", 4) == 0) {
        *bytes = n->n_descsz < 64 ? n->n_descsz : 64;
        return (const uint8_t *)desc;
      }
      at = desc + ((n->n_descsz + UINT64_C(3)) & ~UINT64_C(3));
    }
  }
  return NULL;
}

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 32;
}
static uint64_t mix_bytes(uint64_t h, const uint8_t *p, size_t n) {
  for (; n; n--) h = mix(h, *p++);
  return h;
}

/* A module's place in it is its number - 1, and follows from what it is: whoever comes first, all threads agree, and nobody waits. */
static _Atomic uint64_t keys[MLZ_NATIVE_MODULES];

unsigned mlz_native_module_number(const struct mlz_native_module *m) {
  uint32_t id_bytes = 0;
  const uint8_t *id = build_id(m, &id_bytes);
  uint64_t key = mix(mix(mix(1, m->low), m->high), m->bias);
  key = mix_bytes(mix_bytes(key, (const uint8_t *)m->name, strlen(m->name)), id, id_bytes) | 1;
  for (unsigned i = 0; i < MLZ_NATIVE_MODULES; i++) {
    unsigned at = (unsigned)(key >> 40) + i;
    uint64_t k = atomic_load_explicit(&keys[at % MLZ_NATIVE_MODULES], memory_order_relaxed);
    if (k == key || (k == 0 && (atomic_compare_exchange_strong(&keys[at % MLZ_NATIVE_MODULES], &k, key) || k == key)))
      return at % MLZ_NATIVE_MODULES + 1;
  }
  return 0;
}

uint32_t mlz_native_module_text(const struct mlz_native_module *m, uint8_t *out, uint32_t size) {
  struct mlz_module_header h = {.low = m->low, .high = m->high};
  uint32_t at = sizeof(h);
  const uint8_t *id = build_id(m, &h.build_id_bytes);
  uint32_t room = size - at - h.build_id_bytes;
  long n = 0;
  if (!m->name[0]) {
    n = mlz_sys6(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)(out + at), room, 0, 0);
  } else {
    if (m->name[0] != '/' && strchr(m->name, '/')) { /* as it was given to dlopen */
      n = mlz_sys3(SYS_getcwd, (long)(out + at), room / 2, 0);
      n = n > 1 ? n : 1;
      out[at + n - 1] = '/';
    }
    size_t bytes = strlen(m->name);
    if (bytes > room - (size_t)n) bytes = room - (size_t)n;
    memcpy(out + at + n, m->name, bytes);
    n += (long)bytes;
  }
  h.path_bytes = n > 0 ? (uint32_t)n : 0;
  at += h.path_bytes;
  if (id) memcpy(out + at, id, h.build_id_bytes);
  memcpy(out, &h, sizeof(h));
  return at + h.build_id_bytes;
}

/* ---- marks of a rule ---- */

static uintptr_t our_low, our_high;

void mlz_native_rule(uintptr_t ra, struct mlz_rule *out) {
  struct mlz_native_module m;
  uintptr_t pc = ra - 1;
  *out = (struct mlz_rule){.word = mlz_native_word(0, ra), .flags = MLZ_RULE_NONE | MLZ_RULE_FREE};
  if (!mlz_native_module_of(pc, &m)) return;
  unsigned number = mlz_native_module_number(&m);
  if (number) out->word = mlz_native_word(number, ra - m.bias);
  mlz_cfi_rule(m.hdr, pc, out);
  if (out->flags & MLZ_RULE_NONE) { /* where a coroutine begins, the C library has put the address of a function */
    struct mlz_rule at;
    mlz_cfi_rule(m.hdr, ra, &at);
    if (at.flags & (MLZ_RULE_END | MLZ_RULE_SIGNAL)) {
      at.word = out->word;
      *out = at;
      out->flags |= MLZ_RULE_START;
    }
  }
  if (out->flags & MLZ_RULE_SIGNAL) out->flags |= MLZ_RULE_START;
  if (pc >= our_low && pc < our_high) out->flags |= MLZ_RULE_OURS;
  if (mlz_native_loop(pc)) out->flags |= MLZ_RULE_EVAL;
}

/* ---- beginning, unloading ---- */

static int (*real_dlclose)(void *);

void mlz_native_start(void) {
  *(void **)&find_object = dlsym(RTLD_DEFAULT, "_dl_find_object");
  struct mlz_native_module m;
  bool library = mlz_native_module_of((uintptr_t)&mlz_agent, &m) && m.name[0]; /* else a unit test */
  if (library) our_low = m.low, our_high = m.high;
  mlz_agent.native = true;
}

/* The destructors of a module run in there, then its addresses may be given to another one. */
EXPORT int dlclose(void *handle) {
  if (MLZ_UNLIKELY(!real_dlclose)) *(void **)&real_dlclose = dlsym(RTLD_NEXT, "dlclose");
  if (!mlz_agent.native) return real_dlclose(handle);
  atomic_fetch_add(&mlz_native_epoch.unloading, 1);
  int r = real_dlclose(handle);
  atomic_fetch_add(&mlz_native_epoch.now, 1);
  atomic_fetch_sub(&mlz_native_epoch.unloading, 1);
  return r;
}
