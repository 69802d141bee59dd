"""The command that remakes the shipped runs of claims: python -m compedu.claims [KEY ...] [--full]."""

import argparse
from collections.abc import Sequence

from compedu.claims import CLAIMS, experiment


def remake(keys: Sequence[str] = (), full: bool = False) -> None:
    """Compute what is missing of the shipped runs of the claims `keys`, by default of all; print each verdict."""
    for one in [experiment(key) for key in keys] or CLAIMS:
        runs = one.run(full, store=one.path)
        plan = "full" if full else "quick"
        print(f"{one.path.name}: {len(runs)} runs of the {plan} plan; {one.judge(runs).verdict}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m compedu.claims", description=__doc__)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="claims, such as D4 (default: all)")
    parser.add_argument("--full", action="store_true", help="the full plan (default: the quick one)")
    given = parser.parse_args()
    remake(given.keys, given.full)
