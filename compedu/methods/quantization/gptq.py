"""GPTQ: weights are rounded one after another, and those still to be rounded make up for the error."""

import torch
from torch import Tensor

from compedu.forms import Quantized
from compedu.knobs import PerLayer, inherited, knob, method
from compedu.methods.input_moments import InputMoments, damped
from compedu.methods.quantization.shared.calibrated_rounding import CalibratedRounding, Levels

BLOCK = 128  # weights after which those beyond are updated in one product (section 4, step 2)


def gptq_codes(rows: Tensor, hessian: Tensor, levels: Levels) -> Tensor:
    """Return the codes of rows (groups, rows, n), rounded from the first weight to the last, given H (groups, n, n).

    With U the upper Cholesky factor of H^-1, the error e = (w_j - round(w_j)) / U_jj of weight j changes the weights
    after it by -e U_j (Frantar et al. 2023, section 4, step 3): the least-squares answer for them, with all before
    them fixed. H must be positive definite.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left = rows.mT.clone(memory_format=torch.contiguous_format)  # (groups, n, rows): a weight of all rows together
    codes = torch.empty_like(left)
    for start in range(0, left.shape[1], BLOCK):
        end = min(start + BLOCK, left.shape[1])
        errors = left.new_empty(len(left), end - start, left.shape[2])
        for j in range(start, end):
            codes[:, j] = levels.nearest(left[:, j], j)
            error = (left[:, j] - levels.values(codes[:, j], j)) / upper[:, j, j, None]
            left[:, j + 1 : end] -= upper[:, j, j + 1 : end, None] * error[:, None]
            errors[:, j - start] = error
        left[:, end:] -= upper[:, start:end, end:].mT @ errors
    return codes.mT


@method
class GPTQ(CalibratedRounding):
    r"""Round the weights of each row in turn, and let those not yet rounded compensate for the error.

    With $H = \mathrm{E}[x x^\top] + \lambda m I$ for the inputs $x$ of the layer, $m$ the mean of the diagonal and
    $\lambda$ the `damping`: $e_j = (w_j - \hat w_j) / U_{jj}$ and $w_k \leftarrow w_k - e_j U_{jk}$ for $k > j$, where
    $H^{-1} = U^\top U$. Scales are those of the trained weights. A row that comes out no better than by rounding to
    nearest, as measured by $\mathrm{E}[((w - \hat w)^\top x)^2]$, is rounded to nearest. Batch normalization is folded
    into its layer first.
    Stored: the codes, $b$ bits each; the scales; for pruned layers the positions of the kept weights.
    Skips: layers that are not linear or convolutional; layers that no image reaches, or whose moments take more than
    512 MiB; forms other than masked ones.
    Paper: Frantar, Ashkboos, Hoefler, Alistarh 2023, GPTQ: Accurate post-training quantization for generative
    pre-trained transformers, arXiv:2210.17323, sections 3 and 4. The order by curvature is that of the authors' code.
    """

    bits: PerLayer[int] = inherited(CalibratedRounding, "bits")
    damping: float = knob(
        default=0.01,
        help="added to the second moments of the inputs, as a fraction of their mean",
        low=1e-6,
        high=10,
        slider_range=(1e-4, 1.0),
        log=True,
    )
    order: str = knob(
        default="curvature",
        help="which weights of a row are rounded first: those whose inputs are largest, or as they are stored",
        choices=("curvature", "stored"),
    )

    def codes(self, form: Quantized, moments: InputMoments, levels: Levels) -> Tensor:
        """Return the codes of the weights of `form`, (groups, rows, n)."""
        hessian = damped(moments.second, self.damping)
        rows = moments.rows(form.latent.detach()).double()
        if self.order == "stored":
            return gptq_codes(rows, hessian, levels)
        order = moments.second.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)  # (groups, n)
        columns = order[:, None].expand_as(rows)
        sorted_rows = rows.gather(2, columns)
        along = order[:, :, None].expand_as(hessian)
        sorted_hessian = hessian.gather(1, along).gather(2, along.mT)
        codes = gptq_codes(sorted_rows, sorted_hessian, levels.reordered(columns))
        return torch.empty_like(codes).scatter_(2, columns, codes)
