/* The agent's state: what one process and one thread of the traced program know.
 *
 * Lives inside the traced program. Nothing here may abort, print, take a lock, change errno or leave a descriptor open.
 * All symbols are hidden; what the program sees is the interposed C functions only. */
#ifndef MLZ_AGENT_H
#define MLZ_AGENT_H

#include "marks.h"
#include "ring_producer.h"

#pragma GCC visibility push(hidden)

/* One remembered frame. Frames that are not shown (the shim between C and the interpreter, a frame not yet begun) are
 * remembered too, with id MLZ_SEEN_HIDDEN, so that the chain of `previous` pointers can be checked without looking anything up. */
#define MLZ_SEEN_HIDDEN UINT32_MAX
struct mlz_seen {
  const char *frame; /* address of the interpreter's frame */
  const char *code;  /* of the code object, or what a shim has in its place */
  uint64_t instr;    /* instruction pointer, or f_lasti */
  uint32_t id;       /* of the code object */
  uint32_t floor;    /* bytes from the code's first instruction to the first one of a frame that has begun; 0: it has, for sure */
};

_Static_assert(sizeof(struct mlz_seen) == 32, "root is seen[-1]");

#define MLZ_NO_FRAME ((const char *)1)
#define MLZ_WINDOW_QUICK 26u /* entries that the quick way compares */

/* For tstate_slot: two places that hold NULL. */
#define MLZ_SLOT_UNKNOWN (&mlz_no_slot[0]) /* not looked for yet */
#define MLZ_SLOT_NONE (&mlz_no_slot[1])    /* not found: the interpreter must be asked */
extern void *const mlz_no_slot[2];

#define MLZ_STACK_CHANGED 0x100u /* of a capture, beside MLZ_F_NOSTACK: the difference is in the thread; beyond the flags of a record */
#define MLZ_SEEN_MAX 1536        /* remembered frames, > MLZ_STACK_DEPTH_MAX; shims included */

/* Ids of code objects that were looked up lately, so that the code object itself need not be touched. True while no code object dies. */
#define MLZ_IDS 512u
struct mlz_known_id {
  const char *code;
  uint32_t id;
  uint32_t floor; /* of its frames, as mlz_seen.floor, where they are no generator's */
};

enum mlz_thread_ended {
  MLZ_THREAD_RUNS = 0,
  MLZ_THREAD_ENDED = 1, /* its last destructor ran: its memory may be used again once its tid is gone */
  MLZ_THREAD_TAKEN = 2, /* for another thread, which begins */
  MLZ_THREAD_HELD = 3,  /* the thread does not end while who ends the session looks at it (leave.c) */
  MLZ_THREAD_FREE = 4,  /* its session has ended: nobody's */
};

/* A thread. In memory of its own (mapped, never the program's heap), touched as far as it is used, and emptied by a fork
 * (MADV_WIPEONFORK): in the child nothing in it says that an event may be written. */
struct mlz_thread {
  struct mlz_producer out;
  /* What an event with an unchanged stack looks at (hooks_quick.h). */
  uint64_t clock_seen;      /* clock word as of the ring's last message; bits of the settings: as of those obeyed */
  void *const *tstate_slot; /* where the state of this thread's interpreter is found; or MLZ_SLOT_... */
  const char *top;          /* frame of the innermost remembered entry; MLZ_NO_FRAME: there is none that may be believed at first sight */
  struct mlz_seen *last;    /* that entry */
  uint64_t floor;           /* its lowest instruction pointer as a frame that has begun (3.11 and later) */
  struct mlz_seen *lowest;  /* outermost entry of the window, so many entries below: */
  uint64_t window;          /* entries from lowest to last, at most MLZ_WINDOW_QUICK */
  uint64_t settings;        /* settings word obeyed */

