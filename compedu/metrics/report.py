"""The record of what was measured; what was not measured is None, and absent in every other form of the record."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from compedu.compression import Skipped
from compedu.metrics.accuracy import Change, Interval, wilson
from compedu.metrics.declared import check_declared
from compedu.metrics.latency import Latency


class Flip(NamedTuple):
    """An image whose prediction changed: its index in the split, its true class, the class before and after."""

    image: int
    true: int
    before: int
    after: int


@dataclass(frozen=True)
class LayerRow:
    """One layer that holds numbers: `bytes` in the packed file, multiply-accumulates for one image, what runs.

    Products between activations, as in attention, belong to no layer and count in the report alone. `bits_per_weight`
    are all its bits for each weight of the dense layer, `error` the distance of its weight from the baseline's,
    relative to that (Frobenius norm).
    """

    name: str
    form: str
    shape: tuple[int, ...]
    bytes: int
    parameters: int
    bits_per_weight: float | None = None
    macs: int | None = None
    error: float | None = None
    kernel: str | None = None


@dataclass(frozen=True)
class Report:
    """What one model measures on one split; `partial` while images or figures are still to come.

    `correct` counts among the first `seen` of `total` images. `loss` is the mean cross entropy in nats; where answers
    are no classes, it is that of the data's objective, and `criterion` says when one is correct. `file_bytes` is
    the length of the packed model file, `entropy_coded_bytes` of the entropy-coded one, `size_by_role` sorts the packed
    bytes by what they are for. `macs` are multiply-accumulates for one image, `uncounted` names products that could not
    be counted. `baseline_...` are the same of the baseline.
    """

    method: str
    model: str
    data: str
    split: str
    machine: dict[str, str | int]
    correct: int
    seen: int
    total: int
    loss: float
    partial: bool = False
    parameters: int | None = None
    macs: int | None = None
    uncounted: tuple[str, ...] = ()
    file_bytes: int | None = None
    entropy_coded_bytes: int | None = None
    size_by_role: dict[str, int] | None = None
    baseline_parameters: int | None = None
    baseline_macs: int | None = None
    baseline_file_bytes: int | None = None
    baseline_entropy_coded_bytes: int | None = None
    change: Change | None = None
    latency: Latency | None = None
    layers: tuple[LayerRow, ...] | None = None
    skipped: tuple[Skipped, ...] = ()
    newly_wrong: tuple[Flip, ...] | None = None
    newly_right: tuple[Flip, ...] | None = None
    criterion: str | None = None

    @property
    def accuracy(self) -> float:
        """The share of images that are answered correctly, 0..1: by the largest logit, or as `criterion` says."""
        return self.correct / self.seen

    @property
    def accuracy_interval(self) -> Interval:
        """The 95 % score interval of `accuracy`."""
        return wilson(self.correct, self.seen)

    @property
    def compression_rate(self) -> float | None:
        """Alpha of the survey (Cheng et al. 2018): the baseline's parameters over the model's.

        It counts numbers, not bits: a network of 8-bit weights has an alpha of 1; see `compression_rate_bytes`.
        """
        return _ratio(self.baseline_parameters, self.parameters)

    @property
    def compression_rate_bytes(self) -> float | None:
        """The length of the baseline's packed file over the model's, indices, codebooks and header included."""
        return _ratio(self.baseline_file_bytes, self.file_bytes)

    @property
    def index_space_saving_printed(self) -> float | None:
        """Beta as the survey prints it, (a - a*) / a* = alpha - 1: it has no upper bound."""
        return None if self.compression_rate is None else self.compression_rate - 1

    @property
    def index_space_saving(self) -> float | None:
        """Beta in its standard form, (a - a*) / a = 1 - 1 / alpha: the share of parameters saved."""
        return None if self.compression_rate is None else 1 - 1 / self.compression_rate

    @property
    def speed_up_rate(self) -> float | None:
        """Delta of the survey: the baseline's time over the model's, the median of interleaved pairs."""
        return None if self.latency is None else self.latency.speed_up

    def as_dict(self) -> dict[str, Any]:
        """Return all that was measured, and the figures derived from it, in types that JSON has."""
        derived = {name: getattr(self, name) for name in DERIVED}
        return _plain(self) | {name: _plain(value) for name, value in derived.items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """Return the report that `as_dict` wrote; raise `ValueError` where an entry is missing or of another type."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        try:
            for name, record in (("change", Change), ("latency", Latency)):
                if name in known:
                    known[name] = _record(record, known[name])
            for name, record in (("layers", LayerRow), ("skipped", Skipped)):
                if name in known:
                    known[name] = tuple(_record(record, row) for row in known[name])
            known["uncounted"] = tuple(known.get("uncounted", ()))
            for name in ("newly_wrong", "newly_right"):
                if name in known:
                    known[name] = tuple(Flip(*flip) for flip in known[name])
            report = cls(**known)
            check_declared(report)
            return report
        except (TypeError, AttributeError) as error:
            raise ValueError(f"this is not a report: {error}") from error

    def __str__(self) -> str:
        from compedu.metrics.card import card

        return card(self)


DERIVED = (
    "accuracy",
    "accuracy_interval",
    "compression_rate",
    "compression_rate_bytes",
    "index_space_saving_printed",
    "index_space_saving",
    "speed_up_rate",
)
_ALSO = {Change: ("difference", "interval", "p_value"), Latency: ("verdict",)}  # figures derived from the parts


def _ratio(above: int | None, below: int | None) -> float | None:
    return None if above is None or not below else above / below


def _plain(value: Any) -> Any:
    """Return `value` made of dicts, lists and simple values; entries that are None are left out."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        own = (field.name for field in fields(value) if field.metadata.get("stored", True))
        names = (*own, *_ALSO.get(type(value), ()))
        return {name: _plain(getattr(value, name)) for name in names if getattr(value, name) is not None}
    return dict(value) if isinstance(value, dict) else value


def _record(record: type, values: dict[str, Any]) -> Any:
    """Return the dataclass `record` with its own entries of `values`, lists as tuples."""
    known = {field.name: values[field.name] for field in fields(record) if field.name in values}
    return record(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
