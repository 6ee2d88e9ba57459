"""The red-black tree: whatever is put and erased, it stays balanced and in order, and knows who reaches how far."""

from __future__ import annotations

import math
from typing import Dict, List, Optional, Tuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpstitch.redblack import Node, RedBlackTree


class Key(int):
    """A number that stands for a range from there to `end`."""

    end: int


def put(tree: RedBlackTree[Key], number: int, length: int = 0) -> Node[Key]:
    key = Key(number)
    key.end = number + length
    parent: Optional[Node[Key]] = None
    node, left = tree.root, False
    while node is not None:
        parent, left = node, key < node.item
        node = node.left if left else node.right
    return tree.insert(key, parent, left)


def shape(node: Optional[Node[Key]]) -> str:
    """Lower case letters for red nodes, capitals for black ones."""
    if node is None:
        return "."
    letter = chr(ord("a" if node.red else "A") + node.item)
    return letter if node.left is node.right else f"({shape(node.left)}{letter}{shape(node.right)})"


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=200))
def test_random_insertions_and_erasures_keep_the_invariants_and_the_order(keys: List[int]) -> None:
    """A key that is there already is erased, any other inserted."""
    tree: RedBlackTree[Key] = RedBlackTree()
    nodes: Dict[int, Node[Key]] = {}
    for key in keys:
        if key in nodes:
            tree.erase(nodes.pop(key))
        else:
            nodes[key] = put(tree, key)
        tree.check()
        assert list(tree) == sorted(nodes)
        last = tree.last()
        assert (None if last is None else last.item) == max(nodes, default=None)
        assert bool(tree) == bool(nodes)
        assert all(node.item == held for held, node in nodes.items())


@settings(deadline=None)
@given(st.permutations(range(40)))
def test_nodes_erased_from_the_front_leave_a_tree_in_balance(keys: List[int]) -> None:
    tree: RedBlackTree[Key] = RedBlackTree()
    for key in keys:
        put(tree, key)
    for key in range(40):
        first = tree.first()
        assert first is not None and first.item == key
        tree.erase(first)
        tree.check()
    assert not tree


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=100), st.integers(0, 100))
def test_the_first_and_the_last_that_reach_past_an_offset_are_found(steps: List[Tuple[int, int]], offset: int) -> None:
    """Against a look at all of them. A key that is there already is erased, or ends elsewhere."""
    tree: RedBlackTree[Key] = RedBlackTree()
    nodes: Dict[int, Node[Key]] = {}
    for number, length in steps:
        if number not in nodes:
            nodes[number] = put(tree, number, length)
        elif length % 2:
            tree.erase(nodes.pop(number))
        else:
            nodes[number].item.end = number + length
            tree.renew(nodes[number])
        tree.check()
        past = [node.item for _, node in sorted(nodes.items()) if node.item.end > offset]
        first, last = tree.first_past(offset), tree.last_past(offset)
        assert (first and first.item) == (past[0] if past else None)
        assert (last and last.item) == (past[-1] if past else None)
        assert not nodes or tree.reach == max(node.item.end for node in nodes.values())


def test_an_ascending_run_stays_as_shallow_as_the_theory_says() -> None:
    tree: RedBlackTree[Key] = RedBlackTree()
    for key in range(1000):
        put(tree, key)
    tree.check()

    def depth(node: Optional[Node[Key]]) -> int:
        return 0 if node is None else 1 + max(depth(node.left), depth(node.right))

    assert depth(tree.root) <= 2 * math.log2(1001)


def test_the_shape_is_the_textbooks() -> None:
    """Worked by hand: a rotation at C, a recolouring at D, a rotation at E, then a successor that moves up."""
    tree: RedBlackTree[Key] = RedBlackTree()
    nodes = {}
    expected = ["A", "(.Ab)", "(aBc)", "(AB(.Cd))", "(AB(cDe))"]
    for key, want in enumerate(expected):
        nodes[key] = put(tree, key)
        assert shape(tree.root) == want
    tree.erase(nodes[1])
    assert shape(tree.root) == "(AC(.De))"
    tree.erase(nodes[0])
    assert shape(tree.root) == "(CDE)"
