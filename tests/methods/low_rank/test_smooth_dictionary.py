"""Smooth dictionaries: kernel ridge regression written out in NumPy, planted smooth weights, layers without images."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from torch import nn

import compedu as ce
from compedu.compression import compression_of
from compedu.errors import CompressionError
from compedu.files import from_bytes, model_bytes
from compedu.forms import Geometry, Predicted
from compedu.forms.predicted import MOST_POSITIONS, dictionary, spread_positions
from compedu.methods.low_rank.smooth_dictionary import SmoothDictionary, free_numbers
from compedu.metrics import measure
from compedu.testing.networks import data


def predicted_at_all(grid, chosen, known, width, ridge):
    """Kernel ridge regression as textbooks write it: weights of the kernels first, then each position on its own."""
    places = np.array([(row, column) for row in range(grid[0]) for column in range(grid[1])], dtype=float)
    k = np.exp(-cdist(places[chosen], places[chosen], "sqeuclidean") / (2 * width**2))
    alpha = np.linalg.inv(k + ridge * np.eye(len(chosen))) @ known
    return np.array([
        sum(a * np.exp(-np.sum((place - places[c]) ** 2) / (2 * width**2)) for a, c in zip(alpha, chosen, strict=True))
        for place in places
    ])  # fmt: skip


def image_network(weight: torch.Tensor) -> nn.Module:
    """A linear layer that reads images of 28 x 28 pixels, with this `weight` (out, 784)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, len(weight)), nn.ReLU(), nn.Linear(len(weight), 10))
    model[1].weight.data = weight.float()
    return model.eval()


def planted(smoothness: float) -> torch.Tensor:
    noise = np.random.default_rng(0).standard_normal((24, 28, 28))
    return torch.from_numpy(gaussian_filter(noise, (0, smoothness, smoothness)).reshape(24, 784))


def error_of(layer: Predicted, weight: torch.Tensor) -> float:
    return float((layer.dense().detach() - weight).norm() / weight.norm())


@pytest.mark.parametrize("grid, count", [((5, 7), 9), ((6, 1), 2), ((4, 4), 15)])
@pytest.mark.parametrize("width, ridge", [(1.5, 1e-3), (0.7, 0.5)])
def test_the_dictionary_is_kernel_ridge_regression(grid, count, width, ridge):
    chosen = spread_positions(grid, count)
    columns = dictionary(grid, count, width, ridge)
    known = np.random.default_rng(1).standard_normal(count)
    wanted = predicted_at_all(grid, chosen, known, width, ridge)
    np.testing.assert_allclose(columns @ known, wanted, rtol=1e-5, atol=1e-5)
    from sklearn.kernel_ridge import KernelRidge

    places = np.array([(row, column) for row in range(grid[0]) for column in range(grid[1])], dtype=float)
    theirs = KernelRidge(alpha=ridge, kernel="rbf", gamma=1 / (2 * width**2)).fit(places[chosen], known).predict(places)
    np.testing.assert_allclose(columns @ known, theirs, rtol=1e-5, atol=1e-5)


def test_positions_are_distinct_and_spread():
    for count in (1, 2, 10, 196, 783, 784):
        chosen = spread_positions((28, 28), count)
        assert len(set(chosen.tolist())) == count and chosen.min() >= 0 and chosen.max() < 784
        places = np.stack(np.divmod(chosen, 28), 1)
        if count == 196:  # a fourth of the pixels: no pixel is farther than the diagonal of 2 x 2 from one of them
            everywhere = np.stack(np.divmod(np.arange(784), 28), 1)
            assert cdist(everywhere, places).min(1).max() < 2.9


def test_the_free_numbers_are_the_least_squares_fit():
    weight = torch.randn(5, 2, 49, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = dictionary((7, 7), 12, 1.5, 1e-3)
    values = free_numbers(weight, columns)
    u = columns.astype(np.float64)
    wanted = np.linalg.solve(u.T @ u, u.T @ weight.numpy().reshape(10, 49).T).T.reshape(5, 2, 12)
    np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-6, atol=1e-8)
    left = weight.numpy() - values.numpy() @ u.T  # what is left over is orthogonal to the dictionary
    assert np.abs(left @ u).max() < 1e-9


def test_a_smooth_weight_is_predicted_from_a_tenth_of_its_pixels_and_noise_is_not():
    smooth = planted(4.0)
    noise = planted(0.0)
    method = SmoothDictionary(kept=0.1, width=4.0)
    errors = [error_of(method(image_network(weight), data())[1], weight) for weight in (smooth, noise)]
    assert errors[0] < 0.02 and errors[1] > 0.9
    made = method(image_network(smooth), data())[1]
    assert made.values.shape == (24, 1, 78) and made.grid == (28, 28)


def test_all_positions_reproduce_the_layer_exactly():
    model = image_network(planted(0.0))
    same = SmoothDictionary(kept=1.0)(model, data())
    torch.testing.assert_close(same[1].dense(), model[1].weight, rtol=1e-6, atol=1e-7)
    assert same[1].values.numel() == model[1].weight.numel()


