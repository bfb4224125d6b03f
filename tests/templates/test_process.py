"""Templates that never end are ended: each here is the kind of work that no count of steps would see."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bitnet_train.templates.process import _PROGRAM, Renderer, RenderError

NESTED = "".join(f"{{% for a{at} in range(99999) %}}" for at in range(5)) + "{% endfor %}" * 5
ENDLESS = {
    "nested loops": NESTED,
    "a macro of itself": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a number": "{{ 9 ** (9 ** 9) }}",
}
LARGE = {
    "a text": "{{ 'x' * 10 ** 11 }}",
    "a padded text": "{{ 'x'.ljust(10 ** 11) }}",
    "a filter": "{{ 'x' | center(10 ** 11) }}",
    "a format": "{{ '%099999999999d' % 1 }}",
    "doublings": "{% set ns = namespace(s='xx') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "a list": "{% set ns = namespace(s=[0]) %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
}


@pytest.fixture
def renderer():
    made = Renderer(seconds=0.3)
    yield made
    made.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no limit of computing on this system")
@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_ended_and_not_tried_again(template, renderer):
    with pytest.raises(RenderError, match=r"it did not end within 0\.3 seconds of computing"):
        renderer.render(template, {})
    assert renderer._process is None
    with pytest.raises(RenderError, match="did not end"):
        renderer.render(template, {"other": "names"})
    assert renderer._process is None
    assert renderer.render("{{ a }}", {"a": 1}) == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its memory")
@pytest.mark.parametrize("template", LARGE.values(), ids=LARGE)
def test_a_template_that_asks_for_a_hundred_gigabytes_is_refused(template):
    renderer = Renderer(num_bytes=1 << 28)
    with pytest.raises(RenderError):
        renderer.render(template, {})
    assert renderer.render("{{ a }}", {"a": 1}) == "1"
    renderer.close()


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace() %}{% set n._x = 1 %}",
        "{{ raise_exception('only user messages') }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ nothing.there }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_template_that_breaks_out_or_breaks_says_so_each_time_and_the_process_goes_on(template, renderer):
    for _ in range(2):
        with pytest.raises(RenderError, match=r"cannot be used: .+\."):
            renderer.render(template, {"messages": []})
    process = renderer._process
    assert renderer.render("ok", {}) == "ok"
    assert renderer._process is process


def test_time_is_counted_for_each_rendering(renderer):
    some = "{% for a in range(99999) %}{% endfor %}{{ n }}"
    assert [renderer.render(some, {"n": n}) for n in range(40)] == [str(n) for n in range(40)]


def test_values_that_json_does_not_know_are_those_of_transformers(renderer):
    values = {"a": np.float32(0.5), "b": datetime.date(2026, 1, 1), "c": np.zeros(2), "d": (1, 2)}
    assert renderer.render("{{ a }} {{ b }} {{ c }} {{ d[1] }}", values) == "0.5 <date> <ndarray> 2"


def test_threads_get_their_own_texts(renderer):
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: renderer.render("{{ n }}" + " " * (n % 5), {"n": n}), range(200)))
    assert texts == [f"{n}{' ' * (n % 5)}" for n in range(200)]


def test_a_process_that_was_killed_is_started_again(renderer):
    assert renderer.render("a", {}) == "a"
    os.kill(renderer._process.pid, signal.SIGKILL)
    renderer._process.wait()
    assert renderer.render("a", {}) == "a"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_renderer_of_its_own(renderer):
    assert renderer.render("a", {}) == "a"
    child = os.fork()
    if child == 0:
        os._exit(0 if renderer.render("b", {}) == "b" and renderer._process.pid else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert renderer.render("c", {}) == "c"


def test_it_ends_with_its_input():
    limits = json.dumps({"path": sys.path, "seconds": 1, "bytes": 1 << 30})
    done = subprocess.run([sys.executable, str(_PROGRAM)], input=f"{limits}\n", stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_texts_that_were_rendered_ahead_are_not_asked_for_again(renderer):
    source = "{{ 1 / n }}"
    renderer.ahead(source, [{"n": n} for n in (4, 2, 0, 2)])
    os.kill(renderer._process.pid, signal.SIGKILL)
    assert [renderer.render(source, {"n": n}) for n in (2, 4)] == ["0.5", "0.25"]
    with pytest.raises(RenderError, match="division by zero"):
        renderer.render(source, {"n": 0})
    renderer._process.wait()
    assert renderer.render(source, {"n": 8}) == "0.125"


def test_what_does_not_end_ahead_is_told_when_it_is_asked_for(renderer):
    renderer.ahead(NESTED, [{"n": 1}, {"n": 2}])
    for n in (1, 2, 3):
        with pytest.raises(RenderError, match="did not end"):
            renderer.render(NESTED, {"n": n})
