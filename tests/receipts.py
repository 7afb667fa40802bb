"""Receipts for the tests: one with everything in it, one with next to nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from tenfold.receipt import (
    Baseline,
    Bill,
    CurvePoint,
    CutUsed,
    Event,
    Finding,
    Hardware,
    Measured,
    Quality,
    QualityGoal,
    Receipt,
)

START = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
DATA = "d" * 64
BASE = "b" * 64
HARDWARE = Hardware(
    machine="local", cpu="AMD EPYC 9654", cores=8, memory_bytes=32 * 2**30, os="Linux 6.8", gpu="", gpu_count=0
)


def full_receipt(text: str = "") -> Receipt:
    """Every field set; `text`, if given, stands in every field that holds free text."""

    def say(usual: str) -> str:
        return text or usual

    usd_per_hour, wall = 0.384, 312.0
    usd = usd_per_hour * wall / 3600
    return Receipt(
        run_id=say("7f3a91c2"),
        name=say("support-tickets"),
        status="done",
        model=say("all-MiniLM-L6-v2"),
        task=say("classify"),
        tags=(say("team=support"),),
        started_at=START,
        ended_at=START + timedelta(seconds=wall),
        plan={"chosen": {"cuts": [say("fine_tune"), "lora", "pack"], "usd": 0.031}, say("why"): say("the cheapest")},
        recipe_sha256="a" * 64,
        data_sha256=DATA,
        base_sha256=BASE,
        versions={"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "tenfold": say("0.1.0")},
        hardware=HARDWARE.model_copy(update={"cpu": say("AMD EPYC 9654"), "os": say("Linux 6.8")}),
        seed=0,
        measurements=(
            Measured(name="peak_memory_bytes", unit="bytes", predicted=1.31e9, measured=1.24e9),
            Measured(name="idle_memory_bytes", unit="bytes", measured=0.52e9),
            Measured(name="train_seconds", unit="seconds", predicted=221.0, measured=251.4),
            Measured(name="wall_seconds", unit="seconds", predicted=290.0, measured=wall),
            Measured(name="steps", unit="steps", predicted=750, measured=750),
            Measured(name="tokens", unit="tokens", predicted=1_180_000, measured=1_184_220),
            Measured(name="loss_tokens", unit="tokens", measured=24_000),
            Measured(name="usd", unit="usd", predicted=usd_per_hour * 290 / 3600, measured=usd),
        ),
        seconds_by_part={
            "import": 6.1,
            "load": 1.4,
            "tokenise": 3.2,
            "train": 251.4,
            "evaluate": 31.0,
            "checkpoint": 4.4,
            "save": 0.9,
        },
        curve=_curve(usd_per_hour, say("accuracy")),
        quality=(
            Quality.accuracy(1824, 2000),
            Quality(metric=say("macro_f1"), value=0.9065, rows=2000),
            Quality(metric="loss", value=0.311, rows=2000),
        ),
        goal=QualityGoal(metric="accuracy", at_least=0.9),
        bill=Bill(
            usd=usd,
            usd_per_hour=usd_per_hour,
            price_source=say("on-demand list price, c7a.2xlarge"),
            price_date=date(2026, 11, 9),
            billed_seconds=wall,
            usd_per_million_tokens=usd / 1.18422,
            budget_usd=0.5,
        ),
        data={
            "rows_in": 8_010,
            "rows_trained": 8_000,
            "rows_rejected": 10,
            "rejections": {say("empty_text"): 7, "unknown_label": 3},
            "rows_truncated": 41,
            "first": [say("train.jsonl:17")],
        },
        cuts=(
            CutUsed(name="fine_tune", exact=True, facts=(say("starts from open weights"),)),
            CutUsed(
                name="lora",
                exact=False,
                facts=("rank 16, alpha 32, on 36 linear layers", "trains 1,189,632 of 22,713,216 weights (5.2 %)"),
            ),
            CutUsed(name="pack", exact=True, facts=("38 % of the padded layout's tokens were padding, now 0 %",)),
            CutUsed(name=say("fuse"), exact=True, facts=()),
        ),
        baselines=(_naive(say), _peer(say)),
        checks=(Finding(check=say("overlap"), verdict="warning", text=say("3 of 100 rows")),),
        events=(
            Event(at=START + timedelta(seconds=90), kind="resumed", text=say("from step 240, after SIGTERM")),
            Event(at=START + timedelta(seconds=91), kind="note", text=say("micro-batch 32")),
        ),
        resumes=1,
    )


def _naive(say: type[str] | object) -> Baseline:
    assert callable(say)
    return Baseline(
        kind="naive",
        label=say("transformers.Trainer, full fine-tune, its defaults"),
        how="extrapolated",
        measured_fraction=0.12,
        versions={"transformers": "5.23.0", "torch": say("2.13.0")},
        train_seconds=2894.0,
        wall_seconds=2992.0,
        peak_memory_bytes=4_310_000_000,
        idle_memory_bytes=540_000_000,
        usd=0.384 * 2992 / 3600,
        note=say("extrapolated by tokens"),
        hardware=HARDWARE.model_copy(update={"cpu": say("AMD EPYC 9654")}),
        data_sha256=DATA,
    )


def _peer(say: type[str] | object) -> Baseline:
    assert callable(say)
    return Baseline(
        kind="peer",
        label=say("TRL SFTTrainer with PEFT LoRA, its defaults"),
        how="measured",
        measured_fraction=1.0,
        versions={"trl": "1.10.0", "peft": "0.19.0"},
        train_seconds=1103.0,
        wall_seconds=1180.0,
        peak_memory_bytes=2_950_000_000,
        usd=0.384 * 1180 / 3600,
        quality=(Quality.accuracy(1817, 2000),),
    )


def _curve(usd_per_hour: float, metric: str) -> tuple[CurvePoint, ...]:
    points: list[CurvePoint] = []
    for number in range(150):
        step, seconds = 5 * (number + 1), 2.08 * (number + 1)
        wobble = ((number * 7919) % 100 - 50) / 260
        loss = 0.28 + 1.35 / (1 + number / 9) + wobble * (0.25 + 1 / (1 + number / 20))
        evaluated = number % 30 == 29
        metrics = {"loss": loss * 0.9 + 0.06 - wobble * 0.3, metric: 0.93 - 0.4 / (1 + number / 8)}
        points.append(
            CurvePoint(
                step=step,
                tokens=step * 1579,
                seconds=seconds,
                usd=usd_per_hour * seconds / 3600,
                loss=loss,
                learning_rate=2e-4 * (1 - number / 150),
                tokens_per_second=4710.0,
                metrics=metrics if evaluated else {},
            )
        )
    return tuple(points)


def bare_receipt() -> Receipt:
    """A run that failed before its first step: no price, no curve, no quality, no baseline."""
    return Receipt(
        run_id="0",
        name="bare",
        status="failed",
        model="tiny",
        task="sft",
        started_at=START,
        ended_at=START,
        plan={},
        recipe_sha256="a" * 64,
        data_sha256=DATA,
        base_sha256=None,
        versions={},
        hardware=Hardware(machine="local"),
        seed=0,
        measurements=(),
        bill=Bill(billed_seconds=0.0),
    )
