"""Labels: one rule an operation, private by default."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from syft_lab import errors, labels
from syft_lab.labels import Label, page, rows
from tests.tensors import LocalTape

N, D = 12, 4
DATA = torch.randn(N, D)
ROWS = rows("scans v1", 2)
BOUNDED = rows("scans v1", 2, (0.0, 1.0))


@pytest.fixture
def tape():
    return LocalTape()


def of(pointer) -> Label:
    pointer.current  # noqa: B018
    return pointer._spec.label


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x + 1, lambda x: x * 2.5, lambda x: x.relu(), lambda x: x.exp(), lambda x: x > 0, lambda x: x + x, lambda x: x * x.sigmoid(),
        lambda x: x[:, 1:], lambda x: x[:, 0], lambda x: x.reshape(N, 2, 2), lambda x: x.flatten(1), lambda x: x.softmax(1), lambda x: x.sum(1),
        lambda x: x.amax(1), lambda x: x @ torch.randn(D, 3), lambda x: F.linear(x, torch.randn(3, D), torch.randn(3)), lambda x: x.unsqueeze(0),
        lambda x: F.layer_norm(x, (D,)), lambda x: torch.cat([x, x], 1), lambda x: torch.stack([x, x], 1), lambda x: x.double(), lambda x: x.t(),
        lambda x: x.clamp(0, 1), lambda x: torch.where(x > 0, x, 0.0), lambda x: x.logsumexp(1), lambda x: x.index_select(1, torch.tensor([0, 2])),
        lambda x: F.conv1d(x.unsqueeze(1), torch.randn(2, 1, 3)), lambda x: x + torch.randn(N, 1), lambda x: x.mean(1, keepdim=True),
    ],
)  # fmt: skip
def test_what_acts_on_each_record_alone_keeps_them_apart(step, tape):
    found = of(step(tape.asset(DATA, ROWS)))
    assert (found.kind, found.k, found.sources) == ("rows", 2, ("scans v1",))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x[1:], lambda x: x[0], lambda x: x.flip(0), lambda x: x.roll(1, 0), lambda x: x.sort(0).values, lambda x: x.cumsum(0), lambda x: x.softmax(0),
        lambda x: x.t() @ x, lambda x: x @ x.t(), lambda x: x - x.mean(0), lambda x: x.flatten(), lambda x: x.reshape(2, -1), lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: x.sum(), lambda x: x.sum(0), lambda x: x.max(), lambda x: x.amax(0), lambda x: x[torch.randperm(N)], lambda x: torch.cat([x, x]), lambda x: x.t().sum(1),
        lambda x: x.std(), lambda x: x.unbind(0)[0], lambda x: x.repeat(2, 1), lambda x: torch.linalg.svdvals(x), lambda x: x.clamp(0, 1).prod(0), lambda x: x.clamp(min=0).sum(0),
        lambda x: x.clamp(0, float("inf")).sum(0), lambda x: x.clamp(0, 1).sum(0) + x.clamp(0, 1).sum(0), lambda x: x.clamp(0, 1).sum(0) * x.clamp(0, 1).sum(0),
        lambda x: x.clamp(0, 1).sum(0) @ torch.randn(D, 2), lambda x: x.clamp(0, 1).sum(0) * torch.randn(D), lambda x: 1 / x.clamp(0, 1).sum(0), lambda x: x.clamp(0, 1).sum(0) > 3,
        lambda x: x.clamp(0, 1).sum(0) / 0, lambda x: (x.clamp(0, 1) * torch.randn(D)).sum(0), lambda x: x.clamp(0, 1).exp().sum(0), lambda x: (x.clamp(0, 1) + x.clamp(0, 1)).sum(0),
        lambda x: x.unfold(0, 3, 1), lambda x: x.unsqueeze(0).expand(3, N, D).sum(1), lambda x: x.clamp(0, 1).sum(0, dtype=torch.float16), lambda x: x.clamp(0, 1).sum(0).expand(5, D),
    ],
)  # fmt: skip
def test_what_mixes_records_or_has_no_bound_is_private(step, tape):
    found = of(step(tape.asset(DATA, ROWS)))
    assert found.kind == "private", found


@pytest.mark.parametrize(
    ("step", "l1", "l2"),
    [
        (lambda x: x.clamp(0, 1).sum(), 2 * D, 2 * D),
        (lambda x: x.clamp(0, 1).sum(0), 2 * D, 2 * D**0.5),
        (lambda x: x.clamp(-1, 1).sum(0), 4 * D, 4 * D**0.5),
        (lambda x: x.clamp(0, 1).mean(0), 2 * D / N, 2 * D**0.5 / N),
        (lambda x: x.clamp(0, 1).mean(), 2 / N, 2 / N),
        (lambda x: (x > 0).sum(0), 2 * D, 2 * D**0.5),
        (lambda x: (x > 0).sum(), 2 * D, 2 * D),
        (lambda x: x.sigmoid().mean(0), 2 * D / N, 2 * D**0.5 / N),
        (lambda x: x.clamp(0, 1).sum(0) * 3, 6 * D, 6 * D**0.5),
        (lambda x: -(x.clamp(0, 1).sum(0) / 2 + 5), D, D**0.5),
        (lambda x: 1 - x.clamp(0, 1).sum(0), 2 * D, 2 * D**0.5),
        (lambda x: (1 - x.clamp(0, 1)).sum(0), 2 * D, 2 * D**0.5),
        (lambda x: x.clamp(0, 1).sum(0).reshape(2, 2)[0], 2 * D, 2 * D**0.5),
        (lambda x: x.clamp(0, 1).sum(1).sum(), 2 * D, 2 * D),
        (lambda x: (x.clamp(0, 1) * 2 - 1).sum(0), 4 * D, 4 * D**0.5),
        (lambda x: x.clamp(0, 1).t().sum(1), 2 * D, 2 * D**0.5),
        (lambda x: x.softmax(1).sum(0), 2 * D, 2 * D**0.5),
        (lambda x: x.clamp(2, 2).sum(0), 0, 0),
    ],
)  # fmt: skip
def test_bounded_sums_over_the_records_are_aggregates_with_these_sensitivities(step, l1, l2, tape):
    found = of(step(tape.asset(DATA, ROWS)))
    assert found.kind == "aggregate"
    assert (found.l1, found.l2) == pytest.approx((l1, l2))


def test_records_of_two_datasets_do_not_mix(tape):
    x, y = tape.asset(DATA, ROWS), tape.asset(DATA, rows("other v1", 2))
    found = of(x + y)
    assert (found.kind, found.sources) == ("private", ("other v1", "scans v1"))


def test_shapes_and_constants_are_public_whatever_they_are_shaped_like(tape):
    x = tape.asset(DATA, ROWS)
    for made in (torch.zeros_like(x), torch.randn_like(x), x.new_ones(3), torch.empty_like(x), torch.full_like(x, 2)):
        assert of(made).kind == "public"
    assert of(x * 0).kind == "rows"
    assert of(torch.bernoulli(x.sigmoid())).kind == "private"
    assert of(torch.nn.functional.dropout(x, 0.5)).kind == "rows"


def test_writing_private_values_into_public_ones_makes_them_private(tape):
    x, out = tape.asset(DATA, ROWS), tape.send(torch.zeros(N, D))
    whole = out.view(-1)
    out[0] = x[0]
    assert of(out).kind == "private"
    assert of(whole + 0).kind == "private"
    other = tape.send(torch.zeros(N, D))
    other.copy_(x)
    assert of(other).kind != "public"


def test_the_page_of_operations_is_what_the_code_says():
    assert (Path(__file__).parents[2] / "docs" / "operations.md").read_text() == page()


def test_a_label_reads_well():
    assert str(BOUNDED) == "rows(axis 0, 2 a person, in [0, 1]) of scans v1"
    assert str(Label("aggregate", ("s v1",), l1=2.0, l2=1.0)) == "aggregate(L1 2, L2 1) of s v1"
    assert str(Label("private", ("a v1", "b v2"))) == "private, from a v1, b v2"


def test_no_dataset_of_many_is_left_out_and_too_many_are_refused(tape):
    """Owners decide by them: one that was left out would be shared, moved and asked for without its name."""
    given = [tape.asset(torch.ones(3), rows(f"d{i:03} v1", 1)) for i in range(labels.MAX_SOURCES + 1)]
    total = given[-1]
    for one in given[:-2]:
        total = total + one * 0
    assert total._spec.label.sources == tuple(sorted(g._spec.label.sources[0] for g in [*given[:-2], given[-1]]))
    stacked = torch.stack(given[:-1])
    assert len(stacked._spec.label.sources) == labels.MAX_SOURCES
    for work in (lambda: total + given[-2], lambda: torch.stack(given), lambda: torch.cat([stacked.flatten(), given[-1]])):
        with pytest.raises(errors.RefusedOpError, match="an owner who decides about it has to see them all"):
            work()
