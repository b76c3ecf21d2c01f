"""BasePotentialData: what it says, where its weights are, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.plugins import DataFactory

from aiida_difftre.data.base import BasePotentialData
from aiida_difftre.engine.contract.files import digest
from tests.fixtures.nodes import potential_file


def test_weights_in_a_package_are_named_by_its_version(aiida_profile: Any) -> None:
    assert DataFactory("difftre.base") is BasePotentialData
    node = BasePotentialData.from_name("chgnet").store()
    assert (node.model, node.version, node.label) == ("chgnet", "0.4.2", "chgnet 0.4.2")
    assert node.spec.engine == "ase"
    filters = {"attributes.model": "chgnet", "attributes.digest": node.digest}
    found = orm.QueryBuilder().append(BasePotentialData, filters=filters, project="uuid").all(flat=True)
    assert node.uuid in found
    assert BasePotentialData.from_name("chgnet", version="0.4.1").digest != node.digest


def test_files_are_kept_or_stay_on_a_computer(aiida_localhost: orm.Computer, tmp_path: Path) -> None:
    path = potential_file(tmp_path / "argon.safetensors")
    kept = BasePotentialData.from_name("potential", files={"potential": path}, species=["Ar"]).store()
    assert kept.spec.files["potential"].sha256 == digest(path)
    assert kept.computer_label is None
    kept.to_folder(tmp_path)
    assert digest(tmp_path / kept.job_files()["potential"]) == digest(path)
    stays = BasePotentialData.from_name(
        "potential",
        files={"potential": "/data/argon.safetensors"},
        computer=aiida_localhost,
        digests={"potential": digest(path)},
    )
    assert stays.digest == kept.digest
    assert stays.job_files() == {"potential": "/data/argon.safetensors"}
    assert stays.kept_files() == []
    assert stays.computer_label == aiida_localhost.label


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("chgnett", {}, "unknown base 'chgnett'; known: chgnet, emt"),
        ("chgnet", {"arguments": {"weights": "x"}}, "base 'chgnet' has no setting 'weights'; it takes: model_name"),
        ("mace", {}, "base 'mace' needs the file 'model'"),
        ("mace", {"files": {"model": "nowhere.model"}}, "there is no file 'nowhere.model' for model"),
        ("emt", {"species": ["Cu", "Si"]}, "base 'emt' does not know Si; it is for Al, Cu"),
        ("emt", {"engine": "jax"}, "base 'emt' is not evaluated by 'jax'; give engine: ase"),
    ],
)
def test_what_is_no_base_is_refused(model: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BasePotentialData.from_name(model, **given)


@pytest.mark.parametrize(
    ("path", "stated", "message"),
    [("argon.safetensors", {}, "no absolute path"), ("/a/b", {}, "give the SHA-256 of /a/b on localhost")],
)
def test_files_on_a_computer_have_a_path_and_a_digest(
    aiida_localhost: orm.Computer, path: str, stated: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BasePotentialData.from_name("potential", files={"potential": path}, computer=aiida_localhost, digests=stated)
