#!/usr/bin/env python3
"""A second reader of .mlyze files, written from docs/format.md alone: standard library, and libzstd through ctypes.

    mlyze_decode.py FILE

Prints everything in the file as text, one thing a line, exactly as tests/golden/dump does. Meant to be read and to be right; it is slow.
"""
import ctypes
import json
import struct
import sys

M64 = (1 << 64) - 1
MAGIC = b'MLYZE\r\n\x1a'
CHUNK_MAGIC = b'\xf7MLC'
META, STRINGS, FRAMES, STACKS, PROCESS, THREAD, EVENTS, GROUP, SUMMARY, INDEX, END, TOTALS, MODULES, SYMBOLS = range(1, 15)
ALLOC, FREE, FREE_TEMP, FREE_OLD, FREE_OLD_TEMP, FREE_FOREIGN, FREE_TEMP_REF = range(7)
KNOWN_OPS = set(range(7)) | set(range(16, 23))


class Damaged(Exception):
    pass


# ---- XXH64 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) ----

P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def rotate(v, n):
    return ((v << n) | (v >> (64 - n))) & M64


def lane(acc, v):
    return rotate((acc + v * P2) & M64, 31) * P1 & M64


def xxh64(seed, data):
    n, at = len(data), 0
    if n >= 32:
        acc = [(seed + P1 + P2) & M64, (seed + P2) & M64, seed, (seed - P1) & M64]
        while at + 32 <= n:
            for i, v in enumerate(struct.unpack_from('<4Q', data, at)):
                acc[i] = lane(acc[i], v)
            at += 32
        h = sum(rotate(a, r) for a, r in zip(acc, (1, 7, 12, 18))) & M64
        for a in acc:
            h = ((h ^ lane(0, a)) * P1 + P4) & M64
    else:
        h = (seed + P5) & M64
    h = (h + n) & M64
    while at + 8 <= n:
        h = (rotate(h ^ lane(0, struct.unpack_from('<Q', data, at)[0]), 27) * P1 + P4) & M64
        at += 8
    if at + 4 <= n:
        h = (rotate(h ^ (struct.unpack_from('<I', data, at)[0] * P1 & M64), 23) * P2 + P3) & M64
        at += 4
    for byte in data[at:]:
        h = rotate(h ^ (byte * P5 & M64), 11) * P1 & M64
    h = ((h ^ (h >> 33)) * P2) & M64
    h = ((h ^ (h >> 29)) * P3) & M64
    return h ^ (h >> 32)


# ---- zstd ----

def unpack_zstd(data, raw):
    lib = unpack_zstd.lib
    if lib is None:
        lib = unpack_zstd.lib = ctypes.CDLL('libzstd.so.1')
        lib.ZSTD_decompress.restype = ctypes.c_size_t
        lib.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
        lib.ZSTD_isError.argtypes = [ctypes.c_size_t]
    out = ctypes.create_string_buffer(max(raw, 1))
    n = lib.ZSTD_decompress(out, raw, bytes(data), len(data))
    if lib.ZSTD_isError(n) or n != raw:
        raise Damaged('zstd')
    return out.raw[:raw]


unpack_zstd.lib = None


# ---- integers ----

class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise Damaged('short')
        self.at += n
        return self.data[self.at - n:self.at]

    def varint(self):
        v = shift = 0
        while True:
            byte = self.take(1)[0]
            v |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift == 70:
                raise Damaged('overlong')
        if v > M64:
            raise Damaged('overlong')
        return v

    def zigzag(self):
        v = self.varint()
        return -(v + 1 >> 1) if v & 1 else v >> 1

    def done(self):
        return self.at == len(self.data)


# ---- chunks ----

