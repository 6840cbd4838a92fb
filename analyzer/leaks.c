#include "analyzer/leaks.h"

#include "analyzer/begin.h"
#include "analyzer/tally.h"
#include "analyzer/text.h"
#include "analyzer/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The records of one process: a vector, and an open-addressing table from stack to place + 1. */
struct window {
  uint64_t from, to;
};
struct ledger {
  struct mlz_leak *leaks;
  uint32_t n, room;
  uint32_t *table;
  uint32_t table_size; /* a power of two; 0: none */
  struct mlz_leak_process end;
  bool run_found;
  uint64_t main_begin, main_begin_ns; /* first allocation with a frame of __main__ */
  uint64_t imports, own_since;        /* allocations of the program's imports; its own since the run begins */
  struct window *windows;             /* allocation numbers just before each collection of generation 1 or 2, in order */
  size_t n_windows, windows_room;
  uint64_t first_alloc;  /* blocks with a smaller number are from the beginning that was left out */
  uint64_t collected_at; /* allocation number of the last of these */
};

/* Of one chunk, or a slice of it. */
struct leak_part {
  struct mlz_counter counter;
  uint32_t *event_of;  /* by allocation number less the chunk's first: event + 1; 0: freed */
  uint32_t *survivors; /* allocations that outlive the chunk: number less the first */
  uint32_t *olds;      /* frees of earlier chunks' allocations: event */
  uint32_t n_survivors, n_olds, room;
};

struct class_change {
  int32_t by;
  bool listed;
};

struct leak_pass {
  struct mlz_input *in;
  bool include_mmap;
  struct ledger *ledgers; /* by process index */
  size_t n_ledgers;
  uint8_t *kinds;     /* by stack: enum mlz_stack_kind */
  uint8_t *in_main;   /* by stack: has a frame of __main__ */
  uint32_t *entry_of; /* by stack: entry + 1 */
  uint32_t n_stacks;
  struct leak_part part; /* of slices that have none */
  /* of the current chunk */
  uint32_t *record_of;            /* by class: record + 1; 0: not looked up, or not counted */
  struct class_change *change_of; /* by class, in a part of the chunk: zero but for those in `changed` */
  uint32_t *changed, n_changed;
  uint32_t record_room;
  struct mlz_leaks *out;
  uint32_t room_entries;
  struct mlz_spread sampled; /* all allocations */
};

/* ---- what the stacks are ---- */

static bool is_import_file(const char *file) {
  return !strncmp(file, "<frozen importlib", 17) || !strncmp(file, "<frozen zipimport", 17) ||
         strstr(file, "/importlib/_bootstrap") != NULL;
}

static void classify_stacks(struct leak_pass *pass) {
  struct mlz_trace *t = pass->in->trace;
  enum { IS_MAIN = 1, IS_BODY = 2, IS_IMPORT = 4 };
  uint32_t n_frames = mlz_trace_frames(t);
  uint8_t *frames = mlz_text_calloc(n_frames, 1);
  for (uint32_t i = 0; i < n_frames; i++) {
    struct mlz_frame f = mlz_trace_frame(t, i);
    if (f.language != MLZ_LANG_PYTHON) continue;
    bool is_main = !strcmp(mlz_trace_string(t, f.module), "__main__");
    bool is_body = !is_main && !strcmp(mlz_trace_string(t, f.function), "<module>");
    frames[i] =
        (uint8_t)((is_main ? IS_MAIN : 0) | (is_body ? IS_BODY : 0) | (is_import_file(mlz_trace_string(t, f.file)) ? IS_IMPORT : 0));
  }
  /* With --max-stack-depth 0 no stack says anything. */
  bool no_stacks = !mlz_input_uint(json_object_get(mlz_trace_meta(t), "settings"), "max_stack_depth", 1);
  for (uint32_t s = 0; s < pass->n_stacks; s++) {
    uint32_t n;
    bool truncated;
    const uint32_t *stack = mlz_trace_stack(t, s, &n, &truncated);
    uint8_t all = 0;
    for (uint32_t i = 0; i < n; i++) all |= frames[stack[i]];
    pass->in_main[s] = all & IS_MAIN;
    pass->kinds[s] = !n                             ? (no_stacks ? MLZ_STACK_PROGRAM : MLZ_STACK_NO_PYTHON)
                     : frames[stack[0]] & IS_IMPORT ? MLZ_STACK_IMPORT
                     : all & (IS_BODY | IS_IMPORT)  ? MLZ_STACK_MODULE_BODY
                                                    : MLZ_STACK_PROGRAM;
  }
  free(frames);
}

/* ---- ledgers ---- */

static uint32_t hash_of(uint32_t stack) { return (uint32_t)((stack * UINT64_C(0x9e3779b97f4a7c15)) >> 32); }

