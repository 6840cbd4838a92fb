/* What a feed may wait for (rules 12, 13): which granules stand in the unread words of an image's other feeds. Recorder process, main thread.
 *
 * Made at the first question of a round and an image, by one look at every unread word; so only rounds in which something does not fit pay for
 * it. Payload words are taken for granules too, and granules share places: the answer may be yes in vain, never no. In a fork's child, which frees
 * blocks that nobody allocated, a yes is looked up in the rings. */
#ifndef MLZ_RECORDER_COMING_H
#define MLZ_RECORDER_COMING_H

#include <stdbool.h>
#include <stdint.h>

struct mlz_drain;
struct mlz_feed;

struct mlz_coming {
  uint16_t *owners; /* ring index + 1 of the one feed that names the granule; SEVERAL (coming.c); 0: none. NULL until needed */
  uint64_t round;   /* of which it is */
  const void *image;
};

/* May another feed than `f` still bring an event at the granule in this round? True, too, where there is no memory to tell. */
bool mlz_coming(struct mlz_drain *d, const struct mlz_feed *f, uint64_t granule);
void mlz_coming_free(struct mlz_coming *c);

#endif
