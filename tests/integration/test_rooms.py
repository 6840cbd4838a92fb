"""The rooms of docs/architecture.md: who may include whom, what the agent links and exports, headers that stand alone."""
import os
import re
import subprocess

from harness import AGENT, TESTS, case, run, same

ROOT = os.path.dirname(TESTS)
MAY = {
    'shm': ('shm',),
    'formats': ('formats',),
    'tracer/symbols': ('tracer/symbols',),
    'tracer/agent': ('tracer/agent', 'shm'),
    'tracer/recorder': ('tracer/recorder', 'shm', 'formats', 'tracer/symbols'),
    'analyzer': ('analyzer', 'formats', 'tracer/symbols'),
}


def sources(room):
    folder = os.path.join(ROOT, room)
    return sorted(os.path.join(room, f) for f in os.listdir(folder) if f.endswith(('.c', '.h')))


def includes(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as file:
        return re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read(), re.M)


@case(each=[(room, room, rooms) for room, rooms in MAY.items()])
def includes_of_a_room(room, rooms):
    wrong, seen = [], 0
    for path in sources(room):
        for name in includes(path):
            seen += 1
            target = room if '/' not in name else os.path.dirname(name)
            if target not in rooms:
                wrong.append('%s includes %s' % (path, name))
            elif '/' in name and not os.path.exists(os.path.join(ROOT, name)):
                wrong.append('%s includes %s, which is not there' % (path, name))
    assert seen and not wrong, '\n'.join(wrong) or 'no include found'


@case(each=[(room, room) for room in MAY])
def headers_stand_alone(room):
    wrong = []
    for path in sources(room):
        if path.endswith('.h') and not path.endswith(('stack_walk.h', 'hooks_quick.h')):  # templates, and say so
            check = subprocess.run(['gcc', '-std=gnu11', '-D_GNU_SOURCE', '-fsyntax-only', '-I', ROOT, '-include', os.path.join(ROOT, path), '-x', 'c',
                                    '/dev/null'], stderr=subprocess.PIPE, universal_newlines=True)
            if check.returncode:
                wrong.append('%s: %s' % (path, check.stderr.splitlines()[0]))
    same('headers that need another one before them', wrong, [])


@case
def the_agent_links_libc_only():
    out = subprocess.run(['readelf', '-dW', AGENT], stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
    needed = set(re.findall(r'NEEDED.*\[(.*?)\]', out))
    same('libraries beside libc', needed - {'libc.so.6', 'ld-linux-x86-64.so.2'}, set())


@case
def the_agent_exports_what_it_interposes_and_no_more():
    out = subprocess.run(['readelf', '--dyn-syms', '-W', AGENT], stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
    names = {line.split()[7].partition('@')[0] for line in out.splitlines()
             if len(line.split()) > 7 and line.split()[4] in ('GLOBAL', 'WEAK') and line.split()[6] != 'UND'}
    family = {'execve', 'fexecve', 'execv', 'execvp', 'execvpe', 'posix_spawn', 'posix_spawnp',
              'malloc', 'calloc', 'realloc', 'reallocarray', 'free', 'posix_memalign', 'aligned_alloc', 'memalign', 'valloc', 'pvalloc', 'mmap', 'mmap64',
              'munmap', 'mremap'}
    same('of the family not interposed', family - names, set())
    # operator new, new[], delete, delete[] in all their forms (Itanium C++ ABI): for allocators that bring their own
    operators = {n for n in names if re.match(r'_Z(n[wa]m|d[la]Pv)(m|St11align_val_t|RKSt9nothrow_t)*$', n)}
    same('forms of new and delete', len(operators), 20)
    extra = {n for n in names - family - operators if not n.startswith('memlyze_')}
    same('exports beyond the families, the two that see the end of a process and the one that sees the end of a module', extra - {'exit', '__libc_start_main', 'dlclose'}, set())


run(__name__)
