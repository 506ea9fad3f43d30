"""ONNX beside torch: the exported form of a segmentation network, in onnxruntime and in torch, on the CPU.

    python -m benchmarks.onnx [--backbone mobilenet_v2] [--size 375 500] [--threads 1] [--runs 5]

The two take turns on the same drawn photo; needs the extra wsss[onnx].
"""

from __future__ import annotations

import argparse
import statistics
import time

import onnxruntime
import torch

from benchmarks.inputs import calm, photo
from benchmarks.table import processor, ratio, seconds
from wsss_core.export_model.onnx import as_input, converted
from wsss_core.export_model.wrapped import Segmenter
from wsss_core.models.deeplab import deeplab_v2

LABELS = 21


def main() -> None:
    """Run the command line and print a row of Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    segmenter = deeplab_v2(options.backbone, LABELS, scales=())
    calm(segmenter)
    network = Segmenter(segmenter).eval()
    pixels = as_input(photo(*options.size))
    with torch.no_grad():  # logits of random weights hardly differ
        spread = segmenter(network.normalised(pixels)).std()
        for convolution in segmenter.aspp:
            convolution.get_parameter("weight").mul_(2 / spread)
    given = onnxruntime.SessionOptions()
    given.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(
        converted(network).SerializeToString(), given, providers=["CPUExecutionProvider"]
    )
    times: dict[str, list[float]] = {"torch": [], "onnx": []}
    with torch.no_grad():
        for turn in range(options.runs + 1):
            start = time.perf_counter()
            ours = network(pixels)
            between = time.perf_counter()
            (theirs,) = session.run(None, {"photos": pixels.numpy()})
            if turn:  # the first warms both up
                times["torch"].append(between - start)
                times["onnx"].append(time.perf_counter() - between)
    torch_time, onnx_time = (statistics.median(runs) for runs in times.values())
    apart = float((ours - torch.from_numpy(theirs)).abs().max())
    print(
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {processor()}, {options.threads} threads\n"
    )
    print("| network | photo | torch | onnxruntime | ratio | largest difference |\n|---|---|---|---|---|---|")
    size = "×".join(map(str, options.size))
    cells = [f"DeepLab-v2, {options.backbone}, stride 8, one scale", size, seconds(torch_time), seconds(onnx_time)]
    print(f"| {' | '.join(cells)} | {ratio(torch_time / onnx_time)}× | {apart:.1e} |")


if __name__ == "__main__":
    main()
