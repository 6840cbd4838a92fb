#include "analyzer/text.h"

#include <criterion/criterion.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

static void utf8(void) { setlocale(LC_CTYPE, "C.UTF-8"); }
TestSuite(text, .init = utf8);

static void check(char *got, const char *expected) {
  cr_assert_str_eq(got, expected);
  free(got);
}

Test(text, invalid_utf8_is_replaced) {
  check(mlz_text_clean("caf\xc3\xa9", true), "caf\xc3\xa9");
  check(mlz_text_clean("a\xff"
                       "b",
                       true),
        "a\xef\xbf\xbd"
        "b");
  check(mlz_text_clean("\xc0\xaf", true), "\xef\xbf\xbd\xef\xbf\xbd");                 /* overlong */
  check(mlz_text_clean("\xed\xa0\x80", true), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* surrogate */
  check(mlz_text_clean("\xe6\x97", true), "\xef\xbf\xbd\xef\xbf\xbd");                 /* cut */
}

Test(text, controls_cannot_steer_a_terminal) {
  check(mlz_text_clean("a\033[31mb\n", true), "a\xef\xbf\xbd[31mb\xef\xbf\xbd");
  check(mlz_text_clean("a\nb", false), "a\nb");
  check(mlz_text_clean("a\xe2\x80\xae"
                       "b",
                       true),
        "a\xef\xbf\xbd"
        "b"); /* right-to-left override */
}

Test(text, xml_is_escaped) {
  check(mlz_text_xml("<lambda> & \"x\" 'y'"), "&lt;lambda&gt; &amp; &quot;x&quot; &#39;y&#39;");
  check(mlz_text_xml("]]>"), "]]&gt;");
  check(mlz_text_xml("a\001\xff\xef\xbf\xbf"
                     "b"),
        "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
        "b");
}

Test(text, widths_are_columns) {
  cr_assert_eq(mlz_text_width("abc"), 3);
  cr_assert_eq(mlz_text_width("caf\xc3\xa9"), 4);
  cr_assert_eq(mlz_text_width("\xe6\x97\xa5\xe6\x9c\xac"), 4);
}

Test(text, shortening_keeps_what_matters) {
  check(mlz_text_shorten("short", 10, MLZ_SHORTEN_PATH), "short");
  check(mlz_text_shorten("/srv/application/views.py:12", 14, MLZ_SHORTEN_PATH), "views.py:12");
  check(mlz_text_shorten("/srv/application/views.py:12", 11, MLZ_SHORTEN_PATH), "views.py:12");
  check(mlz_text_shorten("/srv/application/views.py:12", 10, MLZ_SHORTEN_PATH), "..ws.py:12");
  check(mlz_text_shorten("/srv/application/views.py:12", 24, MLZ_SHORTEN_PATH), "application/views.py:12");
  check(mlz_text_shorten("a/very/long/folder/", 8, MLZ_SHORTEN_PATH), "folder/");
  check(mlz_text_shorten("outer.<locals>.<lambda>", 20, MLZ_SHORTEN_NAME), "outer.<lambda>");
  check(mlz_text_shorten("a.<locals>.b.<locals>.c", 5, MLZ_SHORTEN_NAME), "a.b.c");
  check(mlz_text_shorten("SomeHandler.dispatch_request", 22, MLZ_SHORTEN_NAME), "Some..dispatch_request");
  check(mlz_text_shorten("SomeHandler.get", 10, MLZ_SHORTEN_NAME), "Some...get");
  check(mlz_text_shorten("shop::Cart::put(std::string const&) const", 24, MLZ_SHORTEN_NAME), "shop::Cart::put");
  check(mlz_text_shorten("void shop::sort<int>(int*)", 24, MLZ_SHORTEN_NAME), "void shop::sort<int>");
  check(mlz_text_shorten("void shop::sort<int>(int*)", 16, MLZ_SHORTEN_NAME), "shop::sort<int>");
  check(mlz_text_shorten("  void shop::sort<int>(int*)", 18, MLZ_SHORTEN_NAME), "  shop::sort<int>");
  check(mlz_text_shorten("std::_Vector_base<int, std::allocator<int> >::_M_allocate(unsigned long)", 32, MLZ_SHORTEN_NAME),
        "std::_Vector_base<>::_M_allocate");
  check(mlz_text_shorten("std::_Vector_base<int, std::allocator<int> >::_M_allocate(unsigned long)", 24, MLZ_SHORTEN_NAME),
        "std::_Vecto.._M_allocate");
  check(mlz_text_shorten("shop::less::operator()(int) const", 30, MLZ_SHORTEN_NAME), "shop::less::operator()");
  check(mlz_text_shorten("main::{lambda(int)#1}::operator()(int) const", 40, MLZ_SHORTEN_NAME), "main::{lambda(int)#1}::operator()");
  check(mlz_text_shorten("(anonymous namespace)::put(int)", 30, MLZ_SHORTEN_NAME), "(anonymous namespace)::put");
  check(mlz_text_shorten("shop::put(int) [clone .cold]", 20, MLZ_SHORTEN_NAME), "shop::put");
  check(mlz_text_shorten("bool operator< <int>(Box<int> const&, Box<int> const&)", 20, MLZ_SHORTEN_NAME), "bool operator< <int>");
  check(mlz_text_shorten("<alloc::vec::Vec<u8> as core::clone::Clone>::clone", 48, MLZ_SHORTEN_NAME),
        "<alloc::vec::Vec<> as core::clone::Clone>::clone");
  check(mlz_text_shorten("std::panicking::do_call::<&dyn core::ops::Fn<()>, i32>", 30, MLZ_SHORTEN_NAME), "std::panicking::do_call::<>");
  check(mlz_text_shorten("etree.cpython-311-x86_64-linux-gnu.so+0x21f435", 24, MLZ_SHORTEN_NAME), "etree..so+0x21f435");
  check(mlz_text_shorten("/srv/lxml/etree.cpython-311-x86_64-linux-gnu.so", 16, MLZ_SHORTEN_PATH), "lxml/etree..so");
  check(mlz_text_shorten("etree.cpython-311-x86_64-linux-gnu.so", 40, MLZ_SHORTEN_PATH), "etree.cpython-311-x86_64-linux-gnu.so");
  check(mlz_text_shorten("(no stack)", 8, MLZ_SHORTEN_NAME), "(no..ck)");
  check(mlz_text_shorten("a_long_function_name", 10, MLZ_SHORTEN_MIDDLE), "a_lo..name");
  check(mlz_text_shorten("a long sentence", 8, MLZ_SHORTEN_RIGHT), "a long..");
  for (unsigned width = 1; width < 12; width++)
    for (int how = 0; how < 4; how++) {
      char *out = mlz_text_shorten("\xe6\x97\xa5\xe6\x9c\xac/caf\xc3\xa9/abc", width, (enum mlz_shorten)how);
      cr_assert_leq(mlz_text_width(out), width, "'%s' in %u", out, width);
      free(out);
    }
}
