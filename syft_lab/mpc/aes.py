"""AES-128 (FIPS 197) on bits, for graphics processors: no table is looked up, so that no time and no cache tells of a key.

A lane holds two blocks as eight planes, words of 32 bits: plane i has bit i of all 32 bytes, and byte r of column c of block b
lies at bit 8r + 2c + b (as in Käsper and Schwabe, Faster and Timing-Attack Resistant AES-GCM, 2009). The functions here are
made of ∧, ⊕, ¬ and shifts, so they work on int32 tensors of torch, on those of Triton (`aes_cuda`; it takes no annotations),
and on Python's integers.
"""

from __future__ import annotations

ROUNDS = 10


def transpose(q0, q1, q2, q3, q4, q5, q6, q7):
    """The words of two blocks, in turn, as planes; and planes as words: 8×8 bits, three times in halves."""
    a, b = ((q0 >> 1) ^ q1) & 0x55555555, ((q2 >> 1) ^ q3) & 0x55555555
    c, d = ((q4 >> 1) ^ q5) & 0x55555555, ((q6 >> 1) ^ q7) & 0x55555555
    q0, q1, q2, q3 = q0 ^ (a << 1), q1 ^ a, q2 ^ (b << 1), q3 ^ b
    q4, q5, q6, q7 = q4 ^ (c << 1), q5 ^ c, q6 ^ (d << 1), q7 ^ d
    a, b = ((q0 >> 2) ^ q2) & 0x33333333, ((q1 >> 2) ^ q3) & 0x33333333
    c, d = ((q4 >> 2) ^ q6) & 0x33333333, ((q5 >> 2) ^ q7) & 0x33333333
    q0, q2, q1, q3 = q0 ^ (a << 2), q2 ^ a, q1 ^ (b << 2), q3 ^ b
    q4, q6, q5, q7 = q4 ^ (c << 2), q6 ^ c, q5 ^ (d << 2), q7 ^ d
    a, b = ((q0 >> 4) ^ q4) & 0x0F0F0F0F, ((q1 >> 4) ^ q5) & 0x0F0F0F0F
    c, d = ((q2 >> 4) ^ q6) & 0x0F0F0F0F, ((q3 >> 4) ^ q7) & 0x0F0F0F0F
    q0, q4, q1, q5 = q0 ^ (a << 4), q4 ^ a, q1 ^ (b << 4), q5 ^ b
    q2, q6, q3, q7 = q2 ^ (c << 4), q6 ^ c, q3 ^ (d << 4), q7 ^ d
    return q0, q1, q2, q3, q4, q5, q6, q7


def substitute(x7, x6, x5, x4, x3, x2, x1, x0):
    """SubBytes, by the circuit of 113 gates of Boyar and Peralta (A depth-16 circuit for the AES S-box, 2011).

    Their bits are numbered from the highest; the planes here from the lowest.
    """
    y14, y13, y9, y8, t0 = x3 ^ x5, x0 ^ x6, x0 ^ x3, x0 ^ x5, x1 ^ x2
    y1, y12 = t0 ^ x7, y13 ^ y14
    y4, y2, y5, t1 = y1 ^ x3, y1 ^ x0, y1 ^ x6, x4 ^ y12
    y3, y15, y20 = y5 ^ y8, t1 ^ x5, t1 ^ x1
    y6, y10, y11 = y15 ^ x7, y15 ^ t0, y20 ^ y9
    y7, y17, y19, y16 = x7 ^ y11, y10 ^ y11, y10 ^ y8, t0 ^ y11
    y21, y18 = y13 ^ y16, x0 ^ y16
    t2, t7, t12 = y12 & y15, y13 & y16, y9 & y11
    t4, t6, t9 = (y3 & y6) ^ t2, (y4 & x7) ^ t2, (y5 & y1) ^ t7
    t11, t14, t16 = (y2 & y7) ^ t7, (y14 & y17) ^ t12, (y8 & y10) ^ t12
    t21, t22, t23, t24 = t4 ^ t14 ^ y20, t6 ^ t16 ^ y19, t9 ^ t14 ^ y21, t11 ^ t16 ^ y18
    t25, t26, t30 = t21 ^ t22, t21 & t23, t23 ^ t24
    t27, t31 = t24 ^ t26, t22 ^ t26
    t29, t33 = (t25 & t27) ^ t22, (t31 & t30) ^ t24
    t36 = t24 & (t27 ^ t33)
    t37, t38 = t36 ^ t23 ^ t33, t27 ^ t36
    t40 = t25 ^ (t29 & t38)
    t41, t42, t43, t44 = t40 ^ t37, t29 ^ t33, t29 ^ t40, t33 ^ t37
    t45 = t42 ^ t41
    z0, z1, z2, z3, z4, z5 = t44 & y15, t37 & y6, t33 & x7, t43 & y16, t40 & y1, t29 & y7
    z6, z7, z8, z9, z10, z11 = t42 & y11, t45 & y17, t41 & y10, t44 & y12, t37 & y3, t33 & y4
    z12, z13, z14, z15, z16, z17 = t43 & y13, t40 & y5, t29 & y2, t42 & y9, t45 & y14, t41 & y8
    t46, t48, t53, t54 = z15 ^ z16, z5 ^ z13, z0 ^ z3, z6 ^ z7
    t57, t58, t59 = z2 ^ z12 ^ t53, z4 ^ t46, z3 ^ t54
    t61, t62, t63, t64 = z14 ^ t57, z7 ^ z8 ^ t58, z9 ^ z10 ^ t58, z4 ^ t59
    t65, t66 = t61 ^ t62, z1 ^ t63
    s0, s3, s4, s5 = t59 ^ t63, t53 ^ t66, z2 ^ z5 ^ t66, z10 ^ z11 ^ t65
    s1, s2 = t64 ^ ~s3, z16 ^ z17 ^ ~(t64 ^ t65)
    s6, s7 = z12 ^ t48 ^ ~t62, t48 ^ ~(t46 ^ t57)
    return s7, s6, s5, s4, s3, s2, s1, s0


