#include "tracer/recorder/native.h"

#include "tracer/recorder/frames.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODES_MAX (UINT32_C(1) << 27)      /* of a session: 4 GiB; bits of a pair's key */
#define RING_NODES_MAX (UINT32_C(1) << 24) /* the agent begins again long before */
#define FILES_MAX 200u                     /* modules that are held open, below the usual limit of 1024 descriptors */
#define PATH_BYTES_MAX 4096u
#define BUILD_ID_MAX 64u

struct mlz_native *mlz_native_new(struct mlz_symbols *s) {
  struct mlz_native *n = calloc(1, sizeof *n);
  if (!n) return NULL;
  s->marked = true;
  n->modules_room = 64;
  n->nodes_room = 4096;
  n->node_mask = 2 * n->nodes_room - 1;
  n->pairs_mask = 4095;
  n->modules = calloc(n->modules_room, sizeof *n->modules);
  n->nodes = calloc(n->nodes_room, sizeof *n->nodes);
  n->node_slots = calloc(n->node_mask + 1, sizeof *n->node_slots);
  n->recent = calloc(MLZ_PAIRS_RECENT, sizeof *n->recent);
  n->pairs = calloc(n->pairs_mask + 1, sizeof *n->pairs);
  n->modules_n = n->nodes_n = 1;
  if (n->modules && n->nodes && n->node_slots && n->recent && n->pairs) return n;
  return mlz_native_free(n);
}

struct mlz_native *mlz_native_free(struct mlz_native *n) {
  if (!n) return NULL;
  for (uint32_t i = 1; n->modules && i < n->modules_n; i++) {
    if (n->modules[i].file >= 0) close(n->modules[i].file);
  }
  mlz_intern_deinit(&n->module_ids);
  free(n->modules);
  free(n->nodes);
  free(n->node_slots);
  free(n->named);
  free(n->recent);
  free(n->pairs);
  free(n);
  return NULL;
}

/* ---- modules ---- */

/* It may be replaced or deleted, and the program may see another root than we do. */
int mlz_native_open_file(uint32_t pid, const char *path) {
  char name[PATH_BYTES_MAX + 64], link[64];
  snprintf(name, sizeof name, "/proc/%u/root%s", pid, path);
  int at = pid ? open(name, O_PATH | O_CLOEXEC) : -1;
  struct stat st;
  if (at < 0) at = open(path, O_PATH | O_CLOEXEC);
  if (at < 0) return -1;
  snprintf(link, sizeof link, "/proc/self/fd/%d", at);
  int file = fstat(at, &st) == 0 && S_ISREG(st.st_mode) ? open(link, O_RDONLY | O_CLOEXEC) : -1;
  close(at);
  return file;
}

uint32_t mlz_native_module_of(struct mlz_native *n, struct mlz_symbols *s, uint32_t pid, const uint8_t *data, size_t bytes) {
  struct mlz_module_header h;
  uint8_t key[PATH_BYTES_MAX + BUILD_ID_MAX + 8];
  if (bytes < sizeof h) return 0;
  memcpy(&h, data, sizeof h);
  if ((uint64_t)h.path_bytes + h.build_id_bytes != bytes - sizeof h || h.path_bytes > PATH_BYTES_MAX || h.build_id_bytes > BUILD_ID_MAX)
    return 0;
  const uint8_t *path = data + sizeof h, *build_id = path + h.path_bytes;
  if (memchr(path, 0, h.path_bytes)) return 0;
  /* build id | its length | path | NUL: the table's copy serves as both texts */
  memcpy(key, build_id, h.build_id_bytes);
  key[h.build_id_bytes] = (uint8_t)h.build_id_bytes;
  memcpy(key + h.build_id_bytes + 1, path, h.path_bytes);
  key[h.build_id_bytes + 1 + h.path_bytes] = 0;
  bool added;
  const void *copy;
  uint32_t *id = mlz_intern_get(&n->module_ids, key, h.build_id_bytes + 2 + h.path_bytes, &added, &copy);
  if (!id || !added) return id ? *id : 0;
  if (n->modules_n == n->modules_room) {
    struct mlz_module *grown = reallocarray(n->modules, (size_t)n->modules_room * 2, sizeof *grown);
    if (!grown) return 0;
    n->modules = grown;
    n->modules_room *= 2;
  }
  char hex[2 * BUILD_ID_MAX + 1] = "";
  for (unsigned i = 0; i < h.build_id_bytes; i++) snprintf(hex + 2 * i, 3, "%02x", build_id[i]);
  struct mlz_module *m = &n->modules[n->modules_n];
  *m = (struct mlz_module){
      .build_id = copy, .build_id_bytes = h.build_id_bytes, .path = (const char *)copy + h.build_id_bytes + 1, .file = -1};
  if (n->files_open < FILES_MAX && m->path[0] == '/') m->file = mlz_native_open_file(pid, m->path);
  n->files_open += m->file >= 0;
  uint32_t path_id = mlz_symbols_string(s, m->path, h.path_bytes), hex_id = mlz_symbols_string(s, hex, 2 * h.build_id_bytes);
  m->row = s->writer ? mlz_writer_module(s->writer, path_id, hex_id) : n->modules_n;
  return *id = n->modules_n++;
}

