"""Take in a network that was trained elsewhere: a classifier, or the network of a refinement."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from wsss_core.data.table import read_table
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.checkpoints import save_network


def run(*, config: Path, table: Path, model: Path, execution: Execution) -> None:
    """Write the checkpoint of a network from a file.

    Parameters
    ----------
    config
        Settings file of the step, which names the file; the method's part in it has a function `adopted`.
    table
        Image table, for the classes.
    model
        Checkpoint to write.

    Raises
    ------
    UserError
        If the file is missing or unreadable, does not hold such a network, or one for other classes.
    """
    step = read_step(config)
    names = read_table(table).class_names
    network = step.plug.adopted(step.settings, names)
    made = {"method": step.method, "settings": asdict(step.settings), "seed": step.seed}
    save_network(model, network.kind, network.state_dict(), {**network.about, "class_names": list(names), **made})
