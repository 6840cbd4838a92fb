/* Which thread allocated a block, for blocks that outlive their chunk: the file does not say it at the free. A hash table from (process, allocation
 * number) to thread. One thread. Memory: 16 bytes for each live block, twice that at most; nothing for blocks that were freed. */
#ifndef MLZ_ANALYZER_OWNERS_H
#define MLZ_ANALYZER_OWNERS_H

#include <stddef.h>
#include <stdint.h>

#define MLZ_OWNER_UNKNOWN UINT32_MAX

struct mlz_owner {
  uint64_t key; /* 0: free */
  uint32_t thread;
};
struct mlz_owners {
  struct mlz_owner *table;
  size_t size; /* a power of two; 0: none */
  size_t n;
};

void mlz_owners_put(struct mlz_owners *o, uint32_t process, uint64_t alloc_no, uint32_t thread);
/* The thread, and the block is forgotten; MLZ_OWNER_UNKNOWN if it never was put in. */
uint32_t mlz_owners_take(struct mlz_owners *o, uint32_t process, uint64_t alloc_no);
void mlz_owners_clear(struct mlz_owners *o);

#endif
