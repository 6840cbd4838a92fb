#include "analyzer/identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* The text with its NUL, so that no two sequences of texts read the same. */
static void add_text(XXH64_state_t *state, const struct mlz_trace *trace, uint32_t string) {
  const char *text = mlz_trace_string(trace, string);
  XXH64_update(state, text, strlen(text) + 1);
}

static int64_t frame_hash(XXH64_state_t *state, const struct mlz_trace *trace, const struct mlz_frame *f, bool place) {
  uint8_t language = (uint8_t)f->language;
  XXH64_reset(state, 0);
  XXH64_update(state, &language, 1);
  add_text(state, trace, f->function);
  add_text(state, trace, f->module);
  if (place) {
    uint32_t line = htole32(f->line);
    add_text(state, trace, f->file);
    XXH64_update(state, &line, sizeof line);
  }
  return (int64_t)XXH64_digest(state);
}

static int64_t stack_hash(XXH64_state_t *state, const int64_t *of_frame, const uint32_t *frames, uint32_t n, bool truncated) {
  uint8_t last = truncated;
  XXH64_reset(state, 0);
  for (uint32_t i = 0; i < n; i++) {
    uint64_t frame = htole64((uint64_t)of_frame[frames[i]]);
    XXH64_update(state, &frame, sizeof frame);
  }
  XXH64_update(state, &last, 1);
  return (int64_t)XXH64_digest(state);
}

int mlz_identity_make(struct mlz_identity *out, const struct mlz_trace *trace) {
  uint32_t frames = mlz_trace_frames(trace), stacks = mlz_trace_stacks(trace);
  XXH64_state_t *state = XXH64_createState();
  int64_t *bare = malloc(frames * sizeof bare[0]);
  struct mlz_identity made = {malloc(frames * sizeof bare[0]), malloc(stacks * sizeof bare[0]), malloc(stacks * sizeof bare[0])};
  bool ok = state && bare && made.frames && made.stacks && made.calls;
  for (uint32_t i = 0; ok && i < frames; i++) {
    struct mlz_frame f = mlz_trace_frame(trace, i);
    made.frames[i] = frame_hash(state, trace, &f, true);
    bare[i] = frame_hash(state, trace, &f, false);
  }
  for (uint32_t i = 0; ok && i < stacks; i++) {
    uint32_t n;
    bool truncated;
    const uint32_t *ids = mlz_trace_stack(trace, i, &n, &truncated);
    made.stacks[i] = stack_hash(state, made.frames, ids, n, truncated);
    made.calls[i] = stack_hash(state, bare, ids, n, truncated);
  }
  XXH64_freeState(state);
  free(bare);
  if (ok)
    *out = made;
  else
    mlz_identity_clear(&made);
  return ok ? 0 : -ENOMEM;
}

void mlz_identity_clear(struct mlz_identity *identity) {
  free(identity->frames);
  free(identity->stacks);
  free(identity->calls);
  *identity = (struct mlz_identity){0};
}
