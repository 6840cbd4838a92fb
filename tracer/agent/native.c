/* The capture: whole-stack memo, else the shadow stack, else rule after rule; then what is new of it, as nodes of the ring's trie. */
#include "native.h"

#include "event.h"
#include "native_memo.h"
#include "python.h"
#include "sys.h"

#include <string.h>
#include <sys/mman.h>

#define CHAIN MLZ_NATIVE_DEPTH_MAX /* frames that are remembered */
#define FRESH_MAX (2u * (MLZ_STACK_DEPTH_MAX + 2) + 8)
#define FRESH_LEAST 256u /* frames that a walk may go at least, before it gives up to find an end */
#define NODES_MAX (1u << 20)
#define NODES_MAX_SMALL (1u << 16) /* where address space is scarce */
#define NODE_HASH_FIRST 10u        /* bits */
#define SCRATCH 8192u
#define HUGE (UINT64_C(2) << 20)

/* A frame that was walked through: the registers in it, and the words that led out of it. */
enum frame_flag {
  FRAME_EXACT = 1,    /* pc is that of an instruction + 1 */
  FRAME_NEEDS = 2,    /* what lies further out depends on rbp */
  FRAME_LAST = 4,     /* nothing is known further out */
  FRAME_CUT = 8,      /* though there is something */
  FRAME_LIMIT = 16,   /* because the walk had gone far enough */
  FRAME_EVAL = 32,    /* a loop of the interpreter */
  FRAME_HIDDEN = 64,  /* of this library */
  FRAME_START = 512,  /* its word is that of a function's beginning */
  FRAME_SUM = 256,    /* the CFA is not a word of the stack but what was added to one: such a frame is walked each time */
  FRAME_BASED = 1024, /* the CFA itself is known by rbp */
  FRAME_FREE = 128,   /* the code is in no module: nothing of this may be remembered */
};
struct frame {
  uintptr_t sp, pc, rbp;
  uintptr_t ra_at; /* where the return address lies; 0: there is none */
  uint64_t word;
  uint64_t path;            /* a mix of it and of all words further out */
  int32_t rbp_off, cfa_off; /* where the caller's rbp and the CFA lie, from sp; NOWHERE: they were not read */
  uint32_t node;
  uint32_t flags;
};
#define NOWHERE INT32_MIN
_Static_assert(sizeof(struct frame) == 64, "a cache line");

struct node {
  uint64_t word, path;
  uint32_t caller;
  uint32_t flags; /* enum mlz_native_flag */
};
/* Where a node is looked for: all that must be compared, so that one look into memory tells. Its place follows from the path alone, so that a whole stack's
 * places are fetched at once. */
struct place {
  uint64_t word;
  uint32_t caller;
  uint32_t node; /* with the flags above NODE_BITS; 0: free */
};
#define NODE_BITS 24u
#define NODE_MASK ((1u << NODE_BITS) - 1)
_Static_assert(NODES_MAX <= NODE_MASK, "a node's number fits");

struct mlz_native {
  uint32_t epoch; /* of modules: what is remembered is true in it */
  uint32_t reach; /* frames that must be true */
  uint32_t limit; /* frames that a walk may go */
  uint32_t sent;  /* the ring's current node */
  uint32_t top;   /* innermost remembered frame; CHAIN: none */
  uint32_t nodes; /* of the ring's trie */
  uint32_t nodes_max;
  uint32_t hash_bits;
  struct mlz_native_home home;
  struct mlz_native_view view;
  struct node *node;   /* [nodes_max + 1], from 1 */
  struct place *place; /* [1 << hash_bits], of nodes_max * 2 at the most */
  size_t bytes;        /* of all */
  uint64_t announced[MLZ_NATIVE_MODULES / 64];
  uint8_t scratch[SCRATCH];
  _Alignas(64) struct frame chain[CHAIN + 1]; /* innermost first, ends at chain[CHAIN - 1] */
  struct frame fresh[FRESH_MAX];
  struct mlz_memo memo;
};

/* ---- a thread's memory ---- */

static void forget_stack(struct mlz_native *n) { n->top = CHAIN; }
static void forget_nodes(struct mlz_native *n) {
  n->nodes = 0;
  n->sent = 0;
  n->hash_bits = NODE_HASH_FIRST;
  memset(n->place, 0, sizeof(*n->place) << n->hash_bits);
  forget_stack(n);
  mlz_memo_forget(&n->memo);
}

