"""Private environments: whole or not there, also where two set-ups run at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_difftre.cli import quantum_espresso


@pytest.fixture
def fake_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments of an empty folder: a real one needs the network."""
    monkeypatch.setattr(quantum_espresso.venv, "create", lambda path, **_: (path / "bin").mkdir(parents=True))


@pytest.mark.usefixtures("fake_venv")
@pytest.mark.parametrize("other_is_done", [True, False])
def test_two_set_ups_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_is_done: bool) -> None:
    environment = tmp_path / "qepy-venv"

    def install(folder: Path, *_: str) -> None:
        """Of this set-up; within its time the other one begins, and ends where it is the faster one."""
        (folder / "mine").touch()
        with monkeypatch.context() as patch:
            patch.setattr(quantum_espresso.os, "getpid", lambda: 1)
            patch.setattr(quantum_espresso, "_pip", lambda other, *_: (other / "theirs").touch())
            if other_is_done:
                quantum_espresso.install_environment(environment, ["x"])
            else:
                patch.setattr(quantum_espresso.shutil, "rmtree", lambda *_, **__: None)
                patch.setattr(Path, "rename", lambda *_: None)
                quantum_espresso.install_environment(environment, ["x"])
        assert (folder / "mine").exists()
        assert not (folder / "theirs").exists()

    monkeypatch.setattr(quantum_espresso, "_pip", install)
    quantum_espresso.install_environment(environment, ["x"])
    assert (environment / ("theirs" if other_is_done else "mine")).exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"qepy-venv"} if other_is_done else {"qepy-venv", "qepy-venv.1.part"})


@pytest.mark.usefixtures("fake_venv")
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_installation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(quantum_espresso, "_pip", fail)
    with pytest.raises(error):
        quantum_espresso.install_environment(tmp_path / "venv", ["x"])
    assert not list(tmp_path.iterdir())
