"""Methods one after the other: `a | b`."""

from torch import nn

from compedu.datasets.dataset import Dataset
from compedu.knobs import method
from compedu.methods.method import NEEDS, Method, Task


@method
class Pipeline(Method):
    """Runs several methods in order; its `repr` is the text that builds it, such as "A(x=1) | B()"."""

    steps: tuple[Method, ...] = ()

    @classmethod
    def of(cls, *methods: Method) -> "Pipeline":
        """Return the pipeline of `methods`; pipelines among them are taken apart: a | (b | c) == (a | b) | c."""
        return cls(steps=tuple(step for m in methods for step in (m.steps if isinstance(m, Pipeline) else (m,))))

    @property
    def needs(self) -> str:
        """The most that any step needs."""
        return max((step.needs for step in self.steps), key=NEEDS.index, default="weights")

    def __call__(self, model: nn.Module, data: Dataset | None = None) -> nn.Module:
        """Return the model that the last step returns; `model` itself is untouched."""
        for step in self.steps:
            model = step(model, data)
        return model

    def compress(self, task: Task) -> nn.Module:
        """Run the steps on the private copy of a call."""
        return self(task.model, task.data)

    def key_on(self, ground: str) -> str:
        """Return the identity of the result: the keys of all steps."""
        return " | ".join(step.key_on(ground) for step in self.steps)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.steps))
