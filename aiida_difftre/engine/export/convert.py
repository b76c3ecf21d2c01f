"""The command ``difftre convert``: weights in a file of nequix (``.nqx``) to a potential file of this package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aiida_difftre.engine.contract.documents import parse_json
from aiida_difftre.engine.contract.nequix_options import hyperparameters_of
from aiida_difftre.engine.contract.reading import reading
from aiida_difftre.engine.contract.settings import PotentialSpec, TermSpec
from aiida_difftre.engine.errors import EngineError, one_line
from aiida_difftre.engine.potentials import nequix
from aiida_difftre.engine.potentials.potential import Potential, build, save
from aiida_difftre.engine.potentials.term import Parameters

LONGEST_HEADER = 1 << 20
"""Bytes of the first line of a file, which describes the model."""


def convert(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 with a message on standard error."""
    parser = argparse.ArgumentParser(
        prog="difftre convert",
        description="Write the weights of a model of nequix, in its own format (.nqx), as a potential that can be "
        "refined. Reading it runs no code.",
    )
    parser.add_argument("file", type=Path, help="weights (.nqx)")
    parser.add_argument("--species", required=True, help="elements of the potential, such as Si or Na,Cl")
    parser.add_argument("-o", "--output", type=Path, required=True, help="potential file to write (.safetensors)")
    parser.add_argument("--trainable", help="parameters to train, such as readout or layers/3,readout (default: all)")
    parser.add_argument("-f", "--force", action="store_true", help="replace a file that exists")
    given = parser.parse_args(arguments)
    try:
        if given.output.exists() and not given.force:
            raise ValueError(f"{given.output} exists; give another name, or --force to replace it")
        trainable = True if given.trainable is None else given.trainable.split(",")
        with jax.enable_x64(True):
            potential, parameters = read(given.file, given.species.split(","), trainable)
            save(given.output, potential, parameters)
    except (ValueError, EngineError, OSError) as error:
        print(f"difftre convert: {one_line(str(error))}", file=sys.stderr)
        return 1
    print(f"wrote {given.output}")
    return 0


def read(path: Path, species: list[str], trainable: bool | list[str] = True) -> tuple[Potential, Parameters]:
    """Read a file of nequix.

    Args:
        path: The file: a line of JSON that describes the model, and its arrays as NumPy writes them.
        species: Chemical symbols of the potential.
        trainable: What training changes, as of a term.

    Returns:
        The potential, and its parameters, float64, with the energies of the elements as reference energies.

    Raises:
        UnreadableFileError: for what is no such file.
        EngineError: for elements that it does not know, or where nequix is not installed.
    """
    with reading(path, "file of nequix"), path.open("rb") as stream:
        line = stream.readline(LONGEST_HEADER)
        hyperparameters, cutoff, shift = hyperparameters_of(parse_json(line.decode()))
    term = TermSpec(architecture="nequix", cutoff=cutoff, hyperparameters=hyperparameters, trainable=trainable)
    potential = build(PotentialSpec(species=species, terms=[term]))
    (made,) = potential.terms
    if not isinstance(made, nequix.Nequix):
        raise TypeError(f"the architecture nequix is {type(made)}")
    empty = nequix.shape(made)
    with reading(path, "file of nequix"), path.open("rb") as stream:
        stream.seek(len(line))
        model = nequix.read_into(empty, stream)
        if stream.read(1):
            raise ValueError("there is more in it than the model that it describes")
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), nequix.tree_of(model))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights)):
        raise ValueError(f"{path.name} holds weights that are not finite")
    energies = np.asarray(model.atom_energies, float) + shift
    references = [energies[made.elements.index(symbol)] for symbol in species]
    return potential, {"atomic_energies": jnp.asarray(references), "terms": {potential.names()[0]: weights}}
