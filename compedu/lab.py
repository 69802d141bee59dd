"""The learner's own copy of the chapters, which no update overwrites, and JupyterLab opened on it."""

import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from compedu.release import chapters, release
from compedu.shipped import is_checkout, shipped
from compedu.writing import write_whole

FOLDER = "compedu-chapters"
PRIVATE = ".compedu"  # in the learner's folder: a record of written files, and Jupyter's settings

# Files of Jupyter's configuration folder: local access only, no fetching of news or updates, widget callbacks on one
# thread, no nbgrader menus, which are for instructors, and no search for language servers.
_SETTINGS = {
    "jupyter_server_config.json": {
        "ServerApp": {
            "ip": "127.0.0.1",
            "allow_root": True,  # a container's only user; the server listens on this machine alone
            "answer_yes": True,  # Control-C ends it without a question
            "jpserver_extensions": {
                f"nbgrader.server_extensions.{name}": False
                for name in ("assignment_list", "course_list", "formgrader", "validate_assignment")
            },
        },
        "LanguageServerManager": {"autodetect": False},
    },
    "jupyter_lab_config.json": {
        "LabApp": {"extension_manager": "readonly", "check_for_updates_class": "jupyterlab.NeverCheckForUpdate"},
    },
    "labconfig/default_setting_overrides.json": {
        "@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"},
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    },
    "labconfig/page_config.json": {"disabledExtensions": {"@jupyter/nbgrader": True}},
}


class CopyState(StrEnum):
    """What happened to the learner's copy of a chapter."""

    NEW = "new"
    UPDATED = "updated"
    SAME = "same"
    KEPT = "kept"  # changed by the learner


@dataclass(frozen=True)
class Copied:
    """What happened to one chapter; `beside` is the new version of a kept one."""

    name: Path
    state: CopyState
    beside: Path | None = None


@contextmanager
def released_chapters():
    """The folder of the released chapters: shipped or, in a checkout, generated from the author's notebooks."""
    if not is_checkout():
        yield shipped("chapters")
        return
    with tempfile.TemporaryDirectory() as folder:
        release(shipped("notebooks"), folder)
        yield Path(folder)


def copy_chapters(source, folder) -> list[Copied]:
    """Update the learner's `folder` to the released chapters in `source`; chapters that the learner changed are kept.

    A changed chapter with a newer release gets the new version beside it, as `name.new.ipynb`. A record of the written
    files is kept in the folder itself; nothing is written elsewhere. Raises `ValueError` for an unsuitable folder.
    """
    source = Path(source)
    folder = Path(folder)
    refuse_unsuitable(folder)
    record_file = folder / PRIVATE / "written.json"
    record = _read_record(record_file)
    try:
        return [_place(folder, name, (source / name).read_bytes(), record) for name in chapters(source)]
    finally:
        _placed(record_file, json.dumps(record, indent=1, sort_keys=True).encode())


def _place(folder, name, content, record) -> Copied:
    target = folder / name
    wanted = _digest(content)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{target.parent} leads out of {folder}, where nothing is written: remove that link")
    present = _digest(target.read_bytes()) if target.exists() else None
    written = record.get(name.as_posix())
    if present is not None and present not in (wanted, written):
        # The learner's own version. A release not offered yet goes beside it, by the same rules.
        record[name.as_posix()] = wanted
        if written == wanted:
            return Copied(name, CopyState.KEPT, _offered(folder, name))
        placed = _place(folder, name.with_suffix(".new.ipynb"), content, record)
        return Copied(name, CopyState.KEPT, placed.beside or placed.name)
    record[name.as_posix()] = wanted
    if present == wanted:
        return Copied(name, CopyState.SAME)
    _placed(target, content)
    return Copied(name, CopyState.NEW if present is None else CopyState.UPDATED)


def _offered(folder, name) -> Path | None:
    """The newest version beside a changed chapter from an earlier start, if any."""
    newest = None
    while (folder / (name := name.with_suffix(".new.ipynb"))).exists():
        newest = name
    return newest


