"""The survey's drawbacks and suggestions as experiments: what is claimed, what was run, a verdict at our scale."""

from compedu.claims.experiments import Experiment
from compedu.claims.judgment import Judgment, Part, judge
from compedu.claims.survey.competitive_students import COMPETITIVE_STUDENTS
from compedu.claims.survey.decomposition_cost import DECOMPOSITION_COST
from compedu.claims.survey.decomposition_effort import DECOMPOSITION_EFFORT
from compedu.claims.survey.layerwise_ranks import LAYERWISE_RANKS
from compedu.claims.survey.manual_sensitivity import MANUAL_SENSITIVITY
from compedu.claims.survey.matrix_error import MATRIX_ERROR
from compedu.claims.survey.only_softmax import ONLY_SOFTMAX
from compedu.claims.survey.regularized_pruning import REGULARIZED_PRUNING
from compedu.claims.survey.retraining import RETRAINING
from compedu.claims.survey.small_data import SMALL_DATA
from compedu.claims.survey.smaller_is_not_faster import SMALLER_IS_NOT_FASTER
from compedu.claims.trial import Arm, Plan
from compedu.claims.verdict import Effect, Rule

# in the order of the survey: its drawbacks, then its suggestions
CLAIMS: tuple[Experiment, ...] = (
    MATRIX_ERROR,
    REGULARIZED_PRUNING,
    MANUAL_SENSITIVITY,
    SMALLER_IS_NOT_FASTER,
    DECOMPOSITION_COST,
    DECOMPOSITION_EFFORT,
    LAYERWISE_RANKS,
    RETRAINING,
    ONLY_SOFTMAX,
    COMPETITIVE_STUDENTS,
    SMALL_DATA,
)


def experiment(key: str) -> Experiment:
    """Return the experiment on the claim `key`, such as "D4"; `ValueError` lists those there are."""
    for known in CLAIMS:
        if known.key.lower() == key.strip().lower():
            return known
    raise ValueError(f"no experiment is called {key!r}; there are: {', '.join(known.key for known in CLAIMS)}")


__all__ = ["CLAIMS", "Arm", "Effect", "Experiment", "Judgment", "Part", "Plan", "Rule", "experiment", "judge"]
