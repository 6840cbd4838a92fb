#include "tracer/recorder/account.h"
#include "tracer/recorder/native.h"

#include <stdlib.h>
#include <string.h>

#define CODE_BYTES_MAX (64u << 20)

/* Two words of a message, its payload among them: the `k`th two from `pos` on. */
static struct mlz_two pair_at(const struct mlz_feed *f, uint64_t pos, uint64_t k) {
  return (struct mlz_two){mlz_feed_word(f, pos + 2 * k), mlz_feed_word(f, pos + 2 * k + 1)};
}

/* `bytes` of the side buffer from `*pos` on, contiguous; valid until the next call. NULL: they are not there. */
static const uint8_t *side_read(struct mlz_drain *d, const struct mlz_feed *f, uint64_t *pos, uint64_t bytes) {
  uint32_t size = d->control->side_bytes;
  if (bytes > atomic_load_explicit(&f->ring->side_head, memory_order_relaxed) - *pos || bytes > size) return NULL;
  uint32_t at = (uint32_t)(*pos & (size - 1)), first = size - at < bytes ? size - at : (uint32_t)bytes;
  *pos += bytes;
  if (first == bytes) return f->side + at;
  memcpy(d->scratch, f->side + at, first);
  memcpy(d->scratch + first, f->side, bytes - first);
  return d->scratch;
}

static char *text_of(const uint8_t *data, uint64_t bytes) {
  char *text = malloc(bytes + 1);
  if (!text) return NULL;
  memcpy(text, data, bytes);
  text[bytes] = 0;
  return text;
}

/* ---- code ---- */

struct pieces { /* of one CODE message */
  uint8_t *data;
  size_t bytes;
};

/* Appends a piece; the last one teaches the code. */
static void code_piece(struct mlz_drain *d, struct pieces *p, uint64_t a, const uint8_t *data, size_t bytes) {
  uint32_t id = (uint32_t)mlz_word_value(a);
  bool more = mlz_word_flags(a) & MLZ_F_MORE;
  if (!more && !p->bytes) {
    mlz_symbols_code(&d->symbols, id, data, bytes);
    return;
  }
  uint8_t *grown = p->bytes + bytes <= CODE_BYTES_MAX ? realloc(p->data, p->bytes + bytes + 1) : NULL;
  if (grown) {
    p->data = grown;
    memcpy(grown + p->bytes, data, bytes);
    p->bytes += bytes;
  }
  if (more) return;
  if (grown) mlz_symbols_code(&d->symbols, id, p->data, p->bytes);
  free(p->data);
  *p = (struct pieces){0};
}

static bool take_code(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  const uint8_t *data = side_read(d, f, &f->side_pos, b);
  if (!data) return false;
  struct pieces p = {.data = f->code, .bytes = f->code_bytes};
  code_piece(d, &p, a, data, b);
  f->code = p.data;
  f->code_bytes = p.bytes;
  f->pos += 2;
  return true;
}

/* Words of the message at `pos`, and its bytes in the side buffer. 0: no message. What lies behind the head may be anything: the caller looks. */
static uint64_t message_words(const struct mlz_feed *f, uint64_t pos, uint64_t *side) {
  const uint64_t a = mlz_feed_word(f, pos);
  *side = 0;
  if (mlz_word_small(a)) return 1;
  const uint64_t b = mlz_feed_word(f, pos + 1), next = mlz_feed_word(f, pos + 2);
  switch (mlz_word_kind(a)) {
  case MLZ_K_FREE:
  case MLZ_K_REALLOC_BEGIN:
  case MLZ_K_NATIVE:
  case MLZ_K_NATIVE_RESET:
    return 1;
  case MLZ_K_ALLOC_NEAR:
    return 1 + mlz_near_push(a);
  case MLZ_K_ALLOC:
  case MLZ_K_REALLOC_END:
  case MLZ_K_MMAP:
  case MLZ_K_STACK:
    if (b >> 56 == MLZ_PUSH_LONG) return next > MLZ_STACK_DEPTH_MAX ? 0 : 3 + next;
    return 2 + (b >> 56);
  case MLZ_K_CODE:
    *side = b;
    return 2;
  case MLZ_K_MARK:
  case MLZ_K_THREAD:
  case MLZ_K_NAME:
  case MLZ_K_PYTHON:
  case MLZ_K_MODULE:
    *side = next;
    return 4;
  case MLZ_K_IMAGE:
    *side = mlz_feed_word(f, pos + 4);
    return 6;
  case MLZ_K_GC_STOP:
  case MLZ_K_SETTINGS:
  case MLZ_K_LOST:
    return 4;
  default:
    return mlz_word_kind(a) && mlz_word_kind(a) < MLZ_K_COUNT ? 2 : 0;
  }
}

