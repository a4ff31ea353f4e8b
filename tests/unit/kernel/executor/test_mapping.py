import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from syft_lab.kernel.executor import mapping


def test_a_mapping_goes_when_nothing_uses_it():
    fd = os.memfd_create("syft-unused")
    os.truncate(fd, 8192)
    array = np.frombuffer(mapping.private(fd, 8192), np.uint8)[10:]
    os.close(fd)
    assert "syft-unused" in Path("/proc/self/maps").read_text()
    del array
    gc.collect()
    assert "syft-unused" not in Path("/proc/self/maps").read_text()


def test_what_can_not_be_mapped_is_an_error():
    with pytest.raises(OSError):
        mapping.private(-1, 4096)


SHARED = """
import mmap, os
from syft_lab.kernel.executor import mapping
memory, file = mmap.mmap(-1, 8192), os.memfd_create("x")
os.truncate(file, 4096)
hidden = mmap.mmap(file, 4096, prot=mmap.PROT_READ)  # could be made writable
memory[:5] = b"start"
{between}
if os.fork() == 0:
    memory[:5] = b"other"
    os._exit(0)
os.wait()
print(memory[:5].decode(), len(list(mapping.shared())))
"""


@pytest.mark.parametrize(("between", "said"), [("", "other 2\n"), ("assert mapping.unshare() == 12288", "start 0\n")])
def test_memory_that_forks_would_share_is_made_private(between, said):
    done = subprocess.run([sys.executable, "-c", SHARED.format(between=between)], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == (said, "")


def test_where_linux_says_less_all_that_is_shared_is_made_private(monkeypatch):
    def old(path, *rest):
        if str(path).endswith("smaps"):
            raise FileNotFoundError(path)
        return open(path, *rest)

    monkeypatch.setattr(mapping, "open", old, raising=False)
    before = sum(size for _, size in mapping.shared())
    with mmap.mmap(-1, 12288):
        assert sum(size for _, size in mapping.shared()) == before + 12288


def test_memory_that_may_only_be_read_is_left():
    lines = ["7f00-8f00 r--s 0 0:0 0 /cache", "VmFlags: rd mr me sh", "9f00-af00 ---s 0 0:0 0 /closed", "VmFlags: sh mr mw"]
    with pytest.raises(OSError):
        list(mapping.shared(lines))
    assert list(mapping.shared(lines[:2])) == []
