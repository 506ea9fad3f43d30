"""Numbers that must be the same wherever they are used."""

IGNORE = 255
"""Label of a pixel that has none: undecided in a pseudo-mask, not to be counted in a true mask."""

EPSILON = 1e-5
"""Added to divisors, such as the maximum of a map, and within logarithms, as in the published code of IRN."""
