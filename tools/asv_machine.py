"""Describes this machine to asv by what the system says, so that `asv run` need not ask; asv.conf.json names it."""

from pathlib import Path

from asv.machine import Machine, MachineCollection


def setup() -> None:
    """Do what `asv machine --yes` does, where that was not done; asv calls this before each command."""
    if not Path(MachineCollection.get_machine_file_path()).exists():
        found = Machine.get_defaults()
        MachineCollection.save(found["machine"], found)
