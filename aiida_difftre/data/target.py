"""An experimental target as a node: observable, values, errors, conditions and citation, checked on construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common import exceptions

from aiida_difftre.data import display
from aiida_difftre.engine.contract.targets import Target, read_fields
from aiida_difftre.engine.contract.validation import read_stored, validate


def read_target(path: str | Path) -> Target:
    """Read the target in a YAML (or JSON) file that holds its fields; needs no profile.

    Args:
        path: The file.

    Returns:
        The target.

    Raises:
        ValueError: With the file, and the offending value.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aiida_difftre.data.target import read_target
        >>> text = '''
        ... observable: density
        ... values: [1374]
        ... errors: [1]
        ... unit: kg/m3
        ... conditions: {temperature: 90}
        ... citation: a paper
        ... '''
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "density.yaml").write_text(text, encoding="utf-8")
        ...     read_target(Path(folder, "density.yaml")).values
        [1374.0]
    """
    try:
        return read_fields(Path(path))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no target: {error}") from None


ROLES_BEFORE = {"held_out": "test"}
"""Roles of nodes that earlier versions stored, and as what they are read: no target decides without being told to."""


class TargetData(orm.Data):
    """A measured observable as a node; its attributes are the fields of a target, which are checked.

    A node of an earlier version with the role ``held_out`` is read as one with the role ``test``, and one whose values
    later checks refuse is still read: they are for what is made, and for what a run starts with.

    Args:
        target: A target, or a dictionary of its fields.
        **kwargs: Label, description and the like.

    Raises:
        ValueError: With the offending value, such as an error that is not positive or an unknown observable.

    Example:
        >>> from aiida_difftre.data.target import TargetData
        >>> node = TargetData(
        ...     {
        ...         "observable": "stress",
        ...         "values": [0.0] * 6,
        ...         "errors": [0.1] * 6,
        ...         "unit": "GPa",
        ...         "error_source": "assumed",
        ...         "conditions": {"temperature": 298.15},
        ...         "citation": "ambient pressure",
        ...     }
        ... )
        >>> node.target.observable, node.base.attributes.get("role")
        ('stress', 'training')
    """

    def __init__(self, target: Target | dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if target is not None:
            content = target if isinstance(target, Target) else validate(Target, target)
            fields = content.model_dump(mode="json")
            if content.checked_against is None:
                del fields["checked_against"]  # what nobody states leaves a node as earlier versions made it
            self.base.attributes.set_many(fields)

    @classmethod
    def from_yaml(cls, path: str | Path, **kwargs: Any) -> TargetData:
        """Make an (unstored) node from a YAML (or JSON) file that holds the fields of one target.

        Args:
            path: The file.
            **kwargs: Label, description and the like.

        Returns:
            The node.

        Raises:
            ValueError: With the file, and the offending value.
        """
        return cls(read_target(path), **kwargs)

    @property
    def target(self) -> Target:
        """The target, with its methods."""
        content = self.base.attributes.all
        role = content.get("role")
        return read_stored(Target, {**content, "role": ROLES_BEFORE[role]} if role in ROLES_BEFORE else content)

    def get_description(self) -> str:
        """Say what it is in one line, as lists of nodes show it.

        Returns:
            Observable, temperature, role and source.
        """
        known = self.base.attributes.all
        source = known.get("doi") or known.get("citation")
        temperature = (known.get("conditions") or {}).get("temperature")
        return f"{known.get('observable')} at {temperature} K ({known.get('role')}): {source}"

    def check(self) -> Target:
        """The target, where a run is to start with it; :attr:`target` reads what is stored.

        Raises:
            ValueError: naming the offending value, as for a target that is made now.
        """
        return validate(Target, self.target.model_dump())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        if "observable" not in self.base.attributes:
            return display.table(self, "target", [])
        target = self.target
        conditions = target.conditions
        where = [f"{conditions.temperature:g} K"]
        where += [] if conditions.pressure is None else [f"{conditions.pressure:g} GPa"]
        where += [] if conditions.density is None else [f"{conditions.density:g} kg/m³"]
        if target.grid is not None:
            measured: Any = display.curve(target.grid, target.values)
        elif len(target.values) <= display.MOST_VALUES:
            numbers = zip(target.component_labels(), target.values, target.total_errors(), strict=True)
            measured = ", ".join(f"{name} = {value:.6g} ± {error:.2g}" for name, value, error in numbers)
        else:
            measured = f"{len(target.values)} values"
        rows = [
            ("observable", target.observable),
            ("measured", measured),
            ("unit", target.unit if target.unit != "1" else None),
            ("errors", ", ".join([target.error_source, *target.shared_in_words()])),
            ("at", ", ".join(where)),
            ("role", target.role + (f", weight {target.weight:g}" if target.weight != 1 else "")),
            ("source", target.citation),
            ("DOI", display.link(target.doi)),
        ]
        return display.table(self, "target", rows)

    def _validate(self) -> bool:
        super()._validate()
        try:
            self.check()
        except ValueError as error:
            raise exceptions.ValidationError(f"not a target: {error}") from None
        return True
