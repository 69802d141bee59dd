"""Methods that see one layer and what it reads: the inputs are those that the already compressed layers make."""

from abc import abstractmethod

from torch import nn

from compedu.evaluation import refuse_misfit
from compedu.knobs import knob, method
from compedu.methods.input_moments import InputMoments, in_order_of_execution, input_moments
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.task import Task


@method
class CalibratedMethod(LayerByLayer):
    """A method that turns a layer into a form by the moments of its inputs.

    Layers are taken in the order in which images reach them, and each sees what the compressed layers before it make of
    the images, so that a later layer can make up for the errors of earlier ones (Frantar, Alistarh 2022,
    arXiv:2208.11580, section 5). Layers that no image reaches are skipped by name.
    """

    calibration_images: int = knob(
        default=128,
        help="training images that show what each layer reads, at most",
        low=1,
        slider_range=(16, 1024),
        log=True,
        unit="images",
    )

    @property
    def needs(self) -> str:
        """Training images, without their labels."""
        return "calibration"

    def chosen(self, task: Task) -> dict[str, nn.Module]:
        """Return the selected layers in order of execution."""
        refuse_misfit(task.model, task.data)
        return in_order_of_execution(task.model, task.selected_layers(), task.data, self.calibration_images)

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return what `compress_calibrated` makes of `layer` and of what it reads in the network as it is now."""
        moments = input_moments(task.model, name, layer, task.data, self.calibration_images)
        return self.compress_calibrated(name, layer, moments)

    @abstractmethod
    def compress_calibrated(self, name: str, layer: nn.Module, moments: InputMoments) -> nn.Module:
        """Return the compressed form of `layer`, given the `moments` of its inputs, or raise `Skip` with the reason."""