static void grow_table(struct ledger *l) {
  free(l->table);
  l->table_size = l->table_size ? l->table_size * 2 : 256;
  l->table = mlz_text_calloc(l->table_size, sizeof *l->table);
  for (uint32_t i = 0; i < l->n; i++) {
    uint32_t at = hash_of(l->leaks[i].stack);
    while (l->table[at & (l->table_size - 1)]) at++;
    l->table[at & (l->table_size - 1)] = i + 1;
  }
}

/* The record's place; a new one has no allocation yet. */
static uint32_t record_for(struct ledger *l, uint32_t stack) {
  if ((l->n + 1) * 2 > l->table_size) grow_table(l);
  uint32_t at = hash_of(stack);
  for (;; at++) {
    uint32_t found = l->table[at & (l->table_size - 1)];
    if (!found) break;
    if (l->leaks[found - 1].stack == stack) return found - 1;
  }
  if (l->n == l->room) {
    l->room = l->room ? l->room * 2 : 64;
    l->leaks = mlz_text_realloc(l->leaks, l->room, sizeof *l->leaks);
  }
  l->leaks[l->n] = (struct mlz_leak){.stack = stack, .origin = UINT64_MAX};
  l->table[at & (l->table_size - 1)] = l->n + 1;
  return l->n++;
}

static void clear_ledger(struct ledger *l) {
  for (uint32_t i = 0; i < l->n; i++) free(l->leaks[i].buckets);
  free(l->leaks);
  free(l->table);
  free(l->windows);
  *l = (struct ledger){0};
}

static struct ledger *ledger_of(struct leak_pass *pass, const struct mlz_process *p) {
  if (p->index >= pass->n_ledgers) {
    pass->ledgers = mlz_text_realloc(pass->ledgers, p->index + 1, sizeof *pass->ledgers);
    memset(pass->ledgers + pass->n_ledgers, 0, (p->index + 1 - pass->n_ledgers) * sizeof *pass->ledgers);
    pass->n_ledgers = p->index + 1;
  }
  return &pass->ledgers[p->index];
}

/* ---- one chunk ---- */

/* Looks up the record of each class that has events here, and adds what needs no single event. */
static unsigned add_classes(struct leak_pass *pass, struct ledger *l, const struct mlz_slice *slice, const struct mlz_counter *counter) {
  const struct mlz_block *b = slice->block;
  if (b->n_classes > pass->record_room) {
    pass->record_room = b->n_classes * 2;
    pass->record_of = mlz_text_realloc(pass->record_of, pass->record_room, sizeof *pass->record_of);
    pass->changed = mlz_text_realloc(pass->changed, pass->record_room, sizeof *pass->changed);
    free(pass->change_of);
    pass->change_of = mlz_text_calloc(pass->record_room, sizeof *pass->change_of);
  }
  unsigned fresh = 0;
  for (uint32_t c = 0; c < b->n_classes; c++) {
    const uint32_t *counts = mlz_counter_of(counter, c);
    const struct mlz_class *class = &b->classes[c];
    pass->record_of[c] = 0;
    if (!(counts[0] | counts[1] | counts[2]) || (class->domain == MLZ_BLOCK_MMAP && !pass->include_mmap) || class->stack >= pass->n_stacks)
      continue;
    uint32_t r = record_for(l, class->stack);
    struct mlz_leak *leak = &l->leaks[r];
    pass->record_of[c] = r + 1;
    fresh += leak->origin == UINT64_MAX && counts[MLZ_COUNT_ALLOC];
    leak->allocated += counts[MLZ_COUNT_ALLOC];
    mlz_tally_add_spread(&pass->sampled, class, counts);
    if (counts[MLZ_COUNT_ALLOC] && class->size > leak->size_max) { /* classes are numbered as they first come up */
      leak->size_max = class->size;
      leak->highs++;
    }
  }
  return fresh;
}

/* The first allocation of each stack that is new here, and the first of the program itself. `fresh` counts classes, so a stack with several
 * counts more than once: then the chunk is read to its end. */
static void find_origins(struct leak_pass *pass, struct ledger *l, const struct mlz_slice *slice, unsigned fresh) {
  const struct mlz_block *b = slice->block;
  for (uint32_t i = slice->from; i < slice->to && (fresh || !l->run_found); i++) {
    if (b->ops[i] != MLZ_OP_ALLOC) continue;
    uint32_t r = pass->record_of[b->classes_of[i]];
    if (!r) continue;
    struct mlz_leak *leak = &l->leaks[r - 1];
    if (leak->origin == UINT64_MAX) {
      leak->origin = b->alloc_no[i];
      fresh--;
    }
    if (!l->run_found && pass->in_main[leak->stack]) {
      l->run_found = true;
      l->end.run_begin = l->main_begin = b->alloc_no[i];
      l->end.run_begin_ns = l->main_begin_ns = mlz_block_time(b, i);
    }
  }
}

/* The run begins behind the imports that the program starts with, which may allocate many times what a short run does. What the program
 * does between two of them is little; an import later on moves nothing. After add_classes, whose counts it uses. */
