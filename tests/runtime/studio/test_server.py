"""Who may ask the studio, what it answers, and that nothing is sampled for those who are gone."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.png import png
from dualsmooth.runtime.studio.pictures import Pictures
from dualsmooth.runtime.studio.server import MAX_BODY, MAX_RUNS, TOKEN, WORK, StudioServer
from dualsmooth.runtime.studio.studio import Studio

IMAGE = np.array([[[200, 40]]], np.uint8)
OTHERS = np.array([[[[20, 40]]], [[[60, 250]]], [[[230, 40]]]], np.uint8)
TORN, PLAIN = np.array([[[178, 128]]], np.uint8), np.array([[[140, 128]]], np.uint8)
"""Of three classes, with cuts at .4 and .7: between class 1 and 2, and in the middle of class 1."""
DECIDED = "at-radius:0.05:3000"
"""Selection votes that are torn never promise so much of one class, which they may promise of a radius above 0."""
COARSER = [({"groups": True}, "right"), ({"at_most": 2}, "class 1 or class 2")]
ENDLESS = "fixed:100000000"


def b64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def question(**changes: Any) -> dict[str, Any]:
    return {"pixels": b64(IMAGE), "budget": "fixed:300", **changes}


@pytest.fixture(scope="module")
def smoother(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ds.Smoother]:
    path = toys.two_levels(tmp_path_factory.mktemp("studio") / "bundle")
    with ds.load(path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def studio(smoother: ds.Smoother) -> Studio:
    dataset = Dataset("toy", OTHERS, np.array([0, 0, 1]), smoother.bundle.classes)
    return Studio(smoother, Pictures.of(smoother, dataset))


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioServer]:
    """Of a bundle with the group `right`: the classes 1 and 2."""
    path = toys.write_bundle(
        tmp_path_factory.mktemp("studio") / "grouped",
        sigmas=(0.1, 0.11), sigma_e=0.25, estimator_cuts=[2.0], classifier_cuts=[[0.4, 0.7], [0.4, 0.7]],
    )  # fmt: skip
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"groups": {"right": [1, 2]}}))
    with ds.load(path, threads=1) as opened:
        yield from serving(Studio(opened, Pictures.of(opened, None)))


@pytest.fixture
def server(studio: Studio) -> Iterator[StudioServer]:
    yield from serving(studio)


def serving(studio: Studio) -> Iterator[StudioServer]:
    with StudioServer(studio) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def begun(server: StudioServer, path: str, body: bytes, **headers: str) -> http.client.HTTPConnection:
    """A request that was sent, as the page sends it unless `headers` say otherwise."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    sent = {"Host": server.hosts[0], TOKEN: server.token, "Origin": f"http://{server.hosts[0]}"} | headers
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in sent.items()})
    return connection


