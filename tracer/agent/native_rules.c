/* The process's rules, by address: open addressing, inserted once, read by every thread without a lock (docs/concurrency.md 25-27). */
#include "native.h"
#include "sys.h"

#include <string.h>
#include <sys/mman.h>

#define PROBES 8u
#define CLAIMED (UINT64_C(1) << 63)
#define FIRST_BITS 10u
#define LAST_BITS 18u

/* key: | 63 being filled | 62..48 epoch | 47..0 address |, 0: free. A slot whose epoch has passed may be filled anew. */
struct slot {
  _Atomic uint64_t key;
  _Atomic uint64_t words[3];
};
struct table {
  uint32_t bits;
  _Atomic uint32_t used;
  uint64_t unused[3];
  struct slot slots[];
};
static struct table *_Atomic current;
static _Atomic uint32_t growing; /* pid of the process in which somebody makes a larger one */

static uint64_t key_of(uintptr_t ra, uint32_t epoch) { return (ra & ((UINT64_C(1) << 48) - 1)) | (uint64_t)epoch << 48; }
static uint64_t place_of(const struct table *t, uintptr_t ra) { return (ra * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - t->bits); }
static struct slot *slot_at(struct table *t, uint64_t place, unsigned i) { return &t->slots[(place + i) & ((UINT64_C(1) << t->bits) - 1)]; }

bool mlz_rules_get(uintptr_t ra, uint32_t epoch, struct mlz_rule *out) {
  struct table *t = atomic_load_explicit(&current, memory_order_acquire);
  if (MLZ_UNLIKELY(!t)) return false;
  uint64_t key = key_of(ra, epoch), place = place_of(t, ra), words[3];
  for (unsigned i = 0; i < PROBES; i++) {
    struct slot *s = slot_at(t, place, i);
    uint64_t k = atomic_load_explicit(&s->key, memory_order_acquire);
    if (k == 0) return false;
    if (k != key) continue;
    for (unsigned w = 0; w < 3; w++) words[w] = atomic_load_explicit(&s->words[w], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if (MLZ_UNLIKELY(atomic_load_explicit(&s->key, memory_order_relaxed) != key)) return false; /* filled anew meanwhile */
    memcpy(out, words, sizeof(words));
    return true;
  }
  return false;
}

static void put(struct table *t, uintptr_t ra, uint32_t epoch, const struct mlz_rule *rule) {
  uint64_t key = key_of(ra, epoch), place = place_of(t, ra), words[3];
  memcpy(words, rule, sizeof(words));
  for (unsigned i = 0; i < PROBES; i++) {
    struct slot *s = slot_at(t, place, i);
    uint64_t k = atomic_load_explicit(&s->key, memory_order_relaxed);
    if ((k & ~CLAIMED) == key) return;
    bool passed = k != 0 && !(k & CLAIMED) && (k >> 48) != epoch;
    if ((k != 0 && !passed) || !atomic_compare_exchange_strong(&s->key, &k, key | CLAIMED)) continue;
    for (unsigned w = 0; w < 3; w++) atomic_store_explicit(&s->words[w], words[w], memory_order_relaxed);
    atomic_store_explicit(&s->key, key, memory_order_release);
    if (k == 0) atomic_fetch_add_explicit(&t->used, 1, memory_order_relaxed);
    return;
  }
  atomic_fetch_add_explicit(&t->used, 1, memory_order_relaxed); /* full around here: it is time for a larger one */
}

/* Whoever reads the old one meanwhile goes on doing so: it is not unmapped. All of them together are smaller than the last. */
static void grow(struct table *old, uint32_t epoch) {
  uint32_t none = 0, pid = mlz_agent.pid;
  uint32_t bits = old ? old->bits + 1 : FIRST_BITS;
  if (bits > LAST_BITS) return;
  if (!atomic_compare_exchange_strong(&growing, &none, pid) &&
      (none == pid || !atomic_compare_exchange_strong(&growing, &none, pid))) /* of the parent, which was forked meanwhile */
    return;
  if (atomic_load_explicit(&current, memory_order_relaxed) == old) {
    long m = mlz_sys6(SYS_mmap, 0, (long)(sizeof(struct table) + (sizeof(struct slot) << bits)), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m > 0 || m < -4095) {
      struct table *t = (struct table *)m;
      t->bits = bits;
      for (uint64_t i = 0; old && i < UINT64_C(1) << old->bits; i++) {
        struct mlz_rule rule;
        uint64_t k = atomic_load_explicit(&old->slots[i].key, memory_order_relaxed);
        uintptr_t ra = k & ((UINT64_C(1) << 48) - 1);
        if (k >> 48 == epoch && mlz_rules_get(ra, epoch, &rule)) put(t, ra, epoch, &rule);
      }
      atomic_store_explicit(&current, t, memory_order_release);
    }
  }
  atomic_store(&growing, 0);
}

void mlz_rules_put(uintptr_t ra, uint32_t epoch, const struct mlz_rule *rule) {
  struct table *t = atomic_load_explicit(&current, memory_order_acquire);
  if (!t || atomic_load_explicit(&t->used, memory_order_relaxed) > (UINT32_C(1) << t->bits) / 2) {
    grow(t, epoch);
    t = atomic_load_explicit(&current, memory_order_acquire);
  }
  if (t) put(t, ra, epoch, rule);
}
