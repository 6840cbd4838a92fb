/* The process's rules, by address: open addressing, inserted once, read by every thread without a lock (docs/concurrency.md 25-27). */
#include "native.h"
#include "sys.h"

#include <string.h>
#include <sys/mman.h>

#define CLAIMED (UINT64_C(1) << 63)
#define FIRST_BITS 10u
#define LAST_BITS 18u

struct mlz_rules_table *_Atomic mlz_rules;
static _Atomic uint32_t growing; /* pid of the process in which somebody makes a larger one */

static void put(struct mlz_rules_table *t, uintptr_t ra, uint32_t epoch, const struct mlz_rule *rule) {
  uint64_t key = mlz_rules_key(ra, epoch), words[3];
  memcpy(words, rule, sizeof(words));
  for (unsigned i = 0; i < MLZ_RULES_PROBES; i++) {
    struct mlz_rules_slot *s = mlz_rules_slot(t, ra, i);
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
static void grow(struct mlz_rules_table *old, uint32_t epoch) {
  uint32_t none = 0, pid = mlz_agent.pid;
  uint32_t bits = old ? old->bits + 1 : FIRST_BITS;
  if (bits > LAST_BITS) return;
  if (!atomic_compare_exchange_strong(&growing, &none, pid) &&
      (none == pid || !atomic_compare_exchange_strong(&growing, &none, pid))) /* of the parent, which was forked meanwhile */
    return;
  if (atomic_load_explicit(&mlz_rules, memory_order_relaxed) == old) {
    long m = mlz_sys6(SYS_mmap, 0, (long)(sizeof(struct mlz_rules_table) + (sizeof(struct mlz_rules_slot) << bits)), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m > 0 || m < -4095) {
      struct mlz_rules_table *t = (struct mlz_rules_table *)m;
      t->bits = bits;
      for (uint64_t i = 0; old && i < UINT64_C(1) << old->bits; i++) {
        struct mlz_rule_words words;
        struct mlz_rule rule;
        uint64_t k = atomic_load_explicit(&old->slots[i].key, memory_order_relaxed);
        uintptr_t ra = k & ((UINT64_C(1) << 48) - 1);
        if (k >> 48 != epoch || !mlz_rules_get(ra, epoch, &words)) continue;
        memcpy(&rule, &words, sizeof(rule));
        put(t, ra, epoch, &rule);
      }
      atomic_store_explicit(&mlz_rules, t, memory_order_release);
    }
  }
  atomic_store(&growing, 0);
}

void mlz_rules_put(uintptr_t ra, uint32_t epoch, const struct mlz_rule *rule) {
  struct mlz_rules_table *t = atomic_load_explicit(&mlz_rules, memory_order_acquire);
  if (!t || atomic_load_explicit(&t->used, memory_order_relaxed) > (UINT32_C(1) << t->bits) / 2) {
    grow(t, epoch);
    t = atomic_load_explicit(&mlz_rules, memory_order_acquire);
  }
  if (t) put(t, ra, epoch, rule);
}
