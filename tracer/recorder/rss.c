#include "tracer/recorder/rss.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EVERY_NS UINT64_C(100000000)

/* Bytes, 0: not known. proc(5): the second number of statm, in pages. */
static uint64_t resident(uint32_t pid) {
  char path[40], text[128];
  snprintf(path, sizeof path, "/proc/%" PRIu32 "/statm", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  text[n > 0 ? n : 0] = 0;
  uint64_t pages = 0;
  return sscanf(text, "%*u %" SCNu64, &pages) == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

void mlz_rss_look(struct mlz_drain *d) {
  /* Of an idle program the file does not grow, so there is no group to write them with. */
  if (!d->emit || d->now_ns - d->rss_ns < EVERY_NS || d->words_total == d->rss_words) return;
  d->rss_ns = d->now_ns;
  d->rss_words = d->words_total;
  for (const struct mlz_image *m = d->images; m; m = m->next) {
    if (m->dead || m->closed || m->pidfd < 0) continue; /* without a pidfd another process may have the number by now */
    uint64_t bytes = resident(m->pid);
    if (!bytes) continue;
    if (!d->rss) d->rss = json_array();
    json_array_append_new(d->rss, json_pack("[I, I, I]", (json_int_t)d->now_ns, (json_int_t)m->process, (json_int_t)bytes));
  }
}

void mlz_rss_tell(struct mlz_drain *d, json_t *state) {
  if (d->rss) json_object_set_new(state, "rss", d->rss);
  d->rss = NULL;
}
