/* The ids of code objects by their address: for CPython 3.14 and later, to which code that has anything in its co_extra is not what it was (it refuses
 * to hand such a function to another interpreter). Whoever holds the code's GIL puts and reads; a thread that walks its own frames without the GIL reads.
 * The interpreter tells when a code object dies (PyCode_AddWatcher, from 3.12 on, of which each interpreter has eight): then its entry goes. An
 * interpreter that ends does not tell, so an entry says which one it is of; their numbers are given once. Own memory, mapped; entries are forked along.
 * Budget: 10 ns to read; the walk asks only for what it does not remember (stack_walk.h). */
#ifndef MLZ_AGENT_CODE_IDS_H
#define MLZ_AGENT_CODE_IDS_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

/* What was put for this code of that interpreter; 0: nothing. */
uint64_t mlz_code_ids_get(const char *code, int64_t interp);
bool mlz_code_ids_put(const char *code, int64_t interp, uint64_t value); /* false: out of memory */
bool mlz_code_ids_remove(const char *code);                              /* true: something was there */
void mlz_code_ids_clear(void);

#pragma GCC visibility pop
#endif
