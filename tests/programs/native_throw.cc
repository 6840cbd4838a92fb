/* Exceptions through frames that allocate: what the runtime allocates for them, and what handlers and destructors do. */
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#define APART __attribute__((noinline, noclone))

struct Guard {
  unsigned n;
  APART ~Guard() {
    void *p = malloc(n + 100);
    __asm__ volatile("" : : "r"(p) : "memory");
    free(p);
  }
};

APART void thrower(unsigned depth) {
  Guard guard{depth};
  std::vector<std::string> strings(depth + 1, std::string(depth + 20, 'x'));
  if (depth == 0) throw std::runtime_error("the end of " + strings[0]);
  thrower(depth - 1);
}

APART unsigned catcher(unsigned depth) {
  try {
    thrower(depth);
  } catch (const std::exception &e) {
    std::string text = std::string("caught: ") + e.what() + " some more text";
    return (unsigned)text.size();
  }
  return 0;
}

int main() {
  unsigned sum = 0;
  for (unsigned i = 0; i < 200; i++) sum += catcher(i % 12);
  std::printf("%u\n", sum);
  return 0;
}
