"""A model of the receive path of Linux (6.x) for one established connection, written from its observed behaviour.

Nodes of the out-of-order queue lie in a red-black tree and may overlap, so what wins depends on the tree's shape; the
model therefore keeps a tree of its own and shares no code with the library. Offsets are relative to the first byte
after the SYN. `tests/root` compares the model with the running kernel; where that holds, the model stands in for the
kernel in tests that need no root.
"""

from __future__ import annotations

from typing import List, Optional, Tuple


class Node:
    """Bytes of one or more segments; a FIN takes one number at the end, which appended data may then follow."""

    def __init__(self, start: int, data: bytes, fin: bool) -> None:
        self.start, self.data, self.fin = start, data, fin
        self.end = start + len(data) + fin
        self.left: Optional[Node] = None
        self.right: Optional[Node] = None
        self.parent: Optional[Node] = None
        self.red = True

    def append(self, other: Node) -> None:
        self.data += other.data
        self.end = other.end
        self.fin = self.fin or other.fin


def _is_red(node: Optional[Node]) -> bool:
    return node is not None and node.red


class Tree:
    """A red-black tree with the textbook's insertion and deletion."""

    def __init__(self) -> None:
        self.root: Optional[Node] = None

    def first(self) -> Optional[Node]:
        node = self.root
        while node is not None and node.left is not None:
            node = node.left
        return node

    @staticmethod
    def next(node: Node) -> Optional[Node]:
        if node.right is not None:
            node = node.right
            while node.left is not None:
                node = node.left
            return node
        above = node.parent
        while above is not None and node is above.right:
            node, above = above, above.parent
        return above

    def replace(self, old: Node, new: Optional[Node]) -> None:
        """`new` takes the place of `old` below its parent."""
        if old.parent is None:
            self.root = new
        elif old is old.parent.left:
            old.parent.left = new
        else:
            old.parent.right = new
        if new is not None:
            new.parent = old.parent

    def substitute(self, old: Node, new: Node) -> None:
        """`new` takes the place, colour and children of `old`."""
        self.replace(old, new)
        new.red, new.left, new.right = old.red, old.left, old.right
        for child in (new.left, new.right):
            if child is not None:
                child.parent = new

    def _rotate(self, node: Node, to_left: bool) -> None:
        rising = node.right if to_left else node.left
        assert rising is not None
        inner = rising.left if to_left else rising.right
        self.replace(node, rising)
        if to_left:
            rising.left, node.right = node, inner
        else:
            rising.right, node.left = node, inner
        node.parent = rising
        if inner is not None:
            inner.parent = node

    def insert(self, node: Node, parent: Optional[Node], on_left: bool) -> None:
        node.parent, node.left, node.right, node.red = parent, None, None, True
        if parent is None:
            self.root = node
        elif on_left:
            parent.left = node
        else:
            parent.right = node
        while node.parent is not None and node.parent.red:
            parent = node.parent
            above = parent.parent
            assert above is not None
            parent_is_left = parent is above.left
            uncle = above.right if parent_is_left else above.left
            if _is_red(uncle):
                assert uncle is not None
                parent.red = uncle.red = False
                above.red = True
                node = above
                continue
            if node is (parent.right if parent_is_left else parent.left):
                self._rotate(parent, parent_is_left)
                node, parent = parent, node
            parent.red, above.red = False, True
            self._rotate(above, not parent_is_left)
        assert self.root is not None
        self.root.red = False

    def erase(self, node: Node) -> None:
        if node.left is not None and node.right is not None:
            successor = self.next(node)
            assert successor is not None
            child, above, was_red = successor.right, successor.parent, successor.red
            if above is node:
                above = successor
            else:
                self.replace(successor, child)
                successor.right = node.right
            self.replace(node, successor)
            successor.left, successor.red = node.left, node.red
            for below in (successor.left, successor.right):
                if below is not None:
                    below.parent = successor
        else:
            child, above, was_red = node.left or node.right, node.parent, node.red
            self.replace(node, child)
        if not was_red:
            self._fill(child, above)

    def _fill(self, node: Optional[Node], parent: Optional[Node]) -> None:
        """`node` below `parent` is one black node short."""
        while parent is not None and not _is_red(node):
            on_left = node is parent.left
            sibling = parent.right if on_left else parent.left
            assert sibling is not None
            if sibling.red:
                sibling.red, parent.red = False, True
                self._rotate(parent, on_left)
                sibling = parent.right if on_left else parent.left
                assert sibling is not None
            near, far = (sibling.left, sibling.right) if on_left else (sibling.right, sibling.left)
            if not _is_red(near) and not _is_red(far):
                sibling.red = True
                node, parent = parent, parent.parent
                continue
            if not _is_red(far):
                assert near is not None
                near.red, sibling.red = False, True
                self._rotate(sibling, not on_left)
                sibling, far = near, sibling
            assert far is not None
            sibling.red, parent.red, far.red = parent.red, False, False
            self._rotate(parent, on_left)
            return
        if node is not None:
            node.red = False


