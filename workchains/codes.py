"""The codes of the jobs of a run: those that its input names, or what ``aiida-difftre setup`` makes."""

from __future__ import annotations

from aiida import orm
from aiida.common.exceptions import AiidaException, MultipleObjectsError, NotExistent
from aiida.engine.processes.ports import PortNamespace
from aiida.plugins import CalculationFactory

from aiida_difftre.calculations.scheduler import check_options
from aiida_difftre.data.base import engine_of
from aiida_difftre.engine.contract import known_bases
from aiida_difftre.workchains.input_models import RunInput
from aiida_difftre.workchains.machines import JobMachine

DEFAULT_CODES = {
    "dft": "pw@localhost",
    "feff": "feff@localhost",
    "pretraining": "difftre@localhost",
    "sampling": "difftre@localhost",
    "update": "difftre@localhost",
    "prediction": "difftre@localhost",
}

CHAIN_OF = {
    "dft": "pw",
    "feff": "feff",
    "pretraining": "pretrain",
    "sampling": "sample",
    "update": "update",
    "prediction": "predict",
}

EVALUATING = ("pretraining", "sampling", "prediction")
"""Jobs that evaluate the base of a potential."""

JOB_OF = {
    "dft": "quantumespresso.pw",
    "feff": "difftre.feff",
    "pretraining": "difftre.pretrain",
    "sampling": "difftre.sample",
    "update": "difftre.update",
    "prediction": "difftre.predict",
}


def code_of(run: RunInput) -> str | None:
    """The code that evaluates the base where an input names none: that of its environment; None without a package.

    Those are made by ``aiida-difftre setup --base NAME``. Updates need none: they take what the base gave.
    """
    given = run.model.base
    if given is None or given.name is None:
        return None
    package = known_bases.known(given.engine or engine_of(given.name), given.name).package
    return None if package is None else f"difftre-{given.name}@localhost"


def load_code(kind: str, machine: JobMachine, of_base: str | None = None) -> orm.AbstractCode:
    """The code of a kind of job, on a computer that answers; ``of_base`` is that of jobs that evaluate a base.

    Raises:
        ValueError: naming the code and the computer, or the option that its scheduler does not take.
    """
    is_of_base = of_base is not None and kind in EVALUATING
    label = machine.code or (of_base if is_of_base else None) or DEFAULT_CODES[kind]
    try:
        code = orm.load_code(label)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        made_by = "`aiida-difftre setup --feff`" if kind == "feff" else "`aiida-difftre setup`"
        if is_of_base and not machine.code:
            made_by = f"`aiida-difftre setup --base {label.removeprefix('difftre-').partition('@')[0]}`"
        remedy = "" if machine.code else f"; {made_by} makes it"
        raise ValueError(f"machines.{kind}: there is no code {label!r}: {error}{remedy}") from None
    try:
        _check_program(code)
    except (AiidaException, OSError, ValueError) as error:
        raise ValueError(f"machines.{kind}: code {code.full_label!r} cannot be used: {error}") from None
    try:
        check_options(machine.job_options, job_ports(kind), code.computer)
    except ValueError as error:
        raise ValueError(f"machines.{kind}.options: {error}") from None
    return code


def _check_program(code: orm.AbstractCode) -> None:
    """The program has to be there; one in a container is seen from inside alone, where its image may be a file."""
    if isinstance(code, orm.ContainerizedCode):  # which is an InstalledCode too
        if "$" in code.engine_command and not code.computer.get_use_double_quotes():
            raise ValueError(
                f"its engine command {code.engine_command!r} has a variable, which AiiDA puts in single quotes on the "
                f"computer {code.computer.label!r}, where nothing replaces it; make the computer with "
                "`verdi computer setup --use-double-quotes` (`verdi computer duplicate` for one that exists)"
            )
        with code.computer.get_transport() as transport:
            if code.image_name.startswith("/") and not transport.path_exists(code.image_name):
                raise ValueError(f"its image {code.image_name} is not on the computer {code.computer.label!r}")
    elif isinstance(code, orm.InstalledCode):
        code.validate_filepath_executable()


def job_ports(kind: str) -> PortNamespace:
    """The ports of the options of a kind of job."""
    return CalculationFactory(JOB_OF[kind]).spec().inputs["metadata"]["options"]  # type: ignore[union-attr, index, return-value]
