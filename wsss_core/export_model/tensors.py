"""A network's parameters as a file of safetensors, under the names that they have here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_core.extras import extra
from wsss_core.store.atomic import atomic_path


def write(path: Path, content: Mapping[str, Any]) -> list[str]:
    """Write ``model.safetensors``; returns a line that says so.

    Parameters
    ----------
    content
        Of the checkpoint, as `read_checkpoint` gives it. All but the parameters goes into the file's metadata, as JSON.

    Raises
    ------
    UserError
        If the library is missing.
    """
    library = extra("safetensors.torch", "onnx")
    about = {"kind": content["kind"], "version": content["version"], "format": "pt"}
    about |= {key: json.dumps(value) for key, value in content["meta"].items()}
    state = {name: value.clone() for name, value in content["state"].items()}  # none may share memory
    with atomic_path(path) as temporary:
        library.save_file(state, temporary, metadata=about)
    return [f"{path}: {sum(value.numel() for value in state.values()):,} numbers in {len(state)} tensors"]
