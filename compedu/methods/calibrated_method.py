"""Methods that see one layer and its inputs, as the layers before it, already compressed, produce them."""

from abc import abstractmethod

from torch import nn

from compedu.evaluation import refuse_misfit
from compedu.knobs import method
from compedu.methods.calibration import calibration_knob
from compedu.methods.input_moments import InputMoments, in_order_of_execution, input_moments
from compedu.methods.layer_method import LayerByLayer
from compedu.methods.task import Task


@method
class CalibratedMethod(LayerByLayer):
    """A method that turns a layer into a form, given the moments of its inputs.

    Layers are compressed in order of execution, and each is calibrated on the outputs of the compressed layers before
    it, so that later layers can compensate for the errors of earlier ones (Frantar, Alistarh 2022, arXiv:2208.11580,
    section 5). Layers that no image reaches are skipped by name.
    """

    calibration_images: int = calibration_knob("training images that show the inputs of each layer, at most")

    @property
    def needs(self) -> str:
        """Training images, without their labels."""
        return "calibration"

    def chosen(self, task: Task) -> dict[str, nn.Module]:
        """Return the selected layers in order of execution."""
        refuse_misfit(task.model, task.data)
        return in_order_of_execution(task.model, task.selected_layers(), task.data, self.calibration_images)

    def form_for(self, task: Task, name: str, layer: nn.Module) -> nn.Module:
        """Return what `compress_calibrated` makes of `layer` and its inputs in the network as it is now."""
        moments = input_moments(task.model, name, layer, task.data, self.calibration_images)
        return self.compress_calibrated(name, layer, moments)

    @abstractmethod
    def compress_calibrated(self, name: str, layer: nn.Module, moments: InputMoments) -> nn.Module:
        """Return the compressed form of `layer`, given the `moments` of its inputs, or raise `Skip` with the reason."""
