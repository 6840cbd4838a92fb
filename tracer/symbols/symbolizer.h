/* From an address in a file of code to functions, source files and lines. In the recorder at the end of a session, and in the tools; knows no other room.
 * One thread for each symbolizer: what it gives lives as long as itself.
 *
 *   module   a file of code: program or library. Its addresses are those of its program headers.
 *   debug    where its names are: in the file itself (DWARF, .symtab, .dynsym, .gnu_debugdata), in a file of its own below /usr/lib/debug or the
 *            directory that was named, or at a server (DEBUGINFOD_URLS). A file counts only if its build id is the module's.
 *
 * elfutils (libdw) reads the files; functions are found by tables made here, one for each compilation unit that is asked for, because thousands of
 * addresses lie in few of them. C++ and Rust names are demangled by libiberty. */
#ifndef MLZ_SYMBOLS_SYMBOLIZER_H
#define MLZ_SYMBOLS_SYMBOLIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mlz_symbolizer;
struct mlz_symbol_module;

#define MLZ_SYMBOLS_MAX 64u /* frames that one address gives */

/* `directory` (NULL: none): holds `.build-id/`, or files of the modules' names. NULL: out of memory. */
struct mlz_symbolizer *mlz_symbolizer_new(const char *directory);
struct mlz_symbolizer *mlz_symbolizer_free(struct mlz_symbolizer *s);

/* The module at `path`; `file`: a descriptor of it, or -1 (stays the caller's). Without a build id (n = 0) only what the descriptor holds, or a file that
 * has none either, is believed. Asked again, it is the same one. NULL: not found. */
struct mlz_symbol_module *mlz_symbolizer_module(struct mlz_symbolizer *s, const char *path, int file, const uint8_t *build_id, size_t n);

struct mlz_symbol {
  const char *function; /* demangled */
  const char *file;     /* NULL: not known */
  uint32_t line;        /* 0: not known */
  bool inferred;        /* not on the stack: the function called there can but have passed control on by a tail call */
};
/* What runs at the address, innermost (inlined) first. Returns how many, at most MLZ_SYMBOLS_MAX; 0: nothing is known of it. */
unsigned mlz_symbolizer_lookup(struct mlz_symbol_module *m, uint64_t address, struct mlz_symbol out[MLZ_SYMBOLS_MAX]);

/* The same without the allocators' functions that are innermost. -1: nothing is known of the address; 0: it is nothing but an allocator's. */
int mlz_symbolizer_visible(struct mlz_symbol_module *m, uint64_t address, struct mlz_symbol out[MLZ_SYMBOLS_MAX]);

/* The function that the address lies in, by the symbol table or debug information. */
bool mlz_symbolizer_range(struct mlz_symbol_module *m, uint64_t address, uint64_t *low, uint64_t *high);
/* Bytes of the module's code from `address` on, at most `n`; returns how many there are. */
size_t mlz_symbolizer_code(struct mlz_symbol_module *m, uint64_t address, uint8_t *out, size_t n);
unsigned mlz_symbolizer_machine(const struct mlz_symbol_module *m); /* EM_ of <elf.h>; 0: not known */

/* The allocators that a file of code (a descriptor, which stays the caller's) has in it and keeps to itself: it calls functions of its own then, which no
 * preloaded library can see. Told by its symbol tables, and of jemalloc and mimalloc by what they print where those are stripped; other stripped ones
 * tell nothing. A library that exports malloc has none: calls of it reach the preloaded one. With a build id (n > 0) only the file that has it
 * counts. *program: it is one, not a library. Returns how many, each name once. */
struct mlz_symbol_allocator {
  const char *name, *evidence; /* evidence: the function that tells, or which text */
};
#define MLZ_SYMBOL_ALLOCATORS_MAX 4u
unsigned mlz_symbol_allocators(int file, const uint8_t *build_id, size_t n, bool *program,
                               struct mlz_symbol_allocator out[MLZ_SYMBOL_ALLOCATORS_MAX]);

/* malloc'd; NULL: it is no mangled name. */
char *mlz_symbol_demangle(const char *name);
/* Is it a function of an allocator, which stands between every caller and us, so that reports are about its caller? */
bool mlz_symbol_hidden(const char *function);

#endif
