"""Rows that teach nothing, something else, or what they are then asked: counted on the samples alone."""

from __future__ import annotations

from collections import Counter

from tenfold.checks.paper import Paper, share
from tenfold.data import learns_to_stop
from tenfold.data.account import DataAccount, shown
from tenfold.receipt import Finding

LEAST_KEPT = 0.1
"""Of all rows that are long enough to learn from: with fewer left, the run would be one on other data."""

MOST_OF_ONE_LABEL = 0.98
"""Of all rows: above it, a model that always says that label looks good."""

MOST_LEARNED_WHOLE = 0.5
"""Of the rows of task sft: prompts of one token exist, but not as a rule."""


def truncation(paper: Paper) -> Finding:
    """How much of the rows is cut off or left out for its length, or because nothing in it is learned."""
    account = paper.dataset.account
    overlong, empty = _rejected(account, "overlong"), _rejected(account, "no_loss_tokens")
    lost, cut = overlong + empty, account.rows_truncated
    fit = account.rows_in - account.rows_rejected + lost
    said = [f"{share(cut, fit)} rows cut, {account.tokens_truncated:,} tokens"] if cut else []
    said += [f"{share(overlong, fit)} rows left out as too long"] if overlong else []
    said += [f"{share(empty, fit)} rows hold nothing to learn"] if empty else []
    limit = f"at {account.max_length_tokens:,} tokens a row"
    if not said:
        return Finding(check="truncation", verdict="ok", text=f"no row is cut or left out {limit}")
    text = f"{', '.join(said)} {limit}"
    if fit - lost < LEAST_KEPT * fit:
        text += "; raise data.max_length, or shorten the rows"
        return Finding(check="truncation", verdict="refusal", text=text)
    return Finding(check="truncation", verdict="warning", text=text)


def _rejected(account: DataAccount, reason: str) -> int:
    return account.rejections[reason].rows if reason in account.rejections else 0


def learned_tokens(paper: Paper) -> Finding:
    """Whether every sample has something to learn, and what is not to be learned is masked."""
    samples = paper.dataset.train
    if paper.task == "classify":
        return Finding(check="learned tokens", verdict="ok", text=f"one label for each of {len(samples):,} rows")
    empty = [sample for sample in samples if not any(sample.loss_mask or b"")]
    if empty:
        text = f"{share(len(empty), len(samples))} rows hold no token to learn, first {empty[0].where}"
        return Finding(check="learned tokens", verdict="refusal", text=text)
    learned = sum(sum(sample.loss_mask or b"") for sample in samples)
    text = f"{share(learned, sum(len(sample.input_ids) for sample in samples))} tokens bear loss"
    whole = [sample for sample in samples if all((sample.loss_mask or b"")[1:])]
    if paper.task == "sft" and len(whole) > MOST_LEARNED_WHOLE * len(samples):
        text += f"; {share(len(whole), len(samples))} rows are learned whole, prompt included, first {whole[0].where}"
        return Finding(check="learned tokens", verdict="warning", text=text)
    return Finding(check="learned tokens", verdict="ok", text=text)


def stop_token(paper: Paper) -> Finding:
    """Whether the model is taught to end what it writes."""
    if paper.task == "classify":
        return Finding(check="stop token", verdict="ok", text="nothing is written")
    last_of_row = {(sample.source, sample.line): sample for sample in paper.dataset.train}
    stops = sum(learns_to_stop(sample, paper.tokenizer) for sample in last_of_row.values())
    text = f"{share(stops, len(last_of_row))} rows end with a learned stop token"
    if stops == len(last_of_row):
        return Finding(check="stop token", verdict="ok", text=text)
    if stops or paper.task == "text":
        return Finding(check="stop token", verdict="warning", text=text)
    cure = "the model would never end an answer; raise data.max_length, or set eos_token in tokenizer_config.json"
    return Finding(check="stop token", verdict="refusal", text=f"{text}: {cure}")


def overlap(paper: Paper) -> Finding:
    """Whether what is evaluated was trained on."""
    account = paper.dataset.eval_account
    rows = account.rows_held_out
    if not rows:
        return Finding(check="overlap", verdict="ok", text="no rows are evaluated")
    text = f"{share(account.overlap_rows, rows)} evaluation rows are also training rows"
    if not account.overlap_rows:
        return Finding(check="overlap", verdict="ok", text=text)
    # No refusal: whether a model can learn some rows by heart is a question that people ask on purpose.
    means = "quality measures memory alone" if account.overlap_rows == rows else "quality is flattered by them"
    return Finding(check="overlap", verdict="warning", text=f"{text}, first {account.overlap_where[0]}; {means}")


def labels(paper: Paper) -> Finding:
    """Whether every label is trained, and the evaluation says something of it."""
    if paper.task != "classify":
        return Finding(check="labels", verdict="ok", text="no labels")
    names = paper.dataset.labels
    trained = Counter(sample.label for sample in paper.dataset.train)
    evaluated = Counter(sample.label for sample in paper.dataset.evaluation)
    if len(trained) < 2:
        only = shown(names[next(iter(trained)) or 0])
        text = f"all {len(paper.dataset.train):,} training rows have the label {only}; give at least two labels"
        return Finding(check="labels", verdict="refusal", text=text)
    unseen = [shown(names[label or 0]) for label in evaluated if label not in trained]
    unasked = [shown(name) for number, name in enumerate(names) if number not in evaluated] if evaluated else []
    name, most = trained.most_common(1)[0]
    said = [f"not trained but evaluated: {_listed(unseen)}"] if unseen else []
    said += [f"trained but not evaluated: {_listed(unasked)}"] if unasked else []
    if most > MOST_OF_ONE_LABEL * len(paper.dataset.train):
        said += [f"{share(most, len(paper.dataset.train))} training rows have the label {shown(names[name or 0])}"]
    if 2 * len(trained) > len(paper.dataset.train) and len(trained) > 2:
        said += [f"{len(trained):,} labels on {len(paper.dataset.train):,} training rows"]
    counted = f"{len(names)} labels, {min(trained.values()):,} to {most:,} training rows each"
    verdict = "warning" if said else "ok"
    return Finding(check="labels", verdict=verdict, text="; ".join([counted, *said]))


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
