"""A gzip file read a piece at a time, and read again from places on the way; no bomb ever unfolds in memory."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from database_bootstrap.errors import BundleRejected

CHUNK = 256 * 1024
"""Bytes that are unpacked at once."""
RATIO_LIMIT = 200
"""Tables of real data come to 5 to 50; zeros to 1000."""
_RATIO_FROM = 16 * 1024 * 1024
_SIP = 8 * 1024
"""Packed bytes that are fed at once: what zlib leaves of them is copied each time."""
_STRIDE = 4 * 1024 * 1024
"""Unpacked bytes between two places; each takes about 50 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where reading may begin again."""

    name: str
    packed: bytes = field(repr=False)
    stream: "zlib._Decompress" = field(repr=False)
    fed: int
    tail: bytes = field(repr=False)
    """Packed bytes that were fed and not used."""
    position: int
    """In what is unpacked."""


class Inflating:
    """The content of a gzip file, in order; raises `BundleRejected` for what is none, or unpacks to too much."""

    def __init__(self, name: str, packed: bytes, limit: int) -> None:
        """Read no more than `limit` unpacked bytes."""
        self._name = name
        self._packed = packed
        self._limit = limit
        self._stream = zlib.decompressobj(wbits=31)  # 31: a gzip header and trailer, nothing else
        self._fed = 0
        self._tail = b""
        self._begun = False
        self._unpacked = 0
        self._rest = memoryview(b"")
        self.place = self._here()
        """Not behind what is read next, and less than a stride and a piece before it."""

    @classmethod
    def at(cls, place: Place) -> "Inflating":
        """Return a reader that begins at a place."""
        reader = cls(place.name, place.packed, limit=2**63)
        reader._stream, reader._fed, reader._tail = place.stream.copy(), place.fed, place.tail
        reader._begun, reader._unpacked = True, place.position
        reader.place = place
        return reader

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._unpacked - len(self._rest)

    def read(self, size: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        return b"".join(self._pieces(size))

    def take(self, size: int) -> Iterator[bytes]:
        """Yield exactly so many bytes, in pieces."""
        end = self.position + size
        yield from self._pieces(size)
        if self.position < end:
            raise BundleRejected(f"{self._name} is cut off")

    def rest(self) -> Iterator[bytes]:
        """Yield all that is left, in pieces."""
        yield from self._pieces(2**63)

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if not self._rest:
                self._rest = memoryview(self._inflate())
            if not self._rest:
                return
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield bytes(piece)

    def _inflate(self) -> bytes:
        """Return the next piece; nothing at the end."""
        try:
            while self._has_member():
                if self._unpacked - self.place.position >= _STRIDE:
                    self.place = self._here()
                food = self._feed()
                piece = self._stream.decompress(food, CHUNK)
                self._tail = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
                if piece:
                    self._count(len(piece))
                    return piece
                if not (food or self._stream.eof):
                    raise BundleRejected(f"{self._name} is cut off")
        except zlib.error as error:
            raise BundleRejected(f"{self._name} is not a gzip file: {error}") from None
        return b""

    def _has_member(self) -> bool:
        """Whether there is more to unpack: a gzip file may be several, one after another (RFC 1952 section 2.2)."""
        if self._begun and not self._stream.eof:
            return True
        # Zeros may follow as padding.
        while not (rest := self._feed().lstrip(b"\0")):
            if self._fed == len(self._packed):
                return False
        self._tail, self._begun = rest, True
        self._stream = zlib.decompressobj(wbits=31)
        return True

    def _feed(self) -> bytes:
        food, self._tail = self._tail, b""
        if not food:
            food = self._packed[self._fed : self._fed + _SIP]
            self._fed += len(food)
        return food

    def _count(self, size: int) -> None:
        self._unpacked += size
        if self._unpacked > self._limit:
            raise BundleRejected(f"{self._name} unpacks to more than {self._limit} bytes")
        if self._unpacked > max(_RATIO_FROM, RATIO_LIMIT * (self._fed - len(self._tail))):
            raise BundleRejected(f"{self._name} unpacks to more than {RATIO_LIMIT} times its size: no data does")

    def _here(self) -> Place:
        return Place(
            name=self._name,
            packed=self._packed,
            stream=self._stream.copy(),
            fed=self._fed,
            tail=self._tail,
            position=self._unpacked,
        )
