#include "modules.h"

#include "agent.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u
#define EXPORT __attribute__((visibility("default")))

/* ---- one module ---- */

struct module {
  uintptr_t base, low, high;       /* of its segments */
  uintptr_t relro_low, relro_high; /* read-only since the loader has filled it; whole pages */
  const Elf64_Sym *symbols;
  const char *strings;
  const uint32_t *hash; /* DT_GNU_HASH */
  const Elf64_Half *versions;
  const Elf64_Rela *plt, *data;
  size_t n_plt, n_data, n_relative;
};

static uintptr_t address_of(const struct module *m, uintptr_t value) { return value < m->base ? value + m->base : value; }

/* False: nothing to look at: no dynamic section, or ours. */
static bool open_module(struct module *m, const struct dl_phdr_info *info) {
  const Elf64_Dyn *d = NULL;
  *m = (struct module){.base = info->dlpi_addr, .low = UINTPTR_MAX};
  for (unsigned i = 0; i < info->dlpi_phnum; i++) {
    const Elf64_Phdr *p = &info->dlpi_phdr[i];
    uintptr_t from = m->base + p->p_vaddr, to = from + p->p_memsz;
    if (p->p_type == PT_DYNAMIC) d = (const Elf64_Dyn *)from;
    if (p->p_type == PT_LOAD && from < m->low) m->low = from;
    if (p->p_type == PT_LOAD && to > m->high) m->high = to;
    if (p->p_type == PT_GNU_RELRO) m->relro_low = from & ~(uintptr_t)(PAGE - 1), m->relro_high = to & ~(uintptr_t)(PAGE - 1);
  }
  uintptr_t here = (uintptr_t)&mlz_agent;
  if (!d || (here >= m->low && here < m->high)) return false;
  for (; d->d_tag != DT_NULL; d++) {
    uintptr_t v = d->d_un.d_val, a = address_of(m, v);
    switch (d->d_tag) {
    case DT_SYMTAB:
      m->symbols = (const Elf64_Sym *)a;
      break;
    case DT_STRTAB:
      m->strings = (const char *)a;
      break;
    case DT_GNU_HASH:
      m->hash = (const uint32_t *)a;
      break;
    case DT_VERSYM:
      m->versions = (const Elf64_Half *)a;
      break;
    case DT_JMPREL:
      m->plt = (const Elf64_Rela *)a;
      break;
    case DT_PLTRELSZ:
      m->n_plt = v / sizeof(Elf64_Rela);
      break;
    case DT_RELA:
      m->data = (const Elf64_Rela *)a;
      break;
    case DT_RELASZ:
      m->n_data = v / sizeof(Elf64_Rela);
      break;
    case DT_RELACOUNT:
      m->n_relative = v;
      break;
    default:
      break;
    }
  }
  return m->symbols && m->strings;
}

/* ---- finding a definition ---- */

struct search {
  const char *name;
  void *found;
};

static uint32_t gnu_hash(const char *name) {
  uint32_t h = 5381;
  for (; *name; name++) h = h * 33 + (uint8_t)*name;
  return h;
}

/* Not dlsym: in an executable at a fixed address that gives the executable's own PLT entry, which leads to the entry that we replace. */
static int find_in(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  struct search *s = context;
  struct module m;
  if (!open_module(&m, info) || !m.hash || m.hash[0] == 0) return 0;
  uint32_t h = gnu_hash(s->name), first = m.hash[1];
  const uint32_t *buckets = m.hash + 4 + 2 * (size_t)m.hash[2], *chain = buckets + m.hash[0];
  uint32_t i = buckets[h % m.hash[0]];
  if (i < first) return 0;
  for (;; i++) {
    const Elf64_Sym *y = &m.symbols[i];
    uint32_t entry = chain[i - first];
    bool hidden = m.versions && (m.versions[i] & 0x8000); /* an old version of it */
    if ((entry | 1) == (h | 1) && !hidden && y->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(y->st_info) == STT_FUNC &&
        strcmp(m.strings + y->st_name, s->name) == 0) {
      s->found = (void *)(m.base + y->st_value);
      return 1;
    }
    if (entry & 1) return 0;
  }
}

void *mlz_modules_find(const char *name) {
  struct search s = {.name = name};
  dl_iterate_phdr(find_in, &s);
  return s.found;
}

/* ---- the loader's own calls, for what comes later ---- */

