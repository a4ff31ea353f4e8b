"""The page and the kernel say which version they speak; each compares (labextension/src/test/protocol.test.ts)."""

import re
from pathlib import Path

from syft_lab.widgets import side


def test_the_pages_version_is_the_kernels():
    page = (Path(__file__).parents[3] / "labextension/src/protocol.ts").read_text()
    assert re.search(r"^export const VERSION = (\d+);", page, re.MULTILINE)[1] == str(side.VERSION)
