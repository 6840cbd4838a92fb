#include "tracer/recorder/symbols.h"

#include "tracer/recorder/linetable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define CODE_ID_MAX (UINT32_C(1) << 30) /* 4 GiB of table: beyond it a code stays unknown */

struct mlz_content {
  uint32_t function, file, module; /* string ids */
  int32_t first_line;
  unsigned matches; /* bits of enum mlz_filter_match */
  uint32_t lines_format, lines_bytes;
  const uint8_t *lines; /* in the bodies' storage */
  struct mlz_line_cursor cursor;
};

struct piece {
  struct piece *next;
  uint32_t frames[];
};

uint32_t mlz_symbols_string(struct mlz_symbols *s, const char *utf8, size_t bytes) {
  bool added;
  uint32_t *id = mlz_intern_get(&s->strings, utf8, bytes, &added, NULL);
  if (!id) return 0;
  if (added) *id = s->writer ? mlz_writer_string(s->writer, utf8, bytes) : ++s->strings_used;
  return *id;
}

int mlz_symbols_init(struct mlz_symbols *s, struct mlz_writer *writer) {
  *s = (struct mlz_symbols){.writer = writer};
  bool added;
  uint32_t *empty = mlz_intern_get(&s->strings, "", 0, &added, NULL); /* string 0 is "" in every file */
  s->contents = calloc(64, sizeof *s->contents);
  s->windows_capacity = 4096;
  s->windows = calloc(s->windows_capacity, sizeof *s->windows);
  s->stack_of_size = 4096;
  s->stack_of = calloc(s->stack_of_size, sizeof *s->stack_of);
  s->recent = calloc(MLZ_RECENT_FRAMES, sizeof *s->recent);
  bool paths = mlz_paths_init(&s->paths);
  if (!empty || !s->contents || !s->windows || !s->stack_of || !s->recent || !paths) {
    mlz_symbols_deinit(s);
    return -ENOMEM;
  }
  s->contents_size = 64;
  s->contents_used = 1;
  s->contents[0] = (struct mlz_content){.function = mlz_symbols_string(s, "<unknown>", 9)};
  return 0;
}

void mlz_symbols_set_filter(struct mlz_symbols *s, const struct mlz_filter *filter) {
  if (!mlz_filter_any(filter)) return;
  s->filter = filter;
  s->no_stack = mlz_filter_keeps(filter, 0, 0) ? 0 : MLZ_STACK_FILTERED;
}

void mlz_symbols_deinit(struct mlz_symbols *s) {
  mlz_intern_deinit(&s->strings);
  mlz_intern_deinit(&s->frames);
  mlz_intern_deinit(&s->stacks);
  mlz_intern_deinit(&s->bodies);
  mlz_intern_deinit(&s->places);
  free(s->content_of);
  free(s->contents);
  free(s->windows);
  free(s->stack_of);
  free(s->recent);
  mlz_paths_deinit(&s->paths);
  for (struct piece *p = s->pieces, *next; p; p = next) {
    next = p->next;
    free(p);
  }
  *s = (struct mlz_symbols){0};
}

/* ---- code ---- */

static int content_add(struct mlz_symbols *s, const uint8_t *data, size_t bytes, uint32_t *id) {
  struct mlz_code_header h;
  if (bytes < sizeof h) return -EINVAL;
  memcpy(&h, data, sizeof h);
  if ((uint64_t)h.file_bytes + h.name_bytes + h.module_bytes + h.lines_bytes != bytes - sizeof h) return -EINVAL;
  if (s->contents_used == s->contents_size) {
    struct mlz_content *grown = reallocarray(s->contents, s->contents_size * 2, sizeof *grown);
    if (!grown) return -ENOMEM;
    s->contents = grown;
    s->contents_size *= 2;
  }
  const char *file = (const char *)data + sizeof h, *name = file + h.file_bytes, *module = name + h.name_bytes;
  *id = s->contents_used++;
  s->contents[*id] = (struct mlz_content){
      .function = mlz_symbols_string(s, name, h.name_bytes),
      .file = mlz_symbols_string(s, file, h.file_bytes),
      .module = mlz_symbols_string(s, module, h.module_bytes),
      .first_line = h.first_line,
      .matches = mlz_filter_code(s->filter, module, h.module_bytes, name, h.name_bytes),
      .lines_format = h.lines_format,
      .lines_bytes = h.lines_bytes,
      .lines = (const uint8_t *)module + h.module_bytes,
  };
  return 0;
}

