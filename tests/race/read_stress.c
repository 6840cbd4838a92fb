/* Reads traces with several threads and compares with what one thread reads: every value of every chunk, and what `prepare` made of it. Plain, and
 * under TSan, where the whole reader is compiled in.
 *
 *   read_stress TRACE... */
#include "formats/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct part {
  uint64_t *sums; /* grows: a part owns memory */
  uint32_t room;
};
struct sums {
  struct mlz_trace *t;
  uint64_t all, prepared, chunks;
};

static uint64_t mix(uint64_t sum, uint64_t v) { return (sum ^ v) * UINT64_C(0x9e3779b97f4a7c15) + (sum >> 29); }

static uint64_t sum_of(const struct mlz_block *b) {
  uint64_t sum = mix(b->process, b->first_alloc + b->ordinal);
  for (uint32_t i = 0; i < b->n; i++) sum = mix(mix(mix(sum, b->ops[i]), b->alloc_no[i] + b->classes_of[i]), b->time_ns[i] + b->thread[i]);
  for (uint32_t i = 0; i < b->n_classes; i++) sum = mix(mix(sum, b->classes[i].size), b->classes[i].stack);
  for (uint32_t i = 0; i < b->n_rares; i++) sum = mix(sum, b->rares[i].start_ns);
  for (uint32_t r = 0, i = 0; r < b->n_runs; i += b->run_events[r++])
    if (b->run_events[r] != 0 && b->run_thread[r] != b->thread[i]) sum = mix(sum, 1);
  for (uint32_t i = 0; i < b->n; i += 997)
    if (mlz_block_time(b, i) != b->time_ns[i]) sum = mix(sum, 2);
  return sum;
}

static void prepare(void *context, const struct mlz_block *b, void *memory) {
  struct sums *s = context;
  struct part *part = memory;
  if (part->room < b->n_classes + 1) {
    part->room = b->n_classes + 1;
    free(part->sums);
    part->sums = malloc(part->room * sizeof *part->sums);
    if (part->sums == NULL) abort();
  }
  size_t near = 0;
  uint64_t ns = 0, sum = sum_of(b);
  for (uint64_t n = 0; n < b->first_alloc; n += b->first_alloc / 16 + 1)
    if (mlz_trace_alloc_time_near(s->t, &near, b->process, n, &ns)) sum = mix(sum, ns);
  part->sums[0] = sum;
}

static void take(void *context, const struct mlz_block *b, void *memory) {
  struct sums *s = context;
  s->chunks++;
  s->all = mix(s->all, sum_of(b));
  s->prepared = mix(s->prepared, ((const struct part *)memory)->sums[0]);
}

static void clear(void *memory) { free(((struct part *)memory)->sums); }

static bool skip(void *context, const struct mlz_ahead *a) {
  (void)context;
  return a->ordinal / 262144 % 5 == 3;
}
static bool pass(void *context, const struct mlz_ahead *a) { return skip(context, a) || a->ordinal / 262144 % 7 == 2; }
static bool say_skip(void *context, const struct mlz_ahead *a) { /* more than is passed over after all */
  return skip(context, a) || a->ordinal == 0;
}

static struct sums read_with(struct mlz_trace *t, unsigned jobs, bool some) {
  struct sums s = {.t = t};
  int rc = mlz_trace_read_all(t, &(struct mlz_reading){.want = MLZ_WANT_ALL,
                                                       .jobs = jobs,
                                                       .part_bytes = sizeof(struct part),
                                                       .skip = some ? say_skip : NULL,
                                                       .pass = some ? pass : NULL,
                                                       .prepare = prepare,
                                                       .clear = clear,
                                                       .take = take,
                                                       .context = &s});
  if (rc != 0) {
    fprintf(stderr, "read_stress: %s\n", strerror(-rc));
    exit(2);
  }
  return s;
}

static int compare(const char *path) {
  char err[256];
  struct mlz_trace *t;
  if (mlz_trace_open(&t, path, err, sizeof err) != 0) {
    fprintf(stderr, "read_stress: %s: %s\n", path, err);
    return 1;
  }
  int failed = 0;
  uint64_t chunks = 0;
  struct mlz_block b;
  while (mlz_trace_next(t, 0, &b) == 1) chunks++;
  struct mlz_damage damage = *mlz_trace_damage(t);
  for (int some = 0; some < 2; some++) {
    struct sums one = read_with(t, 1, some);
    if (!some) failed |= one.chunks != chunks;
    if (some && chunks > 4) failed |= one.chunks == 0 || one.chunks >= chunks;
    for (unsigned jobs = 2; jobs <= MLZ_JOBS_MAX; jobs += 3) {
      struct sums more = read_with(t, jobs, some);
      if (more.all != one.all || more.prepared != one.prepared || more.chunks != one.chunks) {
        fprintf(stderr, "read_stress: %s: %u threads read otherwise than one\n", path, jobs);
        failed = 1;
      }
    }
  }
  failed |= memcmp(&damage, mlz_trace_damage(t), sizeof damage) != 0;
  mlz_trace_close(t);
  return failed;
}

int main(int argc, char **argv) {
  int failed = argc < 2;
  for (int i = 1; i < argc; i++) failed |= compare(argv[i]);
  return failed;
}
