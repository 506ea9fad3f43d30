"""The steps of a run, one file each: read files, call pure functions, write files. None imports another.

The file of a step has its name, and one function ``run(*, config, …, execution)``. `wsss_core.cli` makes the step's
command of it: every parameter that is a path is an option of the same name, described by the docstring.
"""
