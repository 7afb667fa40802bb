"""The receipt file: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from receipts import bare_receipt, full_receipt
from tenfold.errors import InputError, TenfoldError
from tenfold.receipt import Baseline, CurvePoint, Quality, Receipt


@pytest.mark.parametrize("receipt", [full_receipt(), bare_receipt(), full_receipt("<b>\x1b[31m\u202e")])
def test_round_trip(receipt: Receipt, tmp_path: Path) -> None:
    path = tmp_path / "run" / "receipt.json"
    sha256 = receipt.write(path)
    assert Receipt.read(path) == receipt
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [entry.name for entry in path.parent.iterdir()] == ["receipt.json"]


def test_same_receipt_same_bytes() -> None:
    assert full_receipt().to_json() == full_receipt().to_json()
    assert full_receipt().to_json() != bare_receipt().to_json()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "receipt.json"
    bare_receipt().write(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tenfold.durable.os.fsync", full)
    with pytest.raises(TenfoldError, match=r"No space left on device; needs [\d,]+ bytes"):
        full_receipt().write(path)
    assert Receipt.read(path) == bare_receipt()
    assert [entry.name for entry in tmp_path.iterdir()] == ["receipt.json"]


def _edited(**changes: object) -> str:
    return json.dumps({**json.loads(full_receipt().to_json()), **changes})


REFUSED = [
    ("", "Invalid JSON"),
    ("\x00\xff", "Invalid JSON"),
    ("[]", "valid dictionary|object"),
    ("{}", "run_id: Field required"),
    (_edited(surprise=1), "surprise: Extra inputs"),
    (_edited(schema_version=2), "schema_version"),
    (_edited(seed="0"), "seed"),
    (_edited(status="splendid"), "status"),
    (_edited(started_at="2026-11-23T09:30:00"), "started_at.*timezone"),
    (_edited(data_sha256="d"), "data_sha256"),
    (_edited(bill={"billed_seconds": -1}), "bill.billed_seconds"),
    (_edited(bill={"billed_seconds": math.inf}), "bill.billed_seconds"),
    ("[" * 100_000, "Invalid JSON|recursion"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_other_files_are_refused_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        Receipt.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: cannot be read"):
        Receipt.read(tmp_path / "gone.json")


def test_a_loss_that_diverged_is_null() -> None:
    point = CurvePoint(step=1, tokens=1, seconds=1.0, loss=math.nan, metrics={"loss": math.inf})
    assert point.loss is None
    assert point.metrics == {"loss": None}
    assert CurvePoint(step=1, tokens=1, seconds=1.0, loss=2.5).loss == 2.5


def test_times_are_kept_in_utc() -> None:
    local = datetime(2026, 11, 23, 11, 30, tzinfo=timezone(timedelta(hours=2)))
    changed = Receipt.model_validate({**dict(bare_receipt()), "started_at": local})
    assert '"started_at": "2026-11-23T09:30:00Z"' in changed.to_json()


def test_a_receipt_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        bare_receipt().seed = 1


@pytest.mark.parametrize(
    ("how", "fraction", "true"),
    [
        ("measured", 1.0, True),
        ("measured", 0.12, False),
        ("extrapolated", 0.12, True),
        ("extrapolated", 1.0, False),
        ("extrapolated", 0.0, False),
        ("predicted", 0.0, True),
        ("predicted", 0.5, False),
    ],
)
def test_a_baseline_says_how_it_was_measured(how: str, fraction: float, true: bool) -> None:
    values = {"kind": "naive", "label": "Trainer", "how": how, "measured_fraction": fraction}
    if true:
        assert Baseline.model_validate(values).how == how
    else:
        with pytest.raises(ValidationError, match="not " + how):
            Baseline.model_validate(values)


def test_a_baseline_that_did_not_end_has_no_quality() -> None:
    quality = (Quality.accuracy(9, 10),)
    with pytest.raises(ValidationError, match="no measured quality"):
        Baseline(kind="naive", label="x", how="extrapolated", measured_fraction=0.1, quality=quality)
    assert Baseline(kind="naive", label="x", how="measured", measured_fraction=1.0, quality=quality).quality == quality


def test_notebook_table_is_short_and_escaped() -> None:
    shown = full_receipt("<script>alert(1)</script>\x1b[31m\u202e")._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    assert "0.912 [0.899" in full_receipt()._repr_html_()
    assert "bare (failed)" in bare_receipt()._repr_html_()
