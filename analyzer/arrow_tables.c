/* The columns of all tables, and the rows of those that are in memory. docs/python.md says what each column is. */
#include "analyzer/arrow_trace.h"

#include <stdlib.h>
#include <string.h>

#define END                                                                                                                                \
  { NULL, 0, false, NULL }

static const char *const domains[] = {"raw", "mem", "obj", "malloc", "mmap", NULL}; /* enum mlz_block_domain */
static const char *const languages[] = {"python", "native", NULL};                  /* enum mlz_language */
static const char *const kinds[] = {"mark", "snapshot", NULL};

/* ---- columns ---- */

static const struct mlz_arrow_field allocation_fields[] = {
    {"time", MLZ_ARROW_I64, false, NULL},       {"address_order", MLZ_ARROW_I64, false, NULL},
    {"size", MLZ_ARROW_I64, false, NULL},       {"stack", MLZ_ARROW_U32, false, NULL},
    {"thread", MLZ_ARROW_U32, false, NULL},     {"process", MLZ_ARROW_U32, false, NULL},
    {"lifetime", MLZ_ARROW_I64, true, NULL},    {"domain", MLZ_ARROW_NAMED, false, domains},
    {"weight", MLZ_ARROW_F64, false, NULL},     {"stack_id", MLZ_ARROW_I64, false, NULL},
    {"temporary", MLZ_ARROW_BOOL, false, NULL}, {"live_at_end", MLZ_ARROW_BOOL, false, NULL},
    {"after_end", MLZ_ARROW_BOOL, false, NULL}, END};
static const struct mlz_arrow_field stack_fields[] = {
    {"stack", MLZ_ARROW_U32, false, NULL},           {"stack_id", MLZ_ARROW_I64, false, NULL},   {"calls_id", MLZ_ARROW_I64, false, NULL},
    {"depth", MLZ_ARROW_U32, false, NULL},           {"truncated", MLZ_ARROW_BOOL, false, NULL}, {"function", MLZ_ARROW_TEXT, false, NULL},
    {"file", MLZ_ARROW_TEXT, false, NULL},           {"line", MLZ_ARROW_U32, false, NULL},       {"module", MLZ_ARROW_TEXT, false, NULL},
    {"language", MLZ_ARROW_NAMED, false, languages}, {"frames", MLZ_ARROW_U32S, false, NULL},    END};
static const struct mlz_arrow_field frame_fields[] = {{"frame", MLZ_ARROW_U32, false, NULL},
                                                      {"frame_id", MLZ_ARROW_I64, false, NULL},
                                                      {"function", MLZ_ARROW_TEXT, false, NULL},
                                                      {"file", MLZ_ARROW_TEXT, false, NULL},
                                                      {"line", MLZ_ARROW_U32, false, NULL},
                                                      {"module", MLZ_ARROW_TEXT, false, NULL},
                                                      {"language", MLZ_ARROW_NAMED, false, languages},
                                                      END};
static const struct mlz_arrow_field thread_fields[] = {{"thread", MLZ_ARROW_U32, false, NULL},
                                                       {"process", MLZ_ARROW_U32, false, NULL},
                                                       {"tid", MLZ_ARROW_I64, true, NULL},
                                                       {"name", MLZ_ARROW_TEXT, false, NULL},
                                                       {"main", MLZ_ARROW_BOOL, false, NULL},
                                                       {"start", MLZ_ARROW_I64, true, NULL},
                                                       {"end", MLZ_ARROW_I64, true, NULL},
                                                       {"events", MLZ_ARROW_I64, true, NULL},
                                                       {"dropped", MLZ_ARROW_I64, true, NULL},
                                                       {"blocked", MLZ_ARROW_I64, true, NULL},
                                                       END};
static const struct mlz_arrow_field process_fields[] = {{"process", MLZ_ARROW_U32, false, NULL},
                                                        {"pid", MLZ_ARROW_I64, true, NULL},
                                                        {"parent", MLZ_ARROW_I64, true, NULL},
                                                        {"parent_process", MLZ_ARROW_I64, true, NULL},
                                                        {"origin", MLZ_ARROW_TEXT, true, NULL},
                                                        {"command", MLZ_ARROW_TEXT, true, NULL},
                                                        {"python_version", MLZ_ARROW_TEXT, true, NULL},
                                                        {"start", MLZ_ARROW_I64, true, NULL},
                                                        {"end", MLZ_ARROW_I64, true, NULL},
                                                        {"how", MLZ_ARROW_TEXT, true, NULL},
                                                        {"finalize", MLZ_ARROW_I64, true, NULL},
                                                        END};
static const struct mlz_arrow_field mark_fields[] = {{"time", MLZ_ARROW_I64, false, NULL},    {"name", MLZ_ARROW_TEXT, false, NULL},
                                                     {"kind", MLZ_ARROW_NAMED, false, kinds}, {"process", MLZ_ARROW_U32, false, NULL},
                                                     {"thread", MLZ_ARROW_U32, false, NULL},  END};
