/* The ring of docs/concurrency.md, rules 1-7, for an exhaustive search (tests/model/run.py).
 *
 * P, the producing thread, writes MESSAGES messages of one or two slots (some with a byte in the side buffer) into a ring of SLOTS slots;
 * R, the recorder, takes them out. Env stops or kills R (a killed R is one that is never continued), continues it, and kills P, each
 * between any two steps. A message is one that may be dropped when the ring is full, or one that waits (a free, or `--on-full block`).
 *
 * Memory: a store first goes into its process's store buffer; Drain makes buffered stores visible in any order, except that a release
 * store becomes visible after all that its process stored before it (weaker than x86, as the C code's orders allow). A fence waits until
 * the own buffer is empty. Loads happen in program order (acquire). Slots and side bytes are stored at once unless LATE_SLOTS: R does not
 * look at them before it has seen the head that releases them, and "overwritten unread" is asserted at the earliest instant.
 * A futex word is a bit "was added to since the sleeper looked", which is what a counter that never wraps tells.
 *
 * Checked: R reads every published message, whole, in order, none twice; no slot or side byte is overwritten before it was read; P comes to
 * its end whatever happens to R; P never sleeps for ever while R lives, and R not while there is something to read.
 * There is no time-out in P's wait while R runs, so a lost wake-up would be found as a deadlock. R's own sleep has one (rule 7), but only
 * where P has fallen silent: a message that P begins while R sleeps must wake R.
 *
 * BUG_... : seeded faults; run.py demands that each is caught. */

#ifndef SLOTS
#define SLOTS 3
#endif
#ifndef MESSAGES
#define MESSAGES 4
#endif
#define SIDE 2 /* side bytes */
#define RESERVE 1 /* slots that a droppable message leaves free */

/* Shared memory, as all see it. */
byte slot_id[SLOTS];   /* number of the message in this slot */
byte slot_part[SLOTS]; /* 0: single, 1: first of two, 2: second of two; 3 + n: single, with a side byte that holds n */
byte side[SIDE];
byte head, tail, side_head, side_tail;
bit waiting, sleeping, room_added, wake_added;
bit asleep; /* the clock word's bit: only ever changed by locked instructions, so it is in no store buffer */

/* P's store buffer. */
#ifdef LATE_SLOTS
bit pend_slot[SLOTS];
byte pend_slot_at[SLOTS], pend_slot_id[SLOTS], pend_slot_part[SLOTS];
#endif
bit pend_head; byte pend_head_value;
bit pend_side_head; byte pend_side_head_value;
bit pend_waiting, pend_waiting_value;

/* R's store buffer. */
bit pend_tail; byte pend_tail_value;
bit pend_side_tail; byte pend_side_tail_value;
bit pend_sleeping, pend_sleeping_value;

/* The kernel's part. */
bit p_asleep, r_asleep;
bit p_alive = 1, r_runs = 1, p_idle, p_ended, r_done;

/* What the checks need and no process may look at. */
byte published, dropped, read_slots, read_side, read_messages;
bit begun_asleep; /* R slept when P began this message, and has slept on since */

#ifdef LATE_SLOTS
#define SLOTS_STORED (!pend_slot[0] && !pend_slot[1] && !pend_slot[2])
#define BEFORE_HEAD(i) (pend_slot[i] && pend_slot_at[i] < pend_head_value)
#define SLOTS_BEFORE_HEAD_STORED (!BEFORE_HEAD(0) && !BEFORE_HEAD(1) && !BEFORE_HEAD(2))
#else
#define SLOTS_STORED true
#define SLOTS_BEFORE_HEAD_STORED true
#endif
#ifdef BUG_HEAD_RELAXED
#define HEAD_MAY_DRAIN true
#else
#define HEAD_MAY_DRAIN (SLOTS_BEFORE_HEAD_STORED && !pend_side_head)
#endif
#define P_BUFFER_EMPTY (SLOTS_STORED && !pend_head && !pend_side_head && !pend_waiting)
#define R_BUFFER_EMPTY (!pend_tail && !pend_side_tail && !pend_sleeping)
#define P_GONE ((p_ended || !p_alive) && P_BUFFER_EMPTY)

