"""A red-black tree whose caller walks it and says where a new node goes.

For queues whose outcome depends on the shape of the tree, so the shape is a promise: insertion, replacement and
erasure rebalance by the textbook (Cormen et al., Introduction to Algorithms, ch. 13; an erased node with two children
gives its place to its successor), which is what the Linux kernel's lib/rbtree does as well.

Items are ranges, ordered by whatever the caller orders them by. As they may overlap, each node also knows the highest
end below it (ch. 14.3 there), so that those that reach past an offset are found without looking at the others.

Invariants (verified by `check`): the root is black, no red node has a red child, and every way from the root down to a
missing child passes the same number of black nodes; `reach` is the highest end of the items at and below a node.
"""

from __future__ import annotations

from typing import Generic, Iterator, Optional, Protocol, TypeVar


class Range(Protocol):
    """What lies in the tree. Whoever changes the end of one that does calls `renew`."""

    end: int


T = TypeVar("T", bound=Range)


class Node(Generic[T]):
    """A place in the tree. It stays the place of its item until it is erased, whatever moves around it."""

    __slots__ = ("item", "parent", "left", "right", "red", "reach")

    def __init__(self, item: T, parent: Optional[Node[T]]) -> None:
        self.item = item
        self.parent = parent
        self.left: Optional[Node[T]] = None
        self.right: Optional[Node[T]] = None
        self.red = True
        self.reach = item.end

    def renew(self) -> bool:
        """Let `reach` follow from the children's and the item's end; whether it changed."""
        before, reach = self.reach, self.item.end
        if self.left is not None and self.left.reach > reach:
            reach = self.left.reach
        if self.right is not None and self.right.reach > reach:
            reach = self.right.reach
        self.reach = reach
        return reach != before

    def following(self) -> Optional[Node[T]]:
        """The next node in order. O(log n), O(1) amortised over a walk."""
        if self.right is not None:
            return _leftmost(self.right)
        node = self
        while node.parent is not None and node is node.parent.right:
            node = node.parent
        return node.parent


def _leftmost(node: Node[T]) -> Node[T]:
    while node.left is not None:
        node = node.left
    return node


def _rightmost(node: Node[T]) -> Node[T]:
    while node.right is not None:
        node = node.right
    return node


def _is_red(node: Optional[Node[T]]) -> bool:
    return node is not None and node.red


