"""Numbers and words that must be the same wherever they are used."""

IGNORE = 255
"""Label of a pixel that has none: undecided in a pseudo-mask, not to be counted in a true mask."""

BACKGROUND = "background"
"""Name of label 0, beside the names of the classes."""

MEAN_ROW = "mean"
"""Name of the row below those of the labels in a table of scores."""

LONGEST_NAME = 200
"""Letters that the name of a folder may have: file systems take 255 bytes, and temporary files and logs add to a name.
"""

NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}"
"""Names of runs, stages and figures, which are names of folders and files."""

NAME_WORDS = f"letters, digits, '.', '_' and '-', at most {LONGEST_NAME}, first a letter or a digit"
"""The same for a reader."""

EPSILON = 1e-5
"""Added to divisors, such as the maximum of a map, and within logarithms, as in the published code of IRN."""

IMAGENET = "imagenet"
"""In place of a weight file in a configuration: the ImageNet weights that torchvision publishes."""

TIMM = "timm:"
"""Before the name of a network of timm, where a configuration names a backbone."""
