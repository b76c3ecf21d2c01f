"""TargetData: every field checked, each refusal names the value."""

from pathlib import Path

import pytest
import yaml
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_difftre.calculations.checks import check_target_nodes
from aiida_difftre.data.target import TargetData
from aiida_difftre.engine.contract.targets import Target
from tests.fixtures.nodes import target_content


def test_round_trip() -> None:
    node = TargetData(Target(**target_content())).store()
    loaded = orm.load_node(node.pk)
    assert loaded.target == Target(**target_content())
    assert loaded.base.attributes.get("conditions") == {"temperature": 85.0, "pressure": None, "density": None}


def test_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "target.yaml"
    path.write_text(yaml.safe_dump(target_content(label="p0")))
    assert TargetData.from_yaml(path).target.name == "p0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors": [1e300]}, r"errors.0: must be .*at most 1e\+15: a larger one is a slip of the exponent"),
        ({"errors": [1e-300]}, r"errors\[0\] of target 'pressure' is 1e-300; .* at least 1e-12"),
        ({"values": ["1"]}, r"values.0: must be a number .got '1'"),
        ({"errors": [-0.1]}, r"errors\[0\] of target 'pressure' is -0.1; a standard error must be positive"),
        ({"observable": "presure"}, "unknown observable 'presure'; registered observables: .*pressure"),
        ({"values": [float("nan")]}, r"values\[0\] is nan"),
        ({"unit": "bar"}, "is in 'bar'; observable 'pressure' comes in 'GPa'"),
        ({"values": [1.0, 2.0]}, "2 values where 1 are expected"),
        ({"conditions": {"temperature": 0}}, "conditions.temperature: must be above 0"),
        ({"eror": 1}, "eror"),
        (
            {"role": "held_out"},
            r"role held_out is now test \(never influences the run\) or selection \(chooses the best",
        ),
        ({"role": "validation"}, "role.*'training', 'selection' or 'test'.*'validation'"),
    ],
)
def test_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TargetData(target_content(**changes))


def test_nan_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(target_content(values=[float("nan")])))
    with pytest.raises(ValueError, match=r"bad\.yaml.*values\[0\] is nan"):
        TargetData.from_yaml(path)


def test_file_that_is_no_target(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("[1, 2]")
    with pytest.raises(
        ValueError, match="expected the fields of a target, found list; `aiida-difftre target import` makes"
    ):
        TargetData.from_yaml(path)


def test_attributes_are_checked_again_when_stored() -> None:
    node = TargetData(target_content())
    node.base.attributes.set("errors", [-1.0])
    with pytest.raises(ValidationError, match=r"errors\[0\]"):
        node.store()


def test_a_stored_target_of_an_earlier_version_is_a_test_target() -> None:
    node = TargetData(target_content())
    node.base.attributes.set("role", "held_out")
    loaded = orm.load_node(node.store().pk)
    assert loaded.target == Target(**target_content(role="test"))
    assert loaded.base.attributes.get("role") == "held_out", "what is stored does not change"


def test_a_stored_target_is_read_whatever_later_checks_say() -> None:
    curve = {
        "observable": "rdf",
        "unit": "1",
        "grid": [0.2, 0.4, 0.6],
        "values": [0.1, -3.0, 300.0],
        "errors": [0.1] * 3,
    }
    assert "is no rdf" in refusal(target_content(**curve))
    for changes in (curve, {"values": [1e300]}, {"errors": [1e-300]}, {"weight": 1e300}):
        node = TargetData()
        node.base.attributes.set_many({**TargetData(target_content()).base.attributes.all, **changes})
        node._validate = lambda: True  # type: ignore[method-assign]  # as an earlier version stored it
        loaded = orm.load_node(node.store().pk)
        assert isinstance(loaded, TargetData)
        assert loaded.target.values == changes.get("values", [0.0])
        assert loaded.target.request().observable == changes.get("observable", "pressure")
        assert (check_target_nodes({"old": loaded}) or "").startswith("target 'old': ")
    assert check_target_nodes({"new": TargetData(target_content())}) is None


def refusal(content: dict) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (what it says is for the caller)
        TargetData(content)
    return str(caught.value)
