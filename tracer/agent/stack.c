/* The stack walk, once for each frame layout. Offsets: python.h; checked by mlz_python_check before the first use. */
#include "code_ids.h"
#include "record.h"

#include <string.h>

/* CPython 3.8, 3.9: Include/frameobject.h, f_lasti in bytes. */
#define WALK_NAME capture_38
#define TSTATE_FRAME 24
#define PREVIOUS 24
#define CODE 32
#define INSTR 104
#define INSTR_I32
#define INSTR_SCALE 1
#define CODE_START 0
#define TRACEABLE 0
#define EXTRA 144
#include "stack_walk.h"

/* CPython 3.10: f_lasti in units of two bytes. */
#define WALK_NAME capture_310
#define TSTATE_FRAME 24
#define PREVIOUS 24
#define CODE 32
#define INSTR 96
#define INSTR_I32
#define INSTR_SCALE 2
#define CODE_START 0
#define TRACEABLE 0
#define EXTRA 144
#include "stack_walk.h"

/* CPython 3.11: Include/internal/pycore_frame.h, struct _PyInterpreterFrame. */
#define WALK_NAME capture_311
#define TSTATE_FRAME 56
#define CFRAME_FRAME 8
#define PREVIOUS 48
#define CODE 32
#define INSTR 56
#define OWNER 69
#define ENTRY 68
#define CODE_START 184
#define TRACEABLE 168
#define EXTRA 176
#include "stack_walk.h"

/* CPython 3.12: a shim frame between C and the interpreter. */
#define WALK_NAME capture_312
#define TSTATE_FRAME 56
#define CFRAME_FRAME 0
#define PREVIOUS 8
#define CODE 0
#define INSTR 56
#define OWNER 70
#define SHIM_OWNER 3
#define CODE_START 192
#define TRACEABLE 176
#define EXTRA 184
#include "stack_walk.h"

/* CPython 3.13: no cframe. */
#define WALK_NAME capture_313
#define TSTATE_FRAME 72
#define PREVIOUS 8
#define CODE 0
#define INSTR 56
#define OWNER 70
#define SHIM_OWNER 3
#define CODE_START 200
#define TRACEABLE 184
#define EXTRA 192
#include "stack_walk.h"

/* CPython 3.14: the code pointer carries tag bits. */
#define WALK_NAME capture_314
#define TSTATE_FRAME 72
#define PREVIOUS 8
#define CODE 0
#define INSTR 56
#define OWNER 74
#define SHIM_OWNER 3
#define CODE_START 208
#define TRACEABLE 192
#define EXTRA 200
#define CODE_MASK(p) ((const char *)((uintptr_t)(p) & ~(uintptr_t)3))
#define CODE_WATCHED
#include "stack_walk.h"

const struct mlz_stack_reader *mlz_stack_reader_for(unsigned minor, bool native) {
#define READER(layout, walk, is_bare)                                                                                                      \
  {                                                                                                                                        \
    static const struct mlz_stack_reader with_native = {                                                                                   \
        .capture = walk, .bare = is_bare, .obj_after = layout##_obj_after, .mem_after = layout##_mem_after};                               \
    static const struct mlz_stack_reader reader = {layout,                                                                                 \
                                                   NULL,                                                                                   \
                                                   layout##_obj_malloc,                                                                    \
                                                   layout##_obj_realloc,                                                                   \
                                                   layout##_mem_malloc,                                                                    \
                                                   layout##_mem_calloc,                                                                    \
                                                   layout##_mem_realloc,                                                                   \
                                                   layout##_obj_sampled,                                                                   \
                                                   layout##_mem_sampled};                                                                  \
    return native ? &with_native : &reader;                                                                                                \
  }
  switch (minor) {
  case 8:
  case 9:
    READER(capture_38, capture_38, NULL)
  case 10:
    READER(capture_310, capture_310, NULL)
  case 11:
    READER(capture_311, capture_311_native, capture_311_native_bare)
  case 12:
    READER(capture_312, capture_312_native, capture_312_native_bare)
  case 13:
    READER(capture_313, capture_313_native, capture_313_native_bare)
  case 14:
    READER(capture_314, capture_314_native, capture_314_native_bare)
  default:
    return NULL;
  }
}