static const struct mlz_arrow_field collection_fields[] = {
    {"start", MLZ_ARROW_I64, false, NULL},         {"duration", MLZ_ARROW_I64, false, NULL},
    {"generation", MLZ_ARROW_U32, false, NULL},    {"collected", MLZ_ARROW_I64, false, NULL},
    {"uncollectable", MLZ_ARROW_I64, false, NULL}, {"stack", MLZ_ARROW_U32, false, NULL},
    {"stack_id", MLZ_ARROW_I64, false, NULL},      {"process", MLZ_ARROW_U32, false, NULL},
    {"thread", MLZ_ARROW_U32, false, NULL},        END};
static const struct mlz_arrow_field total_fields[] = {{"process", MLZ_ARROW_U32, false, NULL},
                                                      {"stack", MLZ_ARROW_U32, false, NULL},
                                                      {"stack_id", MLZ_ARROW_I64, false, NULL},
                                                      {"domain", MLZ_ARROW_NAMED, false, domains},
                                                      {"alloc_count", MLZ_ARROW_I64, false, NULL},
                                                      {"alloc_bytes", MLZ_ARROW_I64, false, NULL},
                                                      {"free_count", MLZ_ARROW_I64, false, NULL},
                                                      {"free_bytes", MLZ_ARROW_I64, false, NULL},
                                                      {"live_count", MLZ_ARROW_I64, false, NULL},
                                                      {"live_bytes", MLZ_ARROW_I64, false, NULL},
                                                      {"temporary_count", MLZ_ARROW_I64, false, NULL},
                                                      {"temporary_bytes", MLZ_ARROW_I64, false, NULL},
                                                      {"peak_count", MLZ_ARROW_I64, true, NULL},
                                                      {"peak_bytes", MLZ_ARROW_I64, true, NULL},
                                                      END};

/* ---- values ---- */

uint64_t mlz_read_number(const json_t *object, const char *key, bool *there) {
  const json_t *v = json_object_get(object, key);
  *there = json_is_integer(v) && json_integer_value(v) >= 0;
  return *there ? (uint64_t)json_integer_value(v) : 0;
}

static void put_number(struct mlz_arrow_batch *b, size_t at, const json_t *object, const char *key) {
  bool there;
  uint64_t value = mlz_read_number(object, key, &there);
  if (there)
    mlz_arrow_i64(b, at, (int64_t)value);
  else
    mlz_arrow_null(b, at);
}

static void put_text(struct mlz_arrow_batch *b, size_t at, const char *text) { mlz_arrow_text(b, at, text, strlen(text)); }
static void put_string(struct mlz_arrow_batch *b, size_t at, const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  if (text)
    put_text(b, at, text);
  else
    mlz_arrow_null(b, at);
}
static void put_name(struct mlz_arrow_batch *b, size_t at, const struct memlyze_read *r, uint32_t string) {
  put_text(b, at, mlz_trace_string(r->trace, string));
}

static void put_frame(struct mlz_arrow_batch *b, size_t function, const struct memlyze_read *r, const struct mlz_frame *f) {
  put_name(b, function, r, f->function);
  put_name(b, function + 1, r, f->file);
  mlz_arrow_u32(b, function + 2, f->line);
  put_name(b, function + 3, r, f->module);
  mlz_arrow_named(b, function + 4, f->language != MLZ_LANG_PYTHON);
}

/* The words with blanks between them. */
static void put_command(struct mlz_arrow_batch *b, size_t at, const json_t *object) {
  const json_t *words = json_object_get(object, "command"), *word;
  size_t i, n = 0, used = 0;
  if (!json_is_array(words)) {
    put_string(b, at, object, "command");
    return;
  }
  json_array_foreach(words, i, word) n += json_string_length(word) + 1;
  char *line = malloc(n + 1);
  if (!line) b->failed = true;
  json_array_foreach(words, i, word) {
    const char *text = json_string_value(word);
    size_t length = json_string_length(word);
    if (!line || !text) continue;
    if (used) line[used++] = ' ';
    memcpy(line + used, text, length);
    used += length;
  }
  mlz_arrow_text(b, at, line, line ? used : 0);
  free(line);
}

/* ---- rows ---- */

static uint64_t stacks_n(struct memlyze_read *r) { return mlz_trace_stacks(r->trace); }
static void stack_row(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i) {
  uint32_t n;
  bool truncated;
  const uint32_t *frames = mlz_trace_stack(r->trace, (uint32_t)i, &n, &truncated);
  struct mlz_frame innermost = mlz_trace_frame(r->trace, n ? frames[0] : 0);
  mlz_arrow_u32(b, 0, (uint32_t)i);
  mlz_arrow_i64(b, 1, r->identity.stacks[i]);
  mlz_arrow_i64(b, 2, r->identity.calls[i]);
  mlz_arrow_u32(b, 3, n);
  mlz_arrow_bool(b, 4, truncated);
  put_frame(b, 5, r, &innermost);
  mlz_arrow_u32s(b, 10, frames, n);
  mlz_arrow_row(b);
}

