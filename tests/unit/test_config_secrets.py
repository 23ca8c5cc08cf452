"""Secrets: where they come from, which are refused."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from config.broker_url import with_password
from config.load import load
from config.problems import ConfigError, Problem
from config.secrets import MASK, MAX_SECRET_BYTES, Secret, looks_secret, without_userinfo
from config.settings import Queue

PASSWORD = "hunter2-Zq9"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a configuration file, not written yet."""
    return tmp_path / "config.yaml"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A file with a password that only its owner reads."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


def queue_of(file: Path, text: str, environ: Mapping[str, str] | None = None) -> Queue:
    """The queue section that the text gives."""
    file.write_text(text)
    queue = load(file, environ=environ or {}).settings.queue
    assert queue is not None
    return queue


def refusal(file: Path, text: str, environ: Mapping[str, str] | None = None) -> ConfigError:
    """The error that the text gives."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ or {})
    return caught.value


def paths_of(error: ConfigError) -> dict[str, Problem]:
    return {problem.path: problem for problem in error.problems}


# --- the type


def test_a_secret_shows_itself_to_its_caller_alone() -> None:
    """Neither repr nor str nor format nor a container has the text."""
    secret = Secret(PASSWORD)

    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr({"a": [secret]})]

    assert secret.reveal() == PASSWORD
    assert not any(PASSWORD in text for text in shown)


def test_a_secret_compares_copies_and_refuses_to_be_pickled() -> None:
    """It can be used as a value, and leaves the process by no back door."""
    secret = Secret("ä")

    assert secret == copy.deepcopy(secret) == Secret("ä") != Secret("b")
    assert secret != "ä"
    assert len({secret, Secret("ä")}) == 1
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


@pytest.mark.parametrize(
    "name", ["password", "pasword", "DB_PASSWORD", "api-key", "apikey", "secrets", "auth.token", "broker_url", "passwd"]
)
def test_names_of_secrets_are_known_also_when_misspelt(name: str) -> None:
    """In doubt a value is not shown."""
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["concurrency", "concurency", "root", "exclude", "level", "path", "node", "patterns"])
def test_ordinary_names_do_not_look_like_secrets(name: str) -> None:
    """A message that hides everything would help nobody."""
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amqp://u:p@h/v", f"amqp://u:{MASK}@h/v"),
        ("see amqp://u:p/@q@h and x://:p@h", f"see amqp://u:{MASK}@h and x://:{MASK}@h"),
        ("amqp://u@h:1/v mail@h a:b@c", "amqp://u@h:1/v mail@h a:b@c"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, expected: str) -> None:
    """Also with characters that should have been encoded; what is no password stays."""
    assert without_userinfo(text) == expected


# --- files


def test_a_secret_comes_from_a_file_without_its_line_end(file: Path, secret_file: Path) -> None:
    """One line end is not part of the password; spaces are."""
    secret_file.write_bytes(f" {PASSWORD}\n\r\n".encode())

    queue = queue_of(file, f"queue: {{url: 'amqp://h', password_file: {secret_file}}}")

    assert queue.password == Secret(f" {PASSWORD}\n")


def test_systemd_credentials_are_found_by_their_directory(file: Path, secret_file: Path) -> None:
    """The directory is in a variable that systemd sets."""
    text = "queue:\n  url: amqp://h\n  password_file: ${CREDENTIALS_DIRECTORY}/password\n"

    queue = queue_of(file, text, {"CREDENTIALS_DIRECTORY": str(secret_file.parent)})

    assert queue.password == Secret(PASSWORD)


def test_a_required_secret_may_come_from_a_file_or_a_variable(file: Path, secret_file: Path) -> None:
    """A URL from a file counts as given."""
    secret_file.write_text("redis://h\n")

    queue = queue_of(file, "", {"HOLDFAST_QUEUE__URL_FILE": str(secret_file), "HOLDFAST_QUEUE__PASSWORD": "123"})

    assert queue.url == Secret("redis://h")
    assert queue.password == Secret("123")


def test_a_variable_wins_over_a_secret_s_file_and_the_other_way_round(file: Path, secret_file: Path) -> None:
    """The two spellings are one setting: the later place replaces the earlier one."""
    by_file = f"queue: {{url: 'amqp://h', password_file: {secret_file}}}"
    inline = "queue: {url: 'amqp://h', password: inline}"

    one = queue_of(file, by_file, {"HOLDFAST_QUEUE__PASSWORD": "from-env"})
    two = queue_of(file, inline, {"HOLDFAST_QUEUE__PASSWORD_FILE": str(secret_file)})

    assert one.password == Secret("from-env")
    assert two.password == Secret(PASSWORD)


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_secret_given_twice_in_one_place_is_a_problem(file: Path, secret_file: Path, place: str) -> None:
    """Which of the two was meant is not left to chance."""
    text, environ = (
        "queue: {url: 'amqp://h'}",
        {
            "HOLDFAST_QUEUE__PASSWORD": "x",
            "HOLDFAST_QUEUE__PASSWORD_FILE": str(secret_file),
        },
    )
    if place == "file":
        text, environ = f"queue: {{url: 'amqp://h', password: x, password_file: {secret_file}}}", {}

    problems = paths_of(refusal(file, text, environ))

    assert "beside password" in problems["queue.password_file"].message
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"", 0o600, "empty"),
        (b"\n", 0o600, "empty"),
        (b" \t\r\n", 0o600, "empty"),
        (b"\xff\xfe", 0o600, "not hold text"),
        (b"a\0b", 0o600, "not hold text"),
        (b"x" * (MAX_SECRET_BYTES + 1), 0o600, "more than 65536 bytes"),
        (b"secret-in-file", 0o644, "mode is 0644"),
        (b"secret-in-file", 0o602, "mode is 0602"),
    ],
)
@pytest.mark.parametrize("key", ["url", "password"])
def test_a_file_that_gives_no_secret_is_one_problem(
    file: Path, secret_file: Path, key: str, content: bytes, mode: int, message: str
) -> None:
    """It never counts as not set; what is missing because of it is not told as well."""
    secret_file.write_bytes(content)
    secret_file.chmod(mode)
    url = "" if key == "url" else "url: 'amqp://h', "

    error = refusal(file, f"queue: {{{url}{key}_file: {secret_file}}}")

    assert [problem.path for problem in error.problems] == [f"queue.{key}_file"]
    assert message in error.problems[0].message
    assert "secret-in-file" not in str(error)


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "device", "relative", "null", "number", "nul"])
def test_what_is_no_readable_file_is_a_problem(file: Path, tmp_path: Path, kind: str) -> None:
    """Nothing hangs, nothing is skipped."""
    os.mkfifo(tmp_path / "pipe")
    value = {
        "missing": tmp_path / "missing",
        "directory": tmp_path,
        "pipe": tmp_path / "pipe",
        "device": "/dev/zero",
        "relative": "password",
        "null": "",
        "number": "7",
        "nul": '"/a\\0b"',
    }[kind]

    error = refusal(file, f"queue:\n  url: amqp://h\n  password_file: {value}\n")

    assert [problem.path for problem in error.problems] == ["queue.password_file"]
    assert error.problems[0].where == f"{file}:3"


@pytest.mark.parametrize("value", ["''", "${EMPTY}", "${UNSET:-}"])
def test_an_empty_secret_is_a_problem(file: Path, value: str) -> None:
    """An empty variable never means that there is no password."""
    problems = paths_of(refusal(file, f"queue:\n  url: amqp://h\n  password: {value}\n", {"EMPTY": ""}))

    assert problems["queue.password"].message == "is empty"


# --- the broker's URL


@pytest.mark.parametrize("url", ["amqp://h", "AMQPS://u:p@h:5671/v", "redis://h/0", "rediss://h", "amqp://a;amqp://b"])
def test_tested_transports_are_accepted(file: Path, url: str) -> None:
    """Those have a row in the table of guarantees."""
    assert queue_of(file, f"queue: {{url: '{url}'}}").url == Secret(url)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("filesystem://", "spool"),
        ("sqla+sqlite:///x.db", "spool"),
        ("sqlalchemy+postgresql://h", "spool"),
        ("memory://", "spool"),
        ("kafka://h", "amqp://"),
        (f"amqp:{PASSWORD}", "amqp://user"),
        (f"{PASSWORD}://h", "known"),
        (f"amqp://u:a/{PASSWORD}@h", "percent-encode"),
        (f"amqp://u:{PASSWORD}#@h:x", "percent-encode"),
        (f"amqp://u:{PASSWORD}@[h", "percent-encode"),
        (f"amqp://u:{PASSWORD}@h\\n", "white space"),
        ("amqp://h;redis://h", "amqp, redis"),
        (f"amqp://u:a;{PASSWORD}@h", "percent-encode"),
        (f"amqp://u:1;{PASSWORD}@h", "%3B"),
    ],
)
def test_other_urls_are_refused_without_being_quoted(file: Path, url: str, hint: str) -> None:
    """Transports that lose requests point to the spool; a malformed URL gives nothing away."""
    error = refusal(file, f'queue:\n  url: "{url}"\n')

    (problem,) = error.problems
    assert hint in f"{problem.message} {problem.hint}"
    assert problem.value == MASK
    assert PASSWORD not in str(error)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u@h:1/v", "amqp://u:a%2Fb%40@h:1/v"),
        ("amqp://u:old@h//?x=1", "amqp://u:a%2Fb%40@h//?x=1"),
        ("redis://h/0", "redis://:a%2Fb%40@h/0"),
        ("amqp://u@a;amqp://u@b", "amqp://u:a%2Fb%40@a;amqp://u:a%2Fb%40@b"),
    ],
)
def test_the_password_replaces_the_one_in_the_url(url: str, expected: str) -> None:
    """It is encoded for its place; the rest of the URL stays."""
    assert with_password(Secret(url), Secret("a/b@")).reveal() == expected


def test_the_connection_url_has_the_password(file: Path) -> None:
    """Whoever connects asks the section, not its parts."""
    queue = queue_of(file, f"queue: {{url: 'amqp://u@h', password: {PASSWORD}}}")

    assert queue.connection_url.reveal() == f"amqp://u:{PASSWORD}@h"
    assert queue_of(file, "queue: {url: 'amqp://u:p@h'}").connection_url.reveal() == "amqp://u:p@h"
