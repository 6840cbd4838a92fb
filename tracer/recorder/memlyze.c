/* memlyze TOOL ...: the same program as memlyze-TOOL, which lies beside this one (or in the build tree's analyzer/). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name, *what;
} tools[] = {
    {"record", "run a program and record its memory into a trace"},
    {"control", "change a running session: sample rate, marks, snapshots"},
    {"stats", "what is in a trace: events, bytes, peak, threads, losses"},
    {"top", "who allocates"},
    {"leaks", "what was not freed, and which of it grows"},
    {"flame", "flame graph (SVG)"},
    {"gc", "garbage collection pauses and what triggers them"},
    {"diff", "what grew between two traces, or two instants of one"},
};

static void help(FILE *to) {
  fputs("usage: memlyze TOOL [options] ...\n       memlyze help TOOL\n\nTells where a program's memory went:\n", to);
  for (unsigned i = 0; i < sizeof tools / sizeof tools[0]; i++) fprintf(to, "  %-8s %s\n", tools[i].name, tools[i].what);
  fputs("\nBegin with:\n  memlyze record python3 app.py\n  memlyze stats trace.mlyze\n", to);
}

/* Returns only if the tool was not found. */
static void run(const char *tool, char **argv) {
  static const char *const places[] = {"", "/../../analyzer"};
  char exe[PATH_MAX], path[PATH_MAX + 64];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (n < 0) n = 0;
  exe[n] = 0;
  char *slash = strrchr(exe, '/');
  if (!slash) return;
  *slash = 0;
  for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
    snprintf(path, sizeof path, "%s%s/memlyze-%s", exe, places[i], tool);
    execv(path, argv);
    if (errno != ENOENT && errno != ENOTDIR) {
      fprintf(stderr, "memlyze: %s: %s; reinstall memlyze\n", path, strerror(errno));
      return;
    }
  }
}

int main(int argc, char **argv) {
  const char *tool = argc > 1 ? argv[1] : "--help";
  if (argc < 2) {
    help(stderr);
    return 2;
  }
  if (!strcmp(tool, "--version")) {
    puts("memlyze " MLZ_VERSION);
    return 0;
  }
  if (!strcmp(tool, "--help") || !strcmp(tool, "-h") || (!strcmp(tool, "help") && argc == 2)) {
    help(stdout);
    return 0;
  }
  char name[64], *asked[] = {name, "--help", NULL}, **args = argv + 1;
  if (!strcmp(tool, "help")) {
    tool = argv[2];
    args = asked;
  }
  if (tool[0] == '-' || strchr(tool, '/') || strlen(tool) > 32) {
    fprintf(stderr, "memlyze: unknown option or tool '%s'; memlyze --help lists the tools\n", tool);
    return 2;
  }
  snprintf(name, sizeof name, "memlyze-%s", tool);
  if (args != asked) args[0] = name;
  run(tool, args);
  fprintf(stderr, "memlyze: no tool '%s'; memlyze --help lists the tools\n", tool);
  return 2;
}
