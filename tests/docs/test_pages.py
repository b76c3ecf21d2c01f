"""The documentation names what exists: commands, options, files; and its reference can be made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from aiida_difftre import __version__
from aiida_difftre.cli import cli
from aiida_difftre.engine.contract.jobs import RefineJob
from aiida_difftre.engine.contract.observables import ObservableSpec
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.workchains.input_models import RunInput

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if not re.search("/_", str(path)))]
)


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    import difftre_reference

    return difftre_reference


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    shell = "\n".join(code_blocks(page, "bash"))
    inline = "\n".join(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))
    for line in re.findall(r"aiida-difftre +(.*)", f"{shell}\n{inline}"):
        words = re.sub(r"#.*|&&.*", "", line).split()
        if words[:1] in (["-p"], ["--profile"]):
            words = words[2:]
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.commands.get(words.pop(0))
            assert found is not None, f"{page.name}: {line!r} names no command"
            command = found
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, f"{page.name}: {line!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_exist(page: Path) -> None:
    text = re.sub(r"^```(?!{).*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    named = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text) + re.findall(
        r"^```{literalinclude} (.*)$", text, re.MULTILINE
    )
    missing = [name for name in named if not (page.parent / name).exists()]
    assert not missing, f"{page.name} names files that do not exist: {missing}"


def test_the_version_is_the_same_everywhere() -> None:
    released = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert released[0] == cited == __version__


def test_reference_is_complete(reference: Any, tmp_path: Path) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in reference.write(tmp_path)}
    assert "## difftre.refine" in pages["processes.md"]
    assert "`state_points`" in pages["processes.md"]
    assert "## RunInput" in pages["input.md"]
    assert "| `n_eff_fraction` | number | *required* | Effective over all snapshots" in pages["results.md"]
    assert '| `"interrupted"` | A signal, such as SIGTERM, asked to stop. |' in pages["results.md"]
    assert "## stiffness" in pages["observables.md"]
    assert "## moment_network" in pages["potentials.md"]
    assert "## aiida-difftre demo" in pages["commands.md"]


def test_only_what_has_one_value_is_fixed(reference: Any) -> None:
    from difftre_reference.models import descriptions

    from aiida_difftre.engine.contract.sampling_settings import LangevinSpec
    from aiida_difftre.engine.contract.settings import PotentialSpec
    from aiida_difftre.engine.contract.targets import Target

    assert descriptions(LangevinSpec)["name"] == "Fixed."
    assert descriptions(PotentialSpec) == {
        "species": "Chemical symbols, without repetition.",
        "terms": "The terms, whose sum is the energy; with a base, the correction to it.",
        "base": "Fixed potential to which the terms are added; None for none.",
    }
    assert "Fixed." not in descriptions(Target).values()


def test_undocumented_is_refused(reference: Any) -> None:
    from difftre_reference.text import UndocumentedError, arguments

    def function() -> None:
        """Do something.

        Args:
            known: described.
        """

    assert arguments(function, ["known"]) == {"known": "described."}
    with pytest.raises(UndocumentedError, match="unknown"):
        arguments(function, ["known", "unknown"])


def test_example_of_an_own_system_is_valid() -> None:
    example = code_blocks(ROOT / "docs" / "howto" / "own-system.md", "yaml")[0]
    assert validate(RunInput, yaml.safe_load(example)).label == "silicon"


def test_example_of_the_engine_alone_is_valid() -> None:
    example = code_blocks(ROOT / "docs" / "howto" / "engine-alone.md", "json")[0]
    assert validate(RefineJob, yaml.safe_load(example)).state_points[0].label == "ambient"


def test_example_of_an_observable_works() -> None:
    jnp = pytest.importorskip("jax.numpy")
    spec, implementation, *_ = code_blocks(ROOT / "docs" / "howto" / "extend.md", "python")
    names: dict[str, Any] = {"__name__": __name__}
    exec(spec, names)
    exec(implementation, names)
    registered = names["SQUARE_DISPLACEMENT"]
    assert isinstance(registered, ObservableSpec)
    made = names["SquareDisplacement"](axis=None)
    features = made.features(jnp.array([[0.0, 0.5, 0.5], [1.0, 0.5, 0.5]]), 2 * jnp.eye(3))
    assert features.tolist() == [1.0]
    assert made.combine({"features": features[None]}, jnp.ones(1), None).tolist() == [1.0]
