/* --snapshots-only: the same messages, drained into events and into totals, amount to the same. */
#include "fake.h"

static struct fake f;

enum { STACKS = 5, CELLS = 64 };
struct sums {
  double is[MLZ_BLOCK_DOMAINS][STACKS + 2][MLZ_TOTALS]; /* by stack id of the file, weighted but for the largest size */
  uint64_t foreign;
};

static uint64_t seed;
static uint64_t draw(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  return seed ^= seed << 17;
}

static void begin(bool totals) {
  fake_begin(&f);
  if (totals) { /* as main.c makes it */
    mlz_writer_free(f.writer);
    json_t *meta = json_object();
    cr_assert_eq(mlz_writer_new_totals_only(&f.writer, open(f.path, O_RDWR | O_TRUNC), meta, 0), 0);
    json_decref(meta);
    mlz_emit_join(f.emit);
    mlz_emit_free(f.emit);
    cr_assert_eq(mlz_emit_new(&f.emit, f.writer), 0);
    mlz_drain_deinit(&f.d);
    cr_assert_eq(mlz_drain_init(&f.d, f.arena.control, f.writer, f.emit, 1), 0);
    f.d.totals_only = true;
  }
}

/* Allocations, frees, reallocs and mappings at some lines, and a change of the rate; snapshots between. */
static struct fake_ring *stream(unsigned rounds, bool sampled, unsigned snapshots) {
  struct fake_ring *x = fake_ring(&f, 0, 1);
  uint64_t live[CELLS] = {0}, last = 0;
  seed = 4711;
  fake_code(x, 1, "work", 1, 1);
  for (unsigned round = 0; round < rounds; round++) {
    if (sampled && round == rounds / 2) {
      fake_put(x, mlz_head_word(MLZ_K_SETTINGS, 0, 0, 0), (f.arena.control->settings & ~MLZ_SET_RATE_MASK) | UINT64_C(429496730));
      fake_put(x, 0, 0);
      fake_publish(x);
    }
    for (unsigned i = 0; i < 200; i++) {
      uint64_t r = draw();
      unsigned cell = (unsigned)(r % CELLS);
      if (live[cell]) {
        fake_free_after(x, live[cell], live[cell] == last ? last : 0);
        live[cell] = 0;
        last = 0;
        continue;
      }
      uint64_t frame = MLZ_FRAME(1, (r >> 20) % STACKS * 2), granule = 1000 + cell * 8;
      fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET, (r >> 40) % 3, granule, (r >> 50) % 128, 0, &frame, 1);
      last = live[cell] = granule;
    }
    if (live[0]) { /* by the general way */
      fake_word(x, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, MLZ_D_OBJ, live[0]));
      fake_event(x, MLZ_K_REALLOC_END, 0, MLZ_D_OBJ, live[0], 77, 0, NULL, 0);
    }
    fake_free(x, 9999999); /* of nothing */
    fake_event(x, MLZ_K_MMAP, 0, MLZ_D_MMAP, (UINT64_C(1) << 30) + round * 4096, 65536, 0, NULL, 0);
    if (round % 2) {
      fake_put(x, mlz_head_word(MLZ_K_MUNMAP, 0, MLZ_D_MMAP, (UINT64_C(1) << 30) + round * 4096 + 256), 4096);
      fake_publish(x);
    }
    mlz_drain_round(&f.d);
    if (snapshots && round % snapshots == 0) {
      fake_put(x, mlz_head_word(MLZ_K_MARK, 0, 0, 0), round + 1);
      fake_put(x, fake_text(x, "s", 1), MLZ_MARK_SNAPSHOT);
      fake_publish(x);
      mlz_drain_round(&f.d);
      mlz_image_seal(&f.d);
    }
  }
  return x;
}