  uint64_t order_seen;   /* what order_next was when this ring last took a number */
  uint64_t last_ns;      /* time of the ring's last TIME */
  uint32_t seen_n;       /* remembered frames, root first */
  uint32_t hidden;       /* of them, those with MLZ_SEEN_HIDDEN */
  uint32_t stale_n;      /* entries below this index were filled in this epoch, also those above seen_n */
  uint32_t seen_epoch;   /* code epoch that they are of */
  uint32_t ids_epoch;    /* code epoch of `ids` */
  bool stack_reset;      /* the recorder's frame array is not what we remember: send RESET (mlz_thread_forget) */
  bool detached;         /* the stack is walked without the GIL */
  bool interp_known;     /* `interp` is one whose co_extra index is ours */
  const void *interp;    /* for which interp_known was decided */
  int64_t interp_number; /* the interpreter's own number for it; -1: the main one */
  uint32_t depth;        /* max_stack_depth as of the settings obeyed */
  uint32_t tid;
  unsigned long self;             /* pthread_self(), which threading calls ident */
  uint64_t name_hash;             /* of the name that threading gave it; 0: none was sent */
  uint64_t lost_alloc, lost_free; /* not yet told by LOST */

  /* Sampling (gate.h). */
  uint64_t sample_window;  /* number of the next window */
  uint64_t sample_key;     /* which thread of which fork's child it is: their choices must not be alike */
  uint64_t sample_inverse; /* of the rate, for divisions */
  uint64_t sample_least;   /* allocations that begin in a window: so many, or one more */
  uint64_t sample_begun;   /* how much of it belongs to an allocation that began in the window before; 2^32 is all of it */
  uint64_t sample_ahead;   /* from the last choice to the first allocation that begins in it */
  bool sample_taken;       /* that allocation across the boundary is the last choice */
  bool arena_new;          /* the thread's last allocation has made an arena (hooks_slim.c) */
  uint64_t arena_still;    /* mlz_gate_still then */
  uint64_t last_still;     /* mlz_gate_still when last_block was given: it is the thread's last allocation only as long as that is so */
  uint64_t passed_then;    /* allocations that will have been passed over when the next one is chosen */
  uint32_t number;         /* thread number */

  /* The stack difference that the last capture found. */
  uint32_t pop;
  uint32_t push;
  bool reset;
  bool below; /* as of the last reset: frames lie below the outermost remembered one */

  struct mlz_tls *tls; /* of the thread */
  bool native_ready;   /* `native` is this thread's, and knows its ring */

  /* Not cleared when the memory is used again: others walk the list meanwhile. */
  _Atomic uint32_t ended;    /* enum mlz_thread_ended */
  struct mlz_thread *next;   /* list of all, newest first */
  struct mlz_native *native; /* native.c: what is remembered of native stacks; NULL: nothing yet. A fork's child has none */

  uint64_t words[MLZ_STACK_DEPTH_MAX + 8]; /* pushed frames, outermost first */
  struct mlz_known_id ids[MLZ_IDS];        /* by a hash of the address */
  uint8_t scratch[16384];                  /* code.c */
  struct mlz_seen none[3];                 /* seen[-4] to seen[-2]: never filled, so that looking back needs no bounds */
  struct mlz_seen root;                    /* seen[-1]: its frame is what the outermost remembered frame points to */
  struct mlz_seen seen[MLZ_SEEN_MAX];
  struct mlz_seen fresh[MLZ_SEEN_MAX]; /* of a walk in progress, innermost first */
};

_Static_assert(offsetof(struct mlz_thread, seen) == offsetof(struct mlz_thread, root) + sizeof(struct mlz_seen), "root is seen[-1]");

#define MLZ_EPOCH_NONE UINT32_MAX

/* The recorder's frame array is no longer what the thread remembers: the next capture starts anew. */
static inline void mlz_thread_forget(struct mlz_thread *th) {
  th->stack_reset = true;
  th->seen_epoch = MLZ_EPOCH_NONE;
  th->top = MLZ_NO_FRAME;
}

/* What a hook of this thread is doing; a hook that finds one running passes through. */
enum mlz_busy {
  MLZ_BUSY_NOT = 0,
  MLZ_BUSY_EVENT = 1, /* composing a message: nothing may be sent in between */
  MLZ_BUSY_INNER = 2, /* inside the hooked allocator: a marked block that is freed there must still be reported */
  MLZ_BUSY_OWN = 3,   /* calling the interpreter on our own account: its allocations are hidden, marked blocks that it frees are reported */
};