#ifdef LATE_SLOTS
inline drain_slot(i) {
  d_step {
    pend_slot[i] ->
    assert(pend_slot_at[i] < read_slots + SLOTS); /* rule 2: the slot's old content was read */
    slot_id[i] = pend_slot_id[i];
    slot_part[i] = pend_slot_part[i];
    pend_slot[i] = 0; pend_slot_at[i] = 0; pend_slot_id[i] = 0; pend_slot_part[i] = 0
  }
}
inline p_store_slot(at, id, part) {
  d_step { pend_slot[(at) % SLOTS] = 1; pend_slot_at[(at) % SLOTS] = at; pend_slot_id[(at) % SLOTS] = id; pend_slot_part[(at) % SLOTS] = part }
}
#else
inline p_store_slot(at, id, part) {
  d_step {
    assert(at < read_slots + SLOTS); /* rule 2: the slot's old content was read */
    slot_id[(at) % SLOTS] = id;
    slot_part[(at) % SLOTS] = part
  }
}
#endif

active proctype Drain() {
  do
#ifdef LATE_SLOTS
  :: drain_slot(0)
  :: drain_slot(1)
  :: drain_slot(2)
#endif
  :: d_step { pend_side_head -> side_head = pend_side_head_value; pend_side_head = 0; pend_side_head_value = 0 }
  :: d_step { pend_head && HEAD_MAY_DRAIN -> head = pend_head_value; pend_head = 0; pend_head_value = 0 }
  :: d_step { pend_waiting -> waiting = pend_waiting_value; pend_waiting = 0; pend_waiting_value = 0 }
  :: d_step { pend_tail -> tail = pend_tail_value; pend_tail = 0; pend_tail_value = 0 }
  :: d_step { pend_side_tail -> side_tail = pend_side_tail_value; pend_side_tail = 0; pend_side_tail_value = 0 }
  :: d_step { pend_sleeping -> sleeping = pend_sleeping_value; pend_sleeping = 0; pend_sleeping_value = 0 }
  od
}

/* Env: what the world does to both. Every number of its deeds, at every instant. */
active proctype Env() {
  bit stops, continues, kills;
  if
  :: skip
#ifdef STOP
  :: stops = 1
  :: atomic { stops = 1; continues = 1 }
#endif
#ifdef KILL
  :: kills = 1
#endif
  fi;
  do
  :: d_step { stops -> stops = 0; r_runs = 0 }
  :: d_step { !stops && !r_runs && continues -> continues = 0; r_runs = 1 }
  :: d_step { kills && !p_idle -> kills = 0; p_alive = 0; p_asleep = 0 }
  :: d_step { kills && p_idle -> kills = 0 }
  :: timeout -> break /* nothing can move any more */
  od;
  assert(p_idle || !p_alive);                      /* the program ran on, whatever became of the recorder */
  assert(!r_runs || read_messages == published);   /* nothing published is lost, and R does not sleep over it */
  assert(!p_alive || published + dropped == MESSAGES);
  p_ended = 1; /* a program that idles ends at last */
  timeout -> assert(!r_runs || (r_done && read_messages == published))
}

#ifdef BUG_NO_FENCE_WAITING
#define FENCE_WAITING
#else
#define FENCE_WAITING P_BUFFER_EMPTY;
#endif
/* Not needed for the bit of the clock word, whose taking off is a locked instruction; only for naps, which have a time-out. */
#define FENCE_WAKE P_BUFFER_EMPTY;