static void add(struct sums *s, const struct mlz_class *c, uint8_t op) {
  bool alloc = op == MLZ_OP_ALLOC, temporary = op == MLZ_OP_FREE_TEMP || op == MLZ_OP_FREE_OLD_TEMP;
  double *is = s->is[c->domain][c->stack], size = (double)c->size, square = c->weight > 1 ? size * size : 0;
  is[alloc ? MLZ_TOTAL_ALLOCS : MLZ_TOTAL_FREES] += c->weight;
  is[alloc ? MLZ_TOTAL_ALLOC_BYTES : MLZ_TOTAL_FREE_BYTES] += c->weight * size;
  is[MLZ_TOTAL_TEMPS] += temporary ? c->weight : 0;
  is[MLZ_TOTAL_TEMP_BYTES] += temporary ? c->weight * size : 0;
  if (alloc && size > is[MLZ_TOTAL_SIZE_MAX]) is[MLZ_TOTAL_SIZE_MAX] = size;
  is[alloc ? MLZ_TOTAL_ALLOC_SQUARES : MLZ_TOTAL_FREE_SQUARES] += square;
}

static struct sums of_events(struct mlz_trace *t) {
  static struct sums s;
  struct mlz_block b;
  memset(&s, 0, sizeof s);
  cr_assert_not(mlz_trace_totals_only(t));
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {
    for (uint32_t i = 0; i < b.n; i++) {
      if (b.ops[i] == MLZ_OP_FREE_FOREIGN) s.foreign++;
      if (b.ops[i] < MLZ_OP_FREE_FOREIGN) add(&s, &b.classes[b.classes_of[i]], b.ops[i]);
    }
  }
  mlz_trace_close(t);
  return s;
}

static struct sums of_points(struct mlz_trace *t, unsigned *points) {
  static struct sums s;
  struct mlz_totals_point p;
  struct mlz_block b;
  cr_assert(mlz_trace_totals_only(t));
  *points = 0;
  while (mlz_trace_totals_next(t, &p) == 1) {
    ++*points;
    cr_assert(p.known);
    memset(&s, 0, sizeof s);
    s.foreign = p.head.foreign;
    for (uint32_t i = 0; i < p.n; i++) {
      const struct mlz_totals_row *row = &p.rows[i];
      double *is = s.is[row->key.domain][row->key.stack];
      for (unsigned k = 0; k < MLZ_TOTALS; k++) {
        double value = (double)row->is[k];
        if (k == MLZ_TOTAL_SIZE_MAX)
          is[k] = value > is[k] ? value : is[k];
        else
          is[k] += k > MLZ_TOTAL_SIZE_MAX ? value * MLZ_TOTAL_SQUARE : value * row->key.weight;
      }
    }
  }
  cr_assert_eq(p.head.point, MLZ_POINT_END);
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {
    for (uint32_t i = 0; i < b.n; i++) cr_assert_geq(b.ops[i], MLZ_OP_RARE, "no event of a block");
  }
  mlz_trace_close(t);
  return s;
}

static struct mlz_trace *ended(void) {
  for (struct mlz_image *m = f.d.images; m; m = m->next) {
    m->last_ns = f.d.clock_ns;
    mlz_image_close(&f.d, m, MLZ_END_CUT);
  }
  mlz_image_seal(&f.d);
  return fake_end(&f);
}

static void same(const struct sums *a, const struct sums *b) {
  cr_assert_eq(a->foreign, b->foreign);
  for (unsigned d = 0; d < MLZ_BLOCK_DOMAINS; d++)
    for (unsigned s = 0; s < STACKS + 2; s++)
      for (unsigned k = 0; k < MLZ_TOTALS; k++) {
        double off = k > MLZ_TOTAL_SIZE_MAX ? MLZ_TOTAL_SQUARE : 1e-6;
        cr_assert_float_eq(a->is[d][s][k], b->is[d][s][k], off, "domain %u, stack %u, field %u: %f, %f", d, s, k, a->is[d][s][k],
                           b->is[d][s][k]);
      }
}

static void compare(bool sampled) {
  unsigned points;
  begin(false);
  stream(60, sampled, 0);
  struct mlz_counters counted = mlz_drain_counters(&f.d);
  uint64_t live = f.d.live_bytes, peak = f.d.peak_bytes;
  struct sums events = of_events(fake_end(&f));
  begin(true);
  stream(60, sampled, 7);
  struct mlz_counters t = mlz_drain_counters(&f.d);
  cr_assert_eq(t.allocs, counted.allocs);
  cr_assert_eq(t.frees, counted.frees);
  cr_assert_eq(t.seen, counted.seen);
  cr_assert_eq(f.d.live_bytes, live);
  cr_assert_eq(f.d.peak_bytes, peak);
  struct sums totals = of_points(ended(), &points);
  cr_assert_eq(points, 9 + 1);
  same(&events, &totals);
  cr_assert_gt(events.is[2][1][MLZ_TOTAL_TEMPS], 0);
}

