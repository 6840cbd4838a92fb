#include "fake.h"
#include "tracer/recorder/native.h"

#include <criterion/criterion.h>

static struct fake f;

/* ---- merging: a table. Native frames, outermost first: a letter, '(' a loop of the interpreter. Python frames, outermost first: capitals; a small x
 * behind one says that it is inlined. */
struct row {
  const char *name, *native, *python;
  unsigned bare;
  bool below, cut;
  uint32_t depth;
  const char *merged; /* innermost first; native lower case, Python capitals; '+' at the end: truncated */
};
static const struct row table[] = {
    {"3.8: each frame has a loop", "m(c(d", "AB", false, false, false, 32, "dBcAm"},
    {"3.11: inlined calls share a loop", "m(d", "ABxCx", false, false, false, 32, "dCBAm"},
    {"two loops, the inner one with two frames", "m(k(d", "ABCx", false, false, false, 32, "dCBkAm"},
    {"a callback from C inside inlined calls", "m(s(k(d", "ABxCDEx", false, false, false, 32, "dEDkCsBAm"},
    {"allocation by the loop itself", "m(", "AB", false, false, false, 32, "BmA"},
    {"a generator: C resumes a frame in a loop of its own", "m(g(n(", "ABC", false, false, false, 32, "CnBgAm"},
    {"the innermost loop runs nothing yet", "m(c(", "A", true, false, false, 32, "cAm"},
    {"bare, below a native frame", "m(c(q", "A", true, false, false, 32, "qcAm"},
    {"only the innermost loop is bare", "m(c(d(", "AB", true, false, false, 32, "dBcAm"},
    {"bare and nothing else", "m(", "", true, false, false, 32, "m"},
    {"two are bare", "m(c(d(e", "A", 2, false, false, 32, "edcAm"},
    {"one runs nothing any more, and has called another", "m(c(d(e", "AoB", 0, false, false, 32, "eBdcAm"},
    {"two of them", "m(c(d(e(", "AooBCx", 0, false, false, 32, "CBedcAm"},
    {"and the innermost", "m(c(d(e(f", "AoB", 1, false, false, 32, "feBdcAm"},
    {"none is left for it", "m(c", "ooB", 0, false, false, 32, "cBm"},
    {"cut by depth among native frames", "m(c(d", "AB", false, false, false, 1, "d+"},
    {"cut by depth among Python frames", "m(d", "ABxCx", false, false, false, 2, "dC+"},
    {"exactly as deep", "m(d", "A", false, false, false, 3, "dAm"},
    {"what is left is a loop that runs nothing", "(d", "", false, false, false, 1, "d"},
    {"native frames were cut: Python follows", "c(d", "ABC", false, false, true, 32, "dCcBA+"},
    {"native frames were cut, no Python is left", "c(d", "A", false, false, true, 32, "dAc+"},
    {"no native stack", "", "AB", false, false, false, 32, "BA"},
    {"no native stack, more Python below", "", "AB", false, true, false, 32, "BA+"},
    {"more Python below than the window holds", "m(d", "AB", false, true, false, 32, "dBmA+"},
    {"no Python frames", "mcd", "", false, false, false, 32, "dcm"},
    {"nothing", "", "", false, false, false, 32, ""},
    {"depth 0", "md", "A", false, false, false, 0, "+"},
};

static uint32_t chain(struct mlz_native *n, const char *native, bool cut) {
  uint32_t node = 0;
  for (const char *p = native; *p; p++) {
    unsigned flags = (*p == '(' ? MLZ_N_EVAL : 0u) | (cut && p == native ? MLZ_N_CUT : 0u);
    node = mlz_native_node_of(n, node, 0, (uint64_t)*p, flags);
    cr_assert(node);
  }
  return node;
}

static const char *merged_text(const struct mlz_native *n, uint32_t node, const struct row *r, struct mlz_python_frames python) {
  static char text[64];
  struct mlz_merged out[64];
  bool truncated;
  uint32_t count = mlz_native_merge(n, node, r->bare, python, r->depth, out, &truncated);
  cr_assert_leq(count, r->depth);
  for (uint32_t i = 0; i < count; i++) text[i] = (char)(out[i].node ? n->nodes[out[i].node].address : out[i].word >> 32);
  strcpy(text + count, truncated ? "+" : "");
  return text;
}

