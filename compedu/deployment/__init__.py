"""Deployment: what really runs at inference, and the name of each layer's kernel."""

from compedu.deployment.deploy import Deployed, deploy
from compedu.deployment.kernels.int8 import Capability, available

__all__ = ["Capability", "Deployed", "available", "deploy"]
