"""The product of int64 matrices modulo 2^64 as machine code, which LLVM makes for this processor (the extra ``fast``).

Vectors of int64 have no product below AVX-512. With the halves of a = al + 2^32·ah there is a way by two instructions, where
float64 takes five (`ring`): a·b = al·bl + 2^32·(ah·bl + al·bh), and

1. al·bl is the product of 32 bits by 32 to 64;
2. of the bracket 32 bits are enough: (ah, al)·(bl, bh) as a vector of int32, whose pairs are added after the last step.

A tile of 4 rows and 4 columns is summed in registers over the whole depth of a block, from operands that stand in that order.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4
ROWS, DEPTH = 128, 256  # of a block: of 256 KiB on the left, of 8 KiB a tile's columns on the right

_SWAPPED = "<8 x i32> <i32 1, i32 0, i32 3, i32 2, i32 5, i32 4, i32 7, i32 6>"
_LOW, _HALF = (f"<i64 {v}, i64 {v}, i64 {v}, i64 {v}>" for v in (2**32 - 1, 32))

# For a row r of the tile: %low.r and %cross.r are the sums of 1 and 2.
_SUMS = """
  %low.{r} = phi <4 x i64> [ zeroinitializer, %tile ], [ %low.next.{r}, %deep ]
  %cross.{r} = phi <8 x i32> [ zeroinitializer, %tile ], [ %cross.next.{r}, %deep ]"""
_STEP = """
  %a.at.{r} = getelementptr i64, ptr %a.here, i64 {r}
  %a.one.{r} = load i64, ptr %a.at.{r}
  %a.first.{r} = insertelement <4 x i64> poison, i64 %a.one.{r}, i64 0
  %a.all.{r} = shufflevector <4 x i64> %a.first.{r}, <4 x i64> poison, <4 x i32> zeroinitializer
  %a.low.{r} = and <4 x i64> %a.all.{r}, {low}
  %a.halves.{r} = bitcast <4 x i64> %a.all.{r} to <8 x i32>
  %a.swapped.{r} = shufflevector <8 x i32> %a.halves.{r}, <8 x i32> poison, {swapped}
  %low.term.{r} = mul <4 x i64> %a.low.{r}, %b.low
  %low.next.{r} = add <4 x i64> %low.{r}, %low.term.{r}
  %cross.term.{r} = mul <8 x i32> %a.swapped.{r}, %b.halves
  %cross.next.{r} = add <8 x i32> %cross.{r}, %cross.term.{r}"""
_STORE = """
  %pair.{r} = shufflevector <8 x i32> %cross.next.{r}, <8 x i32> poison, {swapped}
  %bracket.{r} = add <8 x i32> %cross.next.{r}, %pair.{r}
  %bracket.wide.{r} = bitcast <8 x i32> %bracket.{r} to <4 x i64>
  %high.{r} = shl <4 x i64> %bracket.wide.{r}, {half}
  %sum.{r} = add <4 x i64> %low.next.{r}, %high.{r}
  %down.{r} = mul i64 %width, {r}
  %c.at.{r} = getelementptr i64, ptr %c.here, i64 %down.{r}
  %before.{r} = load <4 x i64>, ptr %c.at.{r}, align 8
  %after.{r} = add <4 x i64> %before.{r}, %sum.{r}
  store <4 x i64> %after.{r}, ptr %c.at.{r}, align 8"""
# c += a·b, for `rows` and `columns` of tiles (at least one of each), `depth` deep (at least 1). Panels of a tile's rows, or
# columns, have a stride of `stride` numbers; c has rows of `width`.
_CODE = """
define void @multiply(ptr %a, ptr %b, ptr %c, i64 %rows, i64 %columns, i64 %depth, i64 %stride, i64 %width) {{
entry:
  br label %column
column:
  %j = phi i64 [ 0, %entry ], [ %j.next, %column.end ]
  %b.offset = mul i64 %j, %stride
  %b.panel = getelementptr i64, ptr %b, i64 %b.offset
  br label %tile
tile:
  %i = phi i64 [ 0, %column ], [ %i.next, %tile.end ]
  %a.offset = mul i64 %i, %stride
  %a.panel = getelementptr i64, ptr %a, i64 %a.offset
  br label %deep
deep:
  %k = phi i64 [ 0, %tile ], [ %k.next, %deep ]{sums}
  %offset = mul i64 %k, {tile}
  %a.here = getelementptr i64, ptr %a.panel, i64 %offset
  %b.here = getelementptr i64, ptr %b.panel, i64 %offset
  %b.all = load <4 x i64>, ptr %b.here, align 8
  %b.low = and <4 x i64> %b.all, {low}
  %b.halves = bitcast <4 x i64> %b.all to <8 x i32>{steps}
  %k.next = add i64 %k, 1
  %k.end = icmp eq i64 %k.next, %depth
  br i1 %k.end, label %tile.end, label %deep
tile.end:
  %row = mul i64 %i, {tile}
  %row.offset = mul i64 %row, %width
  %c.row = getelementptr i64, ptr %c, i64 %row.offset
  %column.offset = mul i64 %j, {tile}
  %c.here = getelementptr i64, ptr %c.row, i64 %column.offset{stores}
  %i.next = add i64 %i, 1
  %i.end = icmp eq i64 %i.next, %rows
  br i1 %i.end, label %column.end, label %tile
column.end:
  %j.next = add i64 %j, 1
  %j.end = icmp eq i64 %j.next, %columns
  br i1 %j.end, label %end, label %column
end:
  ret void
}}"""


def _program() -> str:
    def each(text: str) -> str:
        return "".join(text.format(r=r, low=_LOW, half=_HALF, swapped=_SWAPPED) for r in range(TILE))

    return _CODE.format(tile=TILE, low=_LOW, sums=each(_SUMS), steps=each(_STEP), stores=each(_STORE))


class MachineCode:
    """``a @ b`` for int64 matrices (m, K) and (K, n), exact modulo 2^64, on torch's number of threads."""

    def __init__(self) -> None:
        """Raises ImportError without llvmlite, RuntimeError where LLVM can't make it."""
        import llvmlite.binding as llvm  # here, for it takes 76 MB, and is an extra

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(llvm.get_host_cpu_name(), features, opt=3)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_program()), machine)  # the code lives as long as it does
        self._engine.finalize_object()
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 5)
        self._code = signature(self._engine.get_function_address("multiply"))

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """See the class."""
        (m, deep), n = a.shape, b.shape[1]
        if not m * deep * n:
            return torch.zeros(m, n, dtype=torch.int64)
        left = F.pad(a, (0, 0, 0, -m % TILE)).reshape(-1, TILE, deep).transpose(1, 2).contiguous()
        right = F.pad(b, (0, -n % TILE)).reshape(deep, -1, TILE).transpose(0, 1).contiguous()
        made = torch.zeros(TILE * len(left), TILE * len(right), dtype=torch.int64)
        share = -(-len(right) // torch.get_num_threads())
        starts = range(0, len(right), share)
        if len(starts) == 1:
            self._columns(left, right, made, 0, share)
        else:
            with ThreadPoolExecutor(len(starts)) as pool:
                list(pool.map(lambda first: self._columns(left, right, made, first, share), starts))
        return made[:m, :n].contiguous()

    def _columns(self, left: Tensor, right: Tensor, made: Tensor, first: int, count: int) -> None:
        """What comes of ``count`` panels of the right operand from the ``first`` on, or of those that are left."""
        deep, count = left.shape[1], min(count, len(right) - first)
        for k in range(0, deep, DEPTH):
            for i in range(0, len(left), ROWS // TILE):
                a, b, c = left[i, k:], right[first, k:], made[TILE * i :, TILE * first :]
                rows, depth = min(ROWS // TILE, len(left) - i), min(DEPTH, deep - k)
                self._code(a.data_ptr(), b.data_ptr(), c.data_ptr(), rows, count, depth, TILE * deep, made.shape[1])
