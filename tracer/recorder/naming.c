#include "tracer/recorder/naming.h"

#include "tracer/recorder/native.h"
#include "tracer/symbols/symbolizer.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct named { /* an address that was looked up */
  const struct mlz_named *frame;
  struct mlz_symbol *symbols; /* innermost first */
  uint32_t n;
};

/* Of the session and of its thread: freed by neither where the thread took too long, since the process is about to end. */
struct naming {
  const struct mlz_native *native;
  struct mlz_symbolizer *symbolizer;
  const struct mlz_named **order; /* frames by module */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct named *done;
  uint32_t n, done_n;
  struct mlz_own_allocators own;
  bool allocators; /* are asked for */
  bool over, stop;
};

static int by_module(const void *a, const void *b) {
  const struct mlz_named *x = *(const struct mlz_named *const *)a, *y = *(const struct mlz_named *const *)b;
  if (x->module != y->module) return x->module < y->module ? -1 : 1;
  return x->address < y->address ? -1 : x->address > y->address;
}

static struct named look_up(struct naming *x, const struct mlz_named *frame) {
  struct named out = {.frame = frame};
  const struct mlz_module *m = &x->native->modules[frame->module];
  struct mlz_symbol_module *module = mlz_symbolizer_module(x->symbolizer, m->path, m->file, m->build_id, m->build_id_bytes);
  struct mlz_symbol found[MLZ_SYMBOLS_MAX];
  int n = module ? mlz_symbolizer_visible(module, frame->address, found) : -1;
  if (n < 0) return (struct named){.frame = NULL};
  out.n = (uint32_t)n;
  out.symbols = malloc((out.n + 1) * sizeof *out.symbols);
  if (!out.symbols) return (struct named){.frame = NULL};
  memcpy(out.symbols, found, out.n * sizeof *out.symbols);
  return out;
}

/* False: time is up. */
static bool look_for_allocators(struct naming *x) {
  for (uint32_t i = 1; x->allocators && i < x->native->modules_n; i++) {
    struct mlz_own_allocator found[MLZ_SYMBOL_ALLOCATORS_MAX];
    const struct mlz_module *m = &x->native->modules[i];
    bool believed = m->path[0] == '/' && m->build_id_bytes; /* what is at its path now */
    int fd = m->file < 0 && believed ? mlz_native_open_file(0, m->path) : m->file;
    unsigned n = mlz_allocators_find(fd, m->path, m->build_id, m->build_id_bytes, found);
    if (fd >= 0 && fd != m->file) close(fd);
    pthread_mutex_lock(&x->lock);
    bool stop = x->stop;
    if (!stop) mlz_allocators_add(&x->own, found, n);
    pthread_mutex_unlock(&x->lock);
    if (stop) return false;
  }
  return true;
}

static void *look_up_all(void *arg) {
  struct naming *x = arg;
  if (!look_for_allocators(x)) return NULL;
  for (uint32_t i = 0; i < x->n; i++) {
    struct named one = look_up(x, x->order[i]);
    pthread_mutex_lock(&x->lock);
    bool stop = x->stop;
    if (!stop) x->done[x->done_n++] = one;
    pthread_mutex_unlock(&x->lock);
    if (stop) return NULL;
  }
  pthread_mutex_lock(&x->lock);
  x->over = true;
  pthread_cond_signal(&x->changed);
  pthread_mutex_unlock(&x->lock);
  return NULL;
}

/* ---- into the file ---- */

static uint32_t text_of(struct mlz_symbols *s, const char *text) { return mlz_symbols_string(s, text, strlen(text)); }

static void write_one(struct mlz_drain *d, const struct named *one) {
  struct mlz_symbols *s = &d->symbols;
  const char *path = d->native->modules[one->frame->module].path, *slash = strrchr(path, '/');
  uint32_t frames[MLZ_SYMBOLS_MAX], module = text_of(s, slash ? slash + 1 : path);
  for (uint32_t i = 0; i < one->n; i++) {
    const struct mlz_symbol *y = &one->symbols[i];
    struct mlz_frame f = {.function = text_of(s, y->function),
                          .file = text_of(s, y->file ? y->file : path),
                          .module = module,
                          .line = y->file ? y->line : 0,
                          .language = y->inferred ? MLZ_LANG_INFERRED : MLZ_LANG_NATIVE};
    bool added;
    frames[i] = mlz_symbols_frame_id(s, &f, &added);
  }
  mlz_writer_symbol(s->writer, one->frame->frame, frames, one->n);
}

static void wait_for(struct naming *x, uint64_t bound_ns) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  bound_ns += (uint64_t)until.tv_nsec;
  until.tv_sec += (time_t)(bound_ns / 1000000000);
  until.tv_nsec = (long)(bound_ns % 1000000000);
  pthread_mutex_lock(&x->lock);
  while (!x->over && pthread_cond_timedwait(&x->changed, &x->lock, &until) == 0) {}
  x->stop = true;
  pthread_mutex_unlock(&x->lock);
}

static bool begin(struct naming *x, pthread_t *thread) {
  const struct mlz_native *n = x->native;
  x->symbolizer = mlz_symbolizer_new(NULL);
  x->order = calloc(n->named_n, sizeof(struct mlz_named *));
  x->done = calloc(n->named_n, sizeof *x->done);
  if (!x->symbolizer || !x->order || !x->done) return false;
  for (x->n = 0; x->n < n->named_n; x->n++) x->order[x->n] = &n->named[x->n];
  qsort(x->order, x->n, sizeof(struct mlz_named *), by_module);
  pthread_condattr_t clock;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_mutex_init(&x->lock, NULL);
  pthread_cond_init(&x->changed, &clock);
  pthread_condattr_destroy(&clock);
  sigset_t all, old; /* signals are the main thread's */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int r = pthread_create(thread, NULL, look_up_all, x);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return r == 0;
}

static void end(struct naming *x) {
  mlz_symbolizer_free(x->symbolizer);
  free(x->order);
  free(x->done);
  free(x);
}

uint64_t mlz_naming_run(struct mlz_drain *d, uint64_t bound_ns, struct mlz_own_allocators *own) {
  uint32_t all = d->native->named_n;
  struct naming *x = (all || (own && d->native->modules_n > 1)) && d->symbols.writer ? calloc(1, sizeof *x) : NULL;
  pthread_t thread;
  if (!x) return all;
  x->native = d->native;
  x->allocators = own != NULL;
  if (own) x->own = *own;
  if (!begin(x, &thread)) {
    end(x);
    return all;
  }
  wait_for(x, bound_ns);
  for (uint32_t i = 0; i < x->done_n; i++) { /* nothing is added any more */
    if (x->done[i].frame) write_one(d, &x->done[i]);
    free(x->done[i].symbols);
  }
  if (own) *own = x->own;
  uint64_t left = all - x->done_n;
  if (x->over) {
    pthread_join(thread, NULL);
    end(x);
  } else {
    pthread_detach(thread);
    d->native = NULL; /* the thread reads it still */
  }
  return left;
}
