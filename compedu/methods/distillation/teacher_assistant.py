"""A teacher assistant: a network of middle size learns from the teacher, and the student from that network."""

from typing import ClassVar

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.evaluation import logits_of
from compedu.knobs import knob, method
from compedu.methods.distillation.shared.roles import weights_of
from compedu.methods.distillation.shared.students import check_student, network_of
from compedu.methods.distillation.soft_targets import SoftTargetDistillation
from compedu.methods.task import Task
from compedu.training import counted


@method
class TeacherAssistant(SoftTargetDistillation):
    r"""Train an assistant of middle size on soft targets of the teacher, then the student on those of the assistant.

    $\theta_a = \arg\min\, L(\theta_a, \theta_t)$, then $\theta_s = \arg\min\, L(\theta_s, \theta_a)$ with the loss $L$
    of `SoftTargetDistillation`: teacher $t$, assistant $a$, student $s$. Each of the two trains for all the `epochs`,
    in the same order of the images, which makes twice the steps of a student with its teacher: its control is a student
    with twice the epochs. With `weight` 0 the student learns alone, and no assistant is trained. The paper also has
    several assistants, one after another, and chooses temperature and weight for each pair of networks.
    Stored: the student's layers, dense, at full precision; nothing of teacher or assistant.
    Skips: nothing; an assistant whose size is not between those of student and teacher is named.
    Paper: Mirzadeh, Farajtabar, Li, Levine, Matsukawa, Ghasemzadeh 2020, Improved knowledge distillation via teacher
    assistant, arXiv:1902.03393, section on TAKD.
    """

    trainings: ClassVar[int] = 2

    assistant: str = knob(
        default="lenet5(width=0.5)",
        help="the network between teacher and student, by its spec; it trains for as many epochs as the student",
    )

    def __post_init__(self):
        super().__post_init__()
        check_student(self.assistant, self._assistant)

    @property
    def _assistant(self) -> str:
        return f"{type(self).__name__}.assistant"

    def untrained(self, task: Task) -> nn.Module:
        """Return the student before training; record in `task` an assistant that stands between no two sizes."""
        student = super().untrained(task)
        low, middle, high = (
            weights_of(model) for model in (student, self.new_assistant(task.model, task.data), task.model)
        )
        if self.weight and not low < middle < high:
            task.skip(
                "(assistant)",
                f"is not between its student and its teacher: {middle:,} weights, the student {low:,}, the teacher "
                f"{high:,}",
            )
        return student

    def new_assistant(self, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Return the assistant before training; raise `CompressionError` for one that cannot be built or trained."""
        classes = logits_of(teacher, data.example, data).shape[1]
        assistant = network_of(self.assistant, data, classes, self.seed, self._assistant)
        self.refuse_unfit(assistant, classes, data, self._assistant)
        return assistant

    def teach(self, student: nn.Module, teacher: nn.Module, data: Dataset) -> nn.Module:
        """Train an assistant, then `student` in place, and return `student`; a listener sees one training, of both."""
        if self.weight == 0:
            return super().teach(student, teacher, data)
        steps = self.epochs * self.recipe.steps_per_epoch(len(data.x_train))
        with counted(0, 2 * steps):
            assistant = super().teach(self.new_assistant(teacher, data), teacher, data)
        with counted(steps, 2 * steps):
            return super().teach(student, assistant, data)
