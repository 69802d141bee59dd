"""Each benchmark runs with its smallest settings and writes its table; what they compare is really comparable."""

import re
import sys

import pytest
import torch
from benchmark_scripts import FOLDER, scripts  # noqa: F401  a fixture

import compedu as ce
from compedu.doctor import browser_program
from compedu.forms import Quantized, weight_of

SECTIONS = (
    "browser", "channels", "decomposition", "distillation", "explorer", "file_bytes", "filter_pruning", "int8", "live",
    "low_rank", "magnitude", "memory", "race_page", "races", "sparse",
)  # fmt: skip
IN_A_BROWSER = ("browser", "race_page")
TRIED = [  # a JupyterLab of its own takes a minute; all that it drives is tested elsewhere
    pytest.param(name, marks=[pytest.mark.browser, pytest.mark.exhaustive] if name in IN_A_BROWSER else [])
    for name in SECTIONS
]


def section_of(text: str, name: str) -> str:
    return re.search(rf"<!-- {name} -->\n(.*)<!-- end of {name} -->", text, re.DOTALL)[1]


def test_every_benchmark_is_tried_here():
    assert {path.stem for path in FOLDER.glob("bench_*.py")} == {f"bench_{name}" for name in SECTIONS}


@pytest.mark.parametrize("name", TRIED)
def test_the_smallest_settings_write_a_table_with_machine_and_versions(scripts, tmp_path, name):
    if name in IN_A_BROWSER and browser_program() is None:
        pytest.skip("no Chromium on this machine: install it, or name its program in COMPEDU_CHROMIUM")
    path = tmp_path / "RESULTS.md"
    scripts[f"bench_{name}"].main(["--quick", "--out", str(path)])
    section = section_of(path.read_text(), name)
    tables = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    assert tables
    for table in tables:
        lines = table.splitlines()
        assert len(lines) >= 3 and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert f"torch {torch.__version__}" in section and "load average" in section
    assert not re.search(r"\{\w", section), "a place in the prose was not filled"


@pytest.mark.parametrize(
    "arm",
    [
        "MagnitudePruning(budget='lamp')",
        pytest.param("NeuronMerging()", marks=pytest.mark.exhaustive),
        pytest.param("RandomPruning()", marks=pytest.mark.exhaustive),
    ],
)
def test_no_method_takes_more_memory_than_three_networks(scripts, arm):
    memory = scripts["bench_memory"]
    found = memory.measured(arm, "resnet18", memory.Settings(size=32, images=2))
    assert 1 < found <= memory.LIMIT


def test_quick_figures_never_replace_the_real_ones(scripts, capsys):
    before = scripts["table"].RESULTS.read_text() if scripts["table"].RESULTS.exists() else None
    with pytest.raises(SystemExit):
        scripts["bench_magnitude"].main(["--quick"])
    assert "--out" in capsys.readouterr().err
    assert (scripts["table"].RESULTS.read_text() if scripts["table"].RESULTS.exists() else None) == before


def test_a_script_replaces_its_own_section_only(scripts, tmp_path):
    table, path = scripts["table"], tmp_path / "RESULTS.md"
    for name, value in (("b", "before"), ("a", "untouched"), ("b", "after")):
        table.write(table.Section(name, name.upper(), "Said.", ("value",), [(value,)]), path)
    text = path.read_text()
    assert "| before |" not in text and text.startswith("# Benchmarks") and text.count("# Benchmarks") == 1
    assert text.index("| untouched |") < text.index("| after |")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("low", "high", "at_least", "verdict"),
    [(10, 30, False, "met"), (10, 31, False, "open"), (31, 40, False, "missed"),
     (30, 40, True, "met"), (29, 40, True, "open"), (10, 29, True, "missed")],
)  # fmt: skip
def test_a_target_is_met_or_missed_when_the_whole_interval_says_so(scripts, low, high, at_least, verdict):
    table = scripts["table"]
    target = table.Target("preview", 30, table.Estimate((low + high) / 2, low, high), " ms", at_least=at_least)
    assert verdict in target.verdict


def test_masks_that_are_not_the_same_pruning_are_not_compared(scripts):
    differing_choice = scripts["bench_magnitude"].differing_choice
    sizes = torch.tensor([1.0, 2.0, 2.0, 3.0])
    first, second = torch.tensor([False, False, True, True]), torch.tensor([False, True, False, True])
    assert differing_choice(first, first, sizes) == 0
    assert differing_choice(first, second, sizes) == 2
    with pytest.raises(AssertionError, match="other weights"):
        differing_choice(first, torch.tensor([False, True, True, False]), sizes)
    with pytest.raises(AssertionError, match="keeps more"):
        differing_choice(first, torch.tensor([False, False, False, True]), sizes)


