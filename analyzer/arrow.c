#include "analyzer/arrow.h"

#include "analyzer/arrow_trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* ---- the trace ---- */

int mlz_read_fail(char *err, size_t err_size, int number, const char *text) {
  if (err_size) snprintf(err, err_size, "%s", text);
  return number;
}

/* The descriptor and not the name: another file may have it by now. */
int mlz_read_again(struct memlyze_read *r, struct mlz_trace **out, char *err, size_t err_size) {
  char held[32];
  snprintf(held, sizeof held, "/proc/self/fd/%d", r->fd);
  int rc = r->fd < 0 ? -ENOENT : mlz_trace_open(out, held, err, err_size);
  if (rc == -ENOENT) rc = mlz_trace_open(out, r->path, err, err_size);
  return rc < 0 ? -rc : 0;
}

static void read_uuid(struct memlyze_read *r, const char *path) {
  uint8_t header[64];
  r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  r->has_uuid = r->fd >= 0 && pread(r->fd, header, sizeof header, 0) == (ssize_t)sizeof header;
  if (r->has_uuid) memcpy(r->uuid, header + 32, sizeof r->uuid); /* docs/format.md */
}

static void let_go(struct memlyze_read *r) {
  if (atomic_fetch_sub(&r->users, 1) != 1) return;
  mlz_trace_close(r->trace);
  mlz_read_survey_clear(r);
  mlz_identity_clear(&r->identity);
  pthread_mutex_destroy(&r->lock);
  if (r->fd >= 0) close(r->fd);
  free(r->path);
  free(r);
}

EXPORTED int memlyze_read_version(void) { return MEMLYZE_READ_VERSION; }

EXPORTED int memlyze_read_open(struct memlyze_read **out, const char *path, char *err, size_t err_size) {
  struct memlyze_read *r = calloc(1, sizeof *r);
  if (r) r->path = strdup(path);
  if (!r || !r->path) {
    free(r);
    return mlz_read_fail(err, err_size, ENOMEM, "out of memory");
  }
  r->fd = -1;
  atomic_init(&r->users, 1);
  pthread_mutex_init(&r->lock, NULL);
  int rc = mlz_trace_open(&r->trace, path, err, err_size);
  if (rc < 0) {
    r->trace = NULL;
    let_go(r);
    return -rc;
  }
  read_uuid(r, path);
  r->damage = *mlz_trace_damage(r->trace);
  *out = r;
  return 0;
}

EXPORTED void memlyze_read_close(struct memlyze_read *r) {
  if (r) let_go(r);
}

static json_t *uuid_of(const struct memlyze_read *r) {
  char text[40];
  size_t used = 0;
  if (!r->has_uuid) return json_null();
  for (size_t i = 0; i < sizeof r->uuid; i++)
    used += (size_t)snprintf(text + used, sizeof text - used, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", r->uuid[i]);
  return json_string(text);
}

EXPORTED char *memlyze_read_json(struct memlyze_read *r) {
  pthread_mutex_lock(&r->lock);
  const struct mlz_damage d = r->damage;
  bool whole = !d.cut && !d.chunks_bad && !d.bytes_bad && json_is_true(json_object_get(mlz_trace_summary(r->trace), "complete"));
  bool there;
  uint64_t lost = mlz_read_number(mlz_trace_summary(r->trace), "events_dropped", &there);
  json_t *meta = json_deep_copy(mlz_trace_meta(r->trace)), *summary = json_deep_copy(mlz_trace_summary(r->trace));
  json_t *all = json_pack("{s:o, s:b, s:b, s:b, s:o, s:o, s:{s:b, s:I, s:I, s:I, s:I}}", "uuid", uuid_of(r), "totals_only",
                          mlz_trace_totals_only(r->trace), "left_out", mlz_trace_left_out(r->trace), "complete", whole, "meta", meta,
                          "summary", summary, "damage", "cut", d.cut, "chunks", (json_int_t)d.chunks_bad, "bytes", (json_int_t)d.bytes_bad,
                          "events", (json_int_t)d.events_bad, "lost", (json_int_t)(lost > r->lost ? lost : r->lost));
  char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
  json_decref(all);
  pthread_mutex_unlock(&r->lock);
  return text;
}

EXPORTED void memlyze_read_free(char *text) { free(text); }

EXPORTED int memlyze_read_survey(struct memlyze_read *r, char *err, size_t err_size) {
  pthread_mutex_lock(&r->lock);
  int rc = mlz_read_survey(r, err, err_size);
  pthread_mutex_unlock(&r->lock);
  return rc;
}

/* What the table needs to be known. The lock is held. */
static int prepare(struct memlyze_read *r, int table, char *err, size_t err_size) {
  if (table < 0 || table >= MEMLYZE_TABLES) return mlz_read_fail(err, err_size, EINVAL, "there is no such table");
  if (table == MEMLYZE_ALLOCATIONS && mlz_trace_totals_only(r->trace))
    return mlz_read_fail(
        err, err_size, EINVAL,
        "has totals only (it was recorded with snapshots_only): single allocations are not in it; take the table of totals");
  int rc = mlz_read_tables[table].events ? mlz_read_survey(r, err, err_size) : 0;
  if (rc || r->identified || !mlz_read_tables[table].stacks) return rc;
  r->identified = mlz_identity_make(&r->identity, r->trace) == 0;
  return r->identified ? 0 : mlz_read_fail(err, err_size, ENOMEM, "out of memory");
}

EXPORTED int memlyze_read_rows(struct memlyze_read *r, int table, uint64_t *rows, char *err, size_t err_size) {
  pthread_mutex_lock(&r->lock);
  int rc = prepare(r, table, err, err_size);
  if (!rc && table == MEMLYZE_TOTALS) rc = mlz_read_fail(err, err_size, EINVAL, "the rows of this table are not known beforehand");
  if (!rc)
    *rows = table == MEMLYZE_ALLOCATIONS   ? r->allocations
            : table == MEMLYZE_MARKS       ? r->marks
            : table == MEMLYZE_COLLECTIONS ? r->collections
                                           : mlz_read_tables[table].rows(r);
  pthread_mutex_unlock(&r->lock);
  return rc;
}

/* ---- streams ---- */

static int fill_rows(struct mlz_read_stream *s) {
  const struct mlz_read_table *table = s->state;
  uint64_t n = table->rows(s->read);
  while (s->at < n && !mlz_arrow_full(&s->batch)) table->row(s->read, &s->batch, s->at++);
  return 0;
}

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
  struct mlz_read_stream *s = stream->private_data;
  int rc = mlz_arrow_schema(s->fields, out);
  return rc ? mlz_read_fail(s->error, sizeof s->error, rc, "out of memory") : 0;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
  struct mlz_read_stream *s = stream->private_data;
  s->error[0] = 0;
  int rc = s->fill(s);
  if (!rc && !s->batch.rows && !s->batch.failed) {
    *out = (struct ArrowArray){.release = NULL};
    return 0;
  }
  if (!rc && (rc = mlz_arrow_take(&s->batch, out)) != 0) mlz_read_fail(s->error, sizeof s->error, rc, "out of memory");
  return rc;
}

