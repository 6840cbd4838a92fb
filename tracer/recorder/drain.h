/* The drain: reads every ring of the arena in rounds and turns messages into the events of the file.
 * Recorder process, main thread only (the thread that holds control.recorder_mutex).
 *
 * Glossary
 *   feed     the recorder's side of one live ring.
 *   round    one pass over all rings: read all heads (h1), all heads again (h2), take what lies below (docs/concurrency.md 10).
 *   key      (sequence number, time) of a feed's next event: the feeds of an image are taken in the order of their keys.
 *   blocked  a feed whose next event contradicts what is known (an allocation where a block lives, a free of nothing): it
 *            waits within the round for the event of another feed that explains it (rules 12, 13).
 * Files: drain.c rounds and sleep, order.c the merge, aside.c what does not fit, decode.c, decode_hot.c and decode_rare.c messages,
 * frames.c and native.c stacks, account.c blocks and mappings, feed.c rings that come and go, image.c processes and threads, emit.c builders and
 * the writer thread.
 *
 * Nothing in a ring is trusted: a message that does not fit ends the feed (`broken`), and what it held is counted as damage. */
#ifndef MLZ_RECORDER_DRAIN_H
#define MLZ_RECORDER_DRAIN_H

#include "shm/control.h"
#include "tracer/recorder/changes.h"
#include "tracer/recorder/coming.h"
#include "tracer/recorder/emit.h"
#include "tracer/recorder/extents.h"
#include "tracer/recorder/heap.h"
#include "tracer/recorder/symbols.h"
#include "tracer/recorder/totals.h"

struct mlz_drain;
struct mlz_image;
struct mlz_native;

struct mlz_feed {
  struct mlz_ring *ring;
  const uint64_t *in; /* the words of the ring */
  const uint8_t *side;
  struct mlz_image *image;
  struct mlz_feed *next; /* of the same image */
  uint32_t index;        /* of the ring */
  uint32_t thread;       /* id in the file */

  uint64_t pos, tail; /* next word to read; what the producer was told */
  uint32_t batch;     /* words after which it is told again within a round */
  uint32_t mask;      /* words of the ring less one */
  bool deep;          /* many of the blocks freed last were old: decoding looks ahead */
  uint64_t h1, h2;
  uint64_t near_base[2]; /* the ring's, as of this round */
  uint64_t side_pos;
  uint64_t seq, ns; /* of the following events */

  uint64_t *words;   /* frames, root first */
  uint32_t *windows; /* number of the window that ends with each; 0: memory was out */
  uint32_t count, size;
  uint32_t depth; /* max_stack_depth that the thread obeys */
  uint32_t stack; /* id of the present window; 0: empty, or not known yet */
  bool below;     /* more frames lie below words[0] */
  bool stale;     /* the windows are those of another depth */
  bool left_out;  /* what the thread allocates is filtered out, whatever its stacks */

  /* With --native (native.h). */
  uint32_t *nodes;   /* of the ring, by the numbers that it gives them, in the session's numbers */
  uint32_t *modules; /* likewise */
  uint32_t nodes_n, nodes_size, modules_n;
  uint32_t native; /* the innermost node now; 0: no native stack */
  uint32_t alone;  /* id of the stack of native frames alone; 0: empty, or not known yet */
  uint32_t bare;   /* innermost loops of the interpreter that run no frame, not yet or not any more */

  bool unlooked;                     /* room was made without a look at whether the producer waits for it: due at the end of the round */
  bool blocked, force, broken, gone; /* gone: thread or process was gone before this round's heads were read */
  uint8_t blocked_kind;
  uint64_t blocked_granule;

  bool realloc_open;  /* REALLOC_BEGIN seen, END not yet */
  bool realloc_freed; /* its old block was taken early: another thread has the address already */
  bool realloc_temp;
  uint64_t realloc_granule;

  bool gc_open;
  uint32_t gc_generation, gc_stack;
  uint64_t gc_start;

  uint32_t weight; /* index of the weight of sampled allocations */
  uint8_t *code;   /* pieces of a CODE message so far */
  size_t code_bytes;

  uint64_t start_ns, end_ns;
  uint64_t allocs, frees; /* of blocks, in the file */
  uint64_t filtered;      /* allocations of blocks that are not, because of their stack */
  uint64_t others;        /* events that are not: of mappings, collections, marks */
  uint64_t maps;          /* mappings: never sampled */
  uint64_t lost_told;     /* losses that the thread's last row shows */
  uint64_t checked_ns;    /* when the thread was last looked for */
  char *name;
};

/* The ring's word at an index that counts since the ring was claimed. */
static inline uint64_t mlz_feed_word(const struct mlz_feed *f, uint64_t pos) { return f->in[pos & f->mask]; }

/* Without the GIL the rings of a round say only that an address was allocated and freed so and so often, not in which order. What does not fit at
 * once is put aside, and the sums come out right at the end of the round:
 *   a block at whose address another allocation follows without a free: that one came and went before, and is freed first;
 *   a free of nothing (`debt`): it belongs to the next allocation there.
 * What is left then was lost. */
