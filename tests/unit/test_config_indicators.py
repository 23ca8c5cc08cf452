"""What an operator may say of indicators, and what is refused with the place and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.indicators import Indicators
from config.load import load
from config.problems import ConfigError


def loaded(tmp_path: Path, indicators: str) -> Indicators:
    """The settings of a file with this section."""
    file = tmp_path / "holdfast.yaml"
    file.write_text(
        "stores: {main: {kind: local, path: /srv/store}}\n"
        "plans: {web: {handler: tar, options: {root: /srv/web}}}\n"
        f"indicators: {{pool: {indicators}}}\n"
    )
    return load(file, environ={}).settings.indicators["pool"]


def test_a_directory_and_a_plan_are_enough(tmp_path: Path) -> None:
    """The rest is as Cedar has it."""
    pool = loaded(tmp_path, "{directories: ['/srv/collect/*'], plan: web}")

    assert (pool.name, pool.on_success.write, pool.on_success.indicator) == ("cback.collect", "cback.stage", "leave")
    assert (pool.on_failure.write, pool.on_partial) == (None, "failure")


def test_a_plan_may_be_named_after_the_directory(tmp_path: Path) -> None:
    """Which plans there are is seen when an indicator comes."""
    assert loaded(tmp_path, "{directories: [/srv/collect/x], plan: 'pool-{directory}'}").plan == "pool-{directory}"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{directories: [], plan: web}", "indicators.pool.directories"),
        ("{directories: [collect], plan: web}", "must be an absolute path"),
        ("{directories: [/srv/../etc], plan: web}", ".. is no name here"),
        ("{directories: ['/srv/**'], plan: web}", "** is no name here"),
        ("{directories: [/srv], plan: wbe}", "names no plan"),
        ("{directories: [/srv], plan: '../web'}", "indicators.pool.plan"),
        ("{directories: [/srv], plan: web, name: a/b}", "indicators.pool.name"),
        ("{directories: [/srv], plan: web, name: '..'}", "indicators.pool.name"),
        ("{directories: [/srv], plan: web, on_success: {mode: '9'}}", "indicators.pool.on_success.mode"),
        ("{directories: [/srv], plan: web, on_success: {write: x, owner: root}}", "indicators.pool.on_success.owner"),
        ("{directories: [/srv], plan: web, on_failure: {indicator: burn}}", "indicators.pool.on_failure.indicator"),
        ("{directories: [/srv], plan: web, scan_seconds: 0}", "indicators.pool.scan_seconds"),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, section: str, told: str) -> None:
    """By its place in the file."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, section)

    assert told in str(caught.value)