/* ---- nodes ---- */

static uint32_t node_hash(uint32_t caller, uint32_t module, uint64_t address, unsigned flags) {
  uint64_t h = (address ^ (uint64_t)module << 48 ^ (uint64_t)flags << 40) * UINT64_C(0x9e3779b97f4a7c15);
  h = (h ^ h >> 29 ^ caller) * UINT64_C(0xbf58476d1ce4e5b9);
  return (uint32_t)(h >> 32);
}

static bool nodes_reserve(struct mlz_native *n) {
  if (n->nodes_n < n->nodes_room) return true;
  if (n->nodes_room >= NODES_MAX) return false;
  uint32_t room = n->nodes_room * 2, mask = 2 * room - 1;
  struct mlz_node *grown = reallocarray(n->nodes, room, sizeof *grown);
  if (grown) n->nodes = grown;
  uint32_t *slots = calloc((size_t)mask + 1, sizeof *slots);
  if (!grown || !slots) {
    free(slots);
    return false;
  }
  for (uint32_t i = 1; i < n->nodes_n; i++) {
    const struct mlz_node *x = &grown[i];
    uint32_t at = node_hash(x->caller, x->module, x->address, x->flags);
    while (slots[at & mask]) at++;
    slots[at & mask] = i;
  }
  free(n->node_slots);
  n->node_slots = slots;
  n->node_mask = mask;
  n->nodes_room = room;
  return true;
}

uint32_t mlz_native_node_of(struct mlz_native *n, uint32_t caller, uint32_t module, uint64_t address, unsigned flags) {
  if (n->nodes[caller].depth >= MLZ_NATIVE_DEPTH_MAX) return 0;
  uint32_t at = node_hash(caller, module, address, flags);
  for (uint32_t i; (i = n->node_slots[at & n->node_mask]); at++) {
    const struct mlz_node *x = &n->nodes[i];
    if (x->address == address && x->caller == caller && x->module == module && x->flags == flags) return i;
  }
  if (n->nodes_n == n->nodes_room) {
    if (!nodes_reserve(n)) return 0;
    at = node_hash(caller, module, address, flags);
    while (n->node_slots[at & n->node_mask]) at++;
  }
  n->node_slots[at & n->node_mask] = n->nodes_n;
  n->nodes[n->nodes_n] = (struct mlz_node){
      .address = address, .module = module, .caller = caller, .depth = (uint16_t)(n->nodes[caller].depth + 1), .flags = (uint8_t)flags};
  return n->nodes_n++;
}

/* ---- messages ---- */

bool mlz_native_take_module(struct mlz_drain *d, struct mlz_feed *f, uint64_t value, const uint8_t *data, size_t bytes) {
  if (!d->native || value == 0 || value > MLZ_NATIVE_MODULES_MAX) return false;
  uint32_t number = (uint32_t)value;
  if (number >= f->modules_n) {
    uint32_t size = f->modules_n ? f->modules_n : 32;
    while (size <= number) size *= 2;
    uint32_t *grown = reallocarray(f->modules, size, sizeof *grown);
    if (!grown) return true; /* not known, then */
    memset(grown + f->modules_n, 0, (size - f->modules_n) * sizeof *grown);
    f->modules = grown;
    f->modules_n = size;
  }
  f->modules[number] = mlz_native_module_of(d->native, &d->symbols, f->image->pid, data, bytes);
  return true;
}

