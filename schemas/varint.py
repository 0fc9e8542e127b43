"""Avro's variable-length zigzag integers (Avro 1.11 specification, binary encoding)."""

from __future__ import annotations


def zigzag(value: int) -> bytes:
    """`value` (a signed 64-bit integer) as Avro writes int and long."""
    left = (value << 1) ^ (value >> 63)
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def avro_bytes(value: bytes) -> bytes:
    """`value` (bytes, or the UTF-8 of a string) as Avro writes bytes and string."""
    return zigzag(len(value)) + value
