"""What a cell's names may stand for, as far as reading tells: a dataset, a column, or a function that takes out one value.

An abstract run of the code: statements in order, branches and loops as if each ran, the cell's own functions on what they are
given, containers as the sum of their parts. Where it is unsure it says too much. Code can still hide from it: in classes, in
files, in text that is run or put together, and in libraries that it knows nothing of.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import NamedTuple

STEPS = 50_000  # of one reading; functions that call functions twice could make it endless
TABLE, COLUMN = "a dataset", "a whole column, each person's value"
_GROUPS, _MODULE, _FOREIGN = "groups", "a module that moves data", "a function of another module"
DATA = frozenset((TABLE, COLUMN))
NOTHING: frozenset[str] = frozenset()
_MODULES = ("numpy", "pandas", "torch", "polars", "copy", "json", "itertools", "functools", "collections", "io", "math")
_FACTS = ("shape", "columns", "dtypes", "dtype", "size", "ndim", "empty")  # attributes that no column can hide
_WHOLE = ("T", "loc", "iloc", "values", "data")  # attributes of a table that are no column
_PUTTING = ("append", "extend", "add", "update", "insert", "setdefault", "write")
# What gives one number, or a few, for many rows. Those that can be one person's value are hinted at by name.
_REDUCING = frozenset(
    """
    mean sum count std var sem skew kurt prod nunique value_counts any all corr cov median min max amin amax nanmin nanmax
    idxmin idxmax argmin argmax mode first last nth describe quantile percentile nanquantile nanpercentile nanmean nansum
    nanstd nanvar average histogram bincount corrcoef polyfit lstsq solve norm dot matmul einsum crosstab pivot_table agg
    aggregate reduce numel size len fsum print isinstance type range bool count_nonzero autocorr info equals memory_usage
    mse_loss cross_entropy nll_loss l1_loss
