"""nbgrader's step that executes a submission, in two processes: one runs its code, this one judges the answers.

A submission controls everything in its own kernel, but not the comparisons of another process. So a locked cell that
checks an exercise is not run at all: its answer is requested, case by case, and returned as plain data.
"""

import ast
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode, v4
from nbgrader.preprocessors import Execute
from nbgrader.utils import is_grade
from traitlets import Bool, Integer, List, Unicode

from compedu.course.answers import Elsewhere
from compedu.course.checks import check
from compedu.errors import first_line
from compedu.grading.confinement import Confinement, ProcessLimits

REPLY = "application/vnd.compedu.reply"
MESSAGE = 64 * 2**20  # bytes of one message from a kernel


def exercise(cell: NotebookNode) -> tuple[str, str] | None:
    """Return the exercise that a locked cell checks, and the variable of its answer; None for any other cell.

    >>> exercise(v4.new_code_cell('print(check("interval", mine))', metadata={"nbgrader": {"grade": True}}))
    ('interval', 'mine')
    """
    if cell.cell_type != "code" or not is_grade(cell):
        return None
    try:
        *imports, last = ast.parse(cell.source).body
    except (SyntaxError, ValueError):  # not Python, or empty
        return None
    call = getattr(last, "value", None)
    while isinstance(call, ast.Call) and ast.unparse(call.func) == "print" and len(call.args) == 1:
        call = call.args[0]
    alone = isinstance(last, ast.Expr) and all(isinstance(one, (ast.Import, ast.ImportFrom)) for one in imports)
    if not (alone and isinstance(call, ast.Call) and ast.unparse(call.func) == "check" and len(call.args) == 2):
        return None
    name, answer = call.args
    if isinstance(name, ast.Constant) and isinstance(answer, ast.Name) and not call.keywords:
        return str(name.value), answer.id
    return None


