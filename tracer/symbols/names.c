#include "tracer/symbols/symbolizer.h"

#include <libiberty/demangle.h>
#include <stdlib.h>
#include <string.h>

char *mlz_symbol_demangle(const char *name) {
  const int options = DMGL_PARAMS | DMGL_ANSI;
  if (name[0] != '_') return NULL;
  char *plain =
      name[1] == 'Z' || name[1] == 'R' ? rust_demangle(name, options) : NULL; /* legacy Rust names are C++ ones with a hash at the end */
  return plain ? plain : name[1] == 'Z' ? cplus_demangle_v3(name, options) : NULL;
}

static int compare(const void *a, const void *b) { return strcmp(a, *(const char *const *)b); }

/* The allocators of C++'s containers, of libstdc++ and libc++: "std::__new_allocator<int>::allocate(unsigned long, void const*)". */
static bool is_container_allocator(const char *function) {
  static const char *const classes[] = {"std::allocator<",
                                        "std::allocator_traits<",
                                        "std::__new_allocator<",
                                        "__gnu_cxx::new_allocator<",
                                        "__gnu_cxx::__alloc_traits<",
                                        "std::__1::allocator<",
                                        "std::__1::allocator_traits<"};
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
    if (strncmp(function, classes[i], strlen(classes[i])) == 0)
      return strstr(function, ">::allocate(") || strstr(function, ">::allocate[abi:");
  }
  return false;
}

bool mlz_symbol_hidden(const char *function) {
  static const char *const names[] = {/* sorted */
                                      "PyMem_Calloc",
                                      "PyMem_Malloc",
                                      "PyMem_RawCalloc",
                                      "PyMem_RawMalloc",
                                      "PyMem_RawRealloc",
                                      "PyMem_Realloc",
                                      "PyObject_Calloc",
                                      "PyObject_Malloc",
                                      "PyObject_Realloc",
                                      "_PyMem_Calloc",
                                      "_PyMem_DebugCalloc",
                                      "_PyMem_DebugMalloc",
                                      "_PyMem_DebugRawAlloc",
                                      "_PyMem_DebugRawCalloc",
                                      "_PyMem_DebugRawMalloc",
                                      "_PyMem_DebugRawRealloc",
                                      "_PyMem_DebugRealloc",
                                      "_PyMem_Malloc",
                                      "_PyMem_MiMalloc",
                                      "_PyMem_RawCalloc",
                                      "_PyMem_RawMalloc",
                                      "_PyMem_RawRealloc",
                                      "_PyMem_Realloc",
                                      "_PyObject_Arena",
                                      "_PyObject_ArenaMmap",
                                      "_PyObject_Calloc",
                                      "_PyObject_Malloc",
                                      "_PyObject_MallocWithType",
                                      "_PyObject_Realloc",
                                      "_PyObject_ReallocWithType",
                                      "__libc_calloc",
                                      "__libc_malloc",
                                      "__libc_memalign",
                                      "__libc_realloc",
                                      "__mmap",
                                      "__mremap",
                                      "__munmap",
                                      "__rdl_alloc",
                                      "__rdl_alloc_zeroed",
                                      "__rdl_realloc",
                                      "__rust_alloc",
                                      "__rust_alloc_zeroed",
                                      "__rust_realloc",
                                      "aligned_alloc",
                                      "calloc",
                                      "malloc",
                                      "memalign",
                                      "mmap",
                                      "mmap64",
                                      "mremap",
                                      "munmap",
                                      "posix_memalign",
                                      "pvalloc",
                                      "realloc",
                                      "reallocarray",
                                      "valloc"};
  static const char *const beginnings[] = {"operator new",
                                           "operator delete",
                                           "alloc::alloc::alloc",
                                           "alloc::alloc::realloc",
                                           "alloc::alloc::Global::",
                                           "<alloc::alloc::Global>::",
                                           "<alloc::alloc::Global as ",
                                           "std::sys::alloc::",
                                           "std::__1::__libcpp_allocate",
                                           "void* std::__1::__libcpp_operator_new",
                                           "std::alloc::System",
                                           "<std::alloc::System as "};
  if (bsearch(function, names, sizeof names / sizeof *names, sizeof *names, compare)) return true;
  for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
    if (strncmp(function, beginnings[i], strlen(beginnings[i])) == 0) return true;
  }
  return is_container_allocator(function);
}
