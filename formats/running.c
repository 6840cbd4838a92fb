#include "formats/running.h"

#include <errno.h>
#include <stdlib.h>

/* Bytes of the heap in 256ths, as the tools sum them up (analyzer/peak.c): exact at weight 1. */
#define SCALE 256.0
#define VALUE_MAX ((double)(INT64_C(1) << 54))
#define SQUARES_MAX (UINT64_C(1) << 62) /* sums of squares beyond it: the process has no points any more, and is read whole */
#define BASE_LEAST 16u                  /* points of a process from one base to the next: what damage to one chunk may take away */
#define BASE_MOST 128u                  /* between the two: as soon as a reader adds up more rows than the base had */
#define ROW_BYTES 4.0                   /* of the file for a row that changed: until it is known */
#define POINT_BYTES 70.0

struct sum {
  struct mlz_totals_key key;
  uint64_t now[MLZ_TOTALS], then[MLZ_TOTALS]; /* then: at the point before */
};

struct process {
  struct process *next;
  uint32_t id;
  bool dirty;     /* has events since its last point */
  bool finalized; /* its FINALIZE was seen */
  bool ended;
  bool given_up; /* has no points any more */
  struct sum *rows;
  uint32_t n, room, changed; /* rows; those that changed since the last point */
  uint32_t *slots;           /* row + 1; 0: empty */
  uint32_t mask;
  uint32_t defined; /* rows that the file has */
  uint32_t part, points;
  uint32_t since_base;  /* points; 0: the next one is a base */
  uint64_t rows_to_add; /* of those */
  uint64_t events, allocations, foreign, last_ns;
  int64_t live, peak; /* 256ths; peak: since its last point */
  uint64_t peak_ns;
};

struct mlz_running {
  struct mlz_frame_rule rule;
  struct process *processes;
  struct mlz_tables tables; /* of it only `totals` */
  uint64_t events, bytes;   /* since the last frame */
  double allowance;         /* bytes that frames may cost now */
  double row_bytes;         /* of the file for a row that changed, about */
  uint64_t rows_told;       /* in points since the last call of mlz_running_spent */
  uint64_t frame_ns;        /* of the last frame */
  uint64_t all_peak_bytes, all_peak_ns;
  uint32_t (*counts)[4];
  int64_t *values;
  uint32_t room;
};

struct mlz_running *mlz_running_new(const struct mlz_frame_rule *rule) {
  struct mlz_running *r = calloc(1, sizeof *r);
  if (r == NULL) return NULL;
  r->rule = *rule;
  r->row_bytes = ROW_BYTES;
  mlz_tables_init(&r->tables);
  return r;
}

static void free_process(struct process *p) {
  free(p->rows);
  free(p->slots);
  free(p);
}

struct mlz_running *mlz_running_free(struct mlz_running *r) {
  if (r == NULL) return NULL;
  for (struct process *p = r->processes, *next; p != NULL; p = next) {
    next = p->next;
    free_process(p);
  }
  mlz_tables_deinit(&r->tables);
  free(r->counts);
  free(r->values);
  free(r);
  return NULL;
}

static struct process *process_of(struct mlz_running *r, uint32_t id) {
  for (struct process **at = &r->processes; *at != NULL; at = &(*at)->next) {
    struct process *p = *at;
    if (p->id != id) continue;
    *at = p->next; /* the next chunk is likely of the same one */
    p->next = r->processes;
    return r->processes = p;
  }
  struct process *p = calloc(1, sizeof *p);
  if (p == NULL) return NULL;
  p->id = id;
  p->next = r->processes;
  return r->processes = p;
}

/* ---- rows ---- */

static uint32_t hash_of(const struct mlz_totals_key *k) {
  uint64_t bits;
  memcpy(&bits, &k->weight, sizeof bits);
  uint64_t h = ((uint64_t)k->stack << 3 ^ k->domain ^ bits * UINT64_C(0xff51afd7ed558ccd)) * UINT64_C(0x9e3779b97f4a7c15);
  return (uint32_t)(h >> 32);
}

static bool grow_rows(struct process *p) {
  if (p->n == p->room) {
    uint32_t room = p->room == 0 ? 64 : p->room < UINT32_MAX / 4 ? p->room * 2 : 0;
    struct sum *rows = room == 0 ? NULL : reallocarray(p->rows, room, sizeof *rows);
    if (rows == NULL) return false;
    p->rows = rows;
    p->room = room;
  }
  if (p->slots != NULL && p->n * UINT64_C(2) < p->mask) return true;
  uint32_t mask = p->slots == NULL ? 255 : p->mask * 2 + 1;
  uint32_t *slots = calloc((size_t)mask + 1, sizeof *slots);
  if (slots == NULL) return false;
  for (uint32_t i = 0; i < p->n; i++) {
    uint32_t at = hash_of(&p->rows[i].key);
    while (slots[at & mask] != 0) at++;
    slots[at & mask] = i + 1;
  }
  free(p->slots);
  p->slots = slots;
  p->mask = mask;
  return true;
}

