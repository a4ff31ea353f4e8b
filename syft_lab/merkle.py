"""A Merkle tree over an append-only log, hashed as in RFC 6962 section 2.1, with its two proofs.

`Tree` is what the owner keeps; `verify_inclusion` and `verify_consistency` need only hashes, and run anywhere
(the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2). A hash is 32 bytes of SHA-256.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

WIDTH = 32


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one log entry; the 0 byte keeps leaves and nodes apart."""
    return sha256(b"\0" + entry).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


class Tree:
    """Leaf hashes and all complete subtrees above them: 64 bytes a leaf, O(log n) to append or to prove."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]

    def __len__(self) -> int:
        return len(self._levels[0]) // WIDTH

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash and every subtree that it completes."""
        self._levels[0] += leaf
        level = 0
        while len(self._levels[level]) // WIDTH % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append(bytearray())
            pair = self._levels[level][-2 * WIDTH :]
            level += 1
            self._levels[level] += _node(bytes(pair[:WIDTH]), bytes(pair[WIDTH:]))

    def leaf(self, index: int) -> bytes:
        """The hash of leaf ``index``."""
        return bytes(self._levels[0][index * WIDTH : (index + 1) * WIDTH])

    def root_with(self, leaf: bytes) -> bytes:
        """The root that `append(leaf)` would give, without appending."""
        size, node = len(self), leaf
        for level, hashes in enumerate(self._levels):
            if size >> level & 1:
                start = ((size >> level) - 1) * WIDTH
                node = _node(bytes(hashes[start : start + WIDTH]), node)
        return node

    def root(self, size: int | None = None) -> bytes:
        """Root of the first ``size`` leaves (all of them by default)."""
        size = len(self) if size is None else size
        return self._range(0, size) if size else sha256(b"").digest()

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Audit path of leaf ``index`` in the tree of the first ``size`` leaves."""
        return self._path(index, 0, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the tree of ``new`` leaves continues the tree of ``old`` ones."""
        return [] if old in (0, new) else self._subproof(old, 0, new, True)

    def _range(self, start: int, end: int) -> bytes:
        count = end - start
        if count & (count - 1) == 0 and start % count == 0:
            level = count.bit_length() - 1
            at = (start >> level) * WIDTH
            return bytes(self._levels[level][at : at + WIDTH])
        middle = start + _split(count)
        return _node(self._range(start, middle), self._range(middle, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + _split(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._range(middle, end)]
        return [*self._path(index, middle, end), self._range(start, middle)]

    def _subproof(self, old: int, start: int, end: int, whole: bool) -> list[bytes]:
        if old == end:
            return [] if whole else [self._range(start, end)]
        middle = start + _split(end - start)
        if old <= middle:
            return [*self._subproof(old, start, middle, whole), self._range(middle, end)]
        return [*self._subproof(old, middle, end, False), self._range(start, middle)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows that ``leaf`` is entry ``index`` of the tree with ``size`` leaves and this root."""
    if not 0 <= index < size:
        return False
    node, at, last = leaf, index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = _node(sibling, node)
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            node = _node(node, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and node == root


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether ``proof`` shows that the tree (new, new_root) is an extension of (old, old_root)."""
    if old == new or old == 0:
        return not proof and (old == 0 or old_root == new_root)
    if not 0 < old < new:
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at >>= 1
        last >>= 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = _node(node, first), _node(node, second)
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            second = _node(second, node)
        at >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root
