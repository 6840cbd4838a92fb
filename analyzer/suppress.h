/* Suppression files as LeakSanitizer reads them: lines `leak:pattern`, `#` comments. A pattern is a substring of a frame's function, module.function or
 * file, with `*` for any text, `^` and `$` at its ends to anchor it. */
#ifndef MLZ_ANALYZER_SUPPRESS_H
#define MLZ_ANALYZER_SUPPRESS_H

#include "analyzer/report.h"

struct mlz_suppressions;
/* NULL: `err` says why ("line 3: ..."). */
struct mlz_suppressions *mlz_suppress_read(const char *path, char *err, size_t err_size);
struct mlz_suppressions *mlz_suppress_free(struct mlz_suppressions *s);
bool mlz_suppress_stack(const struct mlz_suppressions *s, const struct mlz_input *in, uint32_t stack);

bool mlz_suppress_match(const char *pattern, const char *text);

#endif