static struct sum *row_of(struct process *p, const struct mlz_class *c) {
  struct mlz_totals_key key = {.stack = c->stack, .domain = c->domain, .weight = c->weight};
  if (!grow_rows(p)) return NULL;
  uint32_t at = hash_of(&key);
  for (uint32_t row; (row = p->slots[at & p->mask]) != 0; at++) {
    const struct mlz_totals_key *k = &p->rows[row - 1].key;
    if (k->stack == key.stack && k->domain == key.domain && k->weight == key.weight) return &p->rows[row - 1];
  }
  p->rows[p->n] = (struct sum){.key = key};
  p->slots[at & p->mask] = ++p->n;
  return &p->rows[p->n - 1];
}

/* Where the beginning may be left out there must be points: then an interval around an estimate is too narrow. */
static void add_square(const struct mlz_running *r, struct process *p, uint64_t *sum, uint64_t size, uint32_t count) {
  unsigned __int128 more = (unsigned __int128)size * size * count + *sum;
  if (more > SQUARES_MAX) p->given_up = r->rule.every_bytes == 0;
  *sum = more > SQUARES_MAX ? SQUARES_MAX : (uint64_t)more;
}

enum { ALLOC, FREE, TEMP };

/* The counts by class into the rows; they are 0 then. */
static int add_counts(struct mlz_running *r, struct process *p, const struct mlz_builder *b) {
  for (uint32_t i = 0; i < b->classes_n; i++) {
    uint32_t *n = r->counts[i];
    if ((n[ALLOC] | n[FREE] | n[TEMP]) == 0) continue;
    const struct mlz_class *c = &b->classes[i];
    struct sum *s = row_of(p, c);
    if (s == NULL) return -ENOMEM;
    uint64_t *now = s->now, frees = (uint64_t)n[FREE] + n[TEMP];
    p->changed += now[MLZ_TOTAL_ALLOCS] == s->then[MLZ_TOTAL_ALLOCS] && now[MLZ_TOTAL_FREES] == s->then[MLZ_TOTAL_FREES];
    now[MLZ_TOTAL_ALLOCS] += n[ALLOC];
    now[MLZ_TOTAL_ALLOC_BYTES] += n[ALLOC] * c->size;
    now[MLZ_TOTAL_FREES] += frees;
    now[MLZ_TOTAL_FREE_BYTES] += frees * c->size;
    now[MLZ_TOTAL_TEMPS] += n[TEMP];
    now[MLZ_TOTAL_TEMP_BYTES] += n[TEMP] * c->size;
    if (n[ALLOC] != 0 && c->size > now[MLZ_TOTAL_SIZE_MAX]) now[MLZ_TOTAL_SIZE_MAX] = c->size;
    if (c->weight > 1) {
      add_square(r, p, &now[MLZ_TOTAL_ALLOC_SQUARES], c->size, n[ALLOC]);
      add_square(r, p, &now[MLZ_TOTAL_FREE_SQUARES], c->size, (uint32_t)frees);
    }
    memset(n, 0, sizeof r->counts[i]);
  }
  return 0;
}

/* ---- points ---- */

/* What has changed since the point before, or all that is not 0. */
static uint32_t collect(struct process *p, bool base, struct mlz_totals_change *changes, uint64_t *largest) {
  uint32_t n = 0;
  for (uint32_t row = 0; row < p->n; row++) {
    struct sum *s = &p->rows[row];
    if (!base && memcmp(s->now, s->then, sizeof s->now) == 0) continue;
    changes[n].row = row;
    for (unsigned i = 0; i < MLZ_TOTALS; i++) changes[n].by[i] = s->now[i] - (base ? 0 : s->then[i]);
    largest[n++] = s->now[MLZ_TOTAL_SIZE_MAX];
    memcpy(s->then, s->now, sizeof s->then);
  }
  return n;
}

