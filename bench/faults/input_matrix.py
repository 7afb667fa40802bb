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
COUNTED = "faults/test_fault_rows.py"
LEDGER, REDACT, PRICES = "test_ledger.py", "test_redact.py", "machine/test_prices.py"

INPUT_FAULTS = (
    Fault(
        "rows malformed, of other types, with other columns, half a last line",
        (f"{BAD}::test_a_bad_row_is_refused_by_file_and_line", f"{BAD}::test_a_bad_row_is_counted_when_dropped", FUZZ),
    ),
    Fault(
        "byte order marks, other encodings, line separators within a text, NUL, lone surrogates",
        (f"{READ}::test_formats", f"{BAD}::test_files_of_which_nothing_can_be_used"),
    ),
    Fault(
        "a line of 10 MB, a line of 1 GB, a million short lines",
        ("lines", COUNTED, f"{READ}::test_a_line_over_the_cap_is_skipped_without_holding_it"),
        "in twice the cap of address space, four times for a line that just fits; one over the cap is never decoded",
    ),
    Fault(
        "an empty file, white space, one row",
        (f"{COUNTED}::test_a_plan_refuses_what_it_cannot_divide", f"{BAD}::test_files_of_which_nothing_can_be_used"),
    ),
    Fault(
        "fewer rows than a batch",
        (f"{COUNTED}::test_fewer_rows_than_a_batch_are_one_smaller_step",),
        "an epoch is one smaller step, as the plan says",
    ),
    Fault(
        "duplicates; evaluation rows seen in training",
        (COUNTED, f"{ROWS}::test_duplicates_are_counted_and_dropped_on_wish", PAPER),
        "of texts: columns that are not trained on, such as ids, are not read",
    ),
    Fault(
        "rows, or all of them, of which nothing is learned",
        (COUNTED, f"{MASK}::test_marks_without_a_span_leave_nothing_to_learn", PAPER),
    ),
    Fault("rows longer than the limit", (COUNTED, f"{ROWS}::test_rows_over_the_limit", PAPER)),
    Fault(
        "a stop token that is not learned; a template that changes what was said",
        (f"{MASK}::test_losing_the_end_of_turn_is_noticed", PAPER),
    ),
    Fault("token ids that the model has no rows for", (f"{ROWS}::test_a_token_the_model_does_not_know", PAPER)),
    Fault("packing, accumulation or an export that computes something else", (RIG,)),
    Fault(
        "an adapter merged into another base than it was trained on, or into a quantized one",
        (
            "export/test_adapter.py::test_another_base_of_the_same_shape_is_refused",
            "export/test_adapter.py::test_an_adapter_of_a_quantized_base_goes_with_it",
        ),
        "merged into the weights as they were stored, and said",
    ),
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
        "a hub that is broken or slow; half a download",
        (f"{HUB}::test_a_broken_hub_is_one_line", f"{HUB}::test_half_a_download_is_gone_on_with"),
        "after a kill a download begins anew",
    ),
    Fault(
        "a file of another size or hash than the hub declared, small or weights; a redirect from https to http",
        (
            f"{HUB}::test_another_file_than_declared_is_never_kept",
            f"{HUB}::test_a_redirect_to_http_is_told_no_token_and_believed_no_byte",
        ),
        "not found: another content from a mirror that declares no hash, what changed in the cache since it came, and"
        " what transformers or datasets fetch by themselves",
    ),
    Fault(
        "a proxy, a wrong one, one that is not to be asked; an authority of one's own",
        (
            f"{HUB}::test_a_proxy_is_asked_and_its_password_is_not_told",
            f"{HUB}::test_a_wrong_proxy_is_one_line_and_need_not_be_asked",
            f"{HUB}::test_an_authority_of_ones_own",
        ),
        "named in SSL_CERT_FILE; the library does not read REQUESTS_CA_BUNDLE",
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
