"""Segmentation networks: training, one file an objective, and prediction.

An objective is a module of this package with the name that a stage's key ``network`` takes
(`wsss_core.training.Objective`): it has ``plan(settings, inputs) -> Plan``, which says all that the one training loop
needs. The settings of objectives on DeepLab-v2 are `wsss_core.segment.deeplab.DeepLabSettings` and more.
"""
