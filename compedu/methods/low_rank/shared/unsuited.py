"""Why low-rank methods leave layers of some geometries alone, in words; the words are empty for all others."""

from compedu.forms import Geometry


def grouped(geometry: Geometry, mixing: str) -> str:
    """Say that a layer is a convolution in groups, which `mixing` would not keep apart, "" if it is not."""
    return f"is a convolution in {geometry.groups} groups; {mixing} would mix them" if geometry.groups > 1 else ""


def not_wide(geometry: Geometry) -> str:
    """Say why a layer is not a convolution with a kernel of more than one position, "" if it is."""
    if geometry.kind != "conv2d":
        return "is not a convolution; TruncatedSVD factors linear layers"
    if geometry.shape[2:] == (1, 1):
        return "is a 1x1 convolution, whose weight is a matrix; TruncatedSVD factors it"
    return ""