static void pass_imports(struct leak_pass *pass, struct ledger *l, const struct mlz_slice *slice, const struct mlz_counter *counter) {
  enum { LITTLE = 8 }; /* a part of what the imports allocated */
  const struct mlz_block *b = slice->block;
  uint64_t imports = 0, own = 0;
  for (uint32_t c = 0; c < b->n_classes; c++) {
    if (!pass->record_of[c] || !pass->in_main[b->classes[c].stack]) continue;
    uint32_t allocs = mlz_counter_of(counter, c)[MLZ_COUNT_ALLOC];
    *(pass->kinds[b->classes[c].stack] == MLZ_STACK_PROGRAM ? &own : &imports) += allocs;
  }
  if (!imports || l->own_since * LITTLE > l->imports + imports) {
    l->imports += imports;
    l->own_since += own;
    return;
  }
  for (uint32_t i = slice->from; i < slice->to; i++) {
    if (b->ops[i] != MLZ_OP_ALLOC || !pass->record_of[b->classes_of[i]]) continue;
    uint32_t of = b->classes[b->classes_of[i]].stack;
    if (!pass->in_main[of]) continue;
    if (pass->kinds[of] == MLZ_STACK_PROGRAM) {
      l->own_since++;
    } else if (++l->imports >= l->own_since * LITTLE) {
      l->own_since = 0;
      l->end.run_begin = b->alloc_no[i] + 1;
      l->end.run_begin_ns = mlz_block_time(b, i);
    }
  }
}

