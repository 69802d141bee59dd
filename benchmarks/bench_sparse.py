"""Pruned linear layers in compressed sparse rows against dense ones: from which sparsity on it pays."""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from rounds import Rounds, again, timed_networks
from table import Estimate, Section, options, write
from torch import Tensor, nn

from compedu.deployment.kernels import csr
from compedu.metrics import Latency
from compedu.metrics.latency import ratios

CSR = "CSR"
DENSE = "dense"
ZEROS = "zeros multiplied"
SAID = """
Square linear layers with bias, float32, one thread; zeros at random places, without any pattern. Each round runs four
layers in random order: `kernels.csr.SparseLinear`; the dense layer, twice for the A/A arm ("dense / dense"); and a
dense layer that holds the pruned weights, so that the zeros are multiplied. Before anything is timed, CSR and
multiplied zeros must give the same outputs. A cell is the median over rounds of dense time divided by CSR time, bold
where CSR is faster, with "?" where the A/A arm failed; "CSR pays from" is the least measured fraction of zeros from
which on every cell is bold. "Dense / zeros multiplied" and "dense / dense" are medians over the cells of a row, each
with tensors of its own: zeros that are multiplied save no time, so 1 is expected of both.

`compedu.deploy` has one fixed rule for all batch sizes (`kernels.csr.pays`): CSR for at least {weights:,} weights of
which at most {density:.0%} are left. "Rule errs at" names the cells where it takes the slower kernel, and how many
times as long that takes: {errs} of the {clear} cells in which the two can be told apart. {kinds}
"""


@dataclass(frozen=True)
class Settings:
    """Inputs and outputs of the layers, batch sizes, fractions of zeros, and seconds for each comparison."""

    sizes: tuple[int, ...] = (256, 512, 1024, 4096)
    batches: tuple[int, ...] = (1, 64)
    sparsities: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
    budget_s: float = 3.0


QUICK = Settings(sizes=(32,), batches=(2,), sparsities=(0.5, 0.6, 0.7, 0.8, 0.9, 0.99), budget_s=0.0)


@dataclass(frozen=True)
class Cell:
    """One comparison: a fraction of zeros, the rule's choice, the times."""

    sparsity: float
    by_rule: str
    rounds: Rounds

    @property
    def latency(self) -> Latency:
        """CSR against dense."""
        return self.rounds.latency(CSR, DENSE)

    @property
    def loss(self) -> float:
        """The time of the rule's choice divided by that of the faster kernel; 1 where they cannot be told apart."""
        slower = {"faster": DENSE, "slower": CSR}.get(self.latency.verdict)
        return 1.0 if slower != self.by_rule else max(self.latency.speed_up, 1 / self.latency.speed_up)

    @property
    def text(self) -> str:
        """The speed-up as shown in the table."""
        text = Estimate.speed_up(self.latency).text(2, "x")
        verdict = self.latency.verdict
        return f"**{text}**" if verdict == "faster" else f"{text} ?" if verdict.startswith("withheld") else text


def pruned(weight: Tensor, sparsity: float) -> Tensor:
    """Return `weight` (out, in) with ceil(sparsity * n) of its n numbers set to zero, at random places."""
    generator = torch.Generator().manual_seed(1)
    gone = torch.randperm(weight.numel(), generator=generator)[: math.ceil(Fraction(str(sparsity)) * weight.numel())]
    return weight.reshape(-1).index_fill(0, gone, 0.0).reshape(weight.shape)


def dense(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer with a copy of `weight` (out, in) and of `bias` (out,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.eval()


def compared(size: int, batch: int, sparsity: float, budget_s: float) -> Cell:
    """Return the comparison for one layer; raise `AssertionError` where CSR computes something else."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(*shape, generator=generator) for shape in ((size, size), (size,), (batch, size)))
    few = pruned(weight, sparsity)
    layers = {
        CSR: csr.SparseLinear(few, bias), ZEROS: dense(few, bias),
        DENSE: dense(weight, bias), again(DENSE): dense(weight, bias),
    }  # fmt: skip
    torch.testing.assert_close(layers[CSR](x), layers[ZEROS](x).detach(), rtol=1e-3, atol=1e-3)
    return Cell(sparsity, CSR if csr.pays(few) else DENSE, timed_networks(layers, x, budget_s))


def pays_from(cells: Sequence[Cell]) -> str:
    """Return the least fraction of zeros from which on CSR is faster in every cell; `cells` are in rising order."""
    found = "never"
    for cell in reversed(cells):
        if cell.latency.verdict != "faster":
            break
        found = f"{cell.sparsity:.0%}"
    return found


def rule_from(cells: Sequence[Cell]) -> str:
    """Return the least measured fraction of zeros for which the rule takes CSR."""
    return next((f"{cell.sparsity:.0%}" for cell in cells if cell.by_rule == CSR), "never")


def pooled(cells: Sequence[Cell], arm: str) -> str:
    """Return the ratio of dense time to that of `arm`: the median over the cells, each with tensors of its own."""
    medians = [statistics.median(ratios(cell.rounds.seconds[DENSE], cell.rounds.seconds[arm])) for cell in cells]
    return Estimate.of(medians).text(3, "x")


def row(size: int, batch: int, cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the cells of one layer and batch size as a row of the table."""
    errs = ", ".join(f"{cell.sparsity:.0%} ({cell.by_rule}, {cell.loss:.2f}x)" for cell in cells if cell.loss > 1)
    time_ms = sum(cell.latency.baseline_ms for cell in cells) / len(cells)
    return (
        f"{size:,} x {size:,}", str(batch), f"{time_ms:.3f}", *(cell.text for cell in cells), pays_from(cells),
        rule_from(cells), errs or "nothing", pooled(cells, ZEROS), pooled(cells, again(DENSE)),
    )  # fmt: skip


def head(settings: Settings) -> tuple[str, ...]:
    """Return the head of the table."""
    return (
        "layer", "batch", "dense, ms", *(f"{sparsity:.0%} zeros" for sparsity in settings.sparsities), "CSR pays from",
        "rule: CSR from", "rule errs at", "dense / zeros multiplied", "dense / dense",
    )  # fmt: skip


def said(cells: Sequence[Cell]) -> str:
    """Return the prose, with how often and how much the rule errs."""
    clear = [cell for cell in cells if cell.latency.verdict in ("faster", "slower")]
    kinds = []
    for kernel in (CSR, DENSE):
        losses = [cell.loss for cell in clear if cell.by_rule == kernel and cell.loss > 1]
        worst = f", at worst {max(losses):.2f} times as long as needed" if losses else ""
        kinds.append(f"{kernel} taken wrongly: {len(losses)}{worst}.")
    errs = sum(cell.loss > 1 for cell in clear)
    return SAID.format(
        weights=csr.MIN_WEIGHTS, density=csr.MAX_DENSITY, errs=errs, clear=len(clear), kinds=" ".join(kinds)
    )


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its section."""
    settings, path = options(__doc__, Settings(), QUICK, given)
    rows = []
    every = []
    for size in settings.sizes:
        for batch in settings.batches:
            cells = [compared(size, batch, sparsity, settings.budget_s) for sparsity in settings.sparsities]
            rows.append(row(size, batch, cells))
            every += cells
    write(Section("sparse", "Linear layers in sparse rows against dense", said(every), head(settings), rows), path)


if __name__ == "__main__":
    main(sys.argv[1:])
