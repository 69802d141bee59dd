"""Every method obeys every law; and each law is broken by a method that is made to break it."""

import copy
import importlib
import inspect
import pkgutil
from typing import ClassVar

import laws
import pytest
import torch
from torch import nn

import compedu
from compedu.errors import CompressionError
from compedu.forms import Form, Geometry, Masked
from compedu.knobs import knob, method
from compedu.methods import FAMILIES, METHODS, LayerMethod, Method, Pipeline, TrainingMethod
from compedu.testing import check_method


def name_of(value):
    return value.__name__


@pytest.mark.parametrize("law", laws.LAWS, ids=name_of)
@pytest.mark.parametrize("cls", METHODS, ids=name_of)
def test_every_method_obeys(cls, law):
    law(cls)


def all_methods() -> set[type[Method]]:
    for module in pkgutil.walk_packages(compedu.__path__, "compedu."):
        if module.name.startswith("compedu.methods"):
            importlib.import_module(module.name)
    found, open_ends = set(), [Method]
    while open_ends:
        below = open_ends.pop().__subclasses__()
        open_ends += below
        found |= {cls for cls in below if cls.__module__.startswith("compedu.") and not inspect.isabstract(cls)}
    return found


def test_every_method_of_the_package_is_listed_once():
    assert all_methods() == {*METHODS, Pipeline}
    assert len({cls.__name__ for cls in METHODS}) == len(METHODS)


def test_methods_stand_in_the_folder_of_their_topic_and_in_the_order_of_the_chapters():
    for cls in METHODS:
        assert cls.__module__.startswith(f"compedu.methods.{cls.family}.")
    order = [list(FAMILIES).index(cls.family) for cls in METHODS]
    assert order == sorted(order)


@method
class Shrinking(LayerMethod):
    r"""Multiply all weights by a factor: a toy that is one class and no line elsewhere.

    $\hat w = (1 - s)\,w$.
    Stored: the weights at full precision.
    Skips: layers that are not linear or convolutional.
    Paper: none; written for this test.
    """

    family: ClassVar[str] = "pruning"
    identity_settings: ClassVar[dict] = {"shrinkage": 0.0}

    shrinkage: float = knob(
        default=0.1, help="fraction that every weight loses", low=0, high=1, open="high", slider_range=(0, 0.5)
    )

    def compress_layer(self, name: str, layer: nn.Module) -> Form:
        weight = layer.weight.detach() * (1 - self.shrinkage)
        return Masked(Geometry.of(layer), weight, torch.ones_like(weight, dtype=torch.bool), layer.bias)


@pytest.mark.parametrize("law", laws.LAWS, ids=name_of)
def test_a_new_method_is_tested_by_existing(law):
    law(Shrinking)


def test_anyone_can_check_a_method_of_their_own():
    check_method(Shrinking)
    quick = (laws.the_repr_is_the_method, laws.the_docstring_is_complete, laws.defaults_construct)
    with pytest.raises(AssertionError, match=r"Vain breaks 2 of 3 laws:\n  the repr is the method: SyntaxError"):
        check_method(Vain, quick)


class Clamps(Shrinking):
    """Accepts every value silently."""

    def __post_init__(self):
        pass


@method
class Fragile(Shrinking):
    """Has a knob that no memory is large enough for."""

    copies: int = knob(default=1, help="how often all weights are written down", low=1)

    def compress_layer(self, name, layer):
        torch.empty(self.copies, self.copies, 1024)
        return super().compress_layer(name, layer)


class Vain(Shrinking):
    def __repr__(self):
        return "the best method"


class Careless(Shrinking):
    def compress(self, task):
        task.source.eval().conv2.weight.data.mul_(0.5) if hasattr(task.source, "conv2") else task.source.eval()
        return super().compress(task)


class Moody(Shrinking):
    def compress_layer(self, name, layer):
        layer.weight.data += 0.01 * torch.randn_like(layer.weight)
        return super().compress_layer(name, layer)


class Latent(Masked):
    """Holds another weight than it means, as a careless form did."""

    weight = property(lambda self: self.latent * 2)


class Twofold(Shrinking):
    def compress_layer(self, name, layer):
        form = super().compress_layer(name, layer)
        return Latent(form.geometry, form.latent, form.mask, form.bias)


class Forgetful(Shrinking):
    """Leaves a layer as it is and does not say so."""

    def compress_layer(self, name, layer):
        return layer if layer.weight.shape[0] in (8, 12) else super().compress_layer(name, layer)


class Wrong(Shrinking):
    identity_settings: ClassVar[dict] = {"shrinkage": 0.1}


class Lying(Masked):
    def dense(self):
        return self.latent * 1.001 if self.geometry.kind == "linear" else self.latent

    def forward(self, x):
        return self.geometry.apply(x, self.latent, self.bias)


