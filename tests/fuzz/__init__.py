"""Damaged files for everything that reads files: only `UserError` may come out, nothing may hang, nothing be misread.

``python -m tests.fuzz --cases N`` damages the valid files of every reader (`readers`) in N ways each that Hypothesis
draws (`damage`), and reads each in a process of its own with limits of time and memory (`trials`). What fails is shrunk
and kept in the folder `corpus`, whose files the tests read again.
"""
