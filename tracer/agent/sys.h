/* System calls of the agent, made directly: errno, which belongs to the traced program, stays untouched, and no
 * call runs through a symbol that somebody interposes. Every function returns the kernel's result: negative errno on failure. */
#ifndef MLZ_AGENT_SYS_H
#define MLZ_AGENT_SYS_H

#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

static inline long mlz_sys6(long n, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long ret;
  __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return ret;
}
static inline long mlz_sys3(long n, long a, long b, long c) { return mlz_sys6(n, a, b, c, 0, 0, 0); }

static inline long mlz_sys_futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *timeout) {
  return mlz_sys6(SYS_futex, (long)word, FUTEX_WAIT, (long)value, (long)timeout, 0, 0);
}
static inline long mlz_sys_futex_wake(_Atomic uint32_t *word) { return mlz_sys6(SYS_futex, (long)word, FUTEX_WAKE, 1, 0, 0, 0); }
static inline uint32_t mlz_sys_getpid(void) { return (uint32_t)mlz_sys3(SYS_getpid, 0, 0, 0); }
static inline uint32_t mlz_sys_gettid(void) { return (uint32_t)mlz_sys3(SYS_gettid, 0, 0, 0); }

/* The real clock, for the few events that read it: a system call, because clock_gettime may be interposed (libfaketime). */
static inline uint64_t mlz_sys_monotonic(void) {
  struct timespec t;
  mlz_sys3(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