/* The first window that ends beyond the allocation. */
static size_t window_of(const struct ledger *l, uint64_t alloc_no) {
  size_t low = 0, high = l->n_windows;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (l->windows[middle].to <= alloc_no)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static bool is_in_window(const struct ledger *l, size_t i, uint64_t alloc_no) {
  return i < l->n_windows && l->windows[i].from <= alloc_no && alloc_no < l->windows[i].to;
}

/* What is in use when a collection of generation 1 or 2 runs gets old; if it is garbage in cycles later on, only a full collection frees it.
 * Such blocks were allocated shortly before: in the last sixteenth of the allocations since the collection before. A window does not reach
 * back into an earlier chunk, of which the survivors are counted already. */
static void note_collections(struct ledger *l, const struct mlz_slice *slice) {
  const struct mlz_block *b = slice->block;
  uint32_t at = slice->from;
  if (!b->n_rares) return;
  uint64_t number = b->first_alloc + mlz_scan_count(b->ops, at, MLZ_OP_ALLOC);
  for (const uint8_t *op; at < slice->to && (op = memchr(b->ops + at, MLZ_OP_GC, slice->to - at)) != NULL;) {
    uint32_t next = (uint32_t)(op - b->ops);
    number += mlz_scan_count(b->ops + at, next - at, MLZ_OP_ALLOC);
    at = next + 1;
    uint32_t row = b->classes_of[next];
    if (row >= b->n_rares || !b->rares[row].generation) continue;
    if (l->n_windows == l->windows_room) {
      l->windows_room = l->windows_room ? l->windows_room * 2 : 64;
      l->windows = mlz_text_realloc(l->windows, l->windows_room, sizeof *l->windows);
    }
    uint64_t from = number - (number - l->collected_at) / 16;
    l->windows[l->n_windows++] = (struct window){from > b->first_alloc ? from : b->first_alloc, number};
    l->collected_at = number;
  }
}

static void free_old(struct leak_pass *pass, struct ledger *l, const struct mlz_block *b, uint32_t i) {
  uint32_t r = pass->record_of[b->classes_of[i]];
  if (!r) return;
  struct mlz_leak *leak = &l->leaks[r - 1];
  if (b->alloc_no[i] < l->first_alloc) {
    const struct mlz_class *class = &b->classes[b->classes_of[i]];
    leak->older--;
    leak->older_count -= class->weight;
    leak->older_bytes -= class->weight * (double)class->size;
    if (class->weight > 1) mlz_spread_add(&leak->spread, class, 0, 1, 0);
    return;
  }
  if (mlz_leak_remove(leak, b->alloc_no[i], &b->classes[b->classes_of[i]]) && leak->in_flight &&
      is_in_window(l, window_of(l, b->alloc_no[i]), b->alloc_no[i]))
    leak->in_flight--;
}

/* Which allocations of this chunk outlive it, and which older ones end here: no branch depends on whether an event is an allocation or a free
 * of this chunk. */
static void find_part(struct leak_part *part, const struct mlz_slice *slice) {
  const struct mlz_block *b = slice->block;
  mlz_counter_run(&part->counter, slice);
  if (b->n >= part->room) {
    part->room = b->n + 1;
    part->event_of = mlz_text_realloc(part->event_of, part->room, sizeof *part->event_of);
    part->survivors = mlz_text_realloc(part->survivors, part->room, sizeof *part->survivors);
    part->olds = mlz_text_realloc(part->olds, part->room, sizeof *part->olds);
  }
  uint32_t *event_of = part->event_of, allocs = b->allocs, olds = 0, survivors = 0;
  memset(event_of, 0, ((size_t)allocs + 1) * sizeof *event_of);
  for (uint32_t i = slice->from; i < slice->to; i++) {
    uint8_t op = b->ops[i];
    if (op >= MLZ_OP_FREE_OLD) {
      if (op < MLZ_OP_FREE_FOREIGN) part->olds[olds++] = i;
      continue;
    }
    uint64_t place = b->alloc_no[i] - b->first_alloc;
    event_of[place < allocs ? place : allocs] = op == MLZ_OP_ALLOC ? i + 1 : 0;
  }
  for (uint32_t k = 0; k < allocs; k++) {
    part->survivors[survivors] = k;
    survivors += event_of[k] != 0;
  }
  part->n_olds = olds;
  part->n_survivors = survivors;
}

static void prepare_part(void *context, const struct mlz_block *b, void *part) {
  (void)context;
  find_part(part, &(struct mlz_slice){.block = b, .to = b->n});
}

static void clear_part(void *part) {
  struct leak_part *p = part;
  mlz_counter_clear(&p->counter);
  free(p->event_of);
  free(p->survivors);
  free(p->olds);
}

/* Whatever was allocated before frees were lost may have been freed. */
static void note_losses(struct ledger *l, const struct mlz_slice *slice) {
  const struct mlz_block *b = slice->block;
  uint32_t rare, end;
  mlz_slice_rares(slice, &rare, &end);
  if (rare == end || !memchr(b->ops + slice->from, MLZ_OP_LOST, slice->to - slice->from)) return;
  uint64_t number = b->first_alloc + mlz_scan_count(b->ops, slice->from, MLZ_OP_ALLOC);
  for (uint32_t i = slice->from; i < slice->to && rare < end; i++) {
    number += b->ops[i] == MLZ_OP_ALLOC;
    if (b->ops[i] < MLZ_OP_RARE) continue;
    if (b->rares[rare].op == MLZ_OP_LOST && b->rares[rare].uncollectable) l->end.lossy_end = number;
    rare++;
  }
}

static void add_survivors(struct leak_pass *pass, struct ledger *l, const struct mlz_block *b, const struct leak_part *part) {
  size_t window = window_of(l, b->first_alloc);
  for (uint32_t i = 0; i < part->n_survivors; i++) {
    uint32_t k = part->survivors[i], class = b->classes_of[part->event_of[k] - 1], r = pass->record_of[class];
    if (!r) continue;
    uint64_t alloc_no = b->first_alloc + k;
    mlz_leak_add(&l->leaks[r - 1], alloc_no, &b->classes[class]);
    while (window < l->n_windows && l->windows[window].to <= alloc_no) window++;
    l->leaks[r - 1].in_flight += is_in_window(l, window, alloc_no);
  }
}

/* The event that allocates the block `number`. */
static uint32_t event_of(const struct mlz_slice *slice, uint64_t first, uint64_t number) {
  const uint8_t *ops = slice->block->ops;
  uint32_t i = slice->from;
  for (; i < slice->to && first < number; i++) first += ops[i] == MLZ_OP_ALLOC;
  return i;
}

/* What the events of the part do to the number of live blocks, by class: only those that have any are looked at. */
static void count_part(struct leak_pass *pass, const struct mlz_slice *part) {
  const struct mlz_block *b = part->block;
  pass->n_changed = 0;
  for (uint32_t i = part->from; i < part->to; i++) {
    if (b->ops[i] >= MLZ_OP_FREE_FOREIGN) continue;
    uint32_t class = b->classes_of[i];
    if (!pass->record_of[class] || (part->from_alloc && b->alloc_no[i] < part->from_alloc)) continue;
    struct class_change *change = &pass->change_of[class];
    if (!change->listed) pass->changed[pass->n_changed++] = class;
    change->listed = true;
    change->by += b->ops[i] == MLZ_OP_ALLOC ? 1 : -1;
  }
}

/* Counts what is live `parts` times until event `to`. */
static void sample_stretch(struct leak_pass *pass, struct ledger *l, struct mlz_slice *part, uint64_t *number, uint32_t to,
                           uint64_t parts) {
  const struct mlz_block *b = part->block;
  uint32_t from = part->from;
  for (uint64_t i = 1; i <= parts; i++) {
    part->to = from + (uint32_t)((to - from) * i / parts);
    if (part->to == part->from) continue;
    count_part(pass, part);
    *number += mlz_scan_count(b->ops + part->from, part->to - part->from, MLZ_OP_ALLOC);
    for (uint32_t k = 0; k < pass->n_changed; k++)
      l->leaks[pass->record_of[pass->changed[k]] - 1].running += pass->change_of[pass->changed[k]].by;
    for (uint32_t k = 0; k < pass->n_changed; k++) {
      struct mlz_leak *leak = &l->leaks[pass->record_of[pass->changed[k]] - 1];
      if (leak->running != leak->live) mlz_leak_sample(leak, *number, leak->running); /* else the next sample says the same of now */
      pass->change_of[pass->changed[k]] = (struct class_change){0};
    }
    part->from = part->to;
  }
}

/* How many blocks are live inside the chunk: it is counted in parts, as long as it is more than 1/128 of the run so far. The run is what
 * the judge looks at: a short one lies in one chunk, behind a start-up that is many times longer. `first` and `end`: allocation numbers. */
static void sample_within(struct leak_pass *pass, struct ledger *l, const struct mlz_slice *slice, uint64_t first, uint64_t end) {
  enum { SAMPLES = 128, BEFORE = 32 };
  uint64_t run = l->run_found ? l->end.run_begin : 0, begin = run < first ? first : run < end ? run : end, number = first;
  struct mlz_slice part = *slice;
  if (begin > first) sample_stretch(pass, l, &part, &number, event_of(slice, first, begin), (begin - first) * BEFORE / begin + 1);
  if (end > begin) sample_stretch(pass, l, &part, &number, slice->to, (end - begin) * SAMPLES / (end - run));
}

static void leaks_slice(void *context, const struct mlz_slice *slice) {
  struct leak_pass *pass = context;
  const struct mlz_block *b = slice->block;
  const struct leak_part *part = slice->part ? slice->part : &pass->part;
  if (!slice->part) find_part(&pass->part, slice);
  struct ledger *l = ledger_of(pass, slice->process);
  unsigned fresh = add_classes(pass, l, slice, &part->counter);
  if (fresh || !l->run_found) find_origins(pass, l, slice, fresh);
  pass_imports(pass, l, slice, &part->counter);
  note_collections(l, slice);
  for (uint32_t i = 0; i < part->n_olds; i++)
    if (b->alloc_no[part->olds[i]] >= slice->from_alloc) free_old(pass, l, b, part->olds[i]);
  add_survivors(pass, l, b, part);
  uint64_t first = b->first_alloc + mlz_scan_count(b->ops, slice->from, MLZ_OP_ALLOC);
  uint64_t end =
      slice->to == b->n ? b->first_alloc + b->allocs : first + mlz_scan_count(b->ops + slice->from, slice->to - slice->from, MLZ_OP_ALLOC);
  sample_within(pass, l, slice, first, end);
  for (uint32_t c = 0; c < b->n_classes; c++) /* known exactly here, whatever was counted within */
    if (pass->record_of[c]) {
      struct mlz_leak *leak = &l->leaks[pass->record_of[c] - 1];
      leak->running = (int32_t)leak->seen;
      if (leak->running != leak->live) mlz_leak_sample(leak, end, leak->running);
    }
  note_losses(l, slice);
}

/* ---- the beginning that was left out ---- */

static void add_begin(void *context, struct mlz_process *process, const struct mlz_totals_point *point) {
  struct leak_pass *pass = context;
  struct ledger *l = ledger_of(pass, process);
  l->first_alloc = point->head.allocations;
  l->end = (struct mlz_leak_process){.process = process, .end = point->head.allocations, .end_ns = point->head.ns};
  for (uint32_t i = 0; i < point->n; i++) {
    const struct mlz_totals_row *row = &point->rows[i];
    struct mlz_tally t = {0};
    if (!mlz_totals_counts(row, pass->include_mmap) || row->key.stack >= pass->n_stacks) continue;
    uint32_t r = record_for(l, row->key.stack); /* may move the records */
    struct mlz_leak *leak = &l->leaks[r];
    mlz_totals_row_tally(point, row, &t, &leak->spread);
    pass->in->estimated |= row->key.weight > 1;
    leak->older += (int64_t)(row->is[MLZ_TOTAL_ALLOCS] - row->is[MLZ_TOTAL_FREES]);
    leak->older_count += t.alloc_count - t.free_count;
    leak->older_bytes += t.alloc_bytes - t.free_bytes;
    if (row->is[MLZ_TOTAL_SIZE_MAX] > leak->size_max) leak->size_max = row->is[MLZ_TOTAL_SIZE_MAX];
  }
}

/* ---- the end of a process ---- */

static struct mlz_leak_entry *entry_for(struct leak_pass *pass, uint32_t stack) {
  if (!pass->entry_of[stack]) {
    if (pass->out->n == pass->room_entries) {
      pass->room_entries = pass->room_entries ? pass->room_entries * 2 : 256;
      pass->out->entries = mlz_text_realloc(pass->out->entries, pass->room_entries, sizeof *pass->out->entries);
    }
    pass->out->entries[pass->out->n++] =
        (struct mlz_leak_entry){.stack = stack, .stacks = 1, .same_grade = 1, .grade = MLZ_GRADE_COUNT, .first_ns = UINT64_MAX};
    pass->entry_of[stack] = (uint32_t)pass->out->n;
  }
  return &pass->out->entries[pass->entry_of[stack] - 1];
}

/* What such a process keeps is gone with it before it matters. */
static bool is_brief(const struct leak_pass *pass, const struct mlz_leak_process *p) {
  uint64_t lived = (p->end_ns > p->run_begin_ns ? p->end_ns - p->run_begin_ns : 0) + p->gap_ns;
  return lived < pass->out->duration_ns / 10;
}

/* ---- lines: what one stack leaves off another may go on with, as where threads come and go ---- */

struct line_member {
  uint32_t frame, record;
};
/* The lines of a process that grow as a whole. */
struct grown_lines {
  uint32_t *of; /* by record: place in reasons + 1; 0: its line does not */
  char (*reasons)[120];
  size_t n, room;
};

static int compare_members(const void *a, const void *b) {
  const struct line_member *x = a, *y = b;
  if (x->frame != y->frame) return x->frame < y->frame ? -1 : 1;
  return x->record < y->record ? -1 : x->record > y->record;
}

#define HANDED_OVER 0.2 /* of a line's survivors are at least from stacks that */
#define LEFT_OFF 0.75   /* ended before this part of the run; where all go on, each is judged by itself */

static void judge_line(struct leak_pass *pass, const struct ledger *l, const struct line_member *members, size_t n,
                       struct grown_lines *grown) {
  const struct mlz_leak **leaks = mlz_text_calloc(n, sizeof *leaks);
  struct mlz_leak sum;
  uint64_t handed = 0, all = 0, left_off = l->end.run_begin + (uint64_t)(LEFT_OFF * (double)(l->end.end - l->end.run_begin));
  for (size_t i = 0; i < n; i++) {
    uint64_t first, last;
    leaks[i] = &l->leaks[members[i].record];
    all += leaks[i]->seen;
    if (mlz_leak_span(leaks[i], &first, &last) && last < left_off) handed += leaks[i]->seen;
  }
  if (handed && (double)handed >= HANDED_OVER * (double)all && mlz_leak_sum(&sum, leaks, n, l->end.end)) {
    uint64_t first = 0, last = 0, last_ns = l->end.end_ns;
    char reason[120];
    mlz_leak_span(&sum, &first, &last);
    mlz_trace_alloc_time(pass->in->trace, l->end.process->id, last < l->end.end ? last : l->end.end - 1, &last_ns);
    if (mlz_grade_judge(&sum, MLZ_STACK_PROGRAM, &l->end, last_ns, reason) == MLZ_GRADE_GROWING) {
      if (grown->n == grown->room) {
        grown->room = grown->room ? grown->room * 2 : 16;
        grown->reasons = mlz_text_realloc(grown->reasons, grown->room, sizeof *grown->reasons);
      }
      snprintf(grown->reasons[grown->n++], sizeof *grown->reasons, "its line: %.*s", 109, reason);
      for (size_t i = 0; i < n; i++) grown->of[members[i].record] = (uint32_t)grown->n;
    }
    free(sum.buckets);
  }
  free(leaks);
}

/* `grown->of` and `reasons` are the caller's. */
static void judge_lines(struct leak_pass *pass, const struct ledger *l, struct grown_lines *grown) {
  struct line_member *members = mlz_text_calloc(l->n, sizeof *members);
  size_t n = 0;
  *grown = (struct grown_lines){.of = mlz_text_calloc(l->n, sizeof *grown->of)};
  for (uint32_t i = 0; i < l->n; i++) {
    uint32_t n_frames;
    bool truncated;
    const uint32_t *frames = mlz_trace_stack(pass->in->trace, l->leaks[i].stack, &n_frames, &truncated);
    if (n_frames && pass->kinds[l->leaks[i].stack] == MLZ_STACK_PROGRAM) members[n++] = (struct line_member){frames[0], i};
  }
  if (n) qsort(members, n, sizeof *members, compare_members);
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && members[end].frame == members[i].frame;) end++;
    if (end - i > 1) judge_line(pass, l, members + i, end - i, grown);
  }
  free(members);
}