Test(native, merging) {
  struct mlz_native *n = mlz_native_new(&(struct mlz_symbols){0});
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    const struct row *r = &table[i];
    uint64_t words[16];
    uint32_t count = 0, idle = 0;
    for (const char *p = r->python; *p; p++) {
      if (*p == 'x')
        words[count - 1] |= MLZ_FRAME_INLINED;
      else if (*p == 'o')
        idle++;
      else
        words[count++] = MLZ_FRAME((unsigned)*p, 8) | (idle ? MLZ_FRAME_IDLE | idle << MLZ_FRAME_IDLE_SHIFT : 0), idle = 0;
    }
    const char *got = merged_text(n, chain(n, r->native, r->cut), r, (struct mlz_python_frames){words, count, r->below});
    cr_assert_str_eq(got, r->merged, "%s: %s", r->name, got);
  }
  mlz_native_free(n);
}

/* Without Python a loop is a frame; a frame that has not begun is no inlined one. */
Test(native, merging_without_python) {
  struct mlz_native *n = mlz_native_new(&(struct mlz_symbols){0});
  struct row r = {.depth = 32};
  cr_assert_str_eq(merged_text(n, chain(n, "m(d", false), &r, (struct mlz_python_frames){0}), "d(m");
  uint64_t words[] = {MLZ_FRAME('A', 0), MLZ_FRAME('B', UINT32_MAX)};
  cr_assert_str_eq(merged_text(n, chain(n, "m(c(d", false), &r, (struct mlz_python_frames){words, 2, false}), "dBcAm");
  r.depth = 1;
  cr_assert_str_eq(merged_text(n, chain(n, "m(", false), &r, (struct mlz_python_frames){0}), "(+");
  mlz_native_free(n);
}

Test(native, equal_nodes_are_one) {
  struct mlz_native *n = mlz_native_new(&(struct mlz_symbols){0});
  uint32_t a = mlz_native_node_of(n, 0, 0, 1, 0);
  cr_assert_eq(mlz_native_node_of(n, 0, 0, 1, 0), a);
  cr_assert_neq(mlz_native_node_of(n, 0, 0, 1, MLZ_N_CUT), a);
  uint32_t at = a;
  for (uint32_t i = 0; i < 100000; i++) at = mlz_native_node_of(n, i % 1000 ? at : a, 0, i, 0);
  cr_assert_eq(n->nodes_n, 100003);
  at = a;
  for (uint32_t i = 0; i < 100000; i++) at = mlz_native_node_of(n, i % 1000 ? at : a, 0, i, 0);
  cr_assert_eq(n->nodes_n, 100003);
  for (at = 0; n->nodes[at].depth < MLZ_NATIVE_DEPTH_MAX;) cr_assert(at = mlz_native_node_of(n, at, 0, 7, 0));
  cr_assert_eq(mlz_native_node_of(n, at, 0, 7, 0), 0, "too deep");
  mlz_native_free(n);
}

/* ---- messages ---- */

static void begin(void) {
  fake_begin(&f);
  fake_domain = MLZ_D_OBJ;
  f.d.native = mlz_native_new(&f.d.symbols);
}
static void module(struct fake_ring *x, uint64_t number, const char *path, const char *build_id) {
  uint8_t data[256];
  struct mlz_module_header h = {0x1000, 0x9000, (uint32_t)strlen(path), (uint32_t)strlen(build_id)};
  memcpy(data, &h, sizeof h);
  memcpy(data + sizeof h, path, h.path_bytes);
  memcpy(data + sizeof h + h.path_bytes, build_id, h.build_id_bytes);
  fake_put(x, mlz_head_word(MLZ_K_MODULE, 0, 0, number), 0x1000);
  fake_put(x, fake_text(x, data, sizeof h + h.path_bytes + h.build_id_bytes), 0);
  fake_publish(x);
}
static void node(struct fake_ring *x, uint64_t caller, unsigned flags, unsigned module_no, uint64_t address) {
  fake_put(x, mlz_head_word(MLZ_K_NATIVE_NODE, flags, 0, caller), mlz_native_word(module_no, address));
  fake_publish(x);
}
static void native(struct fake_ring *x, uint64_t number, unsigned flags) {
  fake_word(x, mlz_head_word(MLZ_K_NATIVE, flags, 0, number));
  fake_publish(x);
}

