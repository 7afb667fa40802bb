"""Every fault considered, and where it is injected: a test holds that each place exists."""

from __future__ import annotations

from faults.fault import Fault
from faults.input_matrix import INPUT_FAULTS

CHECKPOINT, SAVE = "run/test_checkpoint.py", "run/test_checkpoint_save.py"
KILLS, PLACES = "faults/test_fault_kills.py", "faults/test_fault_places.py"
NUMBERS, ACCOUNT = "faults/test_fault_numbers.py", "faults/test_fault_account.py"
SPIKES, DISK, PROCESSES = (f"faults/test_fault_{name}.py" for name in ("spikes", "disk", "processes"))

RUN_FAULTS = (
    Fault("kill -9 at a random moment", ("kills",)),
    Fault("kill at every file call of a save", ("crash-points", f"{SAVE}::test_killed_at_every_operation")),
    Fault("kill within the deletes of retention", (f"{SAVE}::test_killed_at_every_operation", "points")),
    Fault("kill while continuing, again and again", (f"{KILLS}::test_killed_while_continuing_five_times", "resumes")),
    Fault("kill in the middle of an accumulation", (f"{KILLS}::test_killed_in_the_middle_of_an_accumulation",)),
    Fault("kill between receipt and ledger", (f"{KILLS}::test_killed_between_receipt_and_ledger", "points")),
    Fault(
        "SIGTERM while loading, tokenising, training, evaluating, saving",
        ("signals", f"{KILLS}::test_a_stopped_evaluation_is_made_up_for", "run/test_stop.py::test_at_once"),
    ),
    Fault("a second signal while the first is heeded; a kill after it", ("run/test_stop.py::test_signals", "points")),
    Fault(
        "SIGINT and SIGHUP",
        ("run/test_stop.py::test_signals", "run/test_train.py::test_real_signals_to_a_real_process"),
    ),
    Fault("a terminal or pipe that closes", (f"{PLACES}::test_a_closed_terminal_ends_no_run",)),
    Fault(
        "a file of a checkpoint truncated, missing, added, swapped",
        (f"{CHECKPOINT}::test_damage_is_named_and_the_state_before_used", "damages"),
    ),
    Fault("one bit flipped", (f"{CHECKPOINT}::test_every_flipped_bit_is_found", "flips")),
    Fault(
        "a checkpoint edited with all its hashes",
        (f"{CHECKPOINT}::test_an_attacker_who_rewrites_all_hashes_is_not_found",),
        "not found: hashes find accidents; nothing in a checkpoint can run code",
    ),
    Fault("the newest two damaged", (f"{CHECKPOINT}::test_two_damaged_the_third_is_used",)),
    Fault("all damaged", (f"{CHECKPOINT}::test_all_damaged_is_refused",)),
    Fault(
        "a full disk",
        (f"{SAVE}::test_a_full_disk", "test_cli.py::test_a_full_disk_is_one_line_and_the_run_goes_on_later", "points"),
    ),
    Fault("a quota, or a file that may not grow", (f"{SAVE}::test_a_disk_that_takes_no_more",)),
    Fault("an I/O error while writing or forcing to disk", ("test_durable.py::test_failure_of_each_fsync", "points")),
    Fault("an I/O error while reading", (f"{PLACES}::test_a_checkpoint_that_cannot_be_read_is_skipped",)),
    Fault(
        "a folder that cannot be written",
        (
            "run/test_lock.py::test_claim_where_nothing_can_be_written",
            "test_bad_input.py::test_a_read_only_folder_is_named",
        ),
    ),
    Fault(
        "a folder deleted in the middle", (f"{PLACES}::test_a_folder_deleted_in_the_middle_ends_the_run_in_one_line",)
    ),
    Fault(
        "a temporary folder on another disk",
        ("test_durable.py::test_order_on_the_way_to_the_disk",),
        "what is written lies beside its target",
    ),
    Fault("the order on the way to the disk", (f"{SAVE}::test_order_of_a_save",)),
    Fault("a slow disk", (DISK, "budgets"), "saves are not concurrent: none overtakes another"),
    Fault("NaN or Inf in loss, gradient, weight, update", (NUMBERS,)),
    Fault(
        "a spike of the loss, for one step and for fifty",
        (SPIKES, "run/test_spikes.py"),
        "`train.on_loss_spike`: recorded, stopped behind, or left out; a loss is read before its update, so that there"
        " is nothing to roll back",
    ),
    Fault("out of memory forward and backward", ("rig/test_shrinking.py",)),
    Fault(
        "out of memory in an evaluation",
        (f"{NUMBERS}::test_an_evaluation_that_runs_out_of_memory_is_done_in_smaller_parts",),
    ),
    Fault("out of memory at the smallest setting", (f"{NUMBERS}::test_no_memory_for_the_smallest_step_is_told",)),
    Fault(
        "base weights damaged, missing, of another shape or kind",
        (
            "rig/test_stream.py::test_a_damaged_file_is_one_line",
            "test_bad_input.py::test_bad_input_is_one_line",
            f"{NUMBERS}::test_a_number_that_is_none_stops_before_the_update",
        ),
    ),
    Fault(
        "an adapter, or a checkpoint, of another base",
        (
            "export/test_adapter.py::test_another_base_of_the_same_shape_is_refused",
            "run/test_continue.py::test_a_base_that_was_changed_is_not_gone_on_with",
        ),
    ),
    Fault("two runs in one folder; a lock whose holder died", ("run/test_lock.py",)),
    Fault("a clock that jumps", (ACCOUNT,)),
    Fault(
        "a budget reached in a step, an evaluation, a save",
        ("budgets", "test_cli.py::test_a_budget_that_runs_out_is_code_5_and_continues"),
    ),
    Fault(
        "a machine that always dies before its first save",
        (f"{ACCOUNT}::test_a_run_that_always_dies_comes_to_the_end_of_its_budget",),
    ),
    Fault(
        "continued with another recipe or other rows",
        (
            "run/test_train.py::test_another_recipe_in_the_same_folder_is_refused",
            "run/test_train.py::test_other_data_in_the_same_folder_is_refused",
        ),
    ),
    Fault(
        "continued with another library, device, number of threads",
        (f"{PLACES}::test_another_environment_is_recorded_as_not_bit_exact",),
    ),
    Fault(
        "a checkpoint of an older or newer format",
        (f"{PLACES}::test_a_checkpoint_of_the_first_version_is_read", f"{CHECKPOINT}::test_a_newer_schema_is_refused"),
    ),
    Fault(
        "several processes where one trains; another number of them where a run is continued",
        (PROCESSES,),
        "a run is one process on one device: each of several refuses at once, so that none dies, hangs or disagrees",
    ),
    Fault(
        "workers of a loader that die or hang, little shared memory, few open files",
        (f"{PLACES}::test_few_open_files_are_enough",),
        "a run has no workers and shares no memory",
    ),
)

FAULTS = (*RUN_FAULTS, *INPUT_FAULTS)
