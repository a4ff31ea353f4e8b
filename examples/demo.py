"""The tour's first two sections, headless: an owner and an analyst, two real kernels in two processes, real data.

Runs `owner.ipynb` up to its first cell tagged "handover", then `analyst.ipynb` up to its own, and so on in turn, and
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


async def run(side: str, client: NotebookClient, start: int) -> int:
    """Execute a notebook from ``start`` up to the next handover, and show what is meant to be seen; gives where it stopped."""
    cells = client.nb.cells
    for index in range(start, len(cells)):
        tags = cells[index].metadata.get("tags", ())
        if "handover" in tags and index > start:
            return index
        if cells[index].cell_type == "code":
            await client.async_execute_cell(cells[index], index)
            if "show" in tags:
                show(side, cells[index])
    return len(cells)


async def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name in ("state", "owner.ipynb", "analyst.ipynb", "alice.syft", "answers.json", "receipt.json"):
        place = OUT / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    os.environ["SYFT_LAB_HOME"] = str(OUT / "state")  # the demo's own; yours stays as it is
    names = ("owner", "analyst")
    books = {n: nbformat.read(HERE / f"{n}.ipynb", as_version=4) for n in names}
    where = {"metadata": {"path": str(OUT)}}
    quiet = ["--log-level=ERROR"]  # Jupyter warns that a kernel's own channels, on loopback here, are not encrypted
    clients = {n: NotebookClient(b, timeout=120, kernel_name=b.metadata.kernelspec.name, resources=where, extra_arguments=quiet)
               for n, b in books.items()}  # fmt: skip
    at = dict.fromkeys(names, 0)
    try:
        async with clients["owner"].async_setup_kernel(), contextlib.AsyncExitStack() as stack:
            at["owner"] = await run("owner", clients["owner"], 0)
            await stack.enter_async_context(clients["analyst"].async_setup_kernel())
            while any(at[n] < len(books[n].cells) for n in names):
                for name in ("analyst", "owner"):
                    at[name] = await run(name, clients[name], at[name])
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
