"""Answers to the exercises, wrong and right, each under the mistake or the way that it takes; functions by exercise."""

import math
from fractions import Fraction

import numpy as np
import torch

Z = 1.959964


def wilson(right, total, z=Z):
    share, square = right / total, z * z / total
    half = (square * share * (1 - share) + square * square / 4) ** 0.5
    return (share + square / 2 - half) / (1 + square), (share + square / 2 + half) / (1 + square)


def wald(right, total, n=None):
    half = Z * math.sqrt(right / total * (1 - right / total) / (n or total))
    return max(0.0, right / total - half), min(1.0, right / total + half)


def exact_interval(right, total, shift=0.0):
    """Clopper and Pearson's interval, by bisection; Jeffreys' is near it with half a success more on each side."""

    def tail(p, successes):
        return sum(math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in successes)

    def root(function):
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if function(middle) else (low, middle)
        return low

    lower = 0.0 if right == 0 else root(lambda p: tail(p, range(right, total + 1)) < 0.025)
    upper = 1.0 if right == total else root(lambda p: tail(p, range(right + 1)) > 0.025)
    return lower + shift, upper - shift


def agresti_coull(right, total):
    return wald(right + Z * Z / 2, total + Z * Z)


def wilson_continuity(right, total):
    share, square = right / total, Z * Z
    low = 2 * right + square - 1 - Z * math.sqrt(max(0, square - 2 - 1 / total + 4 * share * (total - right + 1)))
    high = 2 * right + square + 1 + Z * math.sqrt(max(0, square + 2 - 1 / total + 4 * share * (total - right - 1)))
    return max(0, low / (2 * (total + square))), min(1, high / (2 * (total + square)))


def degenerate_where_all_agree(right, total):
    return (float(right == total),) * 2 if right in (0, total) else wilson(right, total)


def wilson_by_search(right, total):
    share = right / total

    def end(inside, outside):
        for _ in range(60):
            middle = (inside + outside) / 2
            near = abs(share - middle) <= Z * math.sqrt(middle * (1 - middle) / total)
            inside, outside = (middle, outside) if near else (inside, middle)
        return inside

    return [end(share, 0.0) if right else 0, end(share, 1.0) if right < total else 1]


def wilson_by_roots(right, total):
    share, square = right / total, Z * Z / total
    return np.sort(np.roots([1 + square, -2 * share - square, share * share]).real).astype(np.float32)


INTERVAL_WRONG = {
    "the textbook's interval": wald,
    "no width where all agree": degenerate_where_all_agree,
    "no width where all are right": lambda k, n: (1.0, 1.0) if k == n else wilson(k, n),
    "no width where all are wrong": lambda k, n: (0.0, 0.0) if k == 0 else wilson(k, n),
    "90 per cent": lambda k, n: wilson(k, n, 1.644854),
    "two standard errors": lambda k, n: wilson(k, n, 2.0),
    "exact binomial": exact_interval,
    "Agresti and Coull": agresti_coull,
    "with continuity correction": wilson_continuity,
    "per cent": lambda k, n: tuple(100 * end for end in wilson(k, n)),
    "ends exchanged": lambda k, n: wilson(k, n)[::-1],
    "upper end forgotten": lambda k, n: (wilson(k, n)[0], 1.0),
    "lower end forgotten": lambda k, n: (0.0, wilson(k, n)[1]),
    "the observed share twice": lambda k, n: (k / n, k / n),
    "one image fewer": lambda k, n: wilson(k * (n - 1) / n, n - 1) if n > 1 else (0, 1),
    "a table of round cases": lambda k, n: wilson(k, n) if n in (50, 4000, 397, 7) else wald(k, n),
    "a number for both ends": lambda k, n: wilson(k, n)[0],
}
INTERVAL_RIGHT = {
    "solved": wilson,
    "searched": wilson_by_search,
    "roots in float32": wilson_by_roots,
    "scalars of torch": lambda k, n: tuple(torch.tensor(end) for end in wilson(k, n)),
    "one tensor of two": lambda k, n: torch.tensor(wilson(k, n), dtype=torch.float32),
    "1.96 in place of all its digits": lambda k, n: wilson(k, n, 1.96),
}


def tail(few, n, last=True):
    return sum(math.comb(n, k) for k in range(few + last)) / 2**n


def mcnemar(broke, fixed):
    return min(1, 2 * tail(min(broke, fixed), broke + fixed))


def chi_square(broke, fixed, correction=0):
    n = broke + fixed
    return math.erfc(max(0, abs(broke - fixed) - correction) / math.sqrt(2 * n)) if n else 1.0


def by_enumeration(broke, fixed):
    n = broke + fixed
    rows = [1]
    for _ in range(n):
        rows = [a + b for a, b in zip([0, *rows], [*rows, 0], strict=True)]
    return Fraction(sum(ways for heads, ways in enumerate(rows) if abs(2 * heads - n) >= abs(broke - fixed)), 2**n)