/* What is left of a stack from the beginning that was left out. Of it alone nobody can tell whether it grew. */
static void add_older(struct leak_pass *pass, const struct ledger *l, const struct mlz_leak *leak, enum mlz_stack_kind kind,
                      struct mlz_leak_entry *e) {
  if (leak->older <= 0) return;
  enum mlz_grade grade = kind == MLZ_STACK_NO_PYTHON || kind == MLZ_STACK_IMPORT ? MLZ_GRADE_INTERPRETER
                         : kind == MLZ_STACK_MODULE_BODY                         ? MLZ_GRADE_STARTUP
                                                                                 : MLZ_GRADE_CONSTANT;
  if (grade < e->grade) {
    e->grade = grade;
    e->judged_bytes = leak->older_bytes;
    snprintf(e->reason, sizeof e->reason, "allocated before the part of the run that was kept");
  }
  e->program |= kind == MLZ_STACK_PROGRAM;
  e->processes += !leak->seen;
  e->seen += (uint64_t)leak->older;
  e->count += leak->older_count;
  e->older_count += leak->older_count;
  e->bytes += leak->older_bytes;
  if (!leak->seen) mlz_spread_join(&e->spread, &leak->spread);
  if (!leak->seen) mlz_spread_join(&pass->out->spread, &leak->spread);
  e->first_ns = 0;
  if (!leak->seen && e->last_ns < pass->in->left_out_ns) e->last_ns = pass->in->left_out_ns;
  pass->out->count += leak->older_count;
  pass->out->bytes += leak->older_bytes;
  (void)l;
}

