"""What `aiida-difftre setup` does: profile, computer, codes, pseudopotentials, each made only where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiida import orm
from aiida.common import exceptions
from aiida.manage import get_manager
from aiida.manage.configuration import create_profile, get_config, load_profile
from aiida.plugins import BrokerFactory
from aiida_pseudo.data.pseudo import UpfData
from aiida_pseudo.groups.family import PseudoPotentialFamily

from aiida_difftre import sqlite
from aiida_difftre.cli.base_environment import BaseError, ensure_environment, known_name
from aiida_difftre.cli.feff import FeffError
from aiida_difftre.cli.feff import find_program as find_feff
from aiida_difftre.cli.pseudopotential import PseudopotentialError, check_recipes, ensure_family, find_family
from aiida_difftre.cli.quantum_espresso import (
    PREPEND_TEXT,
    Programs,
    QuantumEspressoError,
    check_scf,
    engine_script,
    find_programs,
    private_programs,
)

PROFILE = "difftre"
COMPUTER = "localhost"
ENGINE = "difftre"
PW = "pw"
FEFF = "feff"
BROKER = "core.zeromq"
POLL_INTERVAL = 1.0
"""s; between looks at the processes of this machine, each of which starts a shell and ps: some 0.01 CPU s."""
PROCESS_POLL_INTERVAL = 10
"""s; between looks of a process at those that it waits for, 4 ms each, should a message of the daemon's broker be lost.

Runs without a daemon, which has the broker, look more often: see :data:`aiida_difftre.cli.demo.PROCESS_POLL_S`.
"""
DAEMON_TIMEOUT = 60
"""s; stopping a daemon in the middle of an import takes longer than AiiDA's 20 s on a busy laptop."""

Report = Callable[[str], None]


class SetupError(Exception):
    """A part of the set-up is impossible; the message says which and what to do."""


@dataclass(frozen=True)
class SetupResult:
    """What is there after the set-up.

    Args:
        profile: name.
        computer: label.
        engine: full label of the engine's code, ``difftre@localhost``.
        pw: full label of the code of pw.x, ``pw@localhost``; None without DFT.
        pw_version: version of pw.x; None without DFT.
        pseudo_family: label; None without DFT.
        created: what did not exist before, in words.
    """

    profile: str
    computer: str
    engine: str
    pw: str | None
    pw_version: str | None
    pseudo_family: str | None
    created: list[str] = field(default_factory=list)


def setup(
    profile: str = PROFILE,
    *,
    elements: Sequence[str] = ("C",),
    functional: str = "LDA",
    pseudo_family: str | None = None,
    pw: Path | None = None,
    feff: bool = False,
    make_default: bool = False,
    dft: bool = True,
    bases: Sequence[str] = (),
    report: Report = lambda _: None,
) -> SetupResult:
    """Make everything that a run on this machine needs, and load the profile. Running it again changes nothing.

    Args:
        profile: AiiDA profile; made (SQLite, ZeroMQ broker, no service needed) where there is none of that name.
        elements: chemical symbols for which pseudopotentials are needed.
        functional: Functional of a generated pseudopotential family.
        pseudo_family: label of an installed family to use instead.
        pw: path of a pw.x to use; else the one on PATH, else the one of the qepy wheel in an environment of its own.
        feff: whether FEFF is needed, for EXAFS: the one on PATH, else that of xraylarch in an environment of its own.
        make_default: make the profile the default one, which otherwise happens only where there is no default.
        dft: also pw.x and pseudopotentials; without them only runs that label nothing are possible.
        bases: Names of base potentials, each of which gets a code ``difftre-NAME`` with an environment of its own.
        report: is told each step that takes time or makes something.

    Raises:
        SetupError: naming the part and the remedy.
    """
    created: list[str] = []

    def made(what: str) -> None:
        created.append(what)
        report(f"made {what}")

    ensure_profile(profile, make_default=make_default, made=made)
    computer = ensure_computer(made)
    try:
        script = engine_script()
    except FileNotFoundError as error:
        raise SetupError(f"engine: {error}") from None
    engine = ensure_code(computer, ENGINE, script, description="Engine of aiida-difftre.", made=made)
    if feff:
        _ensure_feff(computer, made, report)
    for name in bases:
        _ensure_base(computer, name, made, report)
    if not dft:
        return SetupResult(profile, computer.label, engine.full_label, None, None, None, created)
    try:
        programs = find_programs(pw, report)
    except QuantumEspressoError as error:
        raise SetupError(f"pw.x: {error}") from None
    code = ensure_code(
        computer,
        PW,
        programs.pw,
        description=f"pw.x {programs.version} of Quantum ESPRESSO.",
        plugin="quantumespresso.pw",
        prepend_text="" if programs.private else PREPEND_TEXT,
        made=made,
    )
    family = _family(programs, elements, functional, pseudo_family, made, report)
    if created:
        _check_pw(programs, family, elements[0])
    return SetupResult(
        profile=profile,
        computer=computer.label,
        engine=engine.full_label,
        pw=code.full_label,
        pw_version=programs.version,
        pseudo_family=str(family.label),
        created=created,
    )


