/* The other programs of the installation: beside this one, or in the build tree's analyzer/. Any process. */
#ifndef MLZ_RECORDER_TOOL_H
#define MLZ_RECORDER_TOOL_H

#include <stddef.h>

/* Becomes memlyze-TOOL. Returns only where that failed: -ENOENT: it was not found; else `path` is the file that cannot be executed. */
int mlz_tool_exec(const char *tool, char **argv, char *path, size_t size);

#endif
