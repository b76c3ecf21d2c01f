"""Files: written as a whole and with the same bytes for the same content; what is damaged is refused by name."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_difftre.engine.contract import files, writing
from aiida_difftre.engine.contract.trajectories import read_trajectory, write_trajectory
from aiida_difftre.engine.errors import EngineError, ExitStatus, UnreadableFileError
from aiida_difftre.engine.runtime.progress import Progress
from tests.fixtures.nodes import make_trajectory, potential_file

WRITERS = {
    "json": lambda path: writing.write_json(path, {"a": 1}),
    "arrays": lambda path: files.write_arrays(path, {"a": np.ones(3)}),
    "npz": lambda path: files.write_npz(path, {"a": np.ones(3)}),
    "trajectory": lambda path: write_trajectory(path, make_trajectory()),
}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def full(_: int) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            WRITERS[kind](path)
        assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"
    WRITERS[kind](path)
    assert path.read_bytes() != b"before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", list(WRITERS))
def test_links_are_not_followed(tmp_path: Path, kind: str) -> None:
    mine = tmp_path / "of somebody else"
    mine.write_text("untouched")
    path = tmp_path / "file"
    path.symlink_to(mine)
    (tmp_path / "file.part").symlink_to(mine)
    WRITERS[kind](path)
    assert mine.read_text() == "untouched"
    assert not path.is_symlink()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "of somebody else"]


@pytest.mark.parametrize("made", ["link", "dangling link", "pipe", "folder"])
def test_progress_goes_into_a_file_of_its_own(tmp_path: Path, made: str) -> None:
    path, mine = tmp_path / "progress.jsonl", tmp_path / "of somebody else"
    if made == "link":
        mine.write_text("untouched")
    if "link" in made:
        path.symlink_to(mine)
    elif made == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(EngineError, match=r"progress\.jsonl is a link, a pipe or a folder.*remove it") as caught:
        Progress(path).report("production", 1, 2)
    assert caught.value.status == ExitStatus.INVALID_INPUT
    assert not mine.exists() or mine.read_text() == "untouched"


SAVE = """
import sys
from pathlib import Path
import ase.build
import ase.io
import numpy as np
from aiida_difftre.engine.contract import files
from aiida_difftre.engine.contract.jobs import PotentialSpec, TermSpec

