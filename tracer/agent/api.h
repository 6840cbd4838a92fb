/* The agent's C interface for the Python package: few, plain, versioned functions, called through ctypes. Exported from libmemlyze.so.
 *
 * Two ways to be here. Preloaded: `memlyze record` (or a start() in an ancestor) started this process, its session is followed, and the caller
 * steers it. Loaded: dlopen() of the installed library into a running program; nothing happens until memlyze_start().
 * Every function may be called by any thread that holds the GIL (ctypes.PyDLL) unless it says otherwise. Nothing is printed, no descriptor is left
 * open but those given to the caller, no child is left or seen by wait(), no signal (SIGCHLD included) reaches the program, errno is kept.
 * Results: 0, or a negative enum memlyze_error; `text` gets one line of what is wrong in words, always terminated. */
#ifndef MLZ_AGENT_API_H
#define MLZ_AGENT_API_H

#include <stddef.h>
#include <stdint.h>

#define MEMLYZE_API_VERSION 1u

enum memlyze_error {
  MEMLYZE_E_STATE = -1,    /* started already, or not started, or called in a sub-interpreter: RuntimeError */
  MEMLYZE_E_VALUE = -2,    /* a value or name that is none: ValueError */
  MEMLYZE_E_SYSTEM = -3,   /* the system or the recorder refused: OSError; the recorder's own line in `text` */
  MEMLYZE_E_RECORDER = -4, /* the recorder died or does not answer: OSError */
};

enum memlyze_mode {
  MEMLYZE_MODE_NONE = 0,    /* no session */
  MEMLYZE_MODE_RECORD = 1,  /* inside `memlyze record` */
  MEMLYZE_MODE_STARTED = 2, /* memlyze_start() was called in this very process */
  MEMLYZE_MODE_CHILD = 3,   /* fork's child of such a process: stop ends the recording of this process only */
};

struct memlyze_info { /* of now; fields are only added at the end */
  uint32_t bytes;     /* in: sizeof this struct as the caller knows it; out: bytes that were filled */
  uint32_t mode;      /* enum memlyze_mode */
  uint32_t recorder_pid;
  uint32_t max_stack_depth;
  double sample_rate;
  uint64_t sample_over; /* bytes; 0: off */
  uint32_t track_gc;
  uint32_t paused;
  char session[256]; /* directory of the session's links */
};

uint32_t memlyze_api_version(void);
int memlyze_info(struct memlyze_info *info);

/* Starts a recorder as `argv` says (argv[0]: path of memlyze-record, then --serve and its options, NULL at the end), which is no child of this
 * process, holds none of its descriptors, and is a process group of its own; attaches this process to it; installs the hooks: the interpreter's
 * allocators, collections, and the C library's allocation calls of the modules that are loaded (their GOT entries; modules loaded later by dlopen
 * too). Returns when events are recorded. *answers: a descriptor (close-on-exec, the caller's) from which, after memlyze_stop() or once the recorder ends in any
 * way, what `memlyze-stats --json FILE` prints can be read to its end; the file is whole on disk before its first byte. Closing it early is allowed. */
int memlyze_start(const char *const argv[], int *answers, char *text, size_t size);

/* Ends the recording of this process: waits until no thread is inside a hook, takes the hooks out where nobody put others on top (they pass through
 * where somebody did), unmaps the arena, gives all memory back. MODE_STARTED: the recorder finishes the file then. MODE_RECORD: MEMLYZE_E_STATE.
 * Afterwards memlyze_start() may be called again. */
int memlyze_stop(char *text, size_t size);

/* One request to the recorder, answered before it returns (call it without the GIL: ctypes.CDLL). NULL or NaN: not asked for. All that was allocated
 * before by the calling thread lies before the mark; `snapshot` also flushes to disk. *ns: time of the trace at which it was obeyed. */
int memlyze_request(const char *mark, const char *snapshot, double sample_rate, int max_stack_depth /* -1: as it is */,
                    int paused /* 0, 1; -1: as it is */, uint64_t *ns, char *text, size_t size);

/* What a flight recorder holds, written into the file `path` (absolute; NULL: its own) before it returns; the recording goes on. As memlyze_request;
 * MEMLYZE_E_STATE: there is no flight recorder. */
int memlyze_dump(const char *path, uint64_t *ns, char *text, size_t size);

#endif
