"""Every file of the corpus, from three senders that nobody here wrote, to three destinations.

Run as a program it writes docs/corpus.md; `test_corpus.py` runs it and holds that page to it.
"""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom

from shared.dicom.header import Header
from tests.peers import OrthancPeer, StorescpPeer
from tests.running import ROOT, RunningAxiom, wait_until

SENDERS = ("storescu", "dcmsend", "stow")
# Each sender has a destination of each kind of its own: dcmtk recodes what it sends, and other
# bytes under a known UID are a conflict.
KINDS = ("folder", "storescp", "orthanc")

# How the rules tell the senders apart.
_WHO = {
    "storescu": {"calling_ae": {"starts": "SU"}},
    "dcmsend": {"calling_ae": {"starts": "DS"}},
    "stow": {"source_type": "stow"},
}

# storescu proposes one compressed Transfer Syntax for each of these options.
_STORESCU_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.4.100": "-xm",
    "1.2.840.10008.1.2.4.102": "-xn",
    "1.2.840.10008.1.2.4.107": "-x4",
    "1.2.840.10008.1.2.5": "-xr",
}


@dataclass
class Sent:
    """What one sender made of one file of the corpus."""

    sender: str
    row: int
    offered: bool = False  # the sender could read it and got as far as our answer
    accepted: bool = False
    answer: str = ""
    receipts: list[Mapping[str, Any]] = field(default_factory=list)
    exceptions: list[Mapping[str, Any]] = field(default_factory=list)
    # Other files of the corpus have its SOP Instance UID: which of them comes first is chance.
    is_one_of_several: bool = False

    @property
    def outcome(self) -> str:
        """In a few words for the table."""
        codes = sorted({entry["code"] for entry in self.exceptions})
        if not self.offered:
            return "not sent"
        if not self.accepted:
            return f"refused {self.answer}"
        if self.is_one_of_several:
            return "one of several"
        if codes:
            return ", ".join(codes)
        return "delivered"


