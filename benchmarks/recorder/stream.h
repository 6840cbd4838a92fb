/* What real programs wrote into their rings, kept in a file, so that the drain can be measured on the same stream again and again.
 * capture_rings writes such files, bench_drain replays them. A tool of this directory only: the format is whatever the two of them share, and
 * belongs to one version of shm/.
 *
 *   struct stream_header, then pieces: struct stream_piece, words, side bytes. The pieces of one round come together. */
#ifndef MLZ_BENCH_STREAM_H
#define MLZ_BENCH_STREAM_H

#include "shm/control.h"

#define STREAM_MAGIC UINT64_C(0x474e4952455a4c4d)

struct stream_header {
  uint64_t magic, settings;
  uint32_t abi, ring_words, side_bytes, reserved;
};
struct stream_piece {
  uint32_t ring, image, thread_no, round;
  uint64_t words, side_bytes, near_base[2];
};

#endif