def _placed(path, content) -> None:
    """Write a file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _read_record(path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}  # without a record every file counts as the learner's, so none is lost


def _digest(content) -> str:
    """The digest of what is in a notebook's cells: saving it unchanged adds to it what is known of the kernel."""
    try:
        cells = [
            [cell["cell_type"], "".join(cell["source"]), cell.get("outputs"), cell.get("attachments")]
            for cell in json.loads(content)["cells"]
        ]
    except (ValueError, TypeError, KeyError):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def summary(folder, copies) -> str:
    """What `copy_chapters` did, in a few lines for the learner."""
    lines = [f"{len(copies)} chapters in {Path(folder).resolve()}"]
    for state, words in ((CopyState.NEW, "written"), (CopyState.UPDATED, "updated (you had not changed them)")):
        count = sum(copy.state == state for copy in copies)
        if count:
            lines.append(f"  {count} {words}")
    for copy in copies:
        if copy.state == CopyState.KEPT:
            lines.append(f"  {copy.name}: you changed it, so it is kept")
            if copy.beside:
                lines.append(
                    f"    an older copy may not run with this version; the new one is beside it: {copy.beside}"
                )
    return "\n".join(lines)


def refuse_unsuitable(folder: Path) -> None:
    """Raise `ValueError` for a folder that cannot hold a learner's copy of the chapters."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for your copy of the chapters")
    if folder.resolve().is_relative_to(shipped("notebooks").resolve()):
        raise ValueError(f"{folder} holds the author's notebooks: name another folder for your copy of the chapters")


def open_lab(folder=None, arguments=()):
    """Copy the chapters into `folder`, then run JupyterLab there until it is stopped; `arguments` are passed to it.

    The default folder is `compedu-chapters` in the current one.
    """
    folder = Path(folder or FOLDER)
    refuse_unsuitable(folder)
    print("Preparing your copy of the chapters: a few seconds", flush=True)
    with released_chapters() as source:
        copies = copy_chapters(source, folder)
    print(summary(folder, copies), flush=True)
    print("Starting JupyterLab: about ten seconds, up to a minute the first time", flush=True)
    os.environ.update(jupyter_environment(folder))
    runtime = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    told = {"runtime": runtime, "first": first_page(copies)}
    threading.Thread(target=tell_when_it_answers, kwargs=told, name="compedu lab", daemon=True).start()
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(argv=[*lab_options(folder, copies), *arguments])


def tell_when_it_answers(runtime, first, every_s=10.0, patience_s=600.0) -> None:
    """Print the address once this process's server answers; until then, now and then, that it is still starting.

    Jupyter writes the address into the folder `runtime`; `first` is the page to open.
    """
    began = told = time.monotonic()
    while (now := time.monotonic()) - began < patience_s:
        if server := answering_server(Path(runtime) / f"jpserver-{os.getpid()}.json"):
            key = f"?token={server['token']}" if server["token"] else ""
            address = f"{server['url']}{first.removeprefix('/')}{key}"
            print(f"JupyterLab answers after {now - began:.0f} s; Control-C here stops it. Open: {address}", flush=True)
            return
        if now - told > every_s:
            told = now
            print(f"Still starting JupyterLab: {now - began:.0f} s", flush=True)
        time.sleep(0.2)


def answering_server(file) -> dict | None:
    """What Jupyter's `file` says about its server, once that takes connections; else None."""
    try:
        server = json.loads(Path(file).read_text(encoding="utf-8"))
        socket.create_connection((server["hostname"], server["port"]), timeout=5).close()
    except (OSError, ValueError):  # not there yet, half written, or not listening yet
        return None
    return server


def lab_options(folder, copies) -> list[str]:
    """JupyterLab's options for the learner's folder: it opens on the first chapter."""
    options = [f"--ServerApp.root_dir={Path(folder).resolve()}"]
    if copies:
        options.append(f"--LabApp.default_url={first_page(copies)}")
    return options


def first_page(copies) -> str:
    """The address of the first chapter on JupyterLab's server, or of JupyterLab itself where there is no chapter."""
    return f"/lab/tree/{copies[0].name.as_posix()}" if copies else "/lab"


def jupyter_environment(folder) -> dict[str, str]:
    """Environment variables that keep Jupyter's own files inside `folder`; writes the settings that they point to.

    The learner's choices in JupyterLab, and options on its command line, override these settings.
    """
    private = Path(folder).resolve() / PRIVATE / "jupyter"
    for name, settings in _SETTINGS.items():
        _placed(private / "config" / name, json.dumps(settings, indent=1).encode())
    return {
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
    }
