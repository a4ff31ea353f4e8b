"""The names that users may rely on, and that importing them is light."""

import subprocess
import sys

import syft_lab as lab
from syft_lab import errors


def test_the_public_names_are_these():
    assert lab.__all__ == [
        "Budget", "Federation", "Limits", "Outputs", "Owner", "Plan", "PointerFrame", "PointerTensor", "Receipt", "Request",
        "Result", "Session", "SharedTensor", "__version__", "connect", "each", "errors", "federation", "plan", "recompute", "send",
        "virtual_owners",
    ]  # fmt: skip


def test_every_public_name_can_be_had_and_others_can_not():
    assert all(getattr(lab, name) is not None for name in lab.__all__)
    assert set(lab.__all__) <= set(dir(lab))
    assert not hasattr(lab, "no_such_name")


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, syft_lab; print(sorted({'torch','pandas','polars','zmq','opendp','IPython','numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_every_error_is_drawn_in_the_tree_and_has_a_code_of_its_own():
    def below(kind):
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in below(child))]

    kinds = below(errors.LabError)
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(type(errors.from_code(kind.code, "x")) is kind for kind in kinds)
    assert type(errors.from_code("from the future", "x")) is errors.LabError


def test_an_error_shows_itself_in_a_notebook_as_one_line():
    assert errors.BudgetError("too much")._render_traceback_() == ["BudgetError: too much"]
