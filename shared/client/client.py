"""Requests to the API. Each method is one route, or the pages of one, its answer typed."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast
from urllib.parse import quote, urlsplit

import requests

from shared.client.documents import (
    ApiKey,
    BrowseLine,
    Checked,
    CrosswalkStatus,
    Delivery,
    DestinationState,
    ExceptionEntry,
    FollowedInstance,
    Health,
    Instance,
    InstanceDetail,
    Job,
    MissingSecret,
    NewKey,
    Page,
    Pull,
    PullRow,
    Reconciliation,
    Review,
    SourceState,
    Study,
    StudyRule,
    StudyRules,
    Tagged,
    Version,
)
from shared.client.problems import ApiError, ApiUnreachableError

_API: Final = "/api/v1"
_PAGE: Final = 500
_PAGE_FOLLOWED: Final = 100
_UNAVAILABLE: Final = 503
_NO_CONTENT: Final = 204

T = TypeVar("T")
Document = Mapping[str, Any]


class Client:
    """The API at `url`, as whoever `key` belongs to: an API key, or a session or ID token.

    Every method raises ApiError where the API refuses, ApiUnreachableError where it does not
    answer. Used by one thread; a context manager.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        identity_token: str = "",
        timeout_s: float = 60.0,
        ca_file: str | None = None,
    ) -> None:
        """`identity_token` is for what stands before the API at Google, Cloud Run or Identity-Aware
        Proxy, and lets only those in that it knows. `ca_file` has the certificates that a server's
        is checked against, in place of the usual ones. Raises: ValueError for what is no http or
        https URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("the URL is not one such as https://axiom.example")
        self.url = url.rstrip("/").removesuffix(_API)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "axiom-client"
        self._session.auth = _Bearer(key, identity_token)
        if ca_file:
            self._session.verify = ca_file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release connections."""
        self._session.close()

    # ---- any route

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Document | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The document that a route answers; None if it answers without one."""
        return self._answer(method, path, body, query, headers).document

    def page(self, path: str, query: Document | None = None) -> Page[Any]:
        """One page of a list."""
        found = self.request("GET", path, query=query)
        return Page(found["items"], found["next_cursor"])

    def pages(self, path: str, query: Document | None = None) -> Iterator[Any]:
        """All of a list, page after page, as it is read."""
        cursor: str | None = None
        while True:
            page = self.page(path, {"limit": _PAGE, **(query or {}), "cursor": cursor})
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    # ---- configuration

    def configuration(self) -> dict[str, Any]:
        """The whole of it."""
        return cast("dict[str, Any]", self.request("GET", "/config"))

    def apply(self, document: Document, *, reason: str = "", dry_run: bool = False) -> Document:
        """Replace the parts that the document has; the whole configuration then."""
        return cast(Document, self._change("PUT", "/config", document, reason, dry_run=dry_run))

    def entities(self, collection: str) -> Iterator[Document]:
        """All of a collection, such as `destinations`."""
        return self.pages(f"/config/{collection}")

    def entity(self, collection: str, name: str) -> Tagged:
        """One entity."""
        found = self._answer("GET", f"/config/{collection}/{_quoted(name)}")
        return Tagged(found.document, found.etag)

    def create(
        self, collection: str, document: Document, *, reason: str = "", dry_run: bool = False
    ) -> Document:
        """Add an entity."""
        path = f"/config/{collection}"
        return cast(Document, self._change("POST", path, document, reason, dry_run=dry_run))

    def replace(
        self,
        collection: str,
        name: str,
        document: Document,
        *,
        reason: str = "",
        etag: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Replace an entity; with `etag`, unless somebody else was first."""
        path = f"/config/{collection}/{_quoted(name)}"
        found = self._change("PUT", path, document, reason, etag=etag, dry_run=dry_run)
        return cast(Document, found)

    def patch(
        self, collection: str, name: str, patch: Document, *, reason: str = "", etag: str = ""
    ) -> Document:
        """Change an entity by a JSON Merge Patch (RFC 7396)."""
        path = f"/config/{collection}/{_quoted(name)}"
        return cast(Document, self._change("PATCH", path, patch, reason, etag=etag))

    def delete(self, collection: str, name: str, *, reason: str = "", etag: str = "") -> None:
        """Remove an entity that nothing uses."""
        path = f"/config/{collection}/{_quoted(name)}"
        self._change("DELETE", path, None, reason, etag=etag)

    def missing_secrets(self) -> Iterator[MissingSecret]:
        """Secrets that the configuration names and the secret store does not have."""
        return self.pages("/config/missing-secrets")

    def versions(self, *, limit: int = 100, cursor: str | None = None) -> Page[Version]:
        """Versions of the configuration, the newest first."""
        return self.page("/config/versions", {"limit": limit, "cursor": cursor})

    def version_diff(self, version: int, before: int) -> Document:
        """What differs from `before` to `version`."""
        path = f"/config/versions/{version}/diff"
        return cast(Document, self.request("GET", path, query={"to": before}))

    def roll_back(
        self, version: int, *, ruleset: str = "", reason: str = "", dry_run: bool = False
    ) -> Version:
        """Make a version current again, or one ruleset as it was in it."""
        path = f"/config/versions/{version}/roll-back"
        body = {"ruleset": ruleset} if ruleset else {}
        return cast(Version, self._change("POST", path, body, reason, dry_run=dry_run))

    # ---- rules

    def validate_ruleset(self, ruleset: Document) -> None:
        """Check a ruleset as if it were stored."""
        self.request("POST", "/config/rulesets/validate", ruleset)

    def dry_run(self, wanted: Document) -> Document:
        """What a candidate would decide: `ruleset`, and one of `dump`, `dicom` and `last`."""
        return cast(Document, self.request("POST", "/config/rulesets/dry-run", wanted))

    def explain(self, receipt_id: str, rules: str = "decided") -> Document:
        """Why each rule matched an Instance or not."""
        path = f"/instances/{_quoted(receipt_id)}/explain"
        return cast(Document, self.request("GET", path, query={"rules": rules}))

    # ---- what came, and where it went

    def instances(
        self, *, limit: int = 100, cursor: str | None = None, **where: str
    ) -> Page[Instance]:
        """Instances, the newest first; `where` as the route's query parameters."""
        return self.page("/instances", {**where, "limit": limit, "cursor": cursor})

    def instance(self, receipt_id: str) -> InstanceDetail:
        """One Instance."""
        path = f"/instances/{_quoted(receipt_id)}"
        return cast(InstanceDetail, self.request("GET", path))

    def deliveries(
        self, *, limit: int = 100, cursor: str | None = None, **where: str
    ) -> Page[Delivery]:
        """Deliveries, the last tried first."""
        return self.page("/deliveries", {**where, "limit": limit, "cursor": cursor})

    def exceptions(
        self, *, limit: int = 100, cursor: str | None = None, **where: str
    ) -> Page[ExceptionEntry]:
        """Entries of the exception log, the newest first."""
        return self.page("/exceptions", {**where, "limit": limit, "cursor": cursor})

    def exception(self, exception_id: str) -> ExceptionEntry:
        """One entry."""
        path = f"/exceptions/{_quoted(exception_id)}"
        return cast(ExceptionEntry, self.request("GET", path))

    def act(self, kind: str, id: str, action: str, body: Document | None = None) -> Document:
        """Do something to one of `instances` or `exceptions`."""
        path = f"/{kind}/{_quoted(id)}/{action}"
        return cast(Document, self.request("POST", path, body or {}))

    def count(self, kind: str, action: str, filter: Mapping[str, str], **more: Any) -> int:
        """How many an action would mean that is done to all that fit."""
        body = {"action": action, "filter": dict(filter), "dry_run": True, **more}
        return int(self.request("POST", f"/{kind}/bulk", body)["count"])

    def act_on_all(self, kind: str, action: str, filter: Mapping[str, str], **more: Any) -> Job:
        """Begin to do something to all that fit; a job that `job` tells of."""
        body = {"action": action, "filter": dict(filter), **more}
        return cast(Job, self.request("POST", f"/{kind}/bulk", body))

    def job(self, job_id: str) -> Job:
        """How far a job is."""
        return cast(Job, self.request("GET", f"/jobs/{_quoted(job_id)}"))

    def jobs(self) -> Iterator[Job]:
        """All jobs, the newest first."""
        return self.pages("/jobs")

    def studies(
        self, *, limit: int = 100, cursor: str | None = None, **where: str
    ) -> Page[StudyRule]:
        """What study and series rules wait for, or have decided about."""
        return self.page("/studies", {**where, "limit": limit, "cursor": cursor})

    def study(self, study_instance_uid: str) -> Study:
        """How much came of a Study, and how far each rule is with it."""
        return cast(Study, self.request("GET", f"/studies/{_quoted(study_instance_uid)}"))

    def study_instances(self, study_instance_uid: str) -> Iterator[FollowedInstance]:
        """What came of a Study, in the order in which it came, and what happened to each."""
        path = f"/studies/{_quoted(study_instance_uid)}/instances"
        return self.pages(path, {"limit": _PAGE_FOLLOWED})

    def complete_study(self, study_instance_uid: str, rule: str = "") -> StudyRules:
        """Have a Study count as complete."""
        path = f"/studies/{_quoted(study_instance_uid)}/complete"
        return cast(StudyRules, self.request("POST", path, {"rule": rule}))

    # ---- peers

    def destinations(self) -> Iterator[DestinationState]:
        """How all destinations are."""
        return self.pages("/destinations")

    def destination(self, name: str) -> DestinationState:
        """How one is."""
        path = f"/destinations/{_quoted(name)}/state"
        return cast(DestinationState, self.request("GET", path))

    def check_destination(self, name: str) -> Checked:
        """Ask one whether it is there."""
        return cast(Checked, self.request("POST", f"/destinations/{_quoted(name)}/check"))

    def sources(self) -> Iterator[SourceState]:
        """How all sources are."""
        return self.pages("/sources")

    def source(self, name: str) -> SourceState:
        """How one is."""
        return cast(SourceState, self.request("GET", f"/sources/{_quoted(name)}/state"))

    def poll_source(self, name: str) -> SourceState:
        """Have one polled within a second or two."""
        return cast(SourceState, self.request("POST", f"/sources/{_quoted(name)}/poll"))

    def check_source(self, name: str) -> Checked:
        """Ask one whether it is there."""
        return cast(Checked, self.request("POST", f"/sources/{_quoted(name)}/check"))

    def pull(self, wanted: Document) -> Pull:
        """Begin to fetch from a source: `source`, and `studies`, `accessions` or `csv`."""
        return cast(Pull, self.request("POST", "/pulls", wanted))

    def read_pull(self, pull_id: str) -> Pull:
        """How far a pull is."""
        return cast(Pull, self.request("GET", f"/pulls/{_quoted(pull_id)}"))

    def pull_rows(self, pull_id: str) -> Iterator[PullRow]:
        """What became of each row."""
        return self.pages(f"/pulls/{_quoted(pull_id)}/rows")

    def pause_pull(self, pull_id: str) -> Pull:
        """Stop a pull after the rows at hand."""
        return cast(Pull, self.request("POST", f"/pulls/{_quoted(pull_id)}/pause"))

    def resume_pull(self, pull_id: str) -> Pull:
        """Go on with a pull."""
        return cast(Pull, self.request("POST", f"/pulls/{_quoted(pull_id)}/resume"))

    def browse(self, wanted: Document) -> Generator[BrowseLine, None, None]:
        """Search sources and stores, as the data browser does; an iterator that is closed has the
        search end.
        """
        headers = {"Accept": "application/x-ndjson"}
        with (
            self._sent("POST", "/data-browser/query", wanted, None, headers) as response,
            _told(self.url),
        ):
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def reconcile(self, wanted: Document) -> Reconciliation:
        """Begin to compare what came with what a destination holds."""
        return cast(Reconciliation, self.request("POST", "/reconciliations", wanted))

    def reconciliation(self, reconciliation_id: str) -> Reconciliation:
        """How far a comparison is."""
        path = f"/reconciliations/{_quoted(reconciliation_id)}"
        return cast(Reconciliation, self.request("GET", path))

    # ---- crosswalks, standard terms

    def lookup(self, map_name: str, keys: Mapping[str, str]) -> Document:
        """Look up one row, as a rule would: `found` and `outputs`."""
        path = f"/config/crosswalk-maps/{_quoted(map_name)}/lookup"
        return cast(Document, self.request("POST", path, {"keys": dict(keys)}))

    def sync_crosswalk(self, map_name: str) -> CrosswalkStatus:
        """Copy the table of a map now."""
        path = f"/config/crosswalk-maps/{_quoted(map_name)}/sync"
        return cast(CrosswalkStatus, self.request("POST", path))

    def crosswalk(self, map_name: str) -> CrosswalkStatus:
        """How a map does."""
        path = f"/config/crosswalk-maps/{_quoted(map_name)}/status"
        return cast(CrosswalkStatus, self.request("GET", path))

    def reviews(self, *, limit: int = 100, cursor: str | None = None, **where: str) -> Page[Review]:
        """Decisions about Series, the newest first."""
        return self.page("/standardize/reviews", {**where, "limit": limit, "cursor": cursor})

    def review(self, key: str) -> Review:
        """One decision, with its evidence."""
        return cast(Review, self.request("GET", f"/standardize/reviews/{_quoted(key)}"))

    def settle_review(self, key: str, action: str, body: Document | None = None) -> Document:
        """approve, correct, reject, revert or ask-again: `decision`, `again` and `gone`."""
        path = f"/standardize/reviews/{_quoted(key)}/{action}"
        return cast(Document, self.request("POST", path, body or {}))

    def synonyms(self) -> Iterator[Document]:
        """What people of the site said once and for all."""
        return self.pages("/standardize/synonyms")

    def forget_synonym(self, key: str) -> None:
        """Have a synonym count no more."""
        self.request("DELETE", f"/standardize/synonyms/{_quoted(key)}")

    def standardize_report(self) -> Document:
        """What each provider decided, and what people made of it."""
        return cast(Document, self.request("GET", "/standardize/report"))

    # ---- people, health

    def me(self) -> Document:
        """Who asks, and what they may."""
        return cast(Document, self.request("GET", "/me"))

    def users(self) -> Iterator[Document]:
        """All users."""
        return self.pages("/users")

    def create_user(self, name: str, roles: Sequence[str]) -> Document:
        """Add a user."""
        return cast(Document, self.request("POST", "/users", {"name": name, "roles": list(roles)}))

    def keys(self, user: str = "") -> Iterator[ApiKey]:
        """The keys of a user; one's own by default."""
        return self.pages(_keys_of(user))

    def create_key(self, scope: Document, user: str = "") -> NewKey:
        """Make a key: `label`, `roles`, `addresses`, `expires_at`."""
        return cast(NewKey, self.request("POST", _keys_of(user), scope))

    def rotate_key(self, key_id: str, user: str = "", *, overlap_s: float = 0) -> NewKey:
        """Make a key that is good for the same as another, which ends."""
        path = f"{_keys_of(user)}/{_quoted(key_id)}/rotate"
        return cast(NewKey, self.request("POST", path, {"overlap_s": overlap_s}))

    def revoke_key(self, key_id: str, user: str = "") -> None:
        """Have a key refused from now on."""
        self.request("DELETE", f"{_keys_of(user)}/{_quoted(key_id)}")

    def health(self) -> Health:
        """What the parts say of themselves, also where one of them does not work."""
        answer = self._answer("GET", "/health", also=_UNAVAILABLE, prefix="")
        return cast(Health, answer.document)

    def dicom_processing(self) -> Health:
        """Whether Instances come in, are worked on and go out; `queue` is why senders are turned
        away.
        """
        path = "/health/dicom-processing"
        answer = self._answer("GET", path, also=_UNAVAILABLE, prefix="")
        return cast(Health, answer.document)

    # ---- inside

    def _change(
        self,
        method: str,
        path: str,
        body: object,
        reason: str,
        *,
        etag: str = "",
        dry_run: bool = False,
    ) -> Any:
        headers = {"Change-Reason": reason.encode().decode("latin-1")} if reason else {}
        if etag:
            headers["If-Match"] = etag
        query = {"dry_run": "true"} if dry_run else None
        return self.request(method, path, body, query=query, headers=headers)

    def _answer(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Document | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        also: int = 0,
        prefix: str = _API,
    ) -> _Answer:
        with self._sent(method, path, body, query, headers, also=also, prefix=prefix) as response:
            if response.status_code == _NO_CONTENT:
                return _Answer(None, "")
            with _told(self.url):
                document = _document_of(response)
            if document is None:
                raise ApiError.of(response.status_code, None)
            return _Answer(document, response.headers.get("ETag", ""))

    @contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        body: object,
        query: Document | None,
        headers: Mapping[str, str] | None,
        *,
        also: int = 0,
        prefix: str = _API,
    ) -> Iterator[requests.Response]:
        """A response that is a success, or has the status `also`."""
        given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        with _told(self.url):
            response = self._session.request(
                method,
                f"{self.url}{prefix}{path}",
                params=given,
                data=content,
                headers={
                    "Accept": "application/json",
                    **({"Content-Type": kind} if content is not None else {}),
                    **(headers or {}),
                },
                timeout=self._timeout_s,
                # Elsewhere nobody shall see the key.
                allow_redirects=False,
                stream=True,
            )
        try:
            if response.status_code // 100 != 2 and response.status_code != also:
                with _told(self.url):
                    document = _document_of(response)
                wait = response.headers.get("Retry-After", "")
                raise ApiError.of(response.status_code, document, wait)
            yield response
        finally:
            response.close()