def test_torch_saves_the_same_numbers_as_our_file(scripts):
    natural_state = scripts["bench_file_bytes"].natural_state
    model = ce.trained("lenet5", "digits")
    for method in (
        ce.MagnitudePruning(), ce.LinearQuantization(bits=4), ce.MagnitudePruning() | ce.LinearQuantization(bits=2),
    ):  # fmt: skip
        compressed = method(model)
        state = natural_state(compressed)
        for name in ("conv1", "fc1"):
            layer, saved = compressed.get_submodule(name), state[f"{name}.weight"]
            assert saved.dtype == (torch.int8 if isinstance(layer, Quantized) else torch.float32)
            assert torch.equal(saved * state.get(f"{name}.scale", 1), weight_of(layer))
        assert not [name for name in state if name.endswith("mask")]


def test_every_method_that_compresses_without_training_is_compared_and_the_others_are_named(scripts):
    script = scripts["bench_file_bytes"]
    quick = {cls.__name__ for cls in ce.METHODS if cls().needs != "training" and cls.family != "training"}
    assert quick <= {type(method).__name__ for method in script.COMPARED}
    left_out = [cls for cls in ce.METHODS if cls.__name__ in script.LEFT_OUT]
    assert left_out and all("training" in (cls().needs, cls.family) for cls in left_out)


def test_both_sides_of_filter_pruning_remove_the_same_filters_where_the_criterion_is_the_same(scripts):
    script = scripts["bench_filter_pruning"]
    model, data = ce.load("lenet5", "digits")
    alike = {}
    for own, criterion in script.PAIRS:
        ours = ce.FilterPruning(sparsity=0.5, criterion=own)(model, data)
        theirs, gone = script.torch_pruned(model, data, 0.5, criterion)
        script.counted(ours, theirs, data)
        alike[own, criterion] = script.gone_alike(model, ours, gone, data)
        same = all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
        assert same == (alike[own, criterion] == 1)
    assert alike["l1", "first layer's filters"] == alike["group", "group, p=1"] == 1
    assert 1 > alike["l1", "group, p=1"] > 0.5


def test_filter_pruning_is_not_compared_at_different_numbers_of_channels(scripts):
    script = scripts["bench_filter_pruning"]
    model, data = ce.load("lenet5", "digits")
    theirs, _ = script.torch_pruned(model, data, 0.25, "first layer's filters")
    with pytest.raises(AssertionError, match="different numbers"):
        script.counted(ce.FilterPruning(sparsity=0.5)(model, data), theirs, data)


def test_networks_with_equal_channels_are_one_row_and_the_one_not_rounded_is_first(scripts):
    smaller_networks = scripts["bench_channels"].smaller_networks
    model, data = ce.load("vgg", "glyphs")
    half = smaller_networks(model, data, 0.5, (16, 1, 8))
    assert [small.multiples for small in half] == [(1, 8, 16)]
    assert sorted(set(half[0].channels[:-1])) == [16, 32, 64, 112]
    single, *rounded = smaller_networks(model, data, 0.3, (16, 1, 8))
    assert single.multiples == (1,) and [small.multiples for small in rounded] == [(8,), (16,)]
    assert single.macs < rounded[0].macs < rounded[1].macs and single.channels[0] % 8
    assert all(channels % 16 == 0 for channels in rounded[1].channels[:-1])


