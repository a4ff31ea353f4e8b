"""ABY3 (Mohassel and Rindal 2018) for three owners, one protocol per file. Two owners together could open everything.

x = x0 + x1 + x2 modulo 2^64 (bits: x0 ⊕ x1 ⊕ x2); party i holds (x_i, x_{i+1}) and the keys k_i, k_{i+1}. So share i, and
key i, are known to the parties i − 1 and i.
"""
