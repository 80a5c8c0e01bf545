"""Keys, why, warm, the cache, policies and errors: nothing here wants a GPU."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from conftest import FAMILIES, python

import jitc


def test_a_key_depends_on_constants_and_arch_alone(engine: jitc.Jit, tmp_path: Path) -> None:
    other = jitc.Jit(cache_dir=tmp_path / "other", templates=FAMILIES)
    assert engine.key("scale", factor=3.0) == other.key("scale", factor=3, arch="sm_90a")
    assert engine.key("scale", factor=3.0) != engine.key("scale", factor=2.0)
    assert engine.key("scale") != engine.key("scale", arch="sm_80")


def test_a_miss_says_so_and_compiles_nothing(engine: jitc.Jit) -> None:
    why = engine.why("scale")
    assert not why
    assert (why.answer, why.nearest, why.key) == ("miss", None, engine.key("scale"))
    assert engine.counters()["built"] == 0


def test_render_gives_the_source_with_its_constants(engine: jitc.Jit) -> None:
    assert "__launch_bounds__(512u)" in engine.render("scale", block=512)


def test_a_value_that_is_not_legal_names_the_keyword(engine: jitc.Jit) -> None:
    with pytest.raises(jitc.SpecError) as caught:
        engine.key("scale", block=300)
    assert "block" in str(caught.value)
    assert "argument block=" in str(caught.value)
    assert caught.value.hint
    assert caught.value.log is None


def test_an_unknown_constant_or_family_is_an_error(engine: jitc.Jit) -> None:
    with pytest.raises(jitc.SpecError, match="blok"):
        engine.key("scale", blok=256)
    with pytest.raises(jitc.TemplateError, match="scal"):
        engine.key("scal")


def test_several_values_are_for_warming(engine: jitc.Jit) -> None:
    with pytest.raises(jitc.SpecError, match="2 variants"):
        engine.key("scale", factor=[1.0, 2.0])  # type: ignore[arg-type]


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(jitc.ConfigError, match="templates"):
        jitc.Jit(templates=tmp_path / "none")
    with pytest.raises(jitc.Error, match="expected compile, warn or forbid"):
        jitc.Jit(miss="perhaps")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        jitc.Jit(bundle=tmp_path / "none.jitc")


def test_families_may_be_texts() -> None:
    files = {
        "twice.toml": (
            'summary = "s"\n[constants]\n[[entries]]\nname = "twice"\ngrid = [1, 1, 1]\nblock = 32\n'
            '[[entries.parameters]]\nname = "y"\ntype = "f32"\nshape = [1]\naccess = "out"\n'
        ),
        "twice.cu.tera": 'extern "C" __global__ void twice(float* y) { *y *= 2.0f; }',
    }
    engine = jitc.Jit(files=files, arch="sm_90a")
    assert engine.families() == ["twice"]
    assert "y *= 2.0f" in engine.render("twice")


def test_forbidden_names_key_and_command(engine: jitc.Jit) -> None:
    engine.forbid()
    assert engine.miss == "forbid"
    with pytest.raises(jitc.Forbidden) as caught:
        engine.cubin("scale", factor=3.0)
    assert caught.value.key == engine.key("scale", factor=3.0)
    assert caught.value.command and "jitc warm scale" in caught.value.command
    assert isinstance(caught.value, jitc.PolicyError)
    assert engine.counters()["refused"] == 1


@pytest.mark.usefixtures("compiler")
def test_what_was_warmed_is_a_hit_for_another_process(engine: jitc.Jit, tmp_path: Path) -> None:
    report = engine.warm("scale", factor=[1.0, 2.0])
    assert (report.hit, report.built, report.failed) == (0, 2, [])
    assert [v.key for v in report.variants] == [engine.key("scale", factor=f) for f in (1.0, 2.0)]
    code = (
        "import jitc, sys\n"
        f"j = jitc.Jit(cache_dir={str(tmp_path / 'cache')!r}, templates={str(FAMILIES)!r}, arch='sm_90a', miss='forbid')\n"
        "print(j.why('scale', factor=2.0).answer, j.warm('scale', factor=[1.0, 2.0]).hit)"
    )
    if jitc.Jit().toolchain() == python("import jitc; print(jitc.Jit().toolchain(), end='')"):
        assert python(code).split() == ["hit", "2"]
    assert bool(engine.why("scale", factor=2.0))
    near = engine.why("scale", factor=3.0)
    assert near.nearest in [v.key for v in report.variants]
    assert any("factor" in line for line in near.differences)


@pytest.mark.usefixtures("compiler")
def test_a_source_that_does_not_compile_gives_the_whole_log(tmp_path: Path) -> None:
    for name in ("scale.toml", "scale.cu.tera"):
        text = (FAMILIES / name).read_text()
        (tmp_path / name).write_text(text.replace("scale_all<Config>(", "scale_al<Config>("))
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "scale.cuh").write_text((FAMILIES / "include" / "scale.cuh").read_text())
    engine = jitc.Jit(templates=tmp_path, cache_dir=tmp_path / "cache", arch="sm_90a")
    with pytest.raises(jitc.CompileError) as caught:
        engine.cubin("scale")
    assert caught.value.log and "scale_al" in caught.value.log
    report = engine.warm("scale")
    assert isinstance(report.failed[0].error, jitc.CompileError)


@pytest.mark.usefixtures("compiler")
def test_events_are_told_and_a_listener_that_fails_changes_nothing(
    engine: jitc.Jit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[jitc.Event] = []
    engine.on_event(told.append)
    engine.cubin("scale")
    assert [e.kind for e in told] == ["lookup", "miss", "building", "built", "published"]
    assert {e.key for e in told} == {engine.key("scale")}
    engine.on_event(lambda event: 1 / 0)
    written: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda said: written.append(said.exc_type))
    assert engine.cubin("scale", factor=4.0)[:4] == b"\x7fELF"
    engine.on_event(None)
    assert written == [ZeroDivisionError] * 5
    assert engine.counters()["built"] == 2
    exported = engine.prometheus().splitlines()
    assert "jitc_compiles_total 2" in exported and 'jitc_cache_published_total{tier="user"} 2' in exported
    assert exported[1].startswith("jitc_build_info{version=")


@pytest.mark.usefixtures("compiler")
def test_other_threads_run_while_one_compiles(engine: jitc.Jit) -> None:
    """Counted by a thread that only runs when the GIL is released."""
    at_work, counted, done = threading.Event(), [], threading.Event()
    engine.on_event(lambda event: at_work.set() if event.kind == "building" else None)

    def count() -> None:
        at_work.wait(60)
        while not done.is_set():
            counted.append(1)

    counter = threading.Thread(target=count)
    counter.start()
    cubins: list[bytes] = []
    workers = [threading.Thread(target=lambda: cubins.append(engine.cubin("scale"))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done.set()
    counter.join()
    assert len(set(cubins)) == 1 and len(cubins) == 4
    assert counted
    assert engine.counters()["built"] == 1


def test_an_environment_file_holds_where_the_environment_was_stripped(tmp_path: Path) -> None:
    (tmp_path / "ENV").write_text(f"JITC_MISS=forbid\nJITC_CACHE_DIR={tmp_path}/cache\nJITC_ARCH=sm_90a\nJITC_TEMPLATES={FAMILIES}\nFACTOR=3\n")
    code = f"import jitc; j = jitc.Jit(env_file={str(tmp_path / 'ENV')!r}); print(j.miss, j.cache_dir, j.families().count('scale'))"
    assert python(code).split() == ["forbid", f"{tmp_path}/cache", "1"]
    by_variable = "import jitc; print(jitc._jit().miss)"
    assert python(by_variable, {"JITC_ENV_FILE": str(tmp_path / "ENV")}).strip() == "forbid"


def test_without_a_driver_loading_says_so(engine: jitc.Jit) -> None:
    from conftest import has_gpu

    if has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(jitc.DeviceError):
        engine.load("scale")