class RedBlackTree(Generic[T]):
    """Items in the order in which their nodes were put. To replace one, assign to `Node.item` and call `renew`."""

    __slots__ = ("root",)

    def __init__(self) -> None:
        self.root: Optional[Node[T]] = None

    def __bool__(self) -> bool:
        return self.root is not None

    def __iter__(self) -> Iterator[T]:
        node = self.first()
        while node is not None:
            yield node.item
            node = node.following()

    def clear(self) -> None:
        """Drop all nodes. None leads to another then, so that no cycle is left to the garbage collector. O(n)."""
        nodes = [self.root]
        self.root = None
        while nodes:
            node = nodes.pop()
            if node is not None:
                nodes += (node.left, node.right)
                node.parent = node.left = node.right = None

    def first(self) -> Optional[Node[T]]:
        """The lowest node. O(log n)."""
        return None if self.root is None else _leftmost(self.root)

    def last(self) -> Optional[Node[T]]:
        """The highest node. O(log n)."""
        return None if self.root is None else _rightmost(self.root)

    @property
    def reach(self) -> int:
        """The highest end of an item; only while not empty. O(1)."""
        assert self.root is not None
        return self.root.reach

    def first_past(self, offset: int) -> Optional[Node[T]]:
        """The lowest node whose item ends behind `offset`. O(log n)."""
        node = self.root
        if node is None or node.reach <= offset:
            return None
        while True:
            if node.left is not None and node.left.reach > offset:
                node = node.left
            elif node.item.end > offset:
                return node
            else:
                assert node.right is not None  # else `reach` would not be what it is
                node = node.right

    def last_past(self, offset: int) -> Optional[Node[T]]:
        """The highest node whose item ends behind `offset`. O(log n)."""
        node = self.root
        if node is None or node.reach <= offset:
            return None
        while True:
            if node.right is not None and node.right.reach > offset:
                node = node.right
            elif node.item.end > offset:
                return node
            else:
                assert node.left is not None
                node = node.left

    def renew(self, node: Node[T]) -> None:
        """The item of `node` ends elsewhere than it did. O(log n)."""
        above: Optional[Node[T]] = node
        while above is not None and above.renew():
            above = above.parent

    def insert(self, item: T, parent: Optional[Node[T]], left: bool) -> Node[T]:
        """Put `item` where `parent` has no child yet; `parent` is None in an empty tree only. O(log n)."""
        node = Node(item, parent)
        if parent is None:
            assert self.root is None
            self.root = node
        elif left:
            assert parent.left is None
            parent.left = node
        else:
            assert parent.right is None
            parent.right = node
        if parent is not None:
            self.renew(parent)
        self._balance_inserted(node)
        return node

    def erase(self, node: Node[T]) -> None:
        """Take `node` out. O(log n)."""
        parent: Optional[Node[T]]
        if node.left is None or node.right is None:
            child = node.left if node.left is not None else node.right
            parent, black_lost = node.parent, not node.red
            self._transplant(node, child)
        else:
            heir = _leftmost(node.right)
            child, black_lost = heir.right, not heir.red
            parent = heir
            if heir is not node.right:
                parent = heir.parent
                self._transplant(heir, child)
                heir.right = node.right
                heir.right.parent = heir
            self._transplant(node, heir)
            heir.left = node.left
            heir.left.parent = heir
            heir.red = node.red
        node.parent = node.left = node.right = None
        above = parent
        while above is not None:
            above.renew()  # all of them: the heir is among them, with other children
            above = above.parent
        if black_lost:
            self._balance_erased(child, parent)

    def _transplant(self, old: Node[T], new: Optional[Node[T]]) -> None:
        """Hang `new` where `old` hangs."""
        parent = old.parent
        if parent is None:
            self.root = new
        elif parent.left is old:
            parent.left = new
        else:
            parent.right = new
        if new is not None:
            new.parent = parent

    def _rotate(self, node: Node[T], left: bool) -> None:
        """Let `node` sink to the left or right; its other child takes its place."""
        risen = node.right if left else node.left
        assert risen is not None
        self._transplant(node, risen)
        moved = risen.left if left else risen.right
        if left:
            node.right, risen.left = moved, node
        else:
            node.left, risen.right = moved, node
        if moved is not None:
            moved.parent = node
        node.parent = risen
        node.renew()
        risen.renew()

    def _balance_inserted(self, node: Node[T]) -> None:
        parent = node.parent
        while parent is not None and parent.red:
            grand = parent.parent
            assert grand is not None  # the root is black
            on_left = parent is grand.left
            uncle = grand.right if on_left else grand.left
            if uncle is not None and uncle.red:
                parent.red = uncle.red = False
                grand.red = True
                node, parent = grand, grand.parent
                continue
            if node is (parent.right if on_left else parent.left):
                self._rotate(parent, left=on_left)
                node, parent = parent, node
            parent.red = False
            grand.red = True
            self._rotate(grand, left=not on_left)
            break
        if self.root is not None:
            self.root.red = False

    def _balance_erased(self, node: Optional[Node[T]], parent: Optional[Node[T]]) -> None:
        """The ways through `node`, which may be a missing child of `parent`, have one black node too few."""
        while parent is not None and not _is_red(node):
            on_left = node is parent.left
            sibling = parent.right if on_left else parent.left
            assert sibling is not None  # else its side would have had too few black nodes
            if sibling.red:
                sibling.red = False
                parent.red = True
                self._rotate(parent, left=on_left)
                sibling = parent.right if on_left else parent.left
                assert sibling is not None
            near, far = (sibling.left, sibling.right) if on_left else (sibling.right, sibling.left)
            if not _is_red(far):
                if near is None or not near.red:
                    sibling.red = True
                    node, parent = parent, parent.parent
                    continue
                near.red = False
                sibling.red = True
                self._rotate(sibling, left=not on_left)
                sibling, far = near, sibling
            sibling.red = parent.red
            parent.red = False
            assert far is not None
            far.red = False
            self._rotate(parent, left=on_left)
            return
        if node is not None:
            node.red = False

    def check(self) -> None:
        """Verify the invariants above. O(n)."""
        assert not _is_red(self.root)
        heights = set()
        waiting = [(self.root, 0)]
        while waiting:
            node, blacks = waiting.pop()
            if node is None:
                heights.add(blacks)
                continue
            for child in (node.left, node.right):
                assert child is None or (child.parent is node and not (node.red and child.red))
                waiting.append((child, blacks + (not node.red)))
            assert not node.renew()
        assert len(heights) == 1