/* What the hooks touch at every event. Static TLS, initial-exec: small. */
struct mlz_tls {
  uint32_t busy;  /* enum mlz_busy */
  uint32_t image; /* the image that `thread` belongs to; 0: none yet, or not this thread */
  uint64_t settings;
  /* 0: every allocation is chosen. Else the (countdown + later)-th from now is; the countdown is short, so that settings are looked at often. */
  uint32_t countdown;
  uint32_t chosen; /* enum mlz_gate_answer that the gate gave already for the allocation under way; 0: it was not asked */
  /* Mem and obj requests of 1 to so many bytes are passed over without a look at anything else; 0 where all are chosen (hooks_slim.c). */
  uint64_t quick;
  uint64_t later;
  uint64_t over;             /* sample_over, or UINT64_MAX */
  struct mlz_thread *thread; /* never NULL */
  const void *last_block;    /* of the thread's last allocation, if that was recorded; else NULL */
  uint32_t retry;            /* no ring: events to pass over before trying again */
  uint32_t retries;
  struct mlz_wish *wish; /* hooks_slim.c: what the raw hook below is asked for; NULL: nothing */
};
_Static_assert(sizeof(struct mlz_tls) <= 80, "static TLS stays small");

/* Before the interpreter is called on our own account: what it allocates is hidden. */
static inline void mlz_agent_own(struct mlz_tls *t) {
  t->busy = MLZ_BUSY_OWN;
  t->quick = 0; /* its hooks look at `busy` then */
}

extern struct mlz_thread mlz_no_thread; /* stands in for a thread that has none: nothing may be written */
extern __thread struct mlz_tls mlz_tls __attribute__((tls_model("initial-exec")));

enum mlz_agent_state {
  MLZ_AGENT_NEW = 0, /* nothing tried yet */
  MLZ_AGENT_ON = 1,  /* the arena is mapped */
  MLZ_AGENT_OFF = 2, /* no session, not followed, or the recorder died: every hook passes through */
};

/* The process. `wiped` lies in a page that a fork empties (MADV_WIPEONFORK): image 0 there sends the
 * next event of the child, and the first of the process, into the slow path. */
struct mlz_wiped {
  _Atomic uint32_t image;
  _Atomic uint32_t inside; /* threads that use the arena without being in the list of threads, or before */
};
struct mlz_agent {
  struct mlz_peer peer;    /* its control block is one that says nothing while there is no session */
  _Atomic uint32_t attach; /* enum mlz_agent_state, survives a fork */
  uint32_t session_number; /* of this process's sessions, from 1 */
  uint32_t started;        /* pid of the process whose memlyze_start made the session; 0: it came with LD_PRELOAD. Survives a fork */
  uint32_t image_last;   /* no image of another session had a higher number: what threads remember of it must not be taken for this one's */
  uint32_t image_parent; /* of a fork's child: image that it was forked from */
  uint32_t last_image;   /* the image as of the last look; survives a fork */
  uint32_t pid;
  uint32_t parent_pid; /* of a fork's child: the process of image_parent */
  uint32_t peer_pid;   /* the same in the recorder's pid namespace */
  bool whole;          /* the whole arena is mapped; else each ring is mapped when it is claimed */
  bool no_wipe;        /* the kernel lacks MADV_WIPEONFORK: pthread_atfork stands in */
  bool preloaded;      /* the library came with LD_PRELOAD, for a session that was there then */
  bool trace_malloc;   /* settings that stay as they were when the image began */
  bool trace_python;
  bool trace_gc;
  bool native;       /* native stacks are captured */
  bool native_check; /* and compared (MEMLYZE_NATIVE_CHECK) */
  char session[256]; /* directory of the links */
  _Atomic uint32_t thread_next;
  struct mlz_thread *_Atomic threads;
  struct mlz_thread *_Atomic last_gil; /* the ring that wrote last under the GIL */
  _Atomic uint32_t code_epoch;         /* raised when a code object that has an id dies */
  _Atomic uint32_t finalized;          /* FINALIZE was sent for image `finalized` */
};

