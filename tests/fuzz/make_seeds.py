#!/usr/bin/env python3
"""Turns traces into fuzzing seeds: the same chunks with nothing compressed, so that a changed byte reaches the parsers.

    make_seeds.py OUTDIR FILE...
"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import mlyze_decode as m  # noqa: E402


def varint(v):
    out = b''
    while v >= 0x80:
        out += bytes([v & 0x7f | 0x80])
        v >>= 7
    return out + bytes([v])


def plain_events(payload):
    c = m.Cursor(payload)
    m.extent(c)
    out = payload[:c.at]
    while not c.done():
        ident, form, packing, predictor = c.take(4)
        count, raw, stored = c.varint(), c.varint(), c.varint()
        data = c.take(stored)
        if packing == 1:
            data = m.unpack_zstd(data, raw)
        out += bytes([ident, form, 0, predictor]) + varint(count) + varint(raw) + varint(len(data)) + data
    return out


def plain(data):
    out, at = data[:64], 64
    while at + 32 <= len(data):
        kind, flags, stored, raw, count, _ = struct.unpack_from('<HHIIQQ', data, at + 4)
        payload = data[at + 32:at + 32 + stored]
        at += 32 + stored
        if kind in (m.INDEX, m.END):
            break
        if flags & 1:
            payload = m.unpack_zstd(payload, raw)
        if kind == m.EVENTS:
            payload = plain_events(payload)
        out += m.CHUNK_MAGIC + struct.pack('<HHIIQQ', kind, 0, len(payload), len(payload), count, 0) + payload
    return out


def main():
    for path in sys.argv[2:]:
        with open(path, 'rb') as f:
            data = f.read()
        name = os.path.basename(path)[:-len('.mlyze')]
        with open(os.path.join(sys.argv[1], name + '.seed'), 'wb') as f:
            f.write(plain(data))


if __name__ == '__main__':
    main()
