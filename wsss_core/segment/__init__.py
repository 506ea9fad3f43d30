"""Segmentation networks: training, one file an objective, and prediction.

An objective is a module of this package with the name that a stage's key ``network`` takes
(`wsss_core.training.Objective`): it has ``plan(settings, inputs) -> Plan``, which says all that the one training loop
needs. Its settings are a `wsss_core.segment.deeplab.DeepLabSettings` with settings of its own.
"""
