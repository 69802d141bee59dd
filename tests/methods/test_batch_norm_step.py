"""Batch-norm re-estimation: against torch's own running statistics, a computation by hand, and what it leaves."""

import copy

import laws
import pytest
import torch
from torch import nn

from compedu.errors import CompressionError
from compedu.methods import BatchNormReestimation, FilterPruning
from compedu.methods.calibration import calibration_set
from compedu.methods.hooks import hooked
from compedu.methods.training.batch_norm import population
from compedu.networks import build

STEP = BatchNormReestimation(calibration_images=40)


def norms_of(model):
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }


def reasons(model):
    return {skipped.layer: skipped.reason for skipped in model.compression.skipped}


def small(*layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()


@pytest.mark.parametrize("make", [laws.normalized, lambda: laws.lively(build("vgg(size=28, width=0.25)"))])
def test_statistics_are_what_torch_collects_from_all_images_as_one_batch(make):
    model, data = make(), laws.data()
    x, _ = calibration_set(data, 40)
    other, counts = copy.deepcopy(model), {}
    for name, norm in norms_of(other).items():
        norm.train().momentum = 1.0
        norm.register_forward_hook(lambda m, i, o, name=name: counts.__setitem__(name, o.numel() // o.shape[1]))
    with torch.inference_mode():
        other(x)
    found = norms_of(STEP(model, data))
    for name, norm in norms_of(other).items():
        torch.testing.assert_close(found[name].running_mean, norm.running_mean, rtol=1e-4, atol=1e-5)
        whole = norm.running_var * (counts[name] - 1) / counts[name]  # torch keeps the unbiased estimate
        torch.testing.assert_close(found[name].running_var, whole, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(found[name].running_mean, norms_of(model)[name].running_mean, atol=0.01)


def test_however_the_images_are_split_the_outputs_of_every_norm_have_mean_0_and_variance_1():
    model, data = laws.normalized(), laws.data()
    for norm in norms_of(model).values():
        nn.init.ones_(norm.weight), nn.init.zeros_(norm.bias)
    after, seen = STEP(model, data), {}
    for name, norm in norms_of(after).items():
        norm.register_forward_hook(lambda m, i, o, name=name: seen.setdefault(name, []).append(o.double()))
    with torch.inference_mode():
        for part in calibration_set(data, 40)[0].split(7):
            after(part)
    assert seen.keys() == norms_of(model).keys()
    for name, outputs in seen.items():
        values = torch.cat(outputs).transpose(0, 1).flatten(1)
        variance = norms_of(after)[name].running_var.double()
        torch.testing.assert_close(values.mean(1), torch.zeros(len(values), dtype=torch.float64), rtol=0, atol=1e-4)
        torch.testing.assert_close(values.var(1, correction=0), variance / (variance + 1e-5), rtol=1e-4, atol=0)


def test_by_hand():
    mean, variance = population(torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]]))
    assert (mean.tolist(), variance.tolist()) == ([4.0], [5.0])
    assert population(torch.full((2, 1, 4), 300.0, dtype=torch.float16))[1].tolist() == [0.0]  # squares would overflow


def test_everything_else_stays():
    model = laws.normalized()
    after = STEP(model, laws.data())
    before, now = model.state_dict(), after.state_dict()
    changed = {name for name in before if not torch.equal(before[name], now[name])}
    assert changed == {f"{name}.{kind}" for name in norms_of(model) for kind in ("running_mean", "running_var")}
    assert all(parameter.grad is None for parameter in after.parameters()) and not after.training
    assert not any(module._forward_pre_hooks for module in after.modules())


def test_twice_is_once_and_labels_do_not_matter():
    model, data = laws.normalized(), laws.data()
    once = STEP(model, data)
    assert laws.hashing.model_digest(STEP(once, data)) == laws.hashing.model_digest(once)


def test_of_a_smaller_network_the_smaller_norms_are_measured():
    after = (FilterPruning(sparsity=0.5) | STEP)(laws.normalized(), laws.data())
    assert after.compression.steps == ("FilterPruning()", repr(STEP)) and after.norm.num_features == 4


# What cannot be measured


def test_a_network_without_batch_norm_is_refused_by_name():
    with pytest.raises(CompressionError, match=r"BatchNormReestimation\(calibration_images=40\).*has no batch norm"):
        STEP(laws.plain(), laws.data())


class Twice(nn.Module):
    """One batch norm is used twice, one never, one keeps no statistics, and one is as usual."""

    def __init__(self):
        super().__init__()
        self.conv, self.shared, self.idle = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.plain, self.free = nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = self.plain(self.conv(x))
        return self.fc(self.free(self.shared(self.shared(x).relu() + 1)).mean((2, 3)))


def test_norms_that_have_no_statistics_of_one_place_are_named_and_stay():
    model = Twice().eval()
    after = STEP(model, laws.data())
    assert reasons(after) == {
        "shared": "is used 2 times in a pass",
        "idle": "no image reaches it",
        "free": "has no running statistics: it uses those of each batch",
    }
    assert torch.equal(after.shared.running_mean, model.shared.running_mean)
    assert not torch.equal(after.plain.running_mean, model.plain.running_mean)


def test_where_none_can_be_measured_all_reasons_are_told():
    model = small(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(CompressionError, match="found nothing to compress: 1: has no running statistics"):
        STEP(model, laws.data())


def test_a_norm_that_sees_one_value_a_channel_is_refused_by_name():
    data = laws.data().shortened(train=1, validation=8, test=8)
    model = small(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    with pytest.raises(
        CompressionError, match=r"2 reads 1 value per channel \(shape \(1, 4, 1, 1\)\).*more training images"
    ):
        STEP(model, data)
    several = small(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    assert STEP(several, data)[1].running_var.min() > 0  # one image with many positions is enough


def test_hooks_see_each_call_may_replace_what_passes_and_are_gone_afterwards_also_after_an_error():
    model, seen = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU()), []
    nn.init.constant_(model[0].weight, 0.5)  # sums are exact, and ReLU passes them
    layers, x = {"first": model[0], "second": model[1]}, torch.ones(1, 3)

    def before(name, layer, inputs):
        seen.append((name, layer, tuple(inputs[0].shape)))
        return (2 * inputs[0],) if name == "first" else None

    def after(name, layer, inputs, output):
        return output + 1 if name == "second" else None

    with hooked(layers, before=before, after=after):
        assert torch.equal(model(x), torch.relu(model[0].weight.sum(1) * 2)[None] + 1) and len(seen) == 2
    assert seen == [("first", model[0], (1, 3)), ("second", model[1], (1, 2))]
    with pytest.raises(RuntimeError), hooked(layers, before=before, after=after):
        model(torch.ones(1, 4))
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in model)
