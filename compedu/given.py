"""What is handed over by mistake in place of a network, refused in words; the words serve for data and methods too."""

from torch import nn


def refuse_no_network(given: object) -> None:
    """Raise `TypeError` where `given` is not a network, with what was probably meant."""
    if not isinstance(given, nn.Module):
        raise TypeError(f"a network is needed, a torch.nn.Module, {got(given)}{advice(given)}")


def got(given: object) -> str:
    """Say what was given; of a class, that it has to be called."""
    if isinstance(given, type):
        return f"got the class {given.__name__}: make one of it, {given.__name__}(...)"
    return f"got {given!r}" if given is None or isinstance(given, str) else f"got a {type(given).__name__}"


def advice(given: object) -> str:
    """Say how a network and its data are had, to those who give both together, or a name."""
    if not isinstance(given, (tuple, str)):
        return ""
    return "; compedu.load returns both: model, data = compedu.load('lenet5', 'digits')"
