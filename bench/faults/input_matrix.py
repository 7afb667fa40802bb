"""Faults in what a run is given: rows, recipes, names, prices, templates, hubs; and in what it leaves."""

from __future__ import annotations

from faults.fault import Fault

BAD, READ, MASK, ROWS = (f"data/test_data_{name}.py" for name in ("bad", "read", "mask", "dataset"))
LIMITS, RECIPE, FUZZ = "data/test_template_limits.py", "recipe/test_recipe_bad.py", "test_fuzz.py"
PAPER, RIG, HUB, NAMES = (
    "checks/test_paper_checks.py",
    "checks/test_rig_checks.py",
    "test_hub.py",
    "test_hostile_names.py",
)
LEDGER, REDACT, PRICES = "test_ledger.py", "test_redact.py", "machine/test_prices.py"

INPUT_FAULTS = (
    Fault(
        "rows malformed, of other types, with other columns, half a last line",
        (f"{BAD}::test_a_bad_row_is_refused_by_file_and_line", f"{BAD}::test_a_bad_row_is_counted_when_dropped", FUZZ),
    ),
    Fault(
        "files in other encodings, empty, of which nothing is left",
        (f"{BAD}::test_files_of_which_nothing_can_be_used",),
    ),
    Fault(
        "lines and files too long to hold",
        (
            f"{READ}::test_a_line_over_the_cap_is_skipped_without_holding_it",
            f"{READ}::test_reading_holds_one_line_and_not_the_file",
            f"{READ}::test_a_file_without_a_newline_is_not_held",
        ),
    ),
    Fault(
        "duplicates; evaluation rows seen in training",
        (f"{ROWS}::test_duplicates_are_counted_and_dropped_on_wish", PAPER),
    ),
    Fault(
        "rows, or all of them, of which nothing is learned",
        (f"{MASK}::test_marks_without_a_span_leave_nothing_to_learn", PAPER),
    ),
    Fault("rows longer than the limit", (f"{ROWS}::test_rows_over_the_limit", PAPER)),
    Fault(
        "a stop token that is not learned; a template that changes what was said",
        (f"{MASK}::test_losing_the_end_of_turn_is_noticed", PAPER),
    ),
    Fault("token ids that the model has no rows for", (f"{ROWS}::test_a_token_the_model_does_not_know", PAPER)),
    Fault("packing, accumulation or an export that computes something else", (RIG,)),
    Fault(
        "unknown keys, wrong types, values out of range",
        (f"{RECIPE}::test_one_line_says_where_what_and_what_instead", FUZZ),
    ),
    Fault(
        "alias bombs, deep nesting, tags, recipes of 100 MB",
        (
            f"{RECIPE}::test_hostile_texts_are_refused_in_a_second",
            f"{RECIPE}::test_nesting_and_aliases_take_little_memory",
            f"{RECIPE}::test_a_file_of_100_megabytes_is_refused_without_being_read",
        ),
    ),
    Fault("names that a shell would run, links, control characters", (NAMES,)),
    Fault("prices missing, stale, not a number, out of all proportion", (PRICES,)),
    Fault(
        "a hub that is broken, slow, behind a proxy",
        (f"{HUB}::test_a_broken_hub_is_one_line_in_time", f"{HUB}::test_a_proxy_is_asked_and_its_password_is_not_told"),
        "a file with another hash, a redirect to http and a CA of one's own were not tried",
    ),
    Fault(
        "chat templates that never end, fill the memory, reach for Python",
        (f"{LIMITS}::test_a_template_that_never_ends_is_refused_soon", f"{LIMITS}::test_no_way_leads_into_python"),
    ),
    Fault(
        "markup, formulas, terminal codes in every text",
        (
            "test_inert.py",
            "report/test_report_html.py::test_text_of_others_stays_text",
            f"{LEDGER}::test_csv_is_safe_to_open",
        ),
    ),
    Fault("a secret in the environment, an address, an error", (f"{REDACT}::test_no_sink_holds_the_canary",)),
    Fault(
        "a ledger or receipt edited, by a byte, a column, a row, an order",
        (
            f"{LEDGER}::test_an_edited_ledger_shows",
            f"{LEDGER}::test_a_removed_row_shows_wherever_it_stood",
            f"{LEDGER}::test_rows_in_another_order_show",
            f"{LEDGER}::test_one_changed_byte_of_a_receipt_shows",
        ),
    ),
)
