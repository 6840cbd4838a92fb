/* memlyze TOOL ...: the same program as memlyze-TOOL, which lies beside this one (or in the build tree's analyzer/). */
#include "tracer/recorder/tool.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

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
    {"check", "limits and baselines, for CI"},
    {"export", "a trace for other viewers: pprof, speedscope, ms_print, ..."},
    {"annotate", "source lines with what they allocated; code around native calls"},
    {"verify", "is a trace whole, and what is lost; repairs it"},
};

static void help(FILE *to) {
  fputs("usage: memlyze TOOL [options] ...\n       memlyze help TOOL\n\nTells where a program's memory went:\n", to);
  for (unsigned i = 0; i < sizeof tools / sizeof tools[0]; i++) fprintf(to, "  %-8s %s\n", tools[i].name, tools[i].what);
  fputs("\nBegin with:\n  memlyze record python3 app.py\n  memlyze stats trace.mlyze\n", to);
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
  char path[PATH_MAX], name[64], *asked[] = {name, "--help", NULL}, **args = argv + 1;
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
  int e = mlz_tool_exec(tool, args, path, sizeof path);
  if (e != -ENOENT) {
    fprintf(stderr, "memlyze: %s: %s; reinstall memlyze\n", path, strerror(-e));
    return 2;
  }
  fprintf(stderr, "memlyze: no tool '%s'; memlyze --help lists the tools\n", tool);
  return 2;
}
