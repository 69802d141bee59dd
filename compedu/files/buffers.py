"""Reading a file's bytes in order, never past their end; integers of any size in few bytes."""


def varint(number: int) -> bytes:
    """Write a number >= 0 with seven bits a byte, the lowest first; the top bit says that more follows."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(written + bytes([number]))


class Reader:
    """A cursor over `data`: every read advances `position`, and raises `ValueError` instead of passing the end."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        """The number of bytes not read yet."""
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise ValueError(f"{count} bytes wanted at byte {self.position}, {self.left} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def byte(self) -> int:
        """Return the next byte as a number."""
        if self.position >= len(self.data):
            raise ValueError(f"a byte wanted at byte {self.position}, none left")
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        """Return the next number written by `varint`."""
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > 63:
                raise ValueError(f"a number of more than 64 bits ends at byte {self.position}")
