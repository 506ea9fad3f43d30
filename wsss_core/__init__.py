"""Weakly supervised semantic segmentation: cheap labels in, pixel masks and a trained network out.

The library beneath the Snakemake workflow. It knows nothing of Snakemake: pure functions on
tensors and arrays (`seeds`, `refine`, `kernels`, `segment`, `evaluate`), file formats (`store`),
and `stages` that read files, call those functions and write files.
"""

__version__ = "0.1.0"
