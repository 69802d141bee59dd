"""Compressed layers, each of which stands for a dense one and says what a file must hold; blocks of ordinary layers."""

from compedu.forms.activation import ActivationQuantizer
from compedu.forms.adapted import Adapted
from compedu.forms.attention import OpenAttention
from compedu.forms.block import BLOCKS, Block, Deepened, Fire, NormalizedFactors, Separable
from compedu.forms.block_floats import BlockFloats
from compedu.forms.factored import Factored
from compedu.forms.facts import FormFacts, free_numbers_of
from compedu.forms.form import Form, Geometry, LatentForm, precise, trained_weight, weight_of
from compedu.forms.masked import Masked, mask_of
from compedu.forms.parts import Codes, Floats, Positions
from compedu.forms.predicted import Predicted
from compedu.forms.quantized import Quantized
from compedu.forms.reordered import Reordered
from compedu.forms.structured import BlockCirculant
from compedu.forms.transferred import CReLUFilters
from compedu.forms.walk import outermost_forms, outside_forms

FORMS: tuple[type[Form], ...] = (
    Masked, Quantized, BlockFloats, BlockCirculant, Factored, CReLUFilters, Reordered, Predicted, Adapted,
)  # fmt: skip

__all__ = [
    "BLOCKS",
    "FORMS",
    "ActivationQuantizer",
    "Adapted",
    "Block",
    "BlockCirculant",
    "BlockFloats",
    "CReLUFilters",
    "Codes",
    "Deepened",
    "Factored",
    "Fire",
    "Floats",
    "Form",
    "FormFacts",
    "Geometry",
    "LatentForm",
    "Masked",
    "NormalizedFactors",
    "OpenAttention",
    "Positions",
    "Predicted",
    "Quantized",
    "Reordered",
    "Separable",
    "free_numbers_of",
    "mask_of",
    "outermost_forms",
    "outside_forms",
    "precise",
    "trained_weight",
    "weight_of",
]
