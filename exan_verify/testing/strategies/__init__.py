"""Hypothesis strategies: networks, batches and questions, gradients and exclusivity states."""

from exan_verify.testing.strategies.basic import LOSSES, REDUCTIONS, batches, networks
from exan_verify.testing.strategies.printing import register
from exan_verify.testing.strategies.questions import STATES, exclusivity_states, gradients, questions
from exan_verify.testing.strategies.releases import releases
from exan_verify.testing.strategies.stages import STAGES, staged_networks

__all__ = [
    "LOSSES",
    "REDUCTIONS",
    "STAGES",
    "STATES",
    "batches",
    "exclusivity_states",
    "gradients",
    "networks",
    "questions",
    "releases",
    "staged_networks",
]

register()