bool mlz_native_take_node(struct mlz_drain *d, struct mlz_feed *f, uint64_t caller, unsigned flags, uint64_t word) {
  if (!d->native || caller > f->nodes_n || f->nodes_n >= RING_NODES_MAX) return false;
  if (f->nodes_n + 1 >= f->nodes_size) {
    uint32_t size = f->nodes_size ? f->nodes_size * 2 : 256;
    uint32_t *grown = reallocarray(f->nodes, size, sizeof *grown);
    if (!grown) return false;
    f->nodes = grown;
    f->nodes_size = size;
    grown[0] = 0;
  }
  unsigned number = mlz_native_module(word);
  uint32_t module = number < f->modules_n ? f->modules[number] : 0, above = f->nodes[caller];
  uint64_t address = mlz_native_offset(word);
  flags &= MLZ_N_EXACT | MLZ_N_CUT | MLZ_N_EVAL;
  if (caller) flags &= ~(unsigned)MLZ_N_CUT;
  if (!(flags & MLZ_N_EXACT) && address) address--; /* onto the call */
  if (caller && !above) {                           /* it has no number: memory was out */
    flags |= MLZ_N_CUT;
  } else if (d->native->nodes[above].depth >= MLZ_NATIVE_DEPTH_MAX) {
    return false;
  }
  f->nodes[++f->nodes_n] = mlz_native_node_of(d->native, above, module, address, flags);
  return true;
}

void mlz_native_reset(struct mlz_feed *f) {
  f->nodes_n = f->native = f->stack = f->alone = 0;
  f->bare = 0;
}

void mlz_native_forget(struct mlz_feed *f) {
  free(f->nodes);
  free(f->modules);
  f->nodes = f->modules = NULL;
}

/* ---- merging ---- */

struct merge {
  struct mlz_python_frames python; /* count: those left */
  struct mlz_merged *out;
  uint32_t n, depth;
};

/* The innermost Python frame that is left. */
static uint64_t put_python(struct merge *m) {
  uint64_t word = m->python.words[--m->python.count];
  m->out[m->n++] = (struct mlz_merged){.word = word};
  return word;
}

uint32_t mlz_native_merge(const struct mlz_native *n, uint32_t node, uint32_t bare, struct mlz_python_frames python, uint32_t depth,
                          struct mlz_merged *out, bool *truncated) {
  struct merge m = {.python = python, .out = out, .depth = depth};
  bool alone = !python.words, cut = false;
  if (alone) m.python.count = 0;
  for (; node && m.n < depth; node = n->nodes[node].caller) {
    const struct mlz_node *x = &n->nodes[node];
    cut = x->flags & MLZ_N_CUT;
    if (!(x->flags & MLZ_N_EVAL) || alone) {
      m.out[m.n++] = (struct mlz_merged){.node = node};
    } else if (bare) {
      bare--;
    } else {
      uint64_t last = 0;
      while (m.python.count && m.n < depth && mlz_frame_inlined(last = put_python(&m))) {}
      bare = mlz_frame_idle(last);
    }
  }
  if (!node) { /* what no loop was found for: the native frames were cut */
    while (m.python.count && m.n < depth) put_python(&m);
  }
  bool left = m.python.count || (!alone && python.below);
  for (; node && !left; node = n->nodes[node].caller) { /* loops that run nothing more are no frames */
    cut = n->nodes[node].flags & MLZ_N_CUT;
    left = alone || !(n->nodes[node].flags & MLZ_N_EVAL);
  }
  *truncated = left || cut;
  return m.n;
}

static uint32_t frame_of(struct mlz_drain *d, uint32_t node) {
  struct mlz_native *n = d->native;
  struct mlz_node *x = &n->nodes[node];
  if (x->frame) return x->frame;
  bool added;
  struct mlz_frame f = mlz_frame_at(x->module ? n->modules[x->module].row : 0, x->address);
  x->frame = mlz_symbols_frame_id(&d->symbols, &f, &added);
  if (!added || !x->module) return x->frame;
  if (n->named_n == n->named_room) {
    uint32_t room = n->named_room ? n->named_room * 2 : 1024;
    struct mlz_named *grown = reallocarray(n->named, room, sizeof *grown);
    if (!grown) return x->frame; /* nobody will ask for its name */
    n->named = grown;
    n->named_room = room;
  }
  n->named[n->named_n++] = (struct mlz_named){.frame = x->frame, .module = x->module, .address = x->address};
  return x->frame;
}

/* Does each loop run frames, and has each frame its loop? Asked where both sides are whole and known to be true. */
static bool uneven(const struct mlz_native *n, uint32_t node, uint32_t bare, struct mlz_python_frames python, uint32_t depth) {
  uint32_t loops = 0, running = 0;
  if (!python.words || python.below || !node || n->nodes[node].depth > depth) return false;
  for (; node; node = n->nodes[node].caller) {
    if (n->nodes[node].flags & MLZ_N_CUT) return false;
    loops += (n->nodes[node].flags & MLZ_N_EVAL) != 0;
  }
  for (uint32_t i = 0; i < python.count; i++) running += mlz_frame_inlined(python.words[i]) ? 0 : 1 + mlz_frame_idle(python.words[i]);
  return loops != running + bare;
}

