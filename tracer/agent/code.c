/* Code objects: an id for each, kept in its co_extra or in a table of ours; names and line table travel once. */
#include "code_ids.h"
#include "event.h"
#include "python.h"

#include <string.h>

#define PIECE 16384u

static const char *pointer_at(const char *base, size_t offset) {
  const char *p;
  memcpy(&p, base + offset, sizeof(p));
  return p;
}
static uint64_t word_at(const char *base, size_t offset) {
  uint64_t v;
  memcpy(&v, base + offset, sizeof(v));
  return v;
}

/* co_extra's free function: the code object dies, its address may be another one's soon. */
static void code_died(void *extra) {
  if (extra) mlz_agent_code_died();
}

/* The same told by the interpreter (CPython Include/cpython/code.h, PyCodeEvent). */
static int code_event(int event, void *code) {
  enum { DESTROY = 1 };
  if (event == DESTROY && mlz_code_ids_remove(code)) mlz_agent_code_died();
  return 0;
}

static bool watch(void) {
  enum { ALL_BY_NAME = 14 }; /* from this one on a function is told by whether its code has a co_extra */
  if (!mlz_python.watch || mlz_python.layout->minor < ALL_BY_NAME) return false;
  bool watched = mlz_python.watch(code_event) >= 0;
  if (!watched) mlz_python.err_clear();
  return watched;
}

bool mlz_code_place(void) {
  void *type = NULL, *value = NULL, *traceback = NULL;
  uint32_t busy = mlz_tls.busy;
  mlz_agent_own(&mlz_tls);
  mlz_python.err_fetch(&type, &value, &traceback);
  bool ours = mlz_python.watched ? watch() : mlz_python.extra_request(code_died) == mlz_python.extra_index;
  mlz_python.err_restore(type, value, traceback);
  mlz_tls.busy = busy;
  return ours;
}

bool mlz_code_prepare(void) {
  if (!mlz_python.extra_ready) {
    void *type = NULL, *value = NULL, *traceback = NULL;
    mlz_agent_own(&mlz_tls);
    mlz_python.err_fetch(&type, &value, &traceback);
    mlz_python.watched = watch();
    if (!mlz_python.watched)
      mlz_python.extra_index = mlz_python.extra_request(code_died); /* all eight watchers are taken, or it is older */
    mlz_python.extra_ready = mlz_python.watched || mlz_python.extra_index >= 0;
    mlz_python.name_key = mlz_python.intern("__name__");
    mlz_python.err_restore(type, value, traceback);
    mlz_tls.busy = MLZ_BUSY_EVENT;
  }
  return mlz_python.extra_ready;
}

/* ---- text of the interpreter's strings, read in place: asking for UTF-8 would store a copy in the string ---- */

struct text {
  const char *string; /* a str object, or NULL */
  uint64_t length;    /* code points */
  unsigned kind;      /* bytes each */
  const uint8_t *data;
  uint32_t bytes; /* as UTF-8 */
};

static unsigned utf8(uint32_t c, uint8_t *out) {
  if (c < 0x80) {
    out[0] = (uint8_t)c;
    return 1;
  }
  if (c < 0x800) {
    out[0] = (uint8_t)(0xc0 | c >> 6), out[1] = (uint8_t)(0x80 | (c & 0x3f));
    return 2;
  }
  if (c < 0x10000) {
    if (c >= 0xd800 && c < 0xe000) c = 0xfffd; /* surrogateescape of an undecodable file name */
    out[0] = (uint8_t)(0xe0 | c >> 12), out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f)), out[2] = (uint8_t)(0x80 | (c & 0x3f));
    return 3;
  }
  out[0] = (uint8_t)(0xf0 | c >> 18), out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
  out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f)), out[3] = (uint8_t)(0x80 | (c & 0x3f));
  return 4;
}

/* Is what is stored its UTF-8? (A string of kind 1 that is not ASCII has at least one character of two bytes, unless it was cut before that.) */
static bool plain(const struct text *t) { return t->kind == 1 && t->bytes == t->length; }

