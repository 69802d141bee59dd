"""Training: recipe, loop, losses, optimizers, modules that train with the network, saved state."""

from compedu.training.companions import Companion
from compedu.training.interruption import interrupt_between_steps
from compedu.training.listening import Step, counted, listening
from compedu.training.loop import fit
from compedu.training.losses import AUXILIARY, Loss, loss_of, refuse_changed_targets, supervised_loss
from compedu.training.optimizers import SGD, SGLD, AdamW, Optimizer
from compedu.training.recipe import Recipe
from compedu.training.run import SAVE_EVERY_S
from compedu.training.side_by_side import side_by_side

__all__ = [
    "AUXILIARY",
    "SAVE_EVERY_S",
    "SGD",
    "SGLD",
    "AdamW",
    "Companion",
    "Loss",
    "Optimizer",
    "Recipe",
    "Step",
    "counted",
    "fit",
    "interrupt_between_steps",
    "listening",
    "loss_of",
    "refuse_changed_targets",
    "side_by_side",
    "supervised_loss",
]
