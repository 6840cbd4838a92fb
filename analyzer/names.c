#include "analyzer/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned digit(char c) { return c >= '0' && c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10; }

struct mlz_symbol_module *mlz_names_module(struct mlz_symbolizer *s, const struct mlz_native_frame *frame) {
  uint8_t build_id[64];
  size_t n = strlen(frame->build_id);
  if (!*frame->path || n % 2 || n / 2 > sizeof build_id || strspn(frame->build_id, "0123456789abcdef") != n) return NULL;
  for (size_t i = 0; i < n; i += 2) build_id[i / 2] = (uint8_t)(digit(frame->build_id[i]) << 4 | digit(frame->build_id[i + 1]));
  return mlz_symbolizer_module(s, frame->path, -1, build_id, n / 2);
}

/* Is more to be known of it than the trace says? */
static bool poor(const struct mlz_input *in, const struct mlz_native_frame *f) {
  return !f->resolved || (f->n == 1 && mlz_trace_frame(in->trace, f->frames[0]).line == 0);
}

static bool look_up(struct mlz_input *in, struct mlz_symbolizer *s, uint32_t frame) {
  struct mlz_native_frame f;
  struct mlz_symbol found[MLZ_SYMBOLS_MAX];
  struct mlz_symbol_name names[MLZ_SYMBOLS_MAX];
  if (!mlz_trace_native(in->trace, frame, &f) || !poor(in, &f)) return true;
  struct mlz_symbol_module *m = mlz_names_module(s, &f);
  int n = m ? mlz_symbolizer_visible(m, f.address, found) : -1;
  if (n < 0) return true;
  for (int i = 0; i < n; i++)
    names[i] = (struct mlz_symbol_name){
        .function = found[i].function, .file = found[i].file, .line = found[i].line, .inferred = found[i].inferred};
  return mlz_trace_symbol(in->trace, frame, names, (uint32_t)n) == 0;
}

void mlz_names_look_up(struct mlz_input *in, const char *directory) {
  if (access(directory, R_OK | X_OK) < 0) mlz_input_fail(in, "--symbols %s: %s; name a directory", directory, strerror(errno));
  struct mlz_symbolizer *s = mlz_symbolizer_new(directory);
  bool ok = s != NULL;
  for (uint32_t i = 0, n = mlz_trace_lost_frame(in->trace); i < n && ok; i++) ok = look_up(in, s, i);
  if (!ok || mlz_trace_symbols_done(in->trace) != 0) mlz_input_fail(in, "out of memory; free some or raise the limit");
  mlz_symbolizer_free(s);
}
