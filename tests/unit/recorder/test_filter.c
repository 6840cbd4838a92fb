#include "fake.h"
#include "tracer/recorder/filter.h"

static unsigned match(const char *pattern, const char *module, const char *name) {
  struct mlz_filter filter = {0};
  cr_assert_null(mlz_patterns_add(&filter.include, pattern));
  unsigned matches = mlz_filter_code(&filter, module, strlen(module), name, strlen(name));
  mlz_patterns_deinit(&filter.include);
  cr_assert(matches == 0 || matches == MLZ_MATCH_INCLUDE);
  return matches != 0;
}

Test(filter, a_pattern_is_a_glob_of_modules_and_functions) {
  static const struct {
    const char *pattern, *module, *name;
    bool matches;
  } rows[] = {
      {"json", "json", "loads", true},
      {"json", "json.decoder", "JSONDecoder.decode", false},
      {"json.*", "json", "loads", true},
      {"json.*", "json", "<module>", true},
      {"json.*", "json.decoder", "JSONDecoder.decode", true},
      {"json.*", "jsonschema", "validate", false},
      {"json.decoder.*", "json", "decoder", true}, /* json.decoder is its name */
      {"json.loads", "json", "loads", true},
      {"json.loads", "json", "dumps", false},
      {"json.JSON*.*code", "json", "JSONDecoder.decode", true},
      {"*", "app", "main", true},
      {"*", "", "<unknown>", true},
      {"app.main", "", "main", false},
      {"main", "", "main", true},
      {"main", "app", "main", false},
      {"app.[mn]ain", "app", "main", true},
      {"app.[!m]ain", "app", "main", false},
      {"app.ma?n", "app", "main", true},
      {"app\\*", "app", "main", false},
      {"App", "app", "main", false},
      {"*.<lambda>", "app", "f.<locals>.<lambda>", true},
      {"gr\xc3\xb6\xc3\x9f"
       "e.*",
       "gr\xc3\xb6\xc3\x9f"
       "e",
       "f", true},
      {".*", "app", "main", false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    cr_expect_eq(match(rows[i].pattern, rows[i].module, rows[i].name), rows[i].matches, "%s against %s and %s", rows[i].pattern,
                 rows[i].module, rows[i].name);
}

Test(filter, what_is_no_pattern) {
  struct mlz_patterns p = {0};
  char longer[300] = "";
  memset(longer, 'x', sizeof longer - 1);
  cr_assert_not_null(mlz_patterns_add(&p, ""));
  cr_assert_not_null(mlz_patterns_add(&p, "a\nb"));
  cr_assert_not_null(mlz_patterns_add(&p, "\xff"));
  cr_assert_not_null(mlz_patterns_add(&p, longer));
  cr_assert_eq(p.n, 0);
}

Test(filter, exclude_is_of_the_innermost_frame_and_wins) {
  struct mlz_filter none = {0}, in = {.include.n = 1}, out = {.exclude.n = 1}, both = {.include.n = 1, .exclude.n = 1};
  cr_assert(mlz_filter_keeps(&none, 0, 0));
  cr_assert(mlz_filter_keeps(&in, MLZ_MATCH_INCLUDE, 0));
  cr_assert_not(mlz_filter_keeps(&in, 0, 0), "no frame, include given");
  cr_assert(mlz_filter_keeps(&out, 0, 0), "no frame, exclude only");
  cr_assert(mlz_filter_keeps(&out, MLZ_MATCH_EXCLUDE, 0), "further out it does not count");
  cr_assert_not(mlz_filter_keeps(&out, MLZ_MATCH_EXCLUDE, MLZ_MATCH_EXCLUDE));
  cr_assert_not(mlz_filter_keeps(&both, 3, 3));
  cr_assert(mlz_filter_keeps(&both, 3, MLZ_MATCH_INCLUDE));
}

static struct fake f;

/* Ring with two functions, `wanted` (code 1) and `other` (code 2), both of module app. */
static struct fake_ring *begin(const struct mlz_filter *filter) {
  fake_begin(&f);
  mlz_symbols_set_filter(&f.d.symbols, filter);
  struct fake_ring *x = fake_ring(&f, 0, 1);
  fake_code(x, 1, "wanted", 1, 1);
  fake_code(x, 2, "other", 10, 1);
  return x;
}

static void alloc(struct fake_ring *x, uint32_t code, uint64_t granule, uint64_t size) {
  uint64_t frame = MLZ_FRAME(code, 0);
  fake_event(x, MLZ_K_ALLOC, MLZ_F_RESET, fake_domain, granule, size, 0, &frame, 1);
}

static const char *pattern = "app.wanted";

Test(filter, blocks_of_other_stacks_leave_no_record) {
  struct mlz_filter filter = {.include = {&pattern, 1}};
  struct fake_ring *x = begin(&filter);
  alloc(x, 1, 100, 64);
  alloc(x, 2, 200, 32);
  fake_alloc(x, 201, 33); /* the same stack */
  fake_event(x, MLZ_K_ALLOC, MLZ_F_NOSTACK, fake_domain, 300, 16, 0, NULL, 0);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 64);
  cr_assert_eq(f.d.peak_bytes, 64);
  cr_assert_eq(f.d.images->heap.live, 4);
  fake_free(x, 200);
  fake_free(x, 300);
  fake_free(x, 100);
  fake_free(x, 201);
  fake_free(x, 4711); /* nobody knows what it was */
  mlz_drain_round(&f.d);
  struct mlz_counters t = mlz_drain_counters(&f.d);
  cr_assert_eq(t.allocs, 1);
  cr_assert_eq(t.frees, 1);
  cr_assert_eq(t.seen, 4);
  cr_assert_eq(t.filtered, 3);
  cr_assert_eq(t.frees_filtered, 4);
  cr_assert_eq(t.frees_foreign, 0);
  cr_assert_eq(f.d.live_bytes, 0);
  cr_assert_eq(f.d.images->heap.live, 0);
  struct mlz_trace *trace = fake_end(&f);
  cr_assert_str_eq(fake_events(trace, 1), "+64 -64");
  cr_assert_eq(mlz_trace_stacks(trace), 3, "the empty one, the wanted one, and the reader's for lost ones");
  mlz_trace_close(trace);
}

Test(filter, exclude_keeps_what_has_no_stack) {
  struct mlz_filter filter = {.exclude = {&pattern, 1}};
  struct fake_ring *x = begin(&filter);
  alloc(x, 1, 100, 64);
  alloc(x, 2, 200, 32);
  fake_event(x, MLZ_K_ALLOC, MLZ_F_NOSTACK, fake_domain, 300, 16, 0, NULL, 0);
  fake_free(x, 100);
  struct mlz_trace *trace = fake_end(&f);
  cr_assert_str_eq(fake_events(trace, 1), "+32 +16");
  mlz_trace_close(trace);
}

/* From a filtered stack to a wanted one and back: the old block's free and the new one's allocation are each by their own stack. */
Test(filter, realloc_across_the_filter) {
  struct mlz_filter filter = {.include = {&pattern, 1}};
  struct fake_ring *x = begin(&filter);
  uint64_t wanted = MLZ_FRAME(1, 0), other = MLZ_FRAME(2, 0);
  alloc(x, 2, 100, 64);
  fake_word(x, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, fake_domain, 100));
  fake_event(x, MLZ_K_REALLOC_END, MLZ_F_RESET, fake_domain, 100, 128, 0, &wanted, 1);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 128);
  fake_word(x, mlz_head_word(MLZ_K_REALLOC_BEGIN, 0, fake_domain, 100));
  fake_event(x, MLZ_K_REALLOC_END, MLZ_F_RESET, fake_domain, 200, 256, 0, &other, 1);
  mlz_drain_round(&f.d);
  cr_assert_eq(f.d.live_bytes, 0);
  cr_assert_eq(f.d.images->heap.live, 1);
  struct mlz_trace *trace = fake_end(&f);
  cr_assert_str_eq(fake_events(trace, 1), "+128 -128");
  mlz_trace_close(trace);
}