def test_torch_quantizes_and_fuses_the_same_network(scripts):
    peer = scripts["torch_int8"]
    model, data = ce.load("lenet5", "digits")
    x = data.x_validation
    wanted = model.eval()(x).detach()
    torch.testing.assert_close(peer.torch_float(model)(x), wanted, rtol=1e-4, atol=1e-4)
    quantized = peer.torch_int8(model, data, 128)
    assert peer.integer_layers(quantized) == "2 x ConvReLU2d; 1 x LinearReLU; 1 x Linear"
    found = quantized(x)
    assert not torch.allclose(found, wanted, atol=1e-3) and (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.98


def test_where_torch_quantizes_no_more_the_table_says_so_and_ours_is_measured(scripts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.ao.quantization.quantize_fx", None)
    path = tmp_path / "RESULTS.md"
    scripts["bench_int8"].main(["--quick", "--out", str(path)])
    said = re.findall(r"^\| lenet5.*\| (?:ours|torch's) \|.*\|$", path.read_text(), re.MULTILINE)
    assert ["torch does not quantize any more: import of" in row for row in said] == [False, True] * 3
    assert all(("x (" in row) is ("| ours |" in row) for row in said)


def test_an_int8_network_with_a_stopwatch_at_every_step_computes_the_same_and_all_steps_are_accounted_for(scripts):
    steps = scripts["int8_steps"]
    model, data = ce.load("lenet5", "digits")
    deployed = ce.deploy(ce.LinearQuantization(activation_bits=8)(model, data), data.example)
    x = data.x_validation[:3]
    seconds = [[] for _ in deployed.plan.steps]
    watched = steps.with_stopwatch(deployed, seconds)
    assert torch.equal(watched(x), deployed(x)) and all(len(taken) == 1 for taken in seconds)
    found = steps.microseconds(deployed, x, 0.0)
    kinds = {steps.kind(step) for step in deployed.plan.steps}
    assert set(found) == kinds | {steps.REST, steps.PREPARED}
    assert {"convolution, int8", "linear layer, int8", "max pooling of codes", "values to codes"} <= kinds


def test_a_network_without_shipped_weights_is_timed_untrained(scripts):
    model, data, said = scripts["bench_int8"].loaded("lenet5(width=0.3)", "digits")
    assert said == ", untrained" and not model.training and model(data.example).shape == (1, 10)
    assert scripts["bench_int8"].loaded("lenet5", "digits")[2] == ""


def sparse_cell(script, sparsity: float, by_rule: str, csr_s: float):
    """A comparison with a dense layer that takes 1 s, in nine rounds without any noise."""
    seconds = {script.DENSE: [1.0] * 9, script.again(script.DENSE): [1.0] * 9, script.CSR: [csr_s] * 9}
    return script.Cell(sparsity, by_rule, script.Rounds(seconds))


@pytest.mark.parametrize(("by_rule", "csr_s", "loss"), [
    ("CSR", 2.0, 2.0), ("dense", 2.0, 1.0), ("CSR", 0.5, 1.0), ("dense", 0.5, 2.0),
    ("CSR", 1.0, 1.0), ("dense", 1.0, 1.0),
])  # fmt: skip
def test_the_rule_for_sparse_rows_loses_where_it_takes_the_slower_kernel(scripts, by_rule, csr_s, loss):
    assert sparse_cell(scripts["bench_sparse"], 0.9, by_rule, csr_s).loss == loss


def test_sparse_rows_pay_from_where_they_never_lose_again(scripts):
    script = scripts["bench_sparse"]
    fast, slow = ((lambda sparsity, s=s: sparse_cell(script, sparsity, "dense", s)) for s in (0.5, 2.0))
    assert script.pays_from([slow(0.5), fast(0.8), slow(0.9), fast(0.95), fast(0.99)]) == "95%"
    assert script.pays_from([fast(0.5), fast(0.8)]) == "50%"
    assert script.pays_from([fast(0.5), slow(0.8)]) == "never"


def test_sparse_layers_have_as_many_zeros_as_said(scripts):
    weight = torch.ones(10, 30)
    for sparsity in (0.5, 0.7, 0.99):
        assert int((scripts["bench_sparse"].pruned(weight, sparsity) == 0).sum()) == round(300 * sparsity)


def test_the_removal_law_is_written_as_a_table_and_finished_rows_are_kept(scripts, tmp_path, monkeypatch, capsys):
    script, path = scripts["removal_law"], tmp_path / "REMOVAL_LAW.md"
    script.main(["--quick", "--out", str(path)])
    rows = script.finished(path)
    assert list(rows) == list(script.QUICK) and {row[1] for row in rows.values()} == {"exact"}
    assert all(float(row[2]) <= script.LAW and float(row[3]) >= script.TEETH for row in rows.values())
    text = path.read_text()
    assert f"Of {len(rows)}: {len(rows)} exact, 0 refused, 0 wrong." in text and not re.search(r"\{\w", text)
    monkeypatch.setattr(script, "measured", lambda name: pytest.fail(f"{name} was measured again"))
    script.main(["--quick", "--out", str(path)])
    path.write_text(text.replace(script.fingerprint(), "of other code"))
    assert script.finished(path) == {}
    with pytest.raises(SystemExit):
        script.main(["--quick"])
    assert "--out" in capsys.readouterr().err


def test_a_wrong_removal_is_called_wrong(scripts, monkeypatch):
    script = scripts["removal_law"]
    silence = script.silence
    monkeypatch.setattr(script, "silence", lambda model, channels, removal: silence(
        model, channels, removal | {(name := next(iter(removal))): removal[name][1:]}
    ))  # fmt: skip
    assert script.measured("squeezenet1_1")[1] == "**wrong**"


def test_the_committed_table_of_the_removal_law_has_every_network_and_none_is_wrong(scripts):
    import_torchvision, text = scripts["removal_law"].import_torchvision, scripts["removal_law"].RESULTS.read_text()
    models = import_torchvision().models
    verdicts = dict(re.findall(r"^\| (\w+) \| (exact|refused: \w+.*?) \|", text, re.MULTILINE))
    assert list(verdicts) == models.list_models(module=models)
    assert list(verdicts.values()).count("exact") >= 80


@pytest.mark.parametrize("shift", [0, 1])
def test_all_sides_of_the_timed_distillation_train_the_same_student(scripts, shift, monkeypatch):
    script = scripts["bench_distillation"]
    pupil = script.Pupil.of("lenet300", script.QUICK, shift=shift)
    script.check(pupil)
    assert script.differs(pupil.plain(), pupil.by_tutorial()) > 1e-3
    plain = script.batches
    monkeypatch.setattr(script, "batches", lambda data, recipe: plain(data, script.Recipe(recipe.epochs, seed=1)))
    with pytest.raises(AssertionError, match="something else"):
        script.check(pupil)
