"""tracer/symbols beside addr2line: functions, inlined functions, files and lines of C, C++ and Rust; symbol tables; debug files of their own."""
import os
import random
import re
import shutil
import subprocess

from harness import BUILD, Skip, case, execute, run, same

SYMBOLS = os.path.join(BUILD, 'tests', 'unit', 'symbols', 'symbols')
CPLUSPLUS = '''
#include <algorithm>
#include <map>
#include <string>
#include <vector>
namespace app {
template <class T> struct Box { std::vector<T> all; void grow(const T &v, int n) { for (int i = 0; i < n; i++) all.push_back(v); } };
static std::map<std::string, int> table;
__attribute__((noinline)) int fill(int n) {
  Box<std::string> b;
  b.grow("something long enough to be allocated", n);
  for (auto &s : b.all) table[s]++;
  return (int)table.size();
}
}
int main(int c, char **) { std::vector<int> v; for (int i = 0; i < 100 * c; i++) v.push_back(i * 7 % 13); std::sort(v.begin(), v.end()); return app::fill(c) - 1 + v[0]; }
'''
RUST = '''
mod deep { pub struct Node<T> { pub v: Vec<T> } impl<T: Clone> Node<T> { #[inline(never)] pub fn grow(&mut self, x: T, n: usize) { for _ in 0..n { self.v.push(x.clone()); } } } }
fn main() { let mut n = deep::Node { v: Vec::new() }; n.grow(String::from("abc"), 10); println!("{}", n.v.len()); }
'''


def addresses(program, n):
    listed = subprocess.run(['nm', '-S', '--defined-only', program], stdout=subprocess.PIPE, universal_newlines=True).stdout.splitlines()
    functions = [(int(w[0], 16), int(w[1], 16)) for w in (line.split() for line in listed) if len(w) == 4 and w[2] in 'tT' and int(w[1], 16) and not w[3].startswith('_sub_')]  # those are a sanitizer's
    chance = random.Random(1)
    return [low + chance.randrange(size) for low, size in (chance.choice(functions) for _ in range(n))]


def parsed(text):
    out, lines = [], text.splitlines()
    for i, line in enumerate(lines):
        if re.match(r'0x[0-9a-f]{16}$', line):
            out.append([])
            last = i
        elif (i - last) % 2 == 0:
            file, _, number = re.sub(r' \(discriminator.*', '', line).rpartition(':')
            out[-1].append((lines[i - 1], os.path.basename(file), int(number) if number.isdigit() else 0))
    return out


def plain(name):
    """Without namespaces, arguments and what follows from them."""
    name = re.sub(r'\(.*', '', re.sub(r'\[.*?\]', '', name.replace('(anonymous namespace)::', '')))
    while re.search(r'<[^<>]*>', name):
        name = re.sub(r'<[^<>]*>', '', name)
    return re.split(r'::| ', name.strip().split('.')[0])[-1]


def same_names(ours, theirs):
    """addr2line takes the linker's name where it has none for an inlined function."""
    return len(ours) == len(theirs) and all(plain(x[0]) == plain(y[0]) or y[0] == theirs[-1][0] for x, y in zip(ours, theirs))


def compare(program, n, names_may_differ, lines_may_differ):
    wanted = addresses(program, n)
    text = ''.join('%x\n' % a for a in wanted)
    ours = parsed(execute([SYMBOLS, program], stdin=None, input=text).stdout)
    theirs = parsed(execute(['addr2line', '-a', '-i', '-f', '-C', '-e', program], stdin=None, input=text).stdout)
    same('answers', (len(ours), len(theirs)), (n, n))
    names = [(hex(a), x, y) for a, x, y in zip(wanted, ours, theirs) if not same_names(x, y)]
    lines = [(hex(a), x, y) for a, x, y in zip(wanted, ours, theirs) if any(f[2] != g[2] or (g[2] and f[1] != g[1]) for f, g in zip(x, y))]
    assert len(names) <= names_may_differ * n, '%d of %d names differ: %r' % (len(names), n, names[:2])
    assert len(lines) <= lines_may_differ * n, '%d of %d lines differ: %r' % (len(lines), n, lines[:2])
    assert sum(len(x) > 1 for x in ours) > n / 50, 'hardly anything is inlined'


