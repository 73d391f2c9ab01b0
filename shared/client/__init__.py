"""A thin client of the API: `Client(url, key)`. It needs `requests` and nothing else of ours."""

from shared.client.client import Client
from shared.client.problems import ApiError, ApiUnreachableError

__all__ = ["ApiError", "ApiUnreachableError", "Client"]