class Dishonest(Shrinking):
    def compress_layer(self, name, layer):
        form = super().compress_layer(name, layer)
        return Lying(form.geometry, form.weight, form.mask, form.bias)


class Careful(Shrinking):
    """Unties what is tied."""

    def compress(self, task):
        for layer in [module for module in task.model.modules() if isinstance(module, nn.Linear)]:
            layer.weight = nn.Parameter(layer.weight.detach().clone())
        return super().compress(task)


class Unstored(Masked):
    """Keeps a number that no file holds."""

    def forward(self, x):
        return self.geometry.apply(x, self.dense(), self.bias) + getattr(self, "extra", 0.0)


class Secretive(Shrinking):
    def compress_layer(self, name, layer):
        form = super().compress_layer(name, layer)
        made = Unstored(form.geometry, form.weight, form.mask, form.bias)
        made.extra = 0.5
        return made


class Undecided(Shrinking):
    """Says that it needs data, and does not miss them."""

    @property
    def needs(self):
        return "calibration"

    def __call__(self, model, data=None):
        return super().__call__(model, data or laws.data())


class Forgetting(Shrinking):
    def key(self, model, data):
        return type(self).__name__


class Silent(Shrinking):
    def compress(self, task):
        model = super().compress(task)
        task.method = Shrinking()
        return model

    def __call__(self, model, data=None):
        made = super().__call__(model, data)
        made.compression = type(made.compression)(("Shrinking()",))
        return made


class Blind(Shrinking):
    def compress_layer(self, name, layer):
        layer.weight.data.nan_to_num_(0.0)
        return super().compress_layer(name, layer)

    def __call__(self, model, data=None):
        return super().__call__(copy.deepcopy(model).apply(_healed), data)


def _healed(module):
    for parameter in module.parameters(recurse=False):
        parameter.data.nan_to_num_(0.0)


class Deaf(Shrinking):
    """Takes every selection of layers for all of them."""

    def compress(self, task):
        object.__setattr__(self, "layers", "all")
        return super().compress(task)


class Greedy(Shrinking):
    """Fails on what is compressed already, with an error of its own."""

    def compress_layer(self, name, layer):
        return super().compress_layer(name, layer)

    def compress(self, task):
        for name, layer in task.selected_layers().items():
            if isinstance(layer, Form):
                raise KeyError(name)
        return super().compress(task)


class Satisfied(Shrinking):
    """Finds something to do in every network."""

    def compress(self, task):
        return task.model


class Unseeded(TrainingMethod):
    """Says that it trains, with a seed, and does neither."""

    family: ClassVar[str] = "training"

    def compress(self, task):
        return task.model


BROKEN = [
    (laws.values_outside_the_range_are_refused_by_name, Clamps),
    (laws.the_ends_of_what_is_legal_work_or_are_refused_by_name, Fragile),
    (laws.the_repr_is_the_method, Vain),
    (laws.the_input_is_untouched, Careless),
    (laws.the_same_seed_gives_the_same_result, Moody),
    (laws.the_identity_settings_reproduce_the_model, Wrong),
    (laws.forward_equals_dense, Dishonest),
    (laws.compressed_layers_mean_their_dense_weights_wherever_they_are_read, Twofold),
    (laws.layers_that_stay_are_named_with_the_reason, Forgetful),
    (laws.a_network_with_nothing_to_compress_is_refused_by_name, Satisfied),
    (laws.the_docstring_is_complete, Clamps),
    (laws.defaults_construct, Vain),
    (laws.the_key_tells_every_setting_apart, Forgetting),
    (laws.the_result_gives_logits, Silent),
    (laws.a_file_gives_back_the_same_model_and_its_length_is_the_size, Secretive),
    (laws.reported_bytes_are_bytes_written, Silent),
    (laws.unknown_layers_are_refused_by_name, Deaf),
    (laws.forms_of_other_methods_are_named_or_handled, Greedy),
    (laws.tied_layers_stay_tied_or_are_named, Careful),
    (laws.weights_that_are_not_finite_are_refused, Blind),
    (laws.missing_data_and_images_that_do_not_fit_are_refused, Undecided),
    (laws.another_seed_gives_another_result, Unseeded),
    (laws.training_can_be_watched_and_cancelled, Unseeded),
]


@pytest.mark.parametrize("law, broken", BROKEN, ids=name_of)
def test_the_law_finds_a_method_that_breaks_it(law, broken):
    with pytest.raises((AssertionError, pytest.fail.Exception, SyntaxError, CompressionError, KeyError, RuntimeError)):
        law(broken)


def test_every_law_has_been_seen_to_fail():
    assert {law for law, _ in BROKEN} == set(laws.LAWS)
