"""Sources that are polled, against real peers: all comes once, whatever ends in the middle."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests

from shared.client import Client
from shared.client.documents import Pull
from tests.data import build
from tests.peers import LOOPBACK, OrthancPeer
from tests.running import API_KEY, RunningAxiom, wait_until
from tests.unit.test_data_browser import Pacs

# The Study Date of tests' Instances lies years back.
LOOKBACK = "30000d"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningAxiom, OrthancPeer]]:
    """A running system, and an Orthanc that knows its listener and lets GETTER get."""
    if not OrthancPeer.is_installed():
        pytest.skip("Orthanc is not installed")
    folder = tmp_path_factory.mktemp("sources")
    with RunningAxiom(folder / "home") as running:
        modalities = {
            "axiom": ["AXIOM", LOOPBACK, running.dimse_port],
            "getter": {"AET": "GETTER", "Host": LOOPBACK, "Port": 104, "AllowGet": True},
        }
        with OrthancPeer(folder / "orthanc", DicomModalities=modalities) as archive:
            yield running, archive


@pytest.fixture
def running(system: tuple[RunningAxiom, OrthancPeer]) -> RunningAxiom:
    """The system, without sources."""
    system[0].configure(sources=[])
    return system[0]


@pytest.fixture
def archive(system: tuple[RunningAxiom, OrthancPeer]) -> OrthancPeer:
    """The Orthanc, empty."""
    system[1].clear()
    return system[1]


def sources_at(archive: OrthancPeer, test: str, **more: Any) -> dict[str, dict[str, Any]]:
    """One of each kind that asks Orthanc, by name; `test` tells them from those of other tests."""
    shared = {"poll_interval": 1, "lookback": LOOKBACK, **more}
    query = {
        "type": "dimse_qr",
        "ae_title": archive.ae_title,
        "host": LOOPBACK,
        "port": archive.port,
        **shared,
    }
    found = (
        {"name": f"{test}-web", "type": "dicomweb", "base_url": archive.dicomweb_url, **shared},
        {"name": f"{test}-mover", **query, "move_destination": "AXIOM"},
        {"name": f"{test}-getter", **query, "calling_ae_title": "GETTER"},
    )
    return {one["name"]: one for one in found}


def put(archive: OrthancPeer, instance: str, series: str, study: str) -> str:
    """Store one more in the archive; its SOP Instance UID."""
    data = build.ct(instance=instance, series=series, study=study)
    requests.post(f"{archive.rest_url}/instances", data=data, timeout=60).raise_for_status()
    return build.uid(instance)


def came(running: RunningAxiom, test: str) -> Counter[tuple[str, str]]:
    """How often each Instance came from the test's sources, by source and UID."""
    return Counter(
        (one["source"]["name"], one["sop_instance_uid"])
        for one in running.get_all("/api/v1/instances")
        if one["source"]["name"].startswith(f"{test}-")
    )


def states(running: RunningAxiom) -> dict[str, Any]:
    answer = running.request("GET", "/api/v1/sources").json()
    return {state["source"]: state for state in answer["items"]}


def poller(running: RunningAxiom) -> int | None:
    """The process that polls, by its last sign of life."""
    try:
        return int(json.loads((running.home / "run" / "polling.json").read_text())["pid"])
    except (FileNotFoundError, ValueError):
        return None


def has_another_poller(running: RunningAxiom, killed: int | None) -> bool:
    return poller(running) not in (None, killed)


def fails(running: RunningAxiom, source: str) -> bool:
    return bool(states(running)[source]["failures"])


def is_finished(running: RunningAxiom, url: str) -> bool:
    return bool(running.request("GET", url).json()["state"] == "finished")


@pytest.mark.peer("orthanc")
def test_each_kind_brings_all_once_and_what_is_late(
    running: RunningAxiom, archive: OrthancPeer
) -> None:
    uids = [put(archive, f"each-{n}", f"series-{n % 2}", "each-study") for n in range(4)]
    sources = sources_at(archive, "each")
    landing = running.home / "incoming" / "scans"
    landing.mkdir(parents=True)
    (landing / "one.dcm").write_bytes(build.ct(instance="landed"))
    folder = {
        "name": "each-scans",
        "type": "folder",
        "path": "scans",
        "poll_interval": 1,
        "settle_s": 0,
    }
    running.configure(sources=[*sources.values(), folder])
    wanted = {(name, uid) for name in sources for uid in uids}
    wanted.add(("each-scans", build.uid("landed")))
    wait_until(lambda: wanted <= set(came(running, "each")), 60, "all of it")

    late = put(archive, "each-late", "series-2", "each-study")
    wanted |= {(name, late) for name in sources}
    wait_until(lambda: wanted <= set(came(running, "each")), 60, "what was late")

    polled = {name: states(running)[name]["poll_ended_at"] for name in sources}
    wait_until(
        lambda: all(states(running)[n]["poll_ended_at"] > polled[n] for n in polled), 60, "a poll"
    )
    assert came(running, "each") == dict.fromkeys(wanted, 1)
    totals = states(running)["each-mover"]["totals"]
    assert totals == {"found": 5, "queued": 5, "processed": 5, "failed": 0}
    types = {
        one["source"]["type"]
        for one in running.get_all("/api/v1/instances")
        if one["source"]["name"].startswith("each-")
    }
    assert types == {"dicomweb", "dimse_qr", "folder"}