/* Up to the head as it is now: an event taken from between h1 and h2 may use a code that was announced behind h2 of its ring. */
static void find_codes_in(struct mlz_drain *d, struct mlz_feed *f) {
  uint64_t head = atomic_load_explicit(&f->ring->head, memory_order_acquire);
  if (head - f->pos > d->control->ring_words) return;
  struct pieces p = {.data = NULL, .bytes = 0};
  if (f->code_bytes && (p.data = malloc(f->code_bytes + 1))) {
    memcpy(p.data, f->code, f->code_bytes);
    p.bytes = f->code_bytes;
  }
  uint64_t side_pos = f->side_pos, side;
  for (uint64_t pos = f->pos, n; pos < head && (n = message_words(f, pos, &side)) != 0 && n <= head - pos; pos += n) {
    const uint8_t *data = side ? side_read(d, f, &side_pos, side) : NULL;
    if (side && !data) break;
    uint64_t a = mlz_feed_word(f, pos);
    if (data && mlz_word_kind(a) == MLZ_K_CODE) code_piece(d, &p, a, data, side);
  }
  free(p.data);
}

/* A fork's child uses codes that its parent announced in a ring of another image, which may be read later in the round. */
void mlz_decode_find_codes(struct mlz_drain *d) {
  for (uint32_t i = 0; i < d->feeds_high; i++) {
    if (d->feeds[i] && !d->feeds[i]->broken) find_codes_in(d, d->feeds[i]);
  }
}

/* ---- threads, images ---- */

static bool take_name(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint64_t bytes = pair_at(f, f->pos, 1).a;
  const uint8_t *data = side_read(d, f, &f->side_pos, bytes);
  if (!data) return false;
  struct mlz_feed *named = f;
  if (mlz_word_kind(a) == MLZ_K_NAME) { /* of any thread of the image, by its number; one that is gone keeps the name it had */
    uint64_t number = pair_at(f, f->pos, 1).b;
    for (named = f->image->feeds; named && named->ring->thread_no != number;) named = named->next;
  }
  if (named) {
    free(named->name);
    named->name = text_of(data, bytes);
    mlz_image_thread_row(d, named);
  }
  if (mlz_word_kind(a) == MLZ_K_THREAD) mlz_account_rare(d, f, &(struct mlz_rare){.op = MLZ_OP_THREAD_START, .start_ns = b});
  f->pos += 4;
  return true;
}

static bool take_image(struct mlz_drain *d, struct mlz_feed *f, uint64_t b) {
  struct mlz_image *m = f->image;
  const struct mlz_two first = pair_at(f, f->pos, 1), second = pair_at(f, f->pos, 2);
  const uint8_t *data = side_read(d, f, &f->side_pos, second.a);
  if (!data) return false;
  free(m->command);
  m->command = text_of(data, second.a);
  m->command_bytes = m->command ? second.a : 0;
  m->parent_image = (uint32_t)first.a;
  m->parent_pid = (uint32_t)second.b;
  m->origin = first.b == MLZ_ORIGIN_FORK ? MLZ_ORIGIN_FORK : MLZ_ORIGIN_EXEC;
  m->start_ns = b;
  m->known = true;
  mlz_image_row(d, m);
  f->pos += 6;
  return true;
}