PAIRED_WRONG = {
    "one side": lambda b, f: tail(min(b, f), b + f),
    "doubled beyond one": lambda b, f: 2 * tail(min(b, f), b + f),
    "chi square": chi_square,
    "chi square with correction": lambda b, f: chi_square(b, f, 1),
    "the middle p": lambda b, f: min(1, 2 * tail(min(b, f), b + f) - math.comb(b + f, b) / 2 ** (b + f)),
    "this split alone": lambda b, f: min(1, 2 * math.comb(b + f, b) / 2 ** (b + f)),
    "only more uneven splits": lambda b, f: min(1, 2 * tail(min(b, f), b + f, last=False)),
    "always the broken side": lambda b, f: min(1, 2 * tail(b, b + f)),
    "always the fixed side": lambda b, f: min(1, 2 * (1 - tail(b - 1, b + f))),
    "one minus": lambda b, f: 1 - mcnemar(b, f),
    "one coin more": lambda b, f: min(1, 2 * tail(min(b, f), b + f + 1)),
    "nothing where nothing differs": lambda b, f: mcnemar(b, f) if b + f else 0.0,
    "significant or not": lambda b, f: float(mcnemar(b, f) >= 0.05),
    "a table of some cases": lambda b, f: mcnemar(b, f) if {b, f} <= {20, 10, 0, 6, 41, 17, 3} else 0.05,
    "unpaired": lambda b, f: math.erfc(abs(b - f) / math.sqrt(4 * max(1, b + f))),
}
PAIRED_RIGHT = {
    "with combinations": mcnemar,
    "all ways counted, a fraction": by_enumeration,
    "in float32": lambda b, f: np.float32(mcnemar(b, f)),
    "a scalar of torch": lambda b, f: torch.tensor(mcnemar(b, f)),
    "by hand, coin by coin": lambda b, f: min(
        1.0, 2 * sum(math.exp(math.lgamma(b + f + 1) - math.lgamma(k + 1) - math.lgamma(b + f - k + 1)
                              - (b + f) * math.log(2)) for k in range(min(b, f) + 1))
    ),
}  # fmt: skip

DENSE_WRONG = {
    "bits": lambda p: 32 * p,
    "one byte": lambda p: p,
    "half precision": lambda p: 2 * p,
    "double precision": lambda p: 8 * p,
    "kilobytes": lambda p: 4 * p / 1024,
    "with a header": lambda p: 4 * p + 300,
    "an eighth": lambda p: p / 8,
    "an index with each": lambda p: 5 * p,
    "a table of two networks": lambda p: {26610: 106440, 44426: 177704}.get(p, 0),
    "a decimal kilobyte for a binary one": lambda p: 4 * p / 1.024,
}
DENSE_RIGHT = {
    "four bytes": lambda p: 4 * p,
    "by bits": lambda p: p * 32 / 8,
    "a tensor's size": lambda p: torch.tensor(p * torch.float32.itemsize),
    "numpy": lambda p: np.float32(0).nbytes * np.int64(p),
    "a fraction": lambda p: Fraction(32 * p, 8),
}


def survey(a, small, s, fast):
    return a / small, (a - small) / small, (a - small) / a, s / fast


