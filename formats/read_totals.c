#include "formats/trace.h"
#include "formats/walk.h"

#include <errno.h>
#include <stdlib.h>

#define WEIGHT_MAX 8589934592.0

struct head {
  struct mlz_totals_head h;
  uint32_t part;
  unsigned flags;
};

static bool read_head(struct mlz_cursor *c, struct head *out) {
  uint64_t v[13];
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) v[i] = mlz_get_varint(c);
  if (c->bad || v[0] == 0 || v[0] >= UINT32_MAX || v[1] > UINT32_MAX || v[2] > MLZ_TOTALS_FLAGS || v[3] >= MLZ_POINT_KINDS ||
      v[4] > UINT32_MAX)
    return false;
  for (size_t i = 5; i < sizeof v / sizeof v[0]; i++)
    if (v[i] > INT64_MAX) return false;
  *out = (struct head){.h = {.process = (uint32_t)v[0],
                             .point = (enum mlz_point_kind)v[3],
                             .name = (uint32_t)v[4],
                             .ns = v[5],
                             .events = v[6],
                             .allocations = v[7],
                             .peak_bytes = v[8],
                             .peak_ns = v[9],
                             .all_peak_bytes = v[10],
                             .all_peak_ns = v[11],
                             .foreign = v[12],
                             .close = (v[2] & MLZ_TOTALS_CLOSE) != 0},
                       .part = (uint32_t)v[1],
                       .flags = (unsigned)v[2]};
  return true;
}

/* What is known of a process at its latest point read; sorted by process. NULL: out of memory. */
static struct mlz_totals_state *state_of(struct mlz_trace *t, uint32_t process) {
  size_t low = 0, high = t->totals_states_n;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (t->totals_states[middle].process < process)
      low = middle + 1;
    else
      high = middle;
  }
  if (low < t->totals_states_n && t->totals_states[low].process == process) return &t->totals_states[low];
  if (!mlz_grow(&t->totals_states, &t->totals_states_room, t->totals_states_n + 1, sizeof t->totals_states[0])) return NULL;
  memmove(&t->totals_states[low + 1], &t->totals_states[low], (t->totals_states_n - low) * sizeof t->totals_states[0]);
  t->totals_states_n++;
  t->totals_states[low] = (struct mlz_totals_state){.process = process};
  return &t->totals_states[low];
}

static int read_new(const struct mlz_trace *t, struct mlz_cursor *c, struct mlz_totals_state *s) {
  uint64_t n_weights = mlz_get_varint(c);
  const uint8_t *weights = n_weights > (uint64_t)(c->end - c->p) / sizeof(double) ? NULL : mlz_get_bytes(c, n_weights * sizeof(double));
  uint64_t n = mlz_get_varint(c);
  if (c->bad || weights == NULL || n > MLZ_TOTALS_NEW_MAX || n > (uint64_t)(c->end - c->p) || s->n + n >= UINT32_MAX) return -EBADMSG;
  if (!mlz_grow(&s->rows, &s->room, s->n + (size_t)n + 1, sizeof s->rows[0])) return -ENOMEM; /* one more: never NULL */
  struct mlz_totals_row *rows = s->rows + s->n;
  uint32_t stack = 0;
  for (uint64_t i = 0; i < n; i++) {
    stack += (uint32_t)mlz_unzigzag(mlz_get_varint(c));
    rows[i] = (struct mlz_totals_row){.key.stack = stack < mlz_trace_stacks(t) ? stack : mlz_trace_stacks(t) - 1};
  }
  for (uint64_t i = 0; i < n; i++) {
    uint64_t kind = mlz_get_varint(c);
    if (kind / 8 >= n_weights || kind % 8 >= MLZ_BLOCK_DOMAINS) return -EBADMSG;
    rows[i].key.domain = (uint32_t)(kind % 8);
    memcpy(&rows[i].key.weight, weights + kind / 8 * sizeof(double), sizeof(double));
    if (!(rows[i].key.weight >= 1 && rows[i].key.weight <= WEIGHT_MAX)) return -EBADMSG;
  }
  if (c->bad) return -EBADMSG;
  s->n += (size_t)n;
  return 0;
}

/* From the differences to what is likely (MLZ_TOTALS_CLOSE) to those of the values. The largest size is there already. */
static void from_close(uint64_t by[MLZ_TOTALS], uint64_t largest) {
  by[MLZ_TOTAL_ALLOC_BYTES] += by[MLZ_TOTAL_ALLOCS] * largest;
  by[MLZ_TOTAL_FREE_BYTES] = by[MLZ_TOTAL_ALLOC_BYTES] - by[MLZ_TOTAL_FREE_BYTES] - by[MLZ_TOTAL_FREES] * largest; /* [FREES]: live */
  by[MLZ_TOTAL_FREES] = by[MLZ_TOTAL_ALLOCS] - by[MLZ_TOTAL_FREES];
  by[MLZ_TOTAL_TEMP_BYTES] += by[MLZ_TOTAL_TEMPS] * largest;
}