static void *(*real_dlopen)(const char *, int);
static void *(*real_dlsym)(void *, const char *);
static _Atomic uint32_t look_due; /* modules may have come */

static void look(void);

static bool on(void) { return atomic_load_explicit(&mlz_agent.attach, memory_order_relaxed) == MLZ_AGENT_ON; }

/* The loader asks who calls it: a bare name and $ORIGIN are looked for where the caller's module says, and RTLD_NEXT is what follows that module. So both
 * calls end with a jump, whatever the compiler makes of a tail call: the loader finds the return address that we found. Of a path it asks for nothing
 * but the caller's namespace, which is ours (glibc elf/dl-load.c, _dl_map_object: the loader is forgotten before what the file needs is looked for):
 * there we call, to look as soon as the modules are there; else the next dlsym looks. */
static void *dlopen_and_look(const char *file, int mode) {
  void *handle = real_dlopen(file, mode);
  atomic_store(&look_due, 1);
  look();
  return handle;
}
static __attribute__((used)) void *way_of_dlopen(const char *file) {
  atomic_store(&look_due, 1);
  bool anywhere = file && strchr(file, '/') && !strchr(file, '$');
  return on() && anywhere ? (void *)dlopen_and_look : (void *)real_dlopen;
}
static __attribute__((used)) void *way_of_dlsym(void) {
  if (atomic_load_explicit(&look_due, memory_order_relaxed) && on()) look();
  return (void *)real_dlsym;
}
#define JUMP(way)                                                                                                                          \
  __asm__("push %rdi\n.cfi_adjust_cfa_offset 8\npush %rsi\n.cfi_adjust_cfa_offset 8\nsub $8, %rsp\n.cfi_adjust_cfa_offset 8\n"             \
          "call " way "\n"                                                                                                                 \
          "add $8, %rsp\n.cfi_adjust_cfa_offset -8\npop %rsi\n.cfi_adjust_cfa_offset -8\npop %rdi\n.cfi_adjust_cfa_offset -8\njmp *%rax")
static __attribute__((naked)) void hook_dlopen(void) { JUMP("way_of_dlopen"); }
static __attribute__((naked)) void hook_dlsym(void) { JUMP("way_of_dlsym"); }

static struct mlz_redirect own[] = {
    {"dlopen", (void *)hook_dlopen, NULL}, {"dlsym", (void *)hook_dlsym, NULL}, {"dlclose", (void *)dlclose, NULL}};

/* ---- redirecting ---- */

static struct {
  struct mlz_redirect *of[3];
  unsigned n[3];
} tables;

static struct mlz_redirect *redirect_of(const char *name) {
  if (!strchr("acdefmprv", name[0])) return NULL;
  for (unsigned t = 0; t < 3; t++) {
    for (unsigned i = 0; i < tables.n[t]; i++) {
      struct mlz_redirect *r = &tables.of[t][i];
      if (r->real && strcmp(r->name, name) == 0) return r;
    }
  }
  return NULL;
}

/* A call that was never made goes to the loader first, by an address in the module itself. */
static bool unresolved(const struct module *m, const Elf64_Rela *r, uintptr_t value) {
  return ELF64_R_TYPE(r->r_info) == R_X86_64_JUMP_SLOT && m->symbols[ELF64_R_SYM(r->r_info)].st_shndx == SHN_UNDEF && value >= m->low &&
         value < m->high;
}

struct change {
  bool to_hooks;
  bool writable; /* the module's read-only part is open for the moment */
};

static void change_entries(const struct module *m, const Elf64_Rela *r, size_t n, struct change *c) {
  for (; n; n--, r++) {
    unsigned type = ELF64_R_TYPE(r->r_info);
    bool pointer = type == R_X86_64_64 && r->r_addend == 0;
    if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && !pointer) || !ELF64_R_SYM(r->r_info)) continue;
    struct mlz_redirect *to = redirect_of(m->strings + m->symbols[ELF64_R_SYM(r->r_info)].st_name);
    if (!to) continue;
    uintptr_t at = m->base + r->r_offset, hook = (uintptr_t)to->hook, real = (uintptr_t)to->real;
    _Atomic uintptr_t *entry = (_Atomic uintptr_t *)at;
    uintptr_t now = atomic_load_explicit(entry, memory_order_relaxed);
    if (c->to_hooks ? now != real && !unresolved(m, r, now) : now != hook) continue;
    if (at >= m->relro_low && at < m->relro_high && !c->writable) {
      if (mprotect((void *)m->relro_low, m->relro_high - m->relro_low, PROT_READ | PROT_WRITE) != 0) continue;
      c->writable = true;
    }
    atomic_compare_exchange_strong(entry, &now, c->to_hooks ? hook : real);
  }
}