def _ensure_base(computer: orm.Computer, name: str, made: Report, report: Report) -> None:
    try:
        base = known_name(name)
        program = ensure_environment(base, report)
    except BaseError as error:
        raise SetupError(f"base: {error}") from None
    description = f"Engine of aiida-difftre with {base.description}."
    ensure_code(computer, f"{ENGINE}-{name}", program, description=description, made=made)


def _ensure_feff(computer: orm.Computer, made: Report, report: Report) -> None:
    try:
        program = find_feff(report=report)
    except FeffError as error:
        raise SetupError(f"FEFF: {error}") from None
    ensure_code(computer, FEFF, program, description="FEFF 6.", plugin="difftre.feff", made=made)


def ensure_profile(name: str, *, make_default: bool = False, made: Report = lambda _: None) -> None:
    """Load a profile; where it does not exist make it, as ``verdi presto`` does: SQLite and the ZeroMQ broker.

    Other profiles, and which one is the default, are left alone (unless there is no default, or it is asked for).

    Raises:
        SetupError: when it can be neither made nor loaded.
    """
    config = get_config(create=True)
    if name not in config.profile_names:
        default = config.default_profile_name if config.default_profile_name in config.profile_names else None
        try:
            create_profile(
                config,
                name=name,
                email=config.get_option("autofill.user.email") or "aiida@localhost",
                storage_backend="core.sqlite_dos",
                storage_config={},
                broker_backend=BROKER,
                broker_config=BrokerFactory(BROKER).get_default_config(),
            )
        except (ValueError, TypeError, OSError, exceptions.AiidaException) as error:
            raise SetupError(f"profile: cannot make {name!r} in {config.dirpath}: {error}") from None
        config.set_option("runner.poll.interval", PROCESS_POLL_INTERVAL, scope=name)
        config.set_option("daemon.timeout", DAEMON_TIMEOUT, scope=name)
        config.set_default_profile(name if make_default else default or name, overwrite=True)
        config.store()
        made(f"profile {name!r} (SQLite, ZeroMQ broker)")
    elif make_default and config.default_profile_name != name:
        config.set_default_profile(name, overwrite=True)
        config.store()
    _load(name)


def _profile_name() -> str:
    profile = get_manager().get_profile()
    return profile.name if profile is not None else PROFILE


def _load(name: str) -> None:
    sqlite.be_patient(sqlite.COMMANDS_S)
    try:
        load_profile(name, allow_switch=True)
        get_manager().get_profile_storage()
    except (exceptions.AiidaException, OSError) as error:
        raise SetupError(
            f"profile: {name!r} exists but cannot be used: {error}; `verdi -p {name} status` says more, "
            "--profile takes another name"
        ) from None