extern struct mlz_agent mlz_agent;
extern union mlz_wiped_page {
  struct mlz_wiped v;
  char bytes[4096];
} mlz_wiped __attribute__((aligned(4096)));
static inline __attribute__((always_inline)) struct mlz_wiped *mlz_wiped_get(void) { return &mlz_wiped.v; }

static inline __attribute__((always_inline)) struct mlz_control *mlz_agent_control(void) { return mlz_agent.peer.control; }

/* Slow path of every hook: attaches the process, notices a fork, gives the thread a ring, obeys new settings.
 * True: t->thread may be used for this event. */
MLZ_COLD bool mlz_agent_enter_slow(struct mlz_tls *t);

/* True: the thread has a ring of this very image and has obeyed the current settings. */
static inline __attribute__((always_inline)) bool mlz_agent_enter(struct mlz_tls *t) {
  if (MLZ_LIKELY(t->image != 0 && t->image == atomic_load_explicit(&mlz_wiped_get()->image, memory_order_relaxed) &&
                 t->settings == atomic_load_explicit(&mlz_agent_control()->settings, memory_order_relaxed)))
    return true;
  return mlz_agent_enter_slow(t);
}

/* A code object that has an id dies, under the GIL: no remembered frame may be believed. */
MLZ_COLD void mlz_agent_code_died(void);
/* What seen_epoch and ids_epoch are compared with; never MLZ_EPOCH_NONE. */
static inline __attribute__((always_inline)) uint32_t mlz_agent_code_epoch(void) {
  return atomic_load_explicit(&mlz_agent.code_epoch, memory_order_relaxed) & 0x7fffffff;
}

/* A thread that is about to use the arena, or has done so: nobody unmaps it meanwhile. Then it looks at mlz_agent.attach. */
static inline void mlz_agent_inside(int one) { atomic_fetch_add(&mlz_wiped_get()->inside, (uint32_t)one); }

/* Joins the session that mlz_agent.session names, in a process that runs already: from then on events of this thread can be written. 0; -ENOENT: its
 * arena is not there; -ENOMEM: no ring could be had (call mlz_agent_leave). */
int mlz_agent_join(struct mlz_tls *t);
/* leave.c: takes this process out of the session: nothing of it is looked at any more. Hooks that stay in place pass through. The GIL is held (and let
 * go of while another thread is waited for); t->busy is NOT. False: a thread stayed inside a hook for seconds; what it may use is not unmapped. */
bool mlz_agent_leave(struct mlz_tls *t);
extern struct mlz_control mlz_no_control;

/* session.c */
bool mlz_session_open(void);                         /* maps the arena of mlz_agent.session; false: no session */
bool mlz_session_find(void);                         /* sets mlz_agent.session to the directory that LD_PRELOAD named us by; false: none */
long mlz_session_arena(void);                        /* a descriptor of the arena; negative errno: none */
void mlz_session_close(void);                        /* unmaps the arena but for rings that were mapped by themselves */
bool mlz_session_reachable(void);                    /* could a program that is started now open the arena? Changes nothing */
struct mlz_ring *mlz_session_claim(uint32_t *index); /* a populated ring, state CLAIMED; NULL: none */
void mlz_session_unclaim(struct mlz_ring *r);
void mlz_session_unmap(struct mlz_ring *r); /* of a thread that is gone: where each ring is mapped by itself, RLIMIT_AS is the program's */

/* process.c */
void mlz_process_begin(struct mlz_tls *t);    /* sends IMAGE on a fresh ring */
void mlz_process_finalize(struct mlz_tls *t); /* sends FINALIZE, once an image */
void mlz_process_resolve_exec(void);          /* hooks_exec.c: dlsym is not safe in a fork's child, exec is */

#pragma GCC visibility pop
#endif