static bool take_python(struct mlz_drain *d, struct mlz_feed *f) {
  struct mlz_image *m = f->image;
  uint64_t bytes = pair_at(f, f->pos, 1).a;
  const uint8_t *data = side_read(d, f, &f->side_pos, bytes);
  if (!data) return false;
  char *text = text_of(data, bytes);
  if (text) {
    size_t version = strlen(text);
    free(m->python_version);
    free(m->python_state);
    m->python_version = text;
    m->python_state = strdup(version < bytes ? text + version + 1 : "");
  }
  m->python = true;
  mlz_image_row(d, m);
  f->pos += 4;
  return true;
}

static bool take_mark(struct mlz_drain *d, struct mlz_feed *f, uint64_t b) {
  const struct mlz_two s = pair_at(f, f->pos, 1);
  const uint8_t *data = side_read(d, f, &f->side_pos, s.a);
  if (!data) return false;
  bool snapshot = s.b == MLZ_MARK_SNAPSHOT;
  uint32_t name = mlz_symbols_string(&d->symbols, (const char *)data, s.a);
  mlz_account_rare(d, f, &(struct mlz_rare){.op = snapshot ? MLZ_OP_SNAPSHOT : MLZ_OP_MARK, .start_ns = b, .name = name});
  *(snapshot ? &d->total.snapshots : &d->total.marks) += 1;
  if (snapshot) {
    mlz_image_snapshot(d, name, b);
    d->group_wanted = true;
  }
  f->pos += 4;
  return true;
}

static void take_gc_stop(struct mlz_drain *d, struct mlz_feed *f, uint64_t b) {
  const struct mlz_two s = pair_at(f, f->pos, 1);
  if (f->gc_open) {
    mlz_account_rare(d, f,
                     &(struct mlz_rare){.op = MLZ_OP_GC,
                                        .start_ns = f->gc_start,
                                        .duration_ns = b > f->gc_start ? b - f->gc_start : 0,
                                        .collected = s.a,
                                        .uncollectable = s.b,
                                        .generation = f->gc_generation,
                                        .stack = f->gc_stack});
    d->total.gcs += !f->image->totals;
  }
  f->gc_open = false;
  f->pos += 4;
}

bool mlz_decode_rare(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b) {
  uint64_t side, words = message_words(f, f->pos, &side);
  if (words == 0 || words > f->h2 - f->pos) return false;
  const struct mlz_two s = pair_at(f, f->pos, 1);
  switch (mlz_word_kind(a)) {
  case MLZ_K_CODE:
    return take_code(d, f, a, b);
  case MLZ_K_THREAD:
  case MLZ_K_NAME:
    return take_name(d, f, a, b);
  case MLZ_K_IMAGE:
    return take_image(d, f, b);
  case MLZ_K_PYTHON:
    return take_python(d, f);
  case MLZ_K_MARK:
    return take_mark(d, f, b);
  case MLZ_K_GC_STOP:
    take_gc_stop(d, f, b);
    return true;
  case MLZ_K_MODULE: {
    const uint8_t *data = side_read(d, f, &f->side_pos, side);
    if (!data || !mlz_native_take_module(d, f, mlz_word_value(a), data, side)) return false;
    break;
  }
  case MLZ_K_NATIVE_RESET:
    if (!d->native) return false;
    mlz_native_reset(f);
    break;
  case MLZ_K_THREAD_END:
    f->end_ns = b;
    mlz_account_rare(d, f, &(struct mlz_rare){.op = MLZ_OP_THREAD_END, .start_ns = b});
    break;
  case MLZ_K_FINALIZE:
    f->image->finalized = true;
    f->image->finalize_ns = b;
    mlz_account_rare(d, f, &(struct mlz_rare){.op = MLZ_OP_FINALIZE, .start_ns = b});
    mlz_image_row(d, f->image);
    mlz_image_point(d, f->image, MLZ_POINT_END, 0, b);
    break;
  case MLZ_K_SETTINGS:
    mlz_feed_settings(d, f, b);
    break;
  case MLZ_K_LOST:
    mlz_account_rare(d, f, &(struct mlz_rare){.op = MLZ_OP_LOST, .start_ns = b, .collected = s.a, .uncollectable = s.b});
    break;
  default:
    return false;
  }
  f->pos += words;
  return true;
}