static uint32_t merged_stack(struct mlz_drain *d, const struct mlz_feed *f, uint32_t node, uint32_t bare, struct mlz_python_frames python) {
  struct mlz_merged merged[MLZ_STACK_DEPTH_MAX];
  uint32_t frames[MLZ_STACK_DEPTH_MAX];
  bool truncated;
  uint32_t n = mlz_native_merge(d->native, node, bare, python, f->depth, merged, &truncated);
  d->native->uneven += uneven(d->native, node, bare, python, f->depth);
  if (n == 0) return 0;
  for (uint32_t i = 0; i < n; i++)
    frames[i] = merged[i].node ? frame_of(d, merged[i].node) : mlz_symbols_frame(&d->symbols, merged[i].word);
  return mlz_symbols_stack_id(&d->symbols, frames, n, truncated);
}

/* The innermost Python frames, as many as a stack may have. */
static struct mlz_python_frames python_of(const struct mlz_feed *f) {
  uint32_t count = f->count < f->depth ? f->count : f->depth;
  static const uint64_t none;
  return (struct mlz_python_frames){
      .words = f->words ? f->words + f->count - count : &none, .count = count, .below = f->below || f->count > count};
}

/* ---- pairs ---- */

static struct mlz_pair *pair_at(struct mlz_pair *pairs, uint32_t mask, uint64_t key) {
  uint32_t at = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32);
  while (pairs[at & mask].key && pairs[at & mask].key != key) at++;
  return &pairs[at & mask];
}

static void pair_add(struct mlz_native *n, uint64_t key, uint32_t stack) {
  if ((n->pairs_n + 1) * 2 > n->pairs_mask) {
    uint32_t mask = n->pairs_mask * 2 + 1;
    struct mlz_pair *grown = n->pairs_mask < UINT32_C(1) << 30 ? calloc((size_t)mask + 1, sizeof *grown) : NULL;
    if (!grown) return; /* merged again each time */
    for (uint32_t i = 0; i <= n->pairs_mask; i++) {
      if (n->pairs[i].key) *pair_at(grown, mask, n->pairs[i].key) = n->pairs[i];
    }
    free(n->pairs);
    n->pairs = grown;
    n->pairs_mask = mask;
  }
  struct mlz_pair *p = pair_at(n->pairs, n->pairs_mask, key);
  n->pairs_n += p->key == 0;
  *p = (struct mlz_pair){.key = key, .stack = stack};
}

static uint32_t stack_of(struct mlz_drain *d, const struct mlz_feed *f, uint32_t window, bool python) {
  struct mlz_native *n = d->native;
  uint64_t key = (uint64_t)(f->native | f->bare << 27) << 32 | window;
  struct mlz_pair *recent = &n->recent[key * UINT64_C(0x9e3779b97f4a7c15) >> 52];
  _Static_assert(MLZ_PAIRS_RECENT == 1u << (64 - 52), "the hash's bits");
  if (recent->key == key) return recent->stack;
  const struct mlz_pair *p = pair_at(n->pairs, n->pairs_mask, key);
  uint32_t stack = p->stack;
  if (p->key != key) {
    struct mlz_python_frames frames = python ? python_of(f) : (struct mlz_python_frames){0};
    bool kept = mlz_symbols_kept(&d->symbols, frames.words, frames.count);
    stack = kept ? merged_stack(d, f, f->native, f->bare, frames) : MLZ_STACK_FILTERED;
    if (!window) return stack; /* it has no number */
    pair_add(n, key, stack);
  }
  *recent = (struct mlz_pair){.key = key, .stack = stack};
  return stack;
}

uint32_t mlz_native_stack(struct mlz_drain *d, struct mlz_feed *f) {
  if (f->stale) mlz_frames_enter(d, f);
  uint32_t window = f->count ? f->windows[f->count - 1] : mlz_paths_root(f->depth, f->below);
  return f->stack = stack_of(d, f, window, true);
}

#define NO_PYTHON (UINT32_C(1) << 30) /* beside MLZ_PATH_ROOT: of an event without a Python stack */

uint32_t mlz_native_alone(struct mlz_drain *d, struct mlz_feed *f) {
  return f->alone ? f->alone : (f->alone = stack_of(d, f, mlz_paths_root(f->depth, false) | NO_PYTHON, false));
}

uint32_t mlz_native_python_stack(struct mlz_drain *d, const struct mlz_feed *f) { return merged_stack(d, f, 0, 0, python_of(f)); }
