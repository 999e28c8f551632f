"""An operator's name: kept over restarts, and never that of another one that runs."""

from __future__ import annotations

from pathlib import Path

from dray.identity import operator_name


def test_one_that_is_started_again_has_its_old_name(tmp_path: Path) -> None:
    with operator_name(tmp_path / "data", "docker") as first:
        pass
    with operator_name(tmp_path / "data", "docker") as second:
        assert second == first


def test_two_that_run_have_two_names(tmp_path: Path) -> None:
    with operator_name(tmp_path, "docker") as first, operator_name(tmp_path, "docker") as second:
        assert first != second


def test_one_that_is_started_again_for_another_backend_is_another(tmp_path: Path) -> None:
    names = []
    for backend in ("docker", "kubernetes", "docker", "kubernetes"):
        with operator_name(tmp_path, backend) as name:
            names.append(name)
    assert names[:2] == names[2:]
    assert names[0] != names[1]


def test_a_spoiled_file_and_a_place_that_cannot_be_written_still_give_a_name(tmp_path: Path) -> None:
    (tmp_path / "operator").write_text("half")
    (tmp_path / "file").touch()
    with operator_name(tmp_path, "docker") as first, operator_name(tmp_path / "file", "docker") as second:
        assert len(first) == len(second) == 16
