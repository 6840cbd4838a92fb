/* Loaded by loaded_outer.c by its bare name. */
#include <stdlib.h>

void *inner_block(void);
void *inner_block(void) { return malloc(77777); }
