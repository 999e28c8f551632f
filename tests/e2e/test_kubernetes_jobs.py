"""The jobs of test_jobs.py once more, on a cluster: the same output, log, exit codes and reasons.

Left out is what is Docker's own: users of an image by name, an output file that a step removes (here it is mounted), how
an image's name is refused, what a refresh removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_jobs import (  # noqa: F401 (they are run here)
    test_a_10_mib_line_without_its_newline_arrives_whole,
    test_a_command_that_is_not_there_is_told_apart_from_its_own_127,
    test_a_file_is_piped_also_where_the_image_has_one_of_that_name,
    test_a_file_never_written_is_empty,
    test_a_job_fails_when_the_disk_is_below_its_floor,
    test_a_job_over_the_cap_on_its_data_fails_and_others_go_on,
    test_a_log_over_its_cap_keeps_first_and_last_lines_and_the_pipe_everything,
    test_a_step_killed_by_a_signal_says_which,
    test_a_step_that_fails_ends_the_job_there,
    test_a_step_that_leaves_a_child_holding_its_stdout_ends,
    test_a_step_that_never_reads_50_mb_of_input_does_not_hang,
    test_a_step_that_reads_ten_bytes_of_50_mb_does_not_hang,
    test_a_step_that_spoils_the_jobs_volume_ends_all_the_same,
    test_all_byte_values_arrive_and_the_log_stays_readable,
    test_an_image_that_cannot_be_pulled_says_so,
    test_an_image_that_does_not_exist_says_so_at_its_turn,
    test_an_image_with_nothing_but_its_program_runs,
    test_an_image_without_a_command_says_so,
    test_each_steps_output_is_the_nexts_input,
    test_environment_of_job_and_step_the_steps_wins,
    test_jobs_begin_in_order_of_arrival_and_the_rest_wait,
    test_line_ends_are_kept_in_the_pipe_and_cut_from_the_log,
    test_no_byte_of_a_quick_steps_output_is_missing,
    test_only_what_lies_between_the_delimiters_is_piped,
    test_random_bytes_arrive_unaltered_through_three_steps,
    test_stderr_is_piped_and_stdout_only_logged,
    test_steps_share_the_jobs_network,
    test_the_images_own_directory_entrypoint_and_umask_hold,
    test_twenty_jobs_at_once_from_one_image_keep_their_files_apart,
)

from kit.clustered import Clustered
from kit.images import Images
from kit.kubernetes import JobNamespace
from kit.nodes import ImagesOnNodes, NodeImages


@pytest.fixture
def serve(serve_on_cluster: Callable[..., Clustered]) -> Callable[..., Clustered]:
    return serve_on_cluster


@pytest.fixture(scope="module")
def shared_dray(redis: None, engine: Any, node_images: NodeImages, job_namespace: JobNamespace) -> Iterator[Clustered]:
    made = Clustered(engine, job_namespace, node_images.ours, (), {})
    yield made
    made.close()


@pytest.fixture
def dray(shared_dray: Clustered) -> Clustered:
    """One for all: a job takes seconds here."""
    return shared_dray


@pytest.fixture(scope="module")
def image(engine: Any, node_images: NodeImages) -> Images:
    return ImagesOnNodes(engine, node_images)
