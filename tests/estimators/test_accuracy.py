"""Errors and judgements, by hand-made records whose figures can be worked out in the head."""

from dataclasses import replace

import pytest

from estimators.accuracy import accuracy_of, judgement_of, spread_of
from profiles.records import Figures, Outcome, Point, Record, Rerun


def figures(
    live: int, *, process: int | None = None, upper: int | None = None, weights: int = 600, moment: str = "steady step"
) -> Figures:
    iteration, name = moment.split()
    by_category = {"weights": weights, "gradients": live - weights}
    return Figures(
        peak_live_bytes=live,
        peak_allocated_bytes=live,
        peak_reserved_bytes=live + 100,
        process_bytes=process,
        upper_bytes=upper,
        peak_moment=moment,
        at_peak_bytes=by_category,
        resident_bytes={"weights": weights},
        moments=(Point(iteration=iteration, name=name, live_bytes=live, by_category=by_category),),
    )


def record(
    row: str = "a",
    *,
    outcome: Outcome = "measured",
    predicted: Figures,
    measured: Figures | None = None,
    survived: bool | None = None,
    usable: int | None = 4000,
) -> Record:
    rerun = {} if survived is None else {"traced": Rerun(cap_bytes=1, limit_bytes=1, survived=survived)}
    return Record(
        row=row,
        device="card",
        source="measured",
        outcome=outcome,
        environment={},
        workload={},
        model={},
        attention_kernel="flash",
        usable_bytes=usable,
        predicted_at="",
        predicted={"traced": predicted},
        measured=measured,
        reruns=rerun,  # type: ignore[arg-type]
    )


def test_a_spread_keeps_signs_and_names_the_worst() -> None:
    found = spread_of([(float(size if size % 2 else -size), f"row {size}") for size in range(1, 101)])
    assert found is not None
    assert (found.count, found.median_size_pct, found.p95_size_pct) == (100, 50.5, 95.0)
    assert found.median_pct == pytest.approx(-0.5)
    assert (found.worst_pct, found.worst_row) == (-100.0, "row 100")
    assert spread_of([]) is None


def test_errors_are_relative_to_what_was_measured() -> None:
    (found,) = accuracy_of(
        [record(predicted=figures(1100, process=1650, upper=1800), measured=figures(1000, process=1500))]
    )
    assert found.predictor == "traced"
    assert {name: spread.worst_pct for name, spread in found.peaks.items()} == pytest.approx(
        {"live": 10.0, "allocated": 10.0, "reserved": 100 / 11, "process": 10.0}
    )
    assert found.moments["steady step"].worst_pct == pytest.approx(10.0)
    assert found.categories["gradients"].worst_pct == pytest.approx(10.0)
    assert found.categories["weights"].worst_pct == 0.0
    assert found.resident["weights"].worst_pct == 0.0


def test_a_process_that_nobody_saw_has_no_error() -> None:
    (found,) = accuracy_of([record(predicted=figures(1100, process=1650, upper=1800), measured=figures(1000))])
    assert "process" not in found.peaks


def test_categories_are_compared_at_the_measured_peak_s_moment() -> None:
    predicted = figures(1100, process=1, upper=1, moment="first loss")
    (found,) = accuracy_of([record(predicted=predicted, measured=figures(1000, process=1))])
    assert not found.categories
    assert not found.moments


JUDGED = {
    "promised, ran under its cap": (("measured", 1500, 1800, True), ("held", 2200)),
    "promised, died under its cap": (("measured", 1500, 1800, False), ("false fit", -1800)),
    "promised, died on the card": (("out-of-memory", 1500, 1800, None), ("false fit", -1800)),
    "refused, died": (("out-of-memory", 4100, 4500, None), ("held", 4000)),
    "refused, ran": (("measured", 4100, 4500, None), ("false refusal", -4500)),
    "tight, died": (("out-of-memory", 3900, 4500, None), None),
    "tight, ran under its cap": (("measured", 3900, 4500, True), ("held", 0)),
    "not run again": (("measured", 1500, 1800, None), None),
    "failed otherwise": (("failed", 1500, 1800, None), None),
}


@pytest.mark.parametrize("name", JUDGED)
def test_judgements(name: str) -> None:
    (outcome, process, upper, survived), expected = JUDGED[name]
    judged = record(
        outcome=outcome,  # type: ignore[arg-type]
        predicted=figures(1000, process=process, upper=upper),
        measured=figures(1000, process=1500) if outcome == "measured" else None,
        survived=survived,
    )
    assert judgement_of(judged, "traced") == expected
    assert judgement_of(judged, "analytic") is None


def test_judgements_add_up() -> None:
    measured, promised = figures(1000, process=1500), figures(1000, process=1500, upper=1800)
    (found,) = accuracy_of(
        [
            record(predicted=promised, measured=measured, survived=True),
            record(predicted=promised, measured=measured, survived=False),
            record(predicted=figures(1000, process=4100, upper=4500), outcome="out-of-memory"),
            record(predicted=figures(1000, process=4100, upper=4500), measured=measured),
        ]
    )
    judged = found.judgements
    assert (judged.count, judged.failed, judged.false_fits, judged.false_refusals) == (4, 2, 1, 1)
    assert judged.failure_probability == 0.5
    assert judged.conserved_bytes == (2200 - 1800 + 4000 - 4500) // 4


def test_without_a_card_caps_judge_and_nothing_is_conserved() -> None:
    promised = figures(1000, process=1500, upper=1800)
    found = record(predicted=promised, measured=figures(1000), survived=True, usable=None)
    assert judgement_of(found, "traced") == ("held", None)
    (accuracy,) = accuracy_of([found, replace(found, row="b")])
    assert accuracy.judgements.conserved_bytes is None