class Trace:
    def __init__(self, data):
        self.data = data
        self.meta, self.summary, self.state = {}, None, None
        self.strings, self.frames, self.stacks = {0: ''}, {0: (0, 0, 0, 0, 0)}, {0: (False, [])}
        self.modules, self.symbols = {0: (0, 0)}, {}
        self.processes, self.threads = {}, {}
        self.events = []  # (offset, group)
        self.totals = []  # (offset, size)
        self.groups = 0
        self.bad = self.bad_bytes = self.unknown = 0
        self.cut = False
        first = self.header()
        listed = self.index(first)
        if listed is None:
            self.walk(first)
        else:
            for kind, at, size in listed:
                chunk = self.chunk(at)
                group = self.groups
                if kind == GROUP:
                    self.groups += 1
                if kind == EVENTS:
                    self.events.append((at, size, group))
                elif kind == TOTALS:
                    self.totals.append((at, size))
                elif chunk is None or chunk[0] != kind or chunk[4] != size:
                    self.damage(size)
                else:
                    self.load(chunk)

    def header(self):
        if self.data[:8] != MAGIC or len(self.data) < 64:
            raise SystemExit('not a .mlyze file')
        version, oldest, size, features = struct.unpack_from('<HHIQ', self.data, 8)
        if not 64 <= size <= 4096 or len(self.data) < size or struct.unpack_from('<Q', self.data, size - 8)[0] != xxh64(0, self.data[:size - 8]):
            self.damage(64)
            return 64
        if oldest > 1 or features & 0xfffffffc:
            raise SystemExit('a newer format')
        self.totals_only = features & 1
        return size

    def damage(self, size):
        self.bad += 1
        self.bad_bytes += size

    def chunk(self, at):
        """(kind, flags, raw, count, whole size, payload) of a sound chunk, or None."""
        if at + 32 > len(self.data) or self.data[at:at + 4] != CHUNK_MAGIC:
            return None
        kind, flags, stored, raw, count, checksum = struct.unpack_from('<HHIIQQ', self.data, at + 4)
        if stored > len(self.data) - at - 32 or raw > 64 << 20 or (not flags & 1 and stored != raw):
            return None
        payload = self.data[at + 32:at + 32 + stored]
        if xxh64(xxh64(0, self.data[at:at + 24] + bytes(8)), payload) != checksum:
            return None
        return kind, flags, raw, count, 32 + stored, payload

    def index(self, first):
        end = self.chunk(len(self.data) - 32)
        if end is None or end[0] != END or end[4] != 32:
            return None
        chunk = self.chunk(end[3])
        if chunk is None or chunk[0] != INDEX or end[3] + chunk[4] != len(self.data) - 32:
            return None
        try:
            c, at, out = Cursor(self.payload(chunk)), first, []
            for _ in range(chunk[3]):
                kind, stored = c.varint(), c.varint()
                if kind == EVENTS:
                    extent(c)
                out.append((kind, at, 32 + stored))
                at += 32 + stored
        except Damaged:
            return None
        return out if c.done() and at == end[3] else None

    def walk(self, at):
        self.cut = True
        while at < len(self.data):
            chunk = self.chunk(at)
            if chunk is None:
                start = at
                at += 1
                while at < len(self.data) and self.chunk(at) is None:
                    at = self.data.find(CHUNK_MAGIC, at + 1)
                    at = len(self.data) if at < 0 else at
                tail = at == len(self.data)
                if tail and self.data[start:start + 4] == CHUNK_MAGIC and len(self.data) - start >= 32:
                    tail = struct.unpack_from('<I', self.data, start + 8)[0] > len(self.data) - start - 32
                self.bad += not tail
                self.bad_bytes += at - start
                continue
            if chunk[0] == EVENTS:
                self.events.append((at, chunk[4], self.groups))
            elif chunk[0] == TOTALS:
                self.totals.append((at, chunk[4]))
            else:
                self.groups += chunk[0] == GROUP
                self.load(chunk)
            at += chunk[4]
            if chunk[0] == END:
                self.cut = False
                self.bad_bytes += len(self.data) - at
                return

    @staticmethod
    def payload(chunk):
        return unpack_zstd(chunk[5], chunk[2]) if chunk[1] & 1 else chunk[5]

    def load(self, chunk):
        kind, count = chunk[0], chunk[3]
        if not META <= kind <= SYMBOLS:
            self.unknown += 1
            return
        try:
            if kind in (INDEX, END):
                return
            p = self.payload(chunk)
            if kind == META:
                self.meta = json.loads(p.decode())
            elif kind == SUMMARY:
                self.summary = json.loads(p.decode())
            elif kind == GROUP:
                self.state = json.loads(p.decode())
                self.state.setdefault('duration_ns', count)
            elif kind in (PROCESS, THREAD):
                for line in p.decode().splitlines():
                    row = json.loads(line)
                    (self.processes if kind == PROCESS else self.threads)[row['id']] = row
            else:
                {STRINGS: self.load_strings, FRAMES: self.load_frames, STACKS: self.load_stacks,
                 MODULES: self.load_modules, SYMBOLS: self.load_symbols}[kind](Cursor(p), count)
        except (Damaged, ValueError, KeyError):
            self.damage(chunk[4])

    def load_strings(self, c, count):
        first = c.varint()
        lengths = [c.varint() for _ in range(count)]
        for i, n in enumerate(lengths):
            self.strings[first + i] = c.take(n).decode()

    def load_frames(self, c, count):
        first, columns = c.varint(), []
        for _ in range(5):
            v, column = 0, []
            for _ in range(count):
                v = (v + c.zigzag()) & 0xffffffff
                column.append(v)
            columns.append(column)
        for i, row in enumerate(zip(*columns)):
            self.frames[first + i] = row

    def load_stacks(self, c, count):
        first, outermost_first = c.varint(), []
        for i in range(count):
            head, shared = c.varint(), c.varint()
            row = outermost_first[:shared]
            for _ in range((head >> 1) - shared):
                row.append(((row[-1] if row else 0) + c.zigzag()) & 0xffffffff)
            outermost_first = row
            self.stacks[first + i] = (bool(head & 1), row[::-1])


    def load_modules(self, c, count):
        first = c.varint()
        paths = [c.varint() for _ in range(count)]
        for i, path in enumerate(paths):
            self.modules[first + i] = (path, c.varint())

    def load_symbols(self, c, count):
        rows, frame = [], 0
        for _ in range(count):
            frame = (frame + c.zigzag()) & 0xffffffff
            rows.append((frame, [(frame + c.zigzag()) & 0xffffffff for _ in range(c.varint())]))
        self.symbols.update(rows)


