"""What the configuration of a pool may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from config.descriptions import described
from handlers.peer_stage import StageHandler
from handlers.tools.peers.options import LocalPeer, ManagedAction, RemotePeer, StageOptions
from tests.workshop.pool import options_of

LOCAL = {"kind": "local", "collect_directory": "/srv/a"}
REMOTE = {"kind": "remote", "collect_directory": "/srv/a", "known_hosts": "/etc/ssh/known"}


def refused(peers: dict[str, Any], **options: Any) -> str:
    """What is said against it."""
    with pytest.raises(ValidationError) as caught:
        options_of(peers, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "-e", ".hidden", "a\nb", "a b", "x" * 64, "a."])
def test_a_peers_name_is_the_name_of_a_directory(name: str) -> None:
    """It can neither lead out of the set nor be taken for an option."""
    assert "peers" in refused({name: LOCAL})


def test_names_that_differ_by_case_alone_are_refused() -> None:
    """There are file systems that cannot tell them apart."""
    assert "told apart only by case" in refused({"web": LOCAL, "WEB": LOCAL})


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "a/b", "user@host", "a;b", "", "[::1]", "x" * 254])
def test_a_host_is_a_host(host: str) -> None:
    """Nothing else gets as far as ssh."""
    assert "not a host" in refused({"a": {**REMOTE, "host": host}})


@pytest.mark.parametrize("name", ["web_-", "a..b", "1-"])
def test_a_remote_peer_without_a_host_has_a_host_name(name: str) -> None:
    """The name itself is the host then."""
    assert options_of({name: {**REMOTE, "host": "web01"}})
    if name != "web_-":
        assert refused({name: REMOTE})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"user": "-l"}, "not a user's name"),
        ({"ssh_options": {"ProxyCommand": "x"}}, "ProxyCommand cannot be set"),
        ({"ssh_options": {"ForwardAgent": "yes"}}, "ForwardAgent cannot be set"),
        ({"transfer": "rcp"}, "transfer: rcp and rcp_command need each other"),
        ({"rcp_command": ["rcp"]}, "transfer: rcp and rcp_command need each other"),
        ({"collect_indicator": None}, "set it to null"),
        ({"port": 0}, "port"),
        ({"hard_link": True}, "hard_link"),
        ({"collect_directory": "srv"}, "absolute"),
        ({"collect_directory": "/srv/../etc"}, "without `..`"),
        ({"collect_indicator": "../x"}, "one name"),
        ({"stage_indicator": "cback.collect"}, "cannot be the stage indicator"),
        ({"ignore_failures": "some"}, "ignore_failures"),
        ({"managed": True}, "needs managed_actions"),
    ],
)
def test_what_cannot_be_meant_is_refused(more: dict[str, Any], said: str) -> None:
    """At the start, not in the night."""
    assert said in refused({"a": {**REMOTE, **more}})


def test_linked_files_cannot_get_another_owner_or_mode() -> None:
    """The peer's own files would get it, too."""
    linked = {**LOCAL, "hard_link": True}

    assert "hard_link" in refused({"a": linked}, owner="a:b")
    assert "hard_link" in refused({"a": linked}, mode="0440")
    assert options_of({"a": linked}, directory_mode="0750")


def test_actions_need_somebody_who_is_managed() -> None:
    """A list of commands that can never run is a mistake."""
    assert "managed: true" in refused({"a": LOCAL}, managed_actions={"purge": {"command": ["true"]}})


def test_all_that_is_wrong_is_told_at_once() -> None:
    """One look at the list is enough."""
    said = refused({"a": {**LOCAL, "links": "follow"}, "b": {**REMOTE, "port": 0}}, parallel=0, mode="rw")

    assert all(word in said for word in ("peers.a.local.links", "peers.b.remote.port", "parallel", "mode"))


def test_every_option_is_described() -> None:
    """For the schema, and for editors."""
    described(StageOptions)

    for model in (StageOptions, LocalPeer, RemotePeer, ManagedAction):
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_subject_names_the_peers() -> None:
    """In events and logs."""
    assert StageHandler().subject(options_of({"a": LOCAL, "b": REMOTE})) == "peers a, b"
