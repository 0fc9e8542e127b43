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


class TimeEncoder:
    """`zigzag` for times in ms that lie close together: their upper bytes are looked up.

    Bounded: the table is emptied when it holds `TABLE_MAX` spans of eight seconds.
    """

    TABLE_MAX = 100_000

    def __init__(self) -> None:
        self._high: dict[int, bytes] = {}

    def encode(self, ts: int) -> bytes:
        """The same bytes as `zigzag(ts)`."""
        if ts < 8192:
            return zigzag(ts)
        span = ts >> 13
        high = self._high.get(span)
        if high is None:
            if len(self._high) >= self.TABLE_MAX:
                self._high.clear()
            # Shifted by 14 bits of the varint, of which one is the sign's.
            high = self._high[span] = _unsigned(span)
        low = ts << 1
        return bytes((low & 127 | 128, low >> 7 & 127 | 128)) + high


def _unsigned(left: int) -> bytes:
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)
