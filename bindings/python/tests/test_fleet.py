"""Stores that a fleet shares: on a folder, which needs no server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from conftest import FAMILIES, python

import jitc
from jitc import _jitc

stores = pytest.mark.skipif(not _jitc.REMOTE, reason="this package was built without stores")


@pytest.fixture
def share(tmp_path: Path) -> str:
    (tmp_path / "share").mkdir()
    return f"file://{tmp_path}/share"


def machine(cache: Path, remote: str | list[str], **settings: str) -> jitc.Jit:
    return jitc.Jit(cache_dir=cache, templates=FAMILIES, arch="sm_90a", remote=remote, **settings)  # type: ignore[arg-type]


@pytest.mark.skipif(_jitc.REMOTE, reason="this package was built with stores")
def test_a_package_without_stores_refuses_them_in_one_line(share: str) -> None:
    with pytest.raises(jitc.ConfigError, match="feature `remote`") as caught:
        jitc.Jit(remote=share)
    assert "\n" not in str(caught.value)
    engine = jitc.Jit()
    for ask in (lambda: engine.push([]), lambda: engine.pull("rel")):
        with pytest.raises(jitc.ConfigError, match="feature `remote`"):
            ask()


@stores
@pytest.mark.usefixtures("compiler")
def test_what_one_machine_built_is_a_hit_on_the_next_and_then_its_own(tmp_path: Path, share: str) -> None:
    told: list[str] = []
    first = machine(tmp_path / "first", share + "?role=read-write")
    first.on_event(lambda event: told.append(event.kind))
    assert first.warm("scale", factor=[1.0, 2.0]).built == 2
    del first
    assert told.count("sent") == 2, told
    second = machine(tmp_path / "second", [share], miss="forbid")
    assert second.warm("scale", factor=[1.0, 2.0]).hit == 2
    assert second.counters()["built"] == 0
    third = machine(tmp_path / "second", f"file://{tmp_path}/gone", miss="forbid")
    assert third.warm("scale", factor=[1.0, 2.0]).hit == 2, "kept by the second"


@stores
@pytest.mark.usefixtures("compiler")
def test_a_store_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    engine = machine(tmp_path / "cache", f"file://{tmp_path}/gone?role=read-write")
    assert engine.cubin("scale")
    assert engine.counters()["built"] == 1


@stores
@pytest.mark.usefixtures("compiler")
def test_a_release_goes_by_name_and_by_digest(tmp_path: Path, share: str) -> None:
    first = machine(tmp_path / "first", share + "?role=write")
    report = first.warm("scale", factor=[1.0, 2.0])
    pushed = first.push(report, name="rel-1")
    assert (pushed.sent, pushed.failed) == (2, [])
    assert pushed.digest and pushed.digest.startswith("sha256:")
    second = machine(tmp_path / "second", share)
    pulled = second.pull("rel-1")
    assert (pulled.added, pulled.present, pulled.tuned) == (2, 0, 0)
    assert second.pull(pushed.digest).present == 2
    second.forbid()
    assert second.warm("scale", factor=[1.0, 2.0]).hit == 2
    one = first.push([first.key("scale", factor=2.0)])
    assert (one.sent + one.present, one.digest) == (1, None)


@stores
def test_a_push_or_pull_that_cannot_be_says_why(tmp_path: Path, share: str) -> None:
    engine = machine(tmp_path / "cache", share)
    with pytest.raises(jitc.CacheError, match="no store is written to"):
        engine.push([engine.key("scale")])
    with pytest.raises(jitc.CacheError, match="no store has rel"):
        engine.pull("rel")
    with pytest.raises(jitc.SpecError, match="expected a name"):
        engine.pull("../rel")
    with pytest.raises(jitc.SpecError, match="key"):
        engine.push(["abc"])


@stores
def test_a_store_that_cannot_be_is_refused_and_no_secret_is_shown(tmp_path: Path) -> None:
    with pytest.raises(jitc.ConfigError, match="ftp") as caught:
        jitc.Jit(remote="ftp://host/x")
    assert "s3://BUCKET/PREFIX" in str(caught.value)
    with pytest.raises(jitc.ConfigError) as caught:
        jitc.Jit(remote=["s3://me:hush@bucket/x"])
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(jitc.ConfigError, match="role"):
        jitc.Jit(remote=f"file://{tmp_path}?role=admin")


@stores
@pytest.mark.usefixtures("compiler")
def test_once_a_key_is_trusted_a_store_gives_what_is_signed_alone(tmp_path: Path, share: str) -> None:
    machine(tmp_path / "first", share + "?role=write").warm("scale")
    key = "fleet-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    with pytest.raises(jitc.ConfigError, match="trusted_keys"):
        jitc.Jit(trusted_keys="none")
    with pytest.raises(jitc.ConfigError, match="require"):
        jitc.Jit(require="perhaps")
    wary = machine(tmp_path / "second", share, trusted_keys=key, miss="forbid")
    with pytest.raises(jitc.Forbidden):
        wary.cubin("scale")
    trusting = machine(tmp_path / "second", share, trusted_keys=key, require="none", miss="forbid")
    assert trusting.cubin("scale")


@stores
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_asks_and_sends_by_itself(tmp_path: Path, share: str) -> None:
    machine(tmp_path / "other", share + "?role=write").warm("scale", factor=1.0)
    engine = machine(tmp_path / "first", share + "?role=read-write")
    engine.warm("scale", factor=2.0)
    child = os.fork()
    if child == 0:
        # Ends it where it would wait for a thread that it has not.
        signal.alarm(60)
        report = engine.warm("scale", factor=[1.0, 3.0])
        del engine
        os._exit(0 if (report.hit, report.built) == (1, 1) else 1)
    assert os.waitpid(child, 0)[1] == 0
    del engine
    third = machine(tmp_path / "third", share, miss="forbid")
    assert third.warm("scale", factor=[2.0, 3.0]).hit == 2, "the child waited until it was sent"


@stores
@pytest.mark.usefixtures("compiler")
def test_the_environment_names_stores_and_the_program_knows_them(tmp_path: Path, share: str) -> None:
    settings = {"JITC_REMOTE": share + "?role=read-write", "JITC_CACHE_DIR": str(tmp_path / "first")}
    # Where a compiler that was fetched lies.
    settings["HOME"] = os.environ.get("HOME", "/dev/null")
    code = f"import jitc; print(jitc.Jit(templates={str(FAMILIES)!r}, arch='sm_90a').warm('scale').built)"
    if python(code, settings).strip() != "1":
        pytest.skip("a process with nothing but HOME finds no compiler")
    assert any((tmp_path / "share" / "v2").rglob("*")), "sent before the process ended"
    code = "import sys; sys.argv = ['jitc', 'cache', 'push', 'rel']; from jitc._program import main; main()"
    assert "1 entries under rel" in python(code, settings)
