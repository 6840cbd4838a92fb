#include "tracer/recorder/marking.h"

#include "shm/mailbox.h"
#include "tracer/recorder/account.h"

#include <inttypes.h>
#include <stdio.h>

static struct mlz_feed *first_feed(const struct mlz_image *m) {
  struct mlz_feed *first = NULL;
  for (struct mlz_feed *f = m->feeds; f; f = f->next) {
    if (!f->broken && (!first || f->ring->thread_no < first->ring->thread_no)) first = f;
  }
  return first;
}

struct mlz_feed *mlz_marking_feed(const struct mlz_drain *d, uint32_t pid) {
  struct mlz_feed *oldest = NULL;
  for (const struct mlz_image *m = d->images; m; m = m->next) { /* newest first */
    struct mlz_feed *f = m->closed || m->dead ? NULL : first_feed(m);
    if (!f) continue;
    if (m->pid == pid) return f;
    oldest = f;
  }
  return oldest;
}

void mlz_marking_add(struct mlz_drain *d, struct mlz_feed *f, enum mlz_mark kind, const char *name, size_t bytes, uint64_t ns) {
  bool snapshot = kind == MLZ_MARK_SNAPSHOT;
  struct mlz_image *m = f->image;
  if (m->room == 0) { /* as an event would, but none is written yet */
    mlz_account_room(d, m, f);
    m->room++;
  }
  mlz_account_turn(m, f);
  uint32_t id = mlz_symbols_string(&d->symbols, name, bytes);
  mlz_account_rare(d, f, &(struct mlz_rare){.op = snapshot ? MLZ_OP_SNAPSHOT : MLZ_OP_MARK, .start_ns = ns, .name = id});
  if (snapshot) mlz_image_snapshot(d, id, ns);
  *(snapshot ? &d->total.snapshots : &d->total.marks) += 1;
  d->group_wanted = true; /* also of an idle program: whoever asked may look at the file now */
}

void mlz_marking_periodic(struct mlz_drain *d) {
  if (d->clock_ns < d->every_ns || d->clock_ns < d->every_next) return;
  uint64_t number = d->clock_ns / d->every_ns;
  d->every_next = (number + 1) * d->every_ns;
  struct mlz_feed *f = mlz_marking_feed(d, 0);
  char name[40];
  int bytes = snprintf(name, sizeof name, "snapshot-%" PRIu64, number);
  if (f) mlz_marking_add(d, f, MLZ_MARK_SNAPSHOT, name, (size_t)bytes, d->clock_ns);
}
