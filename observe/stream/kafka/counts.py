"""How many items a partition's records hold, in a bounded number of numbers.

A backlog may hold millions of records. Their counts are kept in blocks that grow with it, so that "the items from
offset n on" costs reading a part of one block again, and memory stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BLOCKS = 256
"""At most so many a partition; where there are more, each two become one."""


@dataclass(slots=True)
class Block:
    """The records of [begin, end)."""

    begin: int
    end: int
    items: int


@dataclass(slots=True)
class Counts:
    """One partition, counted from `begin` to `end` without a gap."""

    begin: int
    end: int = -1
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = max(self.begin, self.end)

    def add(self, offset: int, items: int) -> None:
        """The next record; what offsets lie between it and the last hold nothing."""
        width = max(1, (offset - self.begin) // (BLOCKS // 2))
        if not self.blocks or self.blocks[-1].end - self.blocks[-1].begin >= width:
            self.blocks.append(Block(self.end, self.end, 0))
        last = self.blocks[-1]
        last.end = self.end = offset + 1
        last.items += items
        if len(self.blocks) > BLOCKS:
            pairs = zip(self.blocks[::2], [*self.blocks[1::2], None], strict=False)
            self.blocks = [Block(a.begin, b.end, a.items + b.items) if b else a for a, b in pairs]

    def forget(self, before: int) -> None:
        """What lies in whole blocks before an offset."""
        kept = [block for block in self.blocks if block.end > before]
        if kept != self.blocks:
            self.blocks = kept
            self.begin = kept[0].begin if kept else self.end

    def cut(self, start: int) -> tuple[int, int]:
        """The range that must be read again for a count from `start` on; empty where a block begins there."""
        for block in self.blocks:
            if block.begin < start < block.end:
                return start, block.end
        return start, start

    def whole(self, start: int) -> int:
        """Items in the blocks that lie behind `start` with all their records."""
        return sum(block.items for block in self.blocks if block.begin >= start)
