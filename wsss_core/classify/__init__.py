"""Training of classifiers: one file an objective.

A module of this package is an objective (`wsss_core.training.Objective`): it has ``plan(settings, inputs) -> Plan``,
which says all that the one training loop needs. The registry names its settings class. An objective that starts from
a trained classifier has the edge ``init`` in the registry.
"""
