"""A question in words holds all of it, and reads as the expression that it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syft_lab.expr import Col, Lit, Op, Query
from syft_lab.schema import Column, Schema
from syft_lab.wording import expression, notes, question

age, stay, sex = Col("age"), Col("length of stay"), Col("sex")


def op(name, *args):
    return Op(name, args)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (Query("count"), "count of rows in t"),
        (Query("mean", op("gt", age, Lit(65))), "mean of age > 65 in t"),
        (Query("mean", age, op("eq", sex, Lit("f"))), "mean of age where sex == 'f' in t"),
        (Query("sum", op("is_null", age), None, ("sex",)), "sum of age.isna() by sex in t"),
        (Query("mean", op("sub", op("mul", age, Lit(2)), Lit(100))), "mean of age * 2 - 100 in t"),
        (Query("mean", op("sub", age, op("sub", stay, Lit(1)))), "mean of age - (`length of stay` - 1) in t"),
        (Query("count", None, op("not", op("is_null", stay))), "count of rows where `length of stay`.notna() in t"),
        (Query("sum", op("clip", op("add", age, stay), Lit(0), Lit(9))), "sum of (age + `length of stay`).clip(0, 9) in t"),
        (Query("count", None, op("or", op("eq", age, Lit(1)), op("is_in", age, Lit(2), Lit(3)))), "count of rows where (age == 1) | age.isin([2, 3]) in t"),
        (Query("count", None, op("between", age, Lit(2), Lit(3), Lit("left"))), "count of rows where age.between(2, 3, 'left') in t"),
        (Query("mean", op("sub", Lit(0), op("add", age, Lit(1)))), "mean of -(age + 1) in t"),
        (Query("mean", op("sub", Lit(0.0), age)), "mean of 0.0 - age in t"),
        (Query("mean", op("sub", Lit(-0.0), age)), "mean of -0.0 - age in t"),
    ],
)  # fmt: skip
def test_a_question_in_words(query, text):
    assert question(query, "t") == text


class Kept:
    """Builds the text of what is done to it, with a bracket around each step: what Python made of an expression."""

    def __init__(self, text):
        self.text = text

    def _with(self, sign, other):
        return Kept(f"({self.text} {sign} {other.text if isinstance(other, Kept) else other})")


for _name, _sign in {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "lt": "<", "eq": "==", "and": "&", "or": "|", "xor": "^"}.items():  # fmt: skip
    setattr(Kept, f"__{_name}__", lambda self, other, sign=_sign: self._with(sign, other))
Kept.__invert__ = lambda self: Kept(f"(~{self.text})")
Kept.__hash__ = None

trees = st.recursive(
    st.sampled_from([Col("x"), Col("y"), Lit(2)]),
    lambda inner: st.builds(
        lambda n, a, b: Op(n, (a, b)), st.sampled_from(["add", "sub", "mul", "truediv", "lt", "eq", "and", "or", "xor"]), inner, inner
    )
    | st.builds(lambda a: Op("not", (a,)), inner),
    max_leaves=8,
)  # fmt: skip


def bracketed(node):
    if isinstance(node, Col):
        return node.name
    if isinstance(node, Lit):
        return str(node.value)
    if node.name == "not":
        return f"(~{bracketed(node.args[0])})"
    sign = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "lt": "<", "eq": "==", "and": "&", "or": "|", "xor": "^"}
    return f"({bracketed(node.args[0])} {sign[node.name]} {bracketed(node.args[1])})"


@settings(max_examples=300)
@given(trees)
def test_the_text_means_the_expression_to_python_itself(tree):
    import ast

    text = expression(tree)
    assert ast.dump(ast.parse(text, mode="eval")) == ast.dump(ast.parse(bracketed(tree), mode="eval"))


def test_a_long_question_is_cut_and_a_long_text_in_it_too():
    many = Op("is_in", (age, *(Lit(i) for i in range(100))))
    assert len(question(Query("count", None, many), "t")) < 320
    assert len(expression(Op("eq", (sex, Lit("x" * 900))))) < 90


SCHEMA = Schema((Column("age", "int", (0, 110)), Column("u", "float"), Column("w", "text", None, ("a",)), Column("b", "bool", None, (False, True))), 1, 100)  # fmt: skip


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query("mean", age), ["age 0 to 110"]),
        (Query("mean", op("mul", age, Lit(2)), None, ("w",)), ["age 0 to 110", "no group"]),
        (Query("mean", op("gt", age, Lit(65))), []),
        (Query("mean", op("clip", Col("u"), Lit(0), Lit(9))), []),
        (Query("count", age), []),
        (Query("count", None, None, ("b",)), ["no group"]),
        (Query("sum", op("fill_null", age, Lit(500))), ["beyond 0 to 500, which the bounds (age 0 to 110) allow"]),
        (Query("mean", op("clip", age, Lit(-5), Lit(200))), ["beyond 0 to 110, which the bounds"]),
        (Query("mean", op("clip", age, Lit(5), Lit(90))), []),
        (Query("count", Col("w")), ["values of w than the declared categories count as missing"]),
        (Query("count", None, op("not", op("is_null", Col("w")))), ["count as missing"]),
    ],
)
def test_an_answer_says_what_its_form_leaves_out(query, words):
    found = notes(query, SCHEMA)
    assert len(found) == len(words) and all(w in f for w, f in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Query("count"), Query("count", Col("rows"))),
        (Query("mean", op("add", Col("x y"), Col("z w"))), Query("mean", Col("x y` + `z w"))),
        (Query("count", None, op("and", Col("True"), Col("b"))), Query("count", None, op("and", Lit(True), Col("b")))),
        (Query("count", None, op("eq", sex, Lit("x" * 80 + "a"))), Query("count", None, op("eq", sex, Lit("x" * 80 + "b")))),
        (Query("count", op("is_in", age, *map(Lit, range(99)), Lit(1))), Query("count", op("is_in", age, *map(Lit, range(99)), Lit(2)))),
    ],
)  # fmt: skip
def test_different_questions_have_different_words(one, other):
    assert question(one, "t") != question(other, "t")


def test_a_name_can_not_break_a_line_or_turn_the_text_around():
    assert question(Query("sum", Col("a\nb\u202e\x1b")), "t").isprintable()
