/* The interpreter's allocators where it runs already: other hooks may be there before ours (tracemalloc, PYTHONMALLOC=debug), may come on top of them,
 * and may go by putting back what they found, be we in that or not.
 *
 * hooks_python.c has two places for what our hooks call, and changes one when it installs. A place that a hook still uses must not be changed: the
 * hook would call itself. So whether our hooks are in the chain is looked for first: the hooks of CPython itself keep what they call behind their
 * ctx. */
#include "python.h"
#include "record.h"
#include "sys.h"

#include <string.h>
#include <sys/uio.h>

static struct {
  bool on, arenas_on;               /* in this session */
  struct mlz_py_allocator hooks[3]; /* as they were installed last; what they call is where ctx points */
  unsigned place;                   /* of the two, where that is */
  bool lost[2];                     /* under hooks of a kind that we cannot look into, perhaps */
  struct mlz_py_arenas arenas, arenas_under;
  bool arenas_lost;
} running;

static bool ours(const struct mlz_py_allocator *a, unsigned domain) { return running.hooks[domain].free != NULL && mlz_python_ours(a); }

bool mlz_python_peek(const void *address, void *out, size_t bytes) {
  struct iovec local = {out, bytes}, remote = {(void *)(uintptr_t)address, bytes};
  return mlz_sys6(SYS_process_vm_readv, mlz_sys_getpid(), (long)&local, 1, (long)&remote, 1, 0) == (long)bytes;
}

enum layer { LAYER_BASE, LAYER_DEBUG, LAYER_TRACEMALLOC, LAYER_OTHER };

/* Whose hooks `a` are, and in their place what they call. tracemalloc: ctx points to it (CPython Modules/_tracemalloc.c, `allocators`); the debug
 * hooks: behind one character that names the domain (Objects/obmalloc.c, debug_alloc_api_t); the interpreter's allocators have no ctx. */
static enum layer look_into(struct mlz_py_allocator *a) {
  uint64_t words[6];
  if (!a->ctx || mlz_python_place(a->ctx)) return LAYER_BASE;
  if (!mlz_python_peek(a->ctx, words, sizeof(words))) return LAYER_OTHER;
  bool debug = words[0] == 'r' || words[0] == 'm' || words[0] == 'o';
  struct mlz_py_allocator under;
  memcpy(&under, words + debug, sizeof(under));
  if (!under.malloc || !under.calloc || !under.realloc || !under.free) return LAYER_OTHER;
  *a = under;
  return debug ? LAYER_DEBUG : LAYER_TRACEMALLOC;
}

enum chain { CHAIN_HAS_US, CHAIN_HAS_US_NOT, CHAIN_UNKNOWN };

/* Are our hooks called by those that are on top? *under: where a block comes from that is not our event, and that whoever is on top may free. What
 * ours call; where they are not there, what lies below tracemalloc, which may be at work with its lock held. */
static enum chain chain_of(unsigned domain, struct mlz_py_allocator *under) {
  enum { DEEPEST = 8 };
  struct mlz_py_allocator a;
  bool found = false;
  mlz_python.mem_get((int)domain, &a);
  *under = running.hooks[domain].free ? *(const struct mlz_py_allocator *)running.hooks[domain].ctx : a;
  for (int depth = 0; depth < DEEPEST; depth++) {
    if (ours(&a, domain)) {
      *under = *(const struct mlz_py_allocator *)a.ctx;
      return CHAIN_HAS_US;
    }
    struct mlz_py_allocator here = a;
    enum layer layer = look_into(&a);
    if (layer == LAYER_OTHER) break;
    if (layer != LAYER_TRACEMALLOC && !found) {
      *under = here;
      found = true;
    }
    if (layer == LAYER_BASE) return CHAIN_HAS_US_NOT;
  }
  return CHAIN_UNKNOWN;
}