class _Answer:
    def __init__(self, document: Any, etag: str) -> None:
        self.document, self.etag = document, etag


class _Bearer(requests.auth.AuthBase):
    """Sets the key, and keeps requests from looking for another in .netrc."""

    def __init__(self, key: str, identity_token: str) -> None:
        self._headers = {
            name: f"Bearer {token}"
            for name, token in (
                ("Authorization", key),
                # Cloud Run and Identity-Aware Proxy look here, and leave Authorization as it is.
                ("X-Serverless-Authorization", identity_token),
                ("Proxy-Authorization", identity_token),
            )
            if token
        }

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong on the way to `url`, in words without the request's query or the key."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise ApiUnreachableError(f"{url}: the server's certificate is not taken") from error
    except requests.exceptions.Timeout as error:
        raise ApiUnreachableError(f"{url}: no answer in time") from error
    except requests.exceptions.ConnectionError as error:
        raise ApiUnreachableError(f"{url}: no connection, or one that broke off") from error
    except requests.exceptions.RequestException as error:
        raise ApiUnreachableError(f"{url}: {type(error).__name__}") from error


def _document_of(response: requests.Response) -> Any:
    """The JSON that a response is; None for anything else, somebody's login page for one."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind != "application/json" and not kind.endswith("+json"):
        return None
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _keys_of(user: str) -> str:
    return f"/users/{_quoted(user)}/keys" if user else "/me/keys"