inline p_store_head(value) { d_step { pend_head = 1; pend_head_value = value } }
inline p_store_side_head(value) { d_step { pend_side_head = 1; pend_side_head_value = value } }
inline p_store_waiting(value) { d_step { pend_waiting = 1; pend_waiting_value = value } }
/* Rule 7. */
inline p_wake_recorder() {
  FENCE_WAKE
  if
  :: sleeping -> d_step { wake_added = 1; r_asleep = 0; begun_asleep = 0 }
  :: else
  fi
}
/* Rules 5 and 6: waits until `room` holds, which looks at what LOOK read; `ok` says how it went. */
#define LOOK d_step { seen_tail = tail; seen_side = side_tail }
inline p_wait_for(room) {
  do
  :: room_added = 0; /* the futex word as it is now */
    p_store_waiting(1);
    FENCE_WAITING
#ifndef BUG_NO_LOOK_AFTER_WAITING
    LOOK;
#endif
    if
    :: room -> ok = 1; break
    :: else
    fi;
    p_wake_recorder(); /* its sleep may have begun while the ring filled up on the fast path */
    if
    :: d_step { !room_added -> p_asleep = 1 }
    :: room_added
    fi;
    if
    :: !p_asleep /* woken, or never slept */
#ifndef BUG_NO_TIMEOUT
    :: d_step { p_asleep && !r_runs -> p_asleep = 0; stalled = 1; full_tail = tail } /* one second without progress */
#endif
    fi;
    LOOK;
    if
    :: room -> ok = 1; break
    :: !(room) && stalled -> break
    :: else
    fi
  od;
  p_store_waiting(0)
}
/* A ring found full: is it worth waiting? Not while R is known to stand still. */
inline p_full(room) {
  if
  :: stalled && tail == full_tail
  :: else ->
    stalled = 0;
    p_wait_for(room)
  fi
}

#ifdef BUG_ROOM_FOR_ONE
#define ROOM (my_head + 1 + (may_drop -> RESERVE : 0) <= seen_tail + SLOTS)
#else
#define ROOM (my_head + length + (may_drop -> RESERVE : 0) <= seen_tail + SLOTS)
#endif
#define SIDE_ROOM (my_side + 1 <= seen_side + SIDE)

active proctype P() provided (p_alive) {
  byte my_head, my_side, my_limit, seen_tail, seen_side, length, full_tail, left = MESSAGES;
  bit uses_side, may_drop, stalled, ok;
  do
  :: left == 0 -> break
  :: left > 0 ->
    atomic { /* any kind of message */
      left--;
      ok = 0;
      if
      :: length = 1; may_drop = 0
      :: length = 2; may_drop = 0
      :: length = 1; may_drop = 1
      :: length = 2; may_drop = 1
#ifdef WITH_SIDE
      :: length = 1; uses_side = 1
#endif
      fi
    };
    if
    :: uses_side ->
      LOOK;
      if
      :: SIDE_ROOM
      :: else ->
        p_full(SIDE_ROOM);
        if
        :: !ok -> goto drop
        :: ok -> ok = 0
        fi
      fi;
      d_step { assert(my_side < read_side + SIDE); side[my_side % SIDE] = MESSAGES - left };
      d_step { my_side++; pend_side_head = 1; pend_side_head_value = my_side }
    :: else
    fi;
    /* The fast path looks at its own limit and at the clock word. */
    if
    :: atomic { my_head + length <= my_limit -> begun_asleep = r_asleep; goto clock }
    :: atomic { else -> begun_asleep = r_asleep }
    fi;
    LOOK;
    if
    :: ROOM
    :: !ROOM && may_drop -> goto drop
    :: !ROOM && !may_drop ->
      p_full(ROOM);
      if
      :: !ok -> goto undo
      :: ok
      fi
    fi;
    atomic { /* come back after this message, or where the reserve begins */
      my_limit = my_head + length;
      if
      :: seen_tail + SLOTS - RESERVE > my_limit -> my_limit = seen_tail + SLOTS - RESERVE
      :: true
      fi
    };
    p_wake_recorder();
clock:
    if
    :: asleep ->
      P_BUFFER_EMPTY; /* the compare-and-swap that takes the bit off */
      if
      :: d_step { asleep -> asleep = 0 };
#ifndef BUG_BIT_OFF_WITHOUT_WAKE
        p_wake_recorder()
#endif
      :: else
      fi
    :: else
    fi;
#ifdef BUG_HEAD_FIRST
    p_store_head(my_head + length);
    P_BUFFER_EMPTY; /* so that no release rule of Drain can mend it */
#endif
    if
    :: uses_side -> p_store_slot(my_head, published, 3 + MESSAGES - left)
    :: !uses_side && length == 1 -> p_store_slot(my_head, published, 0)
    :: !uses_side && length == 2 ->
      p_store_slot(my_head, published, 1);
#ifdef BUG_PUBLISH_PARTLY
      p_store_head(my_head + 1);
#endif
      p_store_slot(my_head + 1, published, 2)
    fi;
    d_step { /* publish: one store */
#ifndef BUG_HEAD_FIRST
      pend_head = 1;
      pend_head_value = my_head + length;
#endif
      my_head = my_head + length;
      published++;
      assert(!begun_asleep);
      begun_asleep = 0
    };
    goto next;
undo: /* side bytes without a message would shift all later ones */
#ifndef BUG_SIDE_KEPT
    if
    :: uses_side -> d_step { my_side--; pend_side_head = 1; pend_side_head_value = my_side }
    :: else
    fi;
#endif
drop:
    skip;
    d_step { dropped++; begun_asleep = 0 };
next:
    skip;
    d_step { length = 0; uses_side = 0; may_drop = 0; ok = 0; seen_tail = 0; seen_side = 0 } /* dead: fewer states */
  od;
  p_idle = 1
}