static uint64_t frames_n(struct memlyze_read *r) { return mlz_trace_frames(r->trace); }
static void frame_row(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i) {
  struct mlz_frame f = mlz_trace_frame(r->trace, (uint32_t)i);
  mlz_arrow_u32(b, 0, (uint32_t)i);
  mlz_arrow_i64(b, 1, r->identity.frames[i]);
  put_frame(b, 2, r, &f);
  mlz_arrow_row(b);
}

static uint64_t threads_n(struct memlyze_read *r) { return mlz_trace_threads(r->trace); }
static void thread_row(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i) {
  static const char *const numbers[] = {"start_ns", "end_ns", "events", "dropped", "blocked_ns"};
  const json_t *row = mlz_trace_thread(r->trace, i);
  bool there;
  const char *name = json_string_value(json_object_get(row, "name"));
  mlz_arrow_u32(b, 0, (uint32_t)mlz_read_number(row, "id", &there));
  mlz_arrow_u32(b, 1, (uint32_t)mlz_read_number(row, "process", &there));
  put_number(b, 2, row, "tid");
  put_text(b, 3, name ? name : "");
  mlz_arrow_bool(b, 4, json_is_true(json_object_get(row, "main")));
  for (size_t k = 0; k < 5; k++) put_number(b, 5 + k, row, numbers[k]);
  mlz_arrow_row(b);
}

static uint64_t processes_n(struct memlyze_read *r) { return mlz_trace_processes(r->trace); }
static void process_row(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i) {
  const json_t *row = mlz_trace_process(r->trace, i);
  bool there;
  mlz_arrow_u32(b, 0, (uint32_t)mlz_read_number(row, "id", &there));
  put_number(b, 1, row, "pid");
  put_number(b, 2, row, "parent");
  put_number(b, 3, row, "parent_process");
  put_string(b, 4, row, "origin");
  put_command(b, 5, row);
  put_string(b, 6, row, "python_version");
  put_number(b, 7, row, "start_ns");
  put_number(b, 8, row, "end_ns");
  put_string(b, 9, row, "end");
  put_number(b, 10, row, "finalize_ns");
  mlz_arrow_row(b);
}

static uint64_t rares_n(struct memlyze_read *r) { return r->n_rares; }
static void mark_row(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i) {
  const struct mlz_read_rare *m = &r->rares[i];
  if (m->rare.op == MLZ_OP_GC) return;
  mlz_arrow_i64(b, 0, (int64_t)m->rare.start_ns);
  put_name(b, 1, r, m->rare.name);
  mlz_arrow_named(b, 2, m->rare.op == MLZ_OP_SNAPSHOT);
  mlz_arrow_u32(b, 3, m->process);
  mlz_arrow_u32(b, 4, m->thread);
  mlz_arrow_row(b);
}
static void collection_row(struct memlyze_read *r, struct mlz_arrow_batch *b, uint64_t i) {
  const struct mlz_read_rare *c = &r->rares[i];
  if (c->rare.op != MLZ_OP_GC) return;
  uint32_t lost = mlz_trace_stacks(r->trace) - 1, stack = c->rare.stack < lost ? c->rare.stack : lost;
  mlz_arrow_i64(b, 0, (int64_t)c->rare.start_ns);
  mlz_arrow_i64(b, 1, (int64_t)c->rare.duration_ns);
  mlz_arrow_u32(b, 2, c->rare.generation);
  mlz_arrow_i64(b, 3, (int64_t)c->rare.collected);
  mlz_arrow_i64(b, 4, (int64_t)c->rare.uncollectable);
  mlz_arrow_u32(b, 5, stack);
  mlz_arrow_i64(b, 6, r->identity.stacks[stack]);
  mlz_arrow_u32(b, 7, c->process);
  mlz_arrow_u32(b, 8, c->thread);
  mlz_arrow_row(b);
}

const struct mlz_read_table mlz_read_tables[MEMLYZE_TABLES] = {
    [MEMLYZE_ALLOCATIONS] = {allocation_fields, true, true, NULL, NULL},
    [MEMLYZE_STACKS] = {stack_fields, false, true, stacks_n, stack_row},
    [MEMLYZE_FRAMES] = {frame_fields, false, true, frames_n, frame_row},
    [MEMLYZE_THREADS] = {thread_fields, false, false, threads_n, thread_row},
    [MEMLYZE_PROCESSES] = {process_fields, false, false, processes_n, process_row},
    [MEMLYZE_MARKS] = {mark_fields, true, false, rares_n, mark_row},
    [MEMLYZE_COLLECTIONS] = {collection_fields, true, true, rares_n, collection_row},
    [MEMLYZE_TOTALS] = {total_fields, true, true, NULL, NULL},
};