def posted(server: StudioServer, path: str, body: Any, **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """Status, and the lines of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = begun(server, path, data, **headers).getresponse()
    return reply.status, [json.loads(line) for line in reply.read().splitlines()]


def got(server: StudioServer, path: str, host: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request("GET", path, headers={"Host": host})
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply.headers


class TestWhoMayAsk:
    def test_the_address_gives_the_page_and_other_names_do_not(self, server: StudioServer) -> None:
        host, page = server.hosts[0], f"/?token={server.token}"
        status, text, headers = got(server, page, host)
        assert status == 200
        assert text.startswith("<!doctype html>")
        assert headers["X-Frame-Options"] == "DENY"
        assert server.token not in text  # a page that is saved gives nobody the token
        assert got(server, page, f"localhost:{server.server_address[1]}")[0] == 200
        assert got(server, page, "evil.example")[0] == 403
        assert got(server, page, f"evil.example:{server.server_address[1]}")[0] == 403
        assert got(server, "/", host)[0] == 403
        assert got(server, "/?token=guessed", host)[0] == 403
        assert got(server, f"/etc/passwd?token={server.token}", host)[0] == 404

    def test_it_listens_on_this_machine_alone(self, server: StudioServer) -> None:
        assert server.server_address[0] == "127.0.0.1"

    @pytest.mark.parametrize("path", WORK)
    def test_every_request_needs_host_origin_and_token(self, server: StudioServer, path: str) -> None:
        body = question()
        evil = "http://evil.example"
        for headers in ({TOKEN: ""}, {TOKEN: "guessed"}, {TOKEN: "\xe9"}, {"Host": "evil.example"}, {"Origin": evil}):
            status, (answer,) = posted(server, path, body, **headers)
            assert status == 403, headers
            assert "\n" not in answer["error"]

    def test_what_is_too_large_or_has_no_length_is_not_read(self, server: StudioServer) -> None:
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
        for length, status in ((str(MAX_BODY + 1), 413), ("9" * 30, 413), ("-1", 411), ("", 411)):
            connection.putrequest("POST", "/certify", skip_host=True)
            for name, value in (("Host", server.hosts[0]), (TOKEN, server.token), ("Content-Length", length)):
                connection.putheader(name, value)
            connection.endheaders()
            reply = connection.getresponse()
            assert reply.status == status, length
            assert "expected" in json.loads(reply.read())["error"]
            connection.close()


class TestBadQuestions:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"pixels": "AA=="}, "pixels has 1 bytes; expected 2"),
            ({"pixels": "?"}, "pixels has 0 bytes; expected 2"),
            ({"pixels": 3}, "pixels has 0 bytes; expected 2"),
            ({"rule": "no-such"}, "expected interval"),
            ({"rule": 3}, "expected a text"),
            ({"alpha": 0.5}, "expected 0 < alpha <= 0.1"),
            ({"alpha": "0.001"}, "expected a number"),
            ({"budget": "fixed:1"}, "can never certify"),
            ({"budget": "much"}, "expected fixed:N"),
            ({"mode": "quick"}, "pass one of them"),
            ({"budget": None, "mode": "decide"}, "without r"),
            ({"seed": "-1"}, "expected an integer"),
            ({"seed": 7}, "expected a text"),
            ({"groups": True}, "which has none"),
            ({"groups": 1}, "groups is '1'; expected true"),
            ({"groups": "many"}, "groups is 'many'"),
            ({"groups": '{"a": [0]}'}, "expected 2 to"),
            ({"at_most": 0}, "at_most is 0; expected 1 to 1"),
            ({"at_most": 2}, "at_most is 2; expected 1 to 1"),
            ({"at_most": "1"}, "at_most is 1"),
            ({"at_most": 1.0}, "at_most is 1.0"),
            ({"more": 1}, "'more' is not known"),
        ],
    )
    def test_each_gets_one_line(self, server: StudioServer, changes: dict[str, Any], words: str) -> None:
        status, (answer,) = posted(server, "/certify", question(**changes))
        assert status == 400
        assert words in answer["error"]
        assert "\n" not in answer["error"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"pixels": NaN}', b'{"a": 1, "a": 2}', b"\xff\xfe"])
    def test_what_is_no_object_is_refused(self, server: StudioServer, body: bytes) -> None:
        for path in ("/certify", "/replay", "/direction", "/move"):
            status, (answer,) = posted(server, path, body)
            assert status == 400
            assert "expected an object" in answer["error"]

    def test_a_file_that_is_no_picture(self, server: StudioServer) -> None:
        status, (answer,) = posted(server, "/picture", b"not a picture")
        assert status == 400
        assert "cannot read upload" in answer["error"]
        status, (answer,) = posted(server, "/picture", png(np.zeros((1, 5, 7), np.uint8)))
        assert status == 400
        assert "7 pixels wide and 5 high; expected 2 wide and 1 high" in answer["error"]

    def test_an_attack_that_goes_nowhere(self, server: StudioServer) -> None:
        text = posted(server, "/certify", question())[1][-1]["text"]
        asked = {"way": "picture", "pixels": b64(IMAGE), "certificate": text, "distance": 1.0}
        for changes, words in (
            ({"way": "up"}, "expected picture or votes"),
            ({"certificate": "{}"}, "not a certificate"),
            ({"certificate": None}, "not JSON"),
            ({"certificate": text.replace('"manifest_sha256": "', '"manifest_sha256": "0')}, "other files than"),
            ({"pixels": b64(OTHERS[0])}, "not the one that the certificate is about"),
            ({"label": 1}, "'label' is not known"),
            ({"distance": 0}, "expected a number above 0"),
        ):
            status, (answer,) = posted(server, "/direction", asked | changes)
            assert (status, words in answer["error"]) == (400, True), answer
        still = {"pixels": b64(IMAGE), "direction": b64(np.zeros(2, "<f4")), "distance": 1.0}
        status, (answer,) = posted(server, "/move", still)
        assert (status, "direction has length 0" in answer["error"]) == (400, True)


class TestCertificates:
    @pytest.mark.parametrize("budget", ["fixed:3000", "adaptive:3000:0.05"])
    @pytest.mark.parametrize("rule", ["interval", "paper", "single:0.5"])
    def test_it_is_that_of_the_library_for_the_same_seed(
        self, server: StudioServer, smoother: ds.Smoother, rule: str, budget: str
    ) -> None:
        status, events = posted(server, "/certify", question(seed="7", rule=rule, budget=budget))
        assert status == 200
        same = smoother.certify(IMAGE, seed=7, rule=rule, budget=ds.parse_budget(budget))
        assert events[-1]["text"] == same.to_json()
        assert events[-1]["words"] == same.show().text.splitlines()[0]

    def test_the_votes_come_before_it_and_are_all_counted(
        self, server: StudioServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dualsmooth.runtime.studio.studio.PAUSE", 0.0)
        _, events = posted(server, "/certify", question(budget="fixed:20000"))
        kinds = [event["event"] for event in events]
        assert (kinds[0], kinds[-1]) == ("begun", "certificate")
        votes = [event for event in events if event["event"] == "votes"]
        passes = [event["passes"] for event in votes]
        assert passes == sorted(passes)
        assert len(set(passes)) > 2
        assert passes[-1] == events[-1]["passes"]
        assert all(sum(n for _, n in net["votes"]) == net["passes"] for event in votes for net in event["networks"])

    def test_with_a_fixed_budget_the_last_view_is_the_outcome(self, server: StudioServer) -> None:
        _, events = posted(server, "/certify", question(budget="fixed:3000"))
        assert events[-2]["so_far"] == events[-1]["outcome"]

    def test_the_copies_are_the_first_that_are_counted(
        self, server: StudioServer, smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, batches = smoother.engine.logits, list[np.ndarray]()

        def heard(name: str, batch: np.ndarray, sigma: float, width: int) -> Any:
            batches.append(batch.copy())
            return real(name, batch, sigma, width)

        monkeypatch.setattr(smoother.engine, "logits", heard)
        _, events = posted(server, "/certify", question())
        shown, drawn = batches[:3], np.concatenate(batches[3:])
        asked = {net["name"] for net in events[-2]["networks"] if net["purpose"] == "estimation"}
        assert "estimator" in asked
        for network, copies in zip(events[0]["shown"], shown, strict=True):
            starts = np.flatnonzero((drawn == copies[0]).all((1, 2, 3)))
            assert len(starts) == (network["name"] in asked)
            assert all(np.array_equal(drawn[at : at + 4], copies) for at in starts)

    def test_each_copy_is_shown_with_its_vote(self, server: StudioServer) -> None:
        """A network of the toy votes by one pixel."""
        _, events = posted(server, "/certify", question())
        for shown in events[0]["shown"]:
            assert len(shown["copies"]) == len(shown["votes"]) == 4
            seen = np.array([np.frombuffer(base64.b64decode(copy), np.uint8) for copy in shown["copies"]])
            axis, cut = (1, 0.5) if shown["name"] == "estimator" else (0, (0.3, 0.4)[int(shown["name"])])
            assert [int(value >= 255 * cut) for value in seen[:, axis]] == shown["votes"]

    def test_two_at_once(self, server: StudioServer, smoother: ds.Smoother) -> None:
        found: dict[int, str] = {}

        def ask(seed: int) -> None:
            found[seed] = posted(server, "/certify", question(seed=str(seed), budget="fixed:5000"))[1][-1]["text"]

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed, text in found.items():
            assert text == smoother.certify(IMAGE, seed=seed, budget=ds.Fixed(5000)).to_json()

    def test_a_decision(self, server: StudioServer) -> None:
        _, events = posted(server, "/certify", question(budget=None, mode="decide", r=0.1))
        assert events[-1]["decided"] == [[0.1, True]]

    def test_the_cascade_has_votes_and_no_view_so_far(self, server: StudioServer) -> None:
        _, events = posted(server, "/certify", question(rule="multiscale"))
        assert {event["so_far"] for event in events if event["event"] == "votes"} == {None}
        assert events[-1]["outcome"]["answer"] == [1]

    def test_a_file_is_read_as_certify_reads_it(self, server: StudioServer) -> None:
        status, (answer,) = posted(server, "/picture", png(IMAGE))
        assert (status, answer) == (200, {"pixels": b64(IMAGE)})


class TestCoarserAnswers:
    @pytest.mark.parametrize(("asked", "name"), COARSER)
    @pytest.mark.parametrize("budget", ["fixed:3000", DECIDED])
    @pytest.mark.parametrize("pixels", [TORN, PLAIN])
    def test_it_is_that_of_the_library_for_the_same_seed(
        self, grouped: StudioServer, asked: dict[str, Any], name: str, budget: str, pixels: np.ndarray
    ) -> None:
        _, events = posted(grouped, "/certify", question(pixels=b64(pixels), seed="7", budget=budget, **asked))
        same = grouped.studio.smoother.certify(pixels, seed=7, budget=ds.parse_budget(budget), **asked)
        outcome = events[-1]["outcome"]
        assert events[-1]["text"] == same.to_json()
        if budget == DECIDED:
            assert outcome["answer"] == list(same.answer) == ([1, 2] if pixels is TORN else [1])
            assert outcome["name"] == (name if pixels is TORN else "class 1")
        else:
            assert events[-2]["so_far"] == outcome
        _, (answer,) = posted(grouped, "/replay", {"certificate": same.to_json(), "pixels": b64(pixels)})
        assert answer["same"]

    def test_the_votes_for_a_group_are_told_with_those_for_its_classes(self, grouped: StudioServer) -> None:
        _, events = posted(grouped, "/certify", question(pixels=b64(TORN), groups=True, budget=DECIDED))
        told = {network["name"]: network for network in events[-2]["networks"]}
        assert "group" not in told["estimator"]
        assert told["0"]["group"] == ["right", sum(n for c, n in told["0"]["votes"] if c in (1, 2))]

    def test_the_cascade_takes_none(self, grouped: StudioServer) -> None:
        status, (answer,) = posted(grouped, "/certify", question(rule="multiscale", groups=True))
        assert (status, "takes neither groups nor at_most" in answer["error"]) == (400, True)


class TestChecksElsewhere:
    @pytest.mark.parametrize(("asked", "name"), COARSER)
    def test_a_label_that_changes_inside_the_answer_is_no_other_answer(
        self, grouped: StudioServer, asked: dict[str, Any], name: str
    ) -> None:
        """Votes that may choose the question ask for the class there, and answer class 1."""
        found, there = (certified(grouped, pixels, **asked) for pixels in (TORN, PLAIN))
        assert (found.answer, there.answer) == ((1, 2), (1,))
        answer = moved(grouped, found, TORN, -0.1493)
        assert np.array_equal(np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8), PLAIN.ravel())
        assert (answer["same"], answer["said"]) == (True, name)

    @pytest.mark.parametrize(
        ("asked", "said"), [({"groups": True}, "class 0"), ({"at_most": 2}, "a label outside the set")]
    )
    def test_an_answer_outside_is_another_one(self, grouped: StudioServer, asked: dict[str, Any], said: str) -> None:
        answer = moved(grouped, certified(grouped, TORN, **asked), TORN, -0.6)
        assert (answer["same"], answer["said"]) == (False, said)

    @pytest.mark.parametrize(("asked", "name"), COARSER)
    def test_no_group_is_asked_for_where_a_label_was_certified(
        self, grouped: StudioServer, asked: dict[str, Any], name: str
    ) -> None:
        """Between two classes a group could answer, which would say nothing of the label."""
        answer = moved(grouped, certified(grouped, PLAIN, **asked), PLAIN, 0.15)
        assert (answer["same"], answer["said"]) == (False, None)

    @pytest.mark.parametrize(
        "rule", ["interval", "paper", "multiscale", "confidence:0.5", "fallback:0.5", "single:0.5"]
    )
    def test_every_rule_is_asked_again(self, server: StudioServer, smoother: ds.Smoother, rule: str) -> None:
        found = smoother.certify(IMAGE, budget=ds.Fixed(3_000), rule=rule)
        answer = moved(server, found, IMAGE, 0.05)
        assert (answer["same"], answer["said"]) == (True, "class 1")
        assert answer["passes"] < 5_000

    def test_an_abstention_is_never_the_same_answer(self, grouped: StudioServer) -> None:
        found = certified(grouped, TORN)
        assert found.abstained
        assert not moved(grouped, found, TORN, -0.004)["same"]
        assert moved(grouped, found, TORN, -0.149) | {"pixels": "", "distance": 0, "passes": 0} == {
            "pixels": "", "distance": 0, "passes": 0, "same": False, "said": "class 1",
        }  # fmt: skip

    def test_the_direction_leads_out_of_the_group(self, grouped: StudioServer) -> None:
        """By votes: to the left, where class 0 is; for the label alone it would be either side."""
        sent = {"certificate": certified(grouped, TORN, groups=True).to_json(), "pixels": b64(TORN)}
        _, (answer,) = posted(grouped, "/direction", sent | {"way": "votes", "distance": 0.3})
        assert np.frombuffer(base64.b64decode(answer["direction"]), "<f4")[0] < -0.9


def certified(server: StudioServer, pixels: np.ndarray, **asked: Any) -> ds.Certificate:
    return server.studio.smoother.certify(pixels, budget=ds.parse_budget(DECIDED), **asked)


def moved(server: StudioServer, certificate: ds.Certificate, pixels: np.ndarray, by: float) -> dict[str, Any]:
    """What is said `by` to the right, or to the left."""
    sent = {"certificate": certificate.to_json(), "pixels": b64(pixels), "distance": abs(by)}
    status, (answer,) = posted(server, "/move", sent | {"direction": b64(np.array([np.sign(by), 0], "<f4"))})
    assert status == 200, answer
    return answer


class TestReplay:
    def test_it_says_whether_the_votes_are_the_same(self, server: StudioServer) -> None:
        text = posted(server, "/certify", question())[1][-1]["text"]
        _, (answer,) = posted(server, "/replay", {"certificate": text, "pixels": b64(IMAGE)})
        assert (answer["same"], answer["passes"]) == (True, json.loads(text)["passes"])
        forged = json.loads(text)
        forged["seed"]["entropy"] = f"{int(forged['seed']['entropy'], 16) ^ 1:032x}"
        for other, pixels, words in (
            (json.dumps(forged), IMAGE, "other votes"),
            (text.replace('"radius": 0.', '"radius": 1.', 1), IMAGE, "the votes give"),
            (text, OTHERS[0], "not the one"),
            ("{}", IMAGE, "not a certificate"),
        ):
            _, (answer,) = posted(server, "/replay", {"certificate": other, "pixels": b64(pixels)})
            assert (answer["same"], words in answer["line"]) == (False, True), answer


class TestThoseWhoAreGone:
    def test_sampling_stops_for_them_and_makes_room(self, server: StudioServer) -> None:
        body = json.dumps(question(budget=ENDLESS)).encode()
        clients = [begun(server, "/certify", body) for _ in range(MAX_RUNS)]
        replies = [client.getresponse() for client in clients]
        for reply in replies:
            assert json.loads(reply.readline())["event"] == "begun"
        status, (answer,) = posted(server, "/certify", question())
        assert (status, "sampled already" in answer["error"]) == (503, True)
        for client, reply in zip(clients, replies, strict=True):
            reply.close()
            client.close()
        deadline = time.monotonic() + 60
        while (status := posted(server, "/certify", question())[0]) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_the_end_stops_sampling_and_says_so(self, studio: Studio) -> None:
        server = StudioServer(studio)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        reply = begun(server, "/certify", json.dumps(question(budget=ENDLESS)).encode()).getresponse()
        assert json.loads(reply.readline())["event"] == "begun"
        server.shutdown()
        server.server_close()
        thread.join()
        last = json.loads(reply.read().splitlines()[-1])
        assert last == {"event": "error", "error": "the studio was closed; no certificate is issued"}

    def test_a_network_that_fails_ends_the_answer_with_a_line(
        self, server: StudioServer, smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, calls = smoother.engine.votes, iter(range(100))

        def broken(*args: Any) -> Any:
            if next(calls) > 3:  # after the copies that are shown
                raise ds.EngineError("broken on purpose")
            return real(*args)

        monkeypatch.setattr(smoother.engine, "votes", broken)
        with suppress(http.client.IncompleteRead):
            _, events = posted(server, "/certify", question())
        assert events[-1] == {"event": "error", "error": "broken on purpose"}


def test_a_port_that_is_taken_is_named(server: StudioServer, studio: Studio) -> None:
    port = server.server_address[1]
    with pytest.raises(ds.InputError, match=rf"port {port} of 127\.0\.0\.1 cannot be had .*--port"):
        StudioServer(studio, port)
    with pytest.raises(ds.InputError, match=r"expected 0 .* to 65535"):
        StudioServer(studio, 70_000)
