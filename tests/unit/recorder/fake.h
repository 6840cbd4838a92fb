/* A traced program in miniature: writes messages into the rings of an arena in this process, drains them, and reads the file. */
#ifndef MLZ_TEST_FAKE_H
#define MLZ_TEST_FAKE_H

#include "formats/reader.h"
#include "tracer/recorder/arena.h"
#include "tracer/recorder/drain.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAKE_WORDS 2048u
#define FAKE_NEAR UINT64_C(5)            /* base of the near messages */
static unsigned fake_domain = MLZ_D_OBJ; /* MALLOC: without the GIL */

struct fake_ring {
  struct mlz_ring *r;
  const struct mlz_control *c;
  uint64_t head, side;
  bool turn;
};
struct fake {
  struct mlz_arena arena;
  struct mlz_writer *writer;
  struct mlz_emit *emit;
  struct mlz_drain d;
  struct fake_ring rings[16];
  char path[64];
};

static inline void fake_begin(struct fake *f) {
  memset(f, 0, sizeof *f);
  uint64_t settings = UINT64_C(0xffffffff) | UINT64_C(4) << MLZ_SET_DEPTH_SHIFT | MLZ_SET_PYTHON | MLZ_SET_MALLOC;
  cr_assert_eq(mlz_arena_make(&f->arena, "memlyze-test", FAKE_WORDS, settings, 0, true), 0);
  strcpy(f->path, "/tmp/memlyze-test-XXXXXX");
  int fd = mkstemp(f->path);
  json_t *meta = json_object();
  cr_assert_eq(mlz_writer_new(&f->writer, fd, meta, 0), 0);
  json_decref(meta);
  cr_assert_eq(mlz_emit_new(&f->emit, f->writer), 0);
  cr_assert_eq(mlz_drain_init(&f->d, f->arena.control, f->writer, f->emit, 1), 0);
}

/* Ring i begins: thread i + 1 of the image. */
static inline struct fake_ring *fake_ring(struct fake *f, uint32_t i, uint32_t image) {
  struct mlz_control *c = f->arena.control;
  struct fake_ring *x = &f->rings[i];
  *x = (struct fake_ring){.r = mlz_arena_ring(c, i), .c = c};
  x->r->pid = (uint32_t)getpid();
  x->r->tid = (uint32_t)gettid();
  x->r->image = image;
  x->r->thread_no = i + 1;
  for (int k = 0; k < 2; k++) atomic_store(&x->r->near_base[k], FAKE_NEAR);
  atomic_store(&x->r->state, MLZ_RING_LIVE);
  if (c->ring_high < i + 1) c->ring_high = i + 1;
  return x;
}

static inline void fake_word(struct fake_ring *x, uint64_t a) {
  cr_assert_lt(x->head - atomic_load(&x->r->tail), FAKE_WORDS);
  mlz_ring_words(x->r)[x->head++ & (FAKE_WORDS - 1)] = a;
}
static inline void fake_put(struct fake_ring *x, uint64_t a, uint64_t b) {
  fake_word(x, a);
  fake_word(x, b);
}
static inline void fake_publish(struct fake_ring *x) {
  atomic_store(&x->r->side_head, x->side);
  atomic_store(&x->r->head, x->head);
}
static inline uint64_t fake_text(struct fake_ring *x, const void *data, uint64_t bytes) {
  uint8_t *side = mlz_ring_side(x->r, FAKE_WORDS);
  for (uint64_t i = 0; i < bytes; i++) side[x->side++ & (x->c->side_bytes - 1)] = ((const uint8_t *)data)[i];
  return bytes;
}

/* Every other message that can be is sent in its short form. */
static inline bool fake_short(struct fake_ring *x, uint64_t granule, uint64_t size) {
  x->turn = !x->turn;
  return x->turn && granule >= FAKE_NEAR && (granule - FAKE_NEAR) >> MLZ_NEAR_BITS == 0 && size < MLZ_SMALL_SIZE;
}