static uint32_t point(const struct text *t, uint64_t i) {
  if (t->kind == 1) return t->data[i];
  if (t->kind == 2) {
    uint16_t v;
    memcpy(&v, t->data + 2 * i, 2);
    return v;
  }
  uint32_t v;
  memcpy(&v, t->data + 4 * i, 4);
  return v;
}

/* CPython Include/cpython/unicodeobject.h: length 16, state 32: kind bits 2-4, compact bit 5, ascii bit 6. */
static struct text text_of(const char *string) {
  struct text t = {0};
  if (!string || pointer_at(string, 8) != mlz_python.type_unicode) return t;
  uint32_t state;
  memcpy(&state, string + 32, 4);
  if (!(state & 0x20)) return t;
  t.string = string;
  t.length = word_at(string, 16);
  t.kind = state >> 2 & 7;
  t.data = (const uint8_t *)string + (state & 0x40 ? mlz_python.layout->str_ascii_data : mlz_python.layout->str_data);
  if (t.length > 1024) t.length = 1024; /* no name that a person reads is longer */
  if (state & 0x40) {
    t.bytes = (uint32_t)t.length;
    return t;
  }
  uint8_t scratch[4];
  for (uint64_t i = 0; i < t.length; i++) t.bytes += utf8(point(&t, i), scratch);
  return t;
}

uint32_t mlz_code_utf8(const char *string, uint8_t *out, uint32_t size) {
  struct text t = text_of(string);
  if (t.bytes > size) return 0;
  if (plain(&t)) {
    memcpy(out, t.data, t.bytes);
    return t.bytes;
  }
  uint32_t n = 0;
  for (uint64_t i = 0; i < t.length; i++) n += utf8(point(&t, i), out + n);
  return n;
}

/* ---- the CODE message ---- */

struct stream {
  struct mlz_thread *th;
  uint32_t id;
  uint32_t fill;
  bool broken;
  uint8_t *buffer;
};

static void flush(struct stream *s, bool last) {
  uint8_t *from = s->buffer;
  uint32_t left = s->fill;
  while (!s->broken && (left || last)) {
    uint32_t put = mlz_producer_side(&s->th->out, from, left);
    if (left && !put) {
      s->broken = true;
      break;
    }
    from += put;
    left -= put;
    int32_t i = mlz_event_open(s->th, 2, true, MLZ_ROOM_BLOCK, true);
    if (i < 0) {
      mlz_producer_side_undo(&s->th->out);
      s->broken = true;
      break;
    }
    bool more = left || !last;
    mlz_event_close(s->th, mlz_event_pair(s->th, i, mlz_head_word(MLZ_K_CODE, more ? MLZ_F_MORE : 0, 0, s->id), put));
    mlz_producer_side_keep(&s->th->out);
    if (!more) break;
  }
  s->fill = 0;
}

static void put_bytes(struct stream *s, const void *bytes, uint64_t n) {
  const uint8_t *from = bytes;
  while (n && !s->broken) {
    uint32_t part = PIECE - s->fill;
    if (part > n) part = (uint32_t)n;
    memcpy(s->buffer + s->fill, from, part);
    s->fill += part;
    from += part;
    n -= part;
    if (s->fill == PIECE) flush(s, false);
  }
}
static void put_text(struct stream *s, const struct text *t) {
  uint8_t out[4];
  if (plain(t)) {
    put_bytes(s, t->data, t->bytes);
    return;
  }
  for (uint64_t i = 0; i < t->length; i++) put_bytes(s, out, utf8(point(t, i), out));
}

static struct text module_of(const char *frame) {
  const char *globals = pointer_at(frame, mlz_python.layout->frame_globals);
  if (!globals || !mlz_python.name_key) return (struct text){0};
  void *type = NULL, *value = NULL, *traceback = NULL;
  mlz_python.err_fetch(&type, &value, &traceback);
  const char *name = mlz_python.dict_get((void *)(uintptr_t)globals, mlz_python.name_key);
  mlz_python.err_restore(type, value, traceback);
  return text_of(name);
}