class Receiver:
    """One established connection of Linux as receiver; `window` is what it announced, `sack` whether it may SACK."""

    def __init__(self, window: int = 64240, sack: bool = False) -> None:
        self.next_offset = 0
        self.end = "open"
        self._window = window
        self._sack = sack
        self._tree = Tree()
        self._last: Optional[Node] = None
        self._blocks: List[Tuple[int, int]] = []  # SACK blocks, the newest first, at most four
        self._received: List[Node] = []

    def read(self) -> bytes:
        """All that the application has been able to read so far."""
        data = b""
        position = 0
        for node in self._received:
            piece = node.data[position - node.start :]
            data += piece
            position += len(piece)
        return data

    def reset(self, start: int) -> None:
        """A valid-looking RST: it counts at the next expected number, or (RFC 5961 in Linux) where the SACKs end."""
        if self.end == "open":
            ends = [end for _, end in self._blocks] if self._sack else []
            if start == self.next_offset or (ends and start == max(ends)):
                self.end = "rst"

    def segment(self, start: int, data: bytes, fin: bool = False) -> None:
        """An acceptable segment with data or FIN (flags, ACK and checksum in order)."""
        node = Node(start, data, fin)
        if self.end != "open" or node.start == node.end or node.end <= self.next_offset:
            return
        if start >= self.next_offset + self._window:
            return
        if start <= self.next_offset:
            self._take(node)
            self._drain()
        else:
            self._queue(node)

    def _take(self, node: Node) -> None:
        if self._received and self._received[-1].end == node.start:
            self._received[-1].append(node)
        else:
            self._received.append(node)
        self.next_offset = node.end
        if node.fin:
            self.end = "fin"

    def _drain(self) -> None:
        node = self._tree.first()
        while node is not None and self.end == "open" and node.start <= self.next_offset:
            following = self._tree.next(node)
            self._tree.erase(node)
            if node.end > self.next_offset:
                self._take(node)
            node = following
        if self._tree.root is None:
            self._last, self._blocks = None, []
        self._blocks = [block for block in self._blocks if block[0] > self.next_offset]

    def _queue(self, node: Node) -> None:
        self._note(node.start, node.end)
        if self._last is None:
            self._tree.insert(node, None, True)
            self._last = node
            return
        if node.start == self._last.end:
            self._last.append(node)
            return
        parent: Optional[Node] = self._last
        on_left = False
        if node.start < self._last.end:
            below = self._tree.root
            while below is not None:
                parent, on_left = below, node.start < below.start
                if on_left:
                    below = below.left
                    continue
                if node.start == below.end:
                    below.append(node)
                    return
                if node.start < below.end:
                    if node.end <= below.end:
                        return
                    if node.start == below.start:
                        self._tree.substitute(below, node)
                        self._cover(node)
                        return
                below = below.right
        self._tree.insert(node, parent, on_left)
        self._cover(node)

    def _cover(self, node: Node) -> None:
        """Drop the nodes behind `node` that lie inside it."""
        following = self._tree.next(node)
        while following is not None and following.start < node.end:
            if node.end < following.end:
                return
            self._tree.erase(following)
            following = self._tree.next(node)
        if following is None:
            self._last = node

    def _note(self, start: int, end: int) -> None:
        """Keep the SACK blocks: one that touches the new range grows and comes first, else the range comes first."""
        for index, (block_start, block_end) in enumerate(self._blocks):
            if start <= block_end and block_start <= end:
                del self._blocks[index]
                start, end = min(start, block_start), max(end, block_end)
                rest: List[Tuple[int, int]] = []
                for other_start, other_end in self._blocks:
                    if other_start <= end and start <= other_end:
                        start, end = min(start, other_start), max(end, other_end)
                    else:
                        rest.append((other_start, other_end))
                self._blocks = [(start, end), *rest]
                return
        self._blocks = [(start, end), *self._blocks][:4]