struct mlz_shadow {
  uint64_t granule;
  bool debt;
  struct mlz_live block;
};

enum mlz_ending { MLZ_END_NONE = 0, MLZ_END_EXIT, MLZ_END_KILLED, MLZ_END_EXEC, MLZ_END_CUT, MLZ_END_STOP };

struct mlz_image {
  struct mlz_image *next;
  struct mlz_feed *feeds;
  struct mlz_feed *current; /* whose thread the builder was last told */
  uint32_t number, process; /* image number; process id in the file */
  uint32_t n_feeds, n_blocked;
  uint32_t n_shadows, shadows_size;
  struct mlz_shadow *shadows;
  uint32_t room; /* events until the builder is asked whether it is full */
  struct mlz_builder *builder;
  struct mlz_totals *totals; /* instead of allocations and frees in the builder; NULL: not so. A block's alloc_no is its row then */
  uint64_t next_alloc;       /* number of the next allocation */
  struct mlz_heap heap;
  struct mlz_extents extents;
  uint64_t live_bytes;

  uint32_t pid, parent_image, parent_pid, origin;
  int pidfd;   /* -1: none */
  bool dead;   /* the process is gone, takes no more part, or another image runs in it */
  bool closed; /* dead, and its rings are drained */
  bool known;  /* its IMAGE record was seen */
  enum mlz_ending ending;
  uint64_t start_ns, end_ns, finalize_ns, last_ns;
  bool finalized, python;
  char *command; /* arguments separated by NUL */
  size_t command_bytes;
  char *python_version;
  char *python_state;
  uint64_t allocs, frees; /* events of mappings, and of the feeds that were released: mlz_image_allocs, mlz_image_frees */
  uint64_t gcs, marks;
  uint64_t seen; /* allocations the program made, sampled or not, likewise */
};

struct mlz_counters {
  uint64_t seen, allocs, frees, gcs, marks, snapshots;
  uint64_t dropped_alloc, dropped_free, blocked_ns, blocked_count, nested;
  uint64_t frees_inferred; /* closed because the address was allocated again: their free was lost or came too late */
  uint64_t frees_foreign;
  uint64_t filtered, frees_filtered; /* allocations and frees that --include and --exclude keep out of the file */
  uint64_t pieces;                   /* allocations that are what remained of a mapping (extents.h) */
  uint64_t filtered_pieces;          /* such that were filtered */
  uint64_t broken;                   /* rings given up: their content was no message */
  uint64_t threads;
};

struct mlz_drain {
  struct mlz_control *control;
  struct mlz_symbols symbols;
  struct mlz_native *native;   /* NULL: without --native */
  struct mlz_emit *emit;       /* NULL: count only (benchmarks of the stages before) */
  struct mlz_feed **feeds;     /* by ring index */
  uint32_t feeds_high;         /* no feed at or above */
  struct mlz_image *images;    /* newest first */
  uint32_t processes, threads; /* ids given */
  uint32_t *process_of;        /* image number -> process id; images that have ended are forgotten */
  uint32_t process_of_size;
  double *weights; /* distinct weights; [0] is 1 */
  uint32_t weights_used;
  struct mlz_changes changes;
  uint8_t *scratch; /* side bytes made contiguous */

  uint64_t round, now_ns, clock_ns; /* published time; the clock after h2: no event of the round is later */
  uint64_t gap_ns;                  /* largest gap between two published times while events flowed */
  uint64_t live_bytes, peak_bytes, peak_ns;
  uint64_t first_ring;        /* rings ever seen */
  uint64_t words_total;       /* ever taken */
  uint64_t words_taken;       /* in this round */
  uint32_t fill;              /* highest fill of a ring or its side buffer seen in this round, in 1/256 */
  uint64_t polled_ns;         /* when processes were last looked at */
  uint64_t rss_ns, rss_words; /* when their memory was, and after how many words */
  json_t *rss;                /* what was seen since the last group; NULL: nothing */
  uint32_t watched;           /* pid of a process whose recording may end while it lives; 0: none */
  bool watched_left;          /* and so it did: all of its events were taken */
  const uint32_t *left_out;   /* threads of the watched process whose allocations are not wanted; borrowed, `left_out_n` of them */
  unsigned left_out_n;
  long nap_ns;
  bool totals_only;    /* --snapshots-only */
  bool group_wanted;   /* a snapshot was asked for */
  uint64_t every_ns;   /* a snapshot at each multiple of it; 0: off */
  uint64_t every_next; /* the next one */
  uint64_t code_round; /* round in which unread messages were last searched for a code */
  struct mlz_coming coming;
  struct mlz_counters total;
};

int mlz_drain_init(struct mlz_drain *d, struct mlz_control *control, struct mlz_writer *writer, struct mlz_emit *emit, double rate);
void mlz_drain_deinit(struct mlz_drain *d);

