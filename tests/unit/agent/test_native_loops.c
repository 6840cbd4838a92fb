/* Parts of a function that have no name: told from what it calls, and from what follows it by a tail call. */
#include "native_ring.h"

#include <criterion/criterion.h>

/* `hot` goes on in `part`, entered with its own frame at four places; it ends in `other` (a tail call, thrice), goes on once in `seldom`, and twice in
 * `few`. `with_rbp` is a function that keeps a frame pointer and goes on in `part_with_rbp`. Bytes that look like jumps lead out of the module. */
__asm__(".text\n"
        ".type hot, @function\nhot:\n.cfi_startproc\n"
        "sub $88, %rsp\n.cfi_def_cfa_offset 96\n"
        "test %edi, %edi\nje .Lpart0\ncmp $1, %edi\njg .Lpart1\ncmp $2, %edi\njl .Lpart2\n"
        ".byte 0x0f, 0x84, 0xff, 0xff, 0xff, 0x7f, 0xe9, 0, 0, 0, 0x80\n"
        ".byte 0x0f, 0x85\n.long .Lfew0 - . - 4\n.byte 0x0f, 0x85\n.long .Lfew1 - . - 4\n.byte 0xe9\n.long .Lfew1 - . - 4\n"
        ".Lback:\n.byte 0xe9\n.long .Lpart3 - . - 4\n"
        "add $88, %rsp\n.cfi_def_cfa_offset 8\n"
        "je other\njmp .Lother1\njmp .Lother2\njmp .Lother3\n.Lend_hot:\n.cfi_endproc\n"
        ".section .text.part, \"ax\", @progbits\n"
        ".type part, @function\npart:\n.cfi_startproc\n.cfi_def_cfa_offset 96\n"
        ".Lpart0: nop\n.Lpart1: nop\n.Lpart2: nop\n.Lpart3: nop\njmp .Lback\n.Lend_part:\n.cfi_endproc\n"
        ".section .text.few, \"ax\", @progbits\n"
        "few:\n.cfi_startproc\n.cfi_def_cfa_offset 96\n.Lfew0: nop\n.Lfew1: nop\nret\n.cfi_endproc\n"
        ".section .text.other, \"ax\", @progbits\n"
        ".type other, @function\nother:\n.cfi_startproc\n.Lother0: nop\n.Lother1: nop\n.Lother2: nop\n.Lother3: ret\n.cfi_endproc\n"
        ".section .text.with_rbp, \"ax\", @progbits\n"
        "with_rbp:\n.cfi_startproc\npush %rbp\n.cfi_def_cfa_offset 16\n.cfi_offset %rbp, -16\nmov %rsp, %rbp\n.cfi_def_cfa_register %rbp\n"
        "je .Lrbp0\njs .Lrbp1\njmp .Lrbp2\n.Lend_with_rbp:\n.cfi_endproc\n"
        ".section .text.part_with_rbp, \"ax\", @progbits\n"
        "part_with_rbp:\n.cfi_startproc\n.cfi_def_cfa %rbp, 16\n.cfi_offset %rbp, -16\n"
        ".Lrbp0: nop\n.Lrbp1: nop\n.Lrbp2: leave\n.cfi_def_cfa %rsp, 8\nret\n.Lend_part_with_rbp:\n.cfi_endproc\n"
        ".text\n.data\n.balign 8\nlabels: .quad hot, .Lend_hot, part, .Lend_part, with_rbp, .Lend_with_rbp, part_with_rbp, "
        ".Lend_part_with_rbp\n.text\n");
extern const uintptr_t labels[8] __attribute__((visibility("hidden")));

static struct { uintptr_t low, high; } seen[8];
static unsigned n;

static void found(uintptr_t low, uintptr_t high) {
  cr_assert_lt(n, 8u);
  seen[n].low = low;
  seen[n++].high = high;
}

static void parts_of(uintptr_t low, uintptr_t high) {
  struct mlz_native_module m;
  if (!mlz_agent.native) mlz_native_start();
  cr_assert(mlz_native_module_of(low, &m));
  n = 0;
  mlz_native_parts(&m, low, high, found);
}

Test(native_loops, a_part_without_a_name) {
  parts_of(labels[0], labels[1]);
  cr_assert_eq(n, 1u, "%u parts", n);
  cr_assert_eq(seen[0].low, labels[2]);
  cr_assert_eq(seen[0].high, labels[3]);
}

Test(native_loops, with_a_frame_pointer) {
  parts_of(labels[4], labels[5]);
  cr_assert_eq(n, 1u, "%u parts", n);
  cr_assert_eq(seen[0].low, labels[6]);
  cr_assert_eq(seen[0].high, labels[7]);
}

Test(native_loops, none) {
  parts_of(labels[2], labels[3]); /* it only goes back, to one place */
  cr_assert_eq(n, 0u);
  parts_of(labels[0], labels[0] + 3);
  cr_assert_eq(n, 0u);
}
