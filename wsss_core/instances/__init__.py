"""Instances: networks that give every object a mask, and masks of single objects from boxes or tags."""
