#include "analyzer/disassemble.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A program of nothing but code, at 0x1000, without sections or names. */
static struct mlz_symbol_module *module_of(struct mlz_symbolizer *s, unsigned machine, const void *code, size_t bytes) {
  struct {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint8_t code[256];
  } file = {.header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                       .e_type = ET_DYN,
                       .e_machine = (Elf64_Half)machine,
                       .e_version = EV_CURRENT,
                       .e_phoff = sizeof file.header,
                       .e_ehsize = sizeof file.header,
                       .e_phentsize = sizeof file.segment,
                       .e_phnum = 1},
            .segment = {.p_type = PT_LOAD,
                        .p_flags = PF_R | PF_X,
                        .p_offset = offsetof(__typeof__(file), code),
                        .p_vaddr = 0x1000,
                        .p_filesz = bytes,
                        .p_memsz = bytes,
                        .p_align = 1}};
  memcpy(file.code, code, bytes);
  FILE *out = tmpfile();
  cr_assert_eq(fwrite(&file, offsetof(__typeof__(file), code) + bytes, 1, out), 1);
  fflush(out);
  char name[64];
  snprintf(name, sizeof name, "of machine %u", machine);
  struct mlz_symbol_module *m = mlz_symbolizer_module(s, name, fileno(out), NULL, 0);
  fclose(out);
  cr_assert_not_null(m);
  cr_assert_eq(mlz_symbolizer_machine(m), machine);
  return m;
}

static const char *text_of(struct mlz_symbol_module *m, uint64_t address) {
  static char text[1024];
  struct mlz_instruction code[MLZ_INSTRUCTIONS_MAX];
  const char *why;
  unsigned n = mlz_disassemble(m, address, 2, 1, code, &why);
  text[0] = 0;
  for (unsigned i = 0; i < n; i++) sprintf(text + strlen(text), "%s%s%s", i ? "; " : "", code[i].call ? "> " : "", code[i].text);
  return n ? text : why;
}

Test(disassemble, x86_64) {
  /* push rbx; mov rbx, rdi; mov edi, 8; call +5; test rax, rax; pop rbx; ret */
  static const uint8_t code[] = {0x53, 0x48, 0x89, 0xfb, 0xbf, 8, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0x48, 0x85, 0xc0, 0x5b, 0xc3};
  struct mlz_symbolizer *s = mlz_symbolizer_new(NULL);
  struct mlz_symbol_module *m = module_of(s, EM_X86_64, code, sizeof code);
  cr_assert_str_eq(text_of(m, 0x100d),
                   "mov rbx, rdi; mov edi, 8; > call 0x100e; test rax, rax"); /* the last byte of the call: return address - 1 */
  cr_assert_str_eq(text_of(m, 0x5000), "the file holds no code there");
  mlz_symbolizer_free(s);
}

Test(disassemble, aarch64) {
  /* stp x29, x30, [sp, #-16]!; mov x0, #8; bl +8; cbz x0, +8; ret */
  static const uint32_t code[] = {0xa9bf7bfd, 0xd2800100, 0x94000002, 0xb4000040, 0xd65f03c0};
  struct mlz_symbolizer *s = mlz_symbolizer_new(NULL);
  struct mlz_symbol_module *m = module_of(s, EM_AARCH64, code, sizeof code);
  cr_assert_str_eq(text_of(m, 0x100b), "stp x29, x30, [sp, #-0x10]!; movz x0, #0x8; > bl #0x1010; cbz x0, #0x1014");
  mlz_symbolizer_free(s);
}

Test(disassemble, other_machines) {
  struct mlz_symbolizer *s = mlz_symbolizer_new(NULL);
  struct mlz_symbol_module *m = module_of(s, EM_RISCV, "\x13\0\0\0\x13\0\0\0", 8);
  cr_assert_str_eq(text_of(m, 0x1003), "code of this kind of machine is not disassembled");
  mlz_symbolizer_free(s);
}