static enum mlz_stack_kind kind_of(const struct leak_pass *pass, const struct ledger *l, uint32_t stack) {
  enum mlz_stack_kind kind = pass->kinds[stack];
  return kind == MLZ_STACK_NO_PYTHON && !l->end.process->python[0] ? MLZ_STACK_PROGRAM : kind;
}

/* `line_reason`: its line grows as a whole; NULL: it does not. */
static void judge(struct leak_pass *pass, const struct ledger *l, const struct mlz_leak *leak, const char *line_reason) {
  const struct mlz_leak_process *p = &l->end;
  uint64_t first, last, first_ns = 0, last_ns = p->end_ns;
  if (!mlz_leak_span(leak, &first, &last)) return;
  if (last >= p->end && p->end) last = p->end - 1;
  mlz_trace_alloc_time(pass->in->trace, p->process->id, first, &first_ns);
  mlz_trace_alloc_time(pass->in->trace, p->process->id, last, &last_ns);
  enum mlz_stack_kind kind = kind_of(pass, l, leak->stack);
  char reason[120];
  struct mlz_leak_process import = *p; /* a module's body is judged with the imports */
  if (l->run_found) import.run_begin = l->main_begin, import.run_begin_ns = l->main_begin_ns;
  enum mlz_grade grade = mlz_grade_judge(leak, kind, kind == MLZ_STACK_MODULE_BODY ? &import : p, last_ns, reason);
  if (line_reason && grade != MLZ_GRADE_GROWING) {
    grade = MLZ_GRADE_GROWING;
    memcpy(reason, line_reason, sizeof reason);
  }
  struct mlz_leak_entry *e = entry_for(pass, leak->stack);
  if (grade == MLZ_GRADE_GROWING) e->growing++, e->brief += is_brief(pass, p);
  if (grade < e->grade || (grade == e->grade && leak->bytes > e->judged_bytes)) {
    e->grade = grade;
    e->judged_bytes = leak->bytes;
    memcpy(e->reason, reason, sizeof reason);
  }
  e->spans_loss |= first < p->lossy_end;
  e->program |= kind == MLZ_STACK_PROGRAM;
  e->processes++;
  e->seen += leak->seen;
  e->count += leak->count;
  e->bytes += leak->bytes;
  mlz_spread_join(&e->spread, &leak->spread);
  mlz_spread_join(&pass->out->spread, &leak->spread);
  if (first_ns < e->first_ns) e->first_ns = first_ns;
  if (last_ns > e->last_ns) e->last_ns = last_ns;
  pass->out->count += leak->count;
  pass->out->bytes += leak->bytes;
}

