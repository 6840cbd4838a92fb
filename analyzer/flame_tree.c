#include "analyzer/flame.h"

#include "analyzer/text.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t hash) {
  hash *= UINT64_C(0x9e3779b97f4a7c15);
  return hash ^ hash >> 31;
}

static uint64_t hash_text(uint64_t hash, const char *text) {
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
  return mix(hash);
}

static uint64_t hash_key(const struct mlz_flame_key *k) {
  return mix(hash_text(hash_text(UINT64_C(0xcbf29ce484222325), k->place.function), k->place.file) ^ (uint64_t)k->place.line << 3 ^ k->kind);
}

static bool same_key(const struct mlz_flame_key *a, const struct mlz_flame_key *b) {
  return a->kind == b->kind && a->place.line == b->place.line && !strcmp(a->place.function, b->place.function) &&
         !strcmp(a->place.file, b->place.file);
}

static void grow_keys(struct mlz_flame *f) {
  free(f->key_table);
  f->key_table_size = f->key_table_size ? f->key_table_size * 2 : 256;
  f->key_table = mlz_text_calloc(f->key_table_size, sizeof *f->key_table);
  for (size_t i = 0; i < f->n_keys; i++) {
    uint64_t at = hash_key(&f->keys[i]);
    while (f->key_table[at & (f->key_table_size - 1)]) at++;
    f->key_table[at & (f->key_table_size - 1)] = (uint32_t)i + 1;
  }
}

static uint32_t key_for(struct mlz_flame *f, const struct mlz_flame_key *key) {
  if ((f->n_keys + 1) * 2 > f->key_table_size) grow_keys(f);
  uint64_t at = hash_key(key);
  for (;; at++) {
    uint32_t found = f->key_table[at & (f->key_table_size - 1)];
    if (!found) break;
    if (same_key(&f->keys[found - 1], key)) return found - 1;
  }
  if (f->n_keys == f->room_keys) {
    f->room_keys = f->room_keys ? f->room_keys * 2 : 128;
    f->keys = mlz_text_realloc(f->keys, f->room_keys, sizeof *f->keys);
  }
  f->keys[f->n_keys++] = *key;
  f->key_table[at & (f->key_table_size - 1)] = (uint32_t)f->n_keys;
  return (uint32_t)f->n_keys - 1;
}

static uint64_t hash_node(uint32_t parent, uint32_t key) { return mix((uint64_t)parent << 32 | key); }

static void grow_nodes(struct mlz_flame *f) {
  free(f->node_table);
  f->node_table_size = f->node_table_size ? f->node_table_size * 2 : 1024;
  f->node_table = mlz_text_calloc(f->node_table_size, sizeof *f->node_table);
  for (size_t i = 1; i < f->n_nodes; i++) {
    uint64_t at = hash_node(f->nodes[i].parent, f->nodes[i].key);
    while (f->node_table[at & (f->node_table_size - 1)]) at++;
    f->node_table[at & (f->node_table_size - 1)] = (uint32_t)i + 1;
  }
}

static uint32_t new_node(struct mlz_flame *f, uint32_t parent, uint32_t key) {
  if (f->n_nodes == f->room_nodes) {
    f->room_nodes = f->room_nodes ? f->room_nodes * 2 : 512;
    f->nodes = mlz_text_realloc(f->nodes, f->room_nodes, sizeof *f->nodes);
  }
  uint32_t depth = f->n_nodes ? f->nodes[parent].depth + 1 : 0;
  f->nodes[f->n_nodes] = (struct mlz_flame_node){.key = key, .parent = parent, .depth = depth};
  return (uint32_t)f->n_nodes++;
}

static uint32_t child_for(struct mlz_flame *f, uint32_t parent, uint32_t key) {
  if ((f->n_nodes + 1) * 2 > f->node_table_size) grow_nodes(f);
  uint64_t at = hash_node(parent, key);
  for (;; at++) {
    uint32_t found = f->node_table[at & (f->node_table_size - 1)];
    if (!found) break;
    if (f->nodes[found - 1].parent == parent && f->nodes[found - 1].key == key) return found - 1;
  }
  uint32_t node = new_node(f, parent, key);
  f->node_table[at & (f->node_table_size - 1)] = node + 1;
  f->nodes[parent].n_children++;
  return node;
}

void mlz_flame_begin(struct mlz_flame *f, bool reversed) {
  *f = (struct mlz_flame){.reversed = reversed};
  struct mlz_flame_key root = {{"all", "", "", 0, MLZ_LANG_PYTHON}, MLZ_FLAME_ROOT};
  new_node(f, 0, key_for(f, &root));
}

static uint32_t step(struct mlz_flame *f, uint32_t node, const struct mlz_flame_key *key, double value, double count) {
  node = child_for(f, node, key_for(f, key));
  f->nodes[node].value += value;
  f->nodes[node].count += count;
  return node;
}

/* A stack as keys, from where the tree begins. */
struct path {
  const struct mlz_input *in;
  const struct mlz_match *match; /* NULL: one trace */
  enum mlz_side side;
  uint32_t stack;
};

static struct mlz_flame_key key_of(const struct path *p, uint32_t frame, bool leaf) {
  if (!p->match) {
    struct mlz_flame_key key = {mlz_place_of_frame(p->in, frame), leaf ? MLZ_FLAME_LEAF : MLZ_FLAME_FRAME};
    if (!leaf) key.place.line = 0;
    return key;
  }
  uint32_t index = mlz_match_of(p->match, p->side, frame);
  if (leaf) return (struct mlz_flame_key){mlz_match_place(p->match, index), MLZ_FLAME_LEAF};
  return (struct mlz_flame_key){mlz_match_function_place(p->match, index), MLZ_FLAME_FRAME};
}

