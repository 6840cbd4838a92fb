#include "tracer/symbols/symbolizer.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(names, demangled) {
  static const char *const names[][2] = {
      {"_ZN4shop4Cart3putEi", "shop::Cart::put(int)"},
      {"_Znwm", "operator new(unsigned long)"},
      {"_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back(int const&)"},
      {"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"},
      {"_RNvMCsgStHSCytQ6I_4shopNtB2_4Cart3put", "<shop::Cart>::put"},
      {"_RNvC6_123foo3bar", "123foo::bar"},
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *plain = mlz_symbol_demangle(names[i][0]);
    cr_assert_not_null(plain, "%s", names[i][0]);
    cr_assert_str_eq(plain, names[i][1], "%s: %s", names[i][0], plain);
    free(plain);
  }
  static const char *const no[] = {"main", "", "_", "_start", "_Z", "_ZN", "_R", "__libc_start_main", "_ZNnnnnnnnn"};
  for (size_t i = 0; i < sizeof no / sizeof *no; i++) cr_assert_null(mlz_symbol_demangle(no[i]), "%s", no[i]);
}

Test(names, hidden) {
  static const char *const yes[] = {"malloc",
                                    "calloc",
                                    "realloc",
                                    "posix_memalign",
                                    "valloc",
                                    "operator new(unsigned long)",
                                    "operator new[](unsigned long)",
                                    "PyObject_Malloc",
                                    "PyMem_RawMalloc",
                                    "_PyMem_RawCalloc",
                                    "_PyObject_Malloc",
                                    "_PyObject_MallocWithType",
                                    "__rust_alloc",
                                    "PyMem_Calloc",
                                    "alloc::alloc::alloc",
                                    "<alloc::alloc::Global>::alloc_impl_runtime",
                                    "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
                                    "std::__new_allocator<int>::allocate(unsigned long, void const*)",
                                    "std::allocator_traits<std::allocator<int> >::allocate(std::allocator<int>&, unsigned long)",
                                    "std::__1::allocator<int>::allocate[abi:v160006](unsigned long)",
                                    "__libc_malloc"};
  static const char *const no[] = {"main",
                                   "",
                                   "malloc_info",
                                   "g_malloc",
                                   "xmalloc",
                                   "strdup",
                                   "PyList_New",
                                   "PyObject_Call",
                                   "PyMem_",
                                   "my::operator new",
                                   "callocate",
                                   "std::allocator<int>::~allocator()",
                                   "my::allocator<int>::allocate(unsigned long)",
                                   "std::_Vector_base<int, std::allocator<int> >::_M_allocate(unsigned long)"};
  for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) cr_assert(mlz_symbol_hidden(yes[i]), "%s", yes[i]);
  for (size_t i = 0; i < sizeof no / sizeof *no; i++) cr_assert_not(mlz_symbol_hidden(no[i]), "%s", no[i]);
}