def rows_of(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class CorpusRun:
    """Sends everything, waits until all is settled, and looks at what became of it."""

    def __init__(self, corpus: Path, work: Path) -> None:
        self._corpus, self._work = corpus, work
        self.rows = rows_of(corpus)
        self.sent: list[Sent] = []
        self.faults: list[str] = []

    def run(self) -> None:
        with (
            StorescpPeer(self._work / "storescp", "+uf", fork=True, no_delay=True) as storescp,
            OrthancPeer(self._work / "orthanc") as orthanc,
            RunningAxiom(self._work / "home") as axiom,
        ):
            axiom.configure(
                destinations=[
                    {"name": f"{kind}-{sender}", **settings}
                    for sender in SENDERS
                    for kind, settings in _settings_of(storescp, orthanc).items()
                ],
                rulesets=[
                    {
                        "name": "by-sender",
                        "rules": [
                            {
                                "name": sender,
                                "conditions": [_WHO[sender]],
                                "destinations": [f"{kind}-{sender}" for kind in KINDS],
                            }
                            for sender in SENDERS
                        ],
                    }
                ],
                settings={"min_free_bytes": 0},
            )
            for sender in (self._storescu, self._dcmsend, self._stow):
                with ThreadPoolExecutor(4) as pool:
                    self.sent += pool.map(lambda i, s=sender: s(i, axiom), range(len(self.rows)))
            self._settle(axiom)
            self._check_copies(axiom, storescp, orthanc)

    # ---- the senders

    def _file(self, row: int) -> Path:
        return self._corpus / self.rows[row]["file"]

    def _storescu(self, row: int, axiom: RunningAxiom) -> Sent:
        option = _STORESCU_OPTIONS.get(self.rows[row]["transfer_syntax_uid"], "-xe")
        command = ["storescu", "-v", "-R", option, "-aet", f"SU{row:04}"]
        return self._dcmtk("storescu", row, axiom, command)

    def _dcmsend(self, row: int, axiom: RunningAxiom) -> Sent:
        command = ["dcmsend", "-v", "-dn", "-nuc", "-aet", f"DS{row:04}"]
        return self._dcmtk("dcmsend", row, axiom, command)

    def _dcmtk(self, sender: str, row: int, axiom: RunningAxiom, command: Sequence[str]) -> Sent:
        ran = subprocess.run(
            [*command, "127.0.0.1", str(axiom.dimse_port), str(self._file(row))],
            capture_output=True,
            timeout=60,
            check=False,
        )
        said = (ran.stdout + ran.stderr).decode(errors="replace")
        sent = Sent(sender, row)
        answers = re.findall(r"(?i)received (?:c-)?store response \((.*)\)", said)
        if answers:
            sent.offered = True
            sent.accepted = answers[-1].startswith(("Success", "0x0000"))
            sent.answer = f"({answers[-1]})"
        return sent

    def _stow(self, row: int, axiom: RunningAxiom) -> Sent:
        with self._file(row).open("rb") as file:
            answer = axiom.request(
                "POST",
                "/api/v1/dicomweb/studies",
                data=file,
                headers={"Content-Type": "application/dicom"},
            )
        return Sent(
            "stow",
            row,
            offered=True,
            accepted=answer.status_code == 200,
            answer=str(answer.status_code),
            receipts=[{"uid": uid} for uid in _referenced(answer.json())],
        )

    # ---- what became of it

    def _settle(self, axiom: RunningAxiom) -> None:
        accepted = sum(sent.accepted for sent in self.sent)

        def settled() -> bool:
            instances = axiom.get_all("/api/v1/instances")
            done = {
                (d["receipt_id"], d["destination"])
                for state in ("delivered", "failed")
                for d in axiom.get_all("/api/v1/deliveries", state=state)
            }
            stopped = sum(
                entry["stage"] in ("validate_instance", "apply_rules")
                for entry in axiom.get_all("/api/v1/exceptions")
            )
            return len(instances) + stopped >= accepted and all(
                (instance["receipt_id"], name) in done
                for instance in instances
                for name in _destinations_of(instance)
            )

        wait_until(settled, 240.0, "every accepted Instance settled", every_s=3.0)
        by_sender: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for document in [
            *axiom.get_all("/api/v1/exceptions"),
            *axiom.get_all("/api/v1/instances"),
        ]:
            by_sender[document["source"]["calling_ae_title"]].append(document)
        sharing = Counter(
            (_sender_of(document), document["sop_instance_uid"])
            for documents in by_sender.values()
            for document in documents
            if "code" not in document or document["stage"] == "validate_instance"
        )
        stowed: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for taken in by_sender[""]:
            stowed[taken["sop_instance_uid"]].append(taken)
        for sent in self.sent:
            if sent.sender == "stow":
                found = [f for r in sent.receipts for f in stowed[r["uid"]]]
            else:
                found = by_sender[f"{'SU' if sent.sender == 'storescu' else 'DS'}{sent.row:04}"]
            sent.is_one_of_several = any(
                sharing[sent.sender, f["sop_instance_uid"]] > 1 for f in found
            )
            sent.exceptions = [f for f in found if "code" in f]
            sent.receipts = [f for f in found if "code" not in f]
            name = f"{sent.sender} {self.rows[sent.row]['file']}"
            if sent.accepted and not found:
                self.faults.append(f"{name}: acknowledged, and nothing knows of it")
            if sent.offered and not sent.accepted and sent.sender != "stow" and not found:
                self.faults.append(f"{name}: refused without an entry in the exception log")
            self.faults += [
                f"{name}: {entry['code']} without words or hint"
                for entry in sent.exceptions
                if not (entry["hint"] and entry["message"])
            ]

    def _check_copies(
        self, axiom: RunningAxiom, storescp: StorescpPeer, orthanc: OrthancPeer
    ) -> None:
        delivered = {
            (d["receipt_id"], d["destination"])
            for d in axiom.get_all("/api/v1/deliveries", state="delivered")
        }
        failed = {
            (e["receipt_id"], e["destination"])
            for e in axiom.get_all("/api/v1/exceptions")
            if e["stage"] == "deliver_instance"
        }
        at_storescp: dict[str, list[bytes]] = defaultdict(list)
        for path in storescp.files():
            copy = path.read_bytes()
            uid = Header.parse(copy, file_size=len(copy)).text("SOPInstanceUID") or ""
            at_storescp[uid].append(copy)
        bodies_of: dict[str, set[str]] = defaultdict(set)
        received: dict[str, bytes] = {}
        at_scp: dict[tuple[str, str], list[list[bytes]]] = defaultdict(list)
        instances = axiom.get_all("/api/v1/instances")
        for instance in instances:
            data = (axiom.home / "objects" / instance["file"]["object_name"]).read_bytes()
            received[instance["receipt_id"]] = data
            bodies_of[instance["sop_instance_uid"]].add(_body_digest(data))
        for instance in instances:
            receipt_id, uid = instance["receipt_id"], instance["sop_instance_uid"]
            data = received[receipt_id]
            folder, scp, web = _destinations_of(instance)
            for name in (folder, scp, web):
                if (receipt_id, name) not in delivered | failed:
                    self.faults.append(f"{receipt_id}: neither at {name} nor in the exception log")
            if (receipt_id, folder) in delivered:
                copies = [
                    axiom.home / "storage" / "folder" / f"{other['receipt_id']}.dcm"
                    for other in instances
                    if other["sop_instance_uid"] == uid and _destinations_of(other)[0] == folder
                ]
                if not any(path.exists() and _is_same(path.read_bytes(), data) for path in copies):
                    self.faults.append(f"{receipt_id}: the folder has no such copy")
            if (receipt_id, scp) in delivered:
                # The same Instance that came again is there once, as it came one of these times.
                of_one = at_scp[scp, uid]
                alike = next((group for group in of_one if _is_same(group[0], data)), None)
                if alike is None:
                    of_one.append([data])
                else:
                    alike.append(data)
            if (receipt_id, web) in delivered and (
                _body_digest(orthanc.file(uid)) not in bodies_of[uid]
            ):
                self.faults.append(f"{receipt_id}: Orthanc has other Pixel Data")
        for (scp, uid), of_one in at_scp.items():
            for group in of_one:
                # Several Instances under one UID may have the same Pixel Data.
                left = at_storescp[uid]
                there = next((copy for copy in left if _is_same(copy, group[0])), None)
                if there is None:
                    self.faults.append(f"{uid}: {scp} has no such Instance")
                else:
                    left.remove(there)
        for sent in self.sent:
            for receipt in sent.receipts:
                self._check_against_source(sent, received[receipt["receipt_id"]])

    def _check_against_source(self, sent: Sent, data: bytes) -> None:
        """What the sender's file holds is what came; dcmtk may recode between native syntaxes."""
        source = self._file(sent.row).read_bytes()
        if sent.sender == "stow":
            return  # several files share a UID; the folder's copies are compared byte for byte
        ours, theirs = _pixels(data), _pixels(source)
        if (
            ours is not None
            and theirs is not None
            and ours[0] == theirs[0]
            and ours[1] != theirs[1]
        ):
            self.faults.append(
                f"{sent.sender} {self.rows[sent.row]['file']}: other Pixel Data came"
            )


def _settings_of(storescp: StorescpPeer, orthanc: OrthancPeer) -> dict[str, dict[str, Any]]:
    """What a destination of each kind is configured with, but for its name."""
    return {
        "folder": {"type": "filesystem", "path": "folder", "template": "{receipt_id}.dcm"},
        "storescp": {
            "type": "dimse",
            "host": storescp.host,
            "port": storescp.port,
            "ae_title": storescp.ae_title,
        },
        "orthanc": {"type": "dicomweb", "base_url": orthanc.dicomweb_url},
    }


def _sender_of(document: Mapping[str, Any]) -> str:
    prefix = document["source"]["calling_ae_title"][:2]
    return {"SU": "storescu", "DS": "dcmsend"}.get(prefix, "stow")


def _destinations_of(instance: Mapping[str, Any]) -> tuple[str, ...]:
    """Folder, storescp and Orthanc of the Instance's sender."""
    return tuple(f"{kind}-{_sender_of(instance)}" for kind in KINDS)


def _referenced(response: Mapping[str, Any]) -> list[str]:
    return [
        item["00081155"]["Value"][0]
        for keyword in ("00081199", "00081198")
        for item in response.get(keyword, {}).get("Value", [])
        if item.get("00081155", {}).get("Value")
    ]


def _is_same(copy: bytes, data: bytes) -> bool:
    """True if the data sets are equal: File Meta and padding make no other Instance."""
    if _data_set(copy) == _data_set(data):
        return True
    one, other = (pydicom.dcmread(BytesIO(each), force=True) for each in (copy, data))
    for data_set in (one, other):
        data_set.pop(0xFFFCFFFC, None)
    return one == other


def _data_set(part10: bytes) -> bytes:
    """What follows the File Meta. Sent over DIMSE a stream of odd length is padded (PS3.5 A.5)."""
    return part10[Header.parse(part10, file_size=len(part10)).meta_end :].rstrip(b"\0")


def _body_digest(part10: bytes) -> str:
    header = Header.parse(part10, file_size=len(part10))
    if header.is_deflated:
        return hashlib.sha256(_data_set(part10)).hexdigest()
    return hashlib.sha256(part10[header.body_offset :]).hexdigest()


def _pixels(part10: bytes) -> tuple[str, bytes] | None:
    try:
        data_set = pydicom.dcmread(pydicom.filebase.DicomBytesIO(part10), force=True)
        syntax = str(data_set.file_meta.TransferSyntaxUID)
        value = data_set.get("PixelData")
    except Exception:
        return None
    return None if value is None else (syntax, bytes(value).rstrip(b"\0"))


INTRODUCTION = """\
# What became of real files

{count} files from other projects, each sent by dcmtk's `storescu` and `dcmsend` and over STOW-RS,
with a route to a folder, a dcmtk `storescp` and an Orthanc server.
`tests/end_to_end/test_corpus.py` sends them again and holds this page to what happens: whatever was
acknowledged is at each destination with its Pixel Data byte for byte, or in the exception log with
its reason.

`delivered`: at all three. `refused`: the sender got that status, and the exception log says why. A
code alone is the entry of the exception log for an Instance that was taken. `not sent`: the sender
could not read the file, or had no Transfer Syntax to offer for it. `one of several`: other files
of the corpus have its SOP Instance UID in other bytes; the first to come is at the destinations,
the others are conflicts in the exception log."""


def page(run: CorpusRun) -> str:
    """docs/corpus.md."""
    by_row: dict[int, dict[str, Sent]] = defaultdict(dict)
    for sent in run.sent:
        by_row[sent.row][sent.sender] = sent
    tally = Counter((sent.sender, sent.outcome) for sent in run.sent)
    lines = [
        *INTRODUCTION.format(count=len(run.rows)).splitlines(),
        "",
        "| sender | outcome | files |",
        "|---|---|---|",
        *(f"| {sender} | {outcome} | {n} |" for (sender, outcome), n in sorted(tally.items())),
        "",
        "| file | storescu | dcmsend | STOW-RS |",
        "|---|---|---|---|",
    ]
    for row, manifest in enumerate(run.rows):
        outcomes = (by_row[row][sender].outcome for sender in SENDERS)
        lines.append(f"| {manifest['file'].removeprefix('files/')} | {' | '.join(outcomes)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        run = CorpusRun(Path(sys.argv[1]), Path(work))
        run.run()
        print(*run.faults, sep="\n")
        (ROOT / "docs" / "corpus.md").write_text(page(run))