# ---- native frames ----

def module_of(t, frame):
    """(path, last part of the path, build id) of a frame of language 2."""
    path, build_id = t.modules.get(frame[0], (-1, 0))
    path = t.strings.get(path, '<lost>')
    return path, path.rsplit('/', 1)[-1] or path, t.strings.get(build_id, '' if build_id > max(t.strings) else '<lost>')


def shown_frame(t, i):
    """(function, file, module, line, language) of frame i, as text and numbers: of one by address, what it stands for."""
    lost = ('<lost>', '', '', 0, 0)
    if i not in t.frames:
        return lost
    frame = t.frames[i]
    if frame[4] != 2:
        return tuple(t.strings.get(s, '<lost>') for s in frame[:3]) + frame[3:]
    if t.symbols.get(i):
        return shown_frame(t, target(t, t.symbols[i][0]))
    path, name, _ = module_of(t, frame)
    address = '0x%x' % (frame[1] << 32 | frame[3])
    return ('%s+%s' % (name, address) if frame[0] else address, path, name, 0, 1)


def target(t, i):
    return i if i in t.frames and t.frames[i][4] in (1, 3) else max(t.frames) + 1


def shown_stack(t, row):
    """The frames that a stack's frames stand for."""
    out = []
    for i in row:
        known = i in t.frames and t.frames[i][4] == 2 and i in t.symbols
        out += [target(t, k) for k in t.symbols[i]] if known else [i]
    return out


# ---- totals ----

def decode_totals(t):
    """Yields (head, rows) of each point: head is [process, part, flags, point, name, ns, ...], rows {number: (stack, domain, weight bits, [nine integers])},
    or None where what it builds upon was lost."""
    state = {}  # process: [part, rows or None]
    for at, size in t.totals:
        chunk = t.chunk(at)
        head = None
        try:
            if chunk is None or chunk[0] != TOTALS or chunk[4] != size:
                raise Damaged('chunk')
            c = Cursor(t.payload(chunk))
            head = [c.varint() for _ in range(13)]
            known = state.setdefault(head[0], [-1, None])
            if head[2] & 1:
                known[1] = {}
            elif head[1] != known[0] + 1:
                known[1] = None
            known[0] = head[1]
            if known[1] is not None:
                rows, known[1] = known[1], None
                totals_rows(c, chunk[3], rows, head[2] & 4)
                known[1] = rows
        except (Damaged, IndexError, KeyError, RuntimeError):
            t.damage(size)
            continue
        if not head[2] & 2:
            yield head, known[1]


