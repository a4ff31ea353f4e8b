"""The tour's first two sections, headless: an owner and an analyst, two real kernels in two processes, real data.

Runs `owner.ipynb` up to its cell tagged "analyst", then all of `analyst.ipynb`, then the rest of `owner.ipynb`, and
prints what the cells tagged "show" print. Leaves the executed notebooks in ``demo-output/``.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
OUT = HERE.parent / "demo-output"


def show(side: str, cell: nbformat.NotebookNode) -> None:
    """Print the text that a cell gave."""
    for output in cell.outputs:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        for line in text.rstrip().splitlines():
            print(f"{side:>8} | {line}")
    print()


async def run(side: str, client: NotebookClient, start: int, end: int) -> None:
    """Execute some cells of a notebook, and show those that are meant to be seen."""
    for index in range(start, end):
        cell = client.nb.cells[index]
        if cell.cell_type == "code":
            await client.async_execute_cell(cell, index)
            if "show" in cell.metadata.get("tags", ()):
                show(side, cell)


async def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    os.environ["SYFT_LAB_HOME"] = str(OUT / "state")  # the demo's own; yours stays as it is
    names = ("owner", "analyst")
    books = {n: nbformat.read(HERE / f"{n}.ipynb", as_version=4) for n in names}
    place = {"metadata": {"path": str(OUT)}}
    quiet = ["--log-level=ERROR"]  # Jupyter warns that a kernel's own channels, on loopback here, are not encrypted
    clients = {n: NotebookClient(b, timeout=120, kernel_name="python3", resources=place, extra_arguments=quiet)
               for n, b in books.items()}  # fmt: skip
    pause = next(i for i, c in enumerate(books["owner"].cells) if "analyst" in c.metadata.get("tags", ()))
    try:
        async with clients["owner"].async_setup_kernel(), contextlib.AsyncExitStack() as stack:
            await run("owner", clients["owner"], 0, pause)
            await stack.enter_async_context(clients["analyst"].async_setup_kernel())
            await run("analyst", clients["analyst"], 0, len(books["analyst"].cells))
            await run("owner", clients["owner"], pause, len(books["owner"].cells))
    finally:
        for name, book in books.items():
            nbformat.write(book, OUT / f"{name}.ipynb")
    command = [str(Path(sys.executable).parent / "syft-lab"), "verify", str(OUT / "receipt.json")]
    subprocess.run(command, check=True)
    print("\nThe executed notebooks are in demo-output/: owner.ipynb and analyst.ipynb")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except CellExecutionError as error:
        sys.exit(f"the demo broke in this cell:\n{error}")
