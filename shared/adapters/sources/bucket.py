"""A landing bucket of Cloud Storage, listed: what notifications told of, and what they missed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import IO, Any, cast

from shared.adapters.sources.files import File
from shared.errors import SourceMisconfiguredError, SourceUnavailableError

_CHUNK_BYTES = 8 << 20


class Bucket:
    """Files, of a bucket's objects."""

    def __init__(
        self,
        name: str,
        bucket: str,
        prefix: str,
        *,
        settle_s: float,
        now: Callable[[], datetime],
        is_taken: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`is_taken` knows those that a notification told of, as `gs://BUCKET/NAME#GENERATION`."""
        self._name, self._bucket, self._prefix = name, bucket, prefix
        self._settle_s, self._now, self._is_taken = settle_s, now, is_taken
        self._client: Any = None

    def list(self) -> Iterator[File]:
        """As Files, in the order of their names."""
        oldest = self._now() - timedelta(seconds=self._settle_s)
        with self._errors():
            for blob in self._storage().list_blobs(self._bucket, prefix=self._prefix):
                if blob.name.endswith("/") or (blob.updated and blob.updated > oldest):
                    continue
                generation = str(blob.generation)
                if self._is_taken(f"gs://{self._bucket}/{blob.name}#{generation}"):
                    continue
                group = blob.name.rpartition("/")[0]
                yield File(blob.name, group, int(blob.size or 0), generation)

    def open(self, file: File) -> IO[bytes] | None:
        """As Files."""
        from google.api_core import exceptions as google_errors

        with self._errors():
            blob = (
                self._storage().bucket(self._bucket).blob(file.name, generation=int(file.version))
            )
            try:
                blob.reload()
            except google_errors.NotFound:
                return None
            return cast("IO[bytes]", blob.open("rb", chunk_size=_CHUNK_BYTES, raw_download=True))

    def delete(self, file: File) -> None:
        """As Files."""
        from google.api_core import exceptions as google_errors

        with self._errors():
            blob = self._storage().bucket(self._bucket).blob(file.name)
            try:
                blob.delete(if_generation_match=int(file.version))
            except (google_errors.NotFound, google_errors.PreconditionFailed):
                return

    def check(self) -> str:
        """As Files."""
        with self._errors():
            next(iter(self._storage().list_blobs(self._bucket, max_results=1)), None)
        return "the bucket can be listed"

    def close(self) -> None:
        """As Files."""
        if self._client is not None:
            self._client.close()

    def _storage(self) -> Any:
        if self._client is None:
            try:
                import google.cloud.storage as storage
                from google.auth.credentials import AnonymousCredentials
            except ImportError:
                raise SourceMisconfiguredError(
                    self._name, "Google's libraries are not installed: requirements-cloud.txt"
                ) from None
            emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
            self._client = (
                storage.Client(project="emulated", credentials=AnonymousCredentials())
                if emulated
                else storage.Client()
            )
        return self._client

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SourceMisconfiguredError:
            raise  # also that Google's libraries, which know its errors, are not there
        except _googles_errors() as error:
            # Google's texts quote names of objects.
            kind = type(error).__name__
            if kind in ("Forbidden", "Unauthorized", "NotFound", "DefaultCredentialsError"):
                raise SourceMisconfiguredError(self._name, f"Cloud Storage: {kind}") from None
            raise SourceUnavailableError(self._name, f"Cloud Storage: {kind}") from None


def _googles_errors() -> tuple[type[Exception], ...]:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    # Connections that break and time-outs, those of `requests` too, are an OSError.
    return GoogleAPIError, GoogleAuthError, OSError
