#include "marks.h"

#include "sys.h"

#include <sys/mman.h>

struct mlz_marks_piece *_Atomic mlz_marks[MLZ_MARKS_PIECES];
bool mlz_marks_atomic[2];

struct mlz_marks_piece *mlz_marks_make(uintptr_t address) {
  if (address >> 47) return NULL;
  long m =
      mlz_sys6(SYS_mmap, 0, sizeof(struct mlz_marks_piece), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m < 0 && m > -4096) return NULL;
  mlz_sys3(SYS_madvise, m, sizeof(struct mlz_marks_piece), MADV_NOHUGEPAGE); /* else 2 MiB for each region touched */
  mlz_sys3(SYS_madvise, m, sizeof(struct mlz_marks_piece), MADV_DONTDUMP);
  struct mlz_marks_piece *piece = (struct mlz_marks_piece *)m, *other = NULL;
  if (!atomic_compare_exchange_strong_explicit(&mlz_marks[address >> MLZ_MARKS_PIECE_SHIFT], &other, piece, memory_order_acq_rel,
                                               memory_order_acquire)) {
    mlz_sys3(SYS_munmap, m, sizeof(struct mlz_marks_piece), 0);
    return other;
  }
  return piece;
}