/* Pops, pushes `push` frames (outermost first). */
static inline void fake_event(struct fake_ring *x, unsigned kind, unsigned flags, unsigned domain, uint64_t granule, uint64_t size,
                              unsigned pop, const uint64_t *frames, unsigned push) {
  unsigned field = push >= MLZ_PUSH_LONG ? MLZ_PUSH_LONG : push;
  if (kind == MLZ_K_ALLOC && !(flags & ~1u) && pop < 16 && push < 16 && fake_short(x, granule, size)) {
    fake_word(x, mlz_near_word(granule - FAKE_NEAR, push, pop, size, flags, domain));
  } else {
    fake_put(x, mlz_head_word(kind, flags, domain, granule), mlz_size_word(size, pop, field));
    if (field == MLZ_PUSH_LONG) fake_word(x, push);
  }
  for (unsigned i = 0; i < push; i++) fake_word(x, frames[i]);
  fake_publish(x);
}
static inline void fake_alloc(struct fake_ring *x, uint64_t granule, uint64_t size) {
  fake_event(x, MLZ_K_ALLOC, 0, fake_domain, granule, size, 0, NULL, 0);
}
static inline void fake_free(struct fake_ring *x, uint64_t granule) {
  fake_word(x, mlz_head_word(MLZ_K_FREE, 0, fake_domain, granule));
  fake_publish(x);
}
/* `last`: granule of the thread's last allocation, 0 if that was passed over. */
static inline void fake_free_after(struct fake_ring *x, uint64_t granule, uint64_t last) {
  fake_word(x, mlz_head_word(MLZ_K_FREE, granule == last ? MLZ_F_TEMPORARY : 0, fake_domain, granule));
  fake_publish(x);
}
static inline void fake_step(struct fake_ring *x, unsigned flags, uint64_t granule, uint64_t size, uint32_t offset) {
  bool python = fake_domain == MLZ_D_MEM || fake_domain == MLZ_D_OBJ;
  if (!flags && python && offset < MLZ_SMALL_OFFSET && offset % 2 == 0 && fake_short(x, granule, size))
    fake_word(x, mlz_small_word(granule - FAKE_NEAR, offset, size, fake_domain == MLZ_D_OBJ));
  else
    fake_put(x, mlz_head_word(MLZ_K_ALLOC_STEP, flags, fake_domain, granule), mlz_step_word((uint32_t)size, offset));
  fake_publish(x);
}
static inline void fake_order(struct fake_ring *x, uint64_t n) {
  fake_put(x, mlz_head_word(MLZ_K_ORDER, 0, 0, 0), n);
} /* published by the next */
static inline void fake_image(struct fake_ring *x, uint32_t parent, unsigned origin) {
  fake_put(x, mlz_head_word(MLZ_K_IMAGE, 0, 0, 0), 1);
  fake_put(x, parent, origin);
  fake_put(x, fake_text(x, "python3\0app.py", 15), 1);
  fake_publish(x);
}
static inline void fake_code(struct fake_ring *x, uint32_t id, const char *name, int32_t first_line, unsigned pieces) {
  static const uint8_t lines[] = {2, 0, 2, 1, 2, 1, 2, 1};
  uint8_t body[256], *at = body;
  struct mlz_code_header h = {.file_bytes = 6,
                              .name_bytes = (uint32_t)strlen(name),
                              .module_bytes = 3,
                              .lines_bytes = sizeof lines,
                              .first_line = first_line,
                              .lines_format = MLZ_LINES_310};
  memcpy(at, &h, sizeof h), at += sizeof h;
  memcpy(at, "app.py", 6), at += 6;
  memcpy(at, name, h.name_bytes), at += h.name_bytes;
  memcpy(at, "app", 3), at += 3;
  memcpy(at, lines, sizeof lines), at += sizeof lines;
  size_t bytes = (size_t)(at - body), done = 0;
  for (unsigned i = 0; i < pieces; i++) {
    size_t n = i + 1 == pieces ? bytes - done : bytes / pieces;
    fake_put(x, mlz_head_word(MLZ_K_CODE, i + 1 < pieces ? MLZ_F_MORE : 0, 0, id), fake_text(x, body + done, n));
    fake_publish(x);
    done += n;
  }
}

/* The file of what was drained so far; ends the fake. */
static inline struct mlz_trace *fake_end(struct fake *f) {
  for (int i = 0; i < 3; i++) mlz_drain_round(&f->d);
  mlz_image_seal(&f->d);
  mlz_emit_join(f->emit);
  cr_assert_eq(mlz_emit_error(f->emit), 0);
  json_t *summary = json_pack("{s:b}", "complete", 1);
  cr_assert_eq(mlz_writer_finish(f->writer, summary), 0);
  json_decref(summary);
  mlz_emit_free(f->emit);
  mlz_drain_deinit(&f->d);
  mlz_writer_free(f->writer);
  mlz_arena_unmake(&f->arena);
  struct mlz_trace *t;
  char err[512] = "";
  cr_assert_eq(mlz_trace_open(&t, f->path, err, sizeof err), 0, "%s", err);
  unlink(f->path);
  return t;
}

/* All events of a process as text: "+640" an allocation of 640 bytes, "-640" its free, "~" a foreign free, "!n" a rare event of op n. */
static inline const char *fake_events(struct mlz_trace *t, uint32_t process) {
  static char out[8192];
  size_t at = 0;
  struct mlz_block b;
  out[0] = 0;
  mlz_trace_rewind(t);
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {
    for (uint32_t i = 0; b.process == process && i < b.n && at < sizeof out - 64; i++) {
      if (b.ops[i] >= MLZ_OP_RARE) {
        at += (size_t)sprintf(out + at, " !%u", b.ops[i]);
      } else if (b.ops[i] == MLZ_OP_FREE_FOREIGN) {
        at += (size_t)sprintf(out + at, " ~");
      } else {
        at +=
            (size_t)sprintf(out + at, " %s%llu", b.ops[i] == MLZ_OP_ALLOC ? "+" : "-", (unsigned long long)b.classes[b.classes_of[i]].size);
      }
    }
  }
  return out[0] ? out + 1 : out;
}

#endif
