"""Parser of FEFF: its paths as a table."""

from __future__ import annotations

import re
from typing import Any

from aiida import orm
from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_difftre.calculations.feff import OUTPUT, cluster_of
from aiida_difftre.engine.observables import feff


class FeffParser(Parser):
    """Reads the files ``feffNNNN.dat``."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Attach the table; return the exit code of a failure."""
        repository = self.retrieved.base.repository
        names = sorted(repository.list_object_names())
        said = _text(repository.get_object_content(OUTPUT, mode="rb")) if OUTPUT in names else ""
        if feff.FINISHED not in said:
            if self.node.exit_status:  # what the scheduler found says more
                return ExitCode(self.node.exit_status, self.node.exit_message)
            last = " / ".join(line.strip() for line in said.strip().splitlines()[-3:]) or "nothing"
            return self.exit_codes.ERROR_NOT_FINISHED.format(message=last)
        inputs = {name: self.node.inputs[name] for name in self.node.inputs}
        try:
            paths = [
                feff.read_path(_text(repository.get_object_content(name, mode="rb")), name)
                for name in names
                if feff.PATH_FILE.fullmatch(name)
            ]
        except ValueError as error:
            return self.exit_codes.ERROR_OUTPUT_UNREADABLE.format(message=str(error))
        version = re.search(r"Feff +\S*\d\S*", said)
        source = f"{version[0] if version else 'FEFF'}, {inputs['structure'].get_formula()}"
        try:
            table = feff.path_table(paths, cluster_of(inputs), inputs["edge"].value, source)
        except ValueError as error:
            return self.exit_codes.ERROR_OUTPUT_MISSING.format(message=str(error))
        self.out("paths", orm.Dict(table.model_dump(mode="json")))
        return None


def _text(content: bytes) -> str:
    return content.decode("ascii", errors="replace")
