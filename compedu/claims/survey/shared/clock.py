"""What claims about time share: how far two times of the same thing are apart."""


def either_way(multiple: float) -> float:
    """Return how far a multiple is from 1 in either direction: 2 for 2 and for one half.

    >>> either_way(2.0), either_way(0.5)
    (2.0, 2.0)
    """
    return max(multiple, 1 / multiple)
