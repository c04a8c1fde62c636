"""The studio as somebody at it meets it, in a real headless browser: keyboard alone, light, dark, and on a phone."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, browser, require_browser

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED
from dualsmooth.runtime.datasets.png import png
from dualsmooth.runtime.studio.pictures import Pictures
from dualsmooth.runtime.studio.server import StudioServer
from dualsmooth.runtime.studio.studio import Studio

pytestmark = pytest.mark.slow
DONE = "run.done !== null && byId('progress').hidden"


@pytest.fixture(scope="module")
def smoother() -> Iterator[ds.Smoother]:
    with ds.load("fashion-mnist", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(smoother: ds.Smoother) -> Iterator[StudioServer]:
    yield from serving(smoother)


def serving(smoother: ds.Smoother) -> Iterator[StudioServer]:
    with StudioServer(Studio(smoother, Pictures.of(smoother, None))) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    executable = require_browser()
    with browser(executable) as page:
        yield page


@pytest.fixture
def page(chromium: Page, server: StudioServer) -> Iterator[Page]:
    chromium.open(server.address, refusals=True)
    yield chromium
    assert not chromium.errors
    assert all(url.startswith((server.address.split("?")[0], "data:", "blob:")) for url in chromium.requests)


def ask(page: Page, budget: str, **fields: str) -> None:
    """Fill in the question."""
    for name, value in {"mode": "own", "budget": budget, **fields}.items():
        page.run(f"byId({name!r}).value = {value!r}, byId({name!r}).dispatchEvent(new Event('change'))")


def certified(page: Page, budget: str, **fields: str) -> None:
    """Ask, and wait for the certificate."""
    ask(page, budget, **fields)
    page.run("run.done = null")
    page.click("#certify")
    page.wait(DONE)


def settled(smoother: ds.Smoother, image: int, **question: Any) -> tuple[str, ds.Certificate]:
    """The first seed whose votes on a shipped image settle the question, and its certificate."""
    for seed in range(10):
        made = smoother.certify(ds.sample("fashion-mnist", image), budget=ds.Fixed(1000), seed=seed, **question)
        if made.answer:
            return str(seed), made
    raise AssertionError("no seed settles it")


def text(page: Page, name: str) -> str:
    return str(page.run(f"byId({name!r}).textContent"))


def tab_to(page: Page, selector: str) -> None:
    """With the Tab key alone."""
    for _ in range(60):
        if page.run(f"document.activeElement.matches({selector!r})"):
            return
        page.press("Tab")
    raise AssertionError(f"the Tab key does not lead to {selector}")


def test_a_certificate_by_keyboard_alone(page: Page, smoother: ds.Smoother) -> None:
    tab_to(page, "#samples input")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert "Trouser" in text(page, "picture-name")
    tab_to(page, "#mode")
    page.press("q")
    assert page.run("byId('mode').value") == "quick"
    tab_to(page, "#seed")
    page.press("5")
    page.press("Enter")
    page.wait(DONE)
    same = smoother.certify(ds.sample("fashion-mnist", 2), mode="quick", seed=5)
    assert page.run("run.done.text") == same.to_json()
    assert text(page, "verdict") == same.show().text.splitlines()[0] + "."
    assert "the seed was chosen by a person" in text(page, "caveats")
    tab_to(page, "#replay")
    page.press("Enter")
    page.wait("byId('replayed').classList.contains('good')")
    assert f"all {same.passes:,} votes" in text(page, "replayed")
    tab_to(page, "#distance")
    for _ in range(8):
        page.press("ArrowRight")
    page.wait("attack.tried.length > 0")
    page.wait("byId('moved').textContent.startsWith('Inside')")
    assert "still Trouser, as proved" in text(page, "moved")


def test_what_has_the_focus_can_be_seen(page: Page) -> None:
    for selector in ("#samples input", "#file", "#rule", "#certify"):
        tab_to(page, selector)
        ring = "(e => getComputedStyle(e.matches('.sample input') ? e.parentElement : e).outlineStyle)"
        assert page.run(f"{ring}(document.activeElement)") != "none", selector


def test_the_last_view_is_the_certificate(page: Page, smoother: ds.Smoother) -> None:
    certified(page, "fixed:400", seed="3")
    same = smoother.certify(ds.sample("fashion-mnist"), budget=ds.Fixed(400), seed=3)
    radius = f"{np.floor(1000 * same.radius + 1e-9) / 1000:.3f}"
    assert page.run("document.querySelector('.bars .line b').textContent") == f"R = {radius}"
    assert f"certified radius {radius}" in page.run("byId('bars').getAttribute('aria-label')")
    cells = page.run("[...byId('runs-rows').lastElementChild.cells].slice(1).map(c => c.textContent)")
    assert cells[:7] == ["interval", "fixed:400", "0.001", "Ankle boot", radius, f"{same.sigma:g}", f"{same.passes:,}"]
    shares = page.run("[...document.querySelectorAll('.network:not(.idle) td:last-child')].map(c => c.textContent)")
    assert shares
    assert all(share.endswith("%") for share in shares)
    assert page.run("[...document.querySelectorAll('.copies canvas')].every(c => c.getAttribute('aria-label'))")
    assert "NaN" not in page.run("document.body.innerHTML")


def test_votes_arrive_and_can_be_stopped(page: Page) -> None:
    ask(page, "fixed:1000000")
    page.click("#certify")
    page.wait("byId('stage').textContent.includes('leading')")
    first = text(page, "stage")
    assert first.startswith("so far, not certified")
    page.wait(f"byId('stage').textContent !== {first!r}")
    assert "so far" in page.run("document.querySelector('.bars .line b').textContent")
    assert page.run("byId('certificate-actions').hidden && byId('attack').hidden")
    page.click("#stop")
    page.wait("byId('progress').hidden")
    assert text(page, "status") == "Stopped; no certificate is issued."
    assert text(page, "stage") == "stopped: nothing is certified"


def test_every_rule_has_a_row_and_a_refusal_too(page: Page) -> None:
    ask(page, "adaptive:400:0")
    page.click("#every")
    page.wait("byId('runs-rows').children.length === DATA.rules.length && byId('progress').hidden")
    rows = page.run("[...byId('runs-rows').children].map(r => [...r.cells].slice(1).map(c => c.textContent))")
    rules = [
        "interval",
        "paper",
        "multiscale",
        "confidence:0.5",
        "sure:0.3",
        "fallback:0.5",
        "single:0.25",
        "single:0.5",
        "single:1",
    ]
    assert [row[0] for row in rows] == rules
    assert "expected a Fixed budget" in rows[2][2]
    assert all(row[3] for row in rows if len(row) > 3)


def test_the_attack_is_held_inside_the_radius_and_not_beyond(page: Page) -> None:
    """A picture of the shipped set, walked towards another class: what is said follows from where it is."""
    certified(page, "fixed:1000", rule="single:0.25")
    page.click("#walk")
    page.wait("attack.tried.length === 10")
    radius = page.run("run.done.outcome.radius")
    for place in page.run("attack.tried"):
        assert place["kind"] != "other" or place["distance"] >= radius
    assert [page.run(f"attack.tried[{i}].distance") <= page.run("Number(byId('distance').max)") for i in range(10)]
    assert text(page, "moved").startswith("Beyond the certified radius nothing is promised")
    assert "Tried, with R" in page.run("byId('track').getAttribute('aria-label')")
    assert page.run("byId('way-note').textContent").startswith("Moved towards the nearest picture")


def test_a_violation_would_be_shown(page: Page) -> None:
    """No honest run gives one: the page is told of a larger radius, and the picture is moved to another class."""
    certified(page, "fixed:300", rule="single:0.25")
    page.run("Object.assign(run.done.outcome, { radius: 30 }), attackable()")
    page.run("byId('distance').value = 25, byId('distance').dispatchEvent(new Event('input'))")
    page.wait("byId('moved').textContent !== 'Pull the slider, or use the arrow keys on it.'")
    said = text(page, "moved")
    assert said.startswith(("A violation: ", "Inside the certified radius: "))
    assert said.startswith("A violation: ") == page.run("byId('moved').classList.contains('bad')")


def test_votes_find_a_direction(page: Page) -> None:
    certified(page, "fixed:300")
    page.run("byId('way').value = 'votes', byId('way').dispatchEvent(new Event('change'))")
    page.run("byId('distance').value = byId('distance').max, byId('distance').dispatchEvent(new Event('input'))")
    page.wait("attack.tried.length === 1")
    assert "estimated from 4,000 noisy copies" in text(page, "way-note")


def test_files_of_all_kinds(page: Page, tmp_path: Path) -> None:
    from PIL import Image

    image = ds.sample("fashion-mnist", 4)
    fits, photo, broken = tmp_path / "fits.png", tmp_path / "photo.jpg", tmp_path / "broken.png"
    fits.write_bytes(png(image))
    Image.fromarray(np.full((90, 120, 3), (255, 0, 0), np.uint8)).save(photo)
    broken.write_bytes(b"no picture")
    page.choose_file("#file", fits)
    page.wait("picture.name === 'fits.png'")
    assert page.run("[...picture.pixels]") == image.ravel().tolist()
    page.choose_file("#file", photo)
    page.wait("picture.name.startsWith('photo.jpg, cut and scaled')")
    red = int(np.asarray(Image.new("RGB", (1, 1), (254, 0, 0)).convert("L"))[0, 0])
    assert set(page.run("[...picture.pixels]")) <= {red - 1, red, red + 1}
    page.choose_file("#file", broken)
    page.wait("byId('picture-name').textContent.includes('cannot read upload')")
    assert page.run("picture.name").startswith("photo.jpg")  # the picture before stays


def test_transparent_parts_are_told_of(page: Page, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.full((60, 60, 4), 255, np.uint8)
    pixels[:, :30, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    page.choose_file("#file", tmp_path / "clear.png")
    page.wait("byId('picture-name').textContent.includes('clear.png')")
    assert "its transparent parts on black" in text(page, "picture-name")
    assert page.run("[picture.pixels[0], picture.pixels[27]]") == [0, 255]


def test_another_picture_makes_what_stands_below_the_former_one_s(page: Page) -> None:
    certified(page, "fixed:300")
    page.run("document.querySelectorAll('#samples input')[1].click()")
    assert text(page, "stage").endswith(", the picture before")
    assert text(page, "status").startswith("Below is what was found for ")
    page.run("document.querySelectorAll('#samples input')[0].click()")
    assert text(page, "stage") in ("certified", "abstained")
    assert text(page, "status") == ""


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioServer]:
    """The shipped bundle with groups in its manifest."""
    path = tmp_path_factory.mktemp("studio") / "grouped"
    shutil.copytree(SHIPPED["fashion-mnist"].folder, path)
    manifest = json.loads((path / "manifest.json").read_text())
    groups = {"upper body": [0, 2, 3, 4, 6], "footwear": [5, 7, 9]}
    (path / "manifest.json").write_text(json.dumps(manifest | {"groups": groups}))
    with ds.load(path, threads=1) as opened:
        yield from serving(opened)


def in_doubt(page: Page, server: StudioServer, tmp_path: Path, **how: Any) -> None:
    """Open the page, with a pullover that may be a coat."""
    page.open(server.address, **how)
    torn = tmp_path / "torn.png"
    torn.write_bytes(png(ds.sample("fashion-mnist", 19)))
    page.choose_file("#file", torn)
    page.wait("picture.name === 'torn.png'")


def test_a_group_answers_where_the_class_is_in_doubt(chromium: Page, grouped: StudioServer, tmp_path: Path) -> None:
    in_doubt(chromium, grouped, tmp_path)
    tab_to(chromium, "#doubt")
    chromium.press("ArrowDown")
    assert chromium.run("byId('doubt').value") == "groups"
    assert "upper body: T-shirt/top, Pullover" in text(chromium, "doubt-note")
    assert chromium.run("byId('most-field').hidden")
    seed, same = settled(grouped.studio.smoother, 19, groups=True)
    certified(chromium, "fixed:1000", seed=seed)
    assert same.group == "upper body"
    assert chromium.run("run.done.text") == same.to_json()
    assert text(chromium, "verdict") == same.show().text.splitlines()[0] + "."
    assert "counted by groups" in text(chromium, "facts")
    assert "same answer within" in text(chromium, "bars")
    assert "same answer within" in chromium.run("byId('bars').getAttribute('aria-label')")
    sums = chromium.run("[...document.querySelectorAll('tr.group')].map(r => r.cells[0].textContent)")
    assert set(sums) == {"upper body"}
    cells = chromium.run("[...byId('runs-rows').lastElementChild.cells].map(c => c.textContent)")
    assert (cells[1], cells[4]) == ("interval, or a group", "upper body")
    chromium.run(f"byId('distance').value = {same.radius / 4}, byId('distance').dispatchEvent(new Event('input'))")
    chromium.wait("attack.tried.length === 1")
    assert text(chromium, "moved") == "Inside the certified radius: still upper body, as proved."
    assert not chromium.errors


def test_a_set_answers_too_and_groups_are_offered_where_there_are_some(page: Page, smoother: ds.Smoother) -> None:
    page.run("byId('samples').querySelectorAll('input')[3].click()")
    assert page.run("[...byId('doubt').options].map(o => o.value)") == ["abstain", "set"]
    ask(page, "fixed:1000", doubt="set")
    assert page.run("getComputedStyle(byId('most-field')).display !== 'none'")
    page.run("byId('most').value = ''")
    page.click("#certify")
    page.wait("byId('status').classList.contains('bad')")
    assert "at_most is 0; expected 1 to 9" in text(page, "status")
    page.run("byId('most').value = 2")
    seed, _ = settled(smoother, 3, at_most=2)
    certified(page, "fixed:1000", doubt="set", seed=seed)
    assert page.run("run.done.outcome.answer") == [0, 8]
    assert text(page, "status").startswith("Done: T-shirt/top or Bag, R = ")
    assert page.run("byId('runs-rows').lastElementChild.cells[1].textContent") == "interval, or at most 2"
    assert "It shows" not in text(page, "verdict")


def test_a_drawing(page: Page) -> None:
    page.click("#drawing summary")
    page.click("#pad")
    page.wait("picture.name === 'your drawing'")
    pixels = np.array(page.run("[...picture.pixels]")).reshape(28, 28)
    assert pixels[13:15, 13:15].min() > 100
    assert pixels[:8].max() == 0
    certified(page, "fixed:100")
    assert page.run("run.done.picture.name") == "your drawing"


def test_what_is_saved_can_be_verified(page: Page, smoother: ds.Smoother) -> None:
    from PIL import Image

    certified(page, "fixed:200")
    url = page.run("painted(run.done.picture.pixels).toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    certificate = ds.Certificate.from_json(page.run("run.done.text"))
    smoother.replay(certificate, picture)
    assert json.loads(page.run("run.done.text"))["seed"]["fixed"] is False


def test_a_refusal_is_one_line_on_the_page(page: Page) -> None:
    ask(page, "fixed:1")
    page.click("#certify")
    page.wait("byId('status').classList.contains('bad')")
    assert "can never certify anything" in text(page, "status")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_can_be_read_anywhere(chromium: Page, grouped: StudioServer, tmp_path: Path, width: int, dark: bool) -> None:
    in_doubt(chromium, grouped, tmp_path, width=width, dark=dark)
    seed, _ = settled(grouped.studio.smoother, 19, groups=True)
    certified(chromium, "fixed:1000", doubt="groups", seed=seed)
    assert chromium.run("run.done.outcome.name") == "upper body"
    assert chromium.run("document.documentElement.scrollWidth <= innerWidth")
    assert "NaN" not in chromium.run("document.body.innerHTML")
    for ratio, what in chromium.run(CONTRASTS):
        assert ratio >= 4.5, what


CONTRASTS = """(() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
  const light = (colour) => { const [r, g, b] = rgb(colour).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] === 255) return c; } return getComputedStyle(document.body).backgroundColor; };
  const said = [...document.querySelectorAll("main *, header *")].filter((e) => e.offsetParent && !e.disabled && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return said.map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), e.textContent.slice(0, 40)]; });
})()"""  # noqa: E501