folder = Path(sys.argv[1])
names = {"position", "momentum", "rng", "force"}  # a set, so that the order varies between processes
term = TermSpec(architecture="lennard_jones", cutoff=8.0, hyperparameters={name: 1.0 for name in names})
spec = PotentialSpec(species=["Ar"], terms=[term])
files.write_potential(folder / "potential", spec, {name: np.ones(3) for name in names})
metadata = {name: str(len(name)) for name in {"identity", "done", "capacity", "widened", "state", "job"}}
files.write_arrays(folder / "checkpoint", {name: np.full(len(name), 1.5) for name in names}, metadata)
files.write_arrays(folder / "optimizer", {str(number): np.arange(number + 1.0) for number in range(12)})
files.write_npz(folder / "predictions", {"energies": np.ones(3), "atoms": np.arange(3)})
atoms = ase.build.bulk("Ar", "fcc", a=5.4)
atoms.info.update(kind="given", source="unknown")
atoms.set_array("forces", np.zeros((1, 3)))
ase.io.write(folder / "dataset.xyz", [atoms, atoms], format="extxyz")
"""


def test_the_same_content_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    digests = []
    for seed in ("1", "2", "3"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SAVE, str(folder)], env=environment, check=True)
        digests.append({path.name: files.digest(path) for path in folder.iterdir()})
    assert len(digests[0]) == 5
    assert digests[0] == digests[1] == digests[2]


def test_a_file_with_another_order_of_metadata_is_read_and_put_in_order(tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    new = potential_file(tmp_path / "new.safetensors")
    content = new.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(reversed(header["__metadata__"].items()))
    text = json.dumps(dict(reversed(header.items()))).encode()
    old = tmp_path / "old.safetensors"
    old.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    assert old.read_bytes() != content
    assert files.read_potential(old)[0] == files.read_potential(new)[0]
    assert files.ordered(old.read_bytes()) == content == files.ordered(content)


def directory(content: bytes, offset: int, value: int) -> bytes:
    """An archive with another byte in each entry of its directory: 6 is the version needed, 8 are flags."""
    changed, start = bytearray(content), 0
    while (start := changed.find(b"PK\x01\x02", start + 1)) > 0:
        changed[start + offset] = value
    return bytes(changed)


def damaged(content: bytes) -> dict[str, bytes]:
    """Ways in which a file of arrays is no longer one."""
    bomb, other, unknown = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("energies.npy", bytes(30_000_000))
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "no array")
    with zipfile.ZipFile(unknown, "w") as archive:
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
        archive.writestr("energies.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    return {
        "empty": b"",
        "one byte": b"P",
        "truncated": content[: len(content) // 2],
        "without its end": content[:-1],
        "text": b"3\nLattice=...\n",
        "a pickle": b"\x80\x04N.",
        "an unknown feature of zip": directory(content, 6, 99),
        "encrypted": directory(content, 8, 1),
        "other content": other.getvalue(),
        "more than there is": unknown.getvalue(),
        "a bomb": bomb.getvalue(),
    }


@pytest.mark.parametrize("read", [read_trajectory, files.read_npz, files.read_arrays, files.read_potential])
def test_every_damage_has_one_name(tmp_path: Path, read: Any) -> None:
    whole = tmp_path / "whole"
    write_trajectory(whole, make_trajectory())
    read_trajectory(whole)
    path = tmp_path / "damaged"
    for kind, content in damaged(whole.read_bytes()).items():
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match="damaged") as caught:
            pytest.fail(f"{kind}: {read(path)}")
        assert caught.value.status == ExitStatus.CORRUPT_FILE
        assert "\n" not in caught.value.message
        assert len(caught.value.message) < 500
    path.unlink()
    for make in (lambda: None, path.mkdir, lambda: (path.rmdir(), os.mkfifo(path))):
        make()
        with pytest.raises(UnreadableFileError, match=r"there is no .* damaged|damaged is no regular file"):
            read(path)


def test_mutated_trajectories_are_read_or_refused(tmp_path: Path) -> None:
    """Bytes that change at random, most of them in the headers, which no check sum protects."""
    whole, path, rng = tmp_path / "whole.npz", tmp_path / "mutated.npz", np.random.default_rng(0)
    write_trajectory(whole, make_trajectory())
    content, refused = np.frombuffer(whole.read_bytes(), np.uint8), 0
    headers = np.flatnonzero(np.convolve(content == ord("P"), np.ones(130), "full")[: len(content)])
    for number in range(600):
        mutated = content.copy()
        where = rng.choice(headers if number % 4 else len(content), rng.integers(1, 4))
        mutated[where] = rng.integers(0, 256, len(where))
        path.write_bytes(mutated.tobytes())
        try:
            read_trajectory(path)
        except UnreadableFileError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("species", ("Xx",) * 4, "'Xx' is no chemical symbol"),
        ("temperature", np.inf, "temperature is inf K"),
        ("pressure", np.inf, "pressure is inf GPa"),
        ("walkers", np.array([0, 1, 0, 1, 0, 2], np.int32), "walkers holds numbers other than 0 to 1"),
        ("walkers", np.zeros(6), "walkers holds numbers that are no integers"),
        ("masses", np.zeros(4), "masses holds 0 amu"),
        ("cell", np.zeros((3, 3)), "volume of 0"),
    ],
)
def test_trajectories_of_nonsense_are_refused(tmp_path: Path, name: str, value: Any, message: str) -> None:
    path = tmp_path / "it.npz"
    write_trajectory(path, make_trajectory())
    files.write_npz(path, files.read_npz(path) | {name: np.asarray(value)})
    with pytest.raises(UnreadableFileError, match=message):
        read_trajectory(path)


def test_a_full_disk_leaves_no_part(tmp_path: Path) -> None:
    """With a real limit: of the size of a file, which the system treats as it does a quota."""
    script = (
        "import resource\nimport sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from aiida_difftre.engine.contract import files, writing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    files.write_npz(Path(sys.argv[1]), {'a': np.ones(100_000)})\n"
        "except OSError as error:\n    print(writing.disk_full(error).message)\n"
    )
    (tmp_path / "file").write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("file cannot be written: file too large; make room")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_counts_as_a_full_disk(number: int) -> None:
    failure = writing.disk_full(OSError(number, os.strerror(number), "/somewhere/trajectory.npz"))
    assert failure is not None
    assert failure.status == ExitStatus.DISK_FULL
    assert failure.message.startswith("trajectory.npz cannot be written")
    assert writing.disk_full(OSError(errno.EACCES, "Permission denied")) is None
    assert writing.disk_full(ValueError("No space left on device")) is None


@pytest.mark.parametrize("damage", ["shifted energies", "repeated snapshots", "empty", "gone", "none"])
def test_files_that_are_not_those_of_the_job(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "trajectory.npz"
    before = make_trajectory()
    write_trajectory(path, before)
    digests = {path.name: files.digest(path)}
    if damage == "none":
        files.check_digests(tmp_path, digests)
        return
    if damage == "shifted energies":
        write_trajectory(path, replace(before, energies=before.energies + 0.1))
    elif damage == "repeated snapshots":
        write_trajectory(path, replace(before, positions=before.positions[[0, 0, 2, 3, 4, 5]]))
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(UnreadableFileError, match=r"trajectory\.npz") as found:
        files.check_digests(tmp_path, digests)
    assert found.value.status is ExitStatus.CORRUPT_FILE