def totals_rows(c, count, rows, close):
    weights = [struct.unpack('<Q', c.take(8))[0] for _ in range(c.varint())]
    n, stack, stacks = c.varint(), 0, []
    for _ in range(n):
        stack = (stack + c.zigzag()) & 0xffffffff
        stacks.append(stack)
    for stack in stacks:
        kind = c.varint()
        if kind % 8 > 4:
            raise Damaged('domain')
        rows[len(rows)] = (stack, kind % 8, weights[kind // 8], [0] * 9)
    if c.varint() != count:
        raise Damaged('count')
    changed, following = [], 0
    for _ in range(count):
        following += c.varint() + 1
        changed.append(following - 1)
    columns = [[c.zigzag() for _ in changed] for _ in range(9)]
    for i, row in enumerate(changed):
        d = [column[i] for column in columns]
        if close:
            largest = rows[row][3][6] + d[6]
            d[1] += d[0] * largest
            d[2], d[3] = d[0] - d[2], d[1] - d[3] - d[2] * largest
            d[5] += d[4] * largest
        for field in range(9):
            rows[row][3][field] = (rows[row][3][field] + d[field]) & M64
    if not c.done():
        raise Damaged('long')


# ---- events ----

def extent(c):
    process, events, allocs, frees, first_alloc, first_ns, span, n = (c.varint() for _ in range(8))
    for _ in range(2 * n):
        c.varint()
    return process, events, allocs, frees, first_alloc, first_ns, first_ns + span


def column_values(form, packing, predictor, count, raw, data):
    if packing == 1:
        data = unpack_zstd(data, raw)
    elif packing != 0 or len(data) != raw:
        raise Damaged('packing')
    if form == 0:
        c = Cursor(data)
        v = [c.varint() for _ in range(count)]
    elif form <= 4 and raw == form * count:
        v = [sum(data[w * count + i] << 8 * w for w in range(form)) for i in range(count)]
    else:
        raise Damaged('form')
    if predictor == 1:
        at = 0
        for i, d in enumerate(v):
            at = (at + (-(d + 1 >> 1) if d & 1 else d >> 1)) & M64
            v[i] = at
    return v, predictor


def columns_of(c, wanted=range(1, 16)):
    out = {}
    while not c.done():
        ident, form, packing, predictor = c.take(4)
        count, raw, stored = c.varint(), c.varint(), c.varint()
        data = c.take(stored)
        if ident in wanted:
            out[ident] = column_values(form, packing, predictor, count, raw, data)
        elif ident >= 128:
            raise Damaged('column')
    return out


def class_table(columns):
    """[(stack, size, domain, weight)] of a chunk, from its columns 2 to 5."""
    stacks, sizes, kinds, weights = (columns.get(i, ([], 0))[0] for i in (2, 3, 4, 5))
    return [(stack, size, kind & 7, weights[kind >> 3]) for stack, size, kind in zip(stacks, sizes, kinds)]


def decode_classes(payload):
    """The class table of an EVENTS chunk alone: much less to read than its events."""
    c = Cursor(payload)
    extent(c)
    return class_table(columns_of(c, range(2, 6)))


def decode_events(payload):
    """(extent, classes, events); an event is (op, thread, ns, what), what: (class, allocation), a rare row, or None."""
    c = Cursor(payload)
    head = extent(c)
    _, n, _, _, first_alloc, first_ns, last_ns = head
    columns = columns_of(c)

    def values(ident):
        return columns.get(ident, ([], 0))[0]

    classes = class_table(columns)
    threads = []
    for index, length in zip(values(11), values(12)):
        threads += [values(10)[index]] * length
    times, now = [], first_ns
    for length, ns in zip(values(13), values(14)):
        times += [now] * length
        now += ns
    times += [now] * (n - len(times))
    if now != last_ns or len(threads) != n or len(values(1)) != n or not set(values(1)) <= KNOWN_OPS:
        raise Damaged('lengths')
    distance = columns.get(7, ([], 0))[1] == 2
    alloc_class, refs, old_class, old_ref, rare = (iter(values(i)) for i in (6, 7, 8, 9, 15))
    allocated, latest, events, start = [], {}, [], first_ns
    for op, thread, ns in zip(values(1), threads, times):
        what = None
        if op == ALLOC:
            latest[thread] = len(allocated)
            what = next(alloc_class), first_alloc + len(allocated)
            allocated.append(what[0])
        elif op in (FREE, FREE_TEMP, FREE_TEMP_REF):
            if op == FREE_TEMP:
                ref = latest[thread]
            else:
                ref = len(allocated) - 1 - next(refs) if distance else next(refs)
                op = FREE if op == FREE else FREE_TEMP
            if ref < 0:
                raise Damaged('reference')
            what = allocated[ref], first_alloc + ref
        elif op in (FREE_OLD, FREE_OLD_TEMP):
            what = next(old_class), first_alloc - 1 - next(old_ref)
        elif op >= 16:
            d, *rest = (next(rare) for _ in range(7))
            start = (start + (-(d + 1 >> 1) if d & 1 else d >> 1)) & M64
            what = (start, *rest)
        events.append((op, thread, ns, what))
    return head, classes, events


# ---- text ----

def quoted(s):
    return '"' + ''.join('%%%02x' % b if b <= 32 or b in b'"%' or b >= 0x7f else chr(b) for b in s.encode()) + '"'


def compact(o):
    return json.dumps(o, sort_keys=True, separators=(',', ':'), ensure_ascii=False)


def lines(t):
    summary = t.summary
    if summary is None:
        summary = dict(t.state or {}, complete=False)
    strings, frames, stacks = (max(table) + 1 for table in (t.strings, t.frames, t.stacks))

    def string(i):
        return quoted(t.strings.get(i, '<lost>'))

    chunks = []
    for at, size, group in t.events:
        chunk = t.chunk(at)
        try:
            if chunk is None or chunk[0] != EVENTS or chunk[1] != 0 or chunk[4] != size:
                raise Damaged('chunk')
            chunks.append((group, decode_events(chunk[5])))
            t.processes.setdefault(chunks[-1][1][0][0], {'id': chunks[-1][1][0][0], 'lost': True})
        except (Damaged, IndexError, KeyError, StopIteration, RuntimeError):
            t.damage(size)
    yield 'meta ' + compact(t.meta)
    yield 'summary ' + compact(summary)
    for i in range(1, strings):
        yield 'string %d %s' % (i, string(i))
    for i in range(1, frames):
        f = shown_frame(t, i)
        yield 'frame %d %s %s %s %d %d' % (i, quoted(f[0]), quoted(f[1]), quoted(f[2]), f[3], f[4])
    for i in sorted(t.frames):
        if t.frames[i][4] == 2:
            path, _, build_id = module_of(t, t.frames[i])
            row = [str(target(t, k)) for k in t.symbols.get(i, ())]
            yield ' '.join(['native %d %s %s %x resolved %d' % (i, quoted(path), quoted(build_id), t.frames[i][1] << 32 | t.frames[i][3], i in t.symbols)] + row)
    for i in range(1, stacks):
        truncated, row = t.stacks.get(i, (False, [frames]))
        yield ' '.join(['stack %d %d' % (i, truncated)] + [str(min(f, frames)) for f in shown_stack(t, row)])
    for name, table in ('process', t.processes), ('thread', t.threads):
        for i in sorted(table):
            yield name + ' ' + compact(table[i])
    for group, (head, classes, events) in chunks:
        yield 'chunk process %d group %d events %d first_alloc %d ns %d to %d' % (head[0], group, head[1], head[4], head[5], head[6])
        for i, (stack, size, domain, weight) in enumerate(classes):
            yield 'class %d stack %d size %d domain %d weight %016x' % (i, min(stack, stacks), size, domain, weight)
        for op, thread, ns, what in events:
            line = 'event %d thread %d ns %d' % (op, thread if thread in t.threads else 0, ns)
            if op >= 16:
                line += ' start %d duration %d collected %d uncollectable %d generation %d stack %d name %d' % what
            elif what is not None:
                line += ' class %d alloc %d' % what
            yield line
    for head, rows in decode_totals(t):
        yield ('point process %d kind %d name %d ns %d events %d allocations %d peak %d at %d all %d at %d foreign %d known %d'
               % (head[0], head[3], min(head[4], strings), *head[5:], rows is not None))
        for number, (stack, domain, weight, values) in sorted((rows or {}).items()):
            yield 'row %d stack %d domain %d weight %016x %s' % (number, min(stack, stacks), domain, weight, ' '.join(map(str, values)))
    yield 'damage chunks %d bytes %d unknown %d cut %d' % (t.bad, t.bad_bytes, t.unknown, t.cut)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], 'rb') as f:
        trace = Trace(f.read())
    sys.stdout.write('\n'.join(lines(trace)) + '\n')


if __name__ == '__main__':
    main()