def test_a_convolution_is_predicted_over_its_kernel_window_in_each_channel():
    model = ce.build("lenet5(size=28, width=0.4)", seed=1)
    made = SmoothDictionary(kept=0.4, layers="conv")(model)
    out, inside, *_ = model.conv2.weight.shape
    assert made.conv2.values.shape == (out, inside, 10)
    u = dictionary((5, 5), 10, 2.0, 1e-3)
    filters = model.conv2.weight.detach().reshape(-1, 25).numpy()
    wanted = filters @ np.linalg.pinv(u, rcond=1e-3).T @ u.T
    np.testing.assert_allclose(made.conv2.dense().detach().reshape(-1, 25).numpy(), wanted, atol=1e-5)


def test_a_linear_layer_behind_feature_maps_has_a_dictionary_for_each_map():
    model = ce.build("lenet5(size=28, width=0.4)", seed=1)
    made = SmoothDictionary(kept=0.5, layers="fc1")(model, data())
    assert made.fc1.grid == (4, 4) and made.fc1.values.shape == (model.fc1.weight.shape[0], 20, 8)


def test_without_data_the_spec_gives_an_image():
    model = ce.build("lenet300(size=28, width=0.1)", seed=1)
    assert isinstance(SmoothDictionary()(model).fc1, Predicted)
    with pytest.raises(
        CompressionError, match=r"1: nothing shows which of its inputs are neighboring pixels; give data"
    ):
        SmoothDictionary()(image_network(planted(1.0)))


def reasons(model: nn.Module, **knobs) -> dict[str, str]:
    made = SmoothDictionary(layers="all", **knobs)(model, data())
    return {skip.layer: skip.reason for skip in compression_of(made).skipped}


def test_layers_without_neighbors_are_named():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 10),
    ).eval()  # fmt: skip
    found = reasons(model)
    assert found.keys() == {"2", "6", "8"}
    assert "each channel is a single pixel" in found["2"] and "each channel is a single pixel" in found["6"]
    assert "its inputs are not, in order, the pixels of images" in found["8"]


def test_images_of_too_many_pixels_are_named():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=4), nn.ReLU(), nn.Flatten(), nn.Linear(34 * 34, 10))
    assert MOST_POSITIONS < 34 * 34
    assert "its images have 34 x 34 pixels" in reasons(model.eval())["3"]


def test_a_network_that_cannot_be_traced_keeps_its_linear_layers():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 5, 5)
            self.fc = nn.Linear(50, 10)

        def forward(self, x):
            y = self.conv(x).flatten(1)
            return self.fc(y if y.detach().sum().item() > 1e9 else -y)

    found = reasons(Deciding().eval())
    assert found.keys() == {"fc"} and "Deciding cannot be traced" in found["fc"]


def test_fine_tuning_moves_the_free_numbers_and_stays_in_the_span():
    model, digits = ce.load("lenet300", "digits")
    digits = digits.shortened(train=640, validation=200, test=10)
    small = SmoothDictionary(kept=0.1)(model, digits)
    tuned = ce.FineTune(epochs=1)(small, digits)
    assert not torch.equal(tuned.fc1.values, small.fc1.values)
    u = dictionary(small.fc1.grid, small.fc1.values.shape[2], 2.0, 1e-3).astype(np.float64)
    rows = tuned.fc1.dense().detach().double().numpy()
    np.testing.assert_allclose(rows @ np.linalg.pinv(u).T @ u.T, rows, atol=1e-5)


def test_a_file_holds_the_free_numbers_and_no_dictionary():
    model = ce.build("lenet300(size=28, width=0.1)", seed=1)
    small = SmoothDictionary(kept=0.1)(model)
    dense = len(model_bytes(model))
    saved = len(model_bytes(small))
    out, inside = model.fc1.weight.shape
    assert dense - saved == pytest.approx(4 * out * (inside - 78), abs=80)  # a dictionary would take 4 * 784 * 78 more
    again = from_bytes(model_bytes(small))
    x = data().x_validation
    assert torch.equal(again(x), small(x)) and again.fc1.grid == (28, 28)
    report = measure(small, data(), speed=False)
    assert report.parameters == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_layers_of_every_precision_come_back_from_a_file(dtype):
    model = SmoothDictionary(kept=0.2)(ce.build("lenet300(size=28, width=0.1)", seed=1)).to(dtype)
    again = from_bytes(model_bytes(model), into=ce.build("lenet300(size=28, width=0.1)").to(dtype))
    assert again.fc1.dense().dtype == dtype and torch.equal(again.fc1.dense(), model.fc1.dense())


GEOMETRY = Geometry("linear", (3, 12))
BAD = {
    "a width of nan; allowed are floats from 0.1 to 100.0": {"width": float("nan")},
    "a ridge of 0.0; allowed are floats from 1e-05 to 1.0": {"ridge": 0.0},
    "images of shape": {"grid": (0, 4)},
    "at most 1024": {"grid": (40, 40)},
    "images of 5 pixels among 12": {"grid": (5, 1)},
    "'values' has the shape": {"grid": (1, 1)},
    "no place for 'seed'": {"seed": 1},
}


@pytest.mark.parametrize("message", BAD)
def test_settings_of_a_file_that_no_such_layer_has_are_refused(message):
    from compedu.forms.declared import DeclaredFloats

    parts = {"values": DeclaredFloats(torch.float32, (3, 3, 2))}
    good = {"width": 2.0, "ridge": 1e-3, "grid": (2, 2)}
    assert Predicted.check_declared(GEOMETRY, good, parts) == torch.float32
    with pytest.raises(ValueError, match=message):
        Predicted.check_declared(GEOMETRY, good | BAD[message], parts)
