/* Sizes, times and counts as people write and read them. Pure functions; every tool uses them, and so do tests. */
#ifndef MLZ_ANALYZER_UNITS_H
#define MLZ_ANALYZER_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MLZ_UNITS_MAX 32 /* bytes that any mlz_units_* text needs, with its NUL */

/* "24 MB" (10^6), "12.3 MiB" (2^20), "4k" (10^3), "4Ki" (2^10), bare bytes. false: not a size, *bytes untouched. */
bool mlz_units_parse_size(const char *text, uint64_t *bytes);
/* "1.5s", "200ms", "3us", "7ns", "2m" or "2min", "1h". false: not a duration. */
bool mlz_units_parse_duration(const char *text, uint64_t *ns);
/* "90%": 90.0. false: not a percentage from 0 to 100. */
bool mlz_units_parse_percent(const char *text, double *percent);

/* Takes ".0" and ".00" away, for bounds: "10.0 ms" becomes "10 ms". Returns `text`. */
char *mlz_units_round(char *text);

/* Each writes into `out` (MLZ_UNITS_MAX bytes) and returns it. */
const char *mlz_units_size(char *out, double bytes);                 /* "812 B", "12.3 MiB"; negative values keep their sign */
const char *mlz_units_count(char *out, double count);                /* "1,234,567" */
const char *mlz_units_time(char *out, double ns);                    /* "0", "850 ns", "12.3 ms", "4.21 s", "3 min 20 s" */
const char *mlz_units_percent(char *out, double part, double whole); /* "45.2%"; "" if whole is 0 */

#endif
