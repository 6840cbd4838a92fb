/* Uses the library it is linked with, and each that is named, one after the other. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

int own_work(size_t n);

int main(int argc, char **argv) {
  int wrong = own_work(100);
  for (int i = 1; i < argc; i++) {
    void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
    int (*work)(size_t);
    *(void **)&work = library ? dlsym(library, "own_work") : NULL;
    wrong |= work ? work(100) : 1;
    if (library) dlclose(library);
  }
  puts(wrong ? "wrong" : "allocated");
  return wrong;
}
