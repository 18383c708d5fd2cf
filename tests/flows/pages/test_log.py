"""What the log of a flow run leaves out; what it says is in test_self_training.py."""

from __future__ import annotations

import logging

import pytest

from listflow.data.errors import InputError
from listflow.flows.pages.log import without_finished

pytest_plugins = ["flow_fixtures"]


def test_only_the_end_of_a_task_is_left_out_and_one_that_fails_says_so(
    caplog: pytest.LogCaptureFixture, server: None
) -> None:
    from prefect import flow, get_run_logger, task
    from prefect.logging.configuration import setup_logging
    from prefect.serializers import JSONSerializer

    @task(result_serializer=JSONSerializer())
    def good() -> None:
        get_run_logger().info("good news")

    @task(result_serializer=JSONSerializer())
    def bad() -> None:
        raise InputError("no such file")

    @flow(result_serializer=JSONSerializer())
    def work() -> None:
        with without_finished():
            good()
            bad()

    # The first flow of a process sets logging up, and takes away whoever listens at the root.
    setup_logging()
    logger = logging.getLogger("prefect.task_runs")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level("INFO", "prefect"), pytest.raises(InputError):
            work()
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records if record.name == "prefect.task_runs"]
    assert "good news" in said
    assert any("Finished in state Failed" in line for line in said)
    assert not any("Completed" in line for line in said)
