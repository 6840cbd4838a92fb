/* libFuzzer target: any bytes, read as Arrow tables, once as they are and once with all checksums put right. */
#include "tests/fuzz/mend.h"
#include "tests/tools/arrow_drain.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_tables(const uint8_t *data, size_t n) {
  char path[40];
  int64_t rows[MEMLYZE_TABLES];
  int fd = memfd_create("fuzzed", MFD_CLOEXEC);
  ARROW_MUST(fd >= 0 && write(fd, data, n) == (ssize_t)n);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  arrow_drain_all(path, rows);
  close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  fuzz_both(data, n, read_tables);
  return 0;
}

#ifdef MLZ_FUZZ_REPLAY
#include "tests/fuzz/replay.h"
#endif
