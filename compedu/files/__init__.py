"""Model files: bit packing, entropy coding, and the one file whose length is the size that compedu reports."""

from compedu.files.inspection import FileMap, Row, describe, inspect, map_of
from compedu.files.limits import Limits
from compedu.files.model_file import file_sizes, from_bytes, load, model_bytes, save
from compedu.files.streams import CODINGS

__all__ = [
    "CODINGS",
    "FileMap",
    "Limits",
    "Row",
    "describe",
    "file_sizes",
    "from_bytes",
    "inspect",
    "load",
    "map_of",
    "model_bytes",
    "save",
]