CRITERIA_WRONG = {
    "alpha upside down": lambda a, b, s, t: (b / a, *survey(a, b, s, t)[1:]),
    "both savings as usual": lambda a, b, s, t: (a / b, (a - b) / a, (a - b) / a, s / t),
    "both savings as printed": lambda a, b, s, t: (a / b, (a - b) / b, (a - b) / b, s / t),
    "savings exchanged": lambda a, b, s, t: (a / b, (a - b) / a, (a - b) / b, s / t),
    "delta upside down": lambda a, b, s, t: (*survey(a, b, s, t)[:3], t / s),
    "delta a difference": lambda a, b, s, t: (*survey(a, b, s, t)[:3], s - t),
    "delta a share": lambda a, b, s, t: (*survey(a, b, s, t)[:3], (s - t) / s),
    "per cent": lambda a, b, s, t: tuple(100 * one for one in survey(a, b, s, t)),
    "whole numbers": lambda a, b, s, t: (a // b, (a - b) // b, (a - b) / a, s / t),
    "never negative": lambda a, b, s, t: (a / b, max(0, (a - b) / b), max(0, (a - b) / a), s / t),
    "absolute": lambda a, b, s, t: (a / b, abs(a - b) / b, abs(a - b) / a, s / t),
    "beta is alpha": lambda a, b, s, t: (a / b, a / b, (a - b) / a, s / t),
    "what is left, not what is saved": lambda a, b, s, t: (a / b, (a - b) / b, b / a, s / t),
    "three of them": lambda a, b, s, t: survey(a, b, s, t)[:3],
}
CRITERIA_RIGHT = {
    "as printed": survey,
    "from alpha": lambda a, b, s, t: [a / b, a / b - 1, 1 - b / a, s / t],
    "in float32": lambda a, b, s, t: np.float32(survey(a, b, s, t)),
    "a tensor": lambda a, b, s, t: torch.tensor(survey(a, b, s, t)),
    "scalars of torch": lambda a, b, s, t: tuple(map(torch.tensor, survey(a, b, s, t))),
}

RANK_WRONG = {
    "equality counts as saving": lambda m, n: m * n // (m + n),
    "one too many below": lambda m, n: m * n // (m + n + 1),
    "one too few": lambda m, n: max(0, (m * n - 1) // (m + n) - 1),
    "only squares are special": lambda m, n: m * n // (m + n) - (m == n),
    "rounded": lambda m, n: round(m * n / (m + n)),
    "rounded up": lambda m, n: math.ceil(m * n / (m + n)),
    "not whole": lambda m, n: m * n / (m + n),
    "half of the full rank": lambda m, n: min(m, n) // 2,
    "full rank": lambda m, n: min(m, n),
    "always one": lambda m, n: max(1, (m * n - 1) // (m + n)),
    "a table of some shapes": lambda m, n: (m * n - 1) // (m + n) if (m, n) in {(500, 800), (64, 64)} else 1,
    "always one less": lambda m, n: m * n // (m + n) - 1,
    "true": lambda m, n: True,
}
RANK_RIGHT = {
    "below the quotient": lambda m, n: (m * n - 1) // (m + n),
    "counted upwards": lambda m, n: max([0, *(r for r in range(1, min(m, n) + 1) if r * (m + n) < m * n)]),
    "an integer of torch": lambda m, n: torch.tensor((m * n - 1) // (m + n)),
    "an integer of numpy": lambda m, n: np.int32((m * n - 1) // (m + n)),
    "a whole float": lambda m, n: np.ceil(m * n / (m + n)) - 1,
}

CODES_WRONG = {
    "weights alone": lambda w, o, b: w * b / 8,
    "all in few bits": lambda w, o, b: (w + o) * b / 8,
    "bits": lambda w, o, b: w * b + 32 * o,
    "others in half precision": lambda w, o, b: (w * b + 16 * o) / 8,
    "others in double precision": lambda w, o, b: (w * b + 64 * o) / 8,
    "all as floats": lambda w, o, b: 4 * (w + o),
    "whole bytes for each weight": lambda w, o, b: w * math.ceil(b / 8) + 4 * o,
    "powers of two": lambda w, o, b: w * 2 ** math.ceil(math.log2(b)) / 8 + 4 * o,
    "one bit more, for the sign": lambda w, o, b: w * (b + 1) / 8 + 4 * o,
    "bits for others, floats for weights": lambda w, o, b: (32 * w + b * o) / 8,
    "others once more in few bits": lambda w, o, b: ((w + o) * b + 32 * o) / 8,
    "codes that do not cross bytes": lambda w, o, b: w / (8 // b) + 4 * o,
}
CODES_RIGHT = {
    "bits over eight": lambda w, o, b: (w * b + o * 32) / 8,
    "whole bytes": lambda w, o, b: -(-w * b // 8) + 4 * o,
    "in float32": lambda w, o, b: np.float32(w * b / 8 + 4 * o),
    "a scalar of torch": lambda w, o, b: torch.tensor(w * b // 8 + 4 * o),
}


def gaps(places, density, bits, longest=1):
    return places * density / (1 - (1 - density) ** (2**bits - longest)) * bits / 8


GAPS_WRONG = {
    "no fillers": lambda p, d, b: p * d * b / 8,
    "bits": lambda p, d, b: 8 * gaps(p, d, b),
    "one filler at most": lambda p, d, b: p * d * (1 + (1 - d) ** (2**b - 1)) * b / 8,
    "a filler for every stretch": lambda p, d, b: (p * d + p / (2**b - 1)) * b / 8,
    "places as addresses": lambda p, d, b: p * d * 4,
    "a bit for each place": lambda p, d, b: p / 8,
    "density of the zeros": lambda p, d, b: gaps(p, 1 - d, b),
    "a weight beside each gap": lambda p, d, b: gaps(p, d, b) + 4 * p * d,
    "one byte for each code": lambda p, d, b: gaps(p, d, b) * 8 / b,
    "gaps of the mean length": lambda p, d, b: p * d * math.ceil(1 / d / (2**b - 1)) * b / 8,
    "half as many bits": lambda p, d, b: gaps(p, d, b - 1),
    "a table of some layers": lambda p, d, b: gaps(p, d, b) if d in (0.1, 0.01, 0.05, 0.3) else p * d * b / 8,
}


def gaps_simulated(places, density, bits):
    kept = np.flatnonzero(np.random.default_rng(1).random(places) < density)
    between = np.diff(kept, prepend=-1) - 1
    return (len(kept) + int((between // (2**bits - 1)).sum())) * bits / 8


GAPS_RIGHT = {
    "the chance of a filler": gaps,
    "a series": lambda p, d, b: p * d * sum((1 - d) ** ((2**b - 1) * k) for k in range(2000)) * b / 8,
    "simulated": gaps_simulated,
    "a scalar of torch": lambda p, d, b: torch.tensor(gaps(p, d, b)),
}

MAKERS, READERS = ("stem", "norm", "conv2", "norm2"), ("conv1.weight", "fc.weight")


def cut(tensors, gone, makers=MAKERS, readers=READERS, take=lambda t, axis, kept: t.index_select(axis, kept)):
    kept = torch.tensor([c for c in range(len(tensors["stem.weight"])) if c not in gone])
    axes = {name: 0 for name in tensors if name.split(".")[0] in makers} | dict.fromkeys(readers, 1)
    return {name: take(t, axes[name], kept) if name in axes else t for name, t in tensors.items()}


def by_length(tensors, gone):
    maps = len(tensors["stem.weight"])
    kept = torch.tensor([c for c in range(maps) if c not in gone])
    result = dict(tensors)
    for name, tensor in tensors.items():
        for axis, length in enumerate(tensor.shape):
            if length == maps:
                result[name] = result[name].index_select(axis, kept)
    return result


def by_first_length(tensors, gone):
    maps = len(tensors["stem.weight"])
    kept = torch.tensor([c for c in range(maps) if c not in gone])
    return {n: t.index_select(t.shape.index(maps), kept) if maps in t.shape else t for n, t in tensors.items()}


def changing_its_input(tensors, gone):
    for name, tensor in cut(tensors, gone).items():
        tensors[name] = tensor
    return tensors


def zeroing_its_input(tensors, gone):
    result = {name: tensor.clone() for name, tensor in cut(tensors, gone).items()}
    tensors["stem.weight"][gone] = 0
    return result


def one_after_another(tensors, gone):
    for channel in gone:  # the numbers of the others change meanwhile
        tensors = cut(tensors, [channel])
    return tensors


def zeroed(tensors, gone):
    result = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in result:
        if name.split(".")[0] in MAKERS:
            result[name][gone] = 0
    return result


def kept_in_place_of_gone(tensors, gone):
    return cut(tensors, [c for c in range(len(tensors["stem.weight"])) if c not in gone])


def with_numpy(tensors, gone):
    return cut(tensors, gone, take=lambda t, axis, kept: torch.from_numpy(np.delete(t.numpy(), gone, axis)))


def by_smallest_norm(tensors, gone):
    weakest = tensors["stem.weight"].abs().sum((1, 2, 3)).argsort()[: len(gone)].tolist()
    return cut(tensors, weakest)


THIN_WRONG = {
    "every axis of that length": by_length,
    "the first axis of that length": by_first_length,
    "its input changed": changing_its_input,
    "a tensor of its input zeroed": zeroing_its_input,
    "cast to float32": lambda t, g: {name: tensor.float() for name, tensor in cut(t, g).items()},
    "one after another": one_after_another,
    "zeros in place of channels": zeroed,
    "the channels that were to stay": kept_in_place_of_gone,
    "the first channels": lambda t, g: cut(t, list(range(len(g)))),
    "the last channels": lambda t, g: cut(t, list(range(len(t["stem.weight"]) - len(g), len(t["stem.weight"])))),
    "the weakest channels": by_smallest_norm,
    "statistics forgotten": lambda t, g: cut(t, g) | {n: x for n, x in t.items() if "running" in n},
    "the classifier forgotten": lambda t, g: cut(t, g, readers=READERS[:1]),
    "the branch not read": lambda t, g: cut(t, g, readers=READERS[1:]),
    "the shortcut alone": lambda t, g: cut(t, g, makers=MAKERS[:2]),
    "shifts of the sum doubled": lambda t, g: cut(t, g) | {"norm2.bias": 2 * cut(t, g)["norm2.bias"]},
    "branch in another order": lambda t, g: cut(t, g) | {
        n: x.flip(0) for n, x in cut(t, g).items() if n.split(".")[0] in ("conv2", "norm2")
    },
    "six maps by heart": lambda t, g: {
        n: x[[c for c in range(6) if c not in g]] if n.split(".")[0] in MAKERS else x for n, x in t.items()
    },
    "numbers of numpy": lambda t, g: {name: tensor.numpy() for name, tensor in cut(t, g).items()},
    "one tensor missing": lambda t, g: {n: x for n, x in cut(t, g).items() if n != "norm.running_var"},
}  # fmt: skip
THIN_RIGHT = {
    "by index": cut,
    "by a mask": lambda t, g: cut(
        t, g, take=lambda x, axis, kept: x[:, [c not in g for c in range(x.shape[1])]] if axis else
        x[torch.tensor([c not in g for c in range(len(x))])]
    ),
    "with numpy": with_numpy,
    "in another order, alike everywhere": lambda t, g: cut(
        t, g, take=lambda x, axis, kept: x.index_select(axis, kept.flip(0))
    ),
    "from the last to the first": lambda t, g: one_after_another(t, sorted(g, reverse=True)),
    "as parameters": lambda t, g: {n: torch.nn.Parameter(x) for n, x in cut(t, g).items()},
    "as views, last axis first": lambda t, g: cut(
        t, g, take=lambda x, axis, kept: x.transpose(0, axis)[kept].transpose(0, axis)
    ),
}  # fmt: skip


def levels(weights, bits, step=None, rounded=torch.round):
    top = 2 ** (bits - 1) - 1
    step = weights.abs().max() / top if step is None else step
    return (rounded(weights / step).clamp(-top, top)) * step


def affine(weights, bits):
    low = weights.min()
    step = (weights.max() - low) / (2**bits - 1)
    return low + step * torch.round((weights - low) / step)


QUANTIZER_WRONG = {
    "the lowest code as well": lambda w, b: torch.round(w / (s := w.abs().max() / 2 ** (b - 1))) * s,
    "twice as many levels": lambda w, b: levels(w, b + 1),
    "half as many levels": lambda w, b: levels(w, max(2, b - 1)) if b > 2 else torch.zeros_like(w),
    "rounded down": lambda w, b: levels(w, b, rounded=torch.floor),
    "rounded toward zero": lambda w, b: levels(w, b, rounded=torch.trunc),
    "codes in place of weights": lambda w, b: torch.round(w / (w.abs().max() / (2 ** (b - 1) - 1))),
    "from the smallest to the largest": affine,
    "a step from the standard deviation": lambda w, b: levels(w, b, 2 * w.std() / (2 ** (b - 1) - 1)),
    "a step for each row": lambda w, b: torch.stack([levels(row, b) for row in w]) if w.ndim > 1 else levels(w, b),
    "signs lost": lambda w, b: levels(w.abs(), b),
    "nothing rounded": lambda w, b: w,
    "changed in place": lambda w, b: w.copy_(levels(w, b)),
    "flattened": lambda w, b: levels(w, b).reshape(-1, 1),
    "the largest of one side": lambda w, b: levels(w, b, w.max() / (2 ** (b - 1) - 1)),
}
QUANTIZER_RIGHT = {
    "step, round, multiply": levels,
    "in numpy": lambda w, b: levels(w.double(), b).numpy(),
    "by the nearest of all levels": lambda w, b: (
        all_levels := torch.arange(-(2 ** (b - 1)) + 1, 2 ** (b - 1)) * w.abs().max() / (2 ** (b - 1) - 1)
    )[(w[..., None] - all_levels).abs().argmin(-1)],
    "by torch": lambda w, b: torch.fake_quantize_per_tensor_affine(
        w, float(w.abs().max()) / (2 ** (b - 1) - 1), 0, -(2 ** (b - 1)) + 1, 2 ** (b - 1) - 1
    ),
}


def passed(x, step, top, inside=lambda codes, top: codes.abs() <= top, slope=1.0):
    codes = torch.round(x / step)
    return codes.clamp(-top, top) * step, slope * inside(codes, top).float()


def by_torch(x, step, top):
    x = x.clone().requires_grad_()
    values = torch.fake_quantize_per_tensor_affine(x, step, 0, -top, top)
    values.sum().backward()
    return values, x.grad


def plain_round(x, step, top):
    x = x.clone().requires_grad_()
    values = torch.round(x / step).clamp(-top, top) * step
    values.sum().backward()
    return values.detach(), x.grad


def detached(x, step, top):
    x = x.clone().requires_grad_()
    codes = x / step
    codes = codes + (torch.round(codes) - codes).detach()
    values = codes.clamp(-top, top) * step
    values.sum().backward()
    return values.detach(), x.grad


STRAIGHT_WRONG = {
    "plain round": plain_round,
    "passed where clipped": lambda x, s, t: passed(x, s, t, lambda codes, top: codes.abs() < 1e9),
    "not at the last code": lambda x, s, t: passed(x, s, t, lambda codes, top: codes.abs() < top),
    "clipped at the last level": lambda x, s, t: (passed(x, s, t)[0], (x.abs() <= s * t * (1 + 1e-6)).float()),
    "within one": lambda x, s, t: (passed(x, s, t)[0], (x.abs() <= 1).float()),
    "times the step": lambda x, s, t: passed(x, s, t, slope=s),
    "one side clipped": lambda x, s, t: passed(x, s, t, lambda codes, top: codes <= top),
    "values not clipped": lambda x, s, t: (torch.round(x / s) * s, passed(x, s, t)[1]),
    "codes as values": lambda x, s, t: (torch.round(x / s).clamp(-t, t), passed(x, s, t)[1]),
    "gradient first": lambda x, s, t: passed(x, s, t)[::-1],
    "values alone": lambda x, s, t: passed(x, s, t)[0],
}
STRAIGHT_RIGHT = {
    "a mask": passed,
    "by torch": by_torch,
    "the rounding detached": detached,
    "in numpy": lambda x, s, t: tuple(one.numpy() for one in passed(x, s, t)),
}


def sides(shape):
    """The sides of the matrix that is factored: of a linear layer itself, of a convolution vertical and horizontal."""
    out, inside, height, width = (*shape, 1, 1)[:4]
    return inside * height, out * width


def saving(rows, columns):
    return (rows * columns - 1) // (rows + columns)


def without_kernel(shape):
    return saving(shape[0], shape[1])


def with_kernel(shape, vertical, horizontal):
    """The largest rank where, by mistake, other sides of the kernel count in the two factors."""
    if len(shape) == 2:
        return saving(*shape)
    out, inside, *window = shape
    factors = inside * vertical(*window) + out * horizontal(*window)
    return (math.prod(shape) - 1) // factors


BREAK_EVEN_WRONG = {
    "the kernel forgotten": without_kernel,
    "equality counts as saving": lambda s: math.prod(sides(s)) // sum(sides(s)),
    "rounded": lambda s: round(math.prod(sides(s)) / sum(sides(s))),
    "rounded up": lambda s: math.ceil(math.prod(sides(s)) / sum(sides(s))),
    "not whole": lambda s: math.prod(sides(s)) / sum(sides(s)),
    "one too few": lambda s: max(0, saving(*sides(s)) - 1),
    "always at least one": lambda s: max(1, saving(*sides(s))),
    "one less than the floor": lambda s: math.prod(sides(s)) // sum(sides(s)) - 1,
    "kernels taken as square, by their height": lambda s: with_kernel(s, lambda h, w: h, lambda h, w: h),
    "kernels taken as square, by their width": lambda s: with_kernel(s, lambda h, w: w, lambda h, w: w),
    "height ignored": lambda s: with_kernel(s, lambda h, w: 1, lambda h, w: w),
    "width ignored": lambda s: with_kernel(s, lambda h, w: h, lambda h, w: 1),
    "height and width exchanged": lambda s: with_kernel(s, lambda h, w: w, lambda h, w: h),
    "the whole kernel in both": lambda s: with_kernel(s, lambda h, w: h * w, lambda h, w: h * w),
    "the whole kernel in the first": lambda s: with_kernel(s, lambda h, w: h * w, lambda h, w: 1),
    "full rank": lambda s: min(sides(s)),
    "the example by heart": lambda s: 95 if list(s) == [64, 64, 3, 3] else without_kernel(s),
    "convolutions alone": lambda s: saving(*sides(s)) if len(s) == 4 else 0,
    "its input changed": lambda s: s.append(1) or saving(*sides(s[:-1])),
}
BREAK_EVEN_RIGHT = {
    "below the quotient": lambda s: saving(*sides(s)),
    "counted upwards": lambda s: next(r for r in range(10**6) if (r + 1) * sum(sides(s)) >= math.prod(s)),
    "a whole float of numpy": lambda s: np.ceil(np.prod(s) / sum(sides(s))) - 1,
    "an integer of torch": lambda s: torch.tensor(saving(*sides(s))),
    "no negative one": lambda s: max(0, saving(*sides(s))),
}

HARD_WRONG = {
    "Sobel": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    "Laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "Laplacian with corners": [[1, 1, 1], [1, -8, 1], [1, 1, 1]],
    "a mean": torch.ones(3, 3) / 9,
    "a diagonal edge": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0.5]],
    "just too close to rank one": torch.diag(torch.tensor([1.01, 1.0, 0.0])),
    "zeros": [[0] * 3] * 3,
    "not a number": [[float("nan"), 0, 0], [0, 1, 0], [0, 0, 1]],
    "infinite": [[float("inf"), 0, 0], [0, 1, 0], [0, 0, 1]],
    "two rows": [[1, 0, 0], [0, 1, 0]],
    "five by five": np.eye(5),
    "a batch of one": torch.eye(3)[None],
    "flat": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "rows of several lengths": [[1, 0, 0], [0, 1], [0, 0, 1]],
    "texts": [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]],
    "complex": torch.eye(3, dtype=torch.complex64),
    "complex numbers in lists": [[1j, 0, 0], [0, 1, 0], [0, 0, 1]],
    "beyond all floats": [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]],
    "a function": lambda: torch.eye(3),
    "a number": 0.33,
    "nothing": None,
    "dots": ...,
}
HARD_RIGHT = {
    "the identity": torch.eye(3),
    "exactly half": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    "half in single precision": torch.tensor([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 0]]),
    "a reflection": (np.eye(3) - 2 / 3).tolist(),
    "another diagonal": [[0, 0, 1], [0, -1, 0], [1, 0, 0]],
    "huge": (1e300 * np.eye(3)).tolist(),
    "of whole numbers": torch.eye(3, dtype=torch.int64),
}


def softened(student, teacher, t, factor=None, exchange=False, slope=1.0, mean=True):
    """Loss and gradient by autograd, with a mistake if asked for one."""
    z = student.clone().requires_grad_()
    p, q = torch.log_softmax(z / t, 1), torch.log_softmax(teacher / t, 1)
    p, q = (q, p) if exchange else (p, q)
    loss = (q.exp() * (q - p)).sum() / (len(z) if mean else 1)
    loss = loss * (t**2 if factor is None else factor)
    loss.backward()
    return loss.detach(), slope * z.grad


def by_hand(student, teacher, t):
    p, q = torch.softmax(student / t, 1), torch.softmax(teacher / t, 1)
    return t * t * (q * (q.log() - p.log())).sum(1).mean(), t * (p - q) / len(student)


def right_gradient(function):
    return lambda s, q, t: (function(s, q, t), by_hand(s, q, t)[1])


SOFT_WRONG = {
    "T squared missing": lambda s, q, t: softened(s, q, t, factor=1),
    "T for its square": lambda s, q, t: softened(s, q, t, factor=t),
    "the mean over classes too": lambda s, q, t: tuple(one / s.shape[1] for one in by_hand(s, q, t)),
    "the sum over images": lambda s, q, t: softened(s, q, t, mean=False),
    "student and teacher exchanged": lambda s, q, t: softened(s, q, t, exchange=True),
    "one logit not softened": lambda s, q, t: by_hand(s * t, q, t),
    "the teacher not softened": lambda s, q, t: by_hand(s, q * t, t),
    "softened over the images": lambda s, q, t: by_hand(s.T, q.T, t),
    "the cross entropy": right_gradient(
        lambda s, q, t: -t * t * (torch.softmax(q / t, 1) * torch.log_softmax(s / t, 1)).sum(1).mean()
    ),
    "the gradient without T": lambda s, q, t: (by_hand(s, q, t)[0], by_hand(s, q, t)[1] / t),
    "the gradient with T squared": lambda s, q, t: (by_hand(s, q, t)[0], by_hand(s, q, t)[1] * t),
    "the gradient of the sum": lambda s, q, t: (by_hand(s, q, t)[0], by_hand(s, q, t)[1] * len(s)),
    "the other direction": lambda s, q, t: (by_hand(s, q, t)[0], -by_hand(s, q, t)[1]),
    "a loss for each image": lambda s, q, t: ((s - q).square().sum(1), by_hand(s, q, t)[1]),
    "squared differences of logits": lambda s, q, t: ((s - q).square().mean() / 2, (s - q) / s.numel()),
    "the loss alone": lambda s, q, t: by_hand(s, q, t)[0],
    "gradient first": lambda s, q, t: by_hand(s, q, t)[::-1],
}
SOFT_RIGHT = {
    "by hand": by_hand,
    "by autograd": softened,
    "in numpy": lambda s, q, t: tuple(one.numpy() for one in by_hand(s, q, t)),
    "lists": lambda s, q, t: [one.tolist() for one in by_hand(s, q, t)],
    "by torch's divergence": right_gradient(
        lambda s, q, t: t**2 * torch.nn.functional.kl_div(
            torch.log_softmax(s / t, 1), torch.softmax(q / t, 1), reduction="batchmean")
    ),
}  # fmt: skip


def what_is_wrong(one):
    taught, alone = one["taught"], one["alone"]
    if one["student"]["parameters"] > one["teacher"]["parameters"]:
        return "roles"
    if taught["seed"] != alone["seed"]:
        return "seed"
    if taught["epochs"] != alone["epochs"]:
        return "epochs"
    return "selection" if one["temperature_chosen_on"] == one["accuracies_on"] else "fair"


def but(reason, test, otherwise="fair"):
    """The right answers, but where a reason is looked for with another test."""

    def judge(one):
        if test(one):
            return reason
        found = what_is_wrong(one)
        return otherwise if found == reason else found

    return lambda log: [judge(one) for one in log]


def unfair_where_lower(log):
    return ["roles" if one["taught"]["accuracy"] < one["alone"]["accuracy"] else what_is_wrong(one) for one in log]


FAIR_WRONG = {
    "the lower accuracy": unfair_where_lower,
    "all are fair": lambda log: ["fair"] * len(log),
    "none is fair": lambda log: ["selection" if what_is_wrong(one) == "fair" else what_is_wrong(one) for one in log],
    "the order of the list": lambda log: ["fair", "roles", "seed", "epochs", "selection"][: len(log)],
    "more epochs for the taught one only": but("epochs", lambda one: one["taught"]["epochs"] > one["alone"]["epochs"]),
    "more epochs for the other one only": but("epochs", lambda one: one["taught"]["epochs"] < one["alone"]["epochs"]),
    "all that was chosen on test": but("selection", lambda one: one["temperature_chosen_on"] == "test"),
    "all that is read on validation": but("selection", lambda one: one["accuracies_on"] == "validation"),
    "roles by accuracy": but("roles", lambda one: one["taught"]["accuracy"] < one["alone"]["accuracy"]),
    "seeds ignored": lambda log: ["fair" if what_is_wrong(one) == "seed" else what_is_wrong(one) for one in log],
    "other words": lambda log: ["unfair" if what_is_wrong(one) != "fair" else "fair" for one in log],
    "one word": lambda log: what_is_wrong(log[0]),
    "one too few": lambda log: [what_is_wrong(one) for one in log][1:],
}
FAIR_RIGHT = {
    "one after the other": lambda log: [what_is_wrong(one) for one in log],
    "a tuple": lambda log: tuple(map(what_is_wrong, log)),
    "asked in another order": but("epochs", lambda one: len({one[arm]["epochs"] for arm in ("taught", "alone")}) == 2),
}


def searched(z, y, c, steps=range(-50, 150), score=None):
    def right(bias):
        moved = z.clone()
        moved[:, c] += bias
        good = moved.argmax(1) == y
        return (score or (lambda g: g.float().mean().item()))(good)

    return max((at / 10 for at in steps), key=right)


def as_often(z, y, c):
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        moved = z.clone()
        moved[:, c] += middle
        few = (moved.argmax(1) == c).sum() < (y == c).sum()
        low, high = (middle, high) if few else (low, middle)
    return low


MISSING_WRONG = {
    "nothing": lambda z, y, c: 0,
    "as much as it takes for the class alone": lambda z, y, c: float((z.max(1).values - z[:, c])[y == c].max()),
    "for the class alone": lambda z, y, c: searched(z[y == c], y[y == c], c),
    "far too much": lambda z, y, c: 1e6,
    "the other sign": lambda z, y, c: -searched(z, y, c),
    "twice as much": lambda z, y, c: 2 * searched(z, y, c),
    "half as much": lambda z, y, c: searched(z, y, c) / 2,
    "the first class": lambda z, y, c: searched(z, y, (c + 1) % z.shape[1]),
    "a list": lambda z, y, c: [searched(z, y, c)],
    "infinite": lambda z, y, c: float("inf"),
    "a look-up": lambda z, y, c: 2.5,
    "means of the right logits made equal": lambda z, y, c: float(
        z[torch.arange(len(y)), y][y != c].mean() - z[:, c].mean()
    ),
}
MISSING_RIGHT = {
    "searched": searched,
    "answered as often as it occurs": as_often,
    "a tensor": lambda z, y, c: torch.tensor(searched(z, y, c)),
}

WRONG = {
    "interval": INTERVAL_WRONG, "paired": PAIRED_WRONG, "dense_bytes": DENSE_WRONG, "criteria": CRITERIA_WRONG,
    "largest_rank": RANK_WRONG, "quantized_bytes": CODES_WRONG, "gap_bytes": GAPS_WRONG, "thin": THIN_WRONG,
    "quantizer": QUANTIZER_WRONG, "straight_through": STRAIGHT_WRONG,
    "break_even": BREAK_EVEN_WRONG, "hard_filter": HARD_WRONG,
    "soft_gradient": SOFT_WRONG, "fair_comparisons": FAIR_WRONG, "missing_class": MISSING_WRONG,
}  # fmt: skip
RIGHT = {
    "interval": INTERVAL_RIGHT, "paired": PAIRED_RIGHT, "dense_bytes": DENSE_RIGHT, "criteria": CRITERIA_RIGHT,
    "largest_rank": RANK_RIGHT, "quantized_bytes": CODES_RIGHT, "gap_bytes": GAPS_RIGHT, "thin": THIN_RIGHT,
    "quantizer": QUANTIZER_RIGHT, "straight_through": STRAIGHT_RIGHT,
    "break_even": BREAK_EVEN_RIGHT, "hard_filter": HARD_RIGHT,
    "soft_gradient": SOFT_RIGHT, "fair_comparisons": FAIR_RIGHT, "missing_class": MISSING_RIGHT,
}  # fmt: skip