/* The columns of a chunk, before they are added: nine integers for each row that changes. */
static int add_close(struct mlz_trace *t, struct mlz_cursor *c, size_t n, struct mlz_totals_state *s) {
  uint64_t *by = malloc((n + 1) * MLZ_TOTALS * sizeof *by);
  if (by == NULL) return -ENOMEM;
  for (unsigned field = 0; field < MLZ_TOTALS; field++)
    for (size_t i = 0; i < n; i++) by[i * MLZ_TOTALS + field] = mlz_unzigzag(mlz_get_varint(c));
  for (size_t i = 0; i < n; i++) {
    struct mlz_totals_row *row = &s->rows[t->totals_changed[i]];
    uint64_t *of = by + i * MLZ_TOTALS;
    from_close(of, row->is[MLZ_TOTAL_SIZE_MAX] + of[MLZ_TOTAL_SIZE_MAX]);
    for (unsigned field = 0; field < MLZ_TOTALS; field++) row->is[field] += of[field];
  }
  free(by);
  return 0;
}

static int read_changes(struct mlz_trace *t, struct mlz_cursor *c, uint64_t count, bool close, struct mlz_totals_state *s) {
  uint64_t n = mlz_get_varint(c);
  if (c->bad || n != count || n > MLZ_TABLE_ROWS_MAX) return -EBADMSG;
  if (!mlz_grow(&t->totals_changed, &t->totals_changed_room, (size_t)n + 1, sizeof t->totals_changed[0])) return -ENOMEM;
  uint64_t next = 0;
  for (uint64_t i = 0; i < n; i++) {
    uint64_t row = next + mlz_get_varint(c);
    if (c->bad || row >= s->n) return -EBADMSG;
    t->totals_changed[i] = (uint32_t)row;
    next = row + 1;
  }
  if (close && add_close(t, c, (size_t)n, s) != 0) return -ENOMEM;
  for (unsigned field = 0; field < MLZ_TOTALS && !close; field++)
    for (uint64_t i = 0; i < n; i++) s->rows[t->totals_changed[i]].is[field] += mlz_unzigzag(mlz_get_varint(c));
  return c->bad || c->p != c->end ? -EBADMSG : 0;
}

/* One chunk. 1: it completes a point. 0: it does not. */
int mlz_totals_part(struct mlz_trace *t, const uint8_t *p, size_t n, uint64_t count, struct mlz_totals_point *out) {
  struct mlz_cursor c = {.p = p, .end = p + n};
  struct head head;
  if (!read_head(&c, &head)) return -EBADMSG;
  struct mlz_totals_state *s = state_of(t, head.h.process);
  if (s == NULL) return -ENOMEM;
  bool base = head.flags & MLZ_TOTALS_BASE;
  if (base) s->n = 0;
  s->known = base || (s->known && head.part == s->part + 1);
  s->part = head.part;
  if (s->known) {
    s->known = false; /* unless all of it is good */
    int rc = read_new(t, &c, s);
    if (rc == 0) rc = read_changes(t, &c, count, head.h.close, s);
    if (rc != 0) return rc;
    s->known = true;
  }
  out->known = s->known;
  if (head.flags & MLZ_TOTALS_MORE) return 0;
  if (head.h.name >= mlz_trace_strings(t)) head.h.name = mlz_trace_strings(t) - 1;
  *out = (struct mlz_totals_point){.head = head.h,
                                   .known = s->known,
                                   .rows = s->rows,
                                   .n = s->known ? (uint32_t)s->n : 0,
                                   .square = head.h.close ? 1 : MLZ_TOTAL_SQUARE};
  return 1;
}

void mlz_trace_totals_rewind(struct mlz_trace *t) {
  for (size_t i = 0; i < t->totals_states_n; i++) free(t->totals_states[i].rows);
  t->totals_states_n = 0;
  t->totals_next = 0;
}

static void count_bad(struct mlz_trace *t, struct mlz_totals_entry *e) {
  if (e->bad) return;
  t->damage.chunks_bad++;
  t->damage.bytes_bad += sizeof(struct mlz_chunk_header) + e->stored;
  e->bad = true;
}

/* As mlz_totals_part; a bad chunk is counted. */
static int read_part(struct mlz_trace *t, struct mlz_totals_entry *e, struct mlz_totals_point *out) {
  const uint8_t *p;
  struct mlz_chunk_header h;
  int rc = e->bad ? 0 : mlz_trace_chunk(t, e->at, MLZ_C_TOTALS, &h, &p);
  if (rc == 1)
    rc = mlz_totals_part(t, p, h.raw, h.count, out);
  else if (rc == 0)
    rc = -EBADMSG;
  if (rc == -EBADMSG) count_bad(t, e);
  return rc;
}

