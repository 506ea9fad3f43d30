"""Segmentation networks: training on label masks and prediction."""
