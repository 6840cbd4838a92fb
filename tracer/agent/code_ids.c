#include "code_ids.h"

#include "sys.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST 8192u            /* entries: 192 KiB, touched as far as it is used */
#define GONE ((const char *)1) /* an entry that was removed: others may lie behind it */

struct entry {
  const char *_Atomic code; /* NULL: free. Stored last */
  _Atomic uint64_t value;
  _Atomic int64_t interp;
};
struct table {
  uint64_t size; /* a power of two */
  struct entry entries[];
};

/* Where half of a table was used, by codes that live or have died, another one takes its place: as large, or larger. Somebody may be reading the old
 * one: it stays mapped, and is the next one's memory, where that is as large; so all of them together are no more than four times the last. */
static struct table *_Atomic table;
static struct table *spare; /* with the lock */
static uint64_t used;       /* entries that are not free, of the present table; with the lock */

/* ---- one writer at a time: interpreters may have a GIL each ---- */

static _Atomic uint32_t writer; /* pid: in a fork's child the writer may be gone; what it did half is whole in itself */

static void lock(void) {
  uint32_t pid = mlz_sys_getpid();
  for (uint32_t seen = 0; !atomic_compare_exchange_weak(&writer, &seen, pid);) {
    if (seen == pid) {
      mlz_sys3(SYS_sched_yield, 0, 0, 0);
      seen = 0;
    }
  }
}
static void unlock(void) { atomic_store(&writer, 0); }

/* ---- the table ---- */

static uint64_t place_of(const struct table *t, const char *code) {
  return ((uintptr_t)code >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (t->size - 1);
}

/* The code's entry; NULL: it has none. A table is never full. */
static struct entry *find(struct table *t, const char *code) {
  for (uint64_t i = place_of(t, code);; i = (i + 1) & (t->size - 1)) {
    const char *other = atomic_load_explicit(&t->entries[i].code, memory_order_acquire);
    if (other == code) return &t->entries[i];
    if (!other) return NULL;
  }
}

static void add(struct table *t, const char *code, int64_t interp, uint64_t value) {
  uint64_t i = place_of(t, code);
  while ((uintptr_t)atomic_load_explicit(&t->entries[i].code, memory_order_relaxed) > (uintptr_t)GONE) i = (i + 1) & (t->size - 1);
  struct entry *e = &t->entries[i];
  used += atomic_load_explicit(&e->code, memory_order_relaxed) == NULL;
  atomic_store_explicit(&e->interp, interp, memory_order_relaxed);
  atomic_store_explicit(&e->value, value, memory_order_relaxed);
  atomic_store_explicit(&e->code, code, memory_order_release);
}

static bool alive(const struct entry *e) { return (uintptr_t)atomic_load_explicit(&e->code, memory_order_relaxed) > (uintptr_t)GONE; }

static struct table *empty_table(uint64_t size) {
  struct table *t = spare;
  if (t && t->size == size) {
    for (uint64_t i = 0; i < size; i++) atomic_store_explicit(&t->entries[i].code, NULL, memory_order_relaxed);
    return t;
  }
  size_t bytes = sizeof(*t) + size * sizeof(struct entry);
  long m = mlz_sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m < 0 && m > -4096) return NULL;
  t = (struct table *)m;
  t->size = size;
  return t;
}

/* Room for one more; with the lock. */
static bool reserve(void) {
  struct table *t = atomic_load_explicit(&table, memory_order_relaxed);
  if (t && used < t->size / 2) return true;
  uint64_t living = 0, size = t ? t->size : FIRST;
  for (uint64_t i = 0; t && i < t->size; i++) living += alive(&t->entries[i]);
  if (living * 4 > size) size *= 2;
  struct table *next = empty_table(size);
  if (!next) return false;
  used = 0;
  for (uint64_t i = 0; t && i < t->size; i++) {
    const struct entry *e = &t->entries[i];
    const char *code = atomic_load_explicit(&e->code, memory_order_relaxed);
    if (alive(e))
      add(next, code, atomic_load_explicit(&e->interp, memory_order_relaxed), atomic_load_explicit(&e->value, memory_order_relaxed));
  }
  atomic_store_explicit(&table, next, memory_order_release);
  spare = t;
  return true;
}

uint64_t mlz_code_ids_get(const char *code, int64_t interp) {
  struct table *t = atomic_load_explicit(&table, memory_order_acquire);
  const struct entry *e = t ? find(t, code) : NULL;
  if (!e || atomic_load_explicit(&e->interp, memory_order_relaxed) != interp) return 0;
  return atomic_load_explicit(&e->value, memory_order_relaxed);
}

bool mlz_code_ids_put(const char *code, int64_t interp, uint64_t value) {
  lock();
  bool room = reserve();
  if (room) {
    struct table *t = atomic_load_explicit(&table, memory_order_relaxed);
    struct entry *e = find(t, code);
    if (e) atomic_store_explicit(&e->code, GONE, memory_order_release); /* of an interpreter that has ended, or of another session */
    add(t, code, interp, value);
  }
  unlock();
  return room;
}

bool mlz_code_ids_remove(const char *code) {
  struct table *t = atomic_load_explicit(&table, memory_order_acquire);
  if (!t || !find(t, code)) return false; /* whoever could put it is its interpreter, which is calling */
  lock();
  struct entry *e = find(atomic_load_explicit(&table, memory_order_relaxed), code);
  if (e) atomic_store_explicit(&e->code, GONE, memory_order_release);
  unlock();
  return true;
}

void mlz_code_ids_clear(void) {
  lock();
  struct table *t = atomic_load_explicit(&table, memory_order_relaxed);
  for (uint64_t i = 0; t && i < t->size; i++) {
    if (atomic_load_explicit(&t->entries[i].code, memory_order_relaxed))
      atomic_store_explicit(&t->entries[i].code, GONE, memory_order_relaxed);
  }
  unlock();
}