/* All stacks of the file, in order: frames innermost first, stacks apart by '|'. */
static const char *stacks(struct mlz_trace *t) {
  static char text[4096];
  char *at = text;
  *at = 0;
  for (uint32_t i = 1; i + 1 < mlz_trace_stacks(t); i++) {
    uint32_t n;
    bool truncated;
    const uint32_t *frames = mlz_trace_stack(t, i, &n, &truncated);
    if (i > 1) at += sprintf(at, " |");
    for (uint32_t k = 0; k < n; k++)
      at += sprintf(at, "%s%s", at == text ? "" : " ", mlz_trace_string(t, mlz_trace_frame(t, frames[k]).function));
    if (truncated) at += sprintf(at, " +");
  }
  return text;
}

Test(native, stacks_of_both_kinds) {
  begin();
  struct fake_ring *x = fake_ring(&f, 0, 1), *y = fake_ring(&f, 1, 1);
  fake_code(x, 1, "run", 1, 1);
  fake_code(x, 2, "step", 1, 1);
  module(x, 1, "/lib/libone.so", "\x01\xfe");
  node(x, 0, 0, 1, 0x101);                 /* main */
  node(x, 1, MLZ_N_EVAL, 1, 0x201);        /* loop */
  node(x, 2, 0, 1, 0x301);                 /* leaf */
  node(x, 0, MLZ_N_EXACT, 0, 0x7f0000400); /* in no module, exact */
  native(x, 3, 0);
  fake_event(x, MLZ_K_ALLOC, 0, MLZ_D_OBJ, 10, 1, 0, (uint64_t[]){MLZ_FRAME(1, 2), MLZ_FRAME(2, 2) | MLZ_FRAME_INLINED}, 2);
  fake_alloc(x, 11, 2);                                                    /* unchanged */
  fake_event(x, MLZ_K_ALLOC, MLZ_F_NOSTACK, MLZ_D_OBJ, 12, 3, 0, NULL, 0); /* native alone */
  native(x, 4, 0);
  fake_alloc(x, 13, 4);
  native(x, 3, 0);
  fake_alloc(x, 14, 5); /* as the first */
  native(x, 2, MLZ_N_BARE);
  fake_alloc(x, 15, 6);
  native(x, 0, 0);
  fake_alloc(x, 16, 7);
  mlz_drain_round(&f.d);
  module(y, 9, "/lib/libone.so", "\x01\xfe"); /* another ring, another number: the same stack */
  node(y, 0, 0, 9, 0x101);
  node(y, 1, MLZ_N_EVAL, 9, 0x201);
  node(y, 2, 0, 9, 0x301);
  native(y, 3, 0);
  fake_event(y, MLZ_K_ALLOC, MLZ_F_NOSTACK, MLZ_D_OBJ, 20, 8, 0, NULL, 0);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(stacks(t), "libone.so+0x300 step run libone.so+0x100"
                              " | libone.so+0x300 libone.so+0x200 libone.so+0x100"
                              " | 0x7f0000400 step run"
                              " | libone.so+0x100 step run"
                              " | step run");
  struct mlz_block b;
  uint32_t of[16] = {0};
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  for (uint32_t i = 0; i < b.n; i++)
    if (b.ops[i] == MLZ_OP_ALLOC) of[b.classes[b.classes_of[i]].size] = b.classes[b.classes_of[i]].stack;
  cr_assert(of[1] == 1 && of[2] == 1 && of[3] == 2 && of[4] == 3 && of[5] == 1 && of[6] == 4 && of[7] == 5 && of[8] == 2);
  struct mlz_native_frame frame;
  uint32_t n;
  cr_assert(mlz_trace_native(t, mlz_trace_stack_stored(t, 1, &n)[0], &frame));
  cr_assert(frame.address == 0x300 && !frame.resolved);
  cr_assert_str_eq(frame.path, "/lib/libone.so");
  cr_assert_str_eq(frame.build_id, "01fe");
  mlz_trace_close(t);
}

Test(native, the_ring_begins_again) {
  begin();
  struct fake_ring *x = fake_ring(&f, 0, 1);
  node(x, 0, 0, 0, 0x11);
  native(x, 1, 0);
  fake_alloc(x, 1, 1);
  fake_word(x, mlz_head_word(MLZ_K_NATIVE_RESET, 0, 0, 0));
  fake_alloc(x, 2, 2); /* no native stack */
  node(x, 0, 0, 0, 0x21);
  native(x, 1, 0);
  fake_alloc(x, 3, 3);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(stacks(t), "0x10 | 0x20");
  mlz_trace_close(t);
}