bool mlz_running_hook(void) {
  struct mlz_py_allocator under;
  running.on = true;
  if (!running.hooks[MLZ_D_OBJ].free && mlz_agent.session_number > 1)
    return true; /* preloaded once, in a session that has ended: ours are there */
  switch (chain_of(MLZ_D_OBJ, &under)) {
  case CHAIN_HAS_US:
    return true;
  case CHAIN_HAS_US_NOT:
    if (!under.malloc) return false;
    running.lost[0] = running.lost[1] = false;
    break;
  case CHAIN_UNKNOWN:
    if (running.lost[0] && running.lost[1]) return true;
    break;
  }
  if (!running.lost[0]) {
    mlz_python_install();
    running.place = 0;
  } else if (running.place == 0) {
    mlz_python_on_top(); /* to the other place */
    running.place = 1;
  } else {
    return true; /* no way to name that place */
  }
  atomic_store(&mlz_python.wrap_pending, 0); /* the interpreter has chosen its allocators long ago */
  for (unsigned d = 0; d < 3; d++) mlz_python.mem_get((int)d, &running.hooks[d]);
  return true;
}

void mlz_running_look(void) {
  struct mlz_py_allocator under;
  if (!running.on || !running.hooks[MLZ_D_OBJ].free) return;
  mlz_python.mem_get(MLZ_D_OBJ, &under);
  if (ours(&under, MLZ_D_OBJ)) return;
  if (chain_of(MLZ_D_OBJ, &under) == CHAIN_HAS_US_NOT) mlz_running_hook();
}

/* raw is called without the GIL meanwhile, mem and obj under another one where there are several: such a thread reads one word of the table and then
 * another, and may be put aside in between for as long as the system likes. What it reads second must go with what it read first. An allocator whose ctx
 * is NULL does not look at it: there ours stays. One that has a ctx (the debug hooks) would take ours for its own: with several GILs our hooks stay above it;
 * with one, it is changed in one go, and few call raw without the GIL. */
static void give_back(unsigned domain, const struct mlz_py_allocator *hook) {
  struct mlz_py_allocator under = *(const struct mlz_py_allocator *)hook->ctx;
  bool several = mlz_marks_atomic[MLZ_MARKS_PLAIN];
  if (under.ctx && several) return;
  if (!under.ctx && (several || domain == MLZ_D_RAW)) under.ctx = hook->ctx;
  mlz_python.mem_set((int)domain, &under);
}

void mlz_running_unhook(void) {
  bool lost = false;
  if (running.on) mlz_python_count(); /* none of its threads may have told of itself yet */
  for (unsigned d = 0; d < 3 && running.on && running.hooks[d].free; d++) {
    struct mlz_py_allocator top, under;
    mlz_python.mem_get((int)d, &top);
    if (ours(&top, d))
      give_back(d, &top);
    else
      lost |= chain_of(d, &under) == CHAIN_UNKNOWN;
  }
  if (running.on) running.lost[running.place] = lost;
  running.on = false;
  if (running.arenas_on) {
    struct mlz_py_arenas top;
    mlz_python.arena_get(&top);
    running.arenas_lost = top.alloc != running.arenas.alloc;
    if (!running.arenas_lost) mlz_python.arena_set(&running.arenas_under);
    running.arenas_on = false;
  }
}

void mlz_running_arenas(void) {
  if (!mlz_agent.started) {
    mlz_python_arenas();
    return;
  }
  if (!mlz_python.arena_get || !mlz_python.arena_set || running.arenas_lost) return;
  mlz_python.arena_get(&running.arenas_under);
  mlz_python_arenas();
  mlz_python.arena_get(&running.arenas);
  running.arenas_on = running.arenas.alloc != running.arenas_under.alloc;
}

bool mlz_running_arenas_hidden(void) { return mlz_agent.started ? running.arenas_on : mlz_python_arenas_hidden(); }

/* Where blocks come from that no hook sees: not through tracemalloc, even where ours call it: it may be at work, with its lock held, and this be the
 * event of a malloc of its own. */
static struct mlz_py_allocator unseen(void) {
  struct mlz_py_allocator under;
  if (!mlz_agent.started) return mlz_python_under();
  chain_of(MLZ_D_MEM, &under);
  for (struct mlz_py_allocator below = under; look_into(&below) == LAYER_TRACEMALLOC;) under = below;
  return under;
}

void *mlz_running_mem_alloc(size_t size) {
  struct mlz_py_allocator a = unseen();
  return a.malloc(a.ctx, size);
}

void mlz_running_mem_free(void *block) {
  struct mlz_py_allocator a = unseen();
  mlz_record_free_inside(&mlz_tls, MLZ_D_MEM, block);
  a.free(a.ctx, block);
}
