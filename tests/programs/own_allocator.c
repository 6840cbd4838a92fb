/* A program with an allocator linked in that has no exported malloc, as servers with jemalloc's static library have. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char pool[1 << 16];
static size_t used;

void *je_malloc(size_t n);
void *je_malloc(size_t n) {
  void *block = pool + used;
  used += (n + 15) & ~(size_t)15;
  return block;
}

int main(void) {
  char *text = je_malloc(100);
  strcpy(text, "allocated");
  puts(text);
  return 0;
}
