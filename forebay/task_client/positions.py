"""Pure: a set of positions, small however many there are and wherever they lie."""

_SHIFT = 16
_MASK = (1 << _SHIFT) - 1
_BLOCK_BYTES = 1 << (_SHIFT - 3)


class Positions:
    """Whole numbers from 0, a bit each, in blocks of 65,536: a million in a row take 128 kB."""

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._count = 0

    def add(self, position: int) -> None:
        """Adds a position."""
        block = self._blocks.get(position >> _SHIFT)
        if block is None:
            block = self._blocks[position >> _SHIFT] = bytearray(_BLOCK_BYTES)
        low = position & _MASK
        if not block[low >> 3] >> (low & 7) & 1:
            block[low >> 3] |= 1 << (low & 7)
            self._count += 1

    def __contains__(self, position: int) -> bool:
        block = self._blocks.get(position >> _SHIFT)
        low = position & _MASK
        return block is not None and bool(block[low >> 3] >> (low & 7) & 1)

    def __len__(self) -> int:
        return self._count