int mlz_symbols_code(struct mlz_symbols *s, uint32_t id, const uint8_t *data, size_t bytes) {
  if (id == 0 || id >= CODE_ID_MAX) return -EINVAL;
  if (mlz_symbols_content(s, id)) return 0;
  if (id >= s->content_of_size) {
    uint32_t size = s->content_of_size ? s->content_of_size : 1024;
    while (size <= id) size *= 2;
    uint32_t *grown = reallocarray(s->content_of, size, sizeof *grown);
    if (!grown) return -ENOMEM;
    memset(grown + s->content_of_size, 0, (size - s->content_of_size) * sizeof *grown);
    s->content_of = grown;
    s->content_of_size = size;
  }
  if (bytes < sizeof(struct mlz_code_header)) return -EINVAL;
  bool added;
  const void *copy;
  uint32_t *content = mlz_intern_get(&s->bodies, data, bytes, &added, &copy);
  if (!content) return -ENOMEM;
  if (added) {
    int r = content_add(s, copy, bytes, content);
    if (r < 0) return r; /* its content id stays 0: unknown */
  }
  s->content_of[id] = *content;
  return 0;
}

/* ---- frames ---- */

static uint32_t frame_resolve(struct mlz_symbols *s, uint64_t word) {
  bool added;
  uint32_t *place = mlz_intern_get(&s->places, &word, sizeof word, &added, NULL);
  if (!place) return 0;
  if (!added) return *place;
  word = mlz_frame_unmarked(word);
  uint32_t id = (uint32_t)(word >> 32);
  struct mlz_content *c = &s->contents[id < s->contents_used ? id : 0];
  struct mlz_frame f = {.function = c->function, .file = c->file, .module = c->module, .language = MLZ_LANG_PYTHON};
  if (c->lines) f.line = mlz_linetable_line(c->lines_format, c->lines, c->lines_bytes, c->first_line, (int32_t)(uint32_t)word, &c->cursor);
  return *place = mlz_symbols_frame_id(s, &f, &added);
}

uint32_t mlz_symbols_frame_id(struct mlz_symbols *s, const struct mlz_frame *f, bool *added) {
  uint32_t *frame = mlz_intern_get(&s->frames, f, sizeof *f, added, NULL);
  if (!frame) *added = false;
  if (*added) *frame = s->writer ? mlz_writer_frame(s->writer, f) : ++s->frames_used;
  return frame ? *frame : 0;
}

uint32_t mlz_symbols_frame(struct mlz_symbols *s, uint64_t word) {
  struct mlz_recent_frame *recent = &s->recent[word * UINT64_C(0x9e3779b97f4a7c15) >> 54];
  _Static_assert(MLZ_RECENT_FRAMES == 1u << (64 - 54), "the hash's bits");
  if (recent->frame == 0 || recent->word != word) *recent = (struct mlz_recent_frame){.word = word, .frame = frame_resolve(s, word)};
  return recent->frame;
}

/* ---- stacks ---- */

static uint32_t *frames_take(struct mlz_symbols *s, uint32_t n) {
  if (s->piece_size - s->piece_used < n) {
    size_t size = 32768;
    struct piece *p = malloc(sizeof *p + size * sizeof p->frames[0]);
    if (!p) return NULL;
    p->next = s->pieces;
    s->pieces = p;
    s->piece = p->frames;
    s->piece_size = size;
    s->piece_used = 0;
  }
  s->piece_used += n;
  return s->piece + s->piece_used - n;
}

/* Room for one window more. */
static bool windows_reserve(struct mlz_symbols *s) {
  if (s->windows_count + 1 >= s->stack_of_size) {
    uint32_t *grown = s->stack_of_size < UINT32_C(1) << 30 ? reallocarray(s->stack_of, (size_t)s->stack_of_size * 2, sizeof *grown) : NULL;
    if (!grown) return false;
    memset(grown + s->stack_of_size, 0, s->stack_of_size * sizeof *grown);
    s->stack_of = grown;
    s->stack_of_size *= 2;
  }
  if ((s->windows_count + 1) * 2 <= s->windows_capacity) return true;
  size_t capacity = s->windows_capacity * 2;
  struct mlz_window_slot *grown = calloc(capacity, sizeof *grown);
  if (!grown) return false;
  for (size_t i = 0; i < s->windows_capacity; i++) {
    if (!s->windows[i].hash) continue;
    size_t at = s->windows[i].hash & (capacity - 1);
    while (grown[at].hash) at = (at + 1) & (capacity - 1);
    grown[at] = s->windows[i];
  }
  free(s->windows);
  s->windows = grown;
  s->windows_capacity = capacity;
  return true;
}

