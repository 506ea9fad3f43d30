"""IRN: confident labels, a network that predicts class boundaries from them, and random walks that stop there.

Ahn, Cho & Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019. One file a
step; masks are cut from the walked scores by `wsss_core.refine.threshold`.
"""
