"""Numbers and words that must be the same wherever they are used."""

IGNORE = 255
"""Label of a pixel that has none: undecided in a pseudo-mask, not to be counted in a true mask."""

BACKGROUND = "background"
"""Name of label 0, beside the names of the classes."""

MEAN_ROW = "mean"
"""Name of the row below those of the labels in a table of scores."""

EPSILON = 1e-5
"""Added to divisors, such as the maximum of a map, and within logarithms, as in the published code of IRN."""