class ConfinedKernel(AsyncKernelManager):
    """Starts the kernel inside a `Confinement`; they talk through sockets in its folder, as it has no network."""

    confinement: Confinement | None = None

    def enter(self, confinement: Confinement) -> None:
        """Start the kernel in `confinement`."""
        self.confinement = confinement
        self.transport = "ipc"
        self.ip = str(confinement.sockets / "k")
        self.connection_file = str(confinement.sockets / "kernel.json")

    def write_connection_file(self, **named: Any) -> None:
        """Write the file that the kernel reads, owned by its user."""
        super().write_connection_file(**named)
        if self.confinement:
            self.confinement.give(Path(self.connection_file))

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command that starts the kernel, confined."""
        command = super().format_kernel_cmd(extra_arguments)
        return self.confinement.command(command) if self.confinement else command


class ExecuteApart(Execute):
    """Executes a submission in a confined kernel, and judges the locked cells that check exercises in this one."""

    confine = Bool(True, help="Run submissions as another user, without network and course files.").tag(config=True)
    hidden = List(Unicode(), help="More folders that submissions must not see.").tag(config=True)
    seconds = Integer(ProcessLimits.seconds, help="CPU seconds of a process of a submission.").tag(config=True)
    memory = Integer(ProcessLimits.memory, help="Bytes of address space of a process of a submission.").tag(config=True)
    characters = Integer(10_000_000, help="Characters that a notebook may show; more is dropped.").tag(config=True)
    raise_on_iopub_timeout = Bool(False, help="Whether a message that never came ends the grading.").tag(config=True)

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, kernel_manager_class=ConfinedKernel, **named)

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        """Execute and judge a notebook."""
        self._shown = 0
        self._told = 0
        self._ended = ""
        self._asking = False
        folder = resources["metadata"]["path"]
        limits = ProcessLimits(seconds=self.seconds, memory=self.memory)
        apart = Confinement(folder, [self._course(folder), *self.hidden], limits) if self.confine else nullcontext()
        with apart as self.confinement:
            if self.confinement:
                self.confinement.check()
            return super().preprocess(nb, resources, km)

    def _course(self, folder: str) -> Path:
        """Return the folder of the course, of which a submission's folder is a part: autograded/student/assignment."""
        given = getattr(getattr(self.parent, "coursedir", None), "root", "")
        return Path(given or Path(folder).parents[2])

    def create_kernel_manager(self) -> AsyncKernelManager:
        """Return a manager of a kernel that is confined."""
        manager = super().create_kernel_manager()
        manager.context.maxmsgsize = MESSAGE
        if self.confinement:
            manager.enter(self.confinement)
        return manager

    def setup_kernel(self, **named: Any) -> AbstractContextManager:
        """Start the kernel in the submission's copy of its folder, with few variables, and end it."""
        if self.confinement:
            named |= {"cwd": str(self.confinement.work), "env": self.confinement.environment()}
        return super().setup_kernel(**named)

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Run a cell, or judge the answer that it checks; after the kernel has died every cell fails."""
        if cell.cell_type != "code":
            return cell, resources
        asked = exercise(cell)
        try:
            if self._ended:
                cell.outputs = [_failed("DeadKernelError", self._ended)]
            elif asked:
                cell.outputs = [self._judged(*asked, index)]
            else:
                super().preprocess_cell(cell, resources, index)
        except DeadKernelError:
            self._ended = "the submission ended its own process, or exceeded its limits"
            cell.outputs = [_failed("DeadKernelError", self._ended)]
        self.nb.cells[index] = cell  # replaces the cells of the questions, which the client stored here
        return cell, resources

    def _judged(self, name: str, variable: str, index: int) -> NotebookNode:
        try:
            right = check(name, Elsewhere(lambda question: self._exchange(variable, question, index)))
        except AssertionError as hint:
            if isinstance(hint.__cause__, DeadKernelError):
                raise hint.__cause__ from hint
            return _failed("NotYet", str(hint))
        return v4.new_output("stream", name="stdout", text=f"{right}\n")

    def _exchange(self, variable: str, question: str, index: int) -> str:
        """Have the kernel evaluate its answer; the reply is a string, which is parsed and never executed."""
        source = (
            "from IPython.display import display as _display\n"
            "from compedu.course.answers import reply as _reply\n"
            f"_display({{{REPLY!r}: _reply({variable}, {question!r})}}, raw=True)"
        )
        cell = v4.new_code_cell(source)
        self._asking = True
        self._told = 0
        try:
            self.execute_cell(cell, index, store_history=False)
        finally:
            self._asking = False
        for output in cell.outputs:
            if isinstance(said := output.get("data", {}).get(REPLY), str):
                return said
        errors = [f"{output.ename}: {first_line(output.evalue)}" for output in cell.outputs if "ename" in output]
        raise AssertionError(f"no reply came from {variable}{f' ({errors[0]})' if errors else ''}")

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Process a message, unless the notebook has already shown too much; errors are kept, truncated."""
        kind = msg["msg_type"]
        content = msg["content"]
        if kind == "error":
            content["evalue"] = str(content.get("evalue", ""))[:2000]
            content["traceback"] = [str(content.get("traceback", ""))[:20_000]]
        elif kind in ("stream", "display_data", "execute_result", "update_display_data"):
            size = sum(len(str(part)) for part in (content.get("text", ""), content.get("data", "")))
            if self._asking:
                self._told += size
            else:
                self._shown += size
            if self._shown > self.characters or self._told > MESSAGE:
                return None
        elif kind.startswith("comm_"):
            return None  # widget state, which a graded notebook does not keep
        return super().process_message(msg, cell, cell_index)


def _failed(kind: str, reason: str) -> NotebookNode:
    """Return the output of a cell that failed: nbgrader gives no points for it."""
    return v4.new_output("error", ename=kind, evalue=reason, traceback=[f"{kind}: {reason}"])
