"""Snapshots of several walkers at one state point as a node: the arrays of the engine's trajectory, kept once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common import exceptions
from ase import Atoms
from numpy.typing import NDArray

from aiida_difftre.data import display, places
from aiida_difftre.engine.contract.files import digest
from aiida_difftre.engine.contract.jobs import TRAJECTORY
from aiida_difftre.engine.contract.observables import Ensemble
from aiida_difftre.engine.contract.parts import ordinal
from aiida_difftre.engine.contract.trajectories import (
    MASSES,
    OPTIONAL_ARRAYS,
    SCALES,
    TRAJECTORY_ARRAYS,
    Trajectory,
    read_trajectory,
    write_trajectory,
)
from aiida_difftre.engine.errors import EngineError
from aiida_difftre.engine.trajectories.importing import Imported

FS_PER_PS = 1000.0


class TrajectoryEnsembleData(orm.ArrayData):
    """Snapshots of several walkers at one state point as a node: the arrays of a trajectory under the same names.

    Attributes to query: ``species`` (sorted, distinct), ``temperature`` (K), ``pressure`` (GPa; None at constant
    volume), ``ensemble`` (NVT or NPT), ``number_of_walkers``,
    ``number_of_snapshots``, ``number_of_atoms``, ``digest`` (SHA-256 of the file that it was read from),
    ``has_energies`` (false where the potential that starts from it has to give them) and, of one of another program,
    ``origin``: its files with their SHA-256, format, units, and what was found when it was imported.

    Where the input of its job says ``keep_every``, the arrays hold a part of it: ``kept_every`` (every so many
    snapshots of each walker) and ``kept_snapshots`` tell which. ``number_of_snapshots`` and ``digest`` are then those
    of the whole, which stayed where it was made, and which alone is averaged over.

    Example:
        >>> import numpy as np
        >>> from aiida_difftre.data.trajectory import TrajectoryEnsembleData
        >>> from aiida_difftre.engine.contract.trajectories import Trajectory
        >>> arrays = {
        ...     "positions": np.zeros((2, 1, 3), np.float32), "cell": 4.0 * np.eye(3), "energies": np.zeros(2),
        ...     "walkers": np.zeros(2, np.int32), "times": np.array([0.0, 50.0]), "temperatures": np.full(2, 90.0),
        ...     "last_positions": np.zeros((1, 1, 3)), "last_velocities": np.zeros((1, 1, 3)),
        ... }
        >>> argon = Trajectory.from_arrays(arrays, species=("Ar",), temperature=90.0, pressure=None)
        >>> node = TrajectoryEnsembleData.from_trajectory(argon)
        >>> node.number_of_snapshots, node.ensemble, node.get_ase(0).get_chemical_symbols()
        (2, 'NVT', ['Ar'])
    """

    @classmethod
    def from_trajectory(cls, trajectory: Trajectory, **kwargs: Any) -> TrajectoryEnsembleData:
        """Make an (unstored) node from a trajectory in memory.

        Args:
            trajectory: The trajectory.
            **kwargs: Label, description and the like.

        Returns:
            The node.
        """
        node = cls(**kwargs)
        for name in TRAJECTORY_ARRAYS:
            node.set_array(name, np.asarray(getattr(trajectory, name)))
        for name, array in trajectory.optional_arrays.items():
            node.set_array(name, array)
        node.set_array("species", np.array(trajectory.species, dtype=np.str_))
        node.base.attributes.set_many(
            {
                "species": sorted(set(trajectory.species)),
                "temperature": float(trajectory.temperature),
                "pressure": None if trajectory.pressure is None else float(trajectory.pressure),
                "ensemble": trajectory.ensemble,
                "number_of_walkers": len(trajectory.last_positions),
                "number_of_snapshots": len(trajectory.positions),
                "number_of_atoms": len(trajectory.species),
                "has_energies": trajectory.has_energies,
            }
        )
        if (part := trajectory.part) is not None:
            whole = {"number_of_snapshots": part.of, "digest": part.digest}
            kept = {"kept_every": part.every, "kept_snapshots": len(trajectory.positions)}
            node.base.attributes.set_many({**whole, **kept})
        return node

    @classmethod
    def from_imported(cls, imported: Imported, **kwargs: Any) -> TrajectoryEnsembleData:
        """Make an (unstored) node from a trajectory of another program.

        Args:
            imported: What ``import_trajectory`` read.
            **kwargs: Label, description and the like.

        Returns:
            The node; stresses of the files are its array ``stresses``, GPa.
        """
        node = cls.from_trajectory(imported.trajectory, **kwargs)
        if imported.stresses is not None:
            node.set_array("stresses", imported.stresses)
        node.base.attributes.set("origin", imported.source)
        return node

    @classmethod
    def from_file(
        cls, path: str | Path, *, may_lack_energies: bool = False, may_be_part: bool = False, **kwargs: Any
    ) -> TrajectoryEnsembleData:
        """Make an (unstored) node from the engine's ``trajectory.npz``.

        Args:
            path: The file.
            may_lack_energies: True for the first reference of a refinement, whose energies the potential may give.
            may_be_part: True for a file of its job, which holds a part of the snapshots where the input says so.
            **kwargs: Label, description and the like.

        Returns:
            The node.

        Raises:
            ValueError: With the file and what is wrong with it.
        """
        try:
            found = read_trajectory(Path(path), may_lack_energies=may_lack_energies, may_be_part=may_be_part)
        except EngineError as error:
            raise ValueError(error.message) from None
        node = cls.from_trajectory(found, **kwargs)
        if found.part is None:
            node.base.attributes.set("digest", digest(Path(path)))
        return node

    def get_trajectory(self, *, may_be_part: bool = False) -> Trajectory:
        """Read the trajectory.

        Args:
            may_be_part: True where the snapshots that the repository keeps will do; averages need all.

        Returns:
            The trajectory in memory.

        Raises:
            ValueError: For one of which the repository keeps a part, naming where the whole is.
        """
        if not may_be_part:
            self.refuse_part()
        known = (*TRAJECTORY_ARRAYS, *OPTIONAL_ARRAYS)
        arrays = {name: self.get_array(name) for name in self.get_arraynames() if name in known}
        return Trajectory.from_arrays(
            arrays, species=tuple(self.symbols), temperature=self.temperature, pressure=self.pressure
        )

    def to_file(self, path: str | Path, *, may_be_part: bool = False) -> None:
        """Write the ``.npz`` file that the engine reads.

        Args:
            path: The file, which is replaced where it exists.
            may_be_part: True where the snapshots that the repository keeps will do; the file says that it is a part.

        Raises:
            ValueError: For one of which the repository keeps a part; ``fetch`` gets the whole.
        """
        write_trajectory(Path(path), self.get_trajectory(may_be_part=may_be_part))

    def fetch(self, path: str | Path) -> None:
        """Write the file of the whole trajectory, from the computer where it is, if the repository keeps a part.

        Args:
            path: The file, which is replaced where it exists.

        Raises:
            ValueError: Where it is not there any more, or another file is in its place; and for a folder that there is
                not.
        """
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder} for {Path(path).name}; make it, or name another")
        if not self.is_part:
            self.to_file(path)
            return
        # Not the user of the node, which may come from the archive of somebody else.
        user, found = orm.User.collection.get_default() or self.user, []
        for place in places.of(self):
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                copy = Path(temporary, TRAJECTORY)
                try:
                    with place.computer.get_authinfo(user).get_transport() as transport:
                        transport.getfile(place.path, str(copy))
                except Exception as error:  # each plug-in for transport has its own
                    found.append(f"{place.path} on {place.computer.label}: {error or type(error).__name__}")
                    continue
                if (there := digest(copy)) == self.digest:
                    copy.replace(path)
                    return
                found.append(f"{place.path} on {place.computer.label} is another file, of SHA-256 {there}")
        message = f"no file with the SHA-256 {self.digest} was found: {self.told_of_part()}"
        raise ValueError("; ".join([message, *found]))

    @property
    def is_part(self) -> bool:
        """Whether the repository keeps a part of its snapshots, and the whole is where it was made."""
        return self.base.attributes.get("kept_every", 1) > 1

    def told_of_part(self) -> str:
        """What of it the repository keeps, and where the whole is, in words."""
        known = self.base.attributes.all
        kept, every = known["kept_snapshots"], ordinal(known["kept_every"])
        return (
            f"of trajectory <{self.pk}> the repository keeps {kept} of {known['number_of_snapshots']} snapshots, every "
            f"{every} of each walker; the whole is {places.told(self)}"
        )

    def refuse_part(self) -> None:
        """Refuse to take a part for the whole.

        Raises:
            ValueError: Where the repository keeps a part, naming where the whole is.
        """
        if self.is_part:
            raise ValueError(f"{self.told_of_part()}; `aiida-difftre trajectory fetch {self.pk}` gets it")

    @property
    def digest(self) -> str | None:
        """SHA-256 of the file that it was read from, or of the whole; None for one that was made otherwise."""
        return self.base.attributes.get("digest", None)

    @property
    def has_energies(self) -> bool:
        """Whether it has energies of what sampled it; those of nodes of earlier versions all have."""
        return self.base.attributes.get("has_energies", True)

    @property
    def origin(self) -> dict[str, Any]:
        """Where a trajectory of another program came from; empty for one that was sampled here."""
        return dict(self.base.attributes.get("origin", {}))

    @property
    def temperature(self) -> float:
        """Temperature of the thermostat, K."""
        return self.base.attributes.get("temperature")

    @property
    def pressure(self) -> float | None:
        """Pressure of the barostat, GPa; None at constant volume."""
        return self.base.attributes.get("pressure", None)

    @property
    def species(self) -> list[str]:
        """Chemical symbols in the trajectory, sorted."""
        return list(self.base.attributes.get("species"))

    @property
    def symbols(self) -> list[str]:
        """The chemical symbol of each atom."""
        return [str(symbol) for symbol in self.get_array("species")]

    @property
    def masses(self) -> list[float] | None:
        """The mass of each atom, u; None for the standard atomic weights."""
        return self.get_array(MASSES).tolist() if MASSES in self.get_arraynames() else None

    @property
    def cell(self) -> NDArray[np.float64]:
        """Lattice vectors in rows, Å; at constant pressure those of the reference cell."""
        return np.asarray(self.get_array("cell"), dtype=float)

    @property
    def ensemble(self) -> Ensemble:
        """NPT where there is a pressure."""
        return "NVT" if self.pressure is None else "NPT"

    @property
    def number_of_snapshots(self) -> int:
        """Snapshots of all walkers together, also where the repository keeps a part of them."""
        return self.base.attributes.get("number_of_snapshots")

    def get_description(self) -> str:
        """Say what it is in one line, as lists of nodes show it.

        Returns:
            Species, number of atoms and snapshots, state point.
        """
        known = self.base.attributes.all
        pressure = "" if self.pressure is None else f", {self.pressure:g} GPa"
        kept = f" (every {ordinal(known['kept_every'])} is kept)" if self.is_part else ""
        return (
            f"{'-'.join(known.get('species', []))}, {known.get('number_of_atoms')} atoms, "
            f"{known.get('number_of_snapshots')} snapshots{kept}, {known.get('temperature')} K{pressure}"
        )

    def get_ase(self, index: int = -1) -> Atoms:
        """Read a snapshot, wrapped into the cell.

        Args:
            index: Index of the snapshot among those that the repository keeps; negative numbers count from the end.

        Returns:
            The structure.
        """
        atoms = Atoms(
            self.symbols,
            cell=self.cell * self._scales()[index],
            scaled_positions=np.asarray(self.get_array("positions")[index], dtype=float),
            pbc=True,
            masses=self.masses,
        )
        atoms.wrap()
        return atoms

    def _scales(self) -> NDArray[np.float64]:
        """Scale of the cell of each snapshot, (snapshots,); ones in nodes that were made before cells could change."""
        name = "scales" if "scales" in self.get_arraynames() else "energies"
        return self.get_array(name) if name == "scales" else np.ones(len(self.get_array(name)))

    def to_trajectory_data(self, walker: int = 0) -> orm.TrajectoryData:
        """Convert one walker to AiiDA's own trajectory, for tools that read it; larger and slower than this node.

        It holds the snapshots that the repository keeps; its times tell which they are.

        Args:
            walker: Index of the walker.

        Returns:
            The trajectory (unstored), with times in ps.

        Raises:
            ValueError: For a walker that does not exist.
        """
        chosen = np.flatnonzero(self.get_array("walkers") == walker)
        if not len(chosen):
            last = self.base.attributes.get("number_of_walkers") - 1
            raise ValueError(f"there is no walker {walker!r} with snapshots; walkers are numbered from 0 to {last}")
        cells = self._scales()[chosen, None, None] * self.cell
        trajectory = orm.TrajectoryData()
        trajectory.set_trajectory(
            symbols=self.symbols,
            positions=np.asarray(self.get_array("positions")[chosen], dtype=float) @ cells,
            stepids=chosen.astype(int),
            cells=cells,
            times=self.get_array("times")[chosen] / FS_PER_PS,
            pbc=(True, True, True),
        )
        return trajectory

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        known = self.base.attributes.all
        pressure = known.get("pressure")
        rows = [
            ("species", ", ".join(known.get("species", []))),
            ("atoms", known.get("number_of_atoms")),
            ("temperature", f"{known['temperature']:g} K" if "temperature" in known else None),
            ("pressure", None if pressure is None else f"{pressure:g} GPa"),
            ("ensemble", known.get("ensemble")),
            ("walkers", known.get("number_of_walkers")),
            ("snapshots", known.get("number_of_snapshots")),
            ("kept", f"{known['kept_snapshots']}, every {ordinal(known['kept_every'])}" if self.is_part else None),
            ("the whole", places.told(self) if self.is_part else None),
        ]
        return display.table(self, "trajectory", rows)

    def _validate(self) -> bool:
        missing = {*TRAJECTORY_ARRAYS, "species"} - {*SCALES} - set(self.get_arraynames())
        if missing:
            raise exceptions.ValidationError(
                f"the trajectory lacks {', '.join(sorted(missing))}; make it with {type(self).__name__}.from_file"
            )
        return super()._validate()