static void end_ledger(struct leak_pass *pass, struct ledger *l);

static void leaks_process_end(void *context, const struct mlz_process_end *end) {
  struct leak_pass *pass = context;
  struct ledger *l = ledger_of(pass, end->process);
  l->end.process = end->process;
  l->end.end = end->allocs;
  l->end.end_ns = end->last_ns;
  l->end.gap_ns = pass->in->gap_ns;
  l->end.old_collections = l->n_windows;
  if (!l->run_found) l->end.run_begin_ns = end->process->start_ns;
  end_ledger(pass, l);
}

static void end_ledger(struct leak_pass *pass, struct ledger *l) {
  for (uint32_t i = 0; i < l->n; i++) mlz_leak_sample(&l->leaks[i], l->end.end, (int32_t)l->leaks[i].seen);
  struct grown_lines grown;
  judge_lines(pass, l, &grown);
  for (uint32_t i = 0; i < l->n; i++)
    if (l->leaks[i].seen) judge(pass, l, &l->leaks[i], grown.of[i] ? grown.reasons[grown.of[i] - 1] : NULL);
  for (uint32_t i = 0; i < l->n; i++)
    if (l->leaks[i].older > 0) {
      enum mlz_stack_kind kind = kind_of(pass, l, l->leaks[i].stack);
      add_older(pass, l, &l->leaks[i], kind, entry_for(pass, l->leaks[i].stack));
    }
  free(grown.of);
  free(grown.reasons);
  clear_ledger(l);
}

/* Growth is judged within one process. Many short ones that each build the same are no leak; one alone is, however short. */
static void merge_brief(struct mlz_leak_entry *e) {
  if (e->grade != MLZ_GRADE_GROWING || e->processes < 2 || e->brief < e->growing) return;
  e->grade = MLZ_GRADE_CONSTANT;
  char count[MLZ_UNITS_MAX];
  snprintf(e->reason, sizeof e->reason, "built in each of %s short processes, and gone with them", mlz_units_count(count, e->processes));
}