static struct mlz_native *make_for(struct mlz_thread *th, uint32_t nodes) {
  size_t node_bytes = (nodes + 1) * sizeof(struct node), places = 2 * nodes * sizeof(struct place),
         bytes = sizeof(struct mlz_native) + node_bytes + places + HUGE;
  long m = mlz_sys6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m < 0 && m > -4096) return NULL;
  mlz_sys3(SYS_madvise, m, (long)bytes, MADV_NOHUGEPAGE);
  if (!mlz_agent.no_wipe) mlz_sys3(SYS_madvise, m, (long)bytes, MADV_DONTFORK); /* `th` is emptied there */
  struct mlz_native *n = (struct mlz_native *)m;
  n->bytes = bytes;
  n->nodes_max = nodes;
  n->node = (struct node *)(n + 1);
  n->place = (struct place *)(((uintptr_t)(n + 1) + node_bytes + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
  mlz_memo_begin(&n->memo);
  th->native = n;
  return n;
}
static MLZ_COLD struct mlz_native *make(struct mlz_thread *th) {
  struct mlz_native *n = mlz_agent.whole ? make_for(th, NODES_MAX) : NULL;
  return n ? n : make_for(th, NODES_MAX_SMALL);
}

/* The ring is new, so is its trie. */
static MLZ_COLD bool begin(struct mlz_thread *th) {
  struct mlz_native *n = th->native ? th->native : make(th);
  if (!n) return false;
  memset(n->announced, 0, sizeof(n->announced));
  n->home = (struct mlz_native_home){0};
  n->epoch = UINT32_MAX;
  n->reach = 0;
  forget_nodes(n);
  th->native_ready = true;
  return true;
}

void mlz_native_release(struct mlz_thread *th) {
  struct mlz_native *n = th->native;
  th->native = NULL;
  th->native_ready = false;
  if (n) mlz_sys3(SYS_munmap, (long)n, (long)n->bytes, 0);
}

/* ---- one step outwards ---- */

struct walk {
  uintptr_t sp, pc, rbp;
  bool exact;
  bool away; /* left the thread's own stack: what was found must not be remembered */
};

static MLZ_COLD struct mlz_rule_words read_rule(const struct mlz_native *n, uintptr_t pc) {
  struct mlz_rule r;
  struct mlz_rule_words w;
  mlz_native_rule(pc, &r);
  if (n->epoch < MLZ_RULES_EPOCHS && !(r.flags & MLZ_RULE_FREE)) mlz_rules_put(pc, n->epoch, &r);
  memcpy(&w, &r, sizeof(w));
  return w;
}
static inline __attribute__((always_inline)) struct mlz_rule_words rule_of(const struct mlz_native *n, uintptr_t pc) {
  struct mlz_rule_words w;
  if (MLZ_LIKELY(n->epoch < MLZ_RULES_EPOCHS) && MLZ_LIKELY(mlz_rules_get(pc, n->epoch, &w))) return w;
  return read_rule(n, pc);
}

static MLZ_COLD bool change_view(struct mlz_native *n, struct walk *w, uintptr_t at) {
  w->away |= n->view.shift != 0 || at < n->home.low || at >= n->home.high;
  bool known = mlz_native_view(&n->home, w->sp, at, &n->view, n->scratch + SCRATCH - MLZ_NATIVE_COPY);
  w->away |= n->view.shift != 0; /* what lies below the stack pointer must not be read again where it lies */
  return known;
}
/* The word at `at`. False: it is no word of a stack. */
static inline __attribute__((always_inline)) bool load(struct mlz_native *n, struct walk *w, uintptr_t at, uintptr_t *out) {
  if (MLZ_UNLIKELY((at & 7) || at < n->view.low || at >= n->view.high) && ((at & 7) || !change_view(n, w, at))) return false;
  *out = *(const uintptr_t *)(at + (uintptr_t)n->view.shift);
  return true;
}

static inline bool offset_of(const struct frame *f, uintptr_t at, int32_t *out) {
  intptr_t offset = (intptr_t)(at - f->sp);
  *out = (int32_t)offset;
  return *out == offset && *out != NOWHERE;
}

/* Fills `f` and takes `w` to the caller. False: it was the last frame. */
static inline __attribute__((always_inline)) bool step(struct mlz_native *n, struct walk *w, struct frame *f, struct mlz_rule_words r) {
  unsigned flags = mlz_rule_flags(r);
  f->sp = w->sp;
  f->pc = w->pc;
  f->rbp = w->rbp;
  f->ra_at = 0;
  f->rbp_off = f->cfa_off = NOWHERE;
  f->word = r.word - w->exact;
  uint32_t marks = w->exact ? FRAME_EXACT : 0;
  if (flags & MLZ_RULE_RBP) marks |= FRAME_NEEDS | FRAME_BASED;
  if (MLZ_UNLIKELY(flags & (MLZ_RULE_EVAL | MLZ_RULE_OURS | MLZ_RULE_START)))
    marks |=
        (flags & MLZ_RULE_EVAL ? FRAME_EVAL : 0) | (flags & MLZ_RULE_OURS ? FRAME_HIDDEN : 0) | (flags & MLZ_RULE_START ? FRAME_START : 0);
  f->flags = marks;
  uintptr_t cfa = (flags & MLZ_RULE_RBP ? w->rbp : w->sp) + (uintptr_t)mlz_rule_cfa(r), ra, rbp = w->rbp;
  uintptr_t ra_at = cfa - 8, rbp_at = 0;
  bool rises = cfa > w->sp;
  if (MLZ_UNLIKELY(flags & MLZ_RULE_ODD)) {
    if (flags & MLZ_RULE_END) {
      f->flags |= FRAME_LAST;
      return false;
    }
    if (flags & MLZ_RULE_NONE) goto cut;
    if (flags & MLZ_RULE_LOAD) {
      if (!offset_of(f, cfa, &f->cfa_off) || !load(n, w, cfa, &cfa)) goto cut;
      if (!(flags & MLZ_RULE_RA_RSP) && mlz_rule_add(r)) {
        cfa += (uintptr_t)mlz_rule_add(r);
        f->flags |= FRAME_SUM;
      }
    }
    ra_at = flags & MLZ_RULE_RA_RSP ? w->sp + (uintptr_t)mlz_rule_add(r) : cfa - 8;
    rises = cfa > w->sp || flags & MLZ_RULE_SIGNAL; /* a signal's handler may have a stack of its own */
  }
  if (MLZ_UNLIKELY(!rises || (cfa & 7)) || MLZ_UNLIKELY(!load(n, w, ra_at, &ra))) goto cut;
  switch (mlz_rule_rbp_kind(r)) {
  case MLZ_RBP_SAME:
    break;
  case MLZ_RBP_CFA:
    rbp_at = cfa + (uintptr_t)mlz_rule_rbp(r);
    break;
  case MLZ_RBP_RBP:
    rbp_at = w->rbp + (uintptr_t)mlz_rule_rbp(r);
    f->flags |= FRAME_NEEDS;
    break;
  case MLZ_RBP_RSP:
    rbp_at = w->sp + (uintptr_t)mlz_rule_rbp(r);
    break;
  default:
    rbp = 0;
    break;
  }
  if (rbp_at && MLZ_UNLIKELY(!offset_of(f, rbp_at, &f->rbp_off) || !load(n, w, rbp_at, &rbp))) goto cut;
  f->ra_at = ra_at;
  if (MLZ_UNLIKELY(ra == 0)) { /* where a thread or a coroutine begins */
    f->flags |= FRAME_LAST;
    return false;
  }
  bool exact = flags & MLZ_RULE_SIGNAL;
  w->sp = cfa;
  w->pc = ra + exact;
  w->rbp = rbp;
  w->exact = exact;
  return true;
cut:
  f->flags |= FRAME_LAST | FRAME_CUT | (flags & MLZ_RULE_FREE ? FRAME_FREE : 0);
  f->rbp_off = f->cfa_off = NOWHERE;
  return false;
}

/* ---- the shadow stack ---- */

/* Does `f`, which is true, lead to the frame after it? Its words are read where a walk would read them. */
static inline uintptr_t word_at(const struct frame *f, int32_t offset) { return *(const uintptr_t *)(f->sp + (uintptr_t)(intptr_t)offset); }
static inline bool leads_on(const struct frame *f) {
  const struct frame *outer = f + 1;
  if (MLZ_UNLIKELY(f->cfa_off != NOWHERE) && (f->flags & FRAME_SUM || word_at(f, f->cfa_off) != outer->sp)) return false;
  if (*(const uintptr_t *)f->ra_at + (outer->flags & FRAME_EXACT) != outer->pc) return false;
  return !(outer->flags & FRAME_NEEDS) || f->rbp_off == NOWHERE || word_at(f, f->rbp_off) == outer->rbp;
}

/* Are `count` frames from `at` on as remembered? The first one is. Returns the last that is known to be, `*whole`: all of them, or to the end. */
static inline uint32_t verify(const struct mlz_native *n, uint32_t at, uint32_t count, bool *whole) {
  const struct frame *f = &n->chain[at], *last = &n->chain[CHAIN - 1];
  if (count < (uint32_t)(last - f) + 1) last = f + count - 1;
  while (f < last && MLZ_LIKELY(leads_on(f))) f++;
  *whole = f == last;
  return (uint32_t)(f - n->chain);
}

/* Walks from `w` until a remembered frame is met that still leads to enough others. Returns the new frames; *met: the remembered one, or CHAIN. */
static uint32_t walk_out(struct mlz_native *n, struct walk *w, uint32_t *met) {
  uint32_t count = 0, at = n->top;
  for (;;) {
    while (at < CHAIN && n->chain[at].sp < w->sp) at++;
    const struct frame *known = &n->chain[at];
    if (at < CHAIN && known->sp == w->sp && known->pc == w->pc && (!(known->flags & FRAME_NEEDS) || known->rbp == w->rbp) && !w->away) {
      bool whole;
      uint32_t last = verify(n, at, count < n->reach ? n->reach - count : 1, &whole);
      /* What was cut for its length is not enough when it is met near its end. */
      if (whole && !(n->chain[last].flags & FRAME_LIMIT && count + (last - at) + 1 < n->reach)) {
        *met = at;
        return count;
      }
      at = last + 1;
    }
    *met = CHAIN;
    struct frame *f = &n->fresh[count++];
    if (!step(n, w, f, rule_of(n, w->pc))) return count;
    if (count == n->limit) {
      f->flags |= FRAME_LAST | FRAME_CUT | FRAME_LIMIT;
      return count;
    }
  }
}

/* The new frames lie on what was met. */
static void take_up(struct mlz_native *n, uint32_t count, uint32_t met) {
  uint32_t needs = met < CHAIN ? n->chain[met].flags & FRAME_NEEDS : 0;
  for (uint32_t i = count; i-- > 0;) {
    struct frame *f = &n->fresh[i];
    if (f->rbp_off == NOWHERE) f->flags |= needs;
    needs = f->flags & FRAME_NEEDS;
  }
  n->top = met - count;
  memcpy(&n->chain[n->top], n->fresh, count * sizeof(struct frame));
}

/* ---- the trie ---- */

static uint64_t path_of(uint64_t outer, uint64_t word, uint32_t flags) {
  uint64_t h = (outer ^ word ^ (uint64_t)flags << 40) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}
static struct place *place_of(const struct mlz_native *n, uint64_t path) {
  return &n->place[(path * UINT64_C(0xd1b54a32d192ed03)) >> (64 - n->hash_bits)];
}
static struct place *next_place(const struct mlz_native *n, struct place *p) {
  return p + 1 < n->place + (UINT64_C(1) << n->hash_bits) ? p + 1 : n->place;
}
static void keep_node(struct mlz_native *n, struct place *p, uint32_t k) {
  const struct node *x = &n->node[k];
  *p = (struct place){x->word, x->caller, k | x->flags << NODE_BITS};
}

static MLZ_COLD void grow_places(struct mlz_native *n) {
  n->hash_bits++;
  size_t bytes = sizeof(*n->place) << n->hash_bits;
  if (bytes >= 2 * HUGE)
    mlz_sys3(SYS_madvise, (long)n->place, (long)bytes, MADV_HUGEPAGE); /* looked into at random: page tables cost more than memory */
  memset(n->place, 0, sizeof(*n->place) << n->hash_bits);
  for (uint32_t k = 1; k <= n->nodes; k++) {
    struct place *p = place_of(n, n->node[k].path);
    while (p->node) p = next_place(n, p);
    keep_node(n, p, k);
  }
}

/* A message of one word or two that needs no place in the order of events. */
static inline bool send(struct mlz_tls *t, uint32_t words, uint64_t a, uint64_t b) {
  struct mlz_producer *out = &t->thread->out;
  if (MLZ_UNLIKELY(!mlz_producer_quick(out))) {
    if (!mlz_producer_room(out, words + MLZ_EVENT_EXTRA, mlz_event_mode(t))) return false;
    *mlz_producer_word(out, 0) = a;
    if (words == 2) *mlz_producer_word(out, 1) = b;
    mlz_producer_publish(out, words);
    return true;
  }
  out->cursor[0] = a;
  if (words == 2) out->cursor[1] = b;
  mlz_producer_advance(out, words);
  return true;
}

static MLZ_COLD bool announce(struct mlz_tls *t, struct mlz_native *n, uintptr_t ra, unsigned number) {
  struct mlz_producer *out = &t->thread->out;
  struct mlz_native_module m;
  if (!mlz_native_module_of(ra - 1, &m)) return false;
  uint32_t bytes = mlz_native_module_text(&m, n->scratch, SCRATCH - MLZ_NATIVE_COPY);
  if (mlz_producer_side(out, n->scratch, bytes) != bytes || !mlz_producer_room(out, 4 + MLZ_EVENT_EXTRA, MLZ_ROOM_BLOCK)) {
    mlz_producer_side_undo(out);
    return false;
  }
  const uint64_t message[4] = {mlz_head_word(MLZ_K_MODULE, 0, 0, number), m.bias, bytes, 0};
  for (uint32_t i = 0; i < 4; i++) *mlz_producer_word(out, i) = message[i];
  mlz_producer_publish(out, 4);
  mlz_producer_side_keep(out);
  n->announced[number / 64] |= UINT64_C(1) << number % 64;
  return true;
}

static inline uint32_t node_flags(const struct frame *f) {
  return (f->flags & (FRAME_EXACT | FRAME_START) ? MLZ_N_EXACT : 0) | (f->flags & FRAME_CUT ? MLZ_N_CUT : 0) |
         (f->flags & FRAME_EVAL ? MLZ_N_EVAL : 0);
}

/* A node that is new: told of first, remembered then, so that the ring's trie and ours stay the same. */
static MLZ_COLD uint32_t new_node(struct mlz_tls *t, struct mlz_native *n, const struct frame *f, uint32_t caller, struct place *p) {
  unsigned module = mlz_native_module(f->word);
  if (module && MLZ_UNLIKELY(!(n->announced[module / 64] >> module % 64 & 1)) && !announce(t, n, f->pc, module)) return 0;
  if (!send(t, 2, mlz_head_word(MLZ_K_NATIVE_NODE, node_flags(f), 0, caller), f->word)) return 0;
  uint32_t k = ++n->nodes;
  n->node[k] = (struct node){f->word, f->path, caller, node_flags(f)};
  keep_node(n, p, k);
  if (n->nodes > (UINT32_C(1) << n->hash_bits) / 2) grow_places(n);
  return k;
}

/* The node of `f` above `caller`; 0: it is new, and there was no room to tell of it. */
static inline uint32_t node_of(struct mlz_tls *t, struct mlz_native *n, const struct frame *f, uint32_t caller) {
  struct place *p = place_of(n, f->path);
  uint32_t flags = node_flags(f);
  for (; p->node; p = next_place(n, p))
    if (MLZ_LIKELY(p->word == f->word && p->caller == caller && p->node >> NODE_BITS == flags)) return p->node & NODE_MASK;
  return new_node(t, n, f, caller, p);
}

/* Gives the frames chain[top] to chain[end - 1] their nodes. A frame of ours has that of its caller; where it is the outermost one, none. */
static bool name_frames(struct mlz_tls *t, struct mlz_native *n, uint32_t end) {
  uint32_t caller = end < CHAIN ? n->chain[end].node : 0;
  uint64_t path = end < CHAIN ? n->chain[end].path : 0;
  for (uint32_t i = end; i-- > n->top;) {
    struct frame *f = &n->chain[i];
    if (MLZ_LIKELY(!(f->flags & FRAME_HIDDEN))) path = path_of(path, f->word, node_flags(f));
    f->path = path;
    __builtin_prefetch(place_of(n, path));
  }
  for (uint32_t i = end; i-- > n->top;) {
    struct frame *f = &n->chain[i];
    if (MLZ_LIKELY(!(f->flags & FRAME_HIDDEN)) && (caller = node_of(t, n, f, caller)) == 0) return false;
    f->node = caller;
  }
  return true;
}

/* ---- the memo ---- */

static bool memo_word(struct mlz_memo_stack *s, uintptr_t at) {
  struct mlz_memo_entry *e = &s->entry;
  if (e->words == MLZ_MEMO_WORDS || at < s->sp || (at - s->sp) / 8 > UINT16_MAX) return false;
  e->at[e->words++] = (uint16_t)((at - s->sp) / 8);
  return true;
}
/* Where the frame's return address lies, if that follows from its program counter and from where the frames inside it end. */
static uint32_t memo_step(const struct mlz_memo_stack *s, const struct frame *f, const struct frame *end) {
  bool follows = f < end && f->ra_at >= s->sp && !(f->flags & (FRAME_BASED | FRAME_LAST)) && f->cfa_off == NOWHERE;
  return follows && f->ra_at - s->sp < UINT32_MAX ? (uint32_t)((f->ra_at - s->sp) / 8) : MLZ_MEMO_STOP;
}
/* Remembers the stack that is in the chain, and true as far as it can be shown. */
static void memo_keep(struct mlz_native *n) {
  const struct frame *f = &n->chain[n->top], *end = f + n->reach;
  if (end > &n->chain[CHAIN]) end = &n->chain[CHAIN];
  if (n->memo.missed++ % n->memo.every || f->node == 0) return;
  struct mlz_memo_stack s;
  s.pc = f->pc;
  s.sp = f->sp;
  s.rbp = f->rbp;
  s.entry.node = f->node;
  s.entry.words = 0;
  s.entry.needs_rbp = (f->flags & FRAME_NEEDS) != 0;
  for (uint32_t i = 0; i < MLZ_MEMO_STEPS; i++) s.follow[i] = memo_step(&s, f + i, end);
  for (; f + 1 < end; f++) {
    if (f->cfa_off != NOWHERE && !memo_word(&s, f->sp + (uintptr_t)(intptr_t)f->cfa_off)) return;
    if (!memo_word(&s, f->ra_at)) return;
    if (f[1].flags & FRAME_NEEDS && f->rbp_off != NOWHERE && !memo_word(&s, f->sp + (uintptr_t)(intptr_t)f->rbp_off)) return;
  }
  /* The end of the stack, where it is a word that says so. */
  if (f->flags & FRAME_LAST && f->ra_at && !(f->flags & FRAME_CUT) && !memo_word(&s, f->ra_at)) return;
  mlz_memo_keep(&n->memo, &s, n->home.high);
}

/* ---- debug mode: once more, with nothing remembered ---- */

static MLZ_COLD void check(struct mlz_native *n, struct walk w, uint32_t node) {
  struct mlz_rule rule;
  struct mlz_rule_words words;
  struct frame f;
  bool same = true;
  uint32_t count = 0;
  n->view = (struct mlz_native_view){0};
  for (bool goes_on = true; goes_on && same && count < n->reach; count++) {
    mlz_native_rule(w.pc, &rule);
    memcpy(&words, &rule, sizeof(words));
    goes_on = step(n, &w, &f, words);
    if (f.flags & FRAME_HIDDEN) continue;
    const struct node *x = &n->node[node];
    uint32_t flags = node_flags(&f) & ~(uint32_t)MLZ_N_CUT;
    uint32_t cut = goes_on ? x->flags & MLZ_N_CUT : f.flags & FRAME_CUT ? MLZ_N_CUT : 0;
    same = node != 0 && x->word == f.word && x->flags == (flags | cut) && (goes_on || x->caller == 0);
    node = x->caller;
  }
  if (!same) atomic_fetch_add_explicit(&mlz_agent_control()->native_mismatches, 1, memory_order_relaxed);
}

/* ---- a capture ---- */

static MLZ_COLD bool reset_nodes(struct mlz_tls *t, struct mlz_native *n) {
  if (!send(t, 1, mlz_head_word(MLZ_K_NATIVE_RESET, 0, 0, 0), 0)) return false;
  forget_nodes(n);
  return true;
}

/* What seldom is: a new depth, modules gone, a full trie, a stack that is not the thread's own. */
static MLZ_COLD void look(struct mlz_thread *th, struct mlz_native *n) {
  uint32_t now = atomic_load_explicit(&mlz_native_epoch.now, memory_order_acquire);
  if (atomic_load_explicit(&mlz_native_epoch.unloading, memory_order_acquire)) now = UINT32_MAX;
  if (n->epoch != now || n->reach != th->depth + 2) {
    forget_stack(n);
    mlz_memo_forget(&n->memo);
  }
  n->epoch = now;
  n->reach = th->depth + 2; /* what stands for nothing (MLZ_N_BARE) makes room for one more */
  n->limit = 2 * n->reach > FRESH_LEAST ? 2 * n->reach : FRESH_LEAST;
}

static inline bool odd(const struct mlz_thread *th, const struct mlz_native *n) {
  return (n->epoch != atomic_load_explicit(&mlz_native_epoch.now, memory_order_relaxed)) |
         (atomic_load_explicit(&mlz_native_epoch.unloading, memory_order_relaxed) != 0) | (n->reach != th->depth + 2) |
         (n->nodes + FRESH_MAX > n->nodes_max);
}

/* The node of the stack that begins at `w`; 0: none, *room false: nothing could be sent. */
static __attribute__((noinline)) uint32_t capture_slowly(struct mlz_tls *t, struct mlz_native *n, struct walk w, bool at_home, bool *room) {
  uint32_t met, count;
  struct walk from = w;
  struct mlz_native_view view = {0};
  if (at_home) view = mlz_native_home_view(&n->home, w.sp);
  n->view = view;
  if (!at_home || n->epoch == UINT32_MAX) forget_stack(n);
  w.away = !at_home;
  count = walk_out(n, &w, &met);
  if (MLZ_UNLIKELY(count + (CHAIN - met) > CHAIN)) {
    forget_stack(n);
    w = from;
    w.away = !at_home;
    n->view = view;
    count = walk_out(n, &w, &met);
  }
  bool forgettable = w.away || n->epoch == UINT32_MAX || (count && n->fresh[count - 1].flags & FRAME_FREE);
  take_up(n, count, met);
  if (MLZ_UNLIKELY(!name_frames(t, n, met))) {
    forget_stack(n);
    *room = false;
    return 0;
  }
  uint32_t node = n->top < CHAIN ? n->chain[n->top].node : 0;
  if (MLZ_UNLIKELY(forgettable))
    forget_stack(n);
  else
    memo_keep(n);
  return node;
}

bool mlz_native_capture(struct mlz_tls *t, const uintptr_t *frame, const char *tstate) {
  struct mlz_thread *th = t->thread;
  if (MLZ_UNLIKELY(!th->native_ready) && !begin(th)) return true;
  struct mlz_native *n = th->native;
  if (MLZ_UNLIKELY(odd(th, n))) {
    if (n->nodes + FRESH_MAX > n->nodes_max && !reset_nodes(t, n)) return false;
    look(th, n);
  }
  struct walk w = {.sp = (uintptr_t)(frame + 2), .pc = frame[1], .rbp = frame[0]};
  bool at_home = w.sp >= n->home.low && w.sp < n->home.high, room = true;
  if (MLZ_UNLIKELY(!at_home)) {
    mlz_native_home_find(&n->home, w.sp, th->self, n->scratch);
    at_home = w.sp >= n->home.low && w.sp < n->home.high;
  }
  uint32_t node = 0;
  if (MLZ_LIKELY(at_home)) {
    node = mlz_memo_find(&n->memo, w.pc, w.sp, w.rbp, n->home.high);
    if (MLZ_UNLIKELY(++n->memo.asked == MLZ_MEMO_WINDOW)) mlz_memo_think(&n->memo);
  }
  if (node == 0) node = capture_slowly(t, n, w, at_home, &room);
  if (MLZ_UNLIKELY(!room)) return false;
  if (MLZ_UNLIKELY(mlz_agent.native_check)) check(n, w, node);
  bool python = tstate && mlz_python.reader && mlz_python.reader->bare &&
                atomic_load_explicit(&mlz_python.state, memory_order_relaxed) == MLZ_PY_READY;
  unsigned bare = python ? mlz_python.reader->bare(tstate) : 0;
  if (MLZ_UNLIKELY(bare > MLZ_N_BARE_MAX)) bare = MLZ_N_BARE_MAX;
  uint32_t current = node | bare << NODE_BITS;
  if (current != n->sent) {
    if (!send(t, 1, mlz_head_word(MLZ_K_NATIVE, bare ? MLZ_N_BARE | (bare - 1) << MLZ_N_BARE_SHIFT : 0, 0, node), 0)) return false;
    n->sent = current;
  }
  return true;
}
