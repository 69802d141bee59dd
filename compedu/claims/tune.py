"""The trials by which knobs of claims' arms were chosen: `python -m compedu.claims.tune` makes what is missing."""

from compedu.claims.running import run
from compedu.claims.survey.shared.penalty_tuning import TRIALS, TUNING

if __name__ == "__main__":
    run(TUNING, TRIALS, TUNING.path)