static uint32_t stack_keyed(struct mlz_symbols *s, const uint32_t *key, uint32_t n, bool truncated) {
  bool added;
  uint32_t *stack = mlz_intern_get(&s->stacks, key, (1 + (size_t)n) * sizeof key[0], &added, NULL);
  if (!stack) return 0;
  if (added) *stack = s->writer ? mlz_writer_stack(s->writer, key + 1, n, truncated) : ++s->stacks_used;
  return *stack;
}

static __attribute__((noinline, cold)) uint32_t stack_resolve(struct mlz_symbols *s, const uint64_t *words, uint32_t n, bool truncated) {
  uint32_t key[MLZ_STACK_DEPTH_MAX + 1];
  key[0] = truncated;
  for (uint32_t i = 0; i < n; i++) key[1 + i] = mlz_symbols_frame(s, words[n - 1 - i]);
  return stack_keyed(s, key, n, truncated);
}

uint32_t mlz_symbols_stack_id(struct mlz_symbols *s, const uint32_t *frames, uint32_t n, bool truncated) {
  uint32_t key[MLZ_STACK_DEPTH_MAX + 1];
  key[0] = truncated;
  memcpy(key + 1, frames, n * sizeof *frames);
  return stack_keyed(s, key, n, truncated);
}

uint32_t mlz_symbols_window(struct mlz_symbols *s, const uint64_t *words, struct mlz_window w) {
  if (w.count > MLZ_STACK_DEPTH_MAX || !windows_reserve(s)) return 0;
  uint32_t kind = w.count | w.depth << 12 | (uint32_t)w.truncated << 31, frames[MLZ_STACK_DEPTH_MAX];
  const size_t bytes = w.count * sizeof *frames;
  for (uint32_t i = 0; i < w.count; i++) frames[i] = mlz_symbols_frame(s, words[i]);
  if (__builtin_expect(s->marked, 0)) {    /* loops of the interpreter run the same frames otherwise: another window */
    for (uint32_t i = 0; i < w.count; i++) /* what has no room for the mark has less exact native stacks */
      frames[i] |= mlz_frame_inlined(words[i]) ? UINT32_C(1) << 31 : frames[i] >> 24 == 0 ? mlz_frame_idle(words[i]) << 24 : 0;
  }
  uint64_t hash = XXH3_64bits_withSeed(frames, bytes, kind) | 1;
  size_t at = hash & (s->windows_capacity - 1);
  for (; s->windows[at].hash; at = (at + 1) & (s->windows_capacity - 1)) {
    const struct mlz_window_slot *x = &s->windows[at];
    if (x->hash == hash && x->kind == kind && memcmp(x->frames, frames, bytes) == 0) return x->number;
  }
  uint32_t *own = frames_take(s, w.count);
  if (!own) return 0;
  memcpy(own, frames, bytes);
  s->windows[at] = (struct mlz_window_slot){.hash = hash, .frames = own, .kind = kind, .number = (uint32_t)++s->windows_count};
  return s->windows[at].number;
}

static unsigned matches_of(const struct mlz_symbols *s, uint64_t word) {
  uint32_t content = (uint32_t)(word >> 32);
  return s->contents[content < s->contents_used ? content : 0].matches;
}

bool mlz_symbols_kept(const struct mlz_symbols *s, const uint64_t *words, uint32_t n) {
  if (n == 0) return s->no_stack != MLZ_STACK_FILTERED;
  unsigned all = 0;
  for (uint32_t i = 0; i < n; i++) all |= matches_of(s, words[i]);
  return mlz_filter_keeps(s->filter, all, matches_of(s, words[n - 1]));
}

uint32_t mlz_symbols_any_stack(struct mlz_symbols *s, const uint64_t *words, struct mlz_window w) {
  if (w.count == 0 || w.count > MLZ_STACK_DEPTH_MAX) return 0;
  return stack_resolve(s, words, w.count, w.truncated);
}

uint32_t mlz_symbols_window_stack(struct mlz_symbols *s, uint32_t number, const uint64_t *words, struct mlz_window w) {
  if (w.count == 0 || w.count > MLZ_STACK_DEPTH_MAX) return s->no_stack;
  if (number && s->stack_of[number]) return s->stack_of[number];
  uint32_t stack = mlz_symbols_kept(s, words, w.count) ? stack_resolve(s, words, w.count, w.truncated) : MLZ_STACK_FILTERED;
  if (number) s->stack_of[number] = stack;
  return stack;
}