@case
def a_program_in_c():
    compare(os.path.join(BUILD, 'tracer', 'recorder', 'memlyze-record'), 1000, 0.001, 0.01)  # binutils names the wrong file for code of a header now and then


@case
def a_program_in_cplusplus():
    if not shutil.which('g++'):
        raise Skip('no C++ compiler')
    with open('program.cc', 'w') as file:
        file.write(CPLUSPLUS)
    for options in ['-O1', '-gdwarf-4'], ['-O2', '-gz'], ['-O2']:
        subprocess.run(['g++', '-g', *options, 'program.cc', '-o', 'program'], check=True)
        compare('program', 300, 0.01, 0.02)
    subprocess.run(['g++', '-g', '-O2', '-gsplit-dwarf', '-c', 'program.cc'], check=True)  # which addr2line does not read
    subprocess.run(['g++', 'program.o', '-o', 'split'], check=True)
    text = ''.join('%x\n' % a for a in addresses('program', 100))
    same('debug information in a file of its own', execute([SYMBOLS, 'split'], stdin=None, input=text).stdout,
         execute([SYMBOLS, 'program'], stdin=None, input=text).stdout)


@case
def a_program_in_rust():
    if not shutil.which('rustc'):
        raise Skip('no rustc')
    with open('program.rs', 'w') as file:
        file.write(RUST)
    for options in [], ['-C', 'symbol-mangling-version=v0']:
        made = execute(['rustc', '-O', '-g', *options, 'program.rs'])
        if made.returncode:
            raise Skip('rustc: ' + made.stderr.splitlines()[0])
        compare('./program', 300, 0.01, 0.01)
        grow = [int(line.split()[0], 16) for line in execute(['nm', './program']).stdout.splitlines() if 'grow' in line and 'Node' in line or 'deep' in line and 'grow' in line]
        shown = parsed(execute([SYMBOLS, './program'], stdin=None, input='%x\n' % (grow[0] + 1)).stdout)[0][-1][0]
        assert 'deep::Node' in shown and 'grow' in shown and not re.search(r'::h[0-9a-f]{16}$|^_[RZ]', shown), shown


@case
def the_symbol_table_alone():
    with open('program.cc', 'w') as file:
        file.write(CPLUSPLUS)
    subprocess.run(['g++', '-O2', 'program.cc', '-o', 'program'], check=True)
    fill = [line.split()[0] for line in execute(['nm', '-C', 'program']).stdout.splitlines() if line.endswith('T app::fill(int)')]
    same('by .symtab', parsed(execute([SYMBOLS, 'program'], stdin=None, input=fill[0] + '\n').stdout), [[('app::fill(int)', '??', 0)]])
    subprocess.run(['g++', '-O2', '-shared', '-fPIC', 'program.cc', '-o', 'library.so'], check=True)
    fill = [line.split()[0] for line in execute(['nm', '-C', 'library.so']).stdout.splitlines() if line.endswith('T app::fill(int)')]
    subprocess.run(['strip', 'library.so'], check=True)
    same('by .dynsym', parsed(execute([SYMBOLS, 'library.so'], stdin=None, input=fill[0] + '\n').stdout), [[('app::fill(int)', '??', 0)]])
    subprocess.run(['strip', 'program'], check=True)
    same('by nothing', parsed(execute([SYMBOLS, 'program'], stdin=None, input=fill[0] + '\n').stdout), [[('??', '??', 0)]])


@case
def what_is_no_program():
    for content in b'', b'\x7fELF', b'\x7fELF' + bytes(range(256)) * 8, open(SYMBOLS, 'rb').read()[:5000]:
        with open('file', 'wb') as file:
            file.write(content)
        done = execute([SYMBOLS, 'file'], stdin=None, input='1000\n')
        assert done.returncode in (0, 3) and not done.stderr, done
    whole = bytearray(open(SYMBOLS, 'rb').read())
    chance = random.Random(3)
    for _ in range(60):  # and changed ones end with an answer
        changed = bytearray(whole)
        for _ in range(40):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        with open('file', 'wb') as file:
            file.write(changed)
        done = execute([SYMBOLS, 'file'], stdin=None, input='1500\n2000\n', timeout=60)
        assert done.returncode in (0, 3), done


run(__name__)