/* One round. Returns the number of words taken. */
uint64_t mlz_drain_round(struct mlz_drain *d);
/* Sleeps as long as fits the load; wakes early for a signal or (when idle) for the next event. `idle`: empty rounds in a row. */
void mlz_drain_sleep(struct mlz_drain *d, unsigned idle);
/* Counters of live rings added to those of the released ones. */
struct mlz_counters mlz_drain_counters(const struct mlz_drain *d);

/* aside.c: end of a merge */
bool mlz_aside_block(struct mlz_image *m, uint64_t granule); /* false: out of memory */
bool mlz_aside_debt(struct mlz_image *m, uint64_t granule);
void mlz_aside_freed(struct mlz_image *m, uint64_t granule);
void mlz_aside_allocated(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule);
/* Did a realloc under way leave the address? Then its block is gone, although REALLOC_END has not come yet. */
bool mlz_aside_realloc_left(struct mlz_drain *d, struct mlz_feed *f, uint64_t granule);
void mlz_aside_settle(struct mlz_drain *d, struct mlz_image *m);

/* order.c */
void mlz_order_image(struct mlz_drain *d, struct mlz_image *m);

/* decode.c: reads messages of `f` up to word `end`, or until an event's key would exceed (stop_seq, stop_ns), or the feed is blocked,
 * or a blocked feed of the image became free. */
void mlz_decode_run(struct mlz_drain *d, struct mlz_feed *f, uint64_t end, uint64_t stop_seq, uint64_t stop_ns);
void mlz_decode_hot(struct mlz_drain *d, struct mlz_feed *f,
                    uint64_t end); /* decode_hot.c: the common ones, as far as nothing is odd about them */
bool mlz_decode_rare(struct mlz_drain *d, struct mlz_feed *f, uint64_t a, uint64_t b); /* decode_rare.c: one message; false: it is none */
void mlz_decode_find_codes(struct mlz_drain *d);                                       /* learns all codes that lie unread in the rings */
/* Tells the producer its room, and wakes it if it waits; within a round only once no more than `room` words are left to read: a producer
 * woken for a few words would sleep again at once. */
void mlz_feed_publish(struct mlz_feed *f, uint64_t room);

/* feed.c */
struct mlz_feed *mlz_feed_attach(struct mlz_drain *d, uint32_t index); /* a LIVE ring without feed; NULL: out of memory */
void mlz_feed_release(struct mlz_drain *d, struct mlz_feed *f);        /* drained, its thread gone: the ring becomes FREE */
static inline uint64_t mlz_feed_events(const struct mlz_feed *f) { return f->allocs + f->frees + f->others; }
uint64_t mlz_feed_seen(const struct mlz_feed *f); /* allocations of the thread: traced, passed over or lost */
void mlz_feed_settings(struct mlz_drain *d, struct mlz_feed *f, uint64_t word);
void mlz_feed_look(struct mlz_drain *d);  /* whose threads are gone? Before the heads are read */
void mlz_feed_sweep(struct mlz_drain *d); /* releases what is gone and drained; after the round */

/* image.c */
struct mlz_image *mlz_image_of(struct mlz_drain *d, uint32_t number, uint32_t pid); /* NULL: out of memory */
void mlz_image_free(struct mlz_image *m);
uint64_t mlz_image_allocs(const struct mlz_image *m);
uint64_t mlz_image_frees(const struct mlz_image *m);
void mlz_image_poll(struct mlz_drain *d);                         /* which processes are gone? */
void mlz_image_dead(struct mlz_image *m, enum mlz_ending ending); /* its rings are drained still; the first ending counts */
void mlz_image_close(struct mlz_drain *d, struct mlz_image *m, enum mlz_ending ending);
void mlz_image_row(struct mlz_drain *d, struct mlz_image *m); /* (again) into the PROCESS table */
void mlz_image_thread_row(struct mlz_drain *d, struct mlz_feed *f);
void mlz_image_seal(struct mlz_drain *d); /* hands all builders and tables over as one group */
unsigned mlz_image_living(const struct mlz_drain *d);
/* With totals: what the image amounts to now. A snapshot is one of every image that runs. */
void mlz_image_point(struct mlz_drain *d, struct mlz_image *m, enum mlz_point_kind point, uint32_t name, uint64_t ns);
void mlz_image_snapshot(struct mlz_drain *d, uint32_t name, uint64_t ns);

/* account.c */
void mlz_account_room(struct mlz_drain *d, struct mlz_image *m, struct mlz_feed *f); /* a builder with room, told time and thread */
void mlz_account_rare(struct mlz_drain *d, struct mlz_feed *f, const struct mlz_rare *r);
void mlz_account_map(struct mlz_drain *d, struct mlz_feed *f, uint64_t start, uint64_t granules, uint32_t stack, uint32_t weight);
void mlz_account_unmap(struct mlz_drain *d, struct mlz_feed *f, uint64_t start, uint64_t granules);

#endif
