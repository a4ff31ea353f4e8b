"""The Merkle tree against RFC 6962's definition written out, and its proofs against every change."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab import merkle


def definition(leaves):
    """MTH of RFC 6962, section 2.1, as it stands there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + definition(leaves[:k]) + definition(leaves[k:])).digest()


def grown(size):
    leaves = [merkle.leaf_hash(str(i).encode()) for i in range(size)]
    tree = merkle.Tree()
    for leaf in leaves:
        assert tree.root_with(leaf) == definition(leaves[: len(tree) + 1])
        tree.append(leaf)
    return tree, leaves


def test_roots_are_those_of_the_definition_at_every_size():
    tree, leaves = grown(70)
    assert [tree.root(n) for n in range(71)] == [definition(leaves[:n]) for n in range(71)]


def test_the_known_roots_of_the_rfc_test_vectors_come_out():
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = merkle.Tree()
    for item in data:
        tree.append(merkle.leaf_hash(bytes.fromhex(item)))
    assert tree.root(1).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert tree.root(8).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.integers(1, 64), st.data())
def test_inclusion_is_shown_for_what_is_there_and_for_nothing_else(size, data):
    tree, leaves = grown(size)
    index = data.draw(st.integers(0, size - 1))
    proof, root = tree.inclusion(index, size), tree.root(size)
    assert merkle.verify_inclusion(leaves[index], index, size, proof, root)
    assert not merkle.verify_inclusion(merkle.leaf_hash(b"other"), index, size, proof, root)
    assert not merkle.verify_inclusion(leaves[index], index, size, proof, merkle.leaf_hash(b"root"))
    assert not merkle.verify_inclusion(leaves[index], size + index, size, proof, root)
    assert not merkle.verify_inclusion(leaves[index], index, size, [*proof, root], root)
    if size > 1:
        other = (index + 1) % size
        assert not merkle.verify_inclusion(leaves[index], other, size, proof, root)
        assert not merkle.verify_inclusion(leaves[index], index, size, proof[:-1], root)


@given(st.integers(1, 64), st.data())
def test_consistency_is_shown_for_extensions_and_for_nothing_else(new, data):
    tree, _ = grown(new)
    old = data.draw(st.integers(0, new))
    proof = tree.consistency(old, new)
    wrong = merkle.leaf_hash(b"wrong")
    assert merkle.verify_consistency(old, new, proof, tree.root(old), tree.root(new))
    if old:
        assert not merkle.verify_consistency(old, new, proof, wrong, tree.root(new))
        assert not merkle.verify_consistency(old, new, proof, tree.root(old), wrong)
    assert not merkle.verify_consistency(new + 1, new, proof, tree.root(old), tree.root(new))
    assert not merkle.verify_consistency(old, new, [*proof, wrong], tree.root(old), tree.root(new))
    if proof:
        assert not merkle.verify_consistency(old, new, [], tree.root(old), tree.root(new))


@pytest.mark.parametrize("proof", [[], [b"x" * 32]])
def test_an_empty_tree_contains_nothing(proof):
    assert not merkle.verify_inclusion(b"x" * 32, 0, 0, proof, sha256(b"").digest())