#ifdef BUG_NO_FENCE_TAIL
#define FENCE_TAIL
#else
#define FENCE_TAIL R_BUFFER_EMPTY;
#endif
#ifdef BUG_NO_FENCE_SLEEPING
#define FENCE_SLEEPING
#else
#define FENCE_SLEEPING R_BUFFER_EMPTY;
#endif

inline r_store_tail(value, side_value) {
  d_step { pend_side_tail = 1; pend_side_tail_value = side_value };
  d_step { pend_tail = 1; pend_tail_value = value };
  FENCE_TAIL
  if
  :: waiting ->
#ifndef BUG_WAKE_WITHOUT_ADD
    room_added = 1;
#endif
    p_asleep = 0
  :: else
  fi
}

/* One whole message. That nobody overwrites it meanwhile is Drain's assertion, so it may be one step here. */
inline r_read_message() {
  d_step {
    assert(slot_id[at % SLOTS] == read_messages); /* in order, none lost, none twice, none half written */
    if
    :: slot_part[at % SLOTS] == 0 -> at = at + 1
    :: slot_part[at % SLOTS] == 1 ->
      assert(at + 2 <= seen_head);
      assert(slot_id[(at + 1) % SLOTS] == read_messages && slot_part[(at + 1) % SLOTS] == 2);
      at = at + 2
    :: slot_part[at % SLOTS] > 3 ->
      assert(side[at_side % SIDE] == slot_part[at % SLOTS] - 3 && side_head > at_side);
      at_side = at_side + 1;
      at = at + 1
    :: else -> assert(false)
    fi;
    read_messages++;
    do /* what was read is gone: a second read of it would be noticed */
    :: read_slots < at -> slot_id[read_slots % SLOTS] = 255; slot_part[read_slots % SLOTS] = 255; read_slots++
    :: else -> break
    od;
    read_side = at_side
  }
}

active proctype R() provided (r_runs) {
  byte seen_head, at, at_side, stored;
  bit gone;
  do
  :: atomic { gone = P_GONE; seen_head = head };
    if
    :: seen_head == at && gone -> break
    :: seen_head == at && !gone ->
      /* rule 7 */
      wake_added = 0;
      d_step { pend_sleeping = 1; pend_sleeping_value = 1 };
      FENCE_SLEEPING
#ifndef BUG_NO_BIT
      asleep = 1;
#endif
#ifdef BUG_NO_LOOK_BEFORE_SLEEP
      if
      :: true ->
#else
      if
      :: head != at
      :: head == at ->
#endif
        if
        :: d_step { !wake_added -> r_asleep = 1 }
        :: wake_added
        fi;
        if
        :: !r_asleep
        :: P_GONE -> r_asleep = 0
        :: p_idle && head != at -> r_asleep = 0 /* its time-out; one that finds nothing changes nothing */
        fi
      fi;
      d_step { pend_sleeping = 1; pend_sleeping_value = 0 }
    :: seen_head != at ->
#ifdef BUG_TAIL_EARLY
      r_store_tail(seen_head, at_side);
      stored = seen_head;
#endif
      do
      :: at == seen_head -> break
      :: at != seen_head ->
        assert(at < seen_head);
        r_read_message();
        if
        :: at != seen_head -> r_store_tail(at, at_side); stored = at /* early release within a batch */
        :: skip
        fi
      od;
      if
      :: stored != at -> r_store_tail(at, at_side)
      :: else
      fi;
      stored = 0
    fi
  od;
  r_done = 1
}