""".split()
)


class Call(NamedTuple):
    """A call: of which method, or of what functions by name, and what names it is given."""

    node: ast.Call
    method: str
    called: frozenset[str]
    given: frozenset[str]


class Flow:
    """``holds``: what each name may stand for at the end, and ``lines`` where it came to; ``calls`` in the order of reading.

    ``telling`` are the names of functions that are followed through variables and texts.
    """

    def __init__(self, datasets: Iterable[str], telling: Iterable[str]) -> None:
        self._datasets = tuple(datasets)
        self.holds = dict.fromkeys(self._datasets, frozenset((TABLE,)))
        self.lines: dict[str, int] = {}
        self.calls: list[Call] = []
        self._known = _REDUCING | frozenset(telling)
        self._own: dict[str, ast.FunctionDef | ast.Lambda] = {}
        self._running: list[ast.AST] = []
        self._inside, self._left = 0, STEPS

    def read(self, tree: ast.Module) -> bool:
        """Read the code; gives whether all of it could be followed."""
        try:
            for node in tree.body:
                self._statement(node)
        except RecursionError:
            return False
        return True

    def _statement(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            meaning = self._of(node.value)
            if isinstance(node, ast.AugAssign):
                meaning |= self._of(node.target)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._bind(target, meaning, node.value)
        elif isinstance(node, ast.FunctionDef):
            self._own[node.name], self.holds[node.name] = node, NOTHING
            self._apply(node, ())
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        else:
            if isinstance(node, ast.For):
                self._loop(node.target, node.iter)
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                self._bind(node.optional_vars, self._of(node.context_expr))
            self._inside += 1
            for _ in range(2 if isinstance(node, ast.For | ast.While) else 1):  # a second round sees what the first one left
                for child in ast.iter_child_nodes(node):
                    self._of(child) if isinstance(child, ast.expr) else self._statement(child)
            self._inside -= 1

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            path = alias.name if isinstance(node, ast.Import) else node.module or ""
            moves, name = path.partition(".")[0] in _MODULES, alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.Import):
                self.holds[name] = frozenset((_MODULE,)) if moves else NOTHING
            else:
                self.holds[name] = (self._known & {alias.name}) | (NOTHING if moves else {_FOREIGN})

    def _bind(self, target: ast.AST, meaning: frozenset[str], value: ast.AST | None = None) -> None:
        """``target = value``; inside of branches, loops and functions what the name held before stays possible."""
        if isinstance(target, ast.Name):
            self._own.pop(target.id, None)
            own = self._function(value)
            if own is not None:
                self._own[target.id] = own
            before = self.holds.get(target.id, NOTHING) if self._inside else NOTHING
            self.holds[target.id] = before | meaning
            if meaning & DATA:
                self.lines[target.id] = target.lineno
        elif isinstance(target, ast.Tuple | ast.List):
            parts: Sequence[ast.AST] = value.elts if isinstance(value, ast.Tuple | ast.List) else ()
            paired = len(parts) == len(target.elts) and not any(isinstance(p, ast.Starred) for p in (*parts, *target.elts))
            for i, part in enumerate(target.elts):
                self._bind(part, self._of(parts[i]) if paired else meaning, parts[i] if paired else None)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, meaning)
        elif isinstance(target, ast.Attribute | ast.Subscript):  # a part of it: the rest stays
            self._inside += 1
            self._bind(target.value, meaning)
            self._inside -= 1

    def _loop(self, target: ast.AST, over: ast.AST) -> None:
        meaning = _rows(self._of(over))
        if isinstance(over, ast.Name) and over.id in self._datasets:
            meaning -= {TABLE}  # the names of its columns
        self._inside += 1
        if isinstance(target, ast.Tuple) and len(target.elts) == 2:  # a label, and what it is of
            self._bind(target.elts[0], NOTHING)
            target = target.elts[1]
        self._bind(target, meaning)
        self._inside -= 1

    def _function(self, node: ast.AST | None) -> ast.FunctionDef | ast.Lambda | None:
        if isinstance(node, ast.Lambda):
            return node
        return self._own.get(node.id) if isinstance(node, ast.Name) else None

    def _apply(self, made: ast.FunctionDef | ast.Lambda, given: Sequence[frozenset[str]]) -> frozenset[str]:
        """What a function of the cell's own gives back."""
        if made in self._running:
            return NOTHING.union(*given)
        names = [a.arg for a in (*made.args.posonlyargs, *made.args.args)]
        others = [a.arg for a in (*made.args.kwonlyargs, made.args.vararg, made.args.kwarg) if a is not None]
        before = {n: self.holds.get(n, NOTHING) for n in (*names, *others)}
        defaults = [self._of(d) for d in (*made.args.defaults, *made.args.kw_defaults) if d is not None]
        self.holds.update(dict.fromkeys(before, NOTHING.union(*given, *defaults)))
        if not others and len(given) == len(names):
            self.holds.update(zip(names, given, strict=True))
        self._running.append(made)
        self._inside += 1
        back = [made.body] if isinstance(made, ast.Lambda) else []
        if isinstance(made, ast.FunctionDef):
            for node in made.body:
                self._statement(node)
            back = [n.value for n in ast.walk(made) if isinstance(n, ast.Return | ast.Yield) and n.value is not None]
        result = NOTHING.union(*map(self._of, back))
        self._inside -= 1
        self._running.pop()
        self.holds.update(before)
        return result

    def _of(self, node: ast.AST) -> frozenset[str]:
        """What an expression may be, or hold."""
        self._left -= 1
        if self._left < 0:
            raise RecursionError
        if isinstance(node, ast.Name):
            return self.holds.get(node.id, self._known & {node.id})
        if isinstance(node, ast.Constant):
            return self._known & {node.value} if isinstance(node.value, str) else NOTHING
        if isinstance(node, ast.Attribute):
            return self._attribute(self._of(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.NamedExpr):
            self._bind(node.target, self._of(node.value), node.value)
            return self._of(node.target)
        if isinstance(node, ast.Lambda):
            return self._apply(node, ())
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for part in node.generators:
                self._loop(part.target, part.iter)
        parts = [self._of(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        if isinstance(node, ast.IfExp):
            parts = parts[1:]
        if isinstance(node, ast.Subscript):
            named = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
            return _column(parts[0]) if named else parts[0]
        plain = isinstance(node, ast.Compare) and any(isinstance(o, ast.In | ast.NotIn | ast.Is | ast.IsNot) for o in node.ops)
        sums = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
        return NOTHING if plain or sums else NOTHING.union(*parts)

    def _attribute(self, of: frozenset[str], name: str) -> frozenset[str]:
        if _MODULE in of:
            return of | (self._known & {name})
        if name in _FACTS:
            return NOTHING
        return of if name in _WHOLE else _column(of)

    def _call(self, node: ast.Call) -> frozenset[str]:
        parts = [self._of(a) for a in (*node.args, *(k.value for k in node.keywords))]
        given, function = NOTHING.union(*parts), node.func
        if isinstance(function, ast.Attribute):
            self.calls.append(Call(node, function.attr, NOTHING, given))
            return self._method(node, function, self._of(function.value), parts)
        own, called = self._function(function), self._of(function)
        self.calls.append(Call(node, "", called, given))
        if own is not None:
            return self._apply(own, parts)
        return NOTHING if called & (_REDUCING | {_FOREIGN}) else (given | called) & DATA

    def _method(
        self, node: ast.Call, function: ast.Attribute, of: frozenset[str], parts: Sequence[frozenset[str]]
    ) -> frozenset[str]:
        name, given = function.attr, NOTHING.union(*parts) & DATA
        if not of & {TABLE, COLUMN, _GROUPS}:
            if name in _PUTTING and given:
                self._bind(ast.Subscript(function.value, ast.Constant(0), ast.Store(), lineno=node.lineno), given)
            passes = _MODULE in of or isinstance(function.value, ast.Constant | ast.JoinedStr)
            return given if passes and name not in _REDUCING else NOTHING
        if name in ("groupby", "resample"):
            return frozenset((_GROUPS,))
        if name in ("apply", "pipe") and COLUMN not in of and node.args and not any(k.arg == "axis" for k in node.keywords):
            own = self._function(node.args[0])
            if own is not None:
                return self._apply(own, (frozenset((TABLE,)),))
            name = name if not parts[0] & _REDUCING else "agg"
        return NOTHING if name in _REDUCING else _rows(of) & DATA | given


def _column(of: frozenset[str]) -> frozenset[str]:
    return of - {TABLE} | {COLUMN} if TABLE in of else of


def _rows(of: frozenset[str]) -> frozenset[str]:
    return of - {_GROUPS} | {TABLE} if _GROUPS in of else of