def ensure_computer(made: Report = lambda _: None) -> orm.Computer:
    """This machine as a computer: an existing one of the label ``localhost`` is taken as it is.

    Raises:
        SetupError: when the existing one cannot run jobs here.
    """
    try:
        computer = orm.load_computer(COMPUTER)
    except exceptions.NotExistent:
        workdir = Path(get_config().dirpath) / "scratch" / _profile_name()
        computer = orm.Computer(
            label=COMPUTER,
            hostname="localhost",
            description="This machine.",
            transport_type="core.local",
            scheduler_type="core.direct",
            workdir=str(workdir),
        ).store()
        computer.set_default_mpiprocs_per_machine(1)
        computer.set_minimum_job_poll_interval(POLL_INTERVAL)
        made(f"computer {COMPUTER!r} (jobs run in {workdir})")
    if computer.transport_type != "core.local":
        raise SetupError(
            f"computer: {COMPUTER!r} of this profile is reached by {computer.transport_type}, not core.local; relabel "
            f"it (`verdi computer relabel {COMPUTER} OTHER`) or use another profile (--profile)"
        )
    if not computer.is_configured:
        # A login shell reads the profile files anew for every program that AiiDA starts: up to 0.1 CPU s each time.
        computer.configure(safe_interval=0, use_login_shell=False)
    return computer


def ensure_code(
    computer: orm.Computer,
    label: str,
    executable: Path,
    *,
    description: str,
    plugin: str | None = None,
    prepend_text: str = "",
    made: Report = lambda _: None,
) -> orm.InstalledCode:
    """A code for the executable; an existing one of that label is taken, unless it names another executable.

    Stored codes cannot change; one that names another executable keeps its jobs and gets another label.

    Args:
        computer: where it runs.
        label: such as ``pw``.
        executable: absolute path.
        description: Description of the code.
        plugin: default CalcJob plugin.
        prepend_text: shell lines before it.
        made: is told what was made.
    """
    try:
        existing = orm.load_code(f"{label}@{computer.label}")
    except exceptions.NotExistent:
        pass
    else:
        if isinstance(existing, orm.InstalledCode) and Path(str(existing.filepath_executable)) == executable:
            return existing
        existing.label = f"{label}-{existing.pk}"
        made(f"the label {existing.full_label!r} for the code {label!r} of before, which runs another program")
    code = orm.InstalledCode(
        label=label,
        computer=computer,
        filepath_executable=str(executable),
        default_calc_job_plugin=plugin,
        description=description,
        prepend_text=prepend_text,
    )
    code.store()
    made(f"code {code.full_label!r} ({executable})")
    return code


def ensure_pseudopotentials(
    elements: Sequence[str], functional: str, *, report: Report = lambda _: None
) -> PseudoPotentialFamily:
    """A family of the loaded profile with all elements; what the package can generate is generated where it is missing.

    Args:
        elements: chemical symbols.
        functional: such as LDA.
        report: is told what is being done.

    Raises:
        SetupError: naming the element and the remedy.
    """
    family = find_family(elements, functional)
    if family is not None:
        return family
    try:
        check_recipes(elements, functional)
        ld1 = find_programs(report=report).ld1 or private_programs(report).ld1
        return ensure_family(elements, functional, ld1=ld1, report=report)
    except (PseudopotentialError, QuantumEspressoError) as error:
        raise SetupError(f"pseudopotentials: {error}") from None


def _family(
    programs: Programs,
    elements: Sequence[str],
    functional: str,
    label: str | None,
    made: Report,
    report: Report,
) -> PseudoPotentialFamily:
    before = orm.QueryBuilder().append(UpfData).count()
    try:
        ld1 = programs.ld1
        if ld1 is None and label is None and find_family(elements, functional) is None:
            check_recipes(elements, functional)
            ld1 = private_programs(report).ld1  # a pw.x on PATH often comes without its ld1.x
        family = ensure_family(elements, functional, label=label, ld1=ld1, report=report)
    except (PseudopotentialError, QuantumEspressoError) as error:
        raise SetupError(f"pseudopotentials: {error}") from None
    if orm.QueryBuilder().append(UpfData).count() > before:
        made(f"pseudopotentials for {', '.join(sorted(set(elements)))} in the family {family.label!r}")
    return family


def _check_pw(programs: Programs, family: PseudoPotentialFamily, element: str) -> None:
    """A real calculation, of one atom."""
    with family.get_pseudo(element).as_path() as path:
        try:
            check_scf(programs.pw, path, element)
        except QuantumEspressoError as error:
            raise SetupError(f"pw.x: {error}") from None
