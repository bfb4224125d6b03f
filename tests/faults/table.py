"""THE table of faults: what is done to a run, how often at least, what must come of it, and the tests that do it.

Tests that lie elsewhere are named where they do exactly this fault. `python -m scripts.faults` runs over this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The faults `first` to `last`; `tests` are named as pytest does, without the cases of a parametrisation."""

    first: int
    last: int
    fault: str
    times: int
    expected: str
    tests: tuple[str, ...]

    @property
    def numbers(self) -> str:
        """As pages name them: F5, or F1-F6."""
        return f"F{self.first}" if self.first == self.last else f"F{self.first}-F{self.last}"


def _here(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/faults/test_{file}.py::test_{name}" for name in names)


FAULTS = (
    Row(
        1,
        6,
        "SIGTERM at: tokenising, conversion, step 0, mid-accumulation, validation, checkpoint write",
        6,
        "saved (of the first two there is nothing), exit 143, resumed bitwise",
        _here(
            "signals",
            "sigterm_before_the_first_step_saves_nothing_and_a_resume_begins_anew",
            "sigterm_in_step_0_saves_that_step",
            "sigterm_later_saves_what_is_finished",
        ),
    ),
    Row(
        7,
        9,
        "SIGINT once; twice; during an export in any format; SIGINT or SIGTERM during a merge",
        9,
        "exit 130; at once; no folder, nor a part of one, and the earlier merge is whole",
        _here(
            "signals",
            "sigint_once_finishes_the_step_and_saves",
            "sigint_twice_quits_at_once",
            "sigint_during_an_export_leaves_no_folder",
        )
        + _here("merges", "a_merge_that_is_asked_to_end_leaves_the_earlier_one"),
    ),
    Row(
        10,
        13,
        "SIGKILL in a step, in an accumulation, in a validation, while a checkpoint is flushed; any number of them in",
        20,
        "newest whole checkpoint taken, resumed bitwise, what was half-written removed",
        _here(
            "killed",
            "a_killed_run_resumes_bit_for_bit",
            "a_run_that_is_killed_while_it_writes_leaves_what_the_next_start_removes",
        ),
    ),
    Row(
        14,
        16,
        "a full disk, or a limit on files, in a checkpoint, a merge, an export in any format, the log of figures",
        9,
        "old files whole, exit 1, path, bytes needed and bytes free in the message, resumed bitwise",
        _here(
            "disk",
            "a_full_disk_leaves_every_checkpoint_and_the_run_goes_on_when_there_is_room",
            "a_file_that_may_not_grow_ends_the_run_and_loses_nothing",
            "an_export_that_finds_no_room_leaves_what_was_there",
        )
        + _here("merges", "a_merge_that_finds_no_room_leaves_the_earlier_one"),
    ),
    Row(
        17,
        17,
        "an output folder that fails, is read-only or not permitted, for a new run, for every verb on an old one",
        3,
        "refused before training starts, nothing changed",
        _here(
            "disk",
            "a_place_that_cannot_be_written_is_refused_before_training",
            "no_verb_is_surprised_by_a_run_that_may_not_be_written",
            "a_run_on_a_read_only_disk_is_refused_by_name_and_read_where_nothing_is_written",
        ),
    ),
    Row(
        18,
        20,
        "checkpoints: cut anywhere, a bit flipped anywhere, any file deleted; all of them",
        60,
        "every one named, the newest whole one taken, resumed bitwise; none that is whole: refused",
        _here(
            "checkpoints",
            "every_damaged_checkpoint_is_named_and_the_newest_whole_one_is_taken",
            "a_run_whose_checkpoints_are_all_damaged_does_not_begin_again",
        ),
    ),
    Row(
        21,
        21,
        "the checkpoint to resume from is not there, or is one of another run",
        2,
        "refused where it was named, else passed over with a message; resumed bitwise",
        _here(
            "checkpoints",
            "a_checkpoint_that_is_not_there_is_refused_with_those_that_are",
            "a_newer_checkpoint_of_another_run_is_passed_over_with_a_message",
        ),
    ),
    Row(
        22,
        22,
        "resumed with another activation, weight scheme, context, batch; with a key that may change",
        5,
        "refused with the difference; said, used and recorded",
        _here(
            "checkpoints",
            "a_resume_under_other_settings_is_refused_with_the_difference",
            "a_setting_that_is_no_part_of_the_model_may_change_and_is_said",
        ),
    ),
    Row(
        23,
        23,
        "a checkpoint in the format of each older version",
        1,
        "taken up, trained on and merged",
        _here("checkpoints", "a_checkpoint_of_an_older_version_is_taken_up"),
    ),
    Row(
        24,
        26,
        "a loss that is NaN once, in every step; a gradient that is infinite once",
        3,
        "skipped and said; ended, and the last good checkpoint resumed bitwise; weights finite",
        _here(
            "loop",
            "a_number_that_is_not_finite_once_is_skipped",
            "a_loss_that_is_not_finite_in_every_step_ends_the_run_and_leads_back_to_its_last_good_checkpoint",
        ),
    ),
    Row(
        27,
        27,
        "a loss that jumps to twenty times its value",
        1,
        "said, with the rows of that step",
        _here("loop", "a_loss_that_jumps_is_said_with_the_rows_that_it_came_from"),
    ),
    Row(
        28,
        29,
        "a worker of the loader is killed (there is none to kill), or raises",
        2,
        "exit 1, nothing lost, resumed bitwise",
        _here(
            "loop",
            "there_is_no_worker_process_to_lose",
            "rows_that_cannot_be_read_end_the_run_and_lose_nothing",
        ),
    ),
    Row(
        30,
        30,
        "between two runs of one training the token cache is damaged, the text is changed",
        2,
        "made again with a message, resumed bitwise; said, also with `--quiet`",
        _here(
            "data",
            "a_damaged_token_cache_is_made_again_with_a_message",
            "a_run_whose_text_was_changed_does_not_go_on_without_a_word",
        ),
    ),
    Row(
        31,
        31,
        "text that is empty, one row, too long in every row, trained on in none",
        4,
        "refused before training, with the file",
        _here("data", "text_with_nothing_to_learn_is_refused_before_training"),
    ),
    Row(
        32,
        32,
        "two processes that train together: one is killed, one gets a signal, one is slow",
        3,
        "both end, after the same step, and go on from its checkpoint",
        _here(
            "processes",
            "a_rank_that_is_killed_takes_the_other_one_with_it_and_the_checkpoints_stay",
            "a_signal_to_one_rank_ends_both_after_the_same_step",
            "a_slow_rank_is_waited_for",
        ),
    ),
    Row(
        33,
        33,
        "two runs in one folder at once; a lock whose owner was killed",
        2,
        "the second refused with the id of the first; taken over",
        _here(
            "processes",
            "a_second_process_in_one_run_is_refused_with_the_first_ones_id",
            "the_lock_of_a_killed_process_is_taken_over",
        ),
    ),
    Row(
        34,
        34,
        "two runs begun at one reading of the clock",
        1,
        "a folder each",
        _here("processes", "runs_of_the_same_second_have_folders_of_their_own"),
    ),
    Row(
        35,
        35,
        "a proxy, a hub that refuses, a tracking server that never answers",
        3,
        "nobody asked; named with the way out; recorded offline, trained bitwise",
        _here(
            "network",
            "a_run_asks_no_proxy_and_no_server",
            "a_model_of_the_hub_that_cannot_be_asked_for_is_named_with_the_way_out",
            "a_wandb_server_that_never_answers_does_not_hold_a_run_up",
        ),
    ),
    Row(
        36,
        36,
        "a tracker raises while it logs, or at the end",
        2,
        "trained bitwise, one warning",
        _here("network", "a_tracker_that_raises_is_said_once_and_left_out"),
    ),
    Row(
        37,
        37,
        "no compiled extension; a CPU without AVX2, or any known instructions; no compiler",
        4,
        "the same text from a slower kernel, said by `doctor`; nothing needs a compiler",
        _here(
            "machine",
            "without_the_extension_doctor_says_so_and_the_text_is_the_same",
            "a_cpu_without_wide_instructions_writes_the_same_text",
            "nothing_needs_a_compiler",
        ),
    ),
    Row(
        38,
        38,
        "kernels given arrays of other shapes, strides, types, at odd addresses, too short, of another scheme or range",
        8,
        "refused with the numbers, or the same bits",
        (
            "tests/kernels/test_ops.py::test_wrong_arrays_are_refused_with_the_numbers",
            "tests/kernels/test_ops.py::test_wrong_scales_are_refused_when_packing",
            "tests/kernels/test_ops.py::test_codes_of_another_type_are_refused",
            "tests/kernels/test_ops.py::test_a_code_that_the_scheme_has_not_is_refused",
            "tests/kernels/test_ops.py::test_the_extension_itself_refuses_a_code_that_the_scheme_has_not",
            "tests/kernels/test_ops.py::test_the_extension_takes_no_codes_of_another_kind",
            "tests/kernels/test_ops.py::test_planes_of_another_scheme_are_refused",
            "tests/kernels/test_ops.py::test_a_stream_cut_short_is_refused_with_the_bytes",
            "tests/kernels/test_ops.py::test_a_stream_at_an_odd_address_gives_the_same_bits",
            "tests/kernels/test_int8_ops.py::test_what_does_not_fit_is_refused_with_the_numbers",
            "tests/kernels/test_int8_ops.py::test_codes_at_an_odd_address_give_the_same_bits",
        ),
    ),
    Row(
        39,
        39,
        "another number of threads",
        2,
        "the same bits",
        (
            "tests/kernels/test_ops.py::test_the_number_of_threads_does_not_change_a_bit",
            "tests/kernels/test_int8_ops.py::test_the_number_of_threads_does_not_show",
            "tests/kernels/test_float_ops.py::test_the_number_of_threads_changes_no_bit",
        ),
    ),
    Row(
        40,
        40,
        "memory that does not suffice for a step",
        1,
        "exit 1, with the estimate",
        _here("machine", "too_little_memory_is_an_error_with_the_estimate"),
    ),
    Row(
        41,
        41,
        "SIGKILL in an export in any format, before its last file; in a merge, also between its renames",
        7,
        "what was there is whole, the half is refused, the next start clears it away",
        _here(
            "exports",
            "an_export_that_is_killed_leaves_nothing_under_its_name_and_the_next_one_clears_it_away",
        )
        + _here("merges", "a_merge_that_is_killed_leaves_what_the_next_start_clears_away"),
    ),
    Row(
        42,
        42,
        "a bit flipped in an export in any format, a packed folder that was cut, given to `validate`",
        6,
        "exit 1, with the file and the tensor",
        _here(
            "exports",
            "a_damaged_export_fails_to_validate_and_the_tensor_is_named",
            "an_export_that_was_cut_fails_to_validate_and_the_file_is_named",
        ),
    ),
)
