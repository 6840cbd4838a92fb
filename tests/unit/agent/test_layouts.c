/* The layout table against what an interpreter publishes of itself: every field counts. */
#include "tracer/agent/python.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static char runtime[1024];

static void put(unsigned offset, uint64_t value) { memcpy(runtime + offset, &value, sizeof(value)); }

/* As CPython 3.13.0 has it at &_PyRuntime. */
static const struct mlz_py_layout *runtime_313(void) {
  static const struct {
    unsigned offset;
    uint64_t value;
  } fields[] = {{8, 0x030d00f0}, {16, 0},    {184, 72},  {232, 8},   {240, 0},  {248, 56},  {264, 70},
                {280, 112},      {288, 120}, {296, 128}, {304, 136}, {312, 68}, {344, 200}, {80, 0x1ce8}};
  memset(runtime, 0, sizeof(runtime));
  memcpy(runtime, "xdebugpy", 8);
  for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) put(fields[i].offset, fields[i].value);
  return mlz_python_layout_for("3.13.0");
}

Test(layouts, versions) {
  for (unsigned minor = 8; minor <= 14; minor++) {
    char version[16];
    snprintf(version, sizeof(version), "3.%u.1", minor);
    const struct mlz_py_layout *l = mlz_python_layout_for(version);
    cr_assert_not_null(l);
    cr_assert_eq(l->minor, minor);
  }
  cr_assert_null(mlz_python_layout_for("3.7.16"));
  cr_assert_null(mlz_python_layout_for("3.15.0a1"));
  cr_assert_null(mlz_python_layout_for("2.7.18"));
  cr_assert_null(mlz_python_layout_for("3.13.0 experimental free-threading build (main)"));
}

Test(layouts, what_is_published_agrees) {
  const struct mlz_py_layout *l = runtime_313();
  cr_assert(mlz_python_layout_published(l, runtime));
  cr_assert(mlz_python_layout_published(mlz_python_layout_for("3.11.7"), NULL), "nothing is published before 3.13");
  cr_assert_not(mlz_python_layout_published(l, NULL));
}

Test(layouts, each_difference_is_seen) {
  static const unsigned fields[] = {0, 8, 16, 80, 184, 232, 240, 248, 264, 280, 288, 296, 304, 312, 344};
  for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
    const struct mlz_py_layout *l = runtime_313();
    uint64_t was;
    memcpy(&was, runtime + fields[i], sizeof(was));
    put(fields[i], was + (fields[i] == 8 ? 0x10000 : 8));
    cr_assert_not(mlz_python_layout_published(l, runtime), "the field at %u", fields[i]);
  }
}
