"""The laws of `compedu.testing` and what they are made of, under one name for the tests."""

# ruff: noqa: F401, F403
from compedu.testing.knob_laws import *
from compedu.testing.layer_laws import *
from compedu.testing.networks import *
from compedu.testing.result_laws import *
from compedu.testing.trying import *

from compedu.testing import LAWS, check_method  # isort: skip  # after those of each file
