"""The command line: plan, calibrate, check, train, vocabulary, prove, report, ledger, merge, preview, schema, demo.

Results go to stdout, progress to stderr. Exit codes stand in `tenfold.errors` and in the README.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tenfold.collector import collect_rarely
from tenfold.errors import InputError, Interrupted, TenfoldError

if TYPE_CHECKING:
    from tenfold.planner import Plan
    from tenfold.receipt import Receipt
    from tenfold.recipe.foreign import Dialect

UsageError: Any = typer.BadParameter.__mro__[1]
"""Click's, by way of typer: newer typers carry their own click, under a private name."""

app = typer.Typer(
    name="tenfold",
    help="Fine-tune transformer models for a tenth of the usual cost, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML), or a plan written by `tenfold plan --out`.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe key: --set train.epochs=2")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout; events as JSON lines on stderr.")]


@app.command()
def plan(
    sources: Annotated[
        list[str], typer.Argument(metavar="RECIPE | MODEL DATA...", help="A recipe (YAML), or a model and its data.")
    ],
    overrides: Overrides = None,
    price: Annotated[float | None, typer.Option(help="Dollars per hour, before any other price.")] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="Also write it here: .json for `tenfold train`, .html for people.")
    ] = None,
    emit: Annotated[
        str | None, typer.Option(help="skypilot: write a task file for the chosen machine beside the plan.")
    ] = None,
    from_axolotl: Annotated[bool, typer.Option("--from-axolotl", help="The file is Axolotl's.")] = False,
    from_trl: Annotated[bool, typer.Option("--from-trl", help="The file is TRL's.")] = False,
    from_llama_factory: Annotated[
        bool, typer.Option("--from-llama-factory", help="The file is LLaMA-Factory's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Price every combination of cuts and machines, and choose the cheapest that meets the wishes."""
    from tenfold.planning import Wanted, make_and_write

    flags: dict[Dialect, bool] = {"axolotl": from_axolotl, "trl": from_trl, "llama-factory": from_llama_factory}
    dialects: tuple[Dialect, ...] = tuple(name for name, given in flags.items() if given)
    wanted = Wanted(tuple(sources), tuple(overrides or ()), price, dialects, tuple(out or ()), emit)
    chosen, written = make_and_write(wanted)
    for path in written:
        if path not in wanted.out:  # of these nobody knows the name
            print(f"wrote {path}", file=sys.stderr)
    _show(chosen.model_dump(mode="json") if as_json else chosen)


@app.command()
def calibrate(
    seconds: Annotated[float, typer.Option(help="How long it may take, imports included: 10 to 600.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Measure this computer's speed, in a minute, for the plans to come."""
    from tenfold.calibrate.calibrate import calibrate as measure
    from tenfold.calibrate.calibrate import render_calibration
    from tenfold.machine import local_machine
    from tenfold.run.meter import process_age_seconds

    if not 10 <= seconds <= 600:
        raise InputError(f"--seconds: found {seconds:g}, expected 10 to 600")
    age = process_age_seconds()
    found = measure(local_machine(), seconds, lambda text: print(text, file=sys.stderr, flush=True), age_seconds=age)
    path = found.write()
    _show({"file": str(path), **found.row()} if as_json else render_calibration(found, path))


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Look for nonsense before anything is paid for: masks, stop tokens, overlap, packing, export, ..."""
    from tenfold.api import check as look
    from tenfold.checks import refuse

    source = _read_plan(recipe, overrides).recipe if recipe.suffix == ".json" else recipe
    found = look(source, overrides or ())
    _show(found.to_json() if as_json else found)
    refuse(found.findings)


@app.command()
def train(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Execute a plan, or continue it where it stopped; write adapter, receipt and ledger row."""
    from tenfold.processes import check_alone

    check_alone()  # before a plan is made, which several would make one after the other
    receipt = _train(_plan(recipe, overrides), as_json)
    _show(receipt.model_dump(mode="json") if as_json else receipt)


@app.command()
def vocabulary(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the chosen tokens here (.json), for cuts.warm_start.tokens.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what new tokens would save on a recipe's texts, and how many of them pay."""
    from tenfold.api import vocabulary as compare
    from tenfold.durable import write_file

    if out is not None and out.suffix != ".json":
        raise InputError(f"--out: found {out.name!r}, expected a name that ends in .json")
    found = compare(recipe, overrides or ())
    if out is not None:
        write_file(out, json.dumps(list(found.tokens), ensure_ascii=False, indent=0) + "\n")
    _show(found.model_dump(mode="json") if as_json else found)


@app.command()
def prove(
    receipt: Annotated[Path, typer.Argument(help="The receipt.json of a run.")],
    baseline: Annotated[
        str, typer.Option(help="naive (transformers.Trainer, all weights) or peer (TRL with PEFT).")
    ] = "naive",
    minutes: Annotated[float | None, typer.Option(help="Stop the baseline after this time and extrapolate.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a baseline, the real library in its own process, and set it beside the run in its receipt."""
    from tenfold.prove.compare import prove_receipt

    if minutes is not None and not 0 < minutes < float("inf"):
        raise InputError(f"--minutes: found {minutes:g}, expected a number above 0")
    proven = prove_receipt(receipt, baseline, minutes)
    _show(proven.model_dump(mode="json") if as_json else proven)


@app.command()
def report(
    receipt: Annotated[Path, typer.Argument(help="The receipt.json of a run.")],
    html: Annotated[Path | None, typer.Option(help="Write a single-file page here instead of printing.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a receipt, or make a page of it."""
    from tenfold.receipt import Receipt
    from tenfold.report import write_html

    read = Receipt.read(receipt)
    if html is not None:
        write_html(read, html)
        _show({"html": str(html)} if as_json else str(html))
        return
    _show(read.model_dump(mode="json") if as_json else read)


@app.command()
def ledger(
    tag: Annotated[str | None, typer.Option(help="Only rows with this tag.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the newest so many.")] = None,
    export: Annotated[str | None, typer.Option(help="csv or json, on stdout.")] = None,
    path: Annotated[Path | None, typer.Option(help="Another ledger than the default one.")] = None,
    verify: Annotated[bool, typer.Option(help="Check that no row was changed since it was written.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what was spent, and whether its records are as they were written."""
    from tenfold.ledger import export_csv, export_json, open_ledger
    from tenfold.report import render_ledger

    if limit is not None:
        _at_least_one("--limit", limit)
    if export not in (None, "csv", "json"):
        raise InputError(f"--export: found {export!r}, expected csv or json")
    if path is not None and not path.exists():
        raise InputError(f"{path}: no such ledger; name one that a recipe's output.ledger made")
    with open_ledger(path) as book:
        if verify:
            problems = book.verify()
            _show({"problems": problems} if as_json else "\n".join(problems) or "every row is as it was written")
            raise typer.Exit(1 if problems else 0)
        rows = book.rows(tag=tag, limit=limit)
    if export == "csv":
        export_csv(rows, sys.stdout)
    elif export == "json" or as_json:
        export_json(rows, sys.stdout)
    else:
        _show(render_ledger(rows))


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="An adapter folder that `tenfold train` wrote.")],
    folder: Annotated[Path, typer.Argument(help="Where the plain transformers folder goes.")],
    as_json: AsJson = False,
) -> None:
    """Fold an adapter into its base model."""
    from tenfold.export.merge import merge as merge_folder

    facts = merge_folder(adapter, folder)
    for fact in () if as_json else facts:
        print(fact, file=sys.stderr)
    _show({"model": str(folder), "facts": list(facts)} if as_json else str(folder))


@app.command()
def preview(
    recipe: RecipePath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(help="How many rows to show.")] = 3,
) -> None:
    """Show the first rows as the model will see them, with the tokens that bear loss marked."""
    from tenfold.api import read_dataset
    from tenfold.data import preview as show_sample
    from tenfold.inert import printable_lines
    from tenfold.recipe import load_recipe
    from tenfold.shape import read_shape

    _at_least_one("--rows", rows)
    wishes = _read_plan(recipe, overrides).recipe if recipe.suffix == ".json" else load_recipe(recipe, overrides or ())
    dataset, tokenizer = read_dataset(wishes, read_shape(wishes.model.name, wishes.model.revision))
    for sample in dataset.train[:rows]:
        print(printable_lines(f"{sample.source}:{sample.line}  {show_sample(sample, tokenizer)}") + "\n")


@app.command()
def schema() -> None:
    """The JSON schema of a recipe, for editors."""
    from tenfold.recipe import recipe_json_schema

    print(json.dumps(recipe_json_schema(), indent=2))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the demo's files go.")] = Path("demo"),
    quick: Annotated[bool, typer.Option(help="A few steps only, to see that everything works.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune real weights into a support-ticket classifier, beside the naive baseline."""
    from tenfold.demo.demo import run_demo

    show = (lambda result: None) if as_json else _show
    receipt = run_demo(output, quick=quick, observers=[_progress(as_json)], show=show)
    if as_json:
        _show(receipt.model_dump(mode="json"))


NOT_A_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""System errors that another path cures, and waiting does not."""

LONGEST_MESSAGE = 1000
"""Characters of one error line: enough for two long paths and what to do about them."""

PIPE_COLUMNS = 120
"""Width of tables where stdout is not a terminal."""


def main() -> None:
    """Run the command line; a TenfoldError becomes one line and its exit code."""
    collect_rarely()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no such character still shows the others
    try:
        code: Any = app(args=sys.argv[1:] or ["--help"], prog_name="tenfold", standalone_mode=False)
        sys.stdout.flush()  # here and not at exit, where a closed pipe or a full disk could not be told any more
    except TenfoldError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        _fail(_usage(error), InputError.exit_code)
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        _silence_stdout()
        raise SystemExit(1) from None
    except OSError as error:
        _silence_stdout()
        code = InputError.exit_code if error.errno in NOT_A_PATH else 1
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}", code)
    except KeyboardInterrupt:
        _fail("interrupted", Interrupted.exit_code)
    except Exception:
        _fail_unforeseen()
    if code == Interrupted.exit_code:  # how typer returns a KeyboardInterrupt
        _fail("interrupted", code)
    if code:
        raise SystemExit(code)


def _at_least_one(option: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{option}: found {count}, expected 1 or more")


def _usage(error: Any) -> str:
    where = "tenfold" if error.ctx is None else error.ctx.command_path
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see {where} --help"


def _silence_stdout() -> None:
    """What is left to write goes nowhere: the interpreter would try again at exit, and complain in its own way."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plan(path: Path, overrides: list[str] | None) -> Plan:
    """The plan that `path` holds, or a new one for the recipe that it holds."""
    from tenfold.api import plan as make_plan

    return _read_plan(path, overrides) if path.suffix == ".json" else make_plan(path, overrides or ())


def _read_plan(path: Path, overrides: list[str] | None) -> Plan:
    from tenfold.planner import Plan

    if overrides:
        raise InputError("--set: changes a recipe, but a plan is already made; plan again with --set")
    return Plan.read(path)


def _train(chosen: Plan, as_json: bool) -> Receipt:
    from tenfold.api import train as run
    from tenfold.run.meter import process_age_seconds

    return run(chosen, [_progress(as_json)], age_seconds=process_age_seconds())


def _progress(as_json: bool) -> Any:
    from tenfold.run.progress import make_progress

    return make_progress(as_json)


def _show(result: Any) -> None:
    """A result on stdout: JSON values as JSON, everything else as its own text."""
    from tenfold.redact import redact

    if isinstance(result, dict | list):
        print(redact(json.dumps(result, indent=2)))
    elif isinstance(result, str):
        print(redact(result))
    else:
        from rich.console import Console

        from tenfold.report import render

        Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(render(result))


def _fail_unforeseen() -> NoReturn:
    """A fault of tenfold's own: its traceback is what a report of it needs, without secrets and without values."""
    import traceback

    from tenfold.redact import redact

    print(redact(traceback.format_exc()), end="", file=sys.stderr)
    raise SystemExit(1)


def _fail(message: str, code: int) -> NoReturn:
    from tenfold.inert import printable

    for line in message.splitlines():
        print(f"tenfold: {printable(line, LONGEST_MESSAGE)}", file=sys.stderr)
    raise SystemExit(code)