static void change_module(const struct dl_phdr_info *info, bool to_hooks) {
  struct module m;
  struct change c = {.to_hooks = to_hooks};
  if (!open_module(&m, info)) return;
  if (m.plt) change_entries(&m, m.plt, m.n_plt, &c);
  if (m.data && m.n_relative < m.n_data) change_entries(&m, m.data + m.n_relative, m.n_data - m.n_relative, &c);
  if (c.writable) mprotect((void *)m.relro_low, m.relro_high - m.relro_low, PROT_READ);
}

/* Modules that were looked at, so that a program with hundreds of them does not look at all of them for each that comes. Emptied when a module
 * goes: another one may come to its place. */
#define SEEN 4096u
static struct {
  uintptr_t of[SEEN]; /* where the program headers lie */
  unsigned long long removed;
} seen;

static int redirect_one(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size, (void)context;
  if (!on()) return 1; /* stopped meanwhile */
  if (info->dlpi_subs != seen.removed) {
    memset(seen.of, 0, sizeof(seen.of));
    seen.removed = info->dlpi_subs;
  }
  uintptr_t key = (uintptr_t)info->dlpi_phdr, *place = &seen.of[(key >> 4 ^ key >> 16) % SEEN];
  if (*place == key) return 0;
  *place = key;
  change_module(info, true);
  return 0;
}
static int restore_one(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size, (void)context;
  change_module(info, false);
  return 0;
}

/* ---- with nobody loading ---- */

/* A module is in the loader's list before its table is filled. Found half filled, it would be opened and made read-only again under the hands of the
 * thread that loads it, and then be taken for one that was looked at. The lock that keeps others from loading (dl_iterate_phdr holds another one) is
 * held while the loader asks an indirect function for its address: so it is asked for one of ours. */
/* volatile: the compiler does not see who calls the resolver */
static __thread void (*volatile while_locked)(void) __attribute__((tls_model("initial-exec")));

static void nothing(void) {}
static void (*resolve_locked(void))(void) {
  void (*f)(void) = while_locked;
  while_locked = NULL;
  if (f) f();
  return nothing;
}
EXPORT void memlyze_locked(void) __attribute__((ifunc("resolve_locked")));

/* Calls `f` with the loader's lock held. What the loader allocates and protects meanwhile is nobody's. */
static void locked(void (*f)(void)) {
  static void *handle;
  struct mlz_tls *t = &mlz_tls;
  uint32_t busy = t->busy;
  t->busy = MLZ_BUSY_OWN;
  Dl_info info;
  if (!handle && dladdr(&mlz_agent, &info)) handle = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  while_locked = f;
  if (handle) dlsym(handle, "memlyze_locked");
  while_locked = NULL;
  t->busy = busy;
}

static void redirect_all(void) {
  if (atomic_exchange(&look_due, 0)) dl_iterate_phdr(redirect_one, NULL);
}
static void restore_all(void) { dl_iterate_phdr(restore_one, NULL); }

static void look(void) { locked(redirect_all); }

void mlz_modules_redirect(void) {
  if (!real_dlopen) {
    own[0].real = mlz_modules_find("dlopen");
    own[1].real = mlz_modules_find("dlsym");
    *(void **)&real_dlopen = own[0].real;
    *(void **)&real_dlsym = own[1].real;
    tables.of[0] = mlz_libc_redirects(&tables.n[0]);
    tables.of[1] = mlz_exec_redirects(&tables.n[1]);
    tables.of[2] = own;
    own[2].real = mlz_modules_find("dlclose");
    tables.n[2] = 3;
    for (unsigned t = 0; t < 2; t++)
      for (unsigned i = 0; i < tables.n[t]; i++) tables.of[t][i].real = mlz_modules_find(tables.of[t][i].name);
  }
  memset(seen.of, 0, sizeof(seen.of));
  atomic_store(&look_due, 1);
  look();
}

void mlz_modules_restore(void) { locked(restore_all); }