/* What grows, then what might, then what is constant; within each the largest first. */
static int rank(enum mlz_grade grade) { return grade == MLZ_GRADE_GROWING ? 0 : grade < MLZ_GRADE_STARTUP ? 1 : 2; }

static int compare_entries(const void *a, const void *b) {
  const struct mlz_leak_entry *x = a, *y = b;
  if (rank(x->grade) != rank(y->grade)) return rank(x->grade) < rank(y->grade) ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  return x->stack < y->stack ? -1 : x->stack > y->stack;
}

void mlz_leaks_find(struct mlz_input *in, const struct mlz_leak_options *options, struct mlz_leaks *out) {
  struct leak_pass pass = {.in = in, .include_mmap = options->include_mmap, .n_stacks = mlz_trace_stacks(in->trace), .out = out};
  *out = (struct mlz_leaks){.duration_ns = mlz_input_duration(in)};
  pass.kinds = mlz_text_calloc(pass.n_stacks, 1);
  pass.in_main = mlz_text_calloc(pass.n_stacks, 1);
  pass.entry_of = mlz_text_calloc(pass.n_stacks, sizeof *pass.entry_of);
  classify_stacks(&pass);
  if (in->totals_only) mlz_leaks_of_totals(in, options, pass.kinds, out);
  if (!options->since) mlz_begin_first(in, options->to && options->to->all.mode == MLZ_CUT_EXIT, add_begin, &pass);
  mlz_scan_run(in, &(struct mlz_scan){.want = MLZ_WANT_ALLOC_NO,
                                      .from = options->since,
                                      .to = options->to,
                                      .on_slice = leaks_slice,
                                      .on_process_end = leaks_process_end,
                                      .part_bytes = sizeof(struct leak_part),
                                      .prepare_part = prepare_part,
                                      .clear_part = clear_part,
                                      .context = &pass});
  for (size_t i = 0; i < pass.n_ledgers; i++)
    if (pass.ledgers[i].end.process && pass.ledgers[i].n) end_ledger(&pass, &pass.ledgers[i]); /* of which there is no event */
  for (size_t i = 0; i < out->n; i++) {
    merge_brief(&out->entries[i]);
    mlz_spread_floor(&out->entries[i].spread, &pass.sampled);
  }
  if (out->n) qsort(out->entries, out->n, sizeof *out->entries, compare_entries);
  for (size_t i = 0; i < pass.n_ledgers; i++) clear_ledger(&pass.ledgers[i]);
  free(pass.ledgers);
  free(pass.kinds);
  free(pass.in_main);
  free(pass.entry_of);
  clear_part(&pass.part);
  free(pass.record_of);
  free(pass.change_of);
  free(pass.changed);
}

/* The entries are in order, so the first of a line and grade is its largest stack. */
void mlz_leaks_merge_lines(struct mlz_input *in, struct mlz_leaks *leaks) {
  size_t n_frames = mlz_trace_frames(in->trace), kept = 0;
  size_t *first = mlz_text_calloc(n_frames * MLZ_GRADE_COUNT, sizeof *first); /* by frame and grade: entry + 1 */
  for (size_t i = 0; i < leaks->n; i++) {
    const struct mlz_leak_entry e = leaks->entries[i];
    uint32_t n;
    bool truncated;
    const uint32_t *frames = mlz_trace_stack(in->trace, e.stack, &n, &truncated);
    size_t *at = n ? &first[frames[0] * (size_t)MLZ_GRADE_COUNT + e.grade] : NULL;
    if (n && e.grade < MLZ_GRADE_STARTUP && first[frames[0] * (size_t)MLZ_GRADE_COUNT + MLZ_GRADE_GROWING])
      at = &first[frames[0] * (size_t)MLZ_GRADE_COUNT + MLZ_GRADE_GROWING];
    if (!at || !*at) {
      leaks->entries[kept++] = e;
      if (at) *at = kept;
      continue;
    }
    struct mlz_leak_entry *into = &leaks->entries[*at - 1];
    into->stacks += e.stacks;
    into->same_grade += e.grade == into->grade;
    into->spans_loss |= e.spans_loss;
    into->processes = e.processes > into->processes ? e.processes : into->processes;
    into->seen += e.seen;
    into->count += e.count;
    into->older_count += e.older_count;
    into->bytes += e.bytes;
    mlz_spread_join(&into->spread, &e.spread);
    if (e.first_ns < into->first_ns) into->first_ns = e.first_ns;
    if (e.last_ns > into->last_ns) into->last_ns = e.last_ns;
  }
  leaks->n = kept;
  if (kept) qsort(leaks->entries, kept, sizeof *leaks->entries, compare_entries);
  free(first);
}

void mlz_leaks_clear(struct mlz_leaks *leaks) {
  free(leaks->entries);
  *leaks = (struct mlz_leaks){0};
}