def shift_rows(x):
    """ShiftRows of a plane: row r goes r columns round."""
    first = ((x >> 2) & 0x00003F00) | ((x << 6) & 0x0000C000)
    second = ((x >> 4) & 0x000F0000) | ((x << 4) & 0x00F00000)
    third = ((x >> 6) & 0x03000000) | ((x << 2) & -0x04000000)
    return (x & 0x000000FF) | first | second | third


def rotate(x):
    """A plane in which each row is the next."""
    return ((x >> 8) & 0x00FFFFFF) | (x << 24)


def mix_columns(q0, q1, q2, q3, q4, q5, q6, q7,
                r0, r1, r2, r3, r4, r5, r6, r7):  # fmt: skip
    """MixColumns of planes; r is each of them rotated. Row j becomes 2(s_j ⊕ s_{j+1}) ⊕ s_{j+1} ⊕ (s_{j+2} ⊕ s_{j+3})."""
    d0, d1, d2, d3, d4, d5, d6, d7 = q0 ^ r0, q1 ^ r1, q2 ^ r2, q3 ^ r3, q4 ^ r4, q5 ^ r5, q6 ^ r6, q7 ^ r7
    e0, e1 = ((d0 >> 16) & 0xFFFF) | (d0 << 16), ((d1 >> 16) & 0xFFFF) | (d1 << 16)
    e2, e3 = ((d2 >> 16) & 0xFFFF) | (d2 << 16), ((d3 >> 16) & 0xFFFF) | (d3 << 16)
    e4, e5 = ((d4 >> 16) & 0xFFFF) | (d4 << 16), ((d5 >> 16) & 0xFFFF) | (d5 << 16)
    e6, e7 = ((d6 >> 16) & 0xFFFF) | (d6 << 16), ((d7 >> 16) & 0xFFFF) | (d7 << 16)
    s0, s1, s2, s3 = r0 ^ e0 ^ d7, r1 ^ e1 ^ d0 ^ d7, r2 ^ e2 ^ d1, r3 ^ e3 ^ d2 ^ d7
    return s0, s1, s2, s3, r4 ^ e4 ^ d3 ^ d7, r5 ^ e5 ^ d4, r6 ^ e6 ^ d5, r7 ^ e7 ^ d6


def key_planes(key: bytes) -> list[int]:
    """The planes of the eleven round keys (FIPS 197, section 5.2), 88 signed words of 32 bits."""
    words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, 16, 4)]
    constant = 1
    for i in range(4, 4 * (ROUNDS + 1)):
        last = words[-1]
        if i % 4 == 0:
            last = _substituted((last >> 8) | (last << 24) & 0xFFFFFFFF) ^ constant
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        words.append(words[i - 4] ^ last)
    both = [transpose(*(w for word in words[i : i + 4] for w in (word, word))) for i in range(0, len(words), 4)]
    return [signed(plane) for planes in both for plane in planes]


def signed(word: int) -> int:
    """The low 32 bits, as an int32 has them."""
    return ((word + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _substituted(word: int) -> int:
    planes = transpose(word, 0, 0, 0, 0, 0, 0, 0)
    return int(transpose(*substitute(*planes))[0] & 0xFFFFFFFF)