@pytest.mark.peer("orthanc")
def test_a_poller_that_is_killed_at_any_moment_loses_nothing(
    running: RunningAxiom, archive: OrthancPeer
) -> None:
    uids = [
        put(archive, f"killed-{n}", f"series-{n % 3}", f"killed-study-{n % 6}") for n in range(24)
    ]
    sources = sources_at(archive, "killed", limits={"max_concurrency": 2})
    del sources["killed-getter"]
    running.configure(sources=list(sources.values()))
    chance = random.Random(8)
    killed = None
    for _ in range(2):
        wait_until(partial(has_another_poller, running, killed), 60, "a poller")
        wait_until(lambda: chance.random() < 0.5, 30, every_s=0.02)
        killed = running.kill_part("polling")
    wanted = {(name, uid) for name in sources for uid in uids}
    wait_until(lambda: wanted <= set(came(running, "killed")), 90, "all of it")
    assert set(came(running, "killed")) == wanted


@pytest.mark.peer("orthanc")
def test_one_source_that_is_dead_leaves_the_others_alone(
    running: RunningAxiom, archive: OrthancPeer
) -> None:
    uid = put(archive, "dead-1", "series", "dead-study")
    sources = sources_at(archive, "dead")
    dead = {**sources["dead-web"], "name": "dead-off", "base_url": "http://127.0.0.1:9/dicom-web"}
    html = {
        **sources["dead-web"],
        "name": "html",
        "base_url": f"{archive.rest_url}/app/explorer.html",
    }
    stranger = {**sources["dead-mover"], "name": "stranger", "move_destination": "NOBODY"}
    running.configure(sources=[dead, html, stranger, sources["dead-web"]])
    wait_until(lambda: ("dead-web", uid) in came(running, "dead"), 60, "the other's")
    for name in ("dead-off", "html", "stranger"):
        wait_until(partial(fails, running, name), 60, name)
    assert "connection" in states(running)["dead-off"]["last_error"]
    assert states(running)["dead-off"]["last_code"] == "source-unavailable"
    polled = running.request("POST", "/api/v1/sources/dead-web/poll")
    assert polled.status_code == 202
    assert (
        running.request("POST", "/api/v1/sources/dead-web/check").json()["answer"] == "QIDO-RS 200"
    )
    away = running.request("POST", "/api/v1/sources/dead-off/check")
    assert (away.status_code, away.json()["code"]) == (200, "source-unavailable")


@pytest.mark.peer("orthanc")
def test_a_list_is_pulled_on_demand_through_each_kind(
    running: RunningAxiom, archive: OrthancPeer
) -> None:
    uids = [put(archive, f"list-{n}", "series", f"list-study-{n}") for n in range(2)]
    # Not polled by itself: no Study is of tomorrow.
    sources = sources_at(archive, "list", query_params={"StudyDate": "20991231"})
    running.configure(sources=list(sources.values()))
    for name in sources:
        asked = {"source": name, "studies": [build.uid("list-study-0"), build.uid("nowhere")]}
        started = running.request("POST", "/api/v1/pulls", json=asked)
        assert started.status_code == 202, started.text
        url = started.headers["Location"]
        wait_until(partial(is_finished, running, url), 60, name)
        rows = running.get_all(f"{url}/rows")
        assert [(row["state"], row["received"]) for row in rows] == [("done", 1), ("unknown", 0)]
    wait_until(lambda: len(came(running, "list")) == 3, 30)
    assert set(came(running, "list")) == {(name, uids[0]) for name in sources}


@pytest.mark.peer("orthanc")
def test_what_the_data_browser_finds_is_pulled(running: RunningAxiom, archive: OrthancPeer) -> None:
    put(archive, "browsed", "series", "browsed-study")
    sources = sources_at(archive, "browse", query_params={"StudyDate": "20991231"})
    running.configure(sources=list(sources.values()))
    with Client(running.url, API_KEY) as api:
        *lines, summary = api.browse(
            {"sources": list(sources), "filters": {"StudyInstanceUID": build.uid("browsed-study")}}
        )
        found = {one["source"]: one["attributes"] for one in lines if one["type"] == "match"}
        assert set(found) == set(sources), (lines, summary)
        studies = [found["browse-web"]["StudyInstanceUID"]]
        pull = api.pull({"source": "browse-web", "studies": studies})
        done = wait_until(partial(finished_pull, api, pull["id"]), 60)
    assert (done["done"], done["instances"]) == (1, 1)


def finished_pull(api: Client, pull_id: str) -> Pull | None:
    found = api.read_pull(pull_id)
    return found if found["state"] == "finished" else None


def test_whoever_hangs_up_has_the_peer_cancel(running: RunningAxiom) -> None:
    pacs = Pacs()
    pacs.find = pacs.hang
    try:
        never = {"dates_on": ["2099-01-01"], "timezone": "UTC"}
        running.configure(sources=[{**pacs.source, "schedule": never}])
        with Client(running.url, API_KEY) as api:
            search = api.browse({"sources": ["pacs"], "timeout_s": 300})
            wait_until(lambda: next(search)["type"] == "match", what="a match")
            assert not pacs.cancelled.is_set()
            search.close()
        assert pacs.cancelled.wait(120)
    finally:
        running.configure(sources=[])
        pacs.close()
