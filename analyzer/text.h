/* Text that came from a trace, made fit to show: names are bytes that a traced program chose, so nothing about them is believed. */
#ifndef MLZ_ANALYZER_TEXT_H
#define MLZ_ANALYZER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One code point from `p` (not at its NUL); *bytes is how many were read. Invalid UTF-8: U+FFFD for each byte. */
uint32_t mlz_text_next(const char *p, unsigned *bytes);

/* A malloc'd copy that is valid UTF-8. Control characters (which could steer a terminal, and which XML forbids) become U+FFFD too if `plain`. */
char *mlz_text_clean(const char *text, bool plain);

/* Columns on a terminal. */
unsigned mlz_text_width(const char *text);

enum mlz_shorten { MLZ_SHORTEN_PATH, MLZ_SHORTEN_NAME, MLZ_SHORTEN_MIDDLE, MLZ_SHORTEN_RIGHT };
/* A malloc'd copy of clean `text` in at most `width` columns; what is left out shows as "..". PATH drops whole folders from the beginning,
 * without a mark (../x.py would be a path, too); NAME drops ".<locals>" (and both the middle of "etree.cpython-311-x86_64-linux-gnu.so"), then a C++ function's parameters, type and template arguments, then of a
 * qualified name the inside, but the last part stays whole as long as it fits; MIDDLE drops the inside, RIGHT the end. */
char *mlz_text_shorten(const char *text, unsigned width, enum mlz_shorten how);
/* The columns that NAME needs before it drops a part of the qualified name. */
unsigned mlz_text_name_width(const char *name);

/* A malloc'd copy with & < > " ' as entities and everything that XML 1.0 cannot carry as U+FFFD. */
char *mlz_text_xml(const char *text);

/* malloc'd printf; never NULL (ends the program with a line on stderr when memory is out, as all mlz_*alloc here do). */
char *mlz_text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *mlz_text_realloc(void *p, size_t n, size_t size); /* n * size, checked */
void *mlz_text_calloc(size_t n, size_t size);

#endif
