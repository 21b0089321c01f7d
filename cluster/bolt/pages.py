"""The layout of a bbolt file, version 2: pages of one size, numbered from 0; all numbers little-endian.

======================  =====================================================================
page header             id u64, flags u16, count u16, overflow u32: how many more pages it spans
meta (pages 0 and 1)    magic, version, page size, flags u32 each; root bucket; page of the free
                        list, first page behind all, transaction u64 each; FNV-1a of it u64
leaf element            flags u32 (1: a bucket), offset from the element to its key, key size,
                        value size u32 each
branch element          offset from the element to its key u32, key size u32, page u64
bucket                  root page u64, sequence u64; root 0: its one leaf page follows, in line
======================  =====================================================================

Keys and values of a page stand behind its elements. Of two valid metas that of the later transaction
counts.
"""

from __future__ import annotations

import struct

PAGE_SIZE = 4096
MAGIC = 0xED0CDAED
VERSION = 2
HEADER = struct.Struct("<QHHI")
LEAF_ELEMENT = struct.Struct("<IIII")
BRANCH_ELEMENT = struct.Struct("<IIQ")
ELEMENT_SIZE = 16  # of either
BUCKET = struct.Struct("<QQ")
META = struct.Struct("<IIIIQQQQQ")
CHECKSUM = struct.Struct("<Q")
BRANCH, LEAF, META_PAGE, FREE_LIST = 0x01, 0x02, 0x04, 0x10
BUCKET_FLAG = 0x01
NO_FREE_LIST = 0xFFFFFFFFFFFFFFFF
_FNV_OFFSET, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF


class InvalidDatabase(Exception):
    """The bytes are no database, or a damaged one; bbolt's text."""


def fnv1a(data: bytes) -> int:
    """The checksum of a meta."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _MASK
    return value


def meta_page(number: int, root: int, free_list: int, end: int, transaction: int) -> bytes:
    """Page 0 or 1."""
    meta = META.pack(MAGIC, VERSION, PAGE_SIZE, 0, root, 0, free_list, end, transaction)
    page = HEADER.pack(number, META_PAGE, 0, 0) + meta + CHECKSUM.pack(fnv1a(meta))
    return page.ljust(PAGE_SIZE, b"\0")


def leaf_body(rows: list[tuple[bytes, bytes]], flags: int) -> bytes:
    """Elements, keys and values of a leaf page."""
    elements = []
    data: list[bytes] = []
    at = ELEMENT_SIZE * len(rows)
    pack = LEAF_ELEMENT.pack
    for key, value in rows:
        elements.append(pack(flags, at, len(key), len(value)))
        at += len(key) + len(value) - ELEMENT_SIZE  # the next element stands so much nearer to its key
        data += key, value
    return b"".join(elements + data)


def branch_body(children: list[tuple[bytes, int]]) -> bytes:
    """Elements and keys of a branch page."""
    elements = []
    at = ELEMENT_SIZE * len(children)
    for key, page in children:
        elements.append(BRANCH_ELEMENT.pack(at, len(key), page))
        at += len(key) - ELEMENT_SIZE
    return b"".join([*elements, *(key for key, _ in children)])