static int add_point(struct mlz_running *r, struct process *p, enum mlz_point_kind kind) {
  bool base = p->since_base == 0;
  uint32_t first = base ? 0 : p->defined, n_rows = p->n - first;
  struct mlz_totals_head head = {.process = p->id,
                                 .point = kind,
                                 .ns = p->last_ns,
                                 .events = p->events,
                                 .allocations = p->allocations,
                                 .peak_bytes = ((uint64_t)p->peak + 255) / 256,
                                 .peak_ns = p->peak_ns,
                                 .all_peak_bytes = r->all_peak_bytes,
                                 .all_peak_ns = r->all_peak_ns,
                                 .foreign = p->foreign,
                                 .close = true};
  struct mlz_totals_change *changes = malloc(((size_t)p->n + 1) * sizeof *changes);
  struct mlz_totals_key *rows = malloc(((size_t)n_rows + 1) * sizeof *rows);
  uint64_t *largest = malloc(((size_t)p->n + 1) * sizeof *largest);
  int rc = -ENOMEM;
  head.largest = largest;
  if (changes != NULL && rows != NULL && largest != NULL) {
    for (uint32_t i = 0; i < n_rows; i++) rows[i] = p->rows[first + i].key;
    uint32_t n = collect(p, base, changes, largest);
    rc = mlz_tables_totals(&r->tables, &head, &p->part, base, rows, n_rows, changes, n);
    r->rows_told += n;
    p->rows_to_add = base ? 0 : p->rows_to_add + n;
    if (++p->since_base >= BASE_LEAST && (p->since_base >= BASE_MOST || p->rows_to_add > p->n)) p->since_base = 0;
    p->defined = p->n;
    p->points++;
  }
  free(changes);
  free(rows);
  free(largest);
  p->dirty = false;
  p->changed = 0;
  p->peak = p->live > 0 ? p->live : 0;
  p->peak_ns = p->last_ns;
  if (rc == -EFBIG) { /* too many rows for one point */
    p->given_up = true;
    rc = 0;
  }
  return rc;
}

static bool has_points(const struct mlz_running *r, const struct process *p) {
  return !p->given_up && (p->points != 0 || r->rule.every_bytes != 0);
}

/* ---- events ---- */

static int prepare(struct mlz_running *r, const struct mlz_builder *b) {
  if (b->classes_n > r->room) {
    uint32_t room = b->classes_n * 2;
    free(r->counts);
    free(r->values);
    r->counts = calloc(room, sizeof *r->counts); /* 0 between two chunks */
    r->values = malloc(room * sizeof *r->values);
    r->room = room;
    if (r->counts == NULL || r->values == NULL) return -ENOMEM;
  }
  for (uint32_t i = 0; i < b->classes_n; i++) {
    double value = (double)b->classes[i].size * b->classes[i].weight * SCALE;
    bool heap = b->classes[i].domain != MLZ_BLOCK_MMAP;
    r->values[i] = !heap ? 0 : value < VALUE_MAX ? (int64_t)(value + 0.5) : (int64_t)VALUE_MAX;
  }
  return 0;
}

struct place { /* in a builder */
  uint32_t event, run, alloc, ref, old, rare;
  uint32_t top; /* event + 1 after which most was live; 0: none reached the process's peak */
};

static uint64_t time_of(const struct mlz_builder *b, uint32_t event) {
  uint32_t low = 0, high = b->steps_n;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (b->steps[middle].event <= event)
      low = middle + 1;
    else
      high = middle;
  }
  return low == 0 ? b->first_ns : b->steps[low - 1].ns;
}

/* Events of one thread up to `end`, or up to a FINALIZE: true. `latest`: of the thread, its latest allocation. */
static bool count_run(struct mlz_running *r, struct process *p, const struct mlz_builder *b, struct place *at, uint32_t end,
                      uint32_t *latest) {
  int64_t live = p->live, peak = p->peak;
  uint32_t i = at->event;
  bool finalize = false;
  for (; i < end; i++) {
    uint32_t class, kind = FREE;
    switch (b->ops[i]) {
    case MLZ_OP_ALLOC:
      class = b->alloc_class[at->alloc];
      *latest = at->alloc++;
      r->counts[class][ALLOC]++;
      live += r->values[class];
      if (live > peak) peak = live, at->top = i + 1;
      continue;
    case MLZ_FILE_OP_FREE_TEMP_REF:
      kind = TEMP; /* fall through */
    case MLZ_OP_FREE:
      class = b->alloc_class[b->ref[at->ref++]];
      break;
    case MLZ_OP_FREE_TEMP:
      class = b->alloc_class[*latest];
      kind = TEMP;
      break;
    case MLZ_OP_FREE_OLD_TEMP:
      kind = TEMP; /* fall through */
    case MLZ_OP_FREE_OLD:
      class = b->old_class[at->old++];
      break;
    case MLZ_OP_FREE_FOREIGN:
      p->foreign++;
      continue;
    default:
      if (b->rares[at->rare].op == MLZ_OP_FINALIZE && !p->finalized) {
        finalize = true;
        goto out;
      }
      at->rare++;
      continue;
    }
    r->counts[class][kind]++;
    live -= r->values[class];
  }
out:
  at->event = i;
  p->live = live;
  p->peak = peak;
  return finalize;
}

