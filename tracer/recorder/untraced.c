/* Why was nothing traced, or not all? Looks at the file that COMMAND names. */
#include "tracer/recorder/launch.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int open_on_path(const char *command, char *path, size_t size) {
  snprintf(path, size, "%s", command);
  if (strchr(command, '/')) return open(path, O_RDONLY | O_CLOEXEC);
  const char *dirs = getenv("PATH");
  for (const char *at = dirs ? dirs : "/bin:/usr/bin"; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
    size_t n = strcspn(at, ":");
    snprintf(path, size, "%.*s/%s", n ? (int)n : 1, n ? at : ".", command);
    if (access(path, X_OK) == 0) return open(path, O_RDONLY | O_CLOEXEC);
  }
  return -1;
}

static bool has_interpreter(int fd, const Elf64_Ehdr *e) {
  Elf64_Phdr p;
  for (unsigned i = 0; i < e->e_phnum; i++) {
    if (pread(fd, &p, sizeof p, (off_t)(e->e_phoff + (uint64_t)i * e->e_phentsize)) != (ssize_t)sizeof p) return true;
    if (p.p_type == PT_INTERP) return true;
  }
  return false;
}

static const char *cause_of(int fd, const char *path, unsigned depth);

/* "#!/bin/prog": what runs is the interpreter. */
static const char *cause_of_script(const char *line, unsigned depth) {
  char interpreter[256];
  if (depth > 3 || sscanf(line, "#! %255s", interpreter) != 1) return NULL;
  int fd = open(interpreter, O_RDONLY | O_CLOEXEC);
  const char *cause = fd < 0 ? NULL : cause_of(fd, interpreter, depth + 1);
  if (fd >= 0) close(fd);
  return cause;
}

static const char *cause_of(int fd, const char *path, unsigned depth) {
  static char cause[512];
  union {
    Elf64_Ehdr elf;
    char text[256];
  } head;
  struct stat st;
  memset(&head, 0, sizeof head);
  if (fstat(fd, &st) < 0 || pread(fd, &head, sizeof head - 1, 0) < 2) return NULL;
  if (memcmp(head.text, "#!", 2) == 0) return cause_of_script(head.text, depth);
  const char *reason = NULL;
  if ((st.st_mode & S_ISUID && st.st_uid != geteuid()) || (st.st_mode & S_ISGID && st.st_gid != getegid())) {
    reason = "runs with other rights (setuid or setgid), for which the loader ignores LD_PRELOAD; record a copy of it";
  } else if (geteuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0) {
    reason = "has file capabilities, for which the loader ignores LD_PRELOAD; record a copy of it";
  } else if (memcmp(head.text, ELFMAG, SELFMAG) == 0 && head.elf.e_ident[EI_CLASS] == ELFCLASS32) {
    reason = "is a 32-bit program; only 64-bit ones can be traced";
  } else if (memcmp(head.text, ELFMAG, SELFMAG) == 0 && !has_interpreter(fd, &head.elf)) {
    reason = "is statically linked, so nothing can be preloaded into it; record a dynamically linked build";
  }
  if (!reason) return NULL;
  snprintf(cause, sizeof cause, "%.200s %s", path, reason);
  return cause;
}

const char *mlz_launch_untraced_cause(const char *command, const struct mlz_control *control) {
  char path[4096];
  if (atomic_load(&control->threads_denied)) return "there was no memory for a ring; smaller rings (--max-events 1000) may help";
  int fd = open_on_path(command, path, sizeof path);
  const char *cause = fd < 0 ? NULL : cause_of(fd, path, 0);
  if (fd >= 0) close(fd);
  return cause
             ? cause
             : "the agent was not loaded: COMMAND may start the real program with an emptied environment (env -i, sudo) or in a container";
}

/* "#!/bin/prog": what runs is the interpreter. Takes the descriptor. */
static int open_program(int fd, char *path, size_t size, unsigned depth) {
  char line[256] = "", interpreter[256];
  if (fd < 0 || pread(fd, line, sizeof line - 1, 0) < 2 || memcmp(line, "#!", 2) != 0) return fd;
  close(fd);
  if (depth > 3 || sscanf(line, "#! %255s", interpreter) != 1) return -1;
  snprintf(path, size, "%s", interpreter);
  return open_program(open(path, O_RDONLY | O_CLOEXEC), path, size, depth + 1);
}

void mlz_launch_own_allocators(const char *command, struct mlz_own_allocators *out) {
  struct mlz_own_allocator found[MLZ_SYMBOL_ALLOCATORS_MAX];
  char path[4096];
  int fd = open_program(open_on_path(command, path, sizeof path), path, sizeof path, 0);
  mlz_allocators_add(out, found, mlz_allocators_find(fd, path, NULL, 0, found));
  if (fd >= 0) close(fd);
}
