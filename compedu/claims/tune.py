"""The trials that tuned the knobs of claims' arms: `python -m compedu.claims.tune` computes missing ones."""

from compedu.claims.running import run
from compedu.claims.survey.shared.penalty_tuning import TRIALS, TUNING

if __name__ == "__main__":
    run(TUNING, TRIALS, TUNING.path)
