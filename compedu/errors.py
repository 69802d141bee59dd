"""The errors that compedu raises for models, data and files; a bad knob raises a plain `ValueError`."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]


class CompressionError(ValueError):
    """A model or data set that cannot be used as asked; the message says where, what is wrong, and what to do."""


class FileFormatError(CompressionError):
    """A file that is not an intact compedu model file of a known version; nothing was loaded from it."""


class MeaningChanged(CompressionError):
    """A compressed network that does not compute what its dense weights would: a bug in a form."""


class MissingData(CompressionError):
    """A data set that is not on this machine; the message says how to get it."""


class Cancelled(Exception):
    """The learner cancelled a running training; the input model is untouched."""


class Skip(Exception):
    """Raised by a method for a layer that it cannot handle; the reason goes into the report."""
