/* Byte offsets of each interpreter version; python.h says where they come from. */
#include "python.h"

#include <string.h>

/* clang-format off */
static const struct mlz_py_layout layouts[] = {
    {.minor = 8, .lines_format = MLZ_LINES_LNOTAB,
     .tstate_frame = 24, .cframe_frame = -1, .tstate_interp = 16, .tstate_thread_id = 176,
     .frame_previous = 24, .frame_code = 32, .frame_instr = 104, .frame_globals = 48,
     .code_start = 0, .code_first_line = 40, .code_file = 104, .code_name = 112, .code_lines = 120, .code_extra = 144,
     .str_ascii_data = 48, .str_data = 72, .runtime_initialized = 12,
     .gc_in_runtime = 1, .gc_base = 0x158, .gc_stats = 128, .gc_collecting = 200, .gc_callbacks = 216},
    {.minor = 9, .lines_format = MLZ_LINES_LNOTAB,
     .tstate_frame = 24, .cframe_frame = -1, .tstate_interp = 16, .tstate_thread_id = 176,
     .frame_previous = 24, .frame_code = 32, .frame_instr = 104, .frame_globals = 48,
     .code_start = 0, .code_first_line = 40, .code_file = 104, .code_name = 112, .code_lines = 120, .code_extra = 144,
     .str_ascii_data = 48, .str_data = 72, .runtime_initialized = 12,
     .gc_base = 0x268, .gc_stats = 128, .gc_collecting = 200, .gc_callbacks = 216},
    {.minor = 10, .lines_format = MLZ_LINES_310,
     .tstate_frame = 24, .cframe_frame = -1, .tstate_interp = 16, .tstate_thread_id = 176,
     .frame_previous = 24, .frame_code = 32, .frame_instr = 96, .frame_globals = 48,
     .code_start = 0, .code_first_line = 40, .code_file = 104, .code_name = 112, .code_lines = 120, .code_extra = 144,
     .str_ascii_data = 48, .str_data = 72, .runtime_initialized = 12,
     .gc_base = 0x268, .gc_stats = 128, .gc_collecting = 200, .gc_callbacks = 216},
    {.minor = 11, .lines_format = MLZ_LINES_311,
     .tstate_frame = 56, .cframe_frame = 8, .tstate_interp = 16, .tstate_thread_id = 152,
     .frame_previous = 48, .frame_code = 32, .frame_instr = 56, .frame_owner = 69, .frame_globals = 8,
     .code_start = 184, .code_first_line = 72, .code_file = 112, .code_name = 120, .code_qualname = 128, .code_lines = 136, .code_traceable = 168, .code_extra = 176,
     .str_ascii_data = 48, .str_data = 72, .runtime_initialized = 16,
     .gc_base = 0x288, .gc_stats = 128, .gc_collecting = 200, .gc_callbacks = 216},
    {.minor = 12, .lines_format = MLZ_LINES_311,
     .tstate_frame = 56, .cframe_frame = 0, .tstate_interp = 16, .tstate_thread_id = 136,
     .frame_previous = 8, .frame_code = 0, .frame_instr = 56, .frame_owner = 70, .frame_globals = 24,
     .code_start = 192, .code_first_line = 68, .code_file = 112, .code_name = 120, .code_qualname = 128, .code_lines = 136, .code_traceable = 176, .code_extra = 184,
     .str_ascii_data = 40, .str_data = 56, .runtime_initialized = 16,
     .gc_base = 0x70, .gc_stats = 128, .gc_collecting = 200, .gc_callbacks = 216},
    {.minor = 13, .lines_format = MLZ_LINES_311,
     .tstate_frame = 72, .cframe_frame = -1, .tstate_interp = 16, .tstate_thread_id = 152,
     .frame_previous = 8, .frame_code = 0, .frame_instr = 56, .frame_owner = 70, .frame_globals = 24,
     .code_start = 200, .code_first_line = 68, .code_file = 112, .code_name = 120, .code_qualname = 128, .code_lines = 136, .code_traceable = 184, .code_extra = 192,
     .str_ascii_data = 40, .str_data = 56,
     .gc_base = 0x1ce8, .gc_stats = 128, .gc_collecting = 200, .gc_callbacks = 216},
    {.minor = 14, .lines_format = MLZ_LINES_311,
     .tstate_frame = 72, .cframe_frame = -1, .tstate_interp = 16, .tstate_thread_id = 152,
     .frame_previous = 8, .frame_code = 0, .frame_instr = 56, .frame_owner = 74, .frame_globals = 24,
     .code_start = 208, .code_first_line = 68, .code_file = 112, .code_name = 120, .code_qualname = 128, .code_lines = 136, .code_traceable = 192, .code_extra = 200,
     .str_ascii_data = 40, .str_data = 56,
     .gc_base = 0x1cf0, .gc_stats = 120, .gc_collecting = 192, .gc_callbacks = 208},
};
/* clang-format on */