static bool send_code(struct mlz_thread *th, uint32_t id, const char *frame, const char *code) {
  const struct mlz_py_layout *l = mlz_python.layout;
  struct text file = text_of(pointer_at(code, l->code_file));
  struct text name = text_of(pointer_at(code, l->code_qualname ? l->code_qualname : l->code_name));
  struct text module = module_of(frame);
  const char *lines = pointer_at(code, l->code_lines); /* bytes: size at 16, data at 32 */
  uint64_t n_lines = lines ? word_at(lines, 16) : 0;
  if (n_lines > 1u << 22) n_lines = 1u << 22;
  struct mlz_code_header h = {.file_bytes = file.bytes,
                              .name_bytes = name.bytes,
                              .module_bytes = module.bytes,
                              .lines_bytes = (uint32_t)n_lines,
                              .lines_format = l->lines_format};
  memcpy(&h.first_line, code + l->code_first_line, 4);
  struct stream s = {.th = th, .id = id, .buffer = th->scratch};
  put_bytes(&s, &h, sizeof(h));
  put_text(&s, &file);
  put_text(&s, &name);
  put_text(&s, &module);
  if (n_lines) put_bytes(&s, lines + 32, n_lines);
  flush(&s, true);
  return !s.broken;
}

/* Stores the id in the code object's co_extra: {int64_t size; void *extras[size]}, CPython Objects/codeobject.c, the same in 3.8-3.14.
 * The interpreter's own setter would make room for every user of co_extra, and so have the free functions of others called
 * for code objects that they never saw; ours makes room for ours alone. And it would call whoever sits on top of the allocators: tracemalloc may have
 * called us with its lock held. */
static bool store_extra(const char *code, uint64_t value) {
  long index = mlz_python.extra_index;
  char *place = (char *)(uintptr_t)code + mlz_python.layout->code_extra, *entry;
  memcpy(&entry, place, sizeof(entry));
  int64_t size = entry ? (int64_t)word_at(entry, 0) : 0;
  if (size > index) {
    memcpy(entry + 8 + 8 * index, &value, sizeof(value));
    return true;
  }
  size_t bytes = 8 + 8 * ((size_t)index + 1);
  char *made = mlz_running_mem_alloc(bytes);
  if (!made) return false;
  memset(made, 0, bytes);
  if (entry) memcpy(made, entry, 8 + 8 * (size_t)size); /* another user's, which is too short */
  size = index + 1;
  memcpy(made, &size, sizeof(size));
  memcpy(made + 8 + 8 * index, &value, sizeof(value));
  __atomic_store_n((char **)(void *)place, made, __ATOMIC_RELEASE); /* another thread may walk without the GIL */
  if (entry) mlz_running_mem_free(entry);
  return true;
}

static bool store_id(const struct mlz_thread *th, const char *code, uint32_t id) {
  uint64_t value = (uint64_t)mlz_python.id_session << 32 | id;
  return mlz_python.watched ? mlz_code_ids_put(code, th->interp_number, value) : store_extra(code, value);
}

/* 3.12 builds some code into the program, for all interpreters; the main one frees its co_extra, which must not be of another's memory. */
static bool shared(const char *code) { return mlz_python.layout->minor == 12 && (int32_t)word_at(code, 0) < 0; }

uint32_t mlz_code_register(struct mlz_thread *th, const char *frame, const char *code) {
  if (MLZ_UNLIKELY(th->detached)) {
    th->seen_epoch = MLZ_EPOCH_NONE; /* the next walk looks at it again */
    return 0;
  }
  if (*mlz_python.initialized) mlz_python.seen_initialized = true;
  if (MLZ_UNLIKELY(mlz_python.ended) && !mlz_python_again(th)) return 0;
  if (!mlz_python_interp_holds(th)) return 0; /* its index of co_extra is another: names without a life time would mislead */
  if (th->interp != mlz_python.main_interp && shared(code)) return 0;
  if (pointer_at(code, 8) != mlz_python.type_code) return 0;
  uint32_t id = atomic_fetch_add_explicit(&mlz_agent_control()->code_next, 1, memory_order_relaxed);
  if (!send_code(th, id, frame, code)) return 0;
  mlz_agent_own(&mlz_tls);
  bool stored = store_id(th, code, id);
  mlz_tls.busy = MLZ_BUSY_EVENT;
  return stored ? id : 0;
}
