/* Which memory a walk may read. The rules are believed, the stack is not: whatever lies there, no read may fault. */
#include "native.h"
#include "sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE 4096u
#define GROWTH (UINT64_C(100) << 20) /* the kernel keeps 128 MB free below the main thread's stack */
#define TRIES 16u

/* ---- /proc/self/maps, read line by line ---- */

struct lines {
  long fd;
  uint8_t *buffer;
  long from, to;
};

/* The next line: its range, whether it can be read, whether it is the main thread's stack. */
struct mapping {
  uintptr_t low, high;
  bool readable, stack;
};

static int next_byte(struct lines *l) {
  if (l->from == l->to) {
    l->from = 0;
    l->to = mlz_sys3(SYS_read, l->fd, (long)l->buffer, MLZ_NATIVE_COPY);
    if (l->to <= 0) {
      l->to = 0;
      return -1;
    }
  }
  return l->buffer[l->from++];
}
static uintptr_t next_hex(struct lines *l, int *stop) {
  uintptr_t v = 0;
  for (;;) {
    int c = next_byte(l);
    if (c >= '0' && c <= '9')
      v = v * 16 + (uintptr_t)(c - '0');
    else if (c >= 'a' && c <= 'f')
      v = v * 16 + (uintptr_t)(c - 'a' + 10);
    else {
      *stop = c;
      return v;
    }
  }
}
static bool next_mapping(struct lines *l, struct mapping *m) {
  static const char stack[] = "[stack]";
  int c;
  m->low = next_hex(l, &c);
  if (c != '-') return false;
  m->high = next_hex(l, &c);
  m->readable = next_byte(l) == 'r';
  size_t same = 0; /* characters of the last word that are those of `stack` */
  while ((c = next_byte(l)) >= 0 && c != '\n') {
    if (c == ' ')
      same = 0;
    else
      same = same < sizeof(stack) - 1 && c == stack[same] ? same + 1 : sizeof(stack);
  }
  m->stack = same == sizeof(stack) - 1;
  return true;
}

void mlz_native_home_find(struct mlz_native_home *h, uintptr_t sp, uintptr_t self, uint8_t *scratch) {
  if (h->high || h->tries == TRIES) return;
  h->tries++;
  struct lines l = {mlz_sys6(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0, 0, 0), scratch, 0, 0};
  if (l.fd < 0) return;
  struct mapping m;
  uintptr_t below = 0; /* end of the mapping before */
  while (next_mapping(&l, &m)) {
    /* The C library puts a thread's own data at the end of its stack. */
    if (m.readable && self >= m.low && self < m.high && sp >= m.low && sp < self) {
      h->low = m.low;
      h->high = self;
      break;
    }
    uintptr_t grown = m.low > below + GROWTH ? m.low - GROWTH : below;
    if (m.readable && m.stack && sp >= grown && sp < m.high) {
      h->low = grown;
      h->high = m.high;
      break;
    }
    below = m.high;
  }
  mlz_sys3(SYS_close, l.fd, 0, 0);
}

bool mlz_native_view(struct mlz_native_home *h, uintptr_t sp, uintptr_t at, struct mlz_native_view *v, uint8_t *copy) {
  if (at & 7) return false;
  if (at >= h->low && at < h->high && sp >= h->low && sp < h->high) {
    struct mlz_native_view own = mlz_native_home_view(h, sp);
    if (at >= own.low) {
      *v = own;
      return true;
    }
  }
  /* Whole pages where they can be had: what cannot be read shortens the copy. */
  uintptr_t end = (at + MLZ_NATIVE_COPY) & ~(uintptr_t)(PAGE - 1);
  struct iovec local = {copy, end - at}, remote = {(void *)at, end - at};
  long n = mlz_sys6(SYS_process_vm_readv, mlz_agent.pid, (long)&local, 1, (long)&remote, 1, 0);
  h->copies++;
  if (n < 8) return false;
  *v = (struct mlz_native_view){at, at + ((uintptr_t)n & ~(uintptr_t)7), (intptr_t)copy - (intptr_t)at};
  return true;
}
