"""A real JupyterLab on this machine, with one notebook and one kernel, driven in a real Chromium."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from processes import ROOT

TOKEN = "only-on-this-machine"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
PATIENCE_MS = 180_000  # a loaded machine is slow; no test measures time
KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"

RUN = """async code => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const future = kernel.requestExecute({code, store_history: false});
    let text = '';
    future.onIOPub = message => {
        if (message.header.msg_type === 'stream') text += message.content.text;
        if (message.header.msg_type === 'error')
            text += 'FAILED ' + message.content.evalue + message.content.traceback.join('');
    };
    await future.done;
    return text;
}"""


def notebook(cells: list[str]) -> dict:
    """Return a notebook with these code cells."""
    made = [
        {"cell_type": "code", "id": f"cell-{i}", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
        for i, text in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@contextlib.contextmanager
def lab_server(folder: Path, theme: str = "JupyterLab Light") -> Iterator[str]:
    """Start a JupyterLab over `folder` on a free port of this machine alone; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="compedu-lab-") as own:
        for name, values in (SETTINGS | {"apputils-extension/themes": {"theme": theme}}).items():
            path = Path(own, "settings", "@jupyterlab", f"{name}.jupyterlab-settings")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
            f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
            "--LabApp.expose_app_in_browser=True", "--LanguageServerManager.autodetect=False",
        ]  # fmt: skip
        with open(Path(own, "log"), "w") as log:
            server = subprocess.Popen(command, env=_environment(own), stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(server, port, Path(own, "log"))
            yield f"http://127.0.0.1:{port}/lab"
        finally:
            server.terminate()
            server.wait(60)


def _wait_for(server: subprocess.Popen, port: int, log: Path) -> None:
    """Wait until the server answers; one that ends first shows what it printed."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=5),
        ):
            return
        time.sleep(0.2)
    raise TimeoutError(log.read_text())


def _environment(own: str) -> dict[str, str]:
    """Return an environment where the server finds this interpreter's programs, this project, and nobody's settings."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    places = {
        name: str(Path(own, name.lower())) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    project = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | places | {
        "PATH": path, "PYTHONPATH": project, "JUPYTERLAB_SETTINGS_DIR": str(Path(own, "settings")),
    }  # fmt: skip


class LabPage:
    """A page that shows one notebook of a server; `problems` are the errors of the page."""

    def __init__(self, page, address: str, name: str):
        self.address = address
        self.name = name
        self.problems = []
        self._show_on(page)

    def _show_on(self, page) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.open()

    def start_over(self) -> None:
        """Show the notebook as it was saved, on a new page and with a new kernel."""
        context = self.page.context
        self.page.close()
        self._show_on(context.new_page())
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        self._wait_for_kernel()
        # Connected is not ready: a cell that is run before the new kernel is idle may never get an answer.
        self.page.wait_for_function(f"{KERNEL}.status === 'idle'")

    def open(self) -> None:
        """Show the notebook, also again: the kernel lives on."""
        self.page.goto(f"{self.address}/tree/{self.name}?token={TOKEN}&reset")
        self._wait_for_kernel()

    def _wait_for_kernel(self) -> None:
        self.page.wait_for_function(f"{KERNEL}?.connectionStatus === 'connected'")

    def python(self, code: str) -> str:
        """Run `code` in the notebook's kernel, outside its cells; return what it prints. Raises where it fails."""
        said = self.page.evaluate(RUN, code)
        assert not said.startswith("FAILED"), said
        return said.strip()

    def run_cell(self, index: int) -> None:
        """Run one cell of the notebook and wait until it is done; without an answer it fails, by name, in the end."""
        self.page.evaluate(
            """([index, patience]) => {
                const panel = window.jupyterapp.shell.currentWidget;
                panel.content.activeCellIndex = index;
                panel.content.deselectAll();
                const lost = (_, fail) => setTimeout(() => fail(new Error(`cell ${index} got no answer`)), patience);
                const run = window.jupyterapp.commands.execute('notebook:run-cell');
                return Promise.race([run, new Promise(lost)]).then(() => null);
            }""",
            [index, PATIENCE_MS],
        )

    def cell(self, index: int):
        """Return the locator of a cell's output."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-OutputArea")