const struct mlz_py_layout *mlz_python_layout_for(const char *version) {
  if (version[0] != '3' || version[1] != '.' || strstr(version, "free-threading")) return NULL;
  unsigned minor = 0;
  for (const char *p = version + 2; *p >= '0' && *p <= '9'; p++) minor = minor * 10 + (unsigned)(*p - '0');
  for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
    if (layouts[i].minor == minor) return &layouts[i];
  return NULL;
}

/* ---- what the interpreter says of itself, from 3.13 on: struct _Py_DebugOffsets at the start of _PyRuntime ---- */

/* Where that table keeps what; it grew between the versions. CPython Include/internal/pycore_debug_offsets.h (3.13: pycore_runtime.h). */
struct published {
  uint16_t minor, current_frame, previous, executable, instr_ptr, owner, file, name, qualname, lines, first_line, adaptive, gc;
};
/* clang-format off */
static const struct published published[] = {
    {.minor = 13, .current_frame = 184, .previous = 232, .executable = 240, .instr_ptr = 248, .owner = 264,
     .file = 280, .name = 288, .qualname = 296, .lines = 304, .first_line = 312, .adaptive = 344, .gc = 80},
    {.minor = 14, .current_frame = 208, .previous = 256, .executable = 264, .instr_ptr = 272, .owner = 288,
     .file = 320, .name = 328, .qualname = 336, .lines = 344, .first_line = 352, .adaptive = 384, .gc = 88},
};
/* clang-format on */

static uint64_t field(const char *runtime, unsigned offset) {
  uint64_t v;
  memcpy(&v, runtime + offset, sizeof(v));
  return v;
}

bool mlz_python_layout_published(const struct mlz_py_layout *l, const char *runtime) {
  const struct published *p = NULL;
  for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++)
    if (published[i].minor == l->minor) p = &published[i];
  if (!p) return l->minor < 13; /* earlier versions publish nothing */
  if (!runtime || memcmp(runtime, "xdebugpy", 8) != 0) return false;
  if ((field(runtime, 8) >> 16) != (0x0300u | l->minor)) return false; /* the version as in PY_VERSION_HEX */
  return field(runtime, 16) == 0 /* free-threaded */ && field(runtime, p->current_frame) == l->tstate_frame &&
         field(runtime, p->previous) == l->frame_previous && field(runtime, p->executable) == l->frame_code &&
         field(runtime, p->instr_ptr) == l->frame_instr && field(runtime, p->owner) == l->frame_owner &&
         field(runtime, p->file) == l->code_file && field(runtime, p->name) == l->code_name &&
         field(runtime, p->qualname) == l->code_qualname && field(runtime, p->lines) == l->code_lines &&
         field(runtime, p->first_line) == l->code_first_line && field(runtime, p->adaptive) == l->code_start &&
         field(runtime, p->gc) == l->gc_base;
}
