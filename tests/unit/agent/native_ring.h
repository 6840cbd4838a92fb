/* A ring without a recorder, and what a recorder would know of its native stacks: for tests and benchmarks that call mlz_native_capture themselves.
 * Stands in for the agent's own globals; include it in one file of a program, beside native*.c and ring_producer.c. */
#ifndef MLZ_TESTS_NATIVE_RING_H
#define MLZ_TESTS_NATIVE_RING_H

#include "tracer/agent/native.h"
#include "tracer/agent/python.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct mlz_control mlz_no_control;
struct mlz_agent mlz_agent = {.peer = {.control = &mlz_no_control}};
struct mlz_python mlz_python;
union mlz_wiped_page mlz_wiped;
struct mlz_thread mlz_no_thread;
__thread struct mlz_tls mlz_tls = {.thread = &mlz_no_thread};

#define RING_WORDS 8192u
#define RING_SIDE 65536u
#define RING_NODES (1u << 20)

struct ring_node {
  uint64_t word;
  uint32_t caller, flags;
};
struct native_ring {
  struct mlz_ring ring; /* words and side buffer follow */
  uint64_t words[RING_WORDS];
  uint8_t side[RING_SIDE];
  uint64_t bias[65536]; /* of modules; 1: not announced */
  struct ring_node *nodes;
  uint32_t n_nodes, current, bare, resets;
  const char *wrong; /* what no recorder could make sense of */
};

/* Gives the calling thread a ring of its own, with stacks of `depth` frames. */
static inline struct native_ring *native_ring_open(uint32_t depth) {
  struct native_ring *r = calloc(1, sizeof(*r));
  struct mlz_thread *th = calloc(1, sizeof(*th));
  struct mlz_control *c = &mlz_no_control;
  r->nodes = calloc(RING_NODES + 1, sizeof(*r->nodes));
  for (unsigned i = 0; i < 65536; i++) r->bias[i] = 1;
  c->ring_words = RING_WORDS;
  c->side_bytes = RING_SIDE;
  c->settings = (uint64_t)depth << MLZ_SET_DEPTH_SHIFT | MLZ_SET_NATIVE;
  mlz_producer_init(&th->out, &mlz_agent.peer, &r->ring);
  th->depth = depth;
  th->self = (unsigned long)pthread_self();
  mlz_tls.thread = th;
  mlz_agent.whole = true;
  mlz_agent.pid = (uint32_t)getpid();
  return r;
}
static inline void native_ring_close(struct native_ring *r) {
  mlz_native_release(mlz_tls.thread);
  free(mlz_tls.thread);
  mlz_tls.thread = &mlz_no_thread;
  free(r->nodes);
  free(r);
}

/* Reads what was written, as a recorder does. */
static inline void native_ring_read(struct native_ring *r) {
  uint64_t head = atomic_load(&r->ring.head), side = atomic_load(&r->ring.side_tail);
  for (uint64_t at = atomic_load(&r->ring.tail); at < head; at++) {
    uint64_t a = r->words[at % RING_WORDS], b = r->words[(at + 1) % RING_WORDS];
    uint32_t value = (uint32_t)mlz_word_value(a), flags = mlz_word_flags(a);
    switch (mlz_word_kind(a)) {
    case MLZ_K_MODULE:
      r->bias[value] = b;
      side += r->words[(at + 2) % RING_WORDS];
      at += 3;
      break;
    case MLZ_K_NATIVE_NODE:
      if (value > r->n_nodes) r->wrong = "a caller that does not exist";
      at++;
      if (r->bias[mlz_native_module(b)] == 1 && mlz_native_module(b)) r->wrong = "a module that was not announced";
      if (r->n_nodes == RING_NODES)
        r->wrong = "too many nodes";
      else
        r->nodes[++r->n_nodes] = (struct ring_node){b, value, flags};
      break;
    case MLZ_K_NATIVE:
      if (value > r->n_nodes) r->wrong = "a node that does not exist";
      r->current = value;
      r->bare = flags & MLZ_N_BARE;
      break;
    case MLZ_K_NATIVE_RESET:
      r->n_nodes = r->current = 0;
      r->resets++;
      break;
    default:
      r->wrong = "a message of another kind";
    }
  }
  if (side != atomic_load(&r->ring.side_head)) r->wrong = "bytes in the side buffer that nobody named";
  atomic_store(&r->ring.side_tail, side);
  atomic_store(&r->ring.tail, head);
}

/* The run-time address of a node. */
static inline uintptr_t native_ring_address(const struct native_ring *r, uint32_t node) {
  uint64_t w = r->nodes[node].word;
  return mlz_native_offset(w) + (mlz_native_module(w) ? r->bias[mlz_native_module(w)] : 0);
}

#endif