Test(totals, the_same_as_events) { compare(false); }
Test(totals, the_same_as_events_at_two_rates) { compare(true); }

/* Every 64th point stands alone; rows keep their meaning. */
Test(totals, many_points) {
  unsigned points;
  begin(true);
  stream(150, false, 1);
  struct sums a = of_points(ended(), &points);
  cr_assert_eq(points, 151);
  begin(true);
  stream(150, false, 0);
  struct sums b = of_points(ended(), &points);
  cr_assert_eq(points, 1);
  same(&a, &b);
}

/* The end of an interpreter is a point, what it frees later another. */
Test(totals, the_end_and_what_comes_after) {
  begin(true);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 100, 64);
  fake_alloc(x, 200, 32);
  fake_free(x, 200);
  fake_put(x, mlz_head_word(MLZ_K_FINALIZE, 0, 0, 0), 5);
  fake_publish(x);
  fake_free(x, 100);
  mlz_drain_round(&f.d);
  struct mlz_trace *t = ended();
  struct mlz_totals_point p;
  cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
  cr_assert_eq(p.head.point, MLZ_POINT_END);
  cr_assert(p.rows[0].is[MLZ_TOTAL_ALLOCS] == 2 && p.rows[0].is[MLZ_TOTAL_FREES] == 1);
  cr_assert_eq(p.head.peak_bytes, 96);
  cr_assert_eq(p.head.allocations, 2);
  cr_assert_eq(mlz_trace_totals_next(t, &p), 1);
  cr_assert_eq(p.head.point, MLZ_POINT_EXIT);
  cr_assert_eq(p.rows[0].is[MLZ_TOTAL_FREES], 2);
  cr_assert_eq(p.head.peak_bytes, 64, "since the point before");
  cr_assert_eq(mlz_trace_totals_next(t, &p), 0);
  mlz_trace_close(t);
}

/* What is filtered is in no total either. */
Test(totals, filtered) {
  static const char *pattern = "app.*";
  struct mlz_filter filter = {.exclude = {&pattern, 1}};
  unsigned points;
  begin(true);
  mlz_symbols_set_filter(&f.d.symbols, &filter);
  stream(3, false, 0);
  cr_assert_eq(f.d.live_bytes, 0);
  struct sums s = of_points(ended(), &points);
  for (unsigned d = 0; d < MLZ_BLOCK_DOMAINS; d++)
    for (unsigned k = 0; k < STACKS + 2; k++) cr_assert_float_eq(s.is[d][k][0], 0, 0);
}

/* At each multiple of the interval, by its number; what nobody was there for is left out. */
Test(totals, periodic_snapshots) {
  begin(false);
  f.d.every_ns = 1000000;
  mlz_drain_round(&f.d);
  usleep(3000);
  mlz_drain_round(&f.d); /* no process yet */
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_alloc(x, 100, 64);
  for (int i = 0; i < 10; i++) {
    usleep(700);
    mlz_drain_round(&f.d);
  }
  uint64_t snapshots = f.d.total.snapshots;
  cr_assert(snapshots >= 2 && snapshots <= 10, "%u", (unsigned)snapshots);
  struct mlz_trace *t = fake_end(&f);
  struct mlz_block b;
  unsigned long before = 0;
  while (mlz_trace_next(t, MLZ_WANT_ALL, &b) == 1) {
    for (uint32_t i = 0; i < b.n_rares; i++) {
      if (b.rares[i].op != MLZ_OP_SNAPSHOT) continue;
      const char *name = mlz_trace_string(t, b.rares[i].name);
      unsigned long number = strtoul(name + strlen("snapshot-"), NULL, 10);
      cr_assert(strncmp(name, "snapshot-", 9) == 0 && number > before && number >= 3, "%s", name);
      cr_assert_eq(b.rares[i].start_ns / 1000000, number);
      before = number;
    }
  }
  cr_assert_gt(before, 0);
  mlz_trace_close(t);
}