/* The node in which the stack ends. */
static uint32_t walk(struct mlz_flame *f, const struct path *p, double value, double count) {
  static const struct mlz_flame_key cut = {{"(outer frames not recorded)", "", "", 0, MLZ_LANG_PYTHON}, MLZ_FLAME_CUT};
  static const struct mlz_flame_key none = {{"(no stack)", "", "", 0, MLZ_LANG_NATIVE}, MLZ_FLAME_NONE};
  uint32_t n = 0, node = 0;
  bool truncated = false;
  const uint32_t *frames = mlz_trace_stack(p->in->trace, p->stack, &n, &truncated);
  f->nodes[0].value += value;
  f->nodes[0].count += count;
  for (uint32_t i = f->root ? n : 0; i-- > 0;) {
    struct mlz_place place = mlz_place_of_frame(p->in, frames[i]);
    if (!mlz_select_place(f->root, &place)) continue;
    n = i + 1;
    truncated = false;
    break;
  }
  if (!n) return step(f, node, &none, value, count);
  if (truncated && !f->reversed) node = step(f, node, &cut, value, count);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t at = f->reversed ? i : n - 1 - i;
    struct mlz_flame_key key = key_of(p, frames[at], !at);
    node = step(f, node, &key, value, count);
  }
  if (truncated && f->reversed) node = step(f, node, &cut, value, count);
  return node;
}

void mlz_flame_add(struct mlz_flame *f, const struct mlz_input *in, uint32_t stack, double value, double count) {
  walk(f, &(struct path){.in = in, .stack = stack}, value, count);
}

void mlz_flame_add_side(struct mlz_flame *f, const struct mlz_match *match, enum mlz_side side, uint32_t stack, double value) {
  uint32_t node = walk(f, &(struct path){match->in[side], match, side, stack}, 0, 0);
  f->nodes[node].own[side] += value;
}

/* Parents have lower numbers than their children. */
void mlz_flame_compare(struct mlz_flame *f) {
  for (size_t i = f->n_nodes; i-- > 0;) {
    struct mlz_flame_node *node = &f->nodes[i], *parent = &f->nodes[node->parent];
    node->before += node->own[MLZ_BEFORE];
    node->after += node->own[MLZ_AFTER];
    node->value += node->own[MLZ_BEFORE] > node->own[MLZ_AFTER] ? node->own[MLZ_BEFORE] : node->own[MLZ_AFTER];
    if (!i) break;
    parent->before += node->before;
    parent->after += node->after;
    parent->value += node->value;
  }
}

/* ---- layout ---- */

static const struct mlz_flame *sorting;

static int compare_nodes(const void *a, const void *b) {
  const struct mlz_flame_node *x = &sorting->nodes[*(const uint32_t *)a], *y = &sorting->nodes[*(const uint32_t *)b];
  if (x->depth != y->depth) return x->depth < y->depth ? -1 : 1;
  if (x->parent != y->parent) return x->parent < y->parent ? -1 : 1;
  if (x->value != y->value) return x->value > y->value ? -1 : 1;
  return strcmp(sorting->keys[x->key].place.function, sorting->keys[y->key].place.function);
}

/* Level by level: a level's nodes are sorted by where their parents stand. Sorting by the parent's old number is enough, since the parents' new
 * places are written before their children are placed. */
void mlz_flame_layout(struct mlz_flame *f, double least) {
  uint32_t *order = mlz_text_calloc(f->n_nodes, sizeof *order);
  double *next = mlz_text_calloc(f->n_nodes, sizeof *next); /* by old number: where its next child begins */
  uint32_t *place = mlz_text_calloc(f->n_nodes, sizeof *place);
  struct mlz_flame_node *kept = mlz_text_calloc(f->n_nodes, sizeof *kept);
  size_t n = 0;
  for (uint32_t i = 0; i < f->n_nodes; i++) order[i] = i;
  sorting = f;
  qsort(order, f->n_nodes, sizeof *order, compare_nodes);
  f->depth = 0;
  for (size_t i = 0; i < f->n_nodes; i++) {
    uint32_t old = order[i];
    struct mlz_flame_node *node = &f->nodes[old];
    bool dropped = old && place[node->parent] == UINT32_MAX;
    node->x = old ? next[node->parent] : 0;
    next[old] = node->x;
    if (old) next[node->parent] += node->value;
    if (dropped || node->value < least * f->nodes[0].value || !(node->value > 0)) {
      place[old] = UINT32_MAX;
      if (!old) place[old] = 0;
      if (old) continue;
    }
    place[old] = (uint32_t)n;
    kept[n] = *node;
    kept[n].parent = old ? place[node->parent] : 0;
    if (node->depth > f->depth) f->depth = node->depth;
    n++;
  }
  free(order);
  free(next);
  free(place);
  free(f->nodes);
  free(f->node_table);
  f->node_table = NULL;
  f->node_table_size = 0;
  f->nodes = kept;
  f->n_nodes = n;
}

void mlz_flame_clear(struct mlz_flame *f) {
  free(f->nodes);
  free(f->keys);
  free(f->node_table);
  free(f->key_table);
  *f = (struct mlz_flame){0};
}
