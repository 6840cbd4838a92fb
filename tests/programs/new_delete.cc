// C++ new and delete reach the tracer through malloc. As malloc_family.c: prints what is known, `none` makes none of it.
#include <cstdio>
#include <cstring>
#include <new>

struct Big {
  char bytes[700];
};
struct alignas(64) Wide {
  char bytes[640];
};

static char *volatile keep[4];

int main(int argc, char **argv) {
  if (argc > 1 && !std::strcmp(argv[1], "none")) {
    std::puts("0 0 0 0");
    return 0;
  }
  keep[0] = new char[1234];
  keep[1] = reinterpret_cast<char *>(new Big);
  delete reinterpret_cast<Big *>(keep[1]);
  keep[1] = reinterpret_cast<char *>(new Wide);
  Big *many = new (std::nothrow) Big[3];
  keep[2] = reinterpret_cast<char *>(many);
  delete[] many;
  keep[3] = static_cast<char *>(::operator new(99));
  std::printf("5 %d 3 %d\n", 1234 + 700 + 640 + 2100 + 99, 1234 + 640 + 99);
  return 0;
}
