"""Puts the released chapters, the data and the tested versions into the wheel while hatchling builds it."""

import importlib.util
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = "compedu/_shipped"


class ShippedFiles(BuildHookInterface):
    """Fills `compedu/_shipped` of the wheel; an editable install reads the checkout instead and gets nothing."""

    def initialize(self, version, build_data):
        if version == "editable":
            return
        root = Path(self.root)
        self.chapters = tempfile.TemporaryDirectory()
        _release_module(root).release(root / "notebooks", self.chapters.name)
        included = build_data["force_include"]
        included[self.chapters.name] = f"{SHIPPED}/chapters"
        included[str(root / "requirements")] = f"{SHIPPED}/requirements"
        if (root / "data").is_dir():
            included[str(root / "data")] = f"{SHIPPED}/data"

    def finalize(self, version, build_data, artifact_path):
        if version != "editable":
            self.chapters.cleanup()


def _release_module(root):
    # Loaded by its path: importing the package would need torch, which an isolated build does not have.
    spec = importlib.util.spec_from_file_location("compedu_release", root / "compedu" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
