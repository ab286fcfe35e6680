"""A small mutator: genuine samples with a few changes each, aimed at length prefixes, types and structure."""

from __future__ import annotations

import random

INTERESTING = (
    *(bytes([byte]) for byte in (0x00, 0x01, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2)),
    *(bytes([byte]) for byte in (0xC4, 0xC7, 0xCA, 0xCB, 0xCC, 0xCF, 0xD0, 0xD3, 0xD4, 0xD9, 0xDC, 0xDE)),
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdd\x7f\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x91" * 40,
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\u0041",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b'"a":1,"a":2',
    b"[" * 50,
    b"{" * 50,
    b'"',
    b"\\",
    b"\xef\xbb\xbf",
    b"kind",
    b"handshake",
    b"started",
)


def mutate(sample: bytes, chance: random.Random) -> bytes:
    """`sample` after one to four changes."""
    data = bytearray(sample)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        size = chance.choice((1, 1, 2, 4, 16, 64))
        match chance.randrange(7):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = chance.choice(INTERESTING)
            case 3:
                piece = chance.choice(INTERESTING)
                data[place : place + len(piece)] = piece
            case 4:
                start = chance.randrange(len(data) + 1)
                data[place:place] = data[start : start + size]
            case 5:
                data[place:] = b""
            case _:
                if place < len(data):
                    data[place] ^= 1 << chance.randrange(8)
    return bytes(data)
