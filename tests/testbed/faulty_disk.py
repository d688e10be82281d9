"""A disk that fails on order, for one process: a library that is loaded before libc (see faults/faults.c)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed.errors import BuildFailed

SOURCE = Path(__file__).with_name("faults") / "faults.c"


class FaultyDisk:
    """`env` for the process; `order` says what fails from now on."""

    def __init__(self, folder: Path) -> None:
        """Compiles the library into `folder`. Raises BuildFailed."""
        library = folder / "faults.so"
        command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise BuildFailed(f"{' '.join(command)}: {done.stderr}")
        self._orders = folder / "faults.order"
        self.env = {"LD_PRELOAD": str(library), "HOMEFED_FAULT": str(self._orders)}

    def order(self, what: str, suffix: str, number: int = 0) -> None:
        """`what`: write, flush or torn; of files whose path ends in `suffix`; `number`: the errno."""
        unfinished = self._orders.with_suffix(".new")
        unfinished.write_text(f"{what} {suffix} {number}\n")
        unfinished.rename(self._orders)

    def mend(self) -> None:
        self._orders.unlink(missing_ok=True)
