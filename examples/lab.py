"""JupyterLab with the owner's and the analyst's notebook side by side, ready to run: what `make lab` opens.

Works in ``demo-output/lab``: copies of the notebooks, and a state folder of its own. Arguments are passed to JupyterLab
(``--no-browser``, ``--port=9000``).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parent / "demo-output" / "lab"
BOOKS = ("owner.ipynb", "analyst.ipynb")


def workspace() -> dict:
    """Two notebooks side by side, and on the left the panel that follows the one in front."""
    halves = [{"type": "tab-area", "currentIndex": 0, "widgets": [f"notebook:{b}"]} for b in BOOKS]
    dock = {"type": "split-area", "orientation": "horizontal", "sizes": [0.5, 0.5], "children": halves}
    left = {"collapsed": False, "visible": True, "current": "syft-lab-panel", "widgets": ["syft-lab-panel"]}
    right = {"collapsed": True, "visible": True, "widgets": []}
    main = {"dock": dock, "current": f"notebook:{BOOKS[0]}"}
    data: dict = {
        "layout-restorer:data": {
            "main": main,
            "down": {"size": 0, "widgets": []},
            "left": left,
            "right": right,
            "relativeSizes": [0.17, 0.83, 0],
        }
    }
    data |= {f"notebook:{b}": {"data": {"path": b, "factory": "Notebook"}} for b in BOOKS}
    return {"data": data, "metadata": {"id": "syft-lab"}}


def main() -> int:
    (OUT / "notebooks").mkdir(parents=True, exist_ok=True)
    for book in BOOKS:
        if not (OUT / "notebooks" / book).exists():
            shutil.copy(HERE / book, OUT / "notebooks")
    os.environ |= {"SYFT_LAB_HOME": str(OUT / "state"), "JUPYTERLAB_WORKSPACES_DIR": str(OUT / "workspaces")}
    layout = OUT / "workspace.json"
    layout.write_text(json.dumps(workspace()))
    jupyter = [sys.executable, "-m", "jupyter", "lab"]
    subprocess.run([*jupyter, "workspaces", "import", str(layout), "--name", "syft-lab"], check=True, stdout=subprocess.DEVNULL)
    print(
        "Run the owner's notebook (left) down to the inbox, then the analyst's (right); approve in the inbox. Ctrl-C ends it."
    )
    options = [f"--ServerApp.root_dir={OUT / 'notebooks'}", "--LabApp.default_url=/lab/workspaces/syft-lab"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    return subprocess.run([*jupyter, *options, *sys.argv[1:]]).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
