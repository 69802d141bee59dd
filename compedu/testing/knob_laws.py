"""Laws of what a method says of itself: knobs, `repr`, key and docstring."""

import inspect
import math

from compedu.knobs import knobs
from compedu.methods import FAMILIES, METHODS, Method, Pipeline
from compedu.methods.method import NEEDS
from compedu.methods.training_method import TrainingMethod
from compedu.testing.networks import data, misfit, normalized, plain, tiny
from compedu.testing.trying import LONG, ends, logits, quick, refused, suited, variants

DOCUMENTED = ("$", "Stored:", "Skips:", "Paper:")


def defaults_construct(cls: type[Method]) -> None:
    """A method can be made from its defaults, and says what its knobs are."""
    method = cls()
    assert method.needs in NEEDS and cls.family in FAMILIES and cls.version >= 1
    assert repr(method) == f"{cls.__name__}()"
    if cls.identity_settings is not None:
        assert cls.identity_settings.keys() <= knobs(cls).keys() and cls(**cls.identity_settings)
    for name, declared in knobs(cls).items():
        assert declared.help and not declared.help[0].isupper() and not declared.help.endswith(".")
        for value in declared.points():
            assert declared.allows(value), f"{name} would show {value!r}, which is illegal"


def values_outside_the_range_are_refused_by_name(cls: type[Method]) -> None:
    """A value outside of a knob's range is refused with class, knob, range and meaning."""
    for name, declared in knobs(cls).items():
        bad = list(declared.bad_values())
        if declared.per_layer:
            bad += [{}, {1: declared.default}] + [{"*": value} for value in declared.bad_values()]
        assert bad
        for value in bad:
            with refused(ValueError) as messages:
                cls(**{name: value})
            (message,) = messages
            assert message.startswith(f"{cls.__name__}.{name} must be {declared}"), message
            assert repr(value) in message and declared.help in message


def the_ends_of_what_is_legal_work_or_are_refused_by_name(cls: type[Method]) -> None:
    """No legal value ends in an error of torch: not the least, not the largest, not the smallest fraction.

    The knobs of all trainings are tried on those that train and do nothing else.
    """
    others = knobs(TrainingMethod) if cls.family != "training" else {}
    for name, declared in knobs(cls).items():
        for value in () if name in (*LONG, *others) else ends(declared):
            short = {long: 1 for long in LONG if long in knobs(cls)}
            try:
                assert logits(quick(cls, **short | {name: value})(suited(cls)[0](), tiny())).shape == (32, 10)
            except ValueError as refusal:
                assert cls.__name__ in str(refusal) or "diverged" in str(refusal), refusal


def the_repr_is_the_method(cls: type[Method]) -> None:
    """The `repr` of a method, or of a pipeline with it, makes an equal one."""
    names = {method.__name__: method for method in (*METHODS, cls)} | {"nan": math.nan}
    for method in variants(cls):
        assert eval(repr(method), names) == method
    pair = quick(cls) | cls()
    assert eval(repr(pair), names) == pair and isinstance(pair, Pipeline)


def the_key_tells_every_setting_apart(cls: type[Method]) -> None:
    """Each setting has a key of its own, as has each network and each data set."""
    model = plain()
    data_ = data()
    keys = [method.key(model, data_) for method in variants(cls)]
    assert len(set(keys)) == len(keys)
    assert quick(cls).key(plain(), data_) == keys[0]
    assert quick(cls).key(normalized(), data_) != keys[0] != quick(cls).key(model, misfit())


def the_docstring_is_complete(cls: type[Method]) -> None:
    """The docstring has a sentence, a formula, what is stored, what is skipped, and the paper."""
    text = inspect.getdoc(cls)
    assert text and text.split("\n")[0].endswith("."), "the first line is one sentence"
    places = [text.find(part) for part in DOCUMENTED]
    assert -1 not in places and places == sorted(places), f"{cls.__name__} needs {DOCUMENTED} in this order"


LAWS = (
    defaults_construct,
    values_outside_the_range_are_refused_by_name,
    the_ends_of_what_is_legal_work_or_are_refused_by_name,
    the_repr_is_the_method,
    the_key_tells_every_setting_apart,
    the_docstring_is_complete,
)
