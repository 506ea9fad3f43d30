"""A small run that is killed at random moments, or whose disk is full, and must end in the bytes of an undisturbed one.

``python -m tests.faults --kills N --seed S`` (`make faults`) does it; `trial` has the run, `victims` what is killed.
"""
