import pytest

from aiida_difftre.engine.contract.base import derived_seed
from aiida_difftre.engine.contract.predictions import Prediction
from aiida_difftre.engine.contract.targets import Conditions, Target
from aiida_difftre.workchains.comparison import compare, compare_all, decisive_points, judgement


def make(role: str, label: str, value: float) -> Target:
    return Target(
        observable="pressure", values=[value], errors=[3.0], unit="GPa", conditions=Conditions(temperature=300.0),
        citation="nobody", role=role, label=label,
    )  # fmt: skip


def predicted(label: str, value: float, error: float = 4.0) -> Prediction:
    return Prediction(label=label, observable="pressure", unit="GPa", labels=["P"], values=[value], errors=[error])


def test_chi2_counts_both_errors() -> None:
    assert compare(make("training", "a", 0.0), predicted("a", 10.0))["chi2"] == pytest.approx(100 / 25)


def test_a_curve_is_compared_with_its_grid() -> None:
    target = Target(
        observable="rdf", grid=[1.5, 2.5], values=[1.0, 1.0], errors=[0.1, 0.1], unit="1", citation="nobody",
        conditions=Conditions(temperature=300.0),
    )  # fmt: skip
    prediction = Prediction(
        label="rdf", observable="rdf", unit="1", labels=["1.5", "2.5"], values=[1.3, 0.6], errors=[0.1, 0.1]
    )
    compared = compare(target, prediction)
    assert "fitted" not in compared
    fitted = prediction.model_copy(update={"fitted": {"s02": 0.9}})
    assert compare(target, fitted) == {**compared, "fitted": {"s02": 0.9}}
    assert compared["grid"] == [1.5, 2.5]
    assert compared["rms"] == pytest.approx((0.25 / 2) ** 0.5)
    assert compared["chi2"] == pytest.approx(0.25 / 2 / 0.02)
    assert compared["labels"] == []


def test_judgement_goes_by_selection_targets() -> None:
    roles = {"a": "training", "b": "selection", "c": "training", "d": "test"}
    targets = {label: make(role, label, 0.0) for label, role in roles.items()}
    predictions = [predicted("a", 10.0), predicted("b", 5.0), predicted("d", 50.0), predicted("other", 1.0)]
    compared = compare_all(targets, predictions)
    assert set(compared) == {"a", "b", "d"}
    assert judgement(compared.values()) == {
        "training": pytest.approx(4.0),
        "selection": pytest.approx(1.0),
        "test": pytest.approx(100.0),
        "criterion": "selection",
    }
    assert judgement([compared["a"], compared["d"]])["criterion"] == "training"
    assert [column.tolist() for column in decisive_points(compared.values())] == [[5.0], [3.0], [4.0]]
    assert [column.tolist() for column in decisive_points([compared["a"]])] == [[10.0], [3.0], [4.0]]


def test_seeds_differ_and_repeat() -> None:
    seeds = {derived_seed(1, "sample", iteration, label) for iteration in range(50) for label in "ab"}
    assert len(seeds) == 100
    assert derived_seed(1, "sample", 0, "a") == derived_seed(1, "sample", 0, "a") != derived_seed(2, "sample", 0, "a")
    assert all(0 <= seed < 2**31 for seed in seeds)
