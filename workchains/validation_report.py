"""The report of a validation: every target before and after, errors against DFT, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_difftre.engine.contract.records import read
from aiida_difftre.engine.contract.results import PredictResults, SampleResults
from aiida_difftre.engine.contract.validation import validate
from aiida_difftre.engine.contract.verdict import Verdict
from aiida_difftre.workchains import records
from aiida_difftre.workchains.state_points import targets_of
from aiida_difftre.workchains.validate_checks import ValidateSettings
from aiida_difftre.workchains.verdict import Sampled, verdict


@calcfunction
def validation_report(**nodes: Any) -> orm.Dict:
    """Everything that a validation found, in one node.

    Args:
        **nodes: ``targets`` by state point; ``predictions`` by potential (before, after) and state point;
            ``sampled`` (output parameters of the runs) likewise; ``compared`` with labels and ``static`` (output
            parameters of predictions) by potential; ``lattices`` (output parameters of the prediction that looked at
            the lattices of the state points); ``settings``.

    Returns:
        ``state_points``: label -> target -> before/after comparison; ``chi2``: potential -> by role;
        ``stationarity``: potential -> label -> that of the run; ``dataset``: potential -> errors; ``static``:
        potential -> stress and stiffness; ``verdict``: what the refined potential may be used for.
    """
    targets = {label: targets_of(group) for label, group in nodes["targets"].items()}
    content: dict[str, Any] = {"chi2": {}, "state_points": {}, "stationarity": {}, "dataset": {}, "static": {}}
    for when, predictions in nodes["predictions"].items():
        found = {label: records.predictions_of(node) for label, node in predictions.items()}
        compared = records.compare_points(targets, found)
        content["chi2"][when] = records.judge(compared)
        for label, comparisons in compared.items():
            for target, comparison in comparisons.items():
                content["state_points"].setdefault(label, {}).setdefault(target, {})[when] = comparison
    for when, runs in nodes.get("sampled", {}).items():
        content["stationarity"][when] = {
            label: stationarity.content()
            for label, parameters in runs.items()
            if (stationarity := read(SampleResults, parameters.get_dict()).stationarity) is not None
        }
    for when, parameters in nodes.get("compared", {}).items():
        if (errors := read(PredictResults, parameters.get_dict()).errors) is not None:
            content["dataset"][when] = errors.content()
    for when, parameters in nodes.get("static", {}).items():
        if (static := read(PredictResults, parameters.get_dict()).static) is not None:
            content["static"][when] = static.content()
    looked = {name: read(PredictResults, node.get_dict()) for name, node in nodes.get("lattices", {}).items()}
    runs = nodes.get("sampled", {}).get("after", {})
    settings = validate(ValidateSettings, nodes["settings"].get_dict() if "settings" in nodes else {})
    content["verdict"] = _verdict(content, runs, looked, settings).content()
    return orm.Dict(content)


def _verdict(
    content: Mapping[str, Any],
    runs: Mapping[str, orm.Dict],
    looked: Mapping[str, PredictResults],
    settings: ValidateSettings,
) -> Verdict:
    """The verdict on the refined potential."""
    sampled = {}
    for label, node in runs.items():
        results = read(SampleResults, node.get_dict())
        sampled[label] = Sampled(results.mean_temperature, results.arrangement, tuple(results.hot or ()))
    if not looked:
        return verdict(content["state_points"], sampled)
    (found,) = looked.values()
    lattices = dict(zip(sorted(content["state_points"]), found.lattices or [], strict=True))
    return verdict(content["state_points"], sampled, lattices, found.dimers, settings.phonons)