int mlz_trace_totals_next(struct mlz_trace *t, struct mlz_totals_point *out) {
  while (t->totals_next < t->totals_n) {
    int rc = read_part(t, &t->totals[t->totals_next++], out);
    if (rc == 1 || (rc < 0 && rc != -EBADMSG)) return rc;
  }
  return 0;
}

/* ---- points without their rows ---- */

struct chain { /* of a process */
  uint32_t process, part;
  uint32_t begun; /* part with which the present point begins */
  bool more;      /* the chunk before said that it goes on */
  size_t base;
  bool known;
};

static struct chain *chain_of(struct chain **chains, size_t *n, size_t *room, size_t *latest, uint32_t process) {
  for (size_t i = 0; i <= *n; i++) {
    size_t at = i == 0 ? *latest : i - 1; /* points of one process often follow each other; there may be thousands of others */
    if (at < *n && (*chains)[at].process == process) {
      *latest = at + 1;
      return &(*chains)[at];
    }
  }
  if (!mlz_grow(chains, room, *n + 1, sizeof **chains)) return NULL;
  (*chains)[*n] = (struct chain){.process = process};
  *latest = *n + 1;
  return &(*chains)[(*n)++];
}

static int read_marks(struct mlz_trace *t, struct chain **chains) {
  size_t n = 0, room = 0, latest = 0;
  for (size_t i = 0; i < t->totals_n; i++) {
    struct mlz_totals_entry *e = &t->totals[i];
    const uint8_t *p;
    struct mlz_chunk_header h;
    struct head head;
    int rc = e->bad ? 0 : mlz_trace_chunk(t, e->at, MLZ_C_TOTALS, &h, &p);
    if (rc < 0 && rc != -EBADMSG) return rc;
    struct mlz_cursor c = {.p = p, .end = rc == 1 ? p + h.raw : p};
    if (rc != 1 || !read_head(&c, &head)) {
      count_bad(t, e);
      continue;
    }
    struct chain *of = chain_of(chains, &n, &room, &latest, head.h.process);
    if (of == NULL) return -ENOMEM;
    bool base = head.flags & MLZ_TOTALS_BASE;
    e->process = head.h.process;
    if (base) of->base = i;
    of->known = base || (of->known && head.part == of->part + 1);
    of->part = head.part;
    if (!of->more || base) of->begun = head.part;
    of->more = head.flags & MLZ_TOTALS_MORE;
    if (!of->known || (head.flags & MLZ_TOTALS_MORE)) continue;
    if (!mlz_grow(&t->totals_marks, &t->totals_marks_room, t->totals_marks_n + 1, sizeof t->totals_marks[0])) return -ENOMEM;
    t->totals_marks[t->totals_marks_n++] = (struct mlz_totals_mark){
        .head = head.h, .first = of->base, .last = i, .part_first = of->begun, .part_last = head.part, .at = e->at + sizeof h + e->stored};
  }
  return 0;
}

int mlz_trace_totals_marks(struct mlz_trace *t, const struct mlz_totals_mark **marks, size_t *n) {
  if (!t->totals_marked) {
    struct chain *chains = NULL;
    t->totals_marks_n = 0;
    int rc = read_marks(t, &chains);
    free(chains);
    if (rc != 0) return rc;
    t->totals_marked = true;
  }
  *marks = t->totals_marks;
  *n = t->totals_marks_n;
  return 0;
}

int mlz_trace_totals_load(struct mlz_trace *t, const struct mlz_totals_mark *mark, struct mlz_totals_point *p) {
  struct mlz_totals_state *s = state_of(t, mark->head.process);
  if (s == NULL) return -ENOMEM;
  s->known = false;
  int rc = 0;
  for (size_t i = mark->first; i <= mark->last; i++) {
    if (t->totals[i].process != mark->head.process) continue;
    rc = read_part(t, &t->totals[i], p);
    if (rc < 0) return rc == -EBADMSG ? 0 : rc;
  }
  return rc == 1 && p->known;
}

void mlz_totals_close(struct mlz_trace *t) {
  mlz_trace_totals_rewind(t);
  free(t->totals_states);
  free(t->totals_changed);
  free(t->totals_marks);
  free(t->totals);
}

/* The settings say it, too: the header may be damaged. */
bool mlz_trace_totals_only(const struct mlz_trace *t) {
  return (t->features & MLZ_FEATURE_TOTALS_ONLY) || json_is_true(json_object_get(json_object_get(t->meta, "settings"), "snapshots_only"));
}
size_t mlz_trace_totals_count(const struct mlz_trace *t) { return t->totals_n; }