/* A collection has the Python frames: the ring's node is that of an allocation before. */
Test(native, collections) {
  begin();
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_code(x, 1, "run", 1, 1);
  node(x, 0, 0, 0, 0x11);
  native(x, 1, 0);
  fake_event(x, MLZ_K_STACK, 0, 0, 0, 0, 0, (uint64_t[]){MLZ_FRAME(1, 2) | MLZ_FRAME_INLINED}, 1);
  fake_put(x, mlz_head_word(MLZ_K_GC_START, 0, 0, 2), 1);
  fake_put(x, mlz_head_word(MLZ_K_GC_STOP, 0, 0, 2), 2);
  fake_put(x, 0, 0);
  fake_publish(x);
  struct mlz_trace *t = fake_end(&f);
  cr_assert_str_eq(stacks(t), "run");
  struct mlz_block b;
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert(b.n_rares == 1 && b.rares[0].stack == 1);
  mlz_trace_close(t);
}

static void broken_by(void (*send)(struct fake_ring *x)) {
  begin();
  struct fake_ring *x = fake_ring(&f, 0, 1);
  node(x, 0, 0, 0, 0x11);
  fake_alloc(x, 1, 1);
  send(x);
  fake_alloc(x, 2, 2);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  cr_assert_eq(mlz_trace_next(t, MLZ_WANT_ALL, &b), 1);
  cr_assert_eq(b.n, 1, "what follows is not believed");
  mlz_trace_close(t);
}
static void node_above_none(struct fake_ring *x) { node(x, 2, 0, 0, 0x11); }
static void stack_of_none(struct fake_ring *x) { native(x, 2, 0); }
static void stack_far_away(struct fake_ring *x) { native(x, (UINT64_C(1) << 44) - 1, MLZ_N_BARE); }
static void module_zero(struct fake_ring *x) { module(x, 0, "/a", ""); }
static void module_beyond(struct fake_ring *x) { module(x, MLZ_NATIVE_MODULES_MAX + 1, "/a", ""); }
static void module_without_text(struct fake_ring *x) {
  fake_put(x, mlz_head_word(MLZ_K_MODULE, 0, 0, 1), 0);
  fake_put(x, 64, 0);
}
Test(native, hostile_messages) {
  broken_by(node_above_none);
  broken_by(stack_of_none);
  broken_by(stack_far_away);
  broken_by(module_zero);
  broken_by(module_beyond);
  broken_by(module_without_text);
}

/* A module that makes no sense is none; the nodes in it are of no module. */
Test(native, modules_that_make_no_sense) {
  struct mlz_native *n = mlz_native_new(&(struct mlz_symbols){0});
  struct mlz_symbols s;
  cr_assert_eq(mlz_symbols_init(&s, NULL), 0);
  uint8_t data[8192] = {0};
  struct mlz_module_header h = {.path_bytes = 4, .build_id_bytes = 4};
  memcpy(data, &h, sizeof h);
  memcpy(data + sizeof h, "/abc\1\2\3\4", 8);
  cr_assert_eq(mlz_native_module_of(n, &s, 1, data, sizeof h - 1), 0);
  cr_assert_eq(mlz_native_module_of(n, &s, 1, data, sizeof h + 7), 0);
  cr_assert_eq(mlz_native_module_of(n, &s, 1, data, sizeof h + 9), 0);
  cr_assert_eq(mlz_native_module_of(n, &s, 1, data, sizeof h + 8), 1);
  cr_assert_eq(mlz_native_module_of(n, &s, 2, data, sizeof h + 8), 1);
  data[sizeof h + 2] = 0;
  cr_assert_eq(mlz_native_module_of(n, &s, 1, data, sizeof h + 8), 0);
  h.path_bytes = 5000;
  memcpy(data, &h, sizeof h);
  memset(data + sizeof h, 'a', 5004);
  cr_assert_eq(mlz_native_module_of(n, &s, 1, data, sizeof h + 5004), 0);
  mlz_symbols_deinit(&s);
  mlz_native_free(n);
}

/* Without --native such a message is none. */
Test(native, not_asked_for) {
  fake_begin(&f);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  node(x, 0, 0, 0, 1);
  fake_alloc(x, 1, 1);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.total.broken, 1);
  mlz_trace_close(fake_end(&f));
}