static const char *get_last_error(struct ArrowArrayStream *stream) {
  const struct mlz_read_stream *s = stream->private_data;
  return s->error[0] ? s->error : NULL;
}

static void release_stream(struct ArrowArrayStream *stream) {
  struct mlz_read_stream *s = stream->private_data;
  if (s->close) s->close(s);
  mlz_arrow_clear(&s->batch);
  let_go(s->read);
  free(s);
  stream->release = NULL;
}

static int open_rows(struct mlz_read_stream *s, int table) {
  union {
    const struct mlz_read_table *is;
    void *state;
  } rows = {&mlz_read_tables[table]};
  s->state = rows.state;
  s->fill = fill_rows;
  return 0;
}

EXPORTED int memlyze_read_schema(int table, struct ArrowSchema *out) {
  return table < 0 || table >= MEMLYZE_TABLES ? EINVAL : mlz_arrow_schema(mlz_read_tables[table].fields, out);
}

EXPORTED int memlyze_read_stream(struct memlyze_read *r, int table, struct ArrowArrayStream *out, char *err, size_t err_size) {
  struct mlz_read_stream *s = calloc(1, sizeof *s);
  if (!s) return mlz_read_fail(err, err_size, ENOMEM, "out of memory");
  s->read = r;
  pthread_mutex_lock(&r->lock);
  int rc = prepare(r, table, s->error, sizeof s->error);
  if (!rc)
    rc = table == MEMLYZE_ALLOCATIONS ? mlz_read_allocations_open(s)
         : table == MEMLYZE_TOTALS    ? mlz_read_totals_open(s)
                                      : open_rows(s, table);
  pthread_mutex_unlock(&r->lock);
  if (rc) {
    mlz_read_fail(err, err_size, rc, s->error);
    free(s);
    return rc;
  }
  s->fields = mlz_read_tables[table].fields;
  mlz_arrow_begin(&s->batch, s->fields);
  atomic_fetch_add(&r->users, 1);
  *out = (struct ArrowArrayStream){get_schema, get_next, get_last_error, release_stream, s};
  return 0;
}

/* ---- Python's capsules ---- */

static int (*capsule_is_valid)(void *, const char *);
static void *(*capsule_get_pointer)(void *, const char *);

EXPORTED void memlyze_read_python(int (*is_valid)(void *, const char *), void *(*get_pointer)(void *, const char *)) {
  capsule_is_valid = is_valid;
  capsule_get_pointer = get_pointer;
}

EXPORTED const char *const memlyze_read_name_stream = "arrow_array_stream", *const memlyze_read_name_schema = "arrow_schema";

EXPORTED struct ArrowArrayStream *memlyze_read_new_stream(void) { return calloc(1, sizeof(struct ArrowArrayStream)); }
EXPORTED struct ArrowSchema *memlyze_read_new_schema(void) { return calloc(1, sizeof(struct ArrowSchema)); }

EXPORTED void memlyze_read_drop_stream(struct ArrowArrayStream *stream) {
  if (stream && stream->release) stream->release(stream);
  free(stream);
}
EXPORTED void memlyze_read_drop_schema(struct ArrowSchema *schema) {
  if (schema && schema->release) schema->release(schema);
  free(schema);
}

/* Under the GIL. A capsule whose content was moved has a struct without `release`. */
EXPORTED void memlyze_read_capsule_stream(void *capsule) {
  if (capsule_is_valid(capsule, memlyze_read_name_stream)) memlyze_read_drop_stream(capsule_get_pointer(capsule, memlyze_read_name_stream));
}
EXPORTED void memlyze_read_capsule_schema(void *capsule) {
  if (capsule_is_valid(capsule, memlyze_read_name_schema)) memlyze_read_drop_schema(capsule_get_pointer(capsule, memlyze_read_name_schema));
}
