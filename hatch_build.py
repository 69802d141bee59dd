"""What hatchling does besides packing the code: it puts the released chapters, the data and the tested versions into the wheel."""

import importlib.util
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedFiles(BuildHookInterface):
    """Fills `compedu/_shipped` of the wheel; an editable install reads the checkout instead and gets nothing."""

    def initialize(self, version, build_data):
        if version == "editable":
            return
        root = Path(self.root)
        chapters = Path(self.directory).resolve().parent / "build" / "chapters-for-wheel"
        _release_module(root).release(root / "notebooks", chapters)
        included = build_data["force_include"]
        included[str(root / "requirements" / "constraints.txt")] = "compedu/_shipped/requirements/constraints.txt"
        for folder, name in ((chapters, "chapters"), (root / "data", "data")):
            if folder.is_dir():
                included[str(folder)] = f"compedu/_shipped/{name}"


def _release_module(root):
    # Loaded by its path: importing the package would need torch, which an isolated build does not have.
    spec = importlib.util.spec_from_file_location("compedu_release", root / "compedu" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
