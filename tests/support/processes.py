"""Other programs started by tests: with the network closed, in a home of their own, and JupyterLab until it answers."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]


def closed_network(folder) -> dict[str, str]:
    """Environment of a process that reaches no other machine and has an empty home, both below `folder`."""
    home = Path(folder) / "home"
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    return kept | {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(SUPPORT / "offline"),
        "COMPEDU_TEST_NETWORK_LOG": str(Path(folder) / "network.log"),
    }


def of_this_project(environment) -> dict[str, str]:
    """The same environment for a process that imports the package from this project, as the tests do."""
    return environment | {"PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(ROOT)])}


def network_uses(folder) -> list[str]:
    """The hosts that processes of `closed_network(folder)` tried to reach."""
    log = Path(folder) / "network.log"
    return log.read_text().split() if log.exists() else []


def run(command, folder, environment):
    """Run a program to its end in `folder`; a failure shows all it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@contextmanager
def running_lab(command, folder, environment, chapters):
    """Start a program that opens JupyterLab on `folder / chapters`; yields `get(path)`, which returns parsed JSON."""
    arguments = ["--no-browser", "--ServerApp.port=0", "--IdentityProvider.token=secret"]
    output = Path(folder) / "lab.log"
    with open(output, "w") as log:
        process = subprocess.Popen([*command, *arguments], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        url = _answering(process, Path(folder) / chapters / ".compedu" / "jupyter" / "runtime", output)

        def get(path):
            request = urllib.request.Request(url + path, headers={"Authorization": "token secret"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        yield get
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answering(process, runtime, output):
    # JupyterLab writes its address when it listens.
    for _ in range(600):
        for file in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, OSError):  # half written, or not listening yet
                url = json.loads(file.read_text())["url"]
                urllib.request.urlopen(url + "api", timeout=60).close()
                return url
        assert process.poll() is None, output.read_text()
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer in two minutes\n{output.read_text()}")
