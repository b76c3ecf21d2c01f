"""Wrong inputs, each the way a user gives it: refused with a message that names the value, and nothing was started."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import ase.io
import pytest
import yaml
from aiida import orm
from aiida.engine import run_get_node

from aiida_difftre.engine.contract.jobs import ERROR, JOB, POTENTIAL_IN, RESULTS, STRUCTURE
from aiida_difftre.engine.errors import ExitStatus
from aiida_difftre.workchains.refine import RefineWorkChain
from aiida_difftre.workchains.sample import SampleBaseWorkChain
from tests.fixtures.nodes import argon, labelled_frames, potential_file, target_content

Content = dict[str, Any]


def processes() -> int:
    return orm.QueryBuilder().append(orm.ProcessNode).count()


@pytest.fixture
def refused(argon_input: Any, cli: Any) -> Callable[[Callable[[Content], Any]], str]:
    """A function (change of a valid input) -> what ``aiida-difftre submit`` and ``run`` answer to it."""

    def attempt(change: Callable[[Content], Any]) -> str:
        path = argon_input(change)
        before = processes()
        answers = [cli(command, path) for command in ("submit", "run")]
        assert [answer.exit_code for answer in answers] == [1, 1], answers[0].output
        assert answers[0].output == answers[1].output
        assert answers[0].output.startswith("Error: ")
        assert "Traceback" not in answers[0].output
        assert processes() == before
        return answers[0].output

    return attempt


def pressure(content: Content) -> Content:
    return content["state_points"]["solid"]["targets"]["pressure"]


def spec(**term: Any) -> Content:
    return {"spec": {"species": ["Ar"], "terms": [{"architecture": "moment_network", "cutoff": 5.0, **term}]}}


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """A file of labels for argon."""
    ase.io.write(tmp_path / "labels.extxyz", labelled_frames())
    return "labels.extxyz"


def test_the_input_itself_is_right(argon_input: Any) -> None:
    from aiida_difftre.workchains.from_input import read_builder

    assert read_builder(argon_input()).process_class.__name__ == "TrainWorkChain"


def test_negative_error_in_a_target(refused: Any, cli: Any, tmp_path: Path) -> None:
    message = refused(lambda content: pressure(content).update(errors=[-0.25]))
    assert "-0.25" in message
    assert "must be positive" in message
    path = tmp_path / "target.yaml"
    path.write_text(yaml.safe_dump(target_content(errors=[-0.25])))
    nodes = orm.QueryBuilder().append(orm.Data).count()
    answer = cli("target", "import", path)
    assert answer.exit_code == 1
    assert "-0.25" in answer.output
    assert orm.QueryBuilder().append(orm.Data).count() == nodes


@pytest.mark.parametrize(
    ("section", "settings", "told"),
    [
        ("refinement", {"update": {"gate": "0,5"}}, "refinement.update.gate: must be a number (got '0,5'); write it"),
        ("refinement", {"settings": {"max_iteration": 3}}, "refinement.settings.max_iteration: unknown key (got 3)"),
        ("validation", {"sampling": {"timestep_fs": "1,5"}}, "validation.sampling.timestep_fs: must be a number, in"),
        ("sampling", {"thermostat": {"name": "nose"}}, "sampling.thermostat: 'name' must be one of 'langevin', "),
        ("pretraining", {"steps": "many"}, "pretraining.steps: must be a number (got 'many')"),
    ],
)
def test_settings_are_named_as_in_the_input(refused: Any, section: str, settings: Content, told: str) -> None:
    """And neither as a port nor as an attribute of a builder."""
    assert refused(lambda content: content.update({section: settings})).startswith(f"Error: {told}")


def test_ports_are_named_as_in_the_input() -> None:
    from aiida_difftre.workchains.from_input import place_of

    assert place_of("inputs") == ""
    assert place_of("inputs.state_points.solid.targets") == "state_points.solid.targets"
    assert place_of("inputs.refine.sample.calc.parameters") == "sampling"
    assert place_of("inputs.pretrain.calc.parameters") == "pretraining"


def test_unknown_observable(refused: Any) -> None:
    message = refused(lambda content: pressure(content).update(observable="viscosity"))
    assert "'viscosity'" in message
    for known in ("adf", "potential_energy", "rdf", "stress", "structure_factor"):
        assert known in message


def test_species_without_reference_energy(refused: Any, labels: str) -> None:
    def change(content: Content) -> None:
        content.update(dft={"dataset": labels}, model=spec(), pretraining={"atomic_energies": {"Ne": -1.5}})

    message = refused(change)
    assert "Ar" in message
    assert "atomic_energies = {'Ne': -1.5} gives no reference energy" in message


def test_missing_pseudopotential(refused: Any) -> None:
    message = refused(lambda content: content.update(model=spec(), dft={}))
    assert "no LDA pseudopotential for Ar" in message
    assert "aiida-pseudo install" in message
    message = refused(lambda content: content.update(model=spec(), dft={"pseudo_family": "SSSP/9.9"}))
    assert "there is no pseudopotential family 'SSSP/9.9'" in message


def test_family_without_the_element(refused: Any) -> None:
    from aiida_pseudo.groups.family import PseudoPotentialFamily

    label = f"empty-{uuid4().hex}"
    PseudoPotentialFamily(label).store()
    message = refused(lambda content: content.update(model=spec(), dft={"pseudo_family": label}))
    assert f"no pseudopotential for Ar in the family '{label}'" in message


@pytest.mark.parametrize("cutoff", [50.0, -3.0])
def test_cutoff_out_of_range(refused: Any, labels: str, cutoff: float) -> None:
    message = refused(lambda content: content.update(dft={"dataset": labels}, model=spec(cutoff=cutoff)))
    assert f"{cutoff:g}" in message
    assert "cutoff" in message


@pytest.mark.parametrize(
    ("optimizer", "fragment"),
    [
        ({"name": "adm"}, "unknown optimizer 'adm'; known: "),
        ({"options": {"beta": 0.9}}, "has no option 'beta'; its options: "),
    ],
)
def test_unknown_optimizer(refused: Any, labels: str, optimizer: Content, fragment: str) -> None:
    assert fragment in refused(lambda content: content.update(refinement={"update": {"optimizer": optimizer}}))
    assert fragment in refused(
        lambda content: content.update(dft={"dataset": labels}, model=spec(), pretraining={"optimizer": optimizer})
    )


def test_optimizer_of_updates_in_pretraining(refused: Any, labels: str) -> None:
    message = refused(
        lambda content: content.update(
            dft={"dataset": labels}, model=spec(), pretraining={"optimizer": {"name": "gauss_newton"}}
        )
    )
    assert "'gauss_newton' is for updates alone" in message


def test_unknown_term(refused: Any, labels: str) -> None:
    message = refused(lambda content: content.update(dft={"dataset": labels}, model=spec(architecture="moments")))
    assert "unknown architecture 'moments'; registered: born_mayer" in message


def test_structure_of_other_species(refused: Any) -> None:
    bulk = {"element": "Ne", "structure": "fcc", "lattice_constant": 4.5}
    message = refused(lambda content: content.update(system={"bulk": bulk}))
    assert "contains Ne, but the potential knows Ar only" in message


def silica(content: Content) -> None:
    """Ions of silica at random places, and a total structure factor as neutrons see it."""
    charges = {"charges": {"Si": 2.4, "O": -1.2}, "formula": "SiO2"}
    pairs = {
        "amplitude": {"Si-Si": 0.0, "Si-O": 18003.76, "O-O": 1388.77},
        "rho": {"Si-Si": 1.0, "Si-O": 0.205, "O-O": 0.362},
        "c6": {"Si-Si": 0.0, "Si-O": 133.54, "O-O": 175.0},
    }  # fmt: skip
    core = {"epsilon": 1.0, "sigma": {"Si-Si": 1.5, "Si-O": 1.25, "O-O": 1.7}, "exponent": 24}
    terms = {"coulomb_dsf": (6.0, charges), "buckingham": (5.5, pairs), "repulsion": (4.0, core)}
    content["model"] = {
        "spec": {
            "species": ["Si", "O"],
            "terms": [
                {"architecture": name, "cutoff": cutoff, "hyperparameters": one}
                for name, (cutoff, one) in terms.items()
            ],
        }
    }
    content["system"] = {"random": {"composition": {"Si": 8, "O": 16}, "density": 2200.0}}
    grid = {"grid": [1.5, 2.0, 2.5], "values": [1.4, 0.9, 1.1], "errors": [0.1, 0.1, 0.1]}
    total = target_content(observable="structure_factor", unit="1", options={}, **grid)
    content["state_points"] = {"glass": {"temperature": 85.0, "targets": {"total": total}}}


def term(content: Content, number: int) -> Content:
    return content["model"]["spec"]["terms"][number]["hyperparameters"]


def seen(content: Content) -> Content:
    return content["state_points"]["glass"]["targets"]["total"]["options"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: term(content, 0)["charges"].update(O=-1.3), "charges of SiO2 sum to -0.2 e, not to zero"),
        (lambda content: content["model"]["spec"]["terms"].pop(), "fuse"),
        (lambda content: term(content, 1)["rho"].pop("Si-O"), "rho has no value for the pair 'Si-O'; give one"),
        (lambda content: seen(content).update(isotopes={"O": "14O"}), "scattering"),
        (lambda content: seen(content).update(composition="GeO2"), "measured on GeO2, by whose composition"),
    ],
    ids=["charges", "core", "pair", "scattering-length", "composition"],
)
def test_several_species(refused: Any, change: Callable[[Content], Any], message: str) -> None:
    def both(content: Content) -> None:
        silica(content)
        change(content)

    assert message in refused(both)


def test_corrupt_potential_file(refused: Any, tmp_path: Path) -> None:
    whole = potential_file(tmp_path / "whole.safetensors").read_bytes()
    damaged = {"cut.safetensors": whole[:-40], "text.safetensors": b"not a potential", "empty.safetensors": b""}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert name in refused(lambda changed, name=name: changed.update(model={"potential": name}))


def test_nan_in_a_target_file(refused: Any, tmp_path: Path) -> None:
    lines = yaml.safe_dump(target_content(values=["PLACE"])).replace("PLACE", ".nan")
    (tmp_path / "measured.yaml").write_text(lines)
    message = refused(lambda content: content["state_points"]["solid"]["targets"].update(pressure="measured.yaml"))
    assert "measured.yaml" in message
    assert "values[0] is nan" in message


def test_temperature_zero(refused: Any) -> None:
    message = refused(lambda content: content["state_points"]["solid"].update(temperature=0))
    assert "solid.temperature" in message
    assert "got 0" in message


@pytest.fixture
def disabled(engine: orm.InstalledCode) -> Iterator[orm.Computer]:
    """The computer of the engine, disabled as one does before its maintenance."""
    authinfo = engine.computer.get_authinfo(orm.User.collection.get_default())
    authinfo.enabled = False
    yield engine.computer
    authinfo.enabled = True


def test_disabled_computer(refused: Any, disabled: orm.Computer) -> None:
    message = refused(lambda _: None)
    assert f"computer '{disabled.label}' of the code is disabled" in message
    assert "verdi computer enable" in message


def test_disabled_computer_of_a_builder(
    engine: orm.InstalledCode, disabled: orm.Computer, potential: Any, structure: Any, aiida_profile: Any
) -> None:
    builder = SampleBaseWorkChain.get_builder_from_protocol(
        code=engine, potential=potential, structure=structure, temperature=85.0
    )
    before = processes()
    with pytest.raises(ValueError, match=f"'{disabled.label}' of the code is disabled"):
        run_get_node(builder)
    assert processes() == before


@pytest.fixture
def silent_computer(aiida_profile: Any, tmp_path: Path) -> orm.Computer:
    """A computer behind a port at which nobody listens."""
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        port = stream.getsockname()[1]
    computer = orm.Computer(
        label=f"silent-{uuid4().hex}",
        hostname="127.0.0.1",
        transport_type="core.ssh",
        scheduler_type="core.direct",
        workdir=str(tmp_path),
    ).store()
    computer.configure(port=port, username="nobody", look_for_keys=False, allow_agent=False, timeout=5, safe_interval=0)
    return computer


@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.filterwarnings("default::UserWarning")
def test_computer_that_is_down(refused: Any, silent_computer: orm.Computer) -> None:
    code = orm.InstalledCode(
        label="engine-far-away", computer=silent_computer, filepath_executable="/opt/difftre/bin/difftre"
    ).store()
    message = refused(lambda content: content["machines"]["sampling"].update(code=code.full_label))
    assert "machines.sampling" in message
    assert code.full_label in message


def test_submission_without_a_daemon(cli: Any, argon_input: Any, stopped_daemon_client: Any) -> None:
    before = processes()
    answer = cli("submit", argon_input())
    assert answer.exit_code == 1
    assert "verdi -p" in answer.output
    assert "daemon start" in answer.output
    assert processes() == before


def test_a_builder_is_refused_like_an_input_file(engine: orm.InstalledCode, potential: Any, structure: Any) -> None:
    from aiida_difftre.data.target import TargetData

    def point(**changes: Any) -> Content:
        target = TargetData(target_content())
        return {"structure": structure, "temperature": orm.Float(85.0), "targets": {"pressure": target}, **changes}

    neon = orm.StructureData(ase=ase.build.bulk("Ne", "fcc", a=4.5))
    before = processes()
    for wrong, fragment in ((point(structure=neon), "contains Ne"), (point(temperature=orm.Float(0.0)), "0.0 K")):
        with pytest.raises(ValueError, match=fragment):
            run_get_node(
                RefineWorkChain.get_builder_from_protocol(
                    potential=potential, state_points={"solid": wrong}, sample_code=engine
                )
            )
    for content, fragment in (
        (target_content(errors=[-0.5]), "-0.5"),
        (target_content(observable="viscosity"), "viscosity"),
        (target_content(values=[float("nan")]), "nan"),
    ):
        with pytest.raises(ValueError, match=fragment):
            TargetData(content)
    assert processes() == before


@pytest.fixture
def engine_refuses(engine_script: str, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """A function (kind, job) -> exit status and message of the console script ``difftre``."""

    def run(kind: str, job: Content) -> tuple[int, str]:
        (tmp_path / JOB).write_text(json.dumps(job))
        done = subprocess.run(
            [engine_script, kind, str(tmp_path / JOB)], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / RESULTS).exists()
        error = json.loads((tmp_path / ERROR).read_text())
        assert error["message"] in done.stderr
        return error["exit_status"], error["message"]

    return run


def test_engine_refuses_what_only_it_can_judge(engine_refuses: Any, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "labels.extxyz", labelled_frames())
    term = {
        "architecture": "lennard_jones",
        "cutoff": 5.0,
        "hyperparameters": {"epsilon": 0.01, "sigma": 3.4, "onset": 6.5},
    }
    job = {"dataset": "labels.extxyz", "potential": {"species": ["Ar"], "terms": [term]}}
    status, message = engine_refuses("pretrain", job)
    assert status == ExitStatus.INVALID_INPUT
    assert "onset = 6.5" in message
    assert "5.0" in message


def test_engine_refuses_on_its_own(engine_refuses: Any, tmp_path: Path) -> None:
    argon(1).write(tmp_path / STRUCTURE)
    status, message = engine_refuses("sample", {"temperature": 0})
    assert status == ExitStatus.INVALID_INPUT
    assert "temperature" in message
    (tmp_path / POTENTIAL_IN).write_bytes(b"not a potential")
    status, message = engine_refuses("sample", {"temperature": 85.0})
    assert status == ExitStatus.CORRUPT_FILE
    assert POTENTIAL_IN in message
    potential_file(tmp_path / POTENTIAL_IN, species=("Ne",))
    status, message = engine_refuses("sample", {"temperature": 85.0})
    assert status == ExitStatus.INVALID_INPUT
    assert "Ar" in message