/* What was counted up to here belongs to the process. */
static int settle(struct mlz_running *r, struct process *p, const struct mlz_builder *b, struct place *at, uint64_t events_before) {
  if (at->top != 0) p->peak_ns = time_of(b, at->top - 1);
  at->top = 0;
  p->events = events_before + at->event;
  p->allocations = b->first_alloc + at->alloc;
  uint64_t ns = at->event == 0 ? b->first_ns : time_of(b, at->event - 1);
  if (ns > p->last_ns) p->last_ns = ns;
  return add_counts(r, p, b);
}

int mlz_running_events(struct mlz_running *r, const struct mlz_builder *b) {
  struct process *p = process_of(r, b->process);
  if (p == NULL) return -ENOMEM;
  int rc = prepare(r, b);
  uint32_t *latest = rc == 0 ? malloc((b->threads_n + (size_t)1) * sizeof *latest) : NULL;
  if (latest == NULL) return -ENOMEM;
  memset(latest, 0, (b->threads_n + (size_t)1) * sizeof *latest);
  struct place at = {0};
  uint64_t before = p->events;
  while (rc == 0 && at.run < b->runs_n) {
    uint32_t end = at.run + 1 < b->runs_n ? b->runs[at.run + 1].event : b->n;
    if (count_run(r, p, b, &at, end, &latest[b->runs[at.run].index])) {
      rc = settle(r, p, b, &at, before);
      if (rc == 0 && has_points(r, p)) rc = add_point(r, p, MLZ_POINT_END);
      p->finalized = true;
      continue;
    }
    at.run++;
  }
  free(latest);
  if (rc == 0) rc = settle(r, p, b, &at, before);
  p->dirty = true;
  r->events += b->n;
  return rc;
}

void mlz_running_bytes(struct mlz_running *r, uint64_t bytes) {
  r->bytes += bytes;
  r->allowance += r->rule.share * (double)bytes;
}

void mlz_running_ended(struct mlz_running *r, uint32_t process) {
  for (struct process *p = r->processes; p != NULL; p = p->next)
    if (p->id == process) p->ended = true;
}

/* ---- frames ---- */

static bool due(const struct mlz_running *r, uint64_t now_ns) {
  if (r->rule.every_ns != 0 && now_ns - r->frame_ns >= r->rule.every_ns) return true;
  if (r->rule.every_bytes != 0 && r->bytes >= r->rule.every_bytes) return true;
  if (r->events < r->rule.least_events) return false;
  double cost = 0;
  for (const struct process *p = r->processes; p != NULL; p = p->next)
    if (p->dirty) cost += POINT_BYTES + r->row_bytes * (p->since_base == 0 ? p->n : p->changed);
  return cost <= r->allowance;
}

static void forget_ended(struct mlz_running *r) {
  for (struct process **at = &r->processes; *at != NULL;) {
    struct process *p = *at;
    if (!p->ended) {
      at = &p->next;
      continue;
    }
    *at = p->next;
    free_process(p);
  }
}

int mlz_running_group(struct mlz_running *r, uint64_t now_ns, uint64_t all_peak_bytes, uint64_t all_peak_ns, struct mlz_buffer *out,
                      bool *framed) {
  bool frame = due(r, now_ns);
  int rc = 0;
  r->all_peak_bytes = all_peak_bytes;
  r->all_peak_ns = all_peak_ns;
  for (struct process *p = r->processes; p != NULL && rc == 0; p = p->next) {
    bool last = p->ended && has_points(r, p); /* also where nothing has changed: it says that it has ended */
    if (p->given_up || !((frame && p->dirty) || last)) continue;
    rc = add_point(r, p, p->finalized ? MLZ_POINT_EXIT : p->ended ? MLZ_POINT_END : MLZ_POINT_INDEX);
  }
  forget_ended(r);
  if (frame) {
    r->events = r->bytes = 0;
    r->frame_ns = now_ns;
  }
  *framed = frame;
  if (rc == 0) rc = mlz_tables_take(&r->tables, out);
  return rc;
}

void mlz_running_spent(struct mlz_running *r, uint64_t bytes) {
  r->allowance -= (double)bytes;
  if (r->rows_told >= 64) r->row_bytes = (double)bytes / (double)r->rows_told;
  if (r->rows_told >= 64) r->rows_told = 0;
}