Test(filter, mappings_and_collections) {
  struct mlz_filter filter = {.include = {&pattern, 1}};
  struct fake_ring *x = begin(&filter);
  uint64_t other = MLZ_FRAME(2, 0);
  fake_event(x, MLZ_K_MMAP, MLZ_F_RESET, MLZ_D_MMAP, 1 << 12, 1 << 20, 0, &other, 1);
  fake_put(x, mlz_head_word(MLZ_K_MUNMAP, 0, MLZ_D_MMAP, (1 << 12) + 256), 4096); /* out of its middle: two pieces stay */
  fake_publish(x);
  fake_put(x, mlz_head_word(MLZ_K_GC_START, 0, 0, 2), 1);
  fake_put(x, mlz_head_word(MLZ_K_GC_STOP, 0, 0, 2), 2);
  fake_put(x, 0, 0);
  fake_publish(x);
  mlz_drain_round(&f.d);
  struct mlz_counters t = mlz_drain_counters(&f.d);
  cr_assert_eq(t.seen, 1);
  cr_assert_eq(t.filtered - t.filtered_pieces, 1);
  cr_assert_eq(t.pieces, 0);
  struct mlz_trace *trace = fake_end(&f);
  cr_assert_str_eq(fake_events(trace, 1), "!16");
  struct mlz_block b;
  mlz_trace_rewind(trace);
  cr_assert_eq(mlz_trace_next(trace, MLZ_WANT_ALL, &b), 1);
  uint32_t n;
  bool truncated;
  const uint32_t *stack = mlz_trace_stack(trace, b.rares[0].stack, &n, &truncated);
  cr_assert_eq(n, 1);
  cr_assert_str_eq(mlz_trace_string(trace, mlz_trace_frame(trace, stack[0]).function), "other", "a collection keeps its stack");
  mlz_trace_close(trace);
}
