/* Containers, exceptions, aligned and sized new: what C++ programs allocate. Deterministic; keeps some on purpose. */
#include <cstdio>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

struct alignas(64) Line {
  char bytes[128];
};

static std::vector<std::unique_ptr<int[]>> *kept = new std::vector<std::unique_ptr<int[]>>;

static int parse(const std::string &text, int depth) {
  if (depth == 0) throw std::runtime_error("at the end of " + text + std::string(40, '.'));
  std::string copy = text + std::to_string(depth) + std::string(30, 'x');
  return parse(copy, depth - 1) + 1;
}

int main() {
  std::map<int, std::string> ordered;
  std::unordered_map<std::string, std::vector<int>> hashed;
  for (int i = 0; i < 2000; i++) {
    ordered[i * 7 % 1999] = std::string(20 + i % 40, 'a');
    hashed["key " + std::string(20, 'k') + std::to_string(i % 300)].push_back(i);
  }
  int caught = 0;
  for (int i = 0; i < 200; i++) try {
      parse("a text", 1 + i % 12);
    } catch (const std::exception &e) {
      caught += e.what()[0] == 'a';
    }
  for (int i = 0; i < 100; i++) {
    std::unique_ptr<Line> one(new Line);
    Line *many = new Line[3];
    delete[] many;
    void *raw = ::operator new(33, std::nothrow);
    ::operator delete(raw);
    if (i % 10 == 0) kept->push_back(std::make_unique<int[]>(100 + i));
  }
  printf("%zu %zu %d %zu\n", ordered.size(), hashed.size(), caught, kept->size());
  return 0;
}
