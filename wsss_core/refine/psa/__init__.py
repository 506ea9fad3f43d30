"""PSA: confident labels, a network of affinities between pixels learned from them, and random walks on these.

Ahn & Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic
Segmentation", CVPR 2018. One file a step.
"""
